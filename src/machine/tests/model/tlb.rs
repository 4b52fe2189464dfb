//! What one CPU has cached of translations: stage-2 leaves, walks' ways through tables, and entries that combine stage 1
//! and stage 2. Any of them stays until it is invalidated or evicted.

use std::vec::Vec;

use super::bits::{CONTIGUOUS, address, common, fixed, reach, rights, span};
use crate::addr::PAGE_SIZE;
use crate::machine::Tlbi;

/// A leaf, as some walk found it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) vmid: u16,
    /// Where what it covers begins: a whole leaf in a stage-2 entry, or a whole group of leaves with the contiguous hint;
    /// a page in a combined one.
    pub(super) ipa: u64,
    pub(super) size: u64,
    /// The level of the leaf.
    pub(super) level: u8,
    pub(super) leaf: u64,
}

/// Stage 1 and stage 2 together, for a page: no trace is left of the tables that stage 1 was read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Combined {
    /// The virtual page.
    va: u64,
    pub(super) entry: Entry,
}

/// The way to a table: that of the next level, for what starts at `ipa`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) vmid: u16,
    pub(super) ipa: u64,
    /// The level of the descriptor that points to the table.
    pub(super) level: u8,
    pub(super) table: u64,
}

impl Entry {
    pub(super) const fn covers(&self, vmid: u16, ipa: u64) -> bool {
        self.vmid == vmid && ipa >= self.ipa && ipa - self.ipa < self.size
    }

    /// Whether both are the same VM's, for the same memory in part.
    pub(super) const fn overlaps(&self, other: &Self) -> bool {
        self.vmid == other.vmid && self.meets(other.ipa, other.size)
    }

    const fn meets(&self, ipa: u64, size: u64) -> bool {
        self.ipa < ipa + size && ipa < self.ipa + self.size
    }

    /// Whether it is what `now` says, in whatever size, with no right that `now` has not.
    pub(super) fn says_the_same(&self, now: &Self) -> bool {
        let at = self.ipa.max(now.ipa);
        let attributes = |entry: &Self| fixed(entry.leaf) & !(0x3 | CONTIGUOUS) & !address(!0);
        let (held, given) = (rights(self.leaf), rights(now.leaf));
        self.output(at) == now.output(at)
            && attributes(self) == attributes(now)
            && (0..3).all(|right| given[right] || !held[right])
    }

    /// Where it takes `ipa`.
    pub(super) const fn output(&self, ipa: u64) -> u64 {
        let reach = reach(self.leaf, self.level);
        (address(self.leaf) & !(reach - 1)) + ipa % reach
    }

    /// Whether hardware that finds both would not know which to take: other size, other output, other attributes.
    fn conflicts_with(&self, other: &Self) -> bool {
        let is_same = self.level == other.level
            && common(self.leaf, self.level) == common(other.leaf, other.level)
            && (self.ipa ^ other.ipa) & !(reach(self.leaf, self.level) - 1) == 0;
        self.overlaps(other) && !is_same
    }
}

/// Entries of a kind that a CPU keeps at most.
const MOST: usize = 48;

#[derive(Default)]
pub(super) struct Tlb {
    pub(super) stage2: Vec<Entry>,
    pub(super) combined: Vec<Combined>,
    pub(super) ways: Vec<Way>,
    /// The VMID of a conflict that was reported, until all of it is invalidated.
    pub(super) conflict: Option<u16>,
}

impl Tlb {
    pub(super) fn combined(&self, vmid: u16, va: u64) -> Option<Entry> {
        let mut all = self.combined.iter();
        let found = all.find(|one| one.entry.vmid == vmid && one.va == va & !(PAGE_SIZE - 1));
        found.map(|one| one.entry)
    }

    pub(super) fn stage2(&self, vmid: u16, ipa: u64) -> Option<Entry> {
        let mut entries = self.stage2.iter();
        entries.find(|entry| entry.covers(vmid, ipa)).copied()
    }

    /// The longest way towards `ipa` that is known.
    pub(super) fn way(&self, vmid: u16, ipa: u64) -> Option<Way> {
        let is_here = |way: &&Way| way.vmid == vmid && ipa & !(span(way.level) - 1) == way.ipa;
        let ways = self.ways.iter().filter(is_here);
        ways.max_by_key(|way| way.level).copied()
    }

    /// Whether what is kept for `va`, which is `ipa`, was found in leaves of two sizes.
    pub(super) fn has_two_sizes(&self, vmid: u16, va: u64, ipa: u64) -> bool {
        let stage2 = self.stage2.iter().filter(|entry| entry.covers(vmid, ipa));
        let mut levels = stage2.map(|entry| entry.level);
        let combined = self.combined(vmid, va).map(|entry| entry.level);
        let first = combined.or_else(|| levels.next());
        levels.any(|level| Some(level) != first)
    }

    /// Keeps `entry`; with `is_resizing`, beside what differs from it in size.
    ///
    /// # Panics
    /// If it would be at odds with another entry.
    pub(super) fn insert(&mut self, entry: Entry, is_resizing: bool) {
        let is_harmless = |other: &Entry| {
            is_resizing
                && other.level != entry.level
                && (other.says_the_same(&entry) || entry.says_the_same(other))
        };
        if let Some(other) = self
            .stage2
            .iter()
            .find(|other| other.conflicts_with(&entry) && !is_harmless(other))
        {
            panic!("I5, TLB conflict: {entry:x?} beside {other:x?}");
        }
        if self.stage2.len() == MOST {
            self.stage2.remove(0);
        }
        self.stage2.push(entry);
    }

    /// Keeps that `va` is `ipa`, which `entry` takes further; answers what it kept.
    pub(super) fn combine(&mut self, entry: Entry, va: u64, ipa: u64) -> Entry {
        if self.combined.len() == MOST {
            self.combined.remove(0);
        }
        let entry = Entry {
            ipa: ipa & !(PAGE_SIZE - 1),
            size: PAGE_SIZE,
            ..entry
        };
        let va = va & !(PAGE_SIZE - 1);
        self.combined.push(Combined { va, entry });
        entry
    }

    pub(super) fn remember(&mut self, way: Way) {
        if self.ways.len() == MOST {
            self.ways.remove(0);
        }
        self.ways.push(way);
    }

    pub(super) fn forget(&mut self, vmid: u16, ipa: u64) {
        self.stage2.retain(|entry| !entry.covers(vmid, ipa));
        self.combined.retain(|one| !one.entry.covers(vmid, ipa));
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let combined = self.combined.iter().map(|one| &one.entry);
        self.stage2.iter().chain(combined)
    }

    pub(super) fn evict(&mut self, choice: usize) {
        let count = self.stage2.len() + self.combined.len() + self.ways.len();
        if count == 0 {
            return;
        }
        let n = choice % count;
        if n < self.stage2.len() {
            self.stage2.remove(n);
        } else if n - self.stage2.len() < self.combined.len() {
            self.combined.remove(n - self.stage2.len());
        } else {
            self.ways
                .remove(n - self.stage2.len() - self.combined.len());
        }
    }

    /// Carries out a TLBI for `vmid`.
    pub(super) fn invalidate(&mut self, op: Tlbi, vmid: u16) {
        if matches!(op, Tlbi::Vmalls12e1 | Tlbi::Vmalls12e1Is) && self.conflict == Some(vmid) {
            self.conflict = None;
        }
        match op {
            Tlbi::Ipas2e1(ipa, ttl) | Tlbi::Ipas2e1Is(ipa, ttl) => {
                self.by_ipa(vmid, ipa.raw() & !(PAGE_SIZE - 1), PAGE_SIZE, ttl.only());
            }
            Tlbi::Ripas2e1Is(range) => {
                let size = range.pages() * PAGE_SIZE;
                self.by_ipa(vmid, range.start.raw(), size, range.ttl.only());
            }
            Tlbi::Vmalle1 | Tlbi::Vmalle1Is => self.combined.retain(|one| one.entry.vmid != vmid),
            Tlbi::Vmalls12e1 | Tlbi::Vmalls12e1Is => {
                self.stage2.retain(|entry| entry.vmid != vmid);
                self.combined.retain(|one| one.entry.vmid != vmid);
                self.ways.retain(|way| way.vmid != vmid);
            }
            Tlbi::Alle1Is => *self = Self::default(),
            Tlbi::RepeatVale2Is => {}
        }
    }

    /// Stage 2 alone: leaves at the level of the hint, and the ways to them.
    fn by_ipa(&mut self, vmid: u16, ipa: u64, size: u64, level: Option<u8>) {
        self.stage2.retain(|entry| {
            let is_meant = level.is_none_or(|level| level == entry.level);
            !(entry.vmid == vmid && entry.meets(ipa, size) && is_meant)
        });
        self.ways.retain(|way| {
            let is_meant = level.is_none_or(|level| way.level < level);
            let is_here = way.ipa < ipa + size && ipa < way.ipa + span(way.level);
            !(way.vmid == vmid && is_here && is_meant)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::bits::{AF, LOCKED, READ, WRITE, agree};
    use super::*;
    use crate::addr::Ipa;
    use crate::machine::Ttl;

    const PAGE: u64 = 3 | READ | AF | 0x8000_0000;
    const MEMBER: u64 = PAGE | CONTIGUOUS;

    /// Made of the fifth member, kept for all sixteen.
    fn group() -> Entry {
        Entry {
            vmid: 1,
            ipa: 0x4000_0000,
            size: 16 * PAGE_SIZE,
            level: 3,
            leaf: MEMBER + 5 * PAGE_SIZE,
        }
    }

    #[test]
    fn one_entry_of_a_group_answers_for_all_of_it_until_any_member_is_invalidated() {
        for member in 0..16 {
            let mut tlb = Tlb::default();
            tlb.insert(group(), false);
            let ipa = 0x4000_0000 + member * PAGE_SIZE;
            let output = tlb.stage2(1, ipa).map(|entry| entry.output(ipa + 8));
            assert_eq!(output, Some(0x8000_0008 + member * PAGE_SIZE));
            tlb.invalidate(Tlbi::Ipas2e1Is(Ipa::new(ipa), Ttl::ANY), 1);
            assert!(tlb.stage2(1, 0x4000_0000).is_none());
        }
    }

    #[test]
    fn a_member_may_be_kept_alone_beside_its_group() {
        let mut tlb = Tlb::default();
        tlb.insert(group(), false);
        tlb.insert(
            Entry {
                ipa: 0x4000_2000,
                size: PAGE_SIZE,
                leaf: MEMBER + 2 * PAGE_SIZE,
                ..group()
            },
            false,
        );
    }

    #[test]
    #[should_panic(expected = "I5, TLB conflict")]
    fn a_member_that_lost_the_hint_while_the_group_is_cached_is_a_conflict() {
        let mut tlb = Tlb::default();
        tlb.insert(group(), false);
        tlb.insert(
            Entry {
                ipa: 0x4000_2000,
                size: PAGE_SIZE,
                leaf: PAGE + 2 * PAGE_SIZE,
                ..group()
            },
            false,
        );
    }

    #[test]
    fn a_group_is_of_congruent_leaves_with_equal_rights_or_locked_ones() {
        let with = |other| agree(MEMBER, 0x4000_0000, 3, other, 0x4000_1000);
        assert!(with(MEMBER + PAGE_SIZE) && with(LOCKED));
        // Free, without the hint, with another right, another one's memory, memory of another group.
        let wrong = [
            0,
            PAGE + PAGE_SIZE,
            (MEMBER | WRITE) + PAGE_SIZE,
            MEMBER + 2 * PAGE_SIZE,
            MEMBER + 17 * PAGE_SIZE,
        ];
        assert!(wrong.into_iter().all(|other| !with(other)));
        // Alike, and not congruent.
        assert!(!agree(MEMBER, 0x4000_1000, 3, MEMBER, 0x4000_0000));
    }
}
