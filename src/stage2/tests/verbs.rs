//! The verbs over ranges: what they change and what they leave, and what is left when the pool runs dry at any step.

mod maintenance;

use super::plain::{Plain, Run};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE};
use crate::machine::{Machine, Tlbi, Ttl};
use crate::page_pool::{OwnedBlock, OwnedPage, RawBlock, RawPage};
use crate::stage2::{
    Claim, CleanPage, Grant, Leaf, Level, Mapped, OutOfPages, Rights, Stage2, Tables,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const RW: Rights = Rights::READ.with(Rights::WRITE);
pub(super) const BLOCK_2M: Level = Level::new(2);
pub(super) const BLOCK_1G: Level = Level::new(1);

pub(super) fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

/// Maps a page or a block of zeroes, or changes nothing.
pub(super) fn map(
    tree: &Stage2,
    m: &mut Plain,
    ipa: u64,
    level: Level,
    rights: Rights,
) -> Result<(), OutOfPages> {
    let pool = m.pool.clone();
    let Leaf::Absent(absent) = tree.walk().leaf(m, Ipa::new(ipa)) else {
        return Ok(());
    };
    if !absent.has_room_for(level) {
        return Ok(());
    }
    let mut tables = Tables::prepare(m, &pool, absent.tables_needed_at(level))?;
    if level.is_last() {
        let Some(page) = CleanPage::take(m, &pool, tree.coherence()) else {
            tables.give_back(&pool);
            return Err(OutOfPages);
        };
        let mapped = absent.map(m, page, Grant::data(rights), &mut tables);
        assert!(matches!(mapped, Mapped::Installed));
    } else {
        let Some(block) = pool.take_block(level.size()) else {
            tables.give_back(&pool);
            return Err(OutOfPages);
        };
        let claim: Claim<'_> = match absent.claim(m, level, &mut tables) {
            Ok(claim) => claim,
            Err(_) => panic!("nobody else is there"),
        };
        let block = block.filled(m, tree.coherence(), |_, _| {});
        claim.fill(m, block, Grant::data(rights));
    }
    tables.give_back(&pool);
    Ok(())
}

/// 48 bits, level 0 on: a block of 1 GiB, one of 2 MiB, and three pages.
fn world() -> (Plain, Stage2) {
    let mut m = Plain::new(3 * GIB);
    let tree = m.tree(48, 0, 1, 2);
    map(&tree, &mut m, GIB, BLOCK_1G, RW).unwrap();
    map(&tree, &mut m, 4 * GIB, BLOCK_2M, RW).unwrap();
    for ipa in [5 * GIB, 5 * GIB + PAGE_SIZE, 5 * GIB + 6 * MIB] {
        map(&tree, &mut m, ipa, Level::LAST, RW).unwrap();
    }
    (m, tree)
}

/// Everything free but `left` pages.
struct Hoard {
    blocks: Vec<OwnedBlock>,
    pages: Vec<OwnedPage>,
}

fn hoard_all_but(m: &Plain, left: usize) -> Hoard {
    let block = |size| m.pool.take_block(size).map(RawBlock::into_owned);
    let mut blocks: Vec<OwnedBlock> = std::iter::from_fn(|| block(GIB)).collect();
    blocks.extend(std::iter::from_fn(|| block(2 * MIB)));
    let page = || m.pool.take().map(RawPage::into_owned);
    let mut pages: Vec<OwnedPage> = std::iter::from_fn(page).collect();
    // One of the blocks in pages, so that there are some to leave.
    if pages.len() < left {
        m.pool.give_block(blocks.pop().unwrap());
        pages.extend(std::iter::from_fn(page));
    }
    for _ in 0..left {
        m.pool.give(pages.pop().unwrap());
    }
    Hoard { blocks, pages }
}

fn give_back(m: &Plain, hoard: Hoard) {
    hoard
        .blocks
        .into_iter()
        .for_each(|block| m.pool.give_block(block));
    hoard.pages.into_iter().for_each(|page| m.pool.give(page));
}

type Verb = fn(&Stage2, &mut Plain) -> Result<(), OutOfPages>;

/// Each with what it takes at most, in pages.
const VERBS: [(&str, Verb, usize); 9] = [
    (
        "a page in the middle of 1 GiB is unmapped",
        |tree, m| {
            let pool = m.pool.clone();
            tree.unmap(m, range(GIB + 5 * MIB, PAGE_SIZE), &pool)
                .map(drop)
        },
        4,
    ),
    (
        "the middle of 1 GiB is unmapped",
        |tree, m| {
            let pool = m.pool.clone();
            tree.unmap(m, range(GIB + PAGE_SIZE, GIB / 2), &pool)
                .map(drop)
        },
        4,
    ),
    (
        "the end of 2 MiB is protected",
        |tree, m| {
            let pool = m.pool.clone();
            tree.protect(m, range(4 * GIB + MIB, GIB), Rights::READ, &pool)
                .map(drop)
        },
        1,
    ),
    (
        "a range from one block into another is protected",
        |tree, m| {
            let pool = m.pool.clone();
            tree.protect(m, range(GIB + MIB, 3 * GIB), Rights::NONE, &pool)
                .map(drop)
        },
        4,
    ),
    (
        "2 MiB of 1 GiB are split into pages",
        |tree, m| {
            let pool = m.pool.clone();
            tree.split(m, range(GIB + 2 * MIB, 2 * MIB), Level::LAST, &pool)
                .map(drop)
        },
        2,
    ),
    (
        "1 GiB is split into 2 MiB",
        |tree, m| {
            let pool = m.pool.clone();
            tree.split(m, range(GIB, GIB), BLOCK_2M, &pool).map(drop)
        },
        1,
    ),
    (
        "a page is mapped far away",
        |tree, m| map(tree, m, 1 << 46, Level::LAST, RW),
        4,
    ),
    (
        "a page is mapped next door",
        |tree, m| map(tree, m, 5 * GIB + 2 * PAGE_SIZE, Level::LAST, RW),
        1,
    ),
    (
        "a block is mapped",
        |tree, m| map(tree, m, 6 * GIB, BLOCK_2M, RW),
        600,
    ),
];

#[test]
fn a_verb_that_runs_out_of_pages_at_any_step_changes_no_translation() {
    for (name, verb, most) in VERBS {
        let mut refused = 0;
        for left in 0..=most + 1 {
            let (mut m, tree) = world();
            let hoard = hoard_all_but(&m, left);
            let before = (m.mapped(&tree), tree.page_count());
            let (taken, tables) = (m.pool.account().taken, tree.table_count());
            let answer = verb(&tree, &mut m);
            if answer.is_err() {
                refused += 1;
                assert_eq!(
                    (m.mapped(&tree), tree.page_count()),
                    before,
                    "{name}, {left} pages"
                );
                let grown = tree.table_count() - tables;
                assert_eq!(
                    m.pool.account().taken,
                    taken + grown,
                    "{name}, {left} pages"
                );
            } else {
                assert_ne!(left, 0, "{name}: takes a page");
            }
            give_back(&m, hoard);
            assert!(
                answer.is_ok() || verb(&tree, &mut m).is_ok(),
                "{name}: works then"
            );
            end(m, tree);
            if answer.is_ok() {
                break;
            }
        }
        assert!(refused > 0, "{name}");
    }
}

pub(super) fn end(mut m: Plain, tree: Stage2) {
    let pool = m.pool.clone();
    tree.destroy(&mut m, &pool);
    assert_eq!(pool.account().taken, 0);
}

/// What a reference model has of `runs` outside of `cut`.
fn without(runs: &[Run], cut: IpaRange) -> Vec<Run> {
    let (from, to) = (cut.start.raw(), cut.end().raw());
    let mut left = Vec::new();
    for (ipa, size, pa, bits) in runs.iter().copied() {
        let end = ipa + size;
        if ipa < from {
            left.push((ipa, end.min(from) - ipa, pa, bits));
        }
        if end > to {
            let start = ipa.max(to);
            left.push((start, end - start, pa + (start - ipa), bits));
        }
    }
    left
}

#[test]
fn unmap_takes_out_exactly_its_range_and_every_table_it_empties() {
    let cuts = [
        range(GIB, GIB),
        range(GIB + 2 * MIB, 2 * MIB),
        range(GIB + PAGE_SIZE, PAGE_SIZE),
        range(GIB + 511 * 2 * MIB, 2 * GIB),
        range(4 * GIB, 2 * MIB),
        range(4 * GIB + 7 * PAGE_SIZE, 3 * PAGE_SIZE),
        range(5 * GIB, PAGE_SIZE),
        range(5 * GIB + PAGE_SIZE, 6 * MIB),
        range(0, 1 << 48),
    ];
    for cut in cuts {
        let (mut m, tree) = world();
        let before = m.mapped(&tree);
        let pool = m.pool.clone();
        let pages = tree.page_count();
        let gone = tree.unmap(&mut m, cut, &pool).unwrap();
        assert_eq!(m.mapped(&tree), without(&before, cut), "{cut}");
        assert_eq!(tree.page_count(), pages - gone);
        // Nothing is out but what the tree has.
        assert_eq!(
            pool.account().taken,
            tree.page_count() + tree.table_count(),
            "{cut}"
        );
        if cut.size == 1 << 48 {
            assert_eq!(
                (tree.page_count(), tree.table_count()),
                (0, 1),
                "the root is left"
            );
        }
        end(m, tree);
    }
}

#[test]
fn a_block_in_pieces_comes_together_again_and_the_guest_never_sees_it() {
    let (mut m, tree) = world();
    let pool = m.pool.clone();
    let before = (m.mapped(&tree), tree.table_count());
    let all = range(0, 8 * GIB);
    assert_eq!(
        tree.split(&mut m, range(GIB, 6 * MIB), Level::LAST, &pool),
        Ok(4)
    );
    assert_eq!(
        (m.mapped(&tree), tree.table_count()),
        (before.0.clone(), before.1 + 4)
    );
    assert_eq!(tree.coalesce(&mut m, all, &pool), 4);
    assert_eq!((m.mapped(&tree), tree.table_count()), before);
    // Not where a page is missing, or has other rights behind its back.
    tree.split(&mut m, range(4 * GIB, MIB), Level::LAST, &pool)
        .unwrap();
    tree.unmap(&mut m, range(4 * GIB + MIB, PAGE_SIZE), &pool)
        .unwrap();
    let before = m.mapped(&tree);
    assert_eq!(tree.coalesce(&mut m, all, &pool), 0);
    assert_eq!(m.mapped(&tree), before);
    end(m, tree);
}

/// To the hardware, DBM is a right: a log must not give it to a page that may not be written, nor a revocation leave it.
#[test]
fn the_hardwares_dirty_state_never_gives_a_right_that_was_not_there() {
    let mut m = Plain::new(16 * MIB);
    let tree = m.tree(40, 2, 1, 2);
    let pool = m.pool.clone();
    let [readable, writable, revoked] = [0, PAGE_SIZE, 2 * PAGE_SIZE];
    map(&tree, &mut m, readable, Level::LAST, Rights::READ).unwrap();
    map(&tree, &mut m, writable, Level::LAST, RW).unwrap();
    map(&tree, &mut m, revoked, Level::LAST, RW).unwrap();
    tree.start_log(&mut m, range(0, MIB)).unwrap();
    assert!(!m.hardware_store(&tree, readable), "read-only it stays");
    assert!(m.hardware_store(&tree, writable));
    tree.protect(&mut m, range(revoked, PAGE_SIZE), Rights::READ, &pool)
        .unwrap();
    assert!(!m.hardware_store(&tree, revoked), "W was taken from it");
    let mut written = Vec::new();
    assert_eq!(tree.harvest(&mut m, |ipa| written.push(ipa.raw())), 1);
    assert_eq!(written, [writable]);
    // Harvested, and still the hardware notes the next store.
    assert!(m.hardware_store(&tree, writable));
    assert_eq!(tree.harvest(&mut m, |_| ()), 1);
    assert_eq!(tree.harvest(&mut m, |_| ()), 0);
    end(m, tree);
}

#[test]
fn a_split_where_nothing_is_to_split_takes_no_page() {
    let (mut m, tree) = world();
    let hoard = hoard_all_but(&m, 0);
    let pool = m.pool.clone();
    assert_eq!(
        tree.split(&mut m, range(5 * GIB, GIB), Level::LAST, &pool),
        Ok(0)
    );
    assert_eq!(
        tree.split(&mut m, range(4 * GIB, 2 * MIB), BLOCK_2M, &pool),
        Ok(0)
    );
    give_back(&m, hoard);
    end(m, tree);
}

#[test]
#[should_panic(expected = "whole pages of the IPA space")]
fn a_range_beyond_the_ipa_space_is_refused_and_not_wrapped() {
    let mut m = Plain::new(16 * MIB);
    let tree = m.tree(40, 0, 0, 0);
    let pool = m.pool.clone();
    let _ = tree.unmap(&mut m, range((1 << 40) - PAGE_SIZE, 2 * PAGE_SIZE), &pool);
}

/// Pages of the space that random verbs work on: 8 MiB around the end of a root table.
const PAGES: u64 = 2048;
const BASE: u64 = 512 * GIB - 4 * MIB;

/// What the guest has, page by page.
type Model = BTreeMap<u64, (u64, u64)>;

fn pages_of(runs: &[Run]) -> Model {
    let mut pages = Model::new();
    for (ipa, size, pa, bits) in runs {
        for offset in (0..*size).step_by(PAGE_SIZE as usize) {
            pages.insert(ipa + offset, (pa + offset, *bits));
        }
    }
    pages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_verbs_change_their_range_and_nothing_else(
        ops in proptest::collection::vec((0usize..9, 0..PAGES, 1..600u64), 1..40),
        features in (0u64..3, 0u64..2, 0u64..3),
    ) {
        let mut m = Plain::new(64 * MIB);
        // 40 bits: two root tables, and the range lies on both.
        let tree = m.tree(40, features.0, features.1, features.2);
        let pool = m.pool.clone();
        for (op, page, count) in ops {
            let before = pages_of(&m.mapped(&tree));
            let start = BASE + page * PAGE_SIZE;
            let size = count.min(PAGES - page) * PAGE_SIZE;
            let part = range(start, size);
            let inside = |ipa: &u64| part.contains(Ipa::new(*ipa));
            let block = start & !(2 * MIB - 1);
            match op {
                0..3 => map(&tree, &mut m, start, Level::LAST, RW).unwrap(),
                3 => map(&tree, &mut m, block, BLOCK_2M, RW).unwrap(),
                4 => { tree.unmap(&mut m, part, &pool).unwrap(); }
                5 => { tree.protect(&mut m, part, Rights::READ, &pool).unwrap(); }
                6 => { tree.split(&mut m, part, Level::LAST, &pool).unwrap(); }
                7 => { tree.coalesce(&mut m, range(BASE, 8 * MIB), &pool); }
                _ => { tree.age(&mut m, part); }
            }
            let after = pages_of(&m.mapped(&tree));
            let same = |pages: &Model, keep: &dyn Fn(&u64) -> bool| -> Model {
                pages.iter().filter(|(ipa, _)| keep(ipa)).map(|(a, b)| (*a, *b)).collect()
            };
            match op {
                0..4 => prop_assert!(before.iter().all(|(ipa, leaf)| after.get(ipa) == Some(leaf))),
                4 => prop_assert_eq!(&after, &same(&before, &|ipa| !inside(ipa))),
                5 => {
                    prop_assert_eq!(same(&after, &|ipa| !inside(ipa)), same(&before, &|ipa| !inside(ipa)));
                    prop_assert_eq!(after.len(), before.len());
                    prop_assert!(after.iter().all(|(ipa, leaf)| !inside(ipa) || leaf.1 >> 7 & 1 == 0));
                }
                // A block has the rights that all its parts had.
                7 => prop_assert!(after.iter().all(|(ipa, leaf)| before[ipa].0 == leaf.0 && before[ipa].1 | leaf.1 == before[ipa].1)),
                _ => prop_assert_eq!(&after, &before),
            }
            prop_assert_eq!(tree.page_count(), after.len() as u64);
            prop_assert_eq!(pool.account().taken, tree.page_count() + tree.table_count());
        }
        end(m, tree);
    }
}
