//! The hardware's own walk: not the library's, and from no copy of it.

use super::bits::{self, AF, CONTIGUOUS, DBM, Kind, WRITE};
use super::hardware::Hardware;
use super::memory::Owner;
use super::tlb::{Entry, Way};
use crate::addr::PAGE_SIZE;

/// Why a walk gives no entry: the fault status code without its level, and the level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) class: u64,
    pub(super) level: u8,
}

pub(super) const TRANSLATION: u64 = 0x04;
pub(super) const ACCESS_FLAG: u64 = 0x08;
pub(super) const PERMISSION: u64 = 0x0c;
pub(super) const TLB_CONFLICT: u64 = 0x30;

impl Hardware {
    /// Walks `tree` for `ipa` on PE `pe` and keeps what it finds.
    pub(super) fn walk(&mut self, pe: usize, tree: usize, ipa: u64) -> Result<Entry, Fault> {
        let view = self.trees[tree];
        let vmid = view.vmid();
        let (mut table, mut level) = match self.pes[pe].tlb.way(vmid, ipa) {
            Some(way) if !self.rng.one_in(4) => (way.table, way.level + 1),
            _ => {
                let level = view.start_level;
                let table = view.root() + ipa / (512 * bits::span(level)) * PAGE_SIZE;
                (table, level)
            }
        };
        loop {
            let owner = self.ram.frame(table).owner;
            let is_table = matches!(owner,
                Owner::Table { tree: of, .. } | Owner::Unlinked { tree: of, .. } if of == tree);
            assert!(
                is_table,
                "I9, a walk reads {table:#x} as a table, which is {owner:x?}"
            );
            let index = bits::index(ipa, level);
            let descriptor = self.read_by_walk(pe, table, index);
            match bits::kind(descriptor, level) {
                Kind::Invalid => {
                    return Err(Fault {
                        class: TRANSLATION,
                        level,
                    });
                }
                Kind::Table(next) => {
                    self.pes[pe].tlb.remember(Way {
                        vmid,
                        ipa: ipa & !(bits::span(level) - 1),
                        level,
                        table: next,
                    });
                    (table, level) = (next, level + 1);
                }
                Kind::Leaf if descriptor & AF != 0 => {
                    return Ok(self.keep(pe, tree, ipa, (table, level), descriptor));
                }
                Kind::Leaf if !view.hardware.0 => {
                    return Err(Fault {
                        class: ACCESS_FLAG,
                        level,
                    });
                }
                Kind::Leaf => {
                    if self.update(table, index, descriptor, descriptor | AF) {
                        return Ok(self.keep(pe, tree, ipa, (table, level), descriptor | AF));
                    }
                    // Somebody else was faster: once more, with what is in memory.
                    if self.ram.frame(table).descriptor(index) & 1 == 0 {
                        return Err(Fault {
                            class: TRANSLATION,
                            level,
                        });
                    }
                    self.forget_unseen(table, index);
                }
            }
        }
    }

    /// A walk that nobody asked for sets the access flag of a leaf just before the library stores to it.
    pub(super) fn update_at_the_last_moment(&mut self, table: u64, index: usize) {
        let Owner::Table { tree, level, .. } = self.ram.frame(table).owner else {
            return;
        };
        let view = self.trees[tree];
        let now = self.ram.frame(table).descriptor(index);
        let is_old = bits::kind(now, level) == Kind::Leaf && now & AF == 0;
        let is_walked = self.pes.iter().any(|pe| pe.effective_vttbr == view.vttbr);
        if is_old && is_walked && view.hardware.0 && self.rng.one_in(2) {
            self.update(table, index, now, now | AF);
            self.forget_unseen(table, index);
        }
    }

    /// Keeps `leaf`, found in `table` for `ipa`: with the contiguous hint for its whole group, if the hardware so likes, and
    /// whatever has become of the others meanwhile.
    fn keep(
        &mut self,
        pe: usize,
        tree: usize,
        ipa: u64,
        (table, level): (u64, u8),
        leaf: u64,
    ) -> Entry {
        let mut size = bits::span(level);
        if leaf & CONTIGUOUS != 0 {
            self.check_group(table, level, ipa, leaf);
            if !self.rng.one_in(4) {
                size = bits::reach(leaf, level);
            }
        }
        let entry = Entry {
            vmid: self.trees[tree].vmid(),
            ipa: ipa & !(size - 1),
            size,
            level,
            leaf,
        };
        let is_resizing = self.is_resizing(tree);
        self.pes[pe].tlb.insert(entry, is_resizing);
        entry
    }

    /// All sixteen leaves of the group are one, or are being made so.
    fn check_group(&self, table: u64, level: u8, ipa: u64, leaf: u64) {
        let (span, group) = (bits::span(level), bits::reach(leaf, level));
        for at in (ipa & !(group - 1)..)
            .step_by(span as usize)
            .take(bits::GROUP as usize)
        {
            let other = self.ram.frame(table).descriptor(bits::index(at, level));
            assert!(
                bits::agree(leaf, ipa & !(span - 1), level, other, at),
                "I5, contiguous hint: {leaf:#x} for {ipa:#x} is in one group with {other:#x} for {at:#x}"
            );
        }
    }

    /// Where the guest's access on PE `pe` goes: by what is cached of `va`, else by a walk for `ipa`, which is what the vCPU's
    /// own stage 1 makes of it.
    pub(super) fn translate(
        &mut self,
        pe: usize,
        tree: usize,
        (va, ipa): (u64, u64),
        need: usize,
    ) -> Result<Entry, Fault> {
        let vmid = self.trees[tree].vmid();
        for _ in 0..8 {
            if self.meets_conflict(pe, tree, (va, ipa)) {
                return Err(Fault {
                    class: TLB_CONFLICT,
                    level: 0,
                });
            }
            let tlb = &self.pes[pe].tlb;
            let (combined, stage2) = (tlb.combined(vmid, va), tlb.stage2(vmid, ipa));
            let entry = match (combined, stage2) {
                (Some(entry), _) => entry,
                (None, Some(entry)) => self.pes[pe].tlb.combine(entry, va, ipa),
                (None, None) => {
                    let entry = self.walk(pe, tree, ipa)?;
                    self.pes[pe].tlb.combine(entry, va, ipa)
                }
            };
            if bits::rights(entry.leaf)[need] {
                return Ok(entry);
            }
            let marks_dirty = need == 1 && entry.leaf & DBM != 0 && self.trees[tree].hardware.1;
            if !marks_dirty {
                return Err(Fault {
                    class: PERMISSION,
                    level: entry.level,
                });
            }
            // A store to a leaf that is clean: noted in memory, by what memory says now.
            let (table, index, level) = self.live_place(tree, ipa);
            let now = self.ram.frame(table).descriptor(index);
            self.pes[pe].tlb.forget(vmid, ipa);
            if bits::kind(now, level) == Kind::Leaf && now & DBM != 0 && now & AF != 0 {
                assert!(
                    self.update(table, index, now, now | WRITE),
                    "nobody is in between"
                );
                self.forget_unseen(table, index);
                let entry = self.keep(pe, tree, ipa, (table, level), now | WRITE);
                return Ok(self.pes[pe].tlb.combine(entry, va, ipa));
            }
        }
        Err(Fault {
            class: TRANSLATION,
            level: 3,
        })
    }
}
