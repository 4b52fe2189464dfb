//! Split and coalesce: the same translation by other descriptors.
//!
//! Between a block and the table that stands for the same memory there is a break: two sizes for one IPA in a TLB are a TLB
//! conflict. With [`ResizePolicy::InPlace`] there is none, where FEAT_BBM allows it: output address, attributes and rights
//! stay, the gate is closed until every PE has dropped the old size, and an abort for two sizes in one TLB is answered by
//! the fault handler. Guests that touch the memory meanwhile do not fault. An entry from before some right was given may be
//! among what a TLB then holds: whatever it makes of the two, nothing is in it that was not given.

use crate::addr::{Ipa, IpaRange};
use crate::machine::Machine;
use crate::page_pool::{OwnedPage, PagePool};
use crate::stage2::absent::unlock;
use crate::stage2::config::ResizePolicy;
use crate::stage2::descriptor::{Descriptor, ENTRY_BITS, Level, Rights, View};
use crate::stage2::walk::Place;
use crate::stage2::{OutOfPages, Stage2, Tables, maintenance};

/// Descriptors that a chunk of a search looks at.
const STEPS: usize = 512;

impl Stage2 {
    /// Splits every block that touches `range` until no leaf there is larger than one of level `to`. The guest sees the same
    /// memory with the same rights. Answers how many blocks were split.
    ///
    /// # Errors
    /// [`OutOfPages`] if there is no page for a table. Blocks before that are split; no translation has changed.
    ///
    /// # Panics
    /// If `range` is not whole pages inside the IPA space.
    pub fn split<M: Machine>(
        &self,
        m: &mut M,
        range: IpaRange,
        to: Level,
        pool: &PagePool,
    ) -> Result<u64, OutOfPages> {
        assert!(
            self.holds_pages(range),
            "whole pages of the IPA space are split"
        );
        let (mut at, end) = (range.start.raw(), range.end().raw());
        let (mut tables, mut count) = (Tables::default(), 0);
        while at < end {
            let changing = self.gate.close(m.cpu());
            let mut needs_table = false;
            for _ in 0..STEPS {
                let (place, leaf, start) = self.at(m, at);
                if place.level < to && matches!(leaf.view(place.level), View::Leaf(..)) {
                    needs_table = tables.is_empty();
                    if !needs_table {
                        self.split_leaf(m, place, leaf, start, &mut tables);
                        count += 1;
                    }
                    break;
                }
                at = start + place.level.size();
                if at >= end {
                    break;
                }
            }
            drop(changing);
            m.interrupt_window();
            if needs_table {
                tables.top_up(m, pool, 1)?;
            }
        }
        tables.give_back(pool);
        Ok(count)
    }

    /// Splits the blocks that reach over the ends of `range`, as far as needed and no further.
    pub(super) fn cut<M: Machine>(
        &self,
        m: &mut M,
        range: IpaRange,
        pool: &PagePool,
    ) -> Result<(), OutOfPages> {
        assert!(
            self.holds_pages(range),
            "whole pages of the IPA space are changed"
        );
        let ends = [range.start.raw(), range.end().raw()];
        let mut tables = Tables::default();
        loop {
            let changing = self.gate.close(m.cpu());
            let needed = ends.iter().map(|end| self.splits_at(m, *end)).sum();
            if tables.len() >= needed {
                for end in ends {
                    while self.splits_at(m, end) != 0 {
                        let (place, leaf, start) = self.at(m, end);
                        self.split_leaf(m, place, leaf, start, &mut tables);
                    }
                }
                break;
            }
            drop(changing);
            tables.top_up(m, pool, needed)?;
        }
        tables.give_back(pool);
        Ok(())
    }

    /// How many blocks must be split one after the other so that a leaf begins at `ipa`.
    fn splits_at<M: Machine>(&self, m: &mut M, ipa: u64) -> usize {
        if ipa >= self.config().limit() {
            return 0;
        }
        let (place, leaf, _) = self.at(m, ipa);
        let is_leaf = matches!(leaf.view(place.level), View::Leaf(..));
        let is_inside = |number: &u8| !Ipa::new(ipa).is_aligned(Level::new(*number).size());
        let levels = place.level.number()..Level::LAST.number();
        if is_leaf {
            levels.filter(is_inside).count()
        } else {
            0
        }
    }

    /// One block becomes a table of its parts: filled out of sight, then break, then make; in place, the table is what it is
    /// broken to. The gate is closed.
    fn split_leaf<M: Machine>(
        &self,
        m: &mut M,
        place: Place,
        mut leaf: Descriptor,
        start: u64,
        tables: &mut Tables,
    ) {
        let page = tables.take();
        let step = place.level.next().size();
        let (parts, table) = (page.pa(), Descriptor::table(self.note_table(page)));
        let is_in_place = self.config().resize == ResizePolicy::InPlace && !leaf.tracks_writes();
        let next = if is_in_place {
            table
        } else {
            Descriptor::LOCKED
        };
        loop {
            m.fill_table(parts, leaf.part(place.level, 0).raw(), step);
            match m.publish(place.table, place.index, leaf.raw(), next.raw()) {
                Ok(()) => break,
                // The hardware noted an access or a store: the parts inherit that.
                Err(found) => leaf = Descriptor::from_raw(found),
            }
        }
        let ttl = self.ttl(place.level);
        self.under(m, |m| maintenance::after_break(m, Ipa::new(start), ttl));
        if !is_in_place {
            unlock(m, place, table);
        }
    }

    /// Makes blocks of 2 MiB, and of those blocks of 1 GiB, of tables in `range` that are full, whose memory is in one piece
    /// and congruent. A block has the rights that all its parts had: X never spreads to a page that was not made coherent,
    /// and what is missing comes back by fault. Nothing while a dirty log is kept. Answers how many blocks were made.
    ///
    /// # Panics
    /// If `range` is not whole pages inside the IPA space.
    pub fn coalesce<M: Machine>(&self, m: &mut M, range: IpaRange, pool: &PagePool) -> u64 {
        assert!(
            self.holds_pages(range),
            "whole pages of the IPA space are coalesced"
        );
        let mut count = 0;
        for level in [Level::new(2), Level::new(1)] {
            if level < self.config().start_level {
                continue;
            }
            let size = level.size();
            let first = range.start.raw().next_multiple_of(size);
            let mut at = first;
            while at + size <= range.end().raw() {
                let changing = self.gate.close(m.cpu());
                let freed = self.coalesce_at(m, at, level);
                if freed.is_some() {
                    changing.bump();
                }
                drop(changing);
                if let Some(table) = freed {
                    pool.give(table);
                    self.note_gone(0, 1);
                    count += 1;
                }
                m.interrupt_window();
                at += size;
            }
        }
        count
    }

    /// Makes one block of the table that stands for `start` at `level`, if it can be; answers the table. The gate is closed.
    fn coalesce_at<M: Machine>(&self, m: &mut M, start: u64, level: Level) -> Option<OwnedPage> {
        if self.is_logged_at_all() {
            return None;
        }
        let place = self.place_at(m, Ipa::new(start), level)?;
        let linked = Descriptor::from_raw(m.load(place.table, place.index));
        let View::Table(table) = linked.view(level) else {
            return None;
        };
        let whole = whole_of(m, linked, level)?;
        let is_in_place = self.config().resize == ResizePolicy::InPlace && whole.is_uniform;
        let next = if is_in_place {
            // What the hardware notes from here on in the parts would be lost.
            whole.block.with_access_flag(true)
        } else {
            Descriptor::LOCKED
        };
        m.publish(place.table, place.index, linked.raw(), next.raw())
            .ok()?;
        let span = IpaRange {
            start: Ipa::new(start),
            size: level.size(),
        };
        self.under(m, |m| {
            maintenance::after_breaks(m, span, &self.config().mmu)
        });
        if !is_in_place {
            // Looked at again: until the broadcast was over the hardware could note stores and accesses.
            let block = whole_of(m, linked, level).map(|whole| whole.block);
            unlock(m, place, block.unwrap_or(linked));
            block?;
        }
        Some(OwnedPage::from_descriptor(table))
    }
}

/// What a table amounts to.
struct Whole {
    block: Descriptor,
    /// All parts have the rights of the block, and the hardware notes no stores in them: only the size would change.
    is_uniform: bool,
}

/// The block that `linked`, a table descriptor at `level`, could be replaced by.
fn whole_of<M: Machine>(m: &mut M, linked: Descriptor, level: Level) -> Option<Whole> {
    let below = level.next();
    let table = linked.address();
    let first = Descriptor::from_raw(m.load(table, 0));
    let is_start = matches!(first.view(below), View::Leaf(oa, _) if oa.is_aligned(level.size()));
    if !is_start || !first.is_owned() {
        return None;
    }
    let (mut rights, mut is_young, mut is_uniform) = (Rights::ALL, false, true);
    let model = first.fixed();
    for index in 0..1usize << ENTRY_BITS {
        let leaf = Descriptor::from_raw(m.load(table, index));
        if leaf.fixed().raw() != model.raw() + index as u64 * below.size() {
            return None;
        }
        // A leaf whose stores the hardware notes is writable, written or not.
        let noted = if leaf.tracks_writes() {
            Rights::WRITE
        } else {
            Rights::NONE
        };
        is_uniform &= leaf.rights() == first.rights() && !leaf.tracks_writes();
        rights = rights.intersection(leaf.rights().with(noted));
        is_young |= leaf.is_young();
    }
    let block = model.whole(below).with_rights(rights);
    Some(Whole {
        block: block.with_access_flag(is_young),
        is_uniform,
    })
}
