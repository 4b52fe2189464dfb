//! Blocks and tables that take each other's place in one store: what may be so changed (FEAT_BBM level 2), and the TLB
//! conflicts that come of it until the old size is gone from every TLB.

use super::bits::{self, AF, DBM, Kind};
use super::hardware::Hardware;
use super::tlb::Entry;

/// Bits 0 and 1 of a leaf: what they must be depends on its level.
const TYPE: u64 = 3;

impl Hardware {
    /// PE `pe` replaces the block `leaf`, for `start` of `tree`, by `table`.
    pub(super) fn split_in_place(
        &mut self,
        (pe, tree): (usize, usize),
        (level, start): (u8, u64),
        leaf: u64,
        table: u64,
    ) {
        self.check_resize(leaf, level, table);
        self.check_only_the_size_is_other(&self.entry(tree, level, start, leaf));
        self.adopt(tree, level, start, table, false);
        self.resizing.push((pe, tree));
    }

    /// PE `pe` replaces `table`, for `start` of `tree`, by the block `leaf`.
    pub(super) fn join_in_place(
        &mut self,
        (pe, tree): (usize, usize),
        (level, start): (u8, u64),
        table: u64,
        leaf: u64,
    ) {
        self.check_resize(leaf, level, table);
        assert!(
            leaf & AF != 0,
            "I23, what the hardware notes in {table:#x} from now on is lost"
        );
        self.check_only_the_size_is_other(&self.entry(tree, level, start, leaf));
        self.unlink(tree, table);
        self.resizing.push((pe, tree));
    }

    fn entry(&self, tree: usize, level: u8, start: u64, leaf: u64) -> Entry {
        Entry {
            vmid: self.trees[tree].vmid(),
            ipa: start,
            size: bits::span(level),
            level,
            leaf,
        }
    }

    /// All parts in `table` have the output, the attributes and the rights that `leaf` has, and the hardware may do it.
    fn check_resize(&self, leaf: u64, level: u8, table: u64) {
        assert!(
            self.setup.resizes(),
            "I5, {leaf:#x} at level {level} and its table {table:#x} without break-before-make on a CPU that needs it"
        );
        assert!(
            leaf & DBM == 0,
            "I5, the hardware notes stores in {leaf:#x}"
        );
        let (part_span, told) = (bits::span(level + 1), !(TYPE | bits::CONTIGUOUS));
        for index in 0..512 {
            let part = self.ram.frame(table).descriptor(index);
            let output = bits::address(leaf) + index as u64 * part_span;
            let attributes = |leaf: u64| (bits::fixed(leaf) & told) - bits::address(leaf);
            assert!(
                bits::kind(part, level + 1) == Kind::Leaf
                    && bits::address(part) == output
                    && attributes(part) == attributes(leaf)
                    && bits::rights(part) == bits::rights(leaf)
                    && part & DBM == 0,
                "I5, {leaf:#x} at level {level} and part {index} of its table, {part:#x}, differ in more than size"
            );
        }
    }

    /// What TLBs hold of the place says the same as `now`, but for the size. It may have fewer rights, from before some were
    /// given, and not more.
    fn check_only_the_size_is_other(&self, now: &Entry) {
        for (n, pe) in self.pes.iter().enumerate() {
            for held in pe.tlb.entries().filter(|held| held.overlaps(now)) {
                assert!(
                    held.says_the_same(now),
                    "I5, CPU {n} holds {held:x?} when only the size changes, to {now:x?}"
                );
            }
        }
    }

    /// The rights of a leaf change: wherever it is cached, it is so in this size.
    pub(super) fn check_one_size(&self, tree: usize, level: u8, start: u64, leaf: u64) {
        let now = self.entry(tree, level, start, leaf);
        for (n, pe) in self.pes.iter().enumerate() {
            for held in pe.tlb.entries().filter(|held| held.overlaps(&now)) {
                assert!(
                    held.level == level,
                    "I5, CPU {n} still holds {held:x?} when the rights of {now:x?} change"
                );
            }
        }
    }

    /// Somebody is at it, and two sizes may be found in a TLB.
    pub(super) fn is_resizing(&self, tree: usize) -> bool {
        self.resizing.iter().any(|(_, of)| *of == tree)
    }

    /// PE `pe` is done with whatever it changed.
    pub(super) fn end_resizing(&mut self, pe: usize) {
        self.resizing.retain(|(by, _)| *by != pe);
    }

    /// Whether PE `pe` finds two sizes for `ipa`, and says so instead of taking one of them.
    pub(super) fn meets_conflict(&mut self, pe: usize, tree: usize, (va, ipa): (u64, u64)) -> bool {
        let vmid = self.trees[tree].vmid();
        if !self.pes[pe].tlb.has_two_sizes(vmid, va, ipa) {
            return false;
        }
        assert!(
            self.is_resizing(tree),
            "I5, CPU {pe} holds two sizes for {ipa:#x} and nobody is at work there"
        );
        let is_told = !self.rng.one_in(4);
        if is_told {
            self.pes[pe].tlb.conflict = Some(vmid);
            self.misses += 1;
        }
        is_told
    }
}
