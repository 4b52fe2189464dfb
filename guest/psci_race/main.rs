//! All CPUs make PSCI calls at random, all at once: they start each other, turn themselves off, sleep, and ask. Each answer
//! is one that its moment allows, and in the end every CPU_ON that succeeded was one life with that call's context.
//!
//! Oracle: PSCI 1.1 (DEN 0022) chapter 5. `seed=` and `rounds=` on the command line.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use runtime::gic::Gic;
use runtime::hypercall::{Conduit, PSCI_FEATURES, PSCI_VERSION, call, counter};
use runtime::platform::{NOWHERE, VTIMER_INTID};
use runtime::random::Random;
use runtime::smp::{self, AFFINITY, code};
use runtime::{check, check_eq, fdt, mmu, println, timer, verdict};

runtime::guest!("psci_race", psci_race);

/// Acts of each CPU, at least.
const ROUNDS: u64 = 300;
const CPU_SUSPEND: u32 = 0xc400_0001;
const CPU_ON: u32 = 0xc400_0003;
const AFFINITY_INFO: u32 = 0xc400_0004;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
/// There are no such functions.
const UNKNOWN: [u32; 3] = [0x8400_001f, 0xc400_00ff, 0x8400_0005];
/// MIGRATE_INFO_TYPE: no Trusted OS to migrate.
const NOBODY_TO_MIGRATE: i64 = 2;

static OVER: AtomicBool = AtomicBool::new(false);
static ACTS: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
/// By CPU that was started: how many calls succeeded, the sum of their numbers; and the same of the lives that came.
static STARTS: [[AtomicU64; 2]; smp::MAX] = [const { [const { AtomicU64::new(0) }; 2] }; smp::MAX];
static LIVES: [[AtomicU64; 2]; smp::MAX] = [const { [const { AtomicU64::new(0) }; 2] }; smp::MAX];

fn psci_race() {
    smp::require(2);
    mmu::Tables::identity().enable();
    for cpu in 1..smp::count() {
        smp::prepare(cpu, live);
    }
    let all = |cpu: usize| ACTS[cpu].load(Ordering::Relaxed) >= rounds();
    act(|| (0..smp::count()).all(all));
    OVER.store(true, Ordering::Release);
    // One that was about to start another still does: as often as there are CPUs, at most.
    for _ in 0..smp::count() {
        (1..smp::count()).for_each(smp::wait_until_off);
    }
    let mut lives = 0;
    for cpu in 1..smp::count() {
        let [started, lived] =
            [&STARTS, &LIVES].map(|of| [0, 1].map(|n: usize| of[cpu][n].load(Ordering::Acquire)));
        lives += lived[0];
        // QEMU's own PSCI lets two in when they are quick enough.
        if counter(0).is_some() {
            check_eq!(
                lived[0],
                started[0],
                "lives of CPU {cpu}, and CPU_ONs that succeeded"
            );
            check_eq!(lived[1], started[1], "sum of the contexts of CPU {cpu}");
        }
    }
    println!("{lives} lives of {} CPUs", smp::count() - 1);
}

fn rounds() -> u64 {
    fdt::number("rounds").unwrap_or(ROUNDS)
}

/// What a CPU that was started does.
fn live() {
    let cpu = smp::index();
    LIVES[cpu][0].fetch_add(1, Ordering::Relaxed);
    LIVES[cpu][1].fetch_add(smp::arrival(cpu).context >> 8, Ordering::Relaxed);
    act(|| OVER.load(Ordering::Acquire));
}

/// Acts until it is over; a CPU other than the first may end before.
fn act(is_over: impl Fn() -> bool) {
    let cpu = smp::index();
    let Some(gic) = Gic::from_tree() else {
        verdict::fail(format_args!("no interrupt controller"));
    };
    // What wakes from CPU_SUSPEND; it stays masked.
    gic.enable();
    gic.enable_interrupt(VTIMER_INTID);
    let seed = fdt::number("seed").unwrap_or(1) << 32;
    let mut random = Random::new(seed | (cpu as u64) << 24 | ACTS[cpu].load(Ordering::Relaxed));
    while !is_over() {
        let act = ACTS[cpu].fetch_add(1, Ordering::Relaxed);
        let conduit = match counter(0) {
            Some(_) if random.below(2) == 0 => Conduit::Smc,
            // Bare QEMU answers one conduit only.
            _ => Conduit::Hvc,
        };
        match random.below(16) {
            0..=5 => start(&mut random, conduit, (cpu as u64) << 32 | act),
            6..=9 => ask_for_affinity(&mut random, conduit),
            10..=12 => ask(&mut random, conduit),
            13..=14 => sleep(&mut random, conduit),
            _ if cpu != 0 => return,
            _ => {}
        }
    }
}

fn one(conduit: Conduit, function: u32, arguments: [u64; 3]) -> i64 {
    i64::from(call(conduit, function, arguments)[0] as i32)
}

/// CPU_ON of anybody, anywhere. `number` is in the context, above the CPU's own number.
fn start(random: &mut Random, conduit: Conduit, number: u64) {
    let target = random.below(smp::count() as u64) as usize;
    let is_me = target == smp::index();
    let affinity = smp::affinity(target);
    let entry = smp::entry_point();
    let context = number << 8 | target as u64;
    match random.below(if counter(0).is_some() { 8 } else { 7 }) {
        0 => {
            let nobody =
                [AFFINITY, 1 << 16 | affinity, 1 << 32 | affinity][random.below(3) as usize];
            let answer = one(conduit, CPU_ON, [nobody, entry, context]);
            check_eq!(answer, code::INVALID_PARAMETERS, "CPU_ON of {nobody:#x}");
        }
        7 => {
            let bad = [NOWHERE, entry | 2, !3][random.below(3) as usize];
            let answer = one(conduit, CPU_ON, [affinity, bad, context]);
            check!(
                answer == code::ALREADY_ON || answer == code::INVALID_ADDRESS && !is_me,
                "CPU_ON of CPU {target} at {bad:#x}: {answer}"
            );
        }
        _ => {
            let answer = one(conduit, CPU_ON, [affinity, entry, context]);
            match answer {
                code::SUCCESS if !is_me => {
                    STARTS[target][0].fetch_add(1, Ordering::Relaxed);
                    STARTS[target][1].fetch_add(context >> 8, Ordering::Relaxed);
                }
                code::ALREADY_ON => {}
                code::ON_PENDING if !is_me => {}
                _ => verdict::fail(format_args!("CPU_ON of CPU {target}: {answer}")),
            }
        }
    }
}

fn ask_for_affinity(random: &mut Random, conduit: Conduit) {
    let target = random.below(smp::count() as u64) as usize;
    let affinity = smp::affinity(target);
    // QEMU's own PSCI knows no levels.
    let level = if counter(0).is_some() {
        random.below(5)
    } else {
        0
    };
    let answer = one(conduit, AFFINITY_INFO, [affinity, level, 0]);
    let is_right = match level {
        0 if target != smp::index() => matches!(answer, code::ON | code::OFF | 2),
        // All our CPUs are in one cluster, and the first is always on.
        0..=3 => answer == code::ON,
        _ => answer == code::INVALID_PARAMETERS,
    };
    check!(
        is_right,
        "AFFINITY_INFO of CPU {target} at level {level}: {answer}"
    );
}

/// What always has the same answer.
fn ask(random: &mut Random, conduit: Conduit) {
    let known = [CPU_SUSPEND, CPU_ON, AFFINITY_INFO, PSCI_VERSION][random.below(4) as usize];
    let unknown = UNKNOWN[random.below(3) as usize];
    let kinds = if counter(0).is_some() { 5 } else { 3 };
    let (what, function, argument, expected) = match random.below(kinds) {
        0 => ("PSCI_VERSION", PSCI_VERSION, 0, 1 << 16 | 1),
        1 => ("MIGRATE_INFO_TYPE", MIGRATE_INFO_TYPE, 0, NOBODY_TO_MIGRATE),
        2 => ("PSCI_FEATURES of a function", PSCI_FEATURES, known, 0),
        3 => ("PSCI_FEATURES of none", PSCI_FEATURES, unknown, -1),
        _ => ("an unknown function", unknown, 0, -1),
    };
    let answer = one(conduit, function, [argument.into(), 0, 0]);
    check_eq!(answer, expected, "{what}, {function:#x} of {argument:#x}");
}

/// CPU_SUSPEND, standby or power-down, until the timer's moment.
fn sleep(random: &mut Random, conduit: Conduit) {
    let power_down = random.below(2) << 16;
    timer::set(timer::now() + timer::frequency() / 100_000 * random.below(20));
    let arguments = [power_down, smp::entry_point(), smp::index() as u64];
    let answer = one(conduit, CPU_SUSPEND, arguments);
    check_eq!(
        answer,
        code::SUCCESS,
        "CPU_SUSPEND in state {power_down:#x}"
    );
    timer::stop();
}
