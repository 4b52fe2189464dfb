//! What can be done where nothing is mapped: map a page, a block, a page's neighbours, a hardware window.
//!
//! A page is made ready first and published by one compare-and-swap: who loses gives its page back. A block takes long to
//! make ready, so it is claimed before: its descriptor is [`Descriptor::LOCKED`] while one vCPU fills it, and others that
//! fault on it try again.

use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa, PaRange, WINDOW_PAGES, WINDOW_SIZE};
use crate::machine::Machine;
use crate::page_pool::OwnedPage;
use crate::stage2::clean::CleanBlock;
use crate::stage2::descriptor::{Descriptor, Level, Memory, Rights};
use crate::stage2::maintenance;
use crate::stage2::walk::{Leaf, Place, Seen, page_of};
use crate::stage2::{CleanPage, Grant, Lent, Stage2, Tables};

/// Nothing is mapped: the walk ended at an invalid descriptor, at whatever level.
#[must_use]
pub struct Absent<'t> {
    seen: Seen<'t>,
}

/// The outcome of [`Absent::map`].
#[must_use]
pub enum Mapped<'t> {
    /// The page is in the tree now.
    Installed,
    /// Somebody else was first: here is the page, and what is there.
    Raced {
        /// The page, not used.
        page: CleanPage,
        /// What the walk finds now.
        now: Leaf<'t>,
    },
}

/// A descriptor that is ours to fill: locked, so that nobody maps there meanwhile.
#[must_use = "others wait for it: fill it or release it"]
pub struct Claim<'t> {
    tree: &'t Stage2,
    ipa: Ipa,
    place: Place,
}

/// What a page of a window is made of.
#[derive(Debug)]
pub enum Supply {
    /// A page that the tree will own.
    Own(CleanPage),
    /// A page that somebody lends.
    Lent(Lent),
}

/// Pages for one that faulted and its neighbours, by their place in the window of 64 KiB.
pub type Neighbours = [Option<(Supply, Grant)>; WINDOW_PAGES];

impl<'t> Absent<'t> {
    pub(super) const fn of(seen: Seen<'t>) -> Self {
        Self { seen }
    }

    pub(super) const fn seen(&self) -> &Seen<'t> {
        &self.seen
    }

    /// Table pages that a page here needs: prepare as many.
    #[must_use]
    #[inline]
    pub const fn tables_needed(&self) -> usize {
        self.tables_needed_at(Level::LAST)
    }

    /// Table pages that a leaf at `level` needs.
    #[must_use]
    #[inline]
    pub const fn tables_needed_at(&self, level: Level) -> usize {
        level
            .number()
            .saturating_sub(self.seen.place.level.number()) as usize
    }

    /// Whether nothing at all is mapped in the range that a leaf of `level` here would cover.
    #[must_use]
    pub fn has_room_for(&self, level: Level) -> bool {
        self.seen.place.level <= level
    }

    /// The invalid descriptor that was seen.
    #[must_use]
    #[inline]
    pub const fn descriptor(&self) -> Descriptor {
        self.seen.descriptor
    }

    /// Whether somebody is at work on this very descriptor, and will be done soon: try again.
    #[must_use]
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.seen.descriptor.is_locked()
    }

    /// Maps `page` with `grant`. `tables` holds at least [`Self::tables_needed`] pages and keeps what was not used.
    #[inline(always)]
    pub fn map<M: Machine>(
        self,
        m: &mut M,
        page: CleanPage,
        grant: Grant,
        tables: &mut Tables,
    ) -> Mapped<'t> {
        grant.check(page.pa(), PAGE_SIZE);
        let Seen { tree, ipa, .. } = self.seen;
        let new = Descriptor::leaf(Level::LAST, page.pa(), grant.rights(), tree.memory(), true);
        let _walking = tree.gate.enter(m.cpu());
        match self.install(m, Level::LAST, new, tables) {
            Ok(()) => {
                tree.note_pages(1);
                tree.note_written(page_of(ipa), grant.rights());
                page.into_owned().into_pa();
                Mapped::Installed
            }
            Err(now) => Mapped::Raced { page, now },
        }
    }

    /// Which pages of the window of 64 KiB that holds this IPA have nothing mapped: bit `n` for page `n`.
    pub fn vacant_around<M: Machine>(&self, m: &mut M) -> u16 {
        if !self.seen.place.level.is_last() {
            return u16::MAX;
        }
        let _walking = self.seen.tree.gate.enter(m.cpu());
        let place = self.seen.renewed(m).place;
        if !place.level.is_last() {
            return u16::MAX;
        }
        let first = place.index & !(WINDOW_PAGES - 1);
        (0..WINDOW_PAGES).fold(0, |vacant, n| {
            let is_vacant = m.load(place.table, first + n) == Descriptor::INVALID.raw();
            vacant | u16::from(is_vacant) << n
        })
    }

    /// Maps the pages in `around` into the window of 64 KiB that holds this IPA, each where nothing is. Those that found
    /// something there stay in `around`. Answers how many were mapped.
    pub fn map_around<M: Machine>(
        self,
        m: &mut M,
        around: &mut Neighbours,
        tables: &mut Tables,
    ) -> u64 {
        let Seen { tree, ipa, .. } = self.seen;
        let _walking = tree.gate.enter(m.cpu());
        let Ok(place) = tree.link(m, ipa, Level::LAST, tables) else {
            maintenance::after_map(m);
            return 0;
        };
        let first = place.index & !(WINDOW_PAGES - 1);
        let window = ipa.raw() & !(WINDOW_SIZE - 1);
        let mut mapped = 0;
        for (n, slot) in around.iter_mut().enumerate() {
            let Some((supply, grant)) = slot else {
                continue;
            };
            let new = supply.leaf(grant, tree.memory());
            let invalid = Descriptor::INVALID.raw();
            if m.publish(place.table, first + n, invalid, new.raw())
                .is_ok()
            {
                let at = Ipa::new(window + n as u64 * PAGE_SIZE);
                tree.note_written(page_of(at), grant.rights());
                if let Some((Supply::Own(page), _)) = slot.take() {
                    tree.note_pages(1);
                    page.into_owned().into_pa();
                }
                mapped += 1;
            }
        }
        maintenance::after_map(m);
        mapped
    }

    /// Maps the hardware window page at `oa`, read and write, Device-nGnRE. The tree does not own it.
    ///
    /// # Errors
    /// What is there now, if somebody else was first.
    pub fn map_window<M: Machine>(
        self,
        m: &mut M,
        oa: Pa,
        tables: &mut Tables,
    ) -> Result<(), Leaf<'t>> {
        let rights = Rights::READ.with(Rights::WRITE);
        let new = Descriptor::leaf(Level::LAST, oa, rights, Memory::Device, false);
        let _walking = self.seen.tree.gate.enter(m.cpu());
        self.install(m, Level::LAST, new, tables)
    }

    /// Maps `lent` as a leaf of its size, without W. The tree does not own it.
    ///
    /// # Errors
    /// What is there now, if somebody else was first.
    ///
    /// # Panics
    /// If `lent` is no page and no block, or W is granted.
    pub fn lend<M: Machine>(
        self,
        m: &mut M,
        lent: &Lent,
        grant: &Grant,
        tables: &mut Tables,
    ) -> Result<(), Leaf<'t>> {
        let level = Level::of_size(lent.range().size);
        let new = lent_leaf(level, lent, grant, self.seen.tree.memory());
        let _walking = self.seen.tree.gate.enter(m.cpu());
        self.install(m, level, new, tables)
    }

    /// Claims the leaf at `level` that holds this IPA: it is locked until the claim is filled or released. `tables` holds
    /// at least [`Self::tables_needed_at`] pages.
    ///
    /// # Errors
    /// What is there now, if somebody else was first, or something smaller is mapped there.
    pub fn claim<M: Machine>(
        self,
        m: &mut M,
        level: Level,
        tables: &mut Tables,
    ) -> Result<Claim<'t>, Leaf<'t>> {
        let Seen { tree, ipa, .. } = self.seen;
        let _walking = tree.gate.enter(m.cpu());
        let placed = tree.link(m, ipa, level, tables).and_then(|place| {
            let locked = Descriptor::LOCKED.raw();
            m.publish(place.table, place.index, Descriptor::INVALID.raw(), locked)
                .map(|()| place)
                .map_err(|_| tree.now(m, ipa))
        });
        maintenance::after_map(m);
        placed.map(|place| Claim { tree, ipa, place })
    }

    /// Publishes `new` at `level`. Inside the gate.
    #[inline(always)]
    fn install<M: Machine>(
        self,
        m: &mut M,
        level: Level,
        new: Descriptor,
        tables: &mut Tables,
    ) -> Result<(), Leaf<'t>> {
        let Seen { tree, ipa, .. } = self.seen;
        if !self.is_vacant_at(level) {
            return tree.install_below(m, ipa, level, new, tables);
        }
        let published = self.seen.publish(m, new);
        maintenance::after_map(m);
        published.map_err(|_| tree.now(m, ipa))
    }

    /// The same observation for a function that is kept out of line: handed on as it is, it would have to lie in memory for
    /// those that are not.
    #[inline(always)]
    pub fn handed_on(self) -> Self {
        Self::of(self.seen.copied())
    }

    /// Whether the leaf at `level` goes just where the walk ended. Inside the gate.
    #[inline]
    fn is_vacant_at(&self, level: Level) -> bool {
        self.seen.place.level == level
            && self.seen.descriptor == Descriptor::INVALID
            && self.seen.is_current()
    }
}

impl Stage2 {
    /// Publishes `new` at `level`, where tables are missing. Inside the gate.
    #[inline(never)]
    fn install_below<M: Machine>(
        &self,
        m: &mut M,
        ipa: Ipa,
        level: Level,
        new: Descriptor,
        tables: &mut Tables,
    ) -> Result<(), Leaf<'_>> {
        let placed = self.link(m, ipa, level, tables).and_then(|place| {
            let invalid = Descriptor::INVALID.raw();
            m.publish(place.table, place.index, invalid, new.raw())
                .map_err(|_| self.now(m, ipa))
        });
        // Lost or won: tables may have been linked on the way.
        maintenance::after_map(m);
        placed
    }

    /// Links tables down to `level` and answers where the leaf at `ipa` goes. Inside the gate.
    ///
    /// # Errors
    /// What is there now, if it is not free, or takes more tables than were prepared.
    pub(super) fn link<M: Machine>(
        &self,
        m: &mut M,
        ipa: Ipa,
        level: Level,
        tables: &mut Tables,
    ) -> Result<Place, Leaf<'_>> {
        let mut seen = self.see(m, ipa);
        let is_free = seen.descriptor == Descriptor::INVALID && seen.place.level <= level;
        let missing = level.number().saturating_sub(seen.place.level.number());
        if !is_free || tables.len() < usize::from(missing) {
            return Err(Leaf::of(seen));
        }
        while seen.place.level < level {
            let table = tables.take();
            match seen.publish(m, Descriptor::table(table.pa())) {
                Ok(()) => {
                    let below = self.note_table(table);
                    seen.place = Place::below(seen.place, below, ipa);
                    seen.descriptor = Descriptor::INVALID;
                }
                Err(_) => {
                    tables.put_back(table);
                    return Err(self.now(m, ipa));
                }
            }
        }
        Ok(seen.place)
    }
}

impl Claim<'_> {
    /// Where the leaf begins.
    #[must_use]
    pub const fn start(&self) -> Ipa {
        Ipa::new(self.ipa.raw() & !(self.place.level.size() - 1))
    }

    /// Maps `block` where the claim was made.
    ///
    /// # Panics
    /// If the block has another size than the leaf.
    pub fn fill<M: Machine>(self, m: &mut M, block: CleanBlock, grant: Grant) {
        let Self { tree, ipa, place } = self;
        let size = place.level.size();
        assert_eq!(block.range().size, size, "a block as large as its claim");
        grant.check(block.range().start, size);
        let new = Descriptor::leaf(
            place.level,
            block.range().start,
            grant.rights(),
            tree.memory(),
            true,
        );
        let start = Ipa::new(ipa.raw() & !(size - 1));
        let _walking = tree.gate.enter(m.cpu());
        unlock(m, place, new);
        tree.note_pages(place.level.pages());
        tree.note_written(IpaRange { start, size }, grant.rights());
        block.into_owned().into_range();
    }

    /// Leaves nothing there.
    pub fn release<M: Machine>(self, m: &mut M) {
        unlock(m, self.place, Descriptor::INVALID);
    }
}

/// Ends a lock. Needs no gate: nobody frees a table in which a descriptor is locked, or changes the descriptor.
pub(super) fn unlock<M: Machine>(m: &mut M, place: Place, new: Descriptor) {
    let made = m.publish(
        place.table,
        place.index,
        Descriptor::LOCKED.raw(),
        new.raw(),
    );
    assert!(made.is_ok(), "nobody touches a locked descriptor");
    maintenance::after_map(m);
}

impl Supply {
    /// The page it is.
    #[must_use]
    pub const fn pa(&self) -> Pa {
        match self {
            Self::Own(page) => page.pa(),
            Self::Lent(lent) => lent.range().start,
        }
    }

    /// The page, if it was to be the tree's: to give it back.
    #[must_use]
    pub fn into_owned(self) -> Option<OwnedPage> {
        match self {
            Self::Own(page) => Some(page.into_owned()),
            Self::Lent(_) => None,
        }
    }

    fn leaf(&self, grant: &Grant, memory: Memory) -> Descriptor {
        match self {
            Self::Own(page) => {
                grant.check(page.pa(), PAGE_SIZE);
                Descriptor::leaf(Level::LAST, page.pa(), grant.rights(), memory, true)
            }
            Self::Lent(lent) => lent_leaf(Level::LAST, lent, grant, memory),
        }
    }
}

fn lent_leaf(level: Level, lent: &Lent, grant: &Grant, memory: Memory) -> Descriptor {
    let PaRange { start, size } = lent.range();
    assert_eq!(size, level.size(), "what is lent is one leaf");
    assert!(
        !grant.rights().allows(Rights::WRITE),
        "nobody writes what is lent"
    );
    grant.check(start, size);
    Descriptor::leaf(level, start, grant.rights(), memory, false)
}
