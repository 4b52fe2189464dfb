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

use crate::addr::{Ipa, PAGE_SIZE, Pa};
use crate::machine::Machine;
use crate::stage2::CleanPage;
use crate::stage2::descriptor::{Descriptor, ENTRY_BITS, Level, Memory, Rights, View};
use crate::stage2::maintenance::{self, ExecReady};
use crate::stage2::{Stage2, Tables};

/// Rights to give. X comes only with the proof that fetches are coherent.
#[derive(PartialEq, Eq, Debug)]
pub struct Grant {
    rights: Rights,
    exec: Option<ExecReady>,
}

impl Grant {
    /// Read, write or both; X in `rights` is not taken from here.
    #[must_use]
    pub const fn data(rights: Rights) -> Self {
        Self {
            rights: rights.without(Rights::EXECUTE),
            exec: None,
        }
    }

    /// And execute.
    #[must_use]
    pub fn and_execute(self, exec: ExecReady) -> Self {
        Self {
            rights: self.rights.with(Rights::EXECUTE),
            exec: Some(exec),
        }
    }

    /// What is given.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    fn covers(&self, oa: Pa) -> bool {
        self.exec
            .as_ref()
            .is_none_or(|exec| exec.range().contains(oa))
    }
}

/// One look at a tree. Borrows the tree, never the machine.
#[derive(Clone, Copy)]
pub struct Walk<'t> {
    tree: &'t Stage2,
}

/// What a walk found at an IPA.
#[must_use]
pub enum Leaf<'t> {
    /// Nothing is mapped there.
    Absent(Absent<'t>),
    /// A page is mapped there.
    Present(Present<'t>),
}

/// Where a descriptor lies.
#[derive(Clone, Copy)]
struct Place {
    table: Pa,
    index: usize,
    level: Level,
}

/// Nothing is mapped: the walk ended at an invalid descriptor, at whatever level.
#[must_use]
pub struct Absent<'t> {
    walk: Walk<'t>,
    ipa: Ipa,
    place: Place,
    seen: Descriptor,
}

/// A page is mapped.
#[must_use]
pub struct Present<'t> {
    walk: Walk<'t>,
    ipa: Ipa,
    place: Place,
    seen: Descriptor,
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

impl Stage2 {
    /// A walk of this tree.
    #[must_use]
    pub const fn walk(&self) -> Walk<'_> {
        Walk { tree: self }
    }
}

impl<'t> Walk<'t> {
    /// What is mapped at `ipa`.
    ///
    /// # Panics
    /// If `ipa` lies outside the VM's IPA space, which the caller has ruled out: high bits are never masked away.
    pub fn leaf<M: Machine>(self, m: &mut M, ipa: Ipa) -> Leaf<'t> {
        let mut place = self.tree.root_place(ipa);
        loop {
            let seen = Descriptor::from_raw(m.load(place.table, place.index));
            match seen.view(place.level) {
                View::Table(next) => place = Place::below(place, next, ipa),
                View::Invalid => {
                    return Leaf::Absent(Absent {
                        walk: self,
                        ipa,
                        place,
                        seen,
                    });
                }
                View::Leaf(..) => {
                    return Leaf::Present(Present {
                        walk: self,
                        ipa,
                        place,
                        seen,
                    });
                }
            }
        }
    }
}

impl Stage2 {
    fn root_place(&self, ipa: Ipa) -> Place {
        assert!(
            ipa.raw() < self.config().limit(),
            "an IPA outside the VM's space reached the walker"
        );
        let level = self.config().start_level;
        let entry = ipa.raw() >> level.shift();
        let table = self.root().add((entry >> ENTRY_BITS) * PAGE_SIZE);
        Place {
            table,
            index: level.index(ipa.raw()),
            level,
        }
    }
}

impl Place {
    fn below(above: Self, table: Pa, ipa: Ipa) -> Self {
        let level = above.level.next();
        Self {
            table,
            index: level.index(ipa.raw()),
            level,
        }
    }
}

impl<'t> Absent<'t> {
    /// Table pages that a mapping here needs: prepare as many.
    #[must_use]
    pub const fn tables_needed(&self) -> usize {
        (Level::LAST.number() - self.place.level.number()) as usize
    }

    /// The invalid descriptor that was seen.
    #[must_use]
    pub const fn descriptor(&self) -> Descriptor {
        self.seen
    }

    /// Maps `page` with `grant`. `tables` holds at least [`Self::tables_needed`] pages and keeps what was not used.
    pub fn map<M: Machine>(
        self,
        m: &mut M,
        page: CleanPage,
        grant: Grant,
        tables: &mut Tables,
    ) -> Mapped<'t> {
        assert!(
            grant.covers(page.pa()),
            "X is granted for the page that was made coherent"
        );
        let tree = self.walk.tree;
        let new = Descriptor::page(page.pa(), grant.rights, tree.memory(), true);
        match self.install(m, new, tables) {
            Ok(()) => {
                tree.note_page(page.into_owned());
                Mapped::Installed
            }
            Err(now) => Mapped::Raced { page, now },
        }
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
        self.install(
            m,
            Descriptor::page(oa, rights, Memory::Device, false),
            tables,
        )
    }

    fn install<M: Machine>(
        self,
        m: &mut M,
        new: Descriptor,
        tables: &mut Tables,
    ) -> Result<(), Leaf<'t>> {
        let Self {
            walk,
            ipa,
            mut place,
            seen,
        } = self;
        if seen.is_locked() {
            return Err(walk.leaf(m, ipa));
        }
        let mut expected = seen;
        while !place.level.is_last() {
            let table = tables.take();
            let linked = Descriptor::table(table.pa());
            match m.publish(place.table, place.index, expected.raw(), linked.raw()) {
                Ok(()) => {
                    let below = walk.tree.note_table(table);
                    place = Place::below(place, below, ipa);
                    expected = Descriptor::INVALID;
                }
                Err(_) => {
                    tables.put_back(table);
                    maintenance::after_map(m);
                    return Err(walk.leaf(m, ipa));
                }
            }
        }
        let published = m.publish(place.table, place.index, expected.raw(), new.raw());
        // Lost or won: tables may have been linked on the way.
        maintenance::after_map(m);
        published.map_err(|_| walk.leaf(m, ipa))
    }
}

impl<'t> Present<'t> {
    /// Where the page is.
    #[must_use]
    pub fn output_address(&self) -> Pa {
        self.seen.address()
    }

    /// Where the page is, if it is the guest's memory and not a window into hardware.
    #[must_use]
    pub fn memory_address(&self) -> Option<Pa> {
        self.seen.is_owned().then(|| self.output_address())
    }

    /// What the guest may do to it.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.seen.rights()
    }

    /// The descriptor that was seen.
    #[must_use]
    pub const fn descriptor(&self) -> Descriptor {
        self.seen
    }

    /// Adds the rights of `grant` to the leaf in place. Rights only grow; the output address stays.
    pub fn relax<M: Machine>(self, m: &mut M, grant: Grant) -> Relaxed<'t> {
        assert!(
            grant.covers(self.output_address()),
            "X is granted for the page that was made coherent"
        );
        let Self {
            walk,
            ipa,
            place,
            mut seen,
        } = self;
        let outcome = loop {
            if seen.rights().allows(grant.rights) {
                break Relaxed::Sufficient;
            }
            let new = seen.with_rights(grant.rights);
            match m.publish(place.table, place.index, seen.raw(), new.raw()) {
                Ok(()) => break Relaxed::Relaxed,
                // The hardware may set access flag and dirty state at any moment; that is no race.
                Err(found) if seen.differs_only_by_hardware(Descriptor::from_raw(found)) => {
                    seen = Descriptor::from_raw(found);
                }
                Err(_) => {
                    break Relaxed::Raced {
                        now: walk.leaf(m, ipa),
                    };
                }
            }
        };
        maintenance::after_relax(m, ipa);
        outcome
    }

    /// Breaks the descriptor, invalidates everywhere, and makes it again as it was: what is left to try when a CPU keeps
    /// faulting on a leaf that allows the access.
    pub fn remake<M: Machine>(self, m: &mut M) {
        let Self {
            ipa, place, seen, ..
        } = self;
        // Locked, not just invalid: other PEs that fault in the gap retry and do not map over it.
        if m.publish(
            place.table,
            place.index,
            seen.raw(),
            Descriptor::LOCKED.raw(),
        )
        .is_ok()
        {
            maintenance::after_break(m, ipa);
            let made = m.publish(
                place.table,
                place.index,
                Descriptor::LOCKED.raw(),
                seen.raw(),
            );
            assert!(made.is_ok(), "nobody touches a locked descriptor");
            maintenance::after_map(m);
        }
    }
}
