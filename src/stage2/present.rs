//! What can be done where a leaf is mapped: add rights in place, note that it is in use, make it again, put other memory
//! behind it.

use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa, PaRange};
use crate::machine::{Machine, Ttl};
use crate::page_pool::OwnedPage;
use crate::stage2::absent::unlock;
use crate::stage2::descriptor::{Descriptor, Level, Rights, View};
use crate::stage2::gate::Walking;
use crate::stage2::maintenance;
use crate::stage2::walk::{Leaf, Seen};
use crate::stage2::{CleanBlock, CleanPage, Grant};

/// A page or a block is mapped.
#[must_use]
pub struct Present<'t> {
    seen: Seen<'t>,
}

/// The outcome of [`Present::relax`]. In every case this PE's stale entries for the IPA are gone.
#[must_use]
pub enum Relaxed<'t> {
    /// The leaf has the rights now.
    Relaxed,
    /// It had them already: the fault came from a stale TLB entry.
    Sufficient,
    /// The leaf is not what was observed any more.
    Raced {
        /// What the walk finds now.
        now: Leaf<'t>,
    },
}

/// The outcome of [`Present::replace`].
#[must_use]
pub enum Replaced<'t> {
    /// The new page is behind the IPA; the old one, if the tree owned it, is here. No CPU reaches it any more.
    Done(Option<OwnedPage>),
    /// The leaf is not what was observed any more: here is the page.
    Raced {
        /// The page, not used.
        page: CleanPage,
        /// What the walk finds now.
        now: Leaf<'t>,
    },
}

impl<'t> Present<'t> {
    pub(super) const fn of(seen: Seen<'t>) -> Self {
        Self { seen }
    }

    /// Where the page of the IPA is.
    #[must_use]
    #[inline]
    pub fn output_address(&self) -> Pa {
        let offset = self.seen.ipa.raw() % self.level().size();
        self.output().start.add(offset - offset % PAGE_SIZE)
    }

    /// The memory of the whole leaf.
    #[must_use]
    #[inline]
    pub fn output(&self) -> PaRange {
        PaRange {
            start: self.seen.descriptor.address(),
            size: self.level().size(),
        }
    }

    /// The IPAs of the whole leaf.
    #[must_use]
    #[inline]
    pub const fn range(&self) -> IpaRange {
        let size = self.seen.place.level.size();
        IpaRange {
            start: Ipa::new(self.seen.ipa.raw() & !(size - 1)),
            size,
        }
    }

    /// Where the page of the IPA is, if it is the guest's memory and not a window into hardware.
    #[must_use]
    pub fn memory_address(&self) -> Option<Pa> {
        self.seen
            .descriptor
            .is_memory()
            .then(|| self.output_address())
    }

    /// Whether it is memory that somebody lent: a store is answered by putting a copy in its place.
    #[must_use]
    #[inline]
    pub fn is_lent(&self) -> bool {
        self.seen.descriptor.is_lent()
    }

    /// Whether its access flag is set.
    #[must_use]
    #[inline]
    pub fn is_young(&self) -> bool {
        self.seen.descriptor.is_young()
    }

    /// The level it lies at: 3 for pages, 2 and 1 for blocks.
    #[must_use]
    #[inline]
    pub const fn level(&self) -> Level {
        self.seen.place.level
    }

    /// What the guest may do to it.
    #[must_use]
    #[inline]
    pub fn rights(&self) -> Rights {
        self.seen.descriptor.rights()
    }

    /// The descriptor that was seen.
    #[must_use]
    #[inline]
    pub const fn descriptor(&self) -> Descriptor {
        self.seen.descriptor
    }

    /// Adds the rights of `grant` to the leaf in place, and sets its access flag. Rights only grow; the output address
    /// stays.
    ///
    /// # Panics
    /// If W is granted to memory that is lent: it is replaced, never written.
    #[inline(always)]
    pub fn relax<M: Machine>(self, m: &mut M, grant: Grant) -> Relaxed<'t> {
        let PaRange { start, size } = self.output();
        grant.check(start, size);
        assert!(
            !(self.is_lent() && grant.rights().allows(Rights::WRITE)),
            "nobody writes what is lent"
        );
        let Seen {
            tree, ipa, place, ..
        } = self.seen;
        if self.seen.descriptor.has_hint() {
            // All of its group would have to change.
            tree.dissolve(m, ipa);
        }
        let walking = tree.gate.enter(m.cpu());
        let as_seen = match self.seen.is_current() {
            true => self.add_rights(m, grant.rights()),
            false => None,
        };
        let Some(outcome) = as_seen else {
            return Self::of(self.seen.copied()).relax_anew(walking, m, grant.rights());
        };
        drop(walking);
        let ttl = tree.ttl(place.level);
        maintenance::after_relax(m, ipa, ttl);
        outcome
    }

    /// Adds rights to the leaf as it was seen; `None` if it is not that any more. Inside the gate, where it is still a
    /// descriptor.
    #[inline(always)]
    fn add_rights<M: Machine>(&self, m: &mut M, rights: Rights) -> Option<Relaxed<'t>> {
        let seen = self.seen.descriptor;
        if seen.has_hint() {
            return None;
        }
        if seen.rights().allows(rights) && seen.is_young() {
            return Some(Relaxed::Sufficient);
        }
        let new = seen.with_rights(rights).with_access_flag(true);
        self.seen.publish(m, new).ok()?;
        self.seen.tree.note_written(self.range(), rights);
        Some(Relaxed::Relaxed)
    }

    /// Relaxes the leaf as it is now. The hardware may set access flag and dirty state at any moment; that is no race.
    #[cold]
    fn relax_anew<M: Machine>(
        self,
        walking: Walking<'_>,
        m: &mut M,
        rights: Rights,
    ) -> Relaxed<'t> {
        let Seen { tree, ipa, .. } = self.seen;
        let outcome = loop {
            let seen = tree.see(m, ipa);
            // Another output means another page: the proof that X asks for is not for it.
            if !self.is_same_leaf(&seen) || seen.descriptor.has_hint() {
                break Relaxed::Raced {
                    now: Leaf::of(seen),
                };
            }
            if let Some(outcome) = Self::of(seen).add_rights(m, rights) {
                break outcome;
            }
        };
        drop(walking);
        // Where the walk did not end at the leaf that faulted, its level is not known: a wrong hint may invalidate nothing.
        maintenance::after_relax(m, ipa, Ttl::ANY);
        outcome
    }

    /// The same observation for a function that is kept out of line: see [`Absent::handed_on`](crate::stage2::Absent::handed_on).
    #[inline(always)]
    pub fn handed_on(self) -> Self {
        Self::of(self.seen.copied())
    }

    fn is_same_leaf(&self, seen: &Seen<'_>) -> bool {
        let here = self.seen.descriptor;
        seen.place.level == self.level()
            && matches!(seen.descriptor.view(seen.place.level), View::Leaf(oa, _) if oa == here.address())
    }

    /// Sets the access flag: the guest used the leaf. An entry without it is in no TLB, so nothing is invalidated. Answers
    /// whether it was this call that set it.
    pub fn make_young<M: Machine>(self, m: &mut M) -> bool {
        let tree = self.seen.tree;
        let walking = tree.gate.enter(m.cpu());
        let mut seen = self.seen.renewed(m);
        let set = loop {
            let is_leaf = matches!(seen.descriptor.view(seen.place.level), View::Leaf(..));
            if !is_leaf || seen.descriptor.is_young() {
                break false;
            }
            match seen.publish(m, seen.descriptor.with_access_flag(true)) {
                Ok(()) => break true,
                Err(found) => seen.descriptor = found,
            }
        };
        drop(walking);
        maintenance::after_map(m);
        set
    }

    /// Breaks the descriptor, invalidates everywhere, and makes it again as it was: what is left to try when a CPU keeps
    /// faulting on a leaf that allows the access. In one closing of the gate: what comes back would else be what a range verb
    /// has taken away meanwhile.
    pub fn remake<M: Machine>(self, m: &mut M) {
        let tree = self.seen.tree;
        let had_hint = self.dissolve(m);
        let _changing = tree.gate.close(m.cpu());
        if let Some(seen) = self.break_leaf(m, had_hint) {
            self.forget(m, &seen);
            unlock(m, seen.place, seen.descriptor);
        }
    }

    /// Puts `page` behind the IPA of a page leaf, with `grant` and no right besides, by break-before-make.
    ///
    /// # Panics
    /// On a block: split it first.
    pub fn replace<M: Machine>(self, m: &mut M, page: CleanPage, grant: Grant) -> Replaced<'t> {
        assert!(self.level().is_last(), "one page is replaced, not a block");
        grant.check(page.pa(), PAGE_SIZE);
        let Seen { tree, ipa, .. } = self.seen;
        let Some(seen) = self.lock(m) else {
            let _walking = tree.gate.enter(m.cpu());
            let now = Leaf::of(tree.see(m, ipa));
            return Replaced::Raced { page, now };
        };
        let new = Descriptor::leaf(Level::LAST, page.pa(), grant.rights(), tree.memory(), true);
        let walking = tree.gate.enter(m.cpu());
        unlock(m, seen.place, new);
        tree.note_written(self.range(), grant.rights());
        drop(walking);
        page.into_owned().into_pa();
        let old = seen.descriptor;
        if !old.is_owned() {
            tree.note_pages(1);
            return Replaced::Done(None);
        }
        let memory = maintenance::page_at(old.address());
        maintenance::take_back(m, memory, tree.coherence());
        Replaced::Done(Some(OwnedPage::from_descriptor(old.address())))
    }

    /// Puts `block` in the place of a block that is lent, with `grant` and no right besides, by break-before-make.
    ///
    /// # Errors
    /// The block, not used, and what is there now, if the leaf is not what was observed any more.
    ///
    /// # Panics
    /// On a leaf of another size, or one that the tree owns.
    pub fn replace_lent<M: Machine>(
        self,
        m: &mut M,
        block: CleanBlock,
        grant: &Grant,
    ) -> Result<(), (CleanBlock, Leaf<'t>)> {
        let PaRange { start, size } = block.range();
        assert!(
            self.is_lent() && self.output().size == size,
            "a block takes the place of one that is lent"
        );
        grant.check(start, size);
        let Seen { tree, ipa, .. } = self.seen;
        let Some(seen) = self.lock(m) else {
            let _walking = tree.gate.enter(m.cpu());
            let now = Leaf::of(tree.see(m, ipa));
            return Err((block, now));
        };
        let new = Descriptor::leaf(self.level(), start, grant.rights(), tree.memory(), true);
        let _walking = tree.gate.enter(m.cpu());
        unlock(m, seen.place, new);
        tree.note_pages(self.level().pages());
        tree.note_written(self.range(), grant.rights());
        block.into_owned().into_range();
        Ok(())
    }

    /// The break of break-before-make. Answers what was there at the last; `None` if it is not the leaf that was seen any more.
    ///
    /// What the hardware noted in it of stores goes to the log in the same passage: until the make nobody else finds it.
    fn lock<M: Machine>(&self, m: &mut M) -> Option<Seen<'t>> {
        let tree = self.seen.tree;
        let had_hint = self.dissolve(m);
        let walking = tree.gate.enter(m.cpu());
        let locked = self.break_leaf(m, had_hint);
        if let Some(seen) = &locked {
            tree.keep_dirty_state(seen.descriptor, self.range());
        }
        drop(walking);
        let seen = locked?;
        self.forget(m, &seen);
        Some(seen)
    }

    /// Dissolves the group that the leaf was in; answers whether there was one.
    fn dissolve<M: Machine>(&self, m: &mut M) -> bool {
        let had_hint = self.seen.descriptor.has_hint();
        if had_hint {
            self.seen.tree.dissolve(m, self.seen.ipa);
        }
        had_hint
    }

    /// Locks the descriptor. Locked, not just invalid: other PEs that fault in the gap retry and do not map over it. Inside
    /// the gate.
    fn break_leaf<M: Machine>(&self, m: &mut M, had_hint: bool) -> Option<Seen<'t>> {
        let Seen { tree, ipa, .. } = self.seen;
        let mut seen = if had_hint {
            tree.see(m, ipa)
        } else {
            self.seen.copied().renewed(m)
        };
        loop {
            if !self.is_same_leaf(&seen) || seen.descriptor.has_hint() {
                break None;
            }
            match seen.publish(m, Descriptor::LOCKED) {
                Ok(()) => break Some(seen),
                Err(found) if seen.descriptor.differs_only_by_hardware(found) => {
                    seen.descriptor = found;
                }
                Err(_) => break None,
            }
        }
    }

    /// Has every PE forget the leaf that was locked.
    fn forget<M: Machine>(&self, m: &mut M, seen: &Seen<'_>) {
        let Seen { tree, ipa, .. } = self.seen;
        let ttl = tree.ttl(seen.place.level);
        tree.under(m, |m| maintenance::after_break(m, ipa, ttl));
    }
}
