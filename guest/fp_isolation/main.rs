//! Floating point and SIMD registers belong to their CPU: V0 to V31, FPCR and FPSR of each, in use on several at once,
//! keep their values while CPUs take turns, also on one physical CPU, at EL1 and at EL0.
#![no_std]
#![no_main]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::sync::{Barrier, pause};
use runtime::{check_eq, mmu, println, read_sysreg, smp, timer, write_sysreg};

runtime::guest!("fp_isolation", fp_isolation);

/// Milliseconds in which CPUs may be preempted.
const LOOK_MS: u64 = 100;
/// Turns taken of their own will.
const TURNS: u64 = 200;
/// FPCR.{RMode, FZ, DN}: what every CPU has.
const FPCR_BITS: u64 = 0xf << 22;
/// FPSR.{IOC, DZC, OFC, UFC, IXC} and QC.
const FPSR_BITS: u64 = 0x1f | 1 << 27;

static GATE: Barrier = Barrier::new();
static CHECKS: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    /// Fills V0 to V31, both halves, with numbers made of `seed`.
    fn fp_fill(seed: u64);
    /// How many halves are not what `fp_fill(seed)` made them.
    fn fp_differences(seed: u64) -> u64;
}

global_asm!(
    ".pushsection .text.fp, \"ax\"",
    ".arch_extension fp",
    ".arch_extension simd",
    ".altmacro",
    ".macro FILL n",
    "add   x1, x0, #\\n",
    "mvn   x2, x1",
    "fmov  d\\n, x1",
    "mov   v\\n\\().d[1], x2",
    ".endm",
    ".macro DIFFER n",
    "add   x1, x0, #\\n",
    "fmov  x2, d\\n",
    "cmp   x1, x2",
    "cinc  x3, x3, ne",
    "mvn   x1, x1",
    "mov   x2, v\\n\\().d[1]",
    "cmp   x1, x2",
    "cinc  x3, x3, ne",
    ".endm",
    "fp_fill:",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "FILL \\n",
    ".endr",
    "ret",
    "fp_differences:",
    "mov   x3, xzr",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
    "DIFFER \\n",
    ".endr",
    "mov   x0, x3",
    "ret",
    ".popsection",
);

fn fp_isolation() {
    smp::require(2);
    mmu::Tables::identity().enable();
    // SAFETY: Rust code here uses no floating point (softfloat).
    unsafe { fp_fill(seed(0)) };
    for cpu in 1..cpus() {
        smp::start(cpu, first_look);
    }
    smp::on_all(cpus(), look);
    println!(
        "{} CPUs compared their registers {} times",
        cpus(),
        CHECKS.load(Ordering::Acquire)
    );
    check_eq!(differences(0), 0, "halves changed of CPU 0 in the end");
}

fn cpus() -> usize {
    smp::count().min(4)
}

fn seed(cpu: usize) -> u64 {
    0x0123_4567_89ab_0000 + ((cpu as u64 + 1) << 8)
}

fn differences(cpu: usize) -> u64 {
    // SAFETY: reads registers; Rust code here uses no floating point.
    unsafe { fp_differences(seed(cpu)) }
}

/// A CPU that has just started sees no other's registers.
fn first_look() {
    for cpu in 0..smp::index() {
        check_eq!(
            differences(cpu),
            64,
            "halves new to CPU {} of CPU {cpu}",
            smp::index()
        );
    }
    // SAFETY: as in `fp_isolation`.
    unsafe { fp_fill(seed(smp::index())) };
    smp::serve();
}

fn look() {
    let cpu = smp::index();
    let control = ((cpu as u64 + 1) << 22) & FPCR_BITS;
    let status = (1 << cpu | u64::from(cpu.is_multiple_of(2)) << 27) & FPSR_BITS;
    write_sysreg!("S3_3_C4_C4_0", control);
    write_sysreg!("S3_3_C4_C4_1", status);
    let check = |when: &str| {
        check_eq!(differences(cpu), 0, "{when}: halves changed of CPU {cpu}");
        check_eq!(
            read_sysreg!("S3_3_C4_C4_0"),
            control,
            "{when}: FPCR of CPU {cpu}"
        );
        check_eq!(
            read_sysreg!("S3_3_C4_C4_1"),
            status,
            "{when}: FPSR of CPU {cpu}"
        );
        CHECKS.fetch_add(1, Ordering::Relaxed);
    };
    check("at first");
    for _ in 0..smp::rounds(TURNS) {
        GATE.wait(cpus());
        check("taking turns");
        pause();
        check("after a wait");
    }
    let end = timer::now() + timer::frequency() * LOOK_MS / 1000;
    while timer::now() < end {
        check("preempted");
    }
    // One CPU leaves floating point alone while the others go on, then looks again.
    if cpu == 0 {
        timer::spin_ms(LOOK_MS / 2);
    }
    check("at last");
    GATE.wait(cpus());
    write_sysreg!("S3_3_C4_C4_0", 0);
    write_sysreg!("S3_3_C4_C4_1", 0);
}
