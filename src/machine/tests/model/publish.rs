//! What may become of a descriptor, checked when it is stored. The invariants' numbers are those of stage2.md section 10.

use std::string::String;
use std::vec::Vec;

use super::bits::{self, Kind, LOCKED};
use super::hardware::{Fetched, Hardware};
use super::memory::Owner;
use super::tlb::Entry;
use crate::addr::{PAGE_SIZE, Pa};

impl Hardware {
    /// A descriptor changes from `old` to `new`.
    pub(super) fn check_publish(
        &mut self,
        pe: usize,
        (table, index): (u64, usize),
        old: u64,
        new: u64,
    ) {
        let Owner::Table { tree, level, ipa } = self.ram.frame(table).owner else {
            panic!(
                "I9, a store into {table:#x}, which is {:x?}",
                self.ram.frame(table).owner
            );
        };
        let start = ipa + index as u64 * bits::span(level);
        self.warm(tree, start);
        let (before, after) = (bits::kind(old, level), bits::kind(new, level));
        match (before, after) {
            (Kind::Invalid, Kind::Invalid) => assert!(
                matches!((old, new), (0, LOCKED) | (LOCKED, 0)),
                "an invalid descriptor became another: {old:#x} to {new:#x}"
            ),
            (Kind::Invalid, Kind::Leaf) => {
                let was = self.broken.remove(&(table, index));
                if let Some(was) = was.filter(|was| bits::address(*was) != bits::address(new)) {
                    self.leave(tree, level, start, was);
                }
                self.install(tree, level, start, new);
            }
            (Kind::Invalid, Kind::Table(to)) => {
                self.broken.remove(&(table, index));
                self.link(tree, level, start, to);
            }
            (Kind::Leaf, Kind::Leaf) => {
                assert!(
                    bits::fixed(old) == bits::fixed(new),
                    "I5, {old:#x} to {new:#x} without break-before-make"
                );
                if bits::rights(new)[2] && !bits::rights(old)[2] {
                    self.check_executable(level, new);
                }
                self.check_lent(new);
                if bits::rights(new) != bits::rights(old) {
                    self.check_one_size(tree, level, start, new);
                }
            }
            (Kind::Leaf, Kind::Invalid) => {
                assert!(
                    matches!(new, 0 | LOCKED),
                    "an entry that is gone is gone: {new:#x}"
                );
                if new == 0 {
                    self.leave(tree, level, start, old);
                } else {
                    self.broken.insert((table, index), old);
                }
            }
            (Kind::Table(from), Kind::Invalid) => self.unlink(tree, from),
            (Kind::Leaf, Kind::Table(to)) => {
                self.split_in_place((pe, tree), (level, start), old, to);
            }
            (Kind::Table(from), Kind::Leaf) => {
                self.join_in_place((pe, tree), (level, start), from, new);
            }
            (Kind::Table(_), Kind::Table(_)) => {
                panic!("I5, {old:#x} to {new:#x} at level {level} without break-before-make")
            }
        }
    }

    /// A leaf where nothing is.
    fn install(&mut self, tree: usize, level: u8, start: u64, leaf: u64) {
        assert!(
            leaf & bits::AF != 0 || self.is_same_tenant(tree, start, leaf),
            "I20, made without AF"
        );
        let vmid = self.trees[tree].vmid();
        let entry = Entry {
            vmid,
            ipa: start,
            size: bits::span(level),
            level,
            leaf,
        };
        self.check_nothing_else_is_cached(&entry);
        let memory = bits::address(leaf);
        if !self.ram.holds(memory) {
            assert!(!bits::rights(leaf)[2], "I20, a window that executes");
            return assert!(
                bits::is_device(leaf),
                "I20, a window that is not a device's: {leaf:#x}"
            );
        }
        // By one of a contiguous group all of it can be reached.
        let reach = bits::reach(leaf, level);
        let inside = start % reach;
        self.take_over(tree, start - inside, (memory - inside, reach));
        self.check_lent(leaf);
        if bits::rights(leaf)[2] {
            self.check_executable(level, leaf);
        }
    }

    fn is_same_tenant(&self, tree: usize, start: u64, leaf: u64) -> bool {
        let memory = bits::address(leaf);
        self.ram.holds(memory) && self.ram.frame(memory).owner == Owner::guest(tree, start, memory)
    }

    /// What lies at `pa` is mapped at `ipa`: it was there before, or it is fresh.
    fn take_over(&mut self, tree: usize, ipa: u64, (pa, size): (u64, u64)) {
        let (fwb, owner) = (self.setup.fwb, Owner::guest(tree, ipa, pa));
        self.ram.change(pa, size, |frame, (page, _)| {
            if frame.owner == owner {
                return;
            }
            let is_lent = frame.owner == Owner::Module;
            assert!(
                is_lent || frame.owner == Owner::Hypervisor,
                "I14, {page:#x} is mapped for {ipa:#x} and is {:x?}",
                frame.owner
            );
            assert!(
                is_lent || frame.is_prepared,
                "I13, {page:#x} goes to a guest with what was in it"
            );
            for line in &frame.lines {
                assert!(
                    fwb || line.at_coherency() == line.current(),
                    "I12, {page:#x} is mapped and not clean to the point of coherency"
                );
            }
            if !is_lent {
                frame.begin_tenancy(owner);
            }
        });
    }

    fn check_lent(&self, leaf: u64) {
        let memory = bits::address(leaf);
        let is_lent = self.ram.holds(memory) && self.ram.frame(memory).owner == Owner::Module;
        assert!(
            !is_lent || !bits::rights(leaf)[1],
            "I14, {memory:#x} is lent and gets W"
        );
    }

    /// What was broken here is in no TLB any more when something else is made.
    fn check_nothing_else_is_cached(&self, new: &Entry) {
        for (n, pe) in self.pes.iter().enumerate() {
            for old in pe.tlb.entries().filter(|old| old.vmid == new.vmid) {
                let overlap = old.ipa < new.ipa + new.size && new.ipa < old.ipa + old.size;
                let is_same = old.level == new.level
                    && bits::common(old.leaf, old.level) == bits::common(new.leaf, new.level);
                assert!(
                    !overlap || is_same,
                    "I5, CPU {n} still has {old:x?} when {new:x?} is made"
                );
            }
        }
    }

    /// No I-cache holds a line of an earlier owner, and what it would be filled from is this one's.
    fn check_executable(&self, level: u8, leaf: u64) {
        let (start, size) = (bits::address(leaf), bits::span(level));
        for ((page, _), frame) in self.ram.parts(start, size) {
            for (line, history) in frame.lines.iter().zip(&frame.histories) {
                assert!(
                    history.holds(line.at_unification(self.setup.idc)),
                    "I11, {page:#x} gets X and is not clean to the point of unification"
                );
            }
        }
        for (n, pe) in self.pes.iter().enumerate() {
            let of_it = |line: &&Fetched| (start..start + size).contains(&line.page);
            for fetched in pe.icache.values().filter(of_it) {
                let page = fetched.page;
                assert!(
                    fetched.tenancy == self.ram.frame(page).tenancy,
                    "I11, {page:#x} gets X while CPU {n}'s I-cache holds a line of its last owner"
                );
            }
        }
    }

    fn link(&mut self, tree: usize, level: u8, start: u64, table: u64) {
        let entry = Entry {
            vmid: self.trees[tree].vmid(),
            ipa: start,
            size: bits::span(level),
            level: 0,
            leaf: 0,
        };
        // Whatever leaf was here must be gone; where the same table is linked again, its leaves may be cached.
        let frame = self.ram.frame(table);
        let is_back = matches!(frame.owner, Owner::Unlinked { tree: of, .. } if of == tree);
        if !is_back {
            self.check_nothing_else_is_cached(&entry);
        }
        self.adopt(tree, level, start, table, is_back);
    }

    /// `table` is one of the tree's from now on, for `start`; it was before, or it is fresh.
    pub(super) fn adopt(&mut self, tree: usize, level: u8, start: u64, table: u64, is_back: bool) {
        let below = level + 1;
        let frame = self.ram.frame(table);
        if !is_back {
            assert!(
                frame.owner == Owner::Hypervisor && frame.is_prepared,
                "I9, {table:#x} is linked as a table and is {:x?}",
                frame.owner
            );
        }
        for index in 0..512 {
            let ipa = start + index as u64 * bits::span(below);
            let child = self.ram.frame(table).descriptor(index);
            match bits::kind(child, below) {
                Kind::Invalid => {}
                Kind::Leaf if is_back => {}
                Kind::Leaf => {
                    let memory = bits::address(child);
                    let same = Owner::guest(tree, ipa, memory);
                    for ((pa, _), frame) in self.ram.parts(memory, bits::span(below)) {
                        let owner = frame.owner;
                        assert!(
                            owner == same || owner == Owner::Module,
                            "I1, {pa:#x} is linked for {ipa:#x} and is {owner:x?}"
                        );
                    }
                }
                Kind::Table(_) => assert!(is_back, "a fresh table has no tables"),
            }
        }
        let frame = self.ram.frame_mut(table);
        (frame.owner, frame.is_prepared) = (
            Owner::Table {
                tree,
                level: below,
                ipa: start,
            },
            false,
        );
    }

    pub(super) fn unlink(&mut self, tree: usize, table: u64) {
        let frame = self.ram.frame_mut(table);
        let Owner::Table { level, ipa, .. } = frame.owner else {
            panic!("{table:#x} is unlinked and is {:x?}", frame.owner);
        };
        frame.owner = Owner::Unlinked { tree, level, ipa };
        self.leaving.push((table, PAGE_SIZE));
    }

    fn leave(&mut self, tree: usize, level: u8, start: u64, leaf: u64) {
        let memory = bits::address(leaf);
        if !self.ram.holds(memory) {
            return;
        }
        let (size, shift) = (bits::span(level), start.wrapping_sub(memory));
        let leaving = &mut self.leaving;
        self.ram.change(memory, size, |frame, part| {
            if frame.owner != Owner::Module {
                frame.owner = Owner::Leaving { tree, shift };
                leaving.push(part);
            }
        });
    }

    /// What still reaches `[start, end)`, if anything does.
    fn reached(&self, start: u64, end: u64) -> Option<String> {
        for (n, pe) in self.pes.iter().enumerate() {
            for entry in pe.tlb.entries() {
                let from = entry.output(entry.ipa);
                if from < end && start < from + entry.size {
                    return Some(std::format!("CPU {n} holds {entry:x?}"));
                }
            }
            if let Some(way) = pe
                .tlb
                .ways
                .iter()
                .find(|way| (start..end).contains(&way.table))
            {
                return Some(std::format!("CPU {n}'s walk cache holds {way:x?}"));
            }
            if let Some(late) = pe.late.iter().find(|late| (start..end).contains(&late.pa)) {
                return Some(std::format!("CPU {n} has a store on its way: {late:x?}"));
            }
        }
        None
    }

    /// The hypervisor uses `[start, end)` as its own.
    pub(super) fn take_back(&mut self, start: u64, end: u64) {
        let mut others = Vec::new();
        for ((pa, size), frame) in self.ram.parts(start, end - start) {
            let owner = frame.owner;
            let is_dying = |tree: usize| self.trees[tree].is_dying;
            let is_ours = match owner {
                Owner::Hypervisor | Owner::Leaving { .. } | Owner::Unlinked { .. } => true,
                Owner::Table { tree, .. } | Owner::Guest { tree, .. } => is_dying(tree),
                Owner::Module => false,
            };
            assert!(
                is_ours,
                "I14, the hypervisor writes to {pa:#x}, which is {owner:x?}"
            );
            if owner == Owner::Hypervisor {
                continue;
            }
            if let Some(how) = self.reached(pa, pa + size) {
                panic!("I8, {pa:#x} ({owner:x?}) is used again while {how}");
            }
            others.push((pa, size));
        }
        for (pa, size) in others {
            self.ram.change(pa, size, |frame, _| frame.release());
        }
        // A walk that comes here again sees what is written now, or what is written after it.
        self.forget_unseen_in(start, end);
    }

    /// Pages and tables that were taken out and have come back to the pool: nothing reaches them.
    pub(super) fn check_freed(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let pool = self.pool.clone();
        let Some(is_taken) = pool.try_tell_taken() else {
            return;
        };
        for (pa, size) in std::mem::take(&mut self.leaving) {
            if !self.ram.frame(pa).owner.is_gone() {
                continue;
            }
            if is_taken(Pa::new(pa)) {
                self.leaving.push((pa, size));
                continue;
            }
            if let Some(how) = self.reached(pa, pa + size) {
                panic!("I8, {pa:#x} is free while {how}");
            }
            self.ram.change(pa, size, |frame, _| {
                // Where a page of it is something else again, it was looked at then.
                if frame.owner.is_gone() {
                    frame.release();
                }
            });
        }
    }

    /// Every entry in every TLB of `tree` is what the tree says now: no right that was taken away (I6), nothing that was
    /// unmapped (I8), no other size (I5), nothing that is not in use (I23). While no verb of the host is at work.
    pub(super) fn audit(&self, tree: usize) {
        if self.trees[tree].verbs != 0 || self.trees[tree].is_dying || self.is_resizing(tree) {
            return;
        }
        let vmid = self.trees[tree].vmid();
        for (n, pe) in self.pes.iter().enumerate() {
            let stage2 = pe.tlb.stage2.iter().map(|entry| (entry, true));
            let combined = pe.tlb.combined.iter().map(|one| (&one.entry, false));
            for (entry, is_stage2) in stage2
                .chain(combined)
                .filter(|(entry, _)| entry.vmid == vmid)
            {
                self.audit_entry(tree, n, entry, is_stage2);
            }
        }
    }

    fn audit_entry(&self, tree: usize, n: usize, entry: &Entry, is_stage2: bool) {
        for at in (entry.ipa..entry.ipa + entry.size).step_by(bits::span(entry.level) as usize) {
            let (table, index, level) = self.live_place(tree, at);
            let live = self.ram.frame(table).descriptor(index);
            if live == LOCKED {
                continue;
            }
            assert!(
                bits::kind(live, level) == Kind::Leaf
                    && entry.output(at) == bits::address(live) + at % bits::span(level),
                "I8, CPU {n} holds {entry:x?} where {live:#x} is"
            );
            assert!(
                !is_stage2 || level == entry.level,
                "I5, CPU {n} holds {entry:x?} where {live:#x} is"
            );
            let (held, given) = (bits::rights(entry.leaf), bits::rights(live));
            assert!(
                (0..3).all(|right| given[right] || !held[right]),
                "I6, CPU {n} holds {entry:x?} where {live:#x} is"
            );
            assert!(
                live & bits::AF != 0,
                "I23, CPU {n} holds {entry:x?} where {live:#x} is not in use"
            );
        }
    }
}
