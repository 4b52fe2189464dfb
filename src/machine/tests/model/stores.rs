//! Stores on their way: to a descriptor, which walks may miss until the right DSB, and a guest's, which leave its CPU late.

use std::vec::Vec;

use super::hardware::Hardware;
use super::maintenance::{Work, is_local};
use crate::addr::PAGE_SIZE;
use crate::machine::Tlbi;

/// A store to a descriptor that walks may still miss.
#[derive(Clone, Copy)]
pub(super) struct Unseen {
    by: usize,
    table: u64,
    index: usize,
    old: u64,
    /// The storing PE's own walks see it.
    is_seen_here: bool,
    /// How often it was missed: in the end every store is seen.
    missed: u32,
}

/// A guest's store that has left the CPU and not reached memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    pub(super) tree: usize,
    pub(super) ipa: u64,
    pub(super) pa: u64,
    pub(super) line: usize,
    pub(super) value: u64,
    pub(super) is_cached: bool,
    /// A broadcast of stage 1 was complete since (with CVE-2025-10263, that is not enough).
    was_waited_for: bool,
}

impl Late {
    pub(super) const fn new(tree: usize, ipa: u64, pa: u64, line: usize, is_cached: bool) -> Self {
        Self {
            tree,
            ipa,
            pa,
            line,
            value: 0,
            is_cached,
            was_waited_for: false,
        }
    }
}

impl Hardware {
    /// A guest's store reaches memory.
    pub(super) fn land(&mut self, late: Late) {
        let Late {
            tree,
            ipa,
            pa,
            line,
            value,
            is_cached,
            ..
        } = late;
        let page = ipa & !(PAGE_SIZE - 1);
        let frame = self.ram.frame_mut(pa);
        assert!(
            frame.owner.is_behind(tree, page, pa & !(PAGE_SIZE - 1)),
            "I8, a guest's store through a dead translation lands in {pa:#x}, which is {:x?}",
            frame.owner
        );
        if is_cached {
            frame.lines[line].store(value);
        } else {
            frame.lines[line].store_uncached(value);
        }
        frame.histories[line].wrote(value);
    }

    pub(super) fn drain(&mut self, pe: usize) {
        for late in std::mem::take(&mut self.pes[pe].late) {
            self.land(late);
        }
    }

    /// Walks of PE `pe` itself see its stores.
    pub(super) fn show_own_stores(&mut self, pe: usize) {
        for store in self.unseen.iter_mut().filter(|store| store.by == pe) {
            store.is_seen_here = true;
        }
    }

    /// All PEs see the stores of PE `pe`, and with each those that it replaced.
    pub(super) fn show_stores(&mut self, pe: usize) {
        let mut shown = Vec::new();
        for store in std::mem::take(&mut self.unseen).into_iter().rev() {
            let place = (store.table, store.index);
            if store.by == pe || shown.contains(&place) {
                shown.push(place);
            } else {
                self.unseen.insert(0, store);
            }
        }
    }

    /// Stores through entries that a complete TLBI removed have reached memory; with CVE-2025-10263, only when one more
    /// broadcast is complete.
    pub(super) fn wait_for_stores(&mut self, done: &[Work]) {
        let is_broadcast = |work: &Work| matches!(work, Work::Tlbi(op, _) if !is_local(*op));
        let is_stage1 = |work: &Work| {
            matches!(
                work,
                Work::Tlbi(Tlbi::Vmalle1Is | Tlbi::Vmalls12e1Is | Tlbi::Alle1Is, _)
            )
        };
        let (any, stage1) = (done.iter().any(is_broadcast), done.iter().any(is_stage1));
        for pe in 0..self.pes.len() {
            for mut late in std::mem::take(&mut self.pes[pe].late) {
                let is_over = if self.setup.stores_linger {
                    any && late.was_waited_for
                } else {
                    stage1
                };
                late.was_waited_for |= stage1;
                if is_over {
                    self.land(late);
                } else {
                    self.pes[pe].late.push(late);
                }
            }
        }
    }

    /// Stores `new`; walks may miss it until the right DSB.
    pub(super) fn store(&mut self, pe: usize, table: u64, index: usize, new: u64) {
        let old = self.ram.frame(table).descriptor(index);
        self.ram.frame_mut(table).set_descriptor(index, new);
        self.changes[pe] += 1;
        self.unseen.push(Unseen {
            by: pe,
            table,
            index,
            old,
            is_seen_here: false,
            missed: 0,
        });
    }

    /// A descriptor as a walk of PE `pe` reads it.
    pub(super) fn read_by_walk(&mut self, pe: usize, table: u64, index: usize) -> u64 {
        // In the order in which they were stored. From the last one that this PE sees for certain it sees all that follow, or
        // misses all from some store on.
        let is_it = |store: &Unseen| (store.table, store.index) == (table, index);
        let is_seen = |store: &Unseen| is_it(store) && store.by == pe && store.is_seen_here;
        let from = self.unseen.iter().rposition(is_seen).map_or(0, |n| n + 1);
        for n in from..self.unseen.len() {
            let store = self.unseen[n];
            if is_it(&store) && store.missed < 4 && self.rng.one_in(2) {
                self.unseen[n].missed += 1;
                self.misses += 1;
                return store.old;
            }
        }
        self.ram.frame(table).descriptor(index)
    }

    /// A change by the hardware itself: seen at once, lost never.
    pub(super) fn update(&mut self, table: u64, index: usize, old: u64, new: u64) -> bool {
        let frame = self.ram.frame_mut(table);
        if frame.descriptor(index) != old {
            return false;
        }
        frame.set_descriptor(index, new);
        true
    }

    /// The hardware changed the descriptor: whoever reads it sees that.
    pub(super) fn forget_unseen(&mut self, table: u64, index: usize) {
        self.unseen
            .retain(|store| (store.table, store.index) != (table, index));
    }

    /// Tables in `[start, end)` are no tables any more.
    pub(super) fn forget_unseen_in(&mut self, start: u64, end: u64) {
        self.unseen
            .retain(|store| !(start..end).contains(&store.table));
    }

    pub(super) const fn misses(&self) -> u64 {
        self.misses
    }

    pub(super) fn has_unseen(&self, pe: usize) -> bool {
        let is_open = |store: &Unseen| store.by == pe && !store.is_seen_here;
        self.unseen.iter().any(is_open)
    }
}
