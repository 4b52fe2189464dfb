//! Breakpoints, watchpoints and single steps are the guest's own, and each CPU's own: at EL1 and at EL0, on several CPUs
//! at once, however they take turns.
//!
//! Oracle: DDI 0487 "AArch64 Self-hosted Debug": breakpoint exceptions, watchpoint exceptions, software step exceptions.
#![no_std]
#![no_main]

mod slots;

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::pages::{self, PAGE};
use runtime::platform::RAM_BASE;
use runtime::sync::Barrier;
use runtime::trap::{self, Frame};
use runtime::{cache, check, check_eq, el0, mmio, mmu, println, read_sysreg, smp, write_sysreg};

runtime::guest!("debug", debug);

/// ESR_EL1.EC of debug exceptions: breakpoint, step, watchpoint, each from a lower level and from the same; BRK.
const BREAKPOINT: [u64; 2] = [0x30, 0x31];
const STEP: [u64; 2] = [0x32, 0x33];
const WATCHPOINT: [u64; 2] = [0x34, 0x35];
const BRK: u64 = 0x3c;
/// ISS.DFSC: debug exception.
const DEBUG_STATUS: u64 = 0x22;
/// MDSCR_EL1: software step, debug at EL1 too, debug at all.
const SS: u64 = 1;
const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;
/// Comments of BRK by which code at EL1 is stepped.
const START_STEPPING: u64 = 1;
const STOP_STEPPING: u64 = 2;
/// SPSR_EL1: debug exceptions masked.
const SPSR_D: u64 = 1 << 9;
/// SPSR_EL1: step.
const SPSR_SS: u64 = 1 << 21;
/// DBGBCR: enabled, EL1 and EL0, all four bytes.
const BCR: u64 = 1 | 0b11 << 1 | 0xf << 5;
/// DBGWCR: enabled, EL1 and EL0; what is watched and which bytes are added.
const WCR: u64 = 1 | 0b11 << 1;
const WCR_LOAD: u64 = 1 << 3;
const WCR_STORE: u64 = 1 << 4;
/// Rounds on all CPUs at once.
const ROUNDS: u64 = 100;
const FAREWELL: u32 = 0xd400_0001 | (el0::FAREWELL as u32) << 5;

static GATE: Barrier = Barrier::new();
/// What the debug exceptions of each CPU said.
static HITS: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static CLASS: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static ELR: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static FAR: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static ISS: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
/// Each CPU's own word to watch, far from the others'.
static DATA: AtomicU64 = AtomicU64::new(0);
static EL0_CODE: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn debug_one() -> u64;
    fn debug_two() -> u64;
    fn debug_three() -> u64;
    fn debug_four() -> u64;
}

// Four functions to stop at, one per CPU.
global_asm!(
    ".pushsection .text.debug, \"ax\"",
    "debug_one: mov x0, #1",
    "ret",
    "debug_two: mov x0, #2",
    "ret",
    "debug_three: mov x0, #3",
    "ret",
    "debug_four: mov x0, #4",
    "ret",
    ".popsection",
);

const FUNCTIONS: [unsafe extern "C" fn() -> u64; 4] =
    [debug_one, debug_two, debug_three, debug_four];

fn debug() {
    let tables = mmu::Tables::identity();
    // EL0 sees the first GiB of RAM elsewhere.
    tables.set_root(
        mmu::index(mmu::elsewhere(0), 1),
        RAM_BASE | mmu::BLOCK | mmu::NORMAL | mmu::EL0,
    );
    tables.enable();
    DATA.store(pages::fresh_run(4), Ordering::Relaxed);
    let code = pages::fresh();
    for (n, instruction) in [0xd503_201f; 5].into_iter().chain([FAREWELL]).enumerate() {
        mmio::write32(code + 4 * n as u64, instruction);
    }
    cache::publish_code(code, 24);
    EL0_CODE.store(code, Ordering::Relaxed);
    trap::on_debug(Some(on_debug));
    if cpus() > 1 {
        smp::start_others(cpus(), smp::serve);
    }
    let dfr0 = read_sysreg!("ID_AA64DFR0_EL1");
    println!(
        "{} breakpoints, {} watchpoints, {} CPUs",
        (dfr0 >> 12 & 0xf) + 1,
        (dfr0 >> 20 & 0xf) + 1,
        cpus()
    );
    for cpu in 0..cpus() {
        smp::on(cpu, begin);
        for step in [
            nothing_at_first,
            breakpoint,
            watchpoint,
            slots::every_one,
            slots::watched,
            step_el0,
            brk,
            step_el1,
        ] {
            smp::on(cpu, step);
        }
    }
    smp::on_all(cpus(), everyone);
}

fn cpus() -> usize {
    smp::count().min(4)
}

fn begin() {
    // OSLAR_EL1, OSDLR_EL1: unlocked.
    write_sysreg!("OSLAR_EL1", 0);
    write_sysreg!("OSDLR_EL1", 0);
    write_sysreg!("MDSCR_EL1", MDE | KDE);
    write_sysreg!("DBGBCR0_EL1", 0);
    write_sysreg!("DBGWCR0_EL1", 0);
}

fn mine() -> u64 {
    FUNCTIONS[smp::index()] as *const () as u64
}

fn on_debug(frame: &mut Frame) -> bool {
    let cpu = smp::index();
    let is_debug = (0x30..=0x35).contains(&frame.class()) || frame.class() == BRK;
    if !is_debug {
        return false;
    }
    HITS[cpu].fetch_add(1, Ordering::Relaxed);
    CLASS[cpu].store(frame.class(), Ordering::Relaxed);
    ELR[cpu].store(frame.elr, Ordering::Relaxed);
    FAR[cpu].store(frame.far, Ordering::Relaxed);
    ISS[cpu].store(frame.iss(), Ordering::Relaxed);
    match frame.class() {
        class if BREAKPOINT.contains(&class) => slots::clear(slots::Register::BreakControl),
        class if WATCHPOINT.contains(&class) => slots::clear(slots::Register::WatchControl),
        // The next instruction.
        class if STEP.contains(&class) => frame.spsr |= SPSR_SS,
        _ => {
            frame.elr += 4;
            match frame.iss() {
                START_STEPPING => {
                    write_sysreg!("MDSCR_EL1", MDE | KDE | SS);
                    frame.spsr = frame.spsr & !SPSR_D | SPSR_SS;
                }
                STOP_STEPPING => {
                    write_sysreg!("MDSCR_EL1", MDE | KDE);
                    frame.spsr |= SPSR_D;
                }
                _ => {}
            }
        }
    }
    true
}

fn hits() -> u64 {
    HITS[smp::index()].load(Ordering::Relaxed)
}

/// What the last debug exception said.
fn expect(what: &str, before: u64, count: u64, class: u64, elr: u64) {
    let cpu = smp::index();
    check_eq!(
        hits() - before,
        count,
        "{what}: debug exceptions on CPU {cpu}"
    );
    check_eq!(
        CLASS[cpu].load(Ordering::Relaxed),
        class,
        "{what}: ESR_EL1.EC on CPU {cpu}"
    );
    check_eq!(
        ELR[cpu].load(Ordering::Relaxed),
        elr,
        "{what}: ELR_EL1 on CPU {cpu}"
    );
}

/// Runs with debug exceptions let in.
fn allowed<T>(action: impl FnOnce() -> T) -> T {
    // SAFETY: PSTATE.D has no effect on memory.
    unsafe { asm!("msr daifclr, #8", "isb", options(nostack)) };
    let result = action();
    // SAFETY: as above.
    unsafe { asm!("msr daifset, #8", "isb", options(nostack)) };
    result
}

fn call(function: u64) -> u64 {
    pages::call(function)
}

/// Nobody else's breakpoint is set here.
fn nothing_at_first() {
    let before = hits();
    for (n, function) in FUNCTIONS.iter().enumerate() {
        let answer = allowed(|| call(*function as *const () as u64));
        check_eq!(answer, n as u64 + 1, "a function on CPU {}", smp::index());
    }
    check_eq!(hits(), before, "breakpoints that nobody set on this CPU");
}

fn breakpoint() {
    write_sysreg!("DBGBVR0_EL1", mine());
    write_sysreg!("DBGBCR0_EL1", BCR);
    check_eq!(read_sysreg!("DBGBVR0_EL1"), mine(), "DBGBVR0_EL1");
    let before = hits();
    // Masked by PSTATE.D at first.
    call(mine());
    check_eq!(hits(), before, "breakpoints with PSTATE.D = 1");
    let answer = allowed(|| call(mine()));
    check_eq!(
        answer,
        smp::index() as u64 + 1,
        "the function after its stop"
    );
    expect("breakpoint", before, 1, BREAKPOINT[1], mine());
    check_eq!(
        ISS[smp::index()].load(Ordering::Relaxed) & 0x3f,
        DEBUG_STATUS,
        "breakpoint: status"
    );
}

/// This CPU's own memory to watch.
fn data() -> u64 {
    DATA.load(Ordering::Relaxed) + smp::index() as u64 * PAGE
}

fn watchpoint() {
    let cell = data();
    for (what, bits, expected) in [("load", WCR_LOAD, [1, 0]), ("store", WCR_STORE, [0, 1])] {
        for (n, access) in [
            (|cell: u64| drop_value(mmio::read32(cell))) as fn(u64),
            |cell: u64| mmio::write32(cell, 5),
        ]
        .into_iter()
        .enumerate()
        {
            write_sysreg!("DBGWVR0_EL1", cell);
            // Bytes 0 to 3 of the double word.
            write_sysreg!("DBGWCR0_EL1", WCR | bits | 0xf << 5);
            let before = hits();
            allowed(|| access(cell + 4));
            check_eq!(
                hits(),
                before,
                "watchpoints beside what is watched for a {what}"
            );
            allowed(|| access(cell));
            check_eq!(
                hits() - before,
                expected[n],
                "watchpoints for a {what} on access {n}, CPU {}",
                smp::index()
            );
            if expected[n] == 1 {
                let cpu = smp::index();
                check_eq!(
                    CLASS[cpu].load(Ordering::Relaxed),
                    WATCHPOINT[1],
                    "watchpoint: EC"
                );
                check_eq!(
                    FAR[cpu].load(Ordering::Relaxed),
                    cell,
                    "watchpoint: FAR_EL1"
                );
                let iss = ISS[cpu].load(Ordering::Relaxed);
                check_eq!(iss & 0x3f, DEBUG_STATUS, "watchpoint: status");
                check_eq!(iss >> 6 & 1, n as u64, "watchpoint: WnR");
            }
        }
    }
    write_sysreg!("DBGWCR0_EL1", 0);
}

fn drop_value(_: u32) {}

/// Five NOPs and an SVC at EL0, one step at a time.
fn step_el0() {
    let code = EL0_CODE.load(Ordering::Relaxed) - RAM_BASE + mmu::elsewhere(0);
    pages::set_el0_code(code & !(PAGE - 1));
    let before = hits();
    write_sysreg!("MDSCR_EL1", MDE | KDE | SS);
    // SAFETY: the code is NOPs and the farewell; EL0 needs no stack for it.
    unsafe { el0::run_with(code, 0, 0, SPSR_SS) };
    write_sysreg!("MDSCR_EL1", MDE | KDE);
    // After each NOP; the SVC is an exception of its own.
    expect("step", before, 5, STEP[0], code + 20);
    check_eq!(
        ISS[smp::index()].load(Ordering::Relaxed) & 0x3f,
        DEBUG_STATUS,
        "step: status"
    );
}

fn brk() {
    let before = hits();
    let at: u64;
    // SAFETY: the handler skips the instruction.
    unsafe { asm!("adr {0}, 1f", "1: brk #0x1234", out(reg) at, options(nostack)) };
    expect("BRK", before, 1, BRK, at);
    check_eq!(
        ISS[smp::index()].load(Ordering::Relaxed),
        0x1234,
        "BRK: comment"
    );
}

/// Three NOPs at EL1, one step at a time, between two BRKs.
fn step_el1() {
    let before = hits();
    // SAFETY: the handler skips the BRKs and keeps all registers.
    unsafe { asm!("brk #1", "nop", "nop", "nop", "brk #2", options(nostack)) };
    check_eq!(
        hits() - before,
        5,
        "BRKs and steps at EL1 on CPU {}",
        smp::index()
    );
}

/// All CPUs at once, each with a breakpoint in its own function, calling all functions.
fn everyone() {
    let cpu = smp::index();
    for round in 0..smp::rounds(ROUNDS) {
        write_sysreg!("DBGBVR0_EL1", mine());
        write_sysreg!("DBGBCR0_EL1", BCR);
        GATE.wait(cpus());
        let before = hits();
        for function in FUNCTIONS {
            allowed(|| call(function as *const () as u64));
        }
        expect("all at once", before, 1, BREAKPOINT[1], mine());
        check!(
            read_sysreg!("MDSCR_EL1") & (MDE | KDE) == MDE | KDE,
            "MDSCR_EL1 of CPU {cpu} in round {round}"
        );
    }
    GATE.wait(cpus());
}
