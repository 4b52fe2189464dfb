//! Taking memory back from a guest.
//!
//! The order is the point: unlink, broadcast, wait, and only then clean, scrub and give back. A page is free when no TLB
//! and no walk can reach it, not when its descriptor is gone.

use crate::addr::{Ipa, IpaRange, Pa, PaRange};
use crate::machine::Machine;
use crate::page_pool::{OwnedBlock, OwnedPage, PagePool};
use crate::stage2::descriptor::{Descriptor, ENTRY_BITS, Level, View};
use crate::stage2::range::Span;
use crate::stage2::walk::Place;
use crate::stage2::{OutOfPages, Stage2, maintenance};

/// Leaves that a chunk takes out before it waits for the broadcast.
const LEAVES: usize = 64;
/// Descriptors it looks at for them.
const STEPS: usize = 512;
/// Tables that may become empty in so many steps: those on the way up from where a table ends, twice.
const TABLES: usize = 8;

/// Bytes that are zeroed before interrupts are taken: some 150,000 instructions with cleaning.
const PART: u64 = 2 << 20;

/// What was taken out and may still be in a TLB or on a walk's way. Lives on the stack: no verb needs the heap.
struct Unlinked {
    leaves: [(Pa, Level); LEAVES],
    leaf_count: usize,
    tables: [Pa; TABLES],
    table_count: usize,
    span: Span,
}

impl Unlinked {
    const fn new() -> Self {
        Self {
            leaves: [(Pa::new(0), Level::LAST); LEAVES],
            leaf_count: 0,
            tables: [Pa::new(0); TABLES],
            table_count: 0,
            span: Span::NONE,
        }
    }
}

impl Stage2 {
    /// Takes everything out of `range`: memory goes back to `pool`, clean to the point of coherency and zeroed; windows are
    /// just unmapped; tables that become empty are freed. A block that reaches out of the range is split first. No CPU reaches
    /// any of it when this returns. What another vCPU is filling at the moment is left to it. Answers how many pages came
    /// back.
    ///
    /// # Errors
    /// [`OutOfPages`] if a block must be split and there is no page for the table; nothing has changed then.
    ///
    /// # Panics
    /// If `range` is not whole pages inside the IPA space.
    pub fn unmap<M: Machine>(
        &self,
        m: &mut M,
        range: IpaRange,
        pool: &PagePool,
    ) -> Result<u64, OutOfPages> {
        self.cut(m, range, pool)?;
        let (mut at, end) = (range.start.raw(), range.end().raw());
        let mut pages = 0;
        while at < end {
            let mut gone = Unlinked::new();
            let changing = self.gate.close(m.cpu());
            at = self.unlink(m, at, end, &mut gone);
            gone.span.invalidate(m, self);
            if gone.table_count != 0 {
                changing.bump();
            }
            drop(changing);
            pages += self.give_back(m, &gone, pool);
            m.interrupt_window();
        }
        Ok(pages)
    }

    /// Takes leaves out of the tree, and tables that become empty with them. Answers how far it came.
    fn unlink<M: Machine>(&self, m: &mut M, at: u64, end: u64, gone: &mut Unlinked) -> u64 {
        let mut at = at;
        for _ in 0..STEPS {
            if at >= end || gone.leaf_count == LEAVES {
                break;
            }
            let (place, mut leaf, start) = self.at(m, at);
            if leaf.has_hint() {
                // Of a group that is taken out in part a TLB could keep all.
                self.dissolve_alone(m, Ipa::new(start));
                leaf = leaf.with_hint(false);
            }
            if let View::Leaf(oa, _) = leaf.view(place.level) {
                let last = take_out(m, place, leaf);
                let size = place.level.size();
                let start = Ipa::new(start);
                self.keep_dirty_state(last, IpaRange { start, size });
                gone.span.add(start.raw(), place.level);
                if last.is_owned() {
                    gone.leaves[gone.leaf_count] = (oa, place.level);
                    gone.leaf_count += 1;
                }
            }
            at = start + place.level.size();
            self.prune(m, place, start, at == end, gone);
        }
        at
    }

    /// Unlinks the table of `place`, whose descriptor for `start` was looked at last, and those above it, where they are
    /// empty now and nothing of them is still to be looked at.
    fn prune<M: Machine>(
        &self,
        m: &mut M,
        mut place: Place,
        start: u64,
        is_last: bool,
        gone: &mut Unlinked,
    ) {
        while place.level > self.config().start_level {
            let is_end = is_last || place.index == (1 << ENTRY_BITS) - 1;
            if !is_end || (0..1 << ENTRY_BITS).any(|n| m.load(place.table, n) != 0) {
                return;
            }
            let up = Level::new(place.level.number() - 1);
            let above = self.place_at(m, Ipa::new(start), up);
            let above = above.expect("a table hangs on the one above it");
            let table = Descriptor::table(place.table).raw();
            let unlinked = m.publish(above.table, above.index, table, 0);
            assert!(unlinked.is_ok(), "only changers unlink tables");
            gone.tables[gone.table_count] = place.table;
            gone.table_count += 1;
            // A walk may have cached the way through it, and nothing else of it may have been there to invalidate.
            gone.span
                .add_table(start & !(above.level.size() - 1), above.level);
            place = above;
        }
    }

    /// Gives back what no CPU reaches any more. Answers how many pages of memory that were.
    fn give_back<M: Machine>(&self, m: &mut M, gone: &Unlinked, pool: &PagePool) -> u64 {
        let mut pages = 0;
        for (start, level) in &gone.leaves[..gone.leaf_count] {
            self.scrub(m, *start, level.size());
            pages += level.pages();
            give(pool, *start, *level);
        }
        for table in &gone.tables[..gone.table_count] {
            pool.give(OwnedPage::from_descriptor(*table));
        }
        self.note_gone(pages, gone.table_count as u64);
        pages
    }

    /// Cleans and zeroes memory that no CPU reaches any more.
    fn scrub<M: Machine>(&self, m: &mut M, start: Pa, size: u64) {
        let part = size.min(PART);
        for offset in (0..size).step_by(part as usize) {
            let memory = PaRange {
                start: start.add(offset),
                size: part,
            };
            maintenance::take_back(m, memory, self.coherence());
            m.zero(memory);
            maintenance::make_visible(m, memory, self.coherence());
            if part == PART {
                m.interrupt_window();
            }
        }
    }
}

/// Breaks a leaf for good. Answers what it was at the last: the hardware may have noted a store meanwhile.
fn take_out<M: Machine>(m: &mut M, place: Place, leaf: Descriptor) -> Descriptor {
    let mut leaf = leaf;
    while let Err(found) = m.publish(
        place.table,
        place.index,
        leaf.raw(),
        Descriptor::INVALID.raw(),
    ) {
        leaf = Descriptor::from_raw(found);
    }
    leaf
}

/// Gives the memory of a leaf that was taken out back.
pub(super) fn give(pool: &PagePool, start: Pa, level: Level) {
    if level.is_last() {
        pool.give(OwnedPage::from_descriptor(start));
    } else {
        pool.give_block(OwnedBlock::from_descriptor(start, level.size()));
    }
}
