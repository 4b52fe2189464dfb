//! Exceptions of EL2's own: a few are expected and stepped over, all others are the end, and are told as well as possible.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::TPIDR_EL0;
use faultline::addr::{Pa, PaRange};

use tock_registers::interfaces::Readable;

use super::console::{self, print_in_panic};
use super::{hyp_map, percpu, power, refuse, smp};

/// What `el2_exception` in vectors.S saves, in its order.
#[repr(C)]
pub(super) struct Frame {
    x: [u64; 31],
    sp: u64,
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
}

/// The vector number of a stack that ran over.
pub(super) const OVERFLOW: u64 = 4;

const EC_DATA_ABORT_SAME: u64 = 0x25;
/// Frames a backtrace looks at: as many as a stack can hold.
const BACKTRACE: usize = 4096;

unsafe extern "C" {
    static probe_access: u8;
    static probe_failed: u8;
    static at_access: u8;
    static at_failed: u8;
    fn probe_read(address: u64) -> Probed;
}

#[repr(C)]
struct Probed {
    value: u64,
    failed: u64,
}

/// Reads a word that may not be there; `None` if the access was answered with an abort.
pub(super) fn probe(address: Pa) -> Option<u32> {
    // SAFETY: the address is mapped as memory; that nothing may answer is what this is for, and the fix-up catches it.
    let probed = unsafe { probe_read(address.raw()) };
    (probed.failed == 0).then_some(probed.value as u32)
}

/// Where an abort at EL2 is expected, and where to go on then.
fn fix_up(frame: &Frame, vector: u64) -> Option<u64> {
    if vector != 0 || frame.esr >> 26 & 0x3f != EC_DATA_ABORT_SAME {
        return None;
    }
    let places = [
        (
            &raw const probe_access as u64,
            &raw const probe_failed as u64,
        ),
        (&raw const at_access as u64, &raw const at_failed as u64),
    ];
    places
        .into_iter()
        .find(|(fault, _)| *fault == frame.elr)
        .map(|(_, go_on)| go_on)
}

/// Called from vectors.S. Comes back only where the fix-up table says so.
pub(super) extern "C" fn exception(frame: &mut Frame, vector: u64) {
    if let Some(go_on) = fix_up(frame, vector) {
        frame.elr = go_on;
        return;
    }
    if vector == OVERFLOW {
        // vectors.S carried it there; the frame has the emergency stack's.
        frame.sp = TPIDR_EL0.get();
    }
    if first_crash() {
        let what = match vector {
            0 => class_name(frame.esr >> 26 & 0x3f),
            1 => "an interrupt that should have been masked",
            2 => "a fast interrupt that should have been masked",
            3 => "a system error (SError)",
            _ => "the stack ran into its guard page",
        };
        print_in_panic(format_args!("\nfaultline: EL2 crashed: {what}"));
        dump(frame);
        backtrace(frame.x[29], Some(frame.elr));
        last_exit();
    }
    power::end(power::Verdict::Crashed)
}

/// Prints where EL2 panicked; called by the panic handler.
pub(super) fn report_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if first_crash() {
        print_in_panic(format_args!(
            "\nfaultline: EL2 panicked: {}",
            info.message()
        ));
        if let Some(place) = info.location() {
            print_in_panic(format_args!("  at {}:{}", place.file(), place.line()));
        }
        let fp: u64;
        // SAFETY: reads a register.
        unsafe { core::arch::asm!("mov {}, x29", out(reg) fp, options(nomem, nostack)) };
        backtrace(fp, None);
        last_exit();
    }
    power::end(power::Verdict::Crashed)
}

/// True once: a crash in the report of a crash is not reported, and a third one ends everything.
fn first_crash() -> bool {
    static CRASHES: AtomicU64 = AtomicU64::new(0);
    let before = CRASHES.fetch_add(1, Ordering::Relaxed);
    if before > 1 {
        power::wait_for_ever(refuse::code::CRASH);
    }
    if before == 0 && !console::is_open() {
        refuse::early_console();
    }
    before == 0
}

fn class_name(class: u64) -> &'static str {
    match class {
        0x00 => "an instruction unknown to this CPU",
        0x0e => "an illegal execution state",
        0x15..=0x17 => "a call that nobody answers (HVC or SMC)",
        0x18 => "a trapped system register",
        0x21 => "an instruction abort",
        0x22 => "a misaligned PC",
        0x25 => "a data abort",
        0x26 => "a misaligned stack pointer",
        0x3c => "a breakpoint instruction",
        _ => "a synchronous exception",
    }
}

fn dump(frame: &Frame) {
    print_in_panic(format_args!(
        "  ELR_EL2 {:#018x}  FAR_EL2  {:#018x}\n  ESR_EL2 {:#018x}  SPSR_EL2 {:#018x}",
        frame.elr, frame.far, frame.esr, frame.spsr
    ));
    for row in 0..8 {
        let n = row * 4;
        let x = |n: usize| frame.x.get(n).copied().unwrap_or(frame.sp);
        let last = if row == 7 { "sp " } else { "x" };
        let number = |n| format_number(n, last);
        print_in_panic(format_args!(
            "  x{:<2} {:016x}  x{:<2} {:016x}  x{:<2} {:016x}  {} {:016x}",
            n,
            x(n),
            n + 1,
            x(n + 1),
            n + 2,
            x(n + 2),
            number(n + 3),
            x(n + 3)
        ));
    }
}

/// "x3 " … "x27", or "sp " for the register after x30.
fn format_number(n: usize, name: &'static str) -> impl core::fmt::Display {
    struct Name(usize, &'static str);
    impl core::fmt::Display for Name {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            if self.0 == 31 {
                f.write_str(self.1)
            } else {
                write!(f, "x{:<2}", self.0)
            }
        }
    }
    Name(n, name)
}

/// Follows the frame pointers. Addresses are also shown relative to the image, as the symbol table has them.
fn backtrace(mut fp: u64, pc: Option<u64>) {
    let image = hyp_map::image();
    let show = |address: u64| match address.checked_sub(image.start.raw()) {
        Some(offset) if offset < image.size => {
            print_in_panic(format_args!("  {address:#018x}  faultline+{offset:#x}"))
        }
        _ => print_in_panic(format_args!("  {address:#018x}")),
    };
    print_in_panic(format_args!(
        "  backtrace (addr2line -fe target/faultline.elf OFFSET, the number behind the +):"
    ));
    pc.into_iter().for_each(show);
    let mut last = 0;
    for _ in 0..BACKTRACE {
        let Some(record) = frame_record(fp, image) else {
            return;
        };
        // A function that calls itself is shown once.
        if record.1 != last {
            show(record.1.wrapping_sub(4));
            last = record.1;
        }
        // Frames lie ever higher on the stack: anything else is not a stack.
        if record.0 <= fp {
            return;
        }
        fp = record.0;
    }
}

fn frame_record(fp: u64, image: PaRange) -> Option<(u64, u64)> {
    let is_stack = |at: u64| image.contains(Pa::new(at)) || smp::is_stack(Pa::new(at));
    if !fp.is_multiple_of(8) || !is_stack(fp) || !is_stack(fp.wrapping_add(15)) {
        return None;
    }
    let word = |at| Some(u64::from(probe(Pa::new(at))?) | u64::from(probe(Pa::new(at + 4))?) << 32);
    let record = (word(fp)?, word(fp + 8)?);
    (record.1 != 0).then_some(record)
}

fn last_exit() {
    let [pc, esr, far, hpfar, _] = percpu::last_exit();
    print_in_panic(format_args!(
        "  last guest exit: PC {pc:#x}\n  ESR_EL2 {esr:#x}  FAR_EL2 {far:#x}  HPFAR_EL2 {hpfar:#x}"
    ));
}
