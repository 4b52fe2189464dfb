//! Contiguous groups: made all at once or not at all, and gone before anything is done to one of their pages.

use super::plain::Plain;
use crate::addr::{Ipa, IpaRange, PAGE_SIZE, WINDOW_SIZE};
use crate::page_pool::OwnedPage;
use crate::stage2::{Grant, Leaf, Relaxed, Rights, Stage2, Tables};

const RW: Rights = Rights::READ.with(Rights::WRITE);
/// Where the group is.
const START: u64 = 0x4003_0000;
/// A page of it.
const PAGE: u64 = START + 5 * PAGE_SIZE;
/// The Contiguous bit.
const HINT: u64 = 1 << 52;

fn page(at: u64) -> IpaRange {
    IpaRange::new(Ipa::new(at), PAGE_SIZE).unwrap()
}

/// Maps the group that holds [`PAGE`]; false if somebody is there.
fn map(tree: &Stage2, m: &mut Plain, rights: Rights) -> bool {
    let pool = m.pool.clone();
    let Leaf::Absent(absent) = tree.walk().leaf(m, Ipa::new(PAGE)) else {
        return false;
    };
    let mut tables = Tables::prepare(m, &pool, absent.tables_needed()).unwrap();
    let block = pool.take_window().unwrap();
    let is_mapped = match absent.claim_group(m, &mut tables) {
        Ok(claim) => {
            let block = block.filled(m, tree.coherence(), |_, _| {});
            claim.fill(m, block, Grant::data(rights));
            true
        }
        Err(_) => {
            pool.give_window(block.into_owned());
            false
        }
    };
    tables.give_back(&pool);
    is_mapped
}

/// Of the group's 16 pages: how many are mapped, and how many have the hint.
fn count(m: &Plain, tree: &Stage2) -> (u64, u64) {
    m.mapped(tree)
        .iter()
        .fold((0, 0), |(all, hinted), (_, size, _, bits)| {
            let pages = size / PAGE_SIZE;
            (all + pages, hinted + pages * u64::from(bits & HINT != 0))
        })
}

fn world() -> (Plain, Stage2) {
    let mut m = Plain::new(16 << 20);
    let tree = m.tree(40, 0, 0, 0);
    (m, tree)
}

fn end(mut m: Plain, tree: Stage2) {
    let pool = m.pool.clone();
    tree.destroy(&mut m, &pool);
    assert_eq!(pool.account().taken, 0);
}

#[test]
fn a_group_is_sixteen_pages_in_one_piece() {
    let (mut m, tree) = world();
    assert!(map(&tree, &mut m, RW));
    let runs = m.mapped(&tree);
    let [(ipa, size, pa, bits)] = runs[..] else {
        panic!("{runs:x?}")
    };
    assert_eq!((ipa, size), (START, WINDOW_SIZE));
    assert!(pa.is_multiple_of(WINDOW_SIZE) && bits & HINT != 0);
    assert_eq!((tree.page_count(), m.broadcasts), (16, 0));
    end(m, tree);
}

#[test]
fn where_a_page_is_mapped_there_is_no_group_and_nothing_is_left_locked() {
    let (mut m, tree) = world();
    assert!(map(&tree, &mut m, RW));
    let pool = m.pool.clone();
    tree.unmap(&mut m, page(PAGE), &pool).unwrap();
    let before = m.mapped(&tree);
    assert!(!map(&tree, &mut m, RW), "15 pages are there");
    assert_eq!(m.mapped(&tree), before);
    let Leaf::Absent(absent) = tree.walk().leaf(&mut m, Ipa::new(PAGE)) else {
        panic!("it was unmapped")
    };
    assert!(!absent.is_locked());
    end(m, tree);
}

#[test]
fn whatever_is_done_to_one_page_the_group_is_dissolved_first() {
    type Verb = fn(&mut Plain, &Stage2);
    // What is done, and how many pages are mapped after it.
    let verbs: [(&str, Verb, u64); 5] = [
        (
            "a right is taken away",
            |m, tree| {
                let pool = m.pool.clone();
                assert_eq!(tree.protect(m, page(PAGE), Rights::NONE, &pool), Ok(1));
            },
            16,
        ),
        (
            "the access flag is cleared",
            |m, tree| assert_eq!(tree.age(m, page(PAGE)).young, 1),
            16,
        ),
        (
            "it is unmapped",
            |m, tree| {
                let pool = m.pool.clone();
                assert_eq!(tree.unmap(m, page(PAGE), &pool), Ok(1));
            },
            15,
        ),
        (
            "a right is added",
            |m, tree| {
                let Leaf::Present(present) = tree.walk().leaf(m, Ipa::new(PAGE)) else {
                    panic!("it is mapped")
                };
                let relaxed = present.relax(m, Grant::data(RW));
                assert!(matches!(relaxed, Relaxed::Relaxed));
            },
            16,
        ),
        (
            "it is made again",
            |m, tree| {
                let Leaf::Present(present) = tree.walk().leaf(m, Ipa::new(PAGE)) else {
                    panic!("it is mapped")
                };
                present.remake(m);
            },
            16,
        ),
    ];
    for (what, verb, left) in verbs {
        let (mut m, tree) = world();
        assert!(map(&tree, &mut m, Rights::READ));
        verb(&mut m, &tree);
        assert_eq!(count(&m, &tree), (left, 0), "{what}");
        assert!(m.broadcasts > 0, "{what}");
        end(m, tree);
    }
}

/// A window that was not used, or whose pages came back one by one, can be taken again.
#[test]
fn a_window_comes_back_whole() {
    let (m, tree) = world();
    let pool = m.pool.clone();
    let taken = pool.account().taken;
    let window = pool.take_window().unwrap();
    assert_eq!(pool.account().taken, taken + 16);
    let start = window.range().start;
    pool.give_window(window.into_owned());
    let window = pool.take_window().unwrap().into_owned();
    assert_eq!(window.range().start, start);
    for n in 0..16 {
        pool.give(OwnedPage::from_descriptor(start.add(n * PAGE_SIZE)));
    }
    assert_eq!(pool.account().taken, taken);
    end(m, tree);
}
