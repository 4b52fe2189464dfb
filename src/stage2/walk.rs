//! The one walker, and the verbs that hang on what it saw.
//!
//! A walk ends at an observation: the leaf is [`Absent`] or [`Present`]. `map` is a method of the one and `relax` of the
//! other, so calling one in place of the other does not compile. An observation is used up by its verb, cannot be copied,
//! and commits by compare-and-swap: if the tables changed in between, the verb says so and hands back what it was given
//! together with what is there now. Nothing is done by halves.
//!
//! ```
//! use faultline::machine::Machine;
//! use faultline::stage2::{Grant, Present};
//! fn permission_fault<M: Machine>(present: Present<'_>, m: &mut M, grant: Grant) {
//!     let _ = present.relax(m, grant);
//! }
//! ```
//!
//! The same with `map`, which is what KVM did in May 2026, is refused with E0599, there is no such method:
//!
//! ```compile_fail,E0599
//! use faultline::machine::Machine;
//! use faultline::stage2::{Grant, Present};
//! fn permission_fault<M: Machine>(present: Present<'_>, m: &mut M, grant: Grant) {
//!     let _ = present.map(m, grant);
//! }
//! ```

use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa};
use crate::machine::{Machine, Ttl};
use crate::stage2::descriptor::{Descriptor, ENTRY_BITS, Level, Rights, View};
use crate::stage2::{Absent, Present, Stage2};

/// One look at a tree. Borrows the tree, never the machine.
#[derive(Clone, Copy)]
pub struct Walk<'t> {
    pub(super) tree: &'t Stage2,
}

/// What a walk found at an IPA.
#[must_use]
pub enum Leaf<'t> {
    /// Nothing is mapped there.
    Absent(Absent<'t>),
    /// A page or a block is mapped there.
    Present(Present<'t>),
}

/// Where a descriptor lies.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) table: Pa,
    pub(super) index: usize,
    pub(super) level: Level,
}

/// What a walk saw, and when: it is good for as long as the tree has not lost a table since.
#[derive(Clone, Copy)]
pub(super) struct Seen<'t> {
    pub(super) tree: &'t Stage2,
    pub(super) ipa: Ipa,
    pub(super) place: Place,
    pub(super) descriptor: Descriptor,
    generation: u64,
}

/// What is mapped at an IPA, for those who only want to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Where the byte lies.
    pub pa: Pa,
    /// What the guest may do there.
    pub rights: Rights,
    /// The level of the leaf.
    pub level: Level,
    /// Whether it is the tree's memory and not a window into hardware.
    pub is_owned: bool,
}

impl Stage2 {
    /// A walk of this tree.
    #[must_use]
    pub const fn walk(&self) -> Walk<'_> {
        Walk { tree: self }
    }

    /// What is mapped at `ipa`; `None` if nothing is, or if `ipa` lies outside the VM's IPA space.
    pub fn translate<M: Machine>(&self, m: &mut M, ipa: Ipa) -> Option<Translation> {
        if ipa.raw() >= self.config().limit() {
            return None;
        }
        let _walking = self.gate.enter(m.cpu());
        let (place, descriptor) = self.find(m, ipa);
        let View::Leaf(start, rights) = descriptor.view(place.level) else {
            return None;
        };
        Some(Translation {
            pa: start.add(ipa.raw() % place.level.size()),
            rights,
            level: place.level,
            is_owned: descriptor.is_owned(),
        })
    }

    /// The descriptor at which the walk for `ipa` ends. The caller is in the gate, or has closed it.
    #[inline(always)]
    pub(super) fn find<M: Machine>(&self, m: &mut M, ipa: Ipa) -> (Place, Descriptor) {
        let mut place = self.root_place(ipa);
        let mut shift = place.level.shift();
        loop {
            let descriptor = Descriptor::from_raw(m.load(place.table, place.index));
            let Some(table) = descriptor.next_table(place.level) else {
                return (place, descriptor);
            };
            shift -= ENTRY_BITS;
            place = Place {
                table,
                index: (ipa.raw() >> shift) as usize % (1 << ENTRY_BITS),
                level: place.level.next(),
            };
        }
    }

    /// The place of the descriptor that stands for `ipa` at `level`; `None` if the walk ends above it. Inside the gate, or
    /// with the gate closed.
    pub(super) fn place_at<M: Machine>(&self, m: &mut M, ipa: Ipa, level: Level) -> Option<Place> {
        let mut place = self.root_place(ipa);
        while place.level < level {
            let descriptor = Descriptor::from_raw(m.load(place.table, place.index));
            let View::Table(next) = descriptor.view(place.level) else {
                return None;
            };
            place = Place::below(place, next, ipa);
        }
        Some(place)
    }

    #[inline(always)]
    pub(super) fn root_place(&self, ipa: Ipa) -> Place {
        assert!(
            self.config().holds(ipa),
            "an IPA outside the VM's space reached the walker"
        );
        let level = self.config().start_level;
        let entry = ipa.raw() >> level.shift();
        // Aligned to what all root tables take together.
        let table = Pa::new(self.root().raw() | ((entry >> ENTRY_BITS) * PAGE_SIZE));
        Place {
            table,
            index: level.index(ipa.raw()),
            level,
        }
    }

    /// The hint for a TLBI after the leaf at `level` changed.
    #[inline]
    pub(super) const fn ttl(&self, level: Level) -> Ttl {
        if self.config().mmu.ttl && level.has_leaves() {
            Ttl::level(level.number())
        } else {
            Ttl::ANY
        }
    }
}

impl<'t> Walk<'t> {
    /// What is mapped at `ipa`.
    ///
    /// # Panics
    /// If `ipa` lies outside the VM's IPA space, which the caller has ruled out: high bits are never masked away.
    #[inline(always)]
    pub fn leaf<M: Machine>(self, m: &mut M, ipa: Ipa) -> Leaf<'t> {
        let _walking = self.tree.gate.enter(m.cpu());
        Leaf::of(self.tree.look(m, ipa))
    }
}

impl Stage2 {
    /// A walk from the root, inside the gate.
    pub(super) fn see<M: Machine>(&self, m: &mut M, ipa: Ipa) -> Seen<'_> {
        self.look(m, ipa)
    }

    #[inline(always)]
    fn look<M: Machine>(&self, m: &mut M, ipa: Ipa) -> Seen<'_> {
        let (place, descriptor) = self.find(m, ipa);
        Seen {
            tree: self,
            ipa,
            place,
            descriptor,
            generation: self.gate.generation(),
        }
    }

    /// What is mapped at `ipa` now, for who lost a race. Inside the gate.
    #[cold]
    pub(super) fn now<M: Machine>(&self, m: &mut M, ipa: Ipa) -> Leaf<'_> {
        Leaf::of(self.see(m, ipa))
    }
}

impl<'t> Leaf<'t> {
    #[inline(always)]
    pub(super) fn of(seen: Seen<'t>) -> Self {
        if seen.descriptor.is_leaf(seen.place.level) {
            Self::Present(Present::of(seen))
        } else {
            Self::Absent(Absent::of(seen))
        }
    }

    /// The descriptor that was seen.
    #[inline]
    pub const fn descriptor(&self) -> Descriptor {
        match self {
            Self::Absent(absent) => absent.descriptor(),
            Self::Present(present) => present.descriptor(),
        }
    }
}

impl Seen<'_> {
    /// The same observation, good for a store: as it is if no table went away since, else made anew. Inside the gate.
    pub(super) fn renewed<M: Machine>(self, m: &mut M) -> Self {
        if self.is_current() {
            self
        } else {
            self.tree.see(m, self.ipa)
        }
    }

    /// Whether no table went away since: where it was seen, there is still a descriptor. Inside the gate.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.generation == self.tree.gate.generation()
    }

    /// The same, field by field.
    #[inline(always)]
    pub(super) const fn copied(&self) -> Self {
        Self {
            tree: self.tree,
            ipa: self.ipa,
            place: Place {
                table: self.place.table,
                index: self.place.index,
                level: self.place.level,
            },
            descriptor: self.descriptor,
            generation: self.generation,
        }
    }

    /// Replaces what was seen by `new`.
    ///
    /// # Errors
    /// The descriptor that was there instead.
    #[inline]
    pub(super) fn publish<M: Machine>(&self, m: &mut M, new: Descriptor) -> Result<(), Descriptor> {
        let Place { table, index, .. } = self.place;
        m.publish(table, index, self.descriptor.raw(), new.raw())
            .map_err(Descriptor::from_raw)
    }
}

impl Place {
    #[inline]
    pub(super) fn below(above: Self, table: Pa, ipa: Ipa) -> Self {
        let level = above.level.next();
        Self {
            table,
            index: level.index(ipa.raw()),
            level,
        }
    }
}

/// The page that holds `ipa`.
pub(super) const fn page_of(ipa: Ipa) -> IpaRange {
    IpaRange {
        start: ipa.page(),
        size: PAGE_SIZE,
    }
}
