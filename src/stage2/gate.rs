//! The gate before a stage-2 tree: many walkers, or one changer.
//!
//! Walkers change leaves by compare-and-swap and install tables; they never free one, so they need not exclude each other.
//! A changer frees or replaces tables, and no walk may hold one of those: it closes the gate, waits until every walker has
//! left, and works alone. EL2 runs with interrupts masked and a walk is a few loads, so both waits are short.
//!
//! Each pCPU has a slot on a cache line of its own. Entering is a store to it and a load of `closed`, which all share and
//! nobody writes while no changer comes; leaving is a store. No walker writes what another reads. The store and the load
//! are `SeqCst`, as are the changer's store of `closed` and its loads of the slots: one of the two sees the other.
//!
//! Nobody starves. Changers are served in the order they came, and one closes only after every walker that it kept waiting
//! the last time has had its turn: a verb that opens and closes once for each chunk of a range cannot hold a fault up for
//! longer than a chunk.
//!
//! An observation made inside the gate may be acted on in a later visit, if the [`Gate::generation`] is the same: then no
//! table was freed or replaced in between.
//!
//! Lock order: the gate is taken before the pool's lock, and never twice by one pCPU.

use alloc::boxed::Box;

use crate::sync::{AtomicU64, AtomicUsize, Ordering, seq_cst_accesses_are_ordered, spin_loop};

/// Many walkers or one changer.
pub struct Gate {
    slots: Box<[Slot]>,
    /// [`OPEN`], or the pCPU of the changer.
    closed_by: AtomicUsize,
    next_ticket: AtomicUsize,
    now_serving: AtomicUsize,
    generation: AtomicU64,
}

/// `closed_by` when walkers may enter.
const OPEN: usize = usize::MAX;

/// What one pCPU does, alone on its cache line.
#[repr(align(64))]
struct Slot(AtomicUsize);

/// In a [`Slot`]: has nothing to do with the tree.
const AWAY: usize = 0;
/// In a [`Slot`]: found the gate closed.
const WAITING: usize = 1;
/// In a [`Slot`]: inside.
const WALKING: usize = 2;

/// Inside the gate: no table of the tree is freed or replaced meanwhile.
#[must_use = "the gate is left when this is dropped"]
pub struct Walking<'g> {
    slot: &'g Slot,
}

/// Alone inside the gate: no walker holds a table of the tree.
#[must_use = "the gate opens when this is dropped"]
pub struct Changing<'g> {
    gate: &'g Gate,
}

impl Gate {
    /// An open gate for pCPUs 0 to `cpus` - 1.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        Self {
            slots: (0..cpus).map(|_| Slot(AtomicUsize::new(AWAY))).collect(),
            closed_by: AtomicUsize::new(OPEN),
            next_ticket: AtomicUsize::new(0),
            now_serving: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
        }
    }

    /// Lets pCPU `cpu` in as a walker, at once unless a changer is inside.
    ///
    /// # Panics
    /// If the gate has no such pCPU. In debug builds, if this one is inside already: it would wait for itself.
    #[inline(always)]
    pub fn enter(&self, cpu: usize) -> Walking<'_> {
        let slot = &self.slots[cpu];
        debug_assert!(
            slot.0.load(Ordering::Relaxed) == AWAY && self.closed_by.load(Ordering::Relaxed) != cpu,
            "a pCPU is inside a gate once"
        );
        while !self.try_enter(slot) {
            self.wait_until_open(slot);
        }
        Walking { slot }
    }

    /// Keeps walkers out, waits until all have left, and lets `cpu` in as the changer.
    ///
    /// # Panics
    /// If this pCPU is inside already: it would wait for itself.
    pub fn close(&self, cpu: usize) -> Changing<'_> {
        assert!(
            self.slots[cpu].0.load(Ordering::Relaxed) == AWAY
                && self.closed_by.load(Ordering::Relaxed) != cpu,
            "a pCPU is inside a gate once"
        );
        let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        while self.now_serving.load(Ordering::Acquire) != ticket {
            spin_loop();
        }
        // The gate is open here, so whoever still waits is about to enter.
        self.wait_while_any_is(WAITING);
        self.closed_by.store(cpu, Ordering::SeqCst);
        seq_cst_accesses_are_ordered();
        self.wait_while_any_is(WALKING);
        Changing { gate: self }
    }

    /// How often a table was freed or replaced. To be compared with itself, read inside the gate.
    #[must_use]
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn try_enter(&self, slot: &Slot) -> bool {
        slot.0.store(WALKING, Ordering::SeqCst);
        seq_cst_accesses_are_ordered();
        self.closed_by.load(Ordering::SeqCst) == OPEN
    }

    #[cold]
    fn wait_until_open(&self, slot: &Slot) {
        slot.0.store(WAITING, Ordering::Release);
        while self.closed_by.load(Ordering::Acquire) != OPEN {
            spin_loop();
        }
    }

    fn wait_while_any_is(&self, state: usize) {
        for slot in &self.slots {
            while slot.0.load(Ordering::SeqCst) == state {
                spin_loop();
            }
        }
    }
}

impl Drop for Walking<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.0.store(AWAY, Ordering::Release);
    }
}

impl Changing<'_> {
    /// Notes that a table was freed or replaced: observations made before no longer count.
    pub fn bump(&self) {
        self.gate.generation.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.gate.closed_by.store(OPEN, Ordering::Release);
        self.gate.now_serving.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
