//! Pages as linear tokens, and what their types say of their contents.

use crate::addr::{PAGE_SIZE, Pa, PaRange};
use crate::features::Coherence;
use crate::machine::Machine;
use crate::stage2::maintenance::{self, ExecReady};

/// A page of RAM with exactly one owner: whoever holds the token. Mapping one moves it into a descriptor.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a page that is dropped is lost: give it back to the pool"]
pub struct OwnedPage(Pa);

impl OwnedPage {
    pub(super) const fn new(pa: Pa) -> Self {
        Self(pa)
    }

    /// The token of a page whose owner was a descriptor that has just been taken out of a stage-2 tree.
    pub(crate) const fn from_descriptor(pa: Pa) -> Self {
        Self(pa)
    }

    /// Its address.
    #[must_use]
    pub const fn pa(&self) -> Pa {
        self.0
    }

    /// Gives up the token: from here on a descriptor, or the pool, owns the page.
    pub(crate) const fn into_pa(self) -> Pa {
        self.0
    }
}

/// A page fresh from the pool: it may hold anything, even another guest's secrets, and its lines may be dirty.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a page that is dropped is lost: give it back to the pool"]
pub struct RawPage(OwnedPage);

impl RawPage {
    pub(super) const fn new(page: OwnedPage) -> Self {
        Self(page)
    }

    /// Its address.
    #[must_use]
    pub const fn pa(&self) -> Pa {
        self.0.pa()
    }

    /// Zeroed and visible to a guest.
    pub fn zeroed<M: Machine>(self, m: &mut M, coherence: &Coherence) -> CleanPage {
        self.filled(m, coherence, |_, _| {})
    }

    /// Zeroed, then filled by `fill`, then visible to a guest.
    pub fn filled<M: Machine>(
        self,
        m: &mut M,
        coherence: &Coherence,
        fill: impl FnOnce(&mut M, Pa),
    ) -> CleanPage {
        let pa = self.pa();
        m.zero(pa);
        fill(m, pa);
        maintenance::make_visible(m, page_range(pa), coherence);
        CleanPage(self.0)
    }

    /// Zeroed for use as a translation table. Tables are walked cacheable and Inner Shareable (VTCR_EL2), so nothing is
    /// cleaned.
    pub fn into_table<M: Machine>(self, m: &mut M) -> OwnedPage {
        m.zero(self.pa());
        self.0
    }

    /// Holding `bytes`, at most a page of them, for EL2's own use.
    pub fn holding<M: Machine>(self, m: &mut M, bytes: &[u8]) -> OwnedPage {
        assert!(bytes.len() as u64 <= PAGE_SIZE, "a page holds 4 KiB");
        m.write(self.pa(), bytes);
        self.0
    }

    /// The bare token, to give it back.
    pub fn into_owned(self) -> OwnedPage {
        self.0
    }
}

/// A page whose contents are ours to show: zeroed or filled, and clean to the point of coherency where a guest could look
/// past the caches. Only such a page can be mapped.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a page that is dropped is lost: give it back to the pool"]
pub struct CleanPage(OwnedPage);

impl CleanPage {
    /// Its address.
    #[must_use]
    pub const fn pa(&self) -> Pa {
        self.0.pa()
    }

    /// Makes instruction fetches from it coherent. Where it was cleaned to the point of coherency just now, it is clean to
    /// the point of unification as well.
    pub fn make_executable<M: Machine>(&self, m: &mut M, coherence: &Coherence) -> ExecReady {
        let cleaned = Coherence {
            idc: coherence.idc || !coherence.fwb,
            ..*coherence
        };
        maintenance::make_executable(m, page_range(self.pa()), &cleaned)
    }

    /// The bare token, to give it back.
    pub fn into_owned(self) -> OwnedPage {
        self.0
    }
}

/// The bytes of the page at `pa`.
const fn page_range(pa: Pa) -> PaRange {
    PaRange {
        start: pa,
        size: PAGE_SIZE,
    }
}
