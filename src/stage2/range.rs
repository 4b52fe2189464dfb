//! Verbs over ranges that change leaves in place: take rights away, clear access flags.
//!
//! They close the gate, so no fault of this VM is inside the tree meanwhile; only the hardware is, and its updates of
//! access flags and dirty state are why even here every store is a compare-and-swap. No race ends them half-way. They work
//! in chunks, open the gate in between and take interrupts, so that nobody waits long.

use crate::addr::{Ipa, IpaRange, PAGE_SIZE};
use crate::machine::Machine;
use crate::page_pool::PagePool;
use crate::stage2::descriptor::{Descriptor, Level, Rights, View};
use crate::stage2::walk::Place;
use crate::stage2::{OutOfPages, Stage2, maintenance};

/// Descriptors that a chunk looks at.
const CHUNK: usize = 512;

/// What [`Stage2::age`] found, in leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ages {
    /// Used since the last time.
    pub young: u64,
    /// Not used.
    pub old: u64,
}

/// The part of the IPA space that changed, from the first leaf to the end of the last.
#[derive(Clone, Copy)]
pub(super) struct Span {
    leaves: u64,
    first: u64,
    end: u64,
    level: Level,
}

impl Span {
    pub(super) const NONE: Self = Self {
        leaves: 0,
        first: 0,
        end: 0,
        level: Level::LAST,
    };

    /// A table that stood for one descriptor of `level` was unlinked.
    pub(super) fn add_table(&mut self, start: u64, level: Level) {
        self.first = if self.leaves == 0 {
            start
        } else {
            self.first.min(start)
        };
        self.end = self.end.max(start + level.size());
        // Two at least: what cached the way through a table may be of any level.
        self.leaves += 2;
    }

    pub(super) fn add(&mut self, start: u64, level: Level) {
        if self.leaves == 0 {
            self.first = start;
        }
        (self.end, self.level) = (self.end.max(start + level.size()), level);
        self.leaves += 1;
    }

    pub(super) const fn leaves(&self) -> u64 {
        self.leaves
    }

    /// All PEs forget what they hold of it.
    pub(super) fn invalidate<M: Machine>(&self, m: &mut M, tree: &Stage2) {
        let (first, ttl) = (Ipa::new(self.first), tree.ttl(self.level));
        let range = IpaRange {
            start: first,
            size: self.end - self.first,
        };
        match self.leaves {
            0 => {}
            1 => tree.under(m, |m| maintenance::after_break(m, first, ttl)),
            _ => tree.under(m, |m| {
                maintenance::after_breaks(m, range, &tree.config().mmu)
            }),
        }
    }
}

impl Stage2 {
    /// Whether `range` is whole pages inside the IPA space, and not empty.
    pub(super) fn holds_pages(&self, range: IpaRange) -> bool {
        let is_inside = |end| end <= self.config().limit();
        range.size != 0
            && range.start.is_aligned(PAGE_SIZE)
            && range.size.is_multiple_of(PAGE_SIZE)
            && range
                .start
                .raw()
                .checked_add(range.size)
                .is_some_and(is_inside)
    }

    /// Runs maintenance for this VM, whoever is current on this pCPU.
    pub(super) fn under<M: Machine, R>(&self, m: &mut M, body: impl FnOnce(&mut M) -> R) -> R {
        if m.vttbr() == self.vttbr() {
            body(m)
        } else {
            maintenance::under_vttbr(m, self.vttbr(), body)
        }
    }

    /// Leaves no right in `range` but those in `most`. No CPU uses one that was taken away when this returns. A block that
    /// reaches out of the range is split first. Faults give back what the VM's policy allows. Answers how many leaves changed.
    ///
    /// # Errors
    /// [`OutOfPages`] if a block must be split and there is no page for the table; nothing has changed then.
    ///
    /// # Panics
    /// If `range` is not whole pages inside the IPA space.
    pub fn protect<M: Machine>(
        &self,
        m: &mut M,
        range: IpaRange,
        most: Rights,
        pool: &PagePool,
    ) -> Result<u64, OutOfPages> {
        self.cut(m, range, pool)?;
        Ok(self.change(m, range, |leaf, _| leaf.with_at_most(most)))
    }

    /// Clears the access flag of every leaf in `range` and says which were in use. When it returns every further use sets a
    /// flag again, by the hardware or by fault.
    ///
    /// # Panics
    /// If `range` is not whole pages inside the IPA space.
    pub fn age<M: Machine>(&self, m: &mut M, range: IpaRange) -> Ages {
        let young = self.change(m, range, |leaf, _| leaf.with_access_flag(false));
        let old = self.leaves(m, range).saturating_sub(young);
        Ages { young, old }
    }

    /// Leaves of every size that touch `range`.
    ///
    /// # Panics
    /// If `range` is not whole pages inside the IPA space.
    pub fn leaves<M: Machine>(&self, m: &mut M, range: IpaRange) -> u64 {
        let mut count = 0;
        self.each_chunk(m, range, |m, at, end| {
            self.visit(m, at, end, |_, place, descriptor, _| {
                count += u64::from(matches!(descriptor.view(place.level), View::Leaf(..)));
            })
        });
        count
    }

    /// Replaces every leaf that touches `range` by what `change` makes of it, in chunks, and has all PEs forget the old.
    /// `change` moves neither output nor type, and gives nothing. Answers how many leaves changed.
    pub(super) fn change<M: Machine>(
        &self,
        m: &mut M,
        range: IpaRange,
        change: impl Fn(Descriptor, Level) -> Descriptor,
    ) -> u64 {
        let mut changed = 0;
        self.each_chunk(m, range, |m, at, end| {
            let (next, span) = self.change_chunk(m, at, end, &change);
            changed += span.leaves();
            next
        });
        changed
    }

    /// The same in one go, by a caller who has closed the gate and whose range is small.
    pub(super) fn change_all<M: Machine>(
        &self,
        m: &mut M,
        range: IpaRange,
        change: &impl Fn(Descriptor, Level) -> Descriptor,
    ) {
        let mut at = range.start.raw();
        while at < range.end().raw() {
            (at, _) = self.change_chunk(m, at, range.end().raw(), change);
        }
    }

    fn change_chunk<M: Machine>(
        &self,
        m: &mut M,
        at: u64,
        end: u64,
        change: &impl Fn(Descriptor, Level) -> Descriptor,
    ) -> (u64, Span) {
        let mut span = Span::NONE;
        let next = self.visit(m, at, end, |m, place, mut leaf, start| {
            while matches!(leaf.view(place.level), View::Leaf(..)) {
                let new = change(leaf, place.level);
                if new == leaf {
                    break;
                }
                if leaf.has_hint() {
                    self.dissolve_alone(m, Ipa::new(start));
                    leaf = leaf.with_hint(false);
                    continue;
                }
                match m.publish(place.table, place.index, leaf.raw(), new.raw()) {
                    Ok(()) => {
                        let size = place.level.size();
                        self.keep_dirty_state(
                            leaf,
                            IpaRange {
                                start: Ipa::new(start),
                                size,
                            },
                        );
                        span.add(start, place.level);
                        break;
                    }
                    // The hardware was there: once more with what it made of it.
                    Err(found) => leaf = Descriptor::from_raw(found),
                }
            }
        });
        span.invalidate(m, self);
        (next, span)
    }

    /// Calls `chunk` with the gate closed until it has worked its way from the start of `range` to its end; it answers how far
    /// it came. In between the gate is open, and interrupts are taken.
    pub(super) fn each_chunk<M: Machine>(
        &self,
        m: &mut M,
        range: IpaRange,
        mut chunk: impl FnMut(&mut M, u64, u64) -> u64,
    ) {
        assert!(
            self.holds_pages(range),
            "a range verb works on whole pages of the IPA space"
        );
        let (mut at, end) = (range.start.raw(), range.end().raw());
        while at < end {
            let changing = self.gate.close(m.cpu());
            at = chunk(m, at, end);
            drop(changing);
            m.interrupt_window();
        }
    }

    /// Hands the descriptors that stand for `at` to `end` to `each`, up to a chunk of them, with the IPA at which each
    /// begins. Answers where it ended. The gate is closed.
    pub(super) fn visit<M: Machine>(
        &self,
        m: &mut M,
        at: u64,
        end: u64,
        mut each: impl FnMut(&mut M, Place, Descriptor, u64),
    ) -> u64 {
        let mut at = at;
        for _ in 0..CHUNK {
            if at >= end {
                break;
            }
            let (place, descriptor, start) = self.at(m, at);
            each(m, place, descriptor, start);
            at = start + place.level.size();
        }
        at
    }

    /// The descriptor that stands for `at`, and the IPA at which it begins. Always from the root: what the last step did to
    /// the tree is seen. The gate is closed.
    pub(super) fn at<M: Machine>(&self, m: &mut M, at: u64) -> (Place, Descriptor, u64) {
        let (place, descriptor) = self.find(m, Ipa::new(at));
        // Down to the start of the leaf, or the step to the next would miss what lies between.
        (place, descriptor, at & !(place.level.size() - 1))
    }
}
