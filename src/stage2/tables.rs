//! Table pages taken before a change is made, so that making it cannot fail: prepare, then commit.

use crate::addr::Pa;
use crate::machine::Machine;
use crate::page_pool::{OwnedPage, PagePool};
use crate::stage2::{OutOfPages, clean};

/// Tables that one verb needs at most: three to reach a page from a level-0 root, and two for each end of a range that
/// cuts a block of 1 GiB down to pages.
const MOST: usize = 4;

/// Table pages at hand, zeroed.
#[derive(Default)]
pub struct Tables {
    /// The first `count` are there.
    pages: [Pa; MOST],
    count: usize,
}

impl Tables {
    /// Takes `count` (at most 4) zeroed pages.
    ///
    /// # Errors
    /// [`OutOfPages`]; nothing is taken then.
    #[inline]
    pub fn prepare<M: Machine>(
        m: &mut M,
        pool: &PagePool,
        count: usize,
    ) -> Result<Self, OutOfPages> {
        let mut tables = Self::default();
        if count != 0 {
            tables.top_up(m, pool, count)?;
        }
        Ok(tables)
    }

    /// Takes what is missing to `count`.
    ///
    /// # Errors
    /// [`OutOfPages`]; all pages are given back then.
    #[inline(never)]
    pub(super) fn top_up<M: Machine>(
        &mut self,
        m: &mut M,
        pool: &PagePool,
        count: usize,
    ) -> Result<(), OutOfPages> {
        while self.count < count {
            let Some(page) = clean::table(m, pool) else {
                self.give_all_back(pool);
                return Err(OutOfPages);
            };
            self.put_back(page);
        }
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Gives what was not used back.
    #[inline]
    pub fn give_back(mut self, pool: &PagePool) {
        if !self.is_empty() {
            self.give_all_back(pool);
        }
    }

    #[cold]
    fn give_all_back(&mut self, pool: &PagePool) {
        while !self.is_empty() {
            pool.give(self.take());
        }
    }

    /// # Panics
    /// If there is none: as many were prepared as the walk needs.
    pub(super) fn take(&mut self) -> OwnedPage {
        self.count -= 1;
        OwnedPage::from_tables(self.pages[self.count])
    }

    /// # Panics
    /// If there are as many as any verb needs.
    pub(super) fn put_back(&mut self, page: OwnedPage) {
        self.pages[self.count] = page.into_pa();
        self.count += 1;
    }
}
