//! What becomes of a page that was taken: [`RawPage`] (may hold anything) to [`CleanPage`] (ours to show), and only that can
//! be mapped. Blocks go the same way. Memory that is not the pool's and that a guest may look at is [`Lent`].
//!
//! Source: DDI 0487 "Caches and memory hierarchy": a guest whose stage 1 is off reads past the caches.

use crate::addr::{PAGE_SIZE, Pa, PaRange};
use crate::features::Coherence;
use crate::machine::Machine;
use crate::page_pool::{OwnedBlock, OwnedPage, PagePool, Prepared, RawBlock, RawPage, ZeroedPage};
use crate::stage2::maintenance::{self, ExecReady, page_at};

impl RawPage {
    /// Zeroed and visible to a guest.
    #[inline(always)]
    pub fn zeroed<M: Machine>(self, m: &mut M, coherence: &Coherence) -> CleanPage {
        self.cleared(m, coherence).visible(m, coherence)
    }

    /// Zeroed ahead of time, and clean where a guest could look past the caches.
    #[inline(always)]
    pub fn cleared<M: Machine>(self, m: &mut M, coherence: &Coherence) -> ZeroedPage {
        let page = self.into_owned();
        m.zero(page_at(page.pa()));
        maintenance::make_visible(m, page_at(page.pa()), coherence);
        ZeroedPage::new(page, !coherence.fwb)
    }

    /// Zeroed, then filled by `fill`, then visible to a guest.
    pub fn filled<M: Machine>(
        self,
        m: &mut M,
        coherence: &Coherence,
        fill: impl FnOnce(&mut M, Pa),
    ) -> CleanPage {
        let pa = self.pa();
        m.zero(page_at(pa));
        fill(m, pa);
        maintenance::make_visible(m, page_at(pa), coherence);
        CleanPage {
            page: self.into_owned(),
            is_zero: false,
        }
    }

    /// Holding what `from`, a page, holds, then visible to a guest.
    pub fn copied<M: Machine>(self, m: &mut M, coherence: &Coherence, from: PaRange) -> CleanPage {
        assert_eq!(from.size, PAGE_SIZE, "a page is copied as a whole");
        m.copy(from, self.pa());
        maintenance::make_visible(m, page_at(self.pa()), coherence);
        CleanPage {
            page: self.into_owned(),
            is_zero: false,
        }
    }

    /// Zeroed for use as a translation table. Tables are walked cacheable and Inner Shareable (VTCR_EL2), so nothing is
    /// cleaned.
    pub fn into_table<M: Machine>(self, m: &mut M) -> OwnedPage {
        m.zero(page_at(self.pa()));
        self.into_owned()
    }

    /// Holding `bytes`, at most a page of them, for EL2's own use.
    pub fn holding<M: Machine>(self, m: &mut M, bytes: &[u8]) -> OwnedPage {
        assert!(bytes.len() as u64 <= PAGE_SIZE, "a page holds 4 KiB");
        m.write(self.pa(), bytes);
        self.into_owned()
    }
}

/// A page whose contents are ours to show: zeroed or filled, and clean to the point of coherency where a guest could look
/// past the caches. Only such a page can be mapped.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a page that is dropped is lost: give it back to the pool"]
pub struct CleanPage {
    page: OwnedPage,
    /// It holds zeroes.
    is_zero: bool,
}

impl ZeroedPage {
    /// Visible to a guest: cleaned where that is needed and was not done yet.
    #[inline(always)]
    pub fn visible<M: Machine>(self, m: &mut M, coherence: &Coherence) -> CleanPage {
        let is_clean = self.is_clean();
        let page = self.into_owned();
        if !is_clean {
            maintenance::make_visible(m, page_at(page.pa()), coherence);
        }
        CleanPage {
            page,
            is_zero: true,
        }
    }
}

/// Makes a page of zeroes for this pCPU's stock. Answers `false` when there are enough of them, or no more pages. For when
/// there is nothing better to do: a fault then finds its page prepared.
pub fn prepare<M: Machine>(m: &mut M, pool: &PagePool, coherence: &Coherence) -> bool {
    pool.prepare(m.cpu(), |page| page.cleared(m, coherence))
}

/// A zeroed page for use as a translation table; `None` when no page is left anywhere.
pub(super) fn table<M: Machine>(m: &mut M, pool: &PagePool) -> Option<OwnedPage> {
    Some(match pool.take_prepared(m.cpu())? {
        Prepared::Zeroed(page) => page.into_owned(),
        Prepared::Raw(page) => page.into_table(m),
    })
}

impl CleanPage {
    /// A page of zeroes: prepared ahead of time if this pCPU's stock has one, else made now. `None` when no page is left
    /// anywhere.
    #[inline(always)]
    pub fn take<M: Machine>(m: &mut M, pool: &PagePool, coherence: &Coherence) -> Option<Self> {
        Some(match pool.take_prepared(m.cpu())? {
            Prepared::Zeroed(page) => page.visible(m, coherence),
            Prepared::Raw(page) => page.zeroed(m, coherence),
        })
    }

    /// A page that was not used after all: into this pCPU's stock if it holds zeroes, else to the pool.
    pub fn give_back<M: Machine>(self, m: &mut M, pool: &PagePool, coherence: &Coherence) {
        if self.is_zero {
            let page = ZeroedPage::new(self.page, !coherence.fwb);
            pool.keep_zeroed(m.cpu(), page);
        } else {
            pool.give(self.page);
        }
    }

    /// Its address.
    #[must_use]
    pub const fn pa(&self) -> Pa {
        self.page.pa()
    }

    /// Makes instruction fetches from it coherent. Where it was cleaned to the point of coherency just now, it is clean to
    /// the point of unification as well.
    pub fn make_executable<M: Machine>(&self, m: &mut M, coherence: &Coherence) -> ExecReady {
        maintenance::make_executable(m, page_at(self.pa()), &after_cleaning(coherence))
    }

    /// The bare token, to give it back.
    pub fn into_owned(self) -> OwnedPage {
        self.page
    }
}

impl RawBlock {
    /// Zeroed, then filled by `fill`, then visible to a guest.
    pub fn filled<M: Machine>(
        self,
        m: &mut M,
        coherence: &Coherence,
        fill: impl FnOnce(&mut M, Pa),
    ) -> CleanBlock {
        let range = self.range();
        m.zero(range);
        fill(m, range.start);
        maintenance::make_visible(m, range, coherence);
        CleanBlock(self.into_owned())
    }
}

impl RawBlock {
    /// Holding what `from`, as large as the block, holds, then visible to a guest.
    pub fn copied<M: Machine>(self, m: &mut M, coherence: &Coherence, from: PaRange) -> CleanBlock {
        let range = self.range();
        assert_eq!(from.size, range.size, "a block is copied as a whole");
        m.copy(from, range.start);
        maintenance::make_visible(m, range, coherence);
        CleanBlock(self.into_owned())
    }
}

/// A block whose contents are ours to show; as [`CleanPage`].
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a block that is dropped is lost: give it back to the pool"]
pub struct CleanBlock(OwnedBlock);

impl CleanBlock {
    /// Where it lies.
    #[must_use]
    pub const fn range(&self) -> PaRange {
        self.0.range()
    }

    /// Makes instruction fetches from it coherent, as [`CleanPage::make_executable`].
    pub fn make_executable<M: Machine>(&self, m: &mut M, coherence: &Coherence) -> ExecReady {
        maintenance::make_executable(m, self.range(), &after_cleaning(coherence))
    }

    /// The bare token, to give it back.
    pub fn into_owned(self) -> OwnedBlock {
        self.0
    }
}

/// Memory that a guest may look at and nobody writes for as long as the tree stands: a module, where the boot loader put
/// it. It is mapped without W and never owned; who wants to write gets a copy ([`crate::stage2::Present::replace`]).
#[derive(PartialEq, Eq, Debug)]
pub struct Lent(PaRange);

impl Lent {
    /// Lends `range`, which nobody writes: visible to a guest whatever wrote it before.
    pub fn visible<M: Machine>(m: &mut M, range: PaRange, coherence: &Coherence) -> Self {
        maintenance::make_visible(m, range, coherence);
        Self(range)
    }

    /// Where it lies.
    #[must_use]
    pub const fn range(&self) -> PaRange {
        self.0
    }

    /// Makes instruction fetches from it coherent, as [`CleanPage::make_executable`].
    pub fn make_executable<M: Machine>(&self, m: &mut M, coherence: &Coherence) -> ExecReady {
        maintenance::make_executable(m, self.0, &after_cleaning(coherence))
    }
}

/// What is left to do for memory that was cleaned to the point of coherency just now: it is clean to the point of
/// unification as well.
const fn after_cleaning(coherence: &Coherence) -> Coherence {
    Coherence {
        idc: coherence.idc || !coherence.fwb,
        ..*coherence
    }
}
