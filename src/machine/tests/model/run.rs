//! Running a history, and telling a failure: shrunk, with what the machine did last.

use std::fmt::Write;
use std::string::String;
use std::time::{Duration, Instant};
use std::vec::Vec;

use super::action::Action;
use super::cpu::Cpu;
use super::hardware::Hardware;
use super::rng::Rng;
use super::setup::Setup;
use super::weak::Weak;
use super::world::{Seat, VMS, World};

/// What each CPU does, in order: (CPU, action).
pub(super) type History = Vec<(usize, Action)>;

/// A violation, and what the machine did before it.
pub(super) struct Failure {
    pub(super) why: String,
    trace: Vec<String>,
}

/// How long a failure may be shrunk.
const SHRINKING: Duration = Duration::from_secs(20);
/// Seeds that are tried before an action is said to be needed.
const SEEDS: u64 = 300;
/// Lines of what the machine did last.
const TOLD: usize = 60;

/// Does `history` on a machine like `setup`; the seed decides whatever the history leaves open.
pub(super) fn run(
    setup: Setup,
    seed: u64,
    weak: Weak,
    history: &[(usize, Action)],
    is_traced: bool,
) -> Result<(), Failure> {
    let mut hardware = Hardware::new(setup, seed, weak);
    if is_traced {
        hardware.trace = Some(Vec::new());
    }
    let world = World::new(hardware);
    let lab = world.lab.clone();
    let done = lab.run(|m| {
        if m.index == 0 {
            (0..VMS).for_each(|n| world.create(n, m));
        }
        let mut seats: Vec<Seat> = (0..VMS).map(|_| Seat::default()).collect();
        let index = m.index;
        for (_, action) in history.iter().filter(|(cpu, _)| *cpu == index) {
            lab.hardware()
                .note(|| std::format!("CPU {index} -- {action:?}"));
            world.act(*action, &mut seats, m);
        }
    });
    let done = done.and_then(|()| lab.run_alone(|m| end(&world, m)));
    done.map_err(|why| Failure {
        why,
        trace: lab.hardware().trace.take().unwrap_or_default(),
    })
}

/// The account closes, and the VMs end.
fn end(world: &World, m: &mut Cpu) {
    world.feed();
    world.check_account();
    for n in 0..VMS {
        let vm = world.vm(n);
        if let Some(vm) = &vm {
            world.lab.hardware().audit(vm.tree);
        }
        drop(vm);
        assert!(world.destroy(n, m), "nobody is busy any more");
    }
    world.check_end();
}

/// A machine and a history of `steps` actions that `seed` stands for.
pub(super) fn case(seed: u64, steps: usize) -> (Setup, History) {
    let mut rng = Rng::new(seed);
    let setup = Setup::random(&mut rng);
    let history = (0..steps)
        .map(|_| (rng.below(setup.cpus), Action::random(&mut rng, &setup)))
        .collect();
    (setup, history)
}

/// The failure of a history, or nothing: as a report to be read.
pub(super) fn report(setup: Setup, seed: u64, weak: Weak, history: &History) -> Option<String> {
    let first = run(setup, seed, weak, history, false).err()?;
    if weak != Weak::Sound {
        // A deliberate bug was caught: nobody wants its history.
        return Some(first.why);
    }
    let (history, seed) = shrink(setup, seed, weak, history.clone());
    let last = run(setup, seed, weak, &history, true).err();
    let Failure { why, trace } = last.unwrap_or(first);
    let mut text = std::format!(
        "\n{why}\n\nThe history, as a test:\n\n    replay(\n        {setup:?},\n        {seed},\n        &[\n"
    );
    for step in &history {
        let _ = writeln!(text, "            {step:?},");
    }
    text.push_str("        ],\n    );\n\nWhat the machine did last:\n\n");
    for line in &trace[trace.len().saturating_sub(TOLD)..] {
        let _ = writeln!(text, "    {line}");
    }
    Some(text)
}

/// Leaves out what is not needed to fail.
fn shrink(setup: Setup, seed: u64, weak: Weak, history: History) -> (History, u64) {
    let started = Instant::now();
    let (mut history, mut seed) = (history, seed);
    let mut size = history.len().div_ceil(2);
    while size > 0 && started.elapsed() < SHRINKING {
        let mut at = 0;
        while at < history.len() && started.elapsed() < SHRINKING {
            let mut shorter = history.clone();
            shorter.drain(at..(at + size).min(shorter.len()));
            let seeds = (0..(SEEDS / shorter.len().max(1) as u64).max(6))
                .map(|n| seed.wrapping_add(n.wrapping_mul(0x1_0001)));
            let found = seeds
                .into_iter()
                .find(|seed| run(setup, *seed, weak, &shorter, false).is_err());
            match found {
                Some(found) => (history, seed) = (shorter, found),
                None => at += size,
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    (history, seed)
}
