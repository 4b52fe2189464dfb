//! The contiguous hint: 16 pages side by side in both spaces, which a TLB may keep as one entry of 64 KiB.
//!
//! A group is made at once, where nothing is mapped, of memory in one piece and with the same rights for all. After that it does
//! not change: before anything is done to one of its pages the group is dissolved, by break-before-make of all 16, for one PE may
//! hold the entry of 64 KiB by any of them.
//!
//! Source: DDI 0487 "The Contiguous bit", "Misprogramming the Contiguous bit", "Using break-before-make when updating
//! translation table entries".

use crate::addr::{Ipa, IpaRange, PAGE_SIZE, WINDOW_PAGES, WINDOW_SIZE};
use crate::machine::Machine;
use crate::stage2::absent::unlock;
use crate::stage2::clean::CleanBlock;
use crate::stage2::descriptor::{Descriptor, Level};
use crate::stage2::walk::{Place, Seen};
use crate::stage2::{Absent, Grant, Stage2, Tables, maintenance};

/// The group's IPAs.
const fn group_of(ipa: Ipa) -> IpaRange {
    IpaRange {
        start: Ipa::new(ipa.raw() & !(WINDOW_SIZE - 1)),
        size: WINDOW_SIZE,
    }
}

/// The places of a group's descriptors.
fn places(of: Place) -> impl Iterator<Item = Place> {
    let first = of.index & !(WINDOW_PAGES - 1);
    (first..first + WINDOW_PAGES).map(move |index| Place { index, ..of })
}

/// A group's descriptors, which are ours to fill: locked, so that nobody maps there meanwhile.
#[must_use = "others wait for it: fill it"]
pub struct GroupClaim<'t> {
    tree: &'t Stage2,
    ipa: Ipa,
    place: Place,
}

impl<'t> Absent<'t> {
    /// Claims all 16 pages of the group that holds this IPA. `tables` holds at least [`Self::tables_needed`] pages.
    ///
    /// # Errors
    /// The same observation, if something is mapped there, or somebody else was first; nothing is locked then.
    pub fn claim_group<M: Machine>(
        self,
        m: &mut M,
        tables: &mut Tables,
    ) -> Result<GroupClaim<'t>, Self> {
        let Seen { tree, ipa, .. } = *self.seen();
        let _walking = tree.gate.enter(m.cpu());
        let placed = tree.link(m, ipa, Level::LAST, tables).ok();
        let locked = placed.filter(|place| lock_all(m, *place));
        maintenance::after_map(m);
        locked
            .map(|place| GroupClaim { tree, ipa, place })
            .ok_or(self)
    }
}

/// Locks descriptors that are all invalid; false if one is not, and none is locked.
fn lock_all<M: Machine>(m: &mut M, place: Place) -> bool {
    let (invalid, locked) = (Descriptor::INVALID.raw(), Descriptor::LOCKED.raw());
    for (n, at) in places(place).enumerate() {
        if m.publish(at.table, at.index, invalid, locked).is_err() {
            let taken = places(place).take(n);
            taken.for_each(|at| unlock(m, at, Descriptor::INVALID));
            return false;
        }
    }
    true
}

impl GroupClaim<'_> {
    /// Maps `block` where the claim was made.
    ///
    /// # Panics
    /// If the block has another size than the group.
    pub fn fill<M: Machine>(self, m: &mut M, block: CleanBlock, grant: Grant) {
        let Self { tree, ipa, place } = self;
        let memory = block.range();
        assert_eq!(memory.size, WINDOW_SIZE, "a block as large as its claim");
        grant.check(memory.start, WINDOW_SIZE);
        let _walking = tree.gate.enter(m.cpu());
        for (n, at) in places(place).enumerate() {
            let pa = memory.start.add(n as u64 * PAGE_SIZE);
            let leaf = Descriptor::leaf(Level::LAST, pa, grant.rights(), tree.memory(), true);
            swap(m, at, Descriptor::LOCKED, leaf.with_hint(true));
        }
        maintenance::after_map(m);
        tree.note_pages(WINDOW_PAGES as u64);
        tree.note_written(group_of(ipa), grant.rights());
        block.into_owned().into_range();
    }
}

impl Stage2 {
    /// Dissolves the group that holds `ipa`, if one does: its pages are mapped as they were, each by itself.
    #[cold]
    pub(super) fn dissolve<M: Machine>(&self, m: &mut M, ipa: Ipa) {
        let _changing = self.gate.close(m.cpu());
        self.dissolve_alone(m, ipa);
    }

    /// The same by a caller who has closed the gate.
    #[cold]
    pub(super) fn dissolve_alone<M: Machine>(&self, m: &mut M, ipa: Ipa) {
        let (place, leaf) = self.find(m, ipa);
        if !leaf.has_hint() {
            return;
        }
        let mut leaves = [Descriptor::INVALID; WINDOW_PAGES];
        for (leaf, at) in leaves.iter_mut().zip(places(place)) {
            *leaf = Descriptor::from_raw(m.load(at.table, at.index));
            // Used and not tracked, as they are, the hardware has nothing to note in them.
            swap(m, at, *leaf, Descriptor::LOCKED);
        }
        self.under(m, |m| {
            maintenance::after_breaks(m, group_of(ipa), &self.config().mmu);
        });
        for (leaf, at) in leaves.iter().zip(places(place)) {
            swap(m, at, Descriptor::LOCKED, leaf.with_hint(false));
        }
        maintenance::after_map(m);
    }
}

/// Replaces a descriptor that nobody else touches.
fn swap<M: Machine>(m: &mut M, at: Place, old: Descriptor, new: Descriptor) {
    let swapped = m.publish(at.table, at.index, old.raw(), new.raw());
    assert!(swapped.is_ok(), "a group changes by who has all of it");
}
