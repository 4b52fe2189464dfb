//! Performance monitors: cycles and events are counted where the guest asks for it and nowhere else, overflows are noted, and
//! each CPU's registers stay its own while CPUs take turns on one physical CPU. Overflows interrupt, if the machine says so.
#![no_std]
#![no_main]

mod overflow;

use core::sync::atomic::{AtomicU64, Ordering};
use runtime::sync::{Barrier, pause};
use runtime::{check, check_eq, println, read_sysreg, smp, verdict, write_sysreg};

runtime::guest!("pmu", pmu);

/// PMCR_EL0: enable; reset the event counters; reset the cycle counter; that one overflows at 64 bits.
const ENABLE: u64 = 1 << 0;
const RESET_EVENTS: u64 = 1 << 1;
const RESET_CYCLES: u64 = 1 << 2;
const LONG_CYCLES: u64 = 1 << 6;
/// The cycle counter's bit in the registers with one for each counter.
const CYCLES: u64 = 1 << 31;
/// PMCCFILTR_EL0.P: not at EL1.
const NOT_AT_EL1: u64 = 1 << 31;
/// The event that software counts.
const SW_INCR: u64 = 0;
/// What an event counter holds of 64 bits, or of 32.
const COUNT: u64 = 0xffff_ffff;
/// Turns taken of their own will.
const TURNS: u64 = 100;

static GATE: Barrier = Barrier::new();
static CHECKS: AtomicU64 = AtomicU64::new(0);

fn pmu() {
    let version = read_sysreg!("ID_AA64DFR0_EL1") >> 8 & 0xf;
    if matches!(version, 0 | 0xf) {
        verdict::pass_without("this CPU has no PMU");
    }
    println!("PMUVer {version}, {} event counters", counters());
    check!(counters() >= 1, "PMCR_EL0.N is {}", counters());
    cycles_are_counted();
    events_are_counted();
    overflows_are_noted();
    let interrupts = overflow::interrupts();
    println!("overflows interrupt: {interrupts}");
    if interrupts {
        overflow::is_signalled();
    }
    let cpus = cpus();
    if cpus > 1 {
        for cpu in 1..cpus {
            smp::start(cpu, smp::serve);
        }
        smp::on_all(cpus, look);
        println!(
            "{cpus} CPUs compared their registers {} times",
            CHECKS.load(Ordering::Acquire)
        );
        if interrupts {
            smp::on_all(cpus, overflow::is_signalled);
        }
    }
}

fn cpus() -> usize {
    smp::count().min(4)
}

/// PMCR_EL0.N.
fn counters() -> u64 {
    read_sysreg!("PMCR_EL0") >> 11 & 0x1f
}

fn work() {
    for n in 0..2_000u64 {
        core::hint::black_box(n);
    }
}

fn cycles() -> u64 {
    read_sysreg!("PMCCNTR_EL0")
}

/// Cycles that pass by the counter while there is something to do.
fn counted() -> u64 {
    let before = cycles();
    work();
    cycles() - before
}

fn cycles_are_counted() {
    write_sysreg!("PMCCFILTR_EL0", 0u64);
    write_sysreg!("PMCNTENSET_EL0", CYCLES);
    write_sysreg!(
        "PMCR_EL0",
        ENABLE | RESET_EVENTS | RESET_CYCLES | LONG_CYCLES
    );
    check!(counted() > 0, "no cycle is counted");
    write_sysreg!("PMCNTENCLR_EL0", CYCLES);
    check_eq!(counted(), 0, "cycles by a counter that is off");
    write_sysreg!("PMCNTENSET_EL0", CYCLES);
    write_sysreg!("PMCCFILTR_EL0", NOT_AT_EL1);
    check_eq!(counted(), 0, "cycles at EL1, which are not to be counted");
    write_sysreg!("PMCCFILTR_EL0", 0u64);
    write_sysreg!("PMCR_EL0", LONG_CYCLES);
    check_eq!(counted(), 0, "cycles without PMCR_EL0.E");
    let far = 1u64 << 40;
    write_sysreg!("PMCCNTR_EL0", far);
    check_eq!(cycles(), far, "PMCCNTR_EL0 as it was written");
    write_sysreg!("PMCR_EL0", LONG_CYCLES | RESET_CYCLES);
    check_eq!(cycles(), 0, "PMCCNTR_EL0 reset");
}

fn count_by_hand(times: u64) {
    for _ in 0..times {
        write_sysreg!("PMSWINC_EL0", 1u64);
    }
}

fn events_are_counted() {
    write_sysreg!("PMEVTYPER0_EL0", SW_INCR);
    write_sysreg!("PMEVCNTR0_EL0", 0u64);
    write_sysreg!("PMCNTENSET_EL0", 1u64);
    write_sysreg!("PMCR_EL0", ENABLE);
    count_by_hand(3);
    check_eq!(read_sysreg!("PMEVCNTR0_EL0"), 3, "PMEVCNTR0_EL0");
    check_eq!(selected(0), 3, "PMXEVCNTR_EL0 of counter 0");
    let last = counters() - 1;
    select(last, 77);
    check_eq!(selected(last), 77, "PMXEVCNTR_EL0 of the last counter");
    write_sysreg!("PMCR_EL0", ENABLE | RESET_EVENTS);
    check_eq!(read_sysreg!("PMEVCNTR0_EL0"), 0, "PMEVCNTR0_EL0 reset");
}

fn overflows_are_noted() {
    write_sysreg!("PMOVSCLR_EL0", COUNT);
    write_sysreg!("PMEVCNTR0_EL0", COUNT - 1);
    count_by_hand(1);
    check_eq!(read_sysreg!("PMOVSSET_EL0"), 0, "PMOVSSET_EL0 before");
    count_by_hand(1);
    check_eq!(read_sysreg!("PMOVSSET_EL0"), 1, "PMOVSSET_EL0 after");
    check_eq!(
        read_sysreg!("PMEVCNTR0_EL0") & COUNT,
        0,
        "PMEVCNTR0_EL0 after it overflowed"
    );
    write_sysreg!("PMOVSCLR_EL0", 1u64);
    check_eq!(read_sysreg!("PMOVSSET_EL0"), 0, "PMOVSSET_EL0 cleared");
}

/// Event counter `n`, by way of PMSELR_EL0.
fn selected(n: u64) -> u64 {
    write_sysreg!("PMSELR_EL0", n);
    read_sysreg!("PMXEVCNTR_EL0")
}

fn select(n: u64, value: u64) {
    write_sysreg!("PMSELR_EL0", n);
    write_sysreg!("PMXEVTYPER_EL0", SW_INCR);
    write_sysreg!("PMXEVCNTR_EL0", value);
}

/// A register with a bit for each counter: reads it, sets bits, clears bits.
type Set = (fn() -> u64, fn(u64), fn(u64));

/// Which count, which interrupt (nobody takes it), which have overflowed.
fn sets() -> [Set; 3] {
    [
        (
            || read_sysreg!("PMCNTENSET_EL0"),
            |bits| write_sysreg!("PMCNTENSET_EL0", bits),
            |bits| write_sysreg!("PMCNTENCLR_EL0", bits),
        ),
        (
            || read_sysreg!("PMINTENSET_EL1"),
            |bits| write_sysreg!("PMINTENSET_EL1", bits),
            |bits| write_sysreg!("PMINTENCLR_EL1", bits),
        ),
        (
            || read_sysreg!("PMOVSSET_EL0"),
            |bits| write_sysreg!("PMOVSSET_EL0", bits),
            |bits| write_sysreg!("PMOVSCLR_EL0", bits),
        ),
    ]
}

fn seed(cpu: usize, n: u64) -> u64 {
    ((cpu as u64 + 1) << 16) + (n << 8)
}

/// Every CPU fills its registers with numbers of its own, and finds them again, counting in between or not.
fn look() {
    let cpu = smp::index();
    let (n, for_el0) = (counters(), cpu as u64 + 1);
    for other in (0..cpus()).filter(|other| *other != cpu) {
        check!(
            selected(0) != seed(other, 0),
            "CPU {cpu} has CPU {other}'s counter"
        );
    }
    (0..n).for_each(|n| select(n, seed(cpu, n)));
    // One that nobody else has, besides the first, which counts.
    let own = 1 << (cpu as u64 % n).max(1) | u64::from(cpu.is_multiple_of(2)) << 31;
    for (get, set, clear) in sets() {
        clear(COUNT);
        set(own | 1);
        check_eq!(get(), own | 1, "bits that CPU {cpu} set");
    }
    for turn in 0..smp::rounds(TURNS) {
        // Of every two turns one counts.
        let counts = turn & 1;
        write_sysreg!("PMCR_EL0", counts);
        write_sysreg!("PMUSERENR_EL0", for_el0 * counts);
        count_by_hand(1);
        let expected = seed(cpu, 0) + turn / 2 + counts;
        check_eq!(selected(0), expected, "counter 0 of CPU {cpu}");
        write_sysreg!("PMSELR_EL0", cpu as u64 % n);
        GATE.wait(cpus());
        pause();
        check_eq!(
            read_sysreg!("PMSELR_EL0"),
            cpu as u64 % n,
            "PMSELR_EL0 of CPU {cpu}"
        );
        for (get, _, _) in sets() {
            check_eq!(get(), own | 1, "bits of CPU {cpu} after a turn");
        }
        check_eq!(
            read_sysreg!("PMUSERENR_EL0"),
            for_el0 * counts,
            "PMUSERENR_EL0 of CPU {cpu}"
        );
        check_eq!(
            read_sysreg!("PMCR_EL0") & ENABLE,
            counts,
            "PMCR_EL0.E of CPU {cpu}"
        );
        check_eq!(selected(0), expected, "counter 0 of CPU {cpu} after a turn");
        for other in 1..n {
            check_eq!(
                selected(other),
                seed(cpu, other),
                "counter {other} of CPU {cpu}"
            );
        }
        CHECKS.fetch_add(1, Ordering::Relaxed);
    }
}
