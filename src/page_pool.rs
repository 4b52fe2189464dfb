//! The page pool: who owns each page of free RAM.
//!
//! Pages leave as linear tokens and come back as tokens, so a double free cannot be written. `FrameAllocator` deals in
//! chunks of 2 MiB; single pages are cut from a chunk by a bitmap. The pool therefore needs a bounded amount of heap per
//! GiB whatever order pages come back in (a buddy tree over single pages would need megabytes when every second one is
//! free), taking and giving a page on the hot path touches no tree, and whole chunks stay whole for block mappings.
//!
//! A page that leaves is a [`RawPage`]: nothing is known of its contents. Stage 2 maps only what was made clean.
//!
//! In front of it each pCPU has a stock of its own (`stock`): a few [`ZeroedPage`]s, made while it has nothing else to do,
//! and a batch of raw ones. The common fault takes from there: no lock, no zeroing. Pages in a stock are free: whoever finds
//! the pool dry takes them from there, and the account does not count them as taken.
//!
//! Lock order: the pool's lock is innermost but for the heap's. The heap never grows from the pool.

mod chunk;
mod free;
mod pages;
mod stock;

pub use pages::{OwnedBlock, OwnedPage, RawBlock, RawPage, ZeroedPage};

use alloc::vec::Vec;
use chunk::{CHUNK_PAGES, CHUNK_SHIFT};
use free::Free;
use stock::{BATCH, Ready, Stock};

use crate::addr::{PAGE_SIZE, Pa, PaRange, WINDOW_PAGES, WINDOW_SIZE};
use crate::machine::MAX_CPUS;
use crate::sync::{AtomicUsize, Ordering, SpinMutex};

/// What a block may be: a level-2 or a level-1 leaf of stage 2.
const BLOCK_SIZES: [u64; 2] = [1 << CHUNK_SHIFT, 512 << CHUNK_SHIFT];

/// pCPUs that have a stock; two in loom's small world.
const STOCKS: usize = if cfg!(loom) { 2 } else { MAX_CPUS };

/// All free RAM, shared by every pCPU.
pub struct PagePool {
    inner: SpinMutex<Free>,
    /// By pCPU.
    stocks: Vec<Stock>,
    /// Those from here on were never used.
    stocks_used: AtomicUsize,
}

impl Default for PagePool {
    fn default() -> Self {
        Self {
            inner: SpinMutex::default(),
            stocks: (0..STOCKS).map(|_| Stock::new()).collect(),
            stocks_used: AtomicUsize::new(0),
        }
    }
}

/// A page as a stock has it.
#[must_use = "a page that is dropped is lost: give it back to the pool"]
pub enum Prepared {
    /// It holds zeroes.
    Zeroed(ZeroedPage),
    /// It may hold anything.
    Raw(RawPage),
}

impl Ready {
    #[inline]
    fn into_page(self) -> ZeroedPage {
        ZeroedPage::new(OwnedPage::new(self.pa), self.is_clean)
    }
}

/// The pool's account, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Pages the pool was given at boot.
    pub total: u64,
    /// Pages out as tokens or in tables. Those in a pCPU's stock are free.
    pub taken: u64,
    /// The most that was ever out at once, or in a stock.
    pub peak: u64,
}

impl PagePool {
    /// An empty pool.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds free RAM: the whole pages inside `range`.
    ///
    /// # Panics
    /// If it overlaps RAM the pool has: two owners for one page is a bug of ours.
    pub fn add(&self, range: PaRange) {
        self.inner.lock().add(range);
    }

    /// Takes one page; `None` when the pool is dry and every stock empty.
    #[must_use]
    pub fn take(&self) -> Option<RawPage> {
        self.take_run(1).map(|pa| RawPage::new(OwnedPage::new(pa)))
    }

    /// Takes a page from the stock of pCPU `cpu`, which is ours, without a lock: one of zeroes if there is any. When it has
    /// none at all, takes a batch for it from the pool; `None` when the pool is dry and every stock empty.
    #[must_use]
    #[inline(always)]
    pub fn take_prepared(&self, cpu: usize) -> Option<Prepared> {
        if let Some(own) = self.stocks.get(cpu) {
            if let Some(ready) = own.take_ready() {
                return Some(Prepared::Zeroed(ready.into_page()));
            }
            if let Some(pa) = own.take_raw() {
                return Some(Prepared::Raw(RawPage::new(OwnedPage::new(pa))));
            }
        }
        let pa = self.take_batch(cpu)?;
        Some(Prepared::Raw(RawPage::new(OwnedPage::new(pa))))
    }

    /// Takes a page of zeroes from the stock of pCPU `cpu`, which is ours, without a lock; `None` if it has none.
    #[must_use]
    pub fn take_zeroed(&self, cpu: usize) -> Option<ZeroedPage> {
        self.stocks.get(cpu)?.take_ready().map(Ready::into_page)
    }

    /// Takes a page from the stock of pCPU `cpu`, which is ours; when it has none, takes a batch for it from the pool. `None`
    /// when the pool is dry and every stock empty.
    #[must_use]
    pub fn take_raw(&self, cpu: usize) -> Option<RawPage> {
        let own = self.stocks.get(cpu).and_then(Stock::take_raw);
        let pa = own.or_else(|| self.take_batch(cpu))?;
        Some(RawPage::new(OwnedPage::new(pa)))
    }

    /// Puts a page of zeroes into the stock of pCPU `cpu`, which is ours, or gives it back where there is no room.
    pub fn keep_zeroed(&self, cpu: usize, page: ZeroedPage) {
        self.note_used(cpu);
        let is_clean = page.is_clean();
        let owned = page.into_owned();
        let ready = Ready {
            pa: owned.pa(),
            is_clean,
        };
        if self.stocks.get(cpu).is_some_and(|own| own.put_ready(ready)) {
            owned.into_pa();
        } else {
            self.give(owned);
        }
    }

    /// Has `zero` make one more page of zeroes for the stock of pCPU `cpu`, which is ours. Answers `false` when there are
    /// enough, or no more pages. To be called when there is nothing better to do.
    pub fn prepare(&self, cpu: usize, zero: impl FnOnce(RawPage) -> ZeroedPage) -> bool {
        let Some(own) = self.stocks.get(cpu) else {
            return false;
        };
        if !own.has_room_for_ready() {
            return false;
        }
        if own.is_out_of_raw() {
            self.note_used(cpu);
            refill(own, &mut self.inner.lock());
        }
        own.prepare(|pa| {
            let zeroed = zero(RawPage::new(OwnedPage::new(pa)));
            let is_clean = zeroed.is_clean();
            Ready {
                pa: zeroed.into_owned().into_pa(),
                is_clean,
            }
        })
    }

    /// Takes `count` pages in a row (a power of two up to 512), aligned to their size; `None` when there is no such run.
    #[must_use]
    pub fn take_aligned(&self, count: usize) -> Option<Vec<RawPage>> {
        let start = self.take_run(count)?;
        let page = |i| RawPage::new(OwnedPage::new(start.add(i as u64 * PAGE_SIZE)));
        Some((0..count).map(page).collect())
    }

    /// Takes the pages of one window of 64 KiB, aligned to its size; `None` when there is no such run.
    #[must_use]
    pub fn take_window(&self) -> Option<RawBlock> {
        let range = PaRange {
            start: self.take_run(WINDOW_PAGES)?,
            size: WINDOW_SIZE,
        };
        Some(RawBlock::new(OwnedBlock::new(range)))
    }

    /// Gives such a window back.
    ///
    /// # Panics
    /// If one of its pages is not the pool's or is free already: a bug of ours.
    pub fn give_window(&self, window: OwnedBlock) {
        let PaRange { start, size } = window.into_range();
        let mut inner = self.inner.lock();
        for offset in (0..size).step_by(PAGE_SIZE as usize) {
            inner.give(start.add(offset));
        }
    }

    /// Gives a page back.
    ///
    /// # Panics
    /// If the page is not the pool's or is free already: a bug of ours.
    pub fn give(&self, page: OwnedPage) {
        self.inner.lock().give(page.into_pa());
    }

    /// Takes a block of 2 MiB or 1 GiB, aligned to its size; `None` when no memory is left in one piece. Nothing is searched:
    /// blocks are whole chunks, and the buddy allocator has them.
    ///
    /// # Panics
    /// For any other size.
    #[must_use]
    pub fn take_block(&self, size: u64) -> Option<RawBlock> {
        assert!(
            BLOCK_SIZES.contains(&size),
            "blocks are of 2 MiB or of 1 GiB"
        );
        let count = (size >> CHUNK_SHIFT) as usize;
        let mut inner = self.inner.lock();
        let start = inner.take_chunks(count).or_else(|| {
            // A page in a stock may be all that keeps a chunk from being whole.
            self.drain(&mut inner);
            inner.take_chunks(count)
        })?;
        Some(RawBlock::new(OwnedBlock::new(PaRange { start, size })))
    }

    /// Gives a block back.
    ///
    /// # Panics
    /// If the block is not the pool's or a page of it is free already: a bug of ours.
    pub fn give_block(&self, block: OwnedBlock) {
        self.inner.lock().give_chunks(block.into_range());
    }

    /// Chunks of 2 MiB of which no page is taken or in a stock.
    #[must_use]
    pub fn whole_chunks(&self) -> u64 {
        self.inner.lock().whole_chunks
    }

    /// The account at a moment at which no pCPU has a page in its hands: what an audit compares. Idle ones zero pages ahead of
    /// time, which is soon over.
    #[must_use]
    pub fn settled_account(&self) -> Account {
        // With the lock, so that no batch is on its way from the pool to a stock.
        let inner = self.inner.lock();
        let count = || {
            self.used_stocks()
                .map(Stock::settled_count)
                .sum::<Option<u64>>()
        };
        loop {
            if let (Some(stocked), Some(again)) = (count(), count())
                && stocked == again
            {
                return Account {
                    taken: inner.account.taken.saturating_sub(stocked),
                    ..inner.account
                };
            }
            crate::sync::spin_loop();
        }
    }

    /// What the pool has and what is out; exact when no other pCPU takes or gives meanwhile.
    #[must_use]
    pub fn account(&self) -> Account {
        let account = self.inner.lock().account;
        let stocked = self.used_stocks().map(Stock::count).sum();
        Account {
            taken: account.taken.saturating_sub(stocked),
            ..account
        }
    }

    fn take_run(&self, count: usize) -> Option<Pa> {
        assert!(
            count.is_power_of_two() && count <= CHUNK_PAGES,
            "a run is a power of two of at most 512 pages"
        );
        let mut inner = self.inner.lock();
        inner.take(count).or_else(|| {
            if count == 1 {
                return self.used_stocks().find_map(Stock::steal);
            }
            self.drain(&mut inner);
            inner.take(count)
        })
    }

    /// Refills the stock of pCPU `cpu` and takes a page from it; if the pool is dry, from anybody's.
    #[cold]
    fn take_batch(&self, cpu: usize) -> Option<Pa> {
        let mut inner = self.inner.lock();
        let Some(own) = self.stocks.get(cpu) else {
            return inner.take(1);
        };
        self.note_used(cpu);
        refill(own, &mut inner);
        let others = || self.used_stocks().find_map(Stock::steal);
        own.take_raw().or_else(others)
    }

    /// Before the first page comes into a stock.
    fn note_used(&self, cpu: usize) {
        if self.stocks_used.load(Ordering::Relaxed) <= cpu {
            self.stocks_used.fetch_max(cpu + 1, Ordering::Relaxed);
        }
    }

    fn used_stocks(&self) -> impl Iterator<Item = &Stock> {
        self.stocks
            .iter()
            .take(self.stocks_used.load(Ordering::Relaxed))
    }

    /// Every stock's pages come back to the pool.
    fn drain(&self, inner: &mut Free) {
        for stock in self.used_stocks() {
            while let Some(pa) = stock.steal() {
                inner.give(pa);
            }
        }
    }
}

/// Puts a batch of pages, or what is left of one, into a stock of which the caller is the owner. With the lock held to its
/// end: at no moment is a page neither here nor there.
fn refill(own: &Stock, inner: &mut Free) {
    let mut batch = [Pa::default(); BATCH];
    let mut count = 0;
    inner.take_some(BATCH, |pa| {
        batch[count] = pa;
        count += 1;
    });
    // Highest first, so that they are handed out in ascending order.
    for pa in batch[..count].iter().rev() {
        if !own.put_raw(*pa) {
            inner.give(*pa);
        }
    }
}

#[cfg(test)]
mod tests;
