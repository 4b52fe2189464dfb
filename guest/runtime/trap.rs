//! Exceptions taken at EL1: recorded, and then skipped, fixed or fatal.
//!
//! All sixteen vectors, the same for each CPU, save everything into a [`Frame`] and call one function. While [`catch`] runs, a synchronous
//! exception is noted and left behind: in this program's own code at the next instruction, and anywhere else (code that
//! is not there, or was made up) by returning to its caller, x30. Outside of `catch` a synchronous exception fails the
//! guest.
//!
//! Source: DDI 0487 "Exception vectors", "ESR_EL1".
use crate::global::Global;
use crate::sync::PerCpu;
use crate::{el0, pages, print, println, read_sysreg, verdict, write_sysreg};
use core::arch::global_asm;
use core::mem::{offset_of, size_of};

/// What a vector saved.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Offset of the vector from VBAR_EL1.
    pub vector: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// ELR_EL1; the frame's value is where the exception returns to.
    pub elr: u64,
    /// SPSR_EL1; likewise.
    pub spsr: u64,
    /// PSTATE.NZCV as the handler found it, in bits 31:28.
    pub nzcv: u64,
    /// PSTATE.DAIF as the handler found it, in bits 9:6.
    pub daif: u64,
    /// PSTATE.SP as the handler found it.
    pub spsel: u64,
    /// PSTATE.EL as the handler found it, in bits 3:2.
    pub current_el: u64,
}

/// ESR_EL1.EC values guests meet.
pub mod class {
    /// Unknown reason: an UNDEFINED instruction.
    pub const UNKNOWN: u64 = 0x00;
    /// SVC in AArch64.
    pub const SVC64: u64 = 0x15;
    /// Trapped MSR, MRS or system instruction.
    pub const SYSTEM: u64 = 0x18;
    /// Access to SVE, trapped.
    pub const SVE: u64 = 0x19;
    /// Access to SME, trapped.
    pub const SME: u64 = 0x1d;
    /// Instruction abort from EL0.
    pub const INSTRUCTION_ABORT_LOWER: u64 = 0x20;
    /// Instruction abort from EL1.
    pub const INSTRUCTION_ABORT: u64 = 0x21;
    /// Data abort from EL0.
    pub const DATA_ABORT_LOWER: u64 = 0x24;
    /// Data abort from EL1.
    pub const DATA_ABORT: u64 = 0x25;
}

impl Frame {
    /// ESR_EL1.EC.
    pub fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// ESR_EL1.IL.
    pub fn il(&self) -> bool {
        self.esr >> 25 & 1 == 1
    }

    /// ESR_EL1.ISS.
    pub fn iss(&self) -> u64 {
        self.esr & 0x1ff_ffff
    }

    /// The fault status code of an abort.
    pub fn fault_status(&self) -> u64 {
        self.esr & 0x3f
    }

    /// Whether it is an abort, of an instruction or of data.
    pub fn is_abort(&self) -> bool {
        matches!(
            self.class(),
            class::INSTRUCTION_ABORT_LOWER
                | class::INSTRUCTION_ABORT
                | class::DATA_ABORT_LOWER
                | class::DATA_ABORT
        )
    }

    /// Whether the vector is one of the four for synchronous exceptions.
    fn is_synchronous(&self) -> bool {
        self.vector & 0x180 == 0
    }

    /// Whether the vector is one of the four for IRQs.
    fn is_irq(&self) -> bool {
        self.vector & 0x180 == 0x80
    }

    /// Whether it is one of those for FIQs.
    fn is_fiq(&self) -> bool {
        self.vector & 0x180 == 0x100
    }
}

/// What [`catch`] saw.
#[derive(Clone, Copy)]
pub struct Caught {
    /// How many exceptions.
    pub count: u64,
    /// The last of them.
    pub last: Option<Frame>,
}

/// A handler that mends the cause of an abort, so that the instruction can run again; says whether it did.
pub type Mend = fn(&Frame) -> bool;

/// A handler of debug exceptions, which may change where and how they return; says whether it was one.
pub type Debug = fn(&mut Frame) -> bool;

static CATCHING: PerCpu<bool> = PerCpu::new(false);
/// A dump is being printed.
static DUMPING: Global<bool> = Global::new(false);
static CAUGHT: PerCpu<Caught> = PerCpu::new(Caught {
    count: 0,
    last: None,
});
static MEND: Global<Option<Mend>> = Global::new(None);
static DEBUG: Global<Option<Debug>> = Global::new(None);
static IRQ: Global<Option<fn()>> = Global::new(None);
static FIQ: Global<Option<fn()>> = Global::new(None);

/// Runs `action` and records the synchronous exceptions it takes.
pub fn catch<T>(action: impl FnOnce() -> T) -> (T, Caught) {
    CAUGHT.set(Caught {
        count: 0,
        last: None,
    });
    CATCHING.set(true);
    let result = action();
    CATCHING.set(false);
    (result, CAUGHT.get())
}

/// Gives aborts to `mend` first.
pub fn on_abort(mend: Option<Mend>) {
    MEND.set(mend);
}

/// Gives synchronous exceptions to `handler` first.
pub fn on_debug(handler: Option<Debug>) {
    DEBUG.set(handler);
}

/// Gives IRQs to `handler`.
pub fn on_irq(handler: fn()) {
    IRQ.set(Some(handler));
}

/// Gives FIQs to `handler`.
pub fn on_fiq(handler: fn()) {
    FIQ.set(Some(handler));
}

/// Lets IRQs in.
pub fn unmask_irq() {
    // SAFETY: the vectors are installed and the IRQ handler is set by the caller's order of calls; else it fails loudly.
    unsafe { core::arch::asm!("msr daifclr, #2", options(nostack)) };
}

/// Keeps IRQs out.
pub fn mask_irq() {
    // SAFETY: masking has no effect on memory.
    unsafe { core::arch::asm!("msr daifset, #2", options(nostack)) };
}

/// Points VBAR_EL1 to our vectors.
pub fn install() {
    write_sysreg!("VBAR_EL1", vectors());
}

/// Address of our vector table.
pub fn vectors() -> u64 {
    let address: u64;
    // SAFETY: only forms an address.
    unsafe {
        core::arch::asm!("adrp {0}, guest_vectors", "add {0}, {0}, :lo12:guest_vectors", out(reg) address,
            options(nomem, nostack, preserves_flags));
    }
    address
}

/// Every exception comes here; what it leaves in the frame is what the CPU returns to.
// SAFETY: called only by the vectors below, which know this symbol.
#[unsafe(no_mangle)]
extern "C" fn guest_exception(frame: &mut Frame) {
    if frame.is_irq() {
        return match IRQ.get() {
            Some(handler) => handler(),
            None => verdict::fail(format_args!("an IRQ that nobody asked for")),
        };
    }
    if frame.is_fiq()
        && let Some(handler) = FIQ.get()
    {
        return handler();
    }
    if !frame.is_synchronous() {
        dump(frame);
        verdict::fail(format_args!("exception at vector {:#05x}", frame.vector));
    }
    if let Some(handler) = DEBUG.get()
        && handler(frame)
    {
        return;
    }
    if el0::is_farewell(frame) {
        return el0::leave(frame);
    }
    if frame.is_abort() && MEND.get().is_some_and(|mend| mend(frame)) {
        return;
    }
    if !CATCHING.get() {
        dump(frame);
        verdict::fail(format_args!(
            "exception of class {:#04x} at {:#x}",
            frame.class(),
            frame.elr
        ));
    }
    CAUGHT.set(Caught {
        count: CAUGHT.get().count + 1,
        last: Some(*frame),
    });
    if !pages::is_own_code(frame.elr) {
        frame.elr = frame.x[30];
    } else if frame.class() != class::SVC64 {
        frame.elr += 4;
    }
}

fn dump(frame: &Frame) {
    // Without a console the first word would fault, and so would the report of that.
    if DUMPING.get() {
        crate::hypercall::exit(1);
    }
    DUMPING.set(true);
    println!("unexpected exception at EL1, vector {:#05x}", frame.vector);
    println!(
        "  ESR {:#x}  FAR {:#x}  ELR {:#x}  SPSR {:#x}",
        frame.esr, frame.far, frame.elr, frame.spsr
    );
    for (number, value) in frame.x.iter().enumerate() {
        print!(
            "  x{number:<2} {value:#018x}{}",
            if number % 3 == 2 { "\n" } else { "" }
        );
    }
    println!(
        "  VBAR {:#x}  SCTLR {:#x}",
        read_sysreg!("VBAR_EL1"),
        read_sysreg!("SCTLR_EL1")
    );
}

global_asm!(
    ".macro VECTOR offset",
    ".balign 0x80",
    "sub   sp, sp, #{size}",
    "stp   x0, x1, [sp]",
    "mov   x0, #\\offset",
    "b     guest_vector_common",
    ".endm",
    ".pushsection .text.vectors, \"ax\"",
    ".balign 0x800",
    ".global guest_vectors",
    "guest_vectors:",
    "VECTOR 0x000",
    "VECTOR 0x080",
    "VECTOR 0x100",
    "VECTOR 0x180",
    "VECTOR 0x200",
    "VECTOR 0x280",
    "VECTOR 0x300",
    "VECTOR 0x380",
    "VECTOR 0x400",
    "VECTOR 0x480",
    "VECTOR 0x500",
    "VECTOR 0x580",
    "VECTOR 0x600",
    "VECTOR 0x680",
    "VECTOR 0x700",
    "VECTOR 0x780",
    // x0 = vector offset; x0 and x1 are saved; nothing has touched the flags yet.
    "guest_vector_common:",
    "mrs   x1, nzcv",
    "stp   x2, x3, [sp, #16 * 1]",
    "stp   x4, x5, [sp, #16 * 2]",
    "stp   x6, x7, [sp, #16 * 3]",
    "stp   x8, x9, [sp, #16 * 4]",
    "stp   x10, x11, [sp, #16 * 5]",
    "stp   x12, x13, [sp, #16 * 6]",
    "stp   x14, x15, [sp, #16 * 7]",
    "stp   x16, x17, [sp, #16 * 8]",
    "stp   x18, x19, [sp, #16 * 9]",
    "stp   x20, x21, [sp, #16 * 10]",
    "stp   x22, x23, [sp, #16 * 11]",
    "stp   x24, x25, [sp, #16 * 12]",
    "stp   x26, x27, [sp, #16 * 13]",
    "stp   x28, x29, [sp, #16 * 14]",
    "stp   x30, x0, [sp, #16 * 15]",
    "mrs   x2, esr_el1",
    "mrs   x3, far_el1",
    "stp   x2, x3, [sp, #{esr}]",
    "mrs   x2, elr_el1",
    "mrs   x3, spsr_el1",
    "stp   x2, x3, [sp, #{elr}]",
    "mrs   x2, daif",
    "stp   x1, x2, [sp, #{nzcv}]",
    "mrs   x2, spsel",
    "mrs   x3, CurrentEL",
    "stp   x2, x3, [sp, #{spsel}]",
    "mov   x0, sp",
    "bl    guest_exception",
    "ldp   x2, x3, [sp, #{elr}]",
    "msr   elr_el1, x2",
    "msr   spsr_el1, x3",
    "ldp   x2, x3, [sp, #16 * 1]",
    "ldp   x4, x5, [sp, #16 * 2]",
    "ldp   x6, x7, [sp, #16 * 3]",
    "ldp   x8, x9, [sp, #16 * 4]",
    "ldp   x10, x11, [sp, #16 * 5]",
    "ldp   x12, x13, [sp, #16 * 6]",
    "ldp   x14, x15, [sp, #16 * 7]",
    "ldp   x16, x17, [sp, #16 * 8]",
    "ldp   x18, x19, [sp, #16 * 9]",
    "ldp   x20, x21, [sp, #16 * 10]",
    "ldp   x22, x23, [sp, #16 * 11]",
    "ldp   x24, x25, [sp, #16 * 12]",
    "ldp   x26, x27, [sp, #16 * 13]",
    "ldp   x28, x29, [sp, #16 * 14]",
    "ldr   x30, [sp, #16 * 15]",
    "ldp   x0, x1, [sp], #{size}",
    "eret",
    ".popsection",
    size = const size_of::<Frame>(),
    esr = const offset_of!(Frame, esr),
    elr = const offset_of!(Frame, elr),
    nzcv = const offset_of!(Frame, nzcv),
    spsel = const offset_of!(Frame, spsel),
);
