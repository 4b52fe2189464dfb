//! The stocks in front of the pool: no lock on the common path, and no page that anybody misses.

use super::{MIB, pool};
use crate::page_pool::stock::BATCH;
use crate::page_pool::{OwnedPage, PagePool, RawPage, ZeroedPage};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

/// What `prepare` asks for: zeroing does not matter here.
fn zeroed(page: RawPage) -> ZeroedPage {
    ZeroedPage::new(page.into_owned(), true)
}

fn give_all(pool: &PagePool, pages: Vec<OwnedPage>) {
    pages.into_iter().for_each(|page| pool.give(page));
}

#[test]
fn the_common_fault_takes_no_lock() {
    let pool = pool(&[(0x4000_0000, 2 * MIB)]);
    assert!(pool.prepare(3, zeroed));
    let raw = pool.take_raw(3).unwrap();
    // Whoever wants the lock now waits for ever.
    let inner = pool.inner.lock();
    let ready = pool.take_zeroed(3).unwrap();
    let more: Vec<RawPage> = (0..BATCH - 2).map(|_| pool.take_raw(3).unwrap()).collect();
    pool.keep_zeroed(3, ready);
    drop(inner);
    assert_eq!(pool.account().taken, BATCH as u64 - 1);
    give_all(&pool, more.into_iter().map(RawPage::into_owned).collect());
    pool.give(raw.into_owned());
    assert_eq!(pool.account().taken, 0);
}

#[test]
fn zeroed_pages_come_as_zeroed_and_say_how_clean_they_are() {
    let pool = pool(&[(0x4000_0000, 2 * MIB)]);
    assert!(pool.take_zeroed(0).is_none(), "nobody zeroed any");
    let mut made = BTreeSet::new();
    for is_clean in [true, false] {
        assert!(pool.prepare(0, |page| {
            made.insert(page.pa().raw());
            ZeroedPage::new(page.into_owned(), is_clean)
        }));
    }
    assert!(pool.take_zeroed(1).is_none(), "they are another pCPU's");
    let pages = [pool.take_zeroed(0).unwrap(), pool.take_zeroed(0).unwrap()];
    assert_eq!(pages.each_ref().map(ZeroedPage::is_clean), [false, true]);
    let taken: BTreeSet<u64> = pages.iter().map(|page| page.pa().raw()).collect();
    assert_eq!(taken, made);
    assert!(pool.take_zeroed(0).is_none());
    give_all(&pool, pages.map(ZeroedPage::into_owned).into());
    assert_eq!(pool.account().taken, 0);
}

#[test]
fn a_stock_is_bounded() {
    let pool = pool(&[(0x4000_0000, 2 * MIB)]);
    let made = std::iter::repeat_n((), 1000)
        .take_while(|()| pool.prepare(0, zeroed))
        .count();
    assert!((1..=64).contains(&made), "{made} pages were prepared");
    assert_eq!(pool.account().taken, 0, "they are free");
    // And no page is lost where there is no room for one more.
    let spare = pool.take().unwrap();
    pool.keep_zeroed(0, zeroed(spare));
    assert_eq!(pool.account().taken, 0);
}

/// A pool with pages in the stocks of pCPUs 1 and 2, of both sorts.
fn stocked(pages: u64) -> PagePool {
    let pool = pool(&[(0x4000_0000, pages * 4096)]);
    for cpu in [1, 2] {
        let one = pool.take_raw(cpu);
        pool.prepare(cpu, zeroed);
        if let Some(page) = one {
            pool.give(page.into_owned());
        }
    }
    assert_eq!(pool.account().taken, 0);
    pool
}

#[test]
fn a_pool_is_dry_only_when_every_stock_is_empty() {
    for pages in [1, 2, 5, 16, 17, 33, 40] {
        for by_stock in [true, false] {
            let pool = stocked(pages);
            let take = || {
                if by_stock {
                    pool.take_raw(0)
                } else {
                    pool.take()
                }
            };
            let taken: Vec<OwnedPage> = std::iter::from_fn(take).map(RawPage::into_owned).collect();
            let distinct: BTreeSet<u64> = taken.iter().map(|page| page.pa().raw()).collect();
            assert_eq!(distinct.len() as u64, pages);
            assert!(pool.take_zeroed(1).is_none());
            assert_eq!(pool.account().taken, pages);
            give_all(&pool, taken);
            assert_eq!(pool.account().taken, 0);
        }
    }
}

#[test]
fn stocks_never_stand_in_the_way_of_a_block_or_a_run() {
    let pool = stocked(512);
    assert_eq!(pool.whole_chunks(), 0, "the stocks' pages are cut from it");
    let block = pool.take_block(2 * MIB).unwrap();
    assert_eq!(pool.account().taken, 512);
    assert!(pool.take_raw(1).is_none() && pool.take_zeroed(1).is_none());
    pool.give_block(block.into_owned());
    let pool = stocked(512);
    assert_eq!(pool.take_aligned(512).map(|run| run.len()), Some(512));
}

/// An audit that looked at this moment would count it twice, or not at all.
#[test]
fn while_a_page_is_being_zeroed_nothing_is_settled() {
    let pool = pool(&[(0x4000_0000, 2 * MIB)]);
    assert!(pool.prepare(0, |page| {
        assert_eq!(pool.stocks[0].settled_count(), None);
        zeroed(page)
    }));
    assert_eq!(pool.stocks[0].settled_count(), Some(BATCH as u64));
    assert_eq!(pool.settled_account().taken, 0);
}

#[test]
fn idle_pcpus_do_not_take_from_each_other() {
    let pool = pool(&[(0x4000_0000, BATCH as u64 * 4096)]);
    assert!(pool.prepare(0, zeroed));
    assert!(!pool.prepare(1, zeroed), "the pool is dry");
    assert!(pool.take_zeroed(0).is_some());
}

proptest! {
    #[test]
    fn every_page_has_one_place(ops in proptest::collection::vec((0usize..6, 0usize..3), 1..300)) {
        let pool = pool(&[(0x4000_0000, 40 * 4096)]);
        let mut held: Vec<OwnedPage> = Vec::new();
        for (op, cpu) in ops {
            match op {
                0 => held.extend(pool.take().map(RawPage::into_owned)),
                1 | 2 => held.extend(pool.take_raw(cpu).map(RawPage::into_owned)),
                3 => held.extend(pool.take_zeroed(cpu).map(ZeroedPage::into_owned)),
                4 => { pool.prepare(cpu, zeroed); }
                _ => if let Some(page) = held.pop() {
                    if cpu == 0 {
                        pool.give(page);
                    } else {
                        pool.keep_zeroed(cpu, ZeroedPage::new(page, false));
                    }
                },
            }
            let distinct: BTreeSet<u64> = held.iter().map(|page| page.pa().raw()).collect();
            prop_assert_eq!(distinct.len(), held.len());
            prop_assert_eq!(pool.account().taken, held.len() as u64);
        }
        give_all(&pool, held);
        let all: Vec<OwnedPage> = std::iter::from_fn(|| pool.take_raw(0)).map(RawPage::into_owned).collect();
        prop_assert_eq!(all.len(), 40);
    }
}
