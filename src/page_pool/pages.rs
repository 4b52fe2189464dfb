//! Pages as linear tokens: who holds one owns the page.

use crate::addr::{Pa, PaRange};

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

    /// The token of a page that was put by, and is taken up again.
    pub(crate) const fn from_tables(pa: Pa) -> Self {
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

/// A page fresh from the pool: it may hold anything, even another guest's secrets, and its lines may be dirty. What becomes
/// of it is said where it is used: [`crate::stage2::clean`].
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

    /// The bare token, to give it back.
    pub fn into_owned(self) -> OwnedPage {
        self.0
    }
}

/// A page of zeroes that nobody wrote since.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a page that is dropped is lost: give it back to the pool"]
pub struct ZeroedPage {
    page: OwnedPage,
    is_clean: bool,
}

impl ZeroedPage {
    /// `is_clean`: to the point of coherency. Made where pages are zeroed and cleaned: [`crate::stage2::clean`].
    pub(crate) const fn new(page: OwnedPage, is_clean: bool) -> Self {
        Self { page, is_clean }
    }

    /// Whether it is clean to the point of coherency: who reads past the caches finds zeroes as well.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// Its address.
    #[must_use]
    pub const fn pa(&self) -> Pa {
        self.page.pa()
    }

    /// The bare token.
    pub fn into_owned(self) -> OwnedPage {
        self.page
    }
}

/// 2 MiB or 1 GiB of RAM in one piece, aligned to its size, with exactly one owner: whoever holds the token.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a block that is dropped is lost: give it back to the pool"]
pub struct OwnedBlock(PaRange);

impl OwnedBlock {
    pub(super) const fn new(range: PaRange) -> Self {
        Self(range)
    }

    /// The token of a block whose owner was a descriptor that has just been taken out of a stage-2 tree.
    pub(crate) const fn from_descriptor(start: Pa, size: u64) -> Self {
        Self(PaRange { start, size })
    }

    /// Where it lies.
    #[must_use]
    pub const fn range(&self) -> PaRange {
        self.0
    }

    /// Gives up the token: from here on a descriptor, or the pool, owns the block. A descriptor may be split: then its pages
    /// come back one by one.
    pub(crate) const fn into_range(self) -> PaRange {
        self.0
    }
}

/// A block fresh from the pool: like [`RawPage`], it may hold anything.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a block that is dropped is lost: give it back to the pool"]
pub struct RawBlock(OwnedBlock);

impl RawBlock {
    pub(super) const fn new(block: OwnedBlock) -> Self {
        Self(block)
    }

    /// Where it lies.
    #[must_use]
    pub const fn range(&self) -> PaRange {
        self.0.range()
    }

    /// The bare token, to give it back.
    pub fn into_owned(self) -> OwnedBlock {
        self.0
    }
}
