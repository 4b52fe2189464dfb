//! Who runs where: a queue of ready vCPUs per pCPU, the whereabouts of each vCPU, and the moments at which one must wake.
//!
//! A vCPU has one owner at any time: the pCPU that runs it, the queue it waits in, or its [`Whereabouts`] while nothing is
//! to be done for it. Handing it over is migration; nothing is shared. The types are generic over what is handed over, so
//! that the desk can try every order of events with a plain number.
//!
//! # No wake-up is lost
//!
//! Two promises, each a store followed by a look on both sides, so that one of the two sees the other:
//!
//! - A vCPU that goes to sleep is put into its [`Whereabouts`] first and looked at after, or both under the lock of what it is
//!   looked at for; who makes an interrupt pending for it does so first and looks for the vCPU after.
//! - A pCPU that goes idle looks at its queue with interrupts masked; who puts a vCPU there sends it an SGI after, and WFI
//!   does not sleep on a pending interrupt.
//!
//! Fairness: first come, first served in each queue; a vCPU whose [`Slice`] ends goes to the back. A pCPU without work takes
//! the vCPU that waits longest with another.

mod deadlines;
mod slice;
mod whereabouts;

pub use deadlines::{Deadlines, NEVER, deadline};
pub use slice::Slice;
pub use whereabouts::{Place, Wake, Whereabouts};

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use crate::sync::{AtomicU64, AtomicUsize, Ordering, SpinMutex};

/// What a scheduler needs to know of a vCPU.
pub trait Task {
    /// The pCPU it ran on last.
    fn last_cpu(&self) -> usize;

    /// The pCPUs it may run on, bit n for pCPU n.
    fn allowed(&self) -> u64;
}

/// Queues of ready vCPUs, one per pCPU.
pub struct Scheduler<T> {
    queues: Box<[Queue<T>]>,
    /// Bit per pCPU: it has nothing to run.
    idle: AtomicU64,
}

#[repr(align(64))]
struct Queue<T> {
    waiting: SpinMutex<VecDeque<T>>,
    /// How many wait, for those who only look.
    count: AtomicUsize,
}

impl<T: Task> Scheduler<T> {
    /// Queues for pCPUs 0 to `cpus` - 1, with room for `tasks` in each: later on nothing is allocated.
    #[must_use]
    pub fn new(cpus: usize, tasks: usize) -> Self {
        let queue = |_| Queue {
            waiting: SpinMutex::new(VecDeque::with_capacity(tasks)),
            count: AtomicUsize::new(0),
        };
        Self {
            queues: (0..cpus).map(queue).collect(),
            idle: AtomicU64::new(0),
        }
    }

    /// Puts a vCPU that became ready into a queue: where it ran last if that pCPU is idle or nobody is, else with one that
    /// is. Answers the pCPU, which must be told if it is another than the caller.
    pub fn ready(&self, task: T) -> usize {
        let cpu = self.choose(&task);
        self.push(cpu, task);
        cpu
    }

    /// Puts a vCPU whose time slice ended to the back of the queue of `cpu`, where it ran.
    pub fn again(&self, cpu: usize, task: T) {
        self.push(cpu, task);
    }

    /// The next vCPU for `cpu`: its own queue's first, else the first that may run here of the queue of another.
    #[inline(always)] // on the way from one vCPU to another
    pub fn next(&self, cpu: usize) -> Option<T> {
        let found = self.take(cpu, cpu).or_else(|| self.steal(cpu));
        self.note_idle(cpu, found.is_none());
        found
    }

    #[inline(never)] // a pCPU whose own queue has something does not come here
    fn steal(&self, cpu: usize) -> Option<T> {
        let count = self.queues.len();
        (1..count).find_map(|step| self.take((cpu + step) % count, cpu))
    }

    /// Whether a vCPU waits that `cpu` should run soon. One load, for every way into a guest.
    #[must_use]
    pub fn has_waiting(&self, cpu: usize) -> bool {
        self.queues
            .get(cpu)
            .is_some_and(|queue| queue.count.load(Ordering::Relaxed) != 0)
    }

    fn choose(&self, task: &T) -> usize {
        let last = task.last_cpu();
        let here = 1u64.checked_shl(last as u32).unwrap_or(0);
        let there = u64::MAX >> (64 - self.queues.len().clamp(1, 64));
        let allowed = match task.allowed() & there {
            0 => there,
            some => some,
        };
        let idle = self.idle.load(Ordering::Relaxed) & allowed;
        if idle & here != 0 || (idle == 0 && allowed & here != 0) {
            last
        } else if idle != 0 {
            idle.trailing_zeros() as usize
        } else {
            allowed.trailing_zeros() as usize
        }
    }

    fn push(&self, cpu: usize, task: T) {
        let queue = &self.queues[cpu.min(self.queues.len() - 1)];
        let mut waiting = queue.waiting.lock();
        waiting.push_back(task);
        queue.count.store(waiting.len(), Ordering::Relaxed);
        // Two that become ready at once do not go to the same idle pCPU.
        self.note_idle(cpu, false);
    }

    #[inline(always)] // a pCPU looks into its own queue first
    fn take(&self, queue: usize, cpu: usize) -> Option<T> {
        let queue = self.queues.get(queue)?;
        if queue.count.load(Ordering::Relaxed) == 0 && !cfg!(loom) {
            return None;
        }
        let mut waiting = queue.waiting.lock();
        let may_run = |task: &T| task.allowed() >> cpu & 1 == 1;
        let task = if waiting.front().is_some_and(may_run) {
            waiting.pop_front()
        } else {
            let index = waiting.iter().position(may_run)?;
            waiting.remove(index)
        };
        queue.count.store(waiting.len(), Ordering::Relaxed);
        task
    }

    fn note_idle(&self, cpu: usize, is_idle: bool) {
        let bit = 1u64.checked_shl(cpu as u32).unwrap_or(0);
        let known = self.idle.load(Ordering::Relaxed) & bit != 0;
        match (known, is_idle) {
            (false, true) => self.idle.fetch_or(bit, Ordering::Relaxed),
            (true, false) => self.idle.fetch_and(!bit, Ordering::Relaxed),
            _ => return,
        };
    }
}

#[cfg(test)]
mod tests;
