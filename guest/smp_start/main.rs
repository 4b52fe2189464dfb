//! CPUs come and go: CPU_ON, CPU_OFF and AFFINITY_INFO, their arguments, their races, and the state a CPU starts in.
//!
//! Oracle: PSCI 1.1 (DEN 0022) sections 5.6 "CPU_ON", 5.5 "CPU_OFF", 5.7 "AFFINITY_INFO", 6.4 "Initial core
//! configuration".
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use runtime::hypercall::{Conduit, call, counter};
use runtime::platform::NOWHERE;
use runtime::smp::{self, AFFINITY, code};
use runtime::sync::{Barrier, wait_for};
use runtime::{check, check_eq, mmu, pages, println, read_sysreg};

runtime::guest!("smp_start", smp_start);

/// Rounds of off and on again.
const ROUNDS: u64 = 10;
/// Rounds of two CPUs that start a third.
const RACES: u64 = 20;
/// CPU_ON, 32-bit.
const CPU_ON_32: u32 = 0x8400_0003;

static MPIDR: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static STACK: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static LIVES: AtomicU64 = AtomicU64::new(0);

fn smp_start() {
    smp::require(2);
    pages::settle_image();
    mmu::Tables::identity().enable();
    println!("{} CPUs", smp::count());
    refusals();
    for n in 1..smp::count() {
        first_start(n);
    }
    distinct();
    off_and_on();
    if smp::count() > 2 {
        races();
    } else {
        println!("2 CPUs only: nobody to race for");
    }
}

fn note_and_leave() {
    let n = smp::index();
    MPIDR[n].store(read_sysreg!("MPIDR_EL1"), Ordering::Relaxed);
    let local = 0u64;
    STACK[n].store(&raw const local as u64, Ordering::Relaxed);
    LIVES.fetch_add(1, Ordering::Release);
}

/// What must not start anything.
fn refusals() {
    let (here, there) = (smp::affinity(0), smp::affinity(1));
    smp::prepare(1, note_and_leave);
    let entry = smp::entry_point();
    check_eq!(
        smp::cpu_on(here, entry, 0),
        code::ALREADY_ON,
        "CPU_ON of the caller"
    );
    for nobody in [AFFINITY, 0x7f, 1 << 32 | there, 1 << 16 | there] {
        check_eq!(
            smp::cpu_on(nobody, entry, 1),
            code::INVALID_PARAMETERS,
            "CPU_ON of {nobody:#x}"
        );
        check_eq!(
            smp::affinity_info(nobody, 0),
            code::INVALID_PARAMETERS,
            "AFFINITY_INFO of {nobody:#x}"
        );
    }
    check_eq!(
        smp::affinity_info(here, 0),
        code::ON,
        "AFFINITY_INFO of the caller"
    );
    for n in 1..smp::count() {
        check_eq!(
            smp::affinity_info(smp::affinity(n), 0),
            code::OFF,
            "AFFINITY_INFO of CPU {n}"
        );
    }
    if counter(0).is_none() {
        // QEMU's own PSCI checks no addresses and knows no levels.
        return;
    }
    check_eq!(
        smp::affinity_info(here, 4),
        code::INVALID_PARAMETERS,
        "AFFINITY_INFO at level 4"
    );
    check_eq!(
        smp::cpu_on(there, NOWHERE, 1),
        code::INVALID_ADDRESS,
        "CPU_ON at an address without memory"
    );
    check_eq!(
        smp::cpu_on(there, !3, 1),
        code::INVALID_ADDRESS,
        "CPU_ON at the end of all addresses"
    );
    check_eq!(
        smp::affinity_info(here, 1),
        code::ON,
        "AFFINITY_INFO of the caller's cluster"
    );
    check_eq!(
        smp::affinity_info(there, 0),
        code::OFF,
        "AFFINITY_INFO of a CPU that was not started"
    );
}

/// A first life: the state it begins in, then off.
fn first_start(n: usize) {
    smp::prepare(n, note_and_leave);
    // The low byte is ours, the rest must arrive as it is.
    let context = 0xfedc_ba98_7654_3200 | n as u64;
    check_eq!(
        smp::cpu_on(smp::affinity(n), smp::entry_point(), context),
        code::SUCCESS,
        "CPU_ON of CPU {n}"
    );
    wait_for("a CPU to start", || smp::arrivals(n) > 0);
    smp::wait_until_off(n);
    let arrival = smp::arrival(n);
    check_eq!(smp::arrivals(n), 1, "arrivals of CPU {n}");
    check_eq!(arrival.context, context, "x0 of CPU {n}");
    check_eq!(arrival.sctlr & 1, 0, "SCTLR_EL1.M of CPU {n}");
    check_eq!(arrival.sctlr & 1 << 2, 0, "SCTLR_EL1.C of CPU {n}");
    check_eq!(arrival.sctlr & 1 << 25, 0, "SCTLR_EL1.EE of CPU {n}");
    check_eq!(arrival.daif, 0x3c0, "DAIF of CPU {n}");
    check_eq!(arrival.spsel, 1, "SPSel of CPU {n}");
    check_eq!(arrival.current_el >> 2, 1, "CurrentEL of CPU {n}");
}

/// Each CPU is somebody else, as the device tree says, on a stack of its own.
fn distinct() {
    note_and_leave();
    for n in 0..smp::count() {
        let mpidr = MPIDR[n].load(Ordering::Relaxed);
        check_eq!(mpidr & AFFINITY, smp::affinity(n), "MPIDR_EL1 of CPU {n}");
        check_eq!(mpidr >> 30 & 3, 0b10, "MPIDR_EL1[31:30] of CPU {n}");
        for other in 0..n {
            let [a, b] = [n, other].map(|cpu| STACK[cpu].load(Ordering::Relaxed));
            check!(a.abs_diff(b) > 1024, "CPUs {n} and {other} share a stack");
        }
    }
}

fn off_and_on() {
    for round in 0..ROUNDS {
        let before = LIVES.load(Ordering::Acquire);
        for n in 1..smp::count() {
            smp::prepare(n, note_and_leave);
            let function = if round.is_multiple_of(2) {
                smp::CPU_ON
            } else {
                CPU_ON_32
            };
            let arguments = [smp::affinity(n), smp::entry_point(), n as u64];
            let answer = call(Conduit::Hvc, function, arguments)[0] as i32;
            check_eq!(
                i64::from(answer),
                code::SUCCESS,
                "CPU_ON {function:#x} of CPU {n}, round {round}"
            );
        }
        // A CPU that is on its way is not off; QEMU's own PSCI says so for a moment.
        let all = before + smp::count() as u64 - 1;
        if counter(0).is_none() {
            wait_for("CPUs on their way", || LIVES.load(Ordering::Acquire) == all);
        }
        for n in 1..smp::count() {
            smp::wait_until_off(n);
        }
        check_eq!(
            LIVES.load(Ordering::Acquire),
            all,
            "lives after round {round}"
        );
    }
}

static GATE: Barrier = Barrier::new();
static ANSWERS: [AtomicI64; 2] = [const { AtomicI64::new(0) }; 2];
static STAY: AtomicU64 = AtomicU64::new(0);

/// The one that is raced for stays on until it is told.
fn stay() {
    let n = smp::index();
    LIVES.fetch_add(1, Ordering::Release);
    wait_for("leave to go", || STAY.load(Ordering::Acquire) & 1 << n == 0);
}

fn race(who: u64) {
    let context = 2 | (who + 1) << 8;
    GATE.wait(2);
    let answer = smp::cpu_on(smp::affinity(2), smp::entry_point(), context);
    ANSWERS[who as usize].store(answer, Ordering::Release);
    GATE.wait(2);
}

fn racer() {
    for _ in 0..smp::rounds(RACES) + 2 {
        race(1);
    }
}

/// CPUs 0 and 1 start CPU 2 at once: one does, and its context is the one that arrives.
fn races() {
    smp::start(1, racer);
    let mut won = [0; 2];
    for round in 0..smp::rounds(RACES) + 2 {
        smp::prepare(2, stay);
        STAY.store(1 << 2, Ordering::Release);
        let before = smp::arrivals(2);
        race(0);
        let answers = [0, 1].map(|who| ANSWERS[who].load(Ordering::Acquire));
        let winners = answers.iter().filter(|&&a| a == code::SUCCESS).count();
        // QEMU's own PSCI lets both in when they are quick enough.
        if winners == 2 && counter(0).is_none() {
            STAY.store(0, Ordering::Release);
            wait_for("the CPU that was raced for", || smp::arrivals(2) > before);
            smp::wait_until_off(2);
            continue;
        }
        check_eq!(winners, 1, "CPU_ONs that succeeded of two, round {round}");
        let winner = usize::from(answers[1] == code::SUCCESS);
        let loser = answers[1 - winner];
        check!(
            loser == code::ON_PENDING || loser == code::ALREADY_ON,
            "the loser got {loser}, round {round}"
        );
        wait_for("the CPU that was raced for", || smp::arrivals(2) > before);
        check_eq!(
            smp::affinity_info(smp::affinity(2), 0),
            code::ON,
            "AFFINITY_INFO of a CPU that runs"
        );
        check_eq!(
            smp::cpu_on(smp::affinity(2), smp::entry_point(), 2),
            code::ALREADY_ON,
            "CPU_ON of a CPU that runs"
        );
        check_eq!(
            smp::arrival(2).context,
            2 | (winner as u64 + 1) << 8,
            "context of the winner"
        );
        STAY.store(0, Ordering::Release);
        smp::wait_until_off(2);
        check_eq!(smp::arrivals(2), before + 1, "arrivals of one CPU_ON");
        won[winner] += 1;
    }
    smp::wait_until_off(1);
    println!("races won: {} and {}", won[0], won[1]);
}
