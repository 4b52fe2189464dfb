//! Several CPUs, one after the other: each is a thread, and only the one with the baton runs. Who gets it next is decided
//! by the seed, at every machine operation and wherever library code spins, so that a spinning CPU cannot keep the one it
//! waits for from coming.

use std::boxed::Box;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::string::String;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::vec::Vec;

use super::cpu::Cpu;
use super::hardware::Hardware;
use crate::sync;

/// Turns in which nobody did anything but spin after which it is a deadlock.
const SPINS: u32 = 20_000;

/// The hardware, and whose turn it is.
pub(super) struct Lab {
    hardware: Mutex<Hardware>,
    turns: Vec<Condvar>,
}

/// What a CPU unwinds with because another one failed.
struct Stopped;

thread_local! {
    /// A CPU of a model: its panics are caught, and told by [`Lab::run`].
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics on a model's CPUs are kept instead of printed; others go where they went.
fn keep_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let is_kept = MESSAGE.with_borrow_mut(|kept| {
                let text = info.payload_as_str().unwrap_or("a panic without words");
                let place = info
                    .location()
                    .map(|place| std::format!(" ({}:{})", place.file(), place.line()));
                kept.as_mut()
                    .map(|kept| *kept = std::format!("{text}{}", place.unwrap_or_default()))
                    .is_some()
            });
            if !is_kept {
                before(info);
            }
        }));
    });
}

impl Lab {
    pub(super) fn new(hardware: Hardware) -> Arc<Self> {
        let turns = (0..hardware.setup.cpus).map(|_| Condvar::new()).collect();
        Arc::new(Self {
            hardware: Mutex::new(hardware),
            turns,
        })
    }

    /// The hardware, whoever has the baton. A panic with the guard in hand leaves it fit to be looked at.
    pub(super) fn hardware(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body` on every CPU until all are done or one fails. Answers why.
    pub(super) fn run<F>(self: &Arc<Self>, body: F) -> Result<(), String>
    where
        F: Fn(&mut Cpu) + Sync,
    {
        keep_messages();
        self.hardware().alive.fill(true);
        thread::scope(|scope| {
            for index in 0..self.turns.len() {
                let (lab, body) = (self.clone(), &body);
                scope.spawn(move || lab.run_cpu(index, body));
            }
        });
        self.hardware().failure.take().map_or(Ok(()), Err)
    }

    /// Runs `body` on CPU 0, with all others done.
    pub(super) fn run_alone<F>(self: &Arc<Self>, body: F) -> Result<(), String>
    where
        F: Fn(&mut Cpu) + Sync,
    {
        {
            let mut hardware = self.hardware();
            hardware.alive.fill(false);
            (hardware.alive[0], hardware.turn) = (true, 0);
        }
        thread::scope(|scope| {
            scope.spawn(|| self.clone().run_cpu(0, &body));
        });
        self.hardware().failure.take().map_or(Ok(()), Err)
    }

    fn run_cpu(self: Arc<Self>, index: usize, body: &impl Fn(&mut Cpu)) {
        MESSAGE.set(Some(String::new()));
        let lab = self.clone();
        sync::set_spin(Box::new(move || lab.spin(index)));
        let mut cpu = Cpu::new(self.clone(), index);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            drop(self.wait_for_turn(index, self.hardware()));
            body(&mut cpu);
        }));
        sync::unset_spin();
        let message = MESSAGE.take().unwrap_or_default();
        let mut hardware = self.hardware();
        hardware.alive[index] = false;
        if let Err(why) = outcome
            && !why.is::<Stopped>()
        {
            hardware
                .failure
                .get_or_insert(std::format!("CPU {index}: {message}"));
        }
        if hardware.failure.is_some() {
            self.turns.iter().for_each(Condvar::notify_all);
        } else if let Some(next) = choose(&mut hardware, index) {
            hardware.turn = next;
            self.turns[next].notify_all();
        }
    }

    fn wait_for_turn<'l>(
        &'l self,
        index: usize,
        guard: MutexGuard<'l, Hardware>,
    ) -> MutexGuard<'l, Hardware> {
        let mut guard = guard;
        while guard.turn != index && guard.failure.is_none() {
            guard = self.turns[index]
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if guard.failure.is_some() {
            drop(guard);
            resume_unwind(Box::new(Stopped));
        }
        guard
    }

    fn pass<'l>(
        &'l self,
        index: usize,
        to: usize,
        mut guard: MutexGuard<'l, Hardware>,
    ) -> MutexGuard<'l, Hardware> {
        guard.turn = to;
        self.turns[to].notify_all();
        self.wait_for_turn(index, guard)
    }

    /// The hardware for one operation of CPU `index`; others may have had their turn before.
    pub(super) fn enter(&self, index: usize) -> MutexGuard<'_, Hardware> {
        let mut guard = self.hardware();
        guard.spins = 0;
        let patience = guard.setup.patience;
        if guard.rng.one_in(patience)
            && let Some(next) = choose(&mut guard, index)
        {
            guard = self.pass(index, next, guard);
        }
        guard
    }

    /// CPU `index` waits for another.
    fn spin(&self, index: usize) {
        let mut guard = self.hardware();
        guard.spins += 1;
        let next = choose(&mut guard, index);
        if guard.spins > SPINS || next.is_none() {
            drop(guard);
            panic!("CPU {index} spins for ever");
        }
        drop(self.pass(index, next.unwrap_or(index), guard));
    }
}

/// Another CPU that is not done.
fn choose(hardware: &mut Hardware, but: usize) -> Option<usize> {
    let others: Vec<usize> = (0..hardware.alive.len())
        .filter(|n| *n != but && hardware.alive[*n])
        .collect();
    (!others.is_empty()).then(|| hardware.rng.pick(&others))
}
