//! Blocks and tables that take each other's place in one store.

use super::plain::Plain;
use super::verbs::{BLOCK_1G, BLOCK_2M, GIB, MIB, RW, end, map, range};
use super::*;

/// A block of 1 GiB and one of 2 MiB.
fn world() -> (Plain, Stage2) {
    let mut m = Plain::new(3 * GIB);
    let tree = m.tree_resized_in_place();
    map(&tree, &mut m, GIB, BLOCK_1G, RW).unwrap();
    map(&tree, &mut m, 4 * GIB, BLOCK_2M, RW).unwrap();
    (m, tree)
}

#[test]
fn a_block_comes_apart_and_together_with_nothing_unmapped_in_between() {
    let (mut m, tree) = world();
    let pool = m.pool.clone();
    let before = (m.mapped(&tree), tree.table_count());
    let split = tree.split(&mut m, range(GIB, 6 * MIB), Level::LAST, &pool);
    assert_eq!(split, Ok(4));
    assert_eq!((m.breaks, m.broadcasts), (0, 4));
    assert_eq!(m.mapped(&tree), before.0);
    assert_eq!(tree.table_count(), before.1 + 4);
    assert_eq!(tree.coalesce(&mut m, range(0, 8 * GIB), &pool), 4);
    assert_eq!((m.breaks, m.broadcasts), (0, 8));
    assert_eq!((m.mapped(&tree), tree.table_count()), before);
    end(m, tree);
}

/// More than the size would change: the rights of some part.
#[test]
fn parts_with_other_rights_are_broken_before_they_are_one() {
    let (mut m, tree) = world();
    let pool = m.pool.clone();
    let page = range(4 * GIB + MIB, PAGE_SIZE);
    tree.protect(&mut m, page, Rights::READ, &pool).unwrap();
    assert_eq!(m.breaks, 0, "to be a leaf of its own takes no break");
    assert_eq!(tree.coalesce(&mut m, range(4 * GIB, 2 * MIB), &pool), 1);
    assert_eq!(m.breaks, 1);
    end(m, tree);
}

/// What the hardware noted in a part that is linked no more would be lost.
#[test]
fn a_block_made_in_place_is_in_use() {
    const AF: u64 = 1 << 10;
    let (mut m, tree) = world();
    let pool = m.pool.clone();
    let block = range(4 * GIB, 2 * MIB);
    tree.split(&mut m, block, Level::LAST, &pool).unwrap();
    tree.age(&mut m, block);
    assert_eq!(tree.coalesce(&mut m, block, &pool), 1);
    let (_, leaf) = tree.find(&mut m, block.start);
    assert_eq!(leaf.raw() & AF, AF);
    end(m, tree);
}

#[test]
fn only_where_the_cpu_can_and_the_owner_wants_it() {
    const FWB: u64 = 1 << 40;
    const DIC: u64 = 1 << 29;
    let shape = |bbm: u64, fwb: u64, dic: u64| {
        let features = Features::new(&IdRegisters {
            mmfr0: 5,
            mmfr2: bbm << 52 | fwb,
            ctr: dic,
            ..IdRegisters::default()
        });
        Config::with_bits(40, 0, &features).unwrap()
    };
    let wanted = |shape: Config| shape.with_resize(ResizePolicy::InPlace).resize;
    for able in [shape(2, FWB, DIC), shape(3, FWB, DIC)] {
        assert_eq!(able.resize, ResizePolicy::BreakBeforeMake);
        assert_eq!(wanted(able), ResizePolicy::InPlace);
    }
    for unable in [
        shape(1, FWB, DIC),
        shape(0, FWB, DIC),
        shape(2, 0, DIC),
        shape(2, FWB, 0),
    ] {
        assert_eq!(wanted(unable), ResizePolicy::BreakBeforeMake);
    }
}
