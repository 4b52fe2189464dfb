//! Table pages taken before a change is made, so that making it cannot fail: prepare, then commit.

use crate::machine::Machine;
use crate::page_pool::{OwnedPage, PagePool};
use crate::stage2::{OutOfPages, clean};

/// Tables that one verb needs at most: three to reach a page from a level-0 root, and two for each end of a range that
/// cuts a block of 1 GiB down to pages.
const MOST: usize = 4;

/// Table pages at hand, zeroed.
#[derive(Default)]
pub struct Tables {
    pages: [Option<OwnedPage>; MOST],
}

impl Tables {
    /// Takes `count` (at most 4) zeroed pages.
    ///
    /// # Errors
    /// [`OutOfPages`]; nothing is taken then.
    pub fn prepare<M: Machine>(
        m: &mut M,
        pool: &PagePool,
        count: usize,
    ) -> Result<Self, OutOfPages> {
        let mut tables = Self::default();
        tables.top_up(m, pool, count)?;
        Ok(tables)
    }

    /// Takes what is missing to `count`.
    ///
    /// # Errors
    /// [`OutOfPages`]; all pages are given back then.
    pub(super) fn top_up<M: Machine>(
        &mut self,
        m: &mut M,
        pool: &PagePool,
        count: usize,
    ) -> Result<(), OutOfPages> {
        if count == 0 {
            return Ok(());
        }
        assert!(count <= MOST, "no verb needs more tables");
        while self.len() < count {
            let Some(page) = clean::table(m, pool) else {
                core::mem::take(self).give_back(pool);
                return Err(OutOfPages);
            };
            self.put_back(page);
        }
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives what was not used back.
    pub fn give_back(self, pool: &PagePool) {
        self.pages
            .into_iter()
            .flatten()
            .for_each(|page| pool.give(page));
    }

    pub(super) fn take(&mut self) -> OwnedPage {
        let page = self.pages.iter_mut().find_map(Option::take);
        page.expect("as many table pages were prepared as the walk needs")
    }

    pub(super) fn put_back(&mut self, page: OwnedPage) {
        let slot = self.pages.iter_mut().find(|slot| slot.is_none());
        *slot.expect("a page is put back where it was taken") = Some(page);
    }
}
