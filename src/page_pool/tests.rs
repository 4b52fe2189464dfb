//! The pool held against a set of page numbers: every page once, the account always right.

#[cfg(loom)]
mod interleaved;
#[cfg(not(loom))]
mod stock;

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;

impl PagePool {
    /// Whether the page at `pa` is out: what a test's machine asks before it lets anybody touch it.
    pub(crate) fn is_taken(&self, pa: Pa) -> bool {
        self.is_taken_by(&self.inner.lock(), pa)
    }

    /// The same, unless somebody is in the pool at the moment.
    #[cfg(not(loom))]
    pub(crate) fn try_is_taken(&self, pa: Pa) -> Option<bool> {
        Some(self.is_taken_by(&*self.inner.try_lock()?, pa))
    }

    /// What tells pages that are out, for many of them, unless somebody is in the pool at the moment.
    #[cfg(not(loom))]
    pub(crate) fn try_tell_taken(&self) -> Option<impl Fn(Pa) -> bool> {
        let free = self.inner.try_lock()?;
        let stocked: BTreeSet<Pa> = self.used_stocks().flat_map(Stock::pages).collect();
        Some(move |pa: Pa| free.is_out(pa) && !stocked.contains(&pa.page()))
    }

    fn is_taken_by(&self, free: &Free, pa: Pa) -> bool {
        free.is_out(pa) && !self.used_stocks().any(|stock| stock.holds(pa.page()))
    }
}

fn pool(ranges: &[(u64, u64)]) -> PagePool {
    let pool = PagePool::new();
    ranges
        .iter()
        .for_each(|(start, size)| pool.add(PaRange::new(Pa::new(*start), *size).unwrap()));
    pool
}

#[test]
fn every_page_of_ragged_ram_is_handed_out_once_and_then_none() {
    // Edges inside chunks, a hole of one page inside a chunk, and a second bank far away.
    let ram = [
        (0x4000_3000, 5 * MIB),
        (0x4050_4000, 2 * MIB - 0x1000),
        (0x10_0000_0000, 4 * MIB),
    ];
    let pool = pool(&ram);
    let expected: BTreeSet<u64> = ram
        .iter()
        .flat_map(|(start, size)| (*start..start + size).step_by(4096))
        .collect();
    assert_eq!(pool.account().total, expected.len() as u64);
    let taken: Vec<RawPage> = std::iter::from_fn(|| pool.take()).collect();
    let seen: BTreeSet<u64> = taken.iter().map(|page| page.pa().raw()).collect();
    assert_eq!(seen.len(), taken.len());
    assert_eq!(seen, expected);
    taken
        .into_iter()
        .for_each(|page| pool.give(page.into_owned()));
    assert_eq!(pool.account().taken, 0);
    assert_eq!(pool.account().peak, expected.len() as u64);
}

#[test]
fn only_whole_pages_inside_a_range_count() {
    assert_eq!(pool(&[(0x1001, 0x2000)]).account().total, 1);
    assert_eq!(pool(&[(0x1001, 0xffe)]).account().total, 0);
}

#[test]
fn blocks_of_both_sizes_are_there_from_the_start() {
    const GIB: u64 = 1 << 30;
    let pool = pool(&[(GIB - 5 * MIB, 2 * GIB + 6 * MIB)]);
    let large: Vec<RawBlock> = std::iter::from_fn(|| pool.take_block(GIB)).collect();
    let starts: BTreeSet<u64> = large
        .iter()
        .map(|block| block.range().start.raw())
        .collect();
    assert_eq!(starts, BTreeSet::from([GIB, 2 * GIB]));
    let small: Vec<RawBlock> = std::iter::from_fn(|| pool.take_block(2 * MIB)).collect();
    assert_eq!(small.len(), 2, "what lies beside them");
    let all = large.into_iter().chain(small).map(RawBlock::into_owned);
    all.for_each(|block| pool.give_block(block));
    assert_eq!(pool.account().taken, 0);
    let again = pool.take_block(GIB).unwrap();
    pool.give_block(again.into_owned());
}

#[test]
fn a_chunk_that_is_whole_again_serves_as_a_block() {
    let pool = pool(&[(0x4000_0000, 2 * MIB)]);
    let one = pool.take().unwrap();
    assert!(pool.take_aligned(512).is_none());
    pool.give(one.into_owned());
    let all = pool.take_aligned(512).unwrap();
    assert_eq!(all[0].pa(), Pa::new(0x4000_0000));
    all.into_iter()
        .for_each(|page| pool.give(page.into_owned()));
}

#[test]
#[should_panic(expected = "given back once")]
fn giving_a_page_twice_is_caught() {
    let pool = pool(&[(0x4000_0000, 2 * MIB)]);
    let page = pool.take().unwrap();
    let forged = OwnedPage::from_descriptor(page.pa());
    let _keep = pool.take();
    pool.give(page.into_owned());
    pool.give(forged);
}

proptest! {
    #[test]
    fn owned_and_free_always_sum_up(ops in proptest::collection::vec((0usize..3, 0usize..4), 1..200)) {
        let pool = pool(&[(0x4000_0000, 4 * MIB), (0x4040_0000, 37 * 4096)]);
        let mut held: Vec<Vec<RawPage>> = Vec::new();
        for (op, order) in ops {
            if op == 0 && !held.is_empty() {
                let run = held.swap_remove(order % held.len());
                run.into_iter().for_each(|page| pool.give(page.into_owned()));
            } else if let Some(run) = pool.take_aligned(1 << order) {
                prop_assert!(run[0].pa().is_aligned(PAGE_SIZE << order));
                held.push(run);
            }
            let pages: Vec<u64> = held.iter().flatten().map(|page| page.pa().raw()).collect();
            let distinct: BTreeSet<u64> = pages.iter().copied().collect();
            prop_assert_eq!(distinct.len(), pages.len());
            prop_assert_eq!(pool.account().taken, pages.len() as u64);
        }
        held.into_iter().flatten().for_each(|page| pool.give(page.into_owned()));
        prop_assert_eq!(pool.account().taken, 0);
    }
}
