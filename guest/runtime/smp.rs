//! More CPUs: started by PSCI CPU_ON, each with a stack of its own, our vectors, and the stage 1 of the CPU that
//! started it.
//!
//! CPUs are counted from 0, in the order of their affinity; TPIDRRO_EL0 holds a CPU's number.
//!
//! Source: PSCI (DEN 0022) CPU_ON, "Initial core state".
use crate::global::Global;
use crate::hypercall::{self, Conduit};
use crate::sync::{self, PerCpu, wait_for};
use crate::{cache, entry, fdt, read_sysreg, trap, verdict, write_sysreg};
use core::arch::global_asm;
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Most CPUs a guest of ours uses.
pub const MAX: usize = 8;
/// Bytes of stack of each further CPU.
const STACK: usize = 16 << 10;
/// MPIDR_EL1's affinity fields.
pub const AFFINITY: u64 = 0xff_00ff_ffff;

/// CPU_ON, 64-bit.
pub const CPU_ON: u32 = 0xc400_0003;
/// CPU_OFF.
pub const CPU_OFF: u32 = 0x8400_0002;
/// AFFINITY_INFO, 64-bit.
pub const AFFINITY_INFO: u32 = 0xc400_0004;

/// PSCI's return codes.
#[allow(missing_docs, reason = "the names are PSCI's")]
pub mod code {
    pub const SUCCESS: i64 = 0;
    pub const NOT_SUPPORTED: i64 = -1;
    pub const INVALID_PARAMETERS: i64 = -2;
    pub const DENIED: i64 = -3;
    pub const ALREADY_ON: i64 = -4;
    pub const ON_PENDING: i64 = -5;
    pub const INVALID_ADDRESS: i64 = -9;
    /// AFFINITY_INFO's answers.
    pub const ON: i64 = 0;
    pub const OFF: i64 = 1;
}

/// What the entry code gives a CPU before Rust runs on it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Regime {
    mair: u64,
    tcr: u64,
    ttbr0: u64,
    sctlr: u64,
}

/// What a CPU runs.
type Body = fn();

/// What a CPU was started with.
#[derive(Clone, Copy)]
pub struct Arrival {
    /// x0.
    pub context: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// DAIF.
    pub daif: u64,
    /// SPSel.
    pub spsel: u64,
    /// CurrentEL.
    pub current_el: u64,
}

#[repr(C, align(64))]
struct Stacks(core::cell::UnsafeCell<[[u8; STACK]; MAX]>);
// SAFETY: each CPU uses its own stack only, and Rust refers to none of them.
unsafe impl Sync for Stacks {}

#[unsafe(no_mangle)]
static GUEST_STACKS: Stacks = Stacks(core::cell::UnsafeCell::new([[0; STACK]; MAX]));
#[unsafe(no_mangle)]
static GUEST_REGIME: Global<Regime> = Global::new(Regime {
    mair: 0,
    tcr: 0,
    ttbr0: 0,
    sctlr: 0,
});
static BODIES: [Global<Option<Body>>; MAX] = [const { Global::new(None) }; MAX];
static ARRIVALS: PerCpu<Arrival> = PerCpu::new(Arrival {
    context: 0,
    sctlr: 0,
    daif: 0,
    spsel: 0,
    current_el: 0,
});
static STARTED: Global<bool> = Global::new(false);
static ARRIVED: [AtomicU64; MAX] = [const { AtomicU64::new(0) }; MAX];
static KNOWN: Global<Option<Cpus>> = Global::new(None);

/// The CPUs of the device tree.
#[derive(Clone, Copy)]
struct Cpus {
    count: usize,
    affinities: [u64; MAX],
}

/// This CPU's number.
pub fn index() -> usize {
    read_sysreg!("TPIDRRO_EL0") as usize & 0xff
}

/// Whether any CPU was started, ever.
pub fn have_started() -> bool {
    STARTED.get()
}

fn cpus() -> Cpus {
    if let Some(known) = KNOWN.get() {
        return known;
    }
    let mut cpus = Cpus {
        count: 0,
        affinities: [0; MAX],
    };
    fdt::find::<()>(|node, property, value| {
        if node.starts_with(b"cpu@") && property == b"reg" && cpus.count < MAX {
            let number = value.iter().fold(0, |sum, &b| sum << 8 | u64::from(b));
            cpus.affinities[cpus.count] = number & AFFINITY;
            cpus.count += 1;
        }
        None
    });
    cpus.count = cpus.count.max(1);
    cpus.affinities[..cpus.count].sort_unstable();
    KNOWN.set(Some(cpus));
    cpus
}

/// How many CPUs there are, up to [`MAX`].
pub fn count() -> usize {
    cpus().count
}

/// The affinity fields of CPU `n`'s MPIDR_EL1, as PSCI and the GIC take them.
pub fn affinity(n: usize) -> u64 {
    cpus().affinities[n]
}

/// The guest needs `needed` CPUs: with fewer, its verdict says so.
pub fn require(needed: usize) {
    if count() < needed {
        verdict::pass_without("too few CPUs");
    }
}

/// How often to do what hands over from CPU to CPU: `times`, or a sixteenth where `crowded` on the command line says that
/// there are fewer physical CPUs, and a hand-over may take a time slice (QEMU does not trap WFE).
pub fn rounds(times: u64) -> u64 {
    if fdt::has_word("crowded") {
        times / 16
    } else {
        times
    }
}

/// How many times CPU `n` has arrived in [`start`]'s body.
pub fn arrivals(n: usize) -> u64 {
    ARRIVED[n].load(Ordering::Acquire)
}

/// What this CPU was started with.
pub fn arrival(n: usize) -> Arrival {
    ARRIVALS.of(n)
}

/// The address CPUs are started at.
pub fn entry_point() -> u64 {
    unsafe extern "C" {
        fn guest_secondary();
    }
    guest_secondary as *const () as u64
}

/// Lays out what the entry code reads: this CPU's regime, and what CPU `n` is to run.
pub fn prepare(n: usize, body: fn()) {
    STARTED.set(true);
    sync::start_event_stream();
    BODIES[n].set(Some(body));
    let regime = Regime {
        mair: read_sysreg!("MAIR_EL1"),
        tcr: read_sysreg!("TCR_EL1"),
        ttbr0: read_sysreg!("TTBR0_EL1"),
        sctlr: read_sysreg!("SCTLR_EL1"),
    };
    GUEST_REGIME.set(regime);
    // Read there with caches off.
    cache::clean_to_poc(&raw const GUEST_REGIME as u64, size_of::<Regime>() as u64);
}

/// CPU_ON as it is; x0 of the new CPU is `context`, whose low byte must be its number when it enters [`entry_point`].
pub fn cpu_on(affinity: u64, entry: u64, context: u64) -> i64 {
    hypercall::call(Conduit::Hvc, CPU_ON, [affinity, entry, context])[0] as i64
}

/// Starts CPU `n` with `body`; when that returns the CPU turns itself off.
pub fn start(n: usize, body: fn()) {
    prepare(n, body);
    let before = arrivals(n);
    let answer = cpu_on(affinity(n), entry_point(), n as u64);
    crate::check_eq!(answer, code::SUCCESS, "CPU_ON of CPU {n}");
    wait_for("a CPU to start", || arrivals(n) > before);
}

/// Starts CPUs 1 to `count - 1` with `body`.
pub fn start_others(count: usize, body: fn()) {
    for n in 1..count {
        start(n, body);
    }
}

/// What a CPU in [`serve`] is to run next: the address of a `fn()`, 0 for nothing.
static MAIL: [AtomicUsize; MAX] = [const { AtomicUsize::new(0) }; MAX];

/// Runs what others [`post`], for ever.
pub fn serve() {
    let mail = &MAIL[index()];
    loop {
        wait_for_mail(mail);
        // SAFETY: only `post` writes other than 0, the address of a `fn()`.
        let action: fn() = unsafe { core::mem::transmute(mail.load(Ordering::Acquire)) };
        action();
        mail.store(0, Ordering::Release);
    }
}

fn wait_for_mail(mail: &AtomicUsize) {
    while mail.load(Ordering::Acquire) == 0 {
        sync::pause();
    }
}

/// Has CPU `n`, which is in [`serve`], run this.
pub fn post(n: usize, action: fn()) {
    wait_until_idle(n);
    MAIL[n].store(action as *const () as usize, Ordering::Release);
    sync::send_event();
}

/// Waits until CPU `n` has done what was posted.
pub fn wait_until_idle(n: usize) {
    wait_for("another CPU's work", || {
        MAIL[n].load(Ordering::Acquire) == 0
    });
}

/// Has CPU `n` run this, and waits; CPU 0 itself does it at once.
pub fn on(n: usize, action: fn()) {
    if n == index() {
        return action();
    }
    post(n, action);
    wait_until_idle(n);
}

/// Has CPUs 0 to `count - 1` run this at once, and waits.
pub fn on_all(count: usize, action: fn()) {
    for n in 1..count {
        post(n, action);
    }
    action();
    for n in 1..count {
        wait_until_idle(n);
    }
}

/// AFFINITY_INFO.
pub fn affinity_info(affinity: u64, level: u64) -> i64 {
    i64::from(hypercall::call(Conduit::Hvc, AFFINITY_INFO, [affinity, level, 0])[0] as i32)
}

/// Waits until CPU `n` is off.
pub fn wait_until_off(n: usize) {
    wait_for("a CPU to be off", || {
        affinity_info(affinity(n), 0) == code::OFF
    });
}

/// Turns this CPU off.
pub fn off() -> ! {
    let answer = hypercall::hvc(CPU_OFF, 0);
    verdict::fail(format_args!("CPU_OFF returned {answer:#x}"))
}

/// A CPU's first Rust.
// SAFETY: called only by the entry code below, which knows this symbol.
#[unsafe(no_mangle)]
extern "C" fn guest_secondary_main(
    number: usize,
    context: u64,
    sctlr: u64,
    daif: u64,
    spsel: u64,
    current_el: u64,
) -> ! {
    trap::install();
    entry::allow_fp();
    sync::start_event_stream();
    ARRIVALS.set(Arrival {
        context,
        sctlr,
        daif,
        spsel,
        current_el,
    });
    ARRIVED[number].fetch_add(1, Ordering::AcqRel);
    if let Some(body) = BODIES[number].get() {
        body();
    }
    // Nothing of this life may hold an exception back in the next.
    write_sysreg!("DAIF", 0x3c0);
    off()
}

global_asm!(
    ".pushsection .text.secondary, \"ax\"",
    ".global guest_secondary",
    // In: x0 = context, MMU off. Only registers until stage 1 is on.
    "guest_secondary:",
    "mrs   x9, sctlr_el1",
    "mrs   x10, daif",
    "mrs   x11, spsel",
    "mrs   x12, CurrentEL",
    "mov   x13, x0",
    "and   x0, x0, #0xff",
    "msr   tpidrro_el0, x0",
    "msr   spsel, #1",
    "adrp  x1, GUEST_REGIME",
    "add   x1, x1, :lo12:GUEST_REGIME",
    "ldr   x2, [x1, #{mair}]",
    "ldr   x3, [x1, #{tcr}]",
    "ldr   x4, [x1, #{ttbr0}]",
    "ldr   x5, [x1, #{sctlr}]",
    "msr   mair_el1, x2",
    "msr   tcr_el1, x3",
    "msr   ttbr0_el1, x4",
    "isb",
    "tlbi  vmalle1",
    "dsb   nsh",
    "isb",
    "msr   sctlr_el1, x5",
    "isb",
    "adrp  x1, GUEST_STACKS",
    "add   x1, x1, :lo12:GUEST_STACKS",
    "add   x2, x0, #1",
    "mov   x3, #{stack}",
    "madd  x1, x2, x3, x1",
    "mov   sp, x1",
    "mov   x29, xzr",
    "mov   x30, xzr",
    "mov   x1, x13",
    "mov   x2, x9",
    "mov   x3, x10",
    "mov   x4, x11",
    "mov   x5, x12",
    "bl    guest_secondary_main",
    "b     .",
    ".popsection",
    mair = const offset_of!(Regime, mair),
    tcr = const offset_of!(Regime, tcr),
    ttbr0 = const offset_of!(Regime, ttbr0),
    sctlr = const offset_of!(Regime, sctlr),
    stack = const STACK,
);
