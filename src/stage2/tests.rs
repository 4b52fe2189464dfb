//! The verbs and the sequences, on a machine that panics where a rule is broken.

mod group;
mod in_place;
#[cfg(loom)]
mod interleaved;
mod plain;
mod sequences;
mod verbs;

use super::maintenance as mt;
use super::*;
use crate::addr::{Ipa, PAGE_SIZE, PaRange};
use crate::features::{Features, IdRegisters};
use crate::machine::recorder::{Op, RAM, Recorder};
use crate::machine::{Dc, Dsb, El1, Ic, Tlbi, Ttl};
use proptest::prelude::*;
use std::vec::Vec;

const PAGE: PaRange = PaRange {
    start: RAM,
    size: PAGE_SIZE,
};
const SOME_IPA: Ipa = Ipa::new(0x1234_5000);
const RW: Rights = Rights::READ.with(Rights::WRITE);
const RX: Rights = Rights::READ.with(Rights::EXECUTE);

fn coherence(bits: u32) -> Coherence {
    Coherence {
        fwb: bits & 1 != 0,
        idc: bits & 2 != 0,
        dic: bits & 4 != 0,
        pipt: bits & 8 != 0,
    }
}

/// Nothing is free: all has to be done.
pub(super) const WEAKEST: Coherence = Coherence {
    fwb: false,
    idc: false,
    dic: false,
    pipt: false,
};

fn config(ipa_bits: u32) -> Config {
    let features = Features::new(&IdRegisters {
        mmfr0: 5,
        ..IdRegisters::default()
    });
    Config::for_highest((1 << ipa_bits) - 1, &features).unwrap()
}

fn machine_with_tree(pages: u64, ipa_bits: u32, coherence: Coherence) -> (Recorder, Stage2) {
    let mut m = Recorder::new(pages, coherence);
    let pool = m.pool.clone();
    let stage2 = Stage2::new(&mut m, &pool, config(ipa_bits), Vmid(7), coherence).unwrap();
    m.watch(&stage2);
    (m, stage2)
}

fn absent<'t>(stage2: &'t Stage2, m: &mut Recorder, ipa: u64) -> Absent<'t> {
    match stage2.walk().leaf(m, Ipa::new(ipa)) {
        Leaf::Absent(absent) => absent,
        Leaf::Present(_) => panic!("{ipa:#x} is mapped"),
    }
}

fn present<'t>(stage2: &'t Stage2, m: &mut Recorder, ipa: u64) -> Present<'t> {
    match stage2.walk().leaf(m, Ipa::new(ipa)) {
        Leaf::Present(present) => present,
        Leaf::Absent(_) => panic!("{ipa:#x} is not mapped"),
    }
}

fn map(stage2: &Stage2, m: &mut Recorder, ipa: u64, rights: Rights) -> Pa {
    let pool = m.pool.clone();
    let absent = absent(stage2, m, ipa);
    let mut tables = Tables::prepare(m, &pool, absent.tables_needed()).unwrap();
    let page = pool.take().unwrap().zeroed(m, stage2.coherence());
    let pa = page.pa();
    let mut grant = Grant::data(rights);
    if rights.allows(Rights::EXECUTE) {
        grant = grant.and_execute(page.make_executable(m, stage2.coherence()));
    }
    assert!(matches!(
        absent.map(m, page, grant, &mut tables),
        Mapped::Installed
    ));
    tables.give_back(&pool);
    pa
}

/// What `body` does to a machine that has no tree.
fn done_by(body: impl FnOnce(&mut Recorder)) -> Vec<Op> {
    let mut m = Recorder::new(1, WEAKEST);
    body(&mut m);
    m.log
}

/// IPA bits, and the number of root tables worked out by hand.
const SHAPES: [(u32, u64); 6] = [(32, 4), (36, 1), (40, 2), (42, 8), (44, 1), (48, 1)];

#[test]
fn every_root_table_of_every_ipa_size_is_reached_up_to_the_last_page() {
    for (bits, roots) in SHAPES {
        let (mut m, stage2) = machine_with_tree(80, bits, WEAKEST);
        assert_eq!(stage2.table_count(), roots, "{bits} bits");
        let size = 1u64 << bits;
        let mut expected = Vec::new();
        // One page in the middle of what each root table covers, and the very first and last of the space.
        let middles = (0..roots).map(|n| size / roots * n + size / roots / 2);
        for ipa in middles.chain([0, size - PAGE_SIZE]) {
            expected.push((ipa, map(&stage2, &mut m, ipa, RW)));
        }
        for (ipa, pa) in &expected {
            assert_eq!(
                m.translate(*ipa),
                Some((*pa, [true, true, false])),
                "{bits} bits, {ipa:#x}"
            );
        }
        assert_eq!(m.mapped().len(), expected.len(), "no other page is mapped");
        let last = present(&stage2, &mut m, size - 1);
        assert_eq!(last.output_address(), expected.last().unwrap().1);
        m.park();
        let pool = m.pool.clone();
        stage2.destroy(&mut m, &pool);
        assert_eq!(m.pool.account().taken, 0);
    }
}

#[test]
#[should_panic(expected = "outside the VM's space")]
fn an_ipa_at_the_limit_is_never_masked_into_the_space() {
    let (mut m, stage2) = machine_with_tree(16, 40, WEAKEST);
    map(&stage2, &mut m, 0, RW);
    let _ = stage2.walk().leaf(&mut m, Ipa::new(1 << 40));
}

#[test]
fn a_walk_counts_the_tables_that_are_missing() {
    for (bits, _) in SHAPES {
        let (mut m, stage2) = machine_with_tree(80, bits, WEAKEST);
        // Levels below the start: 32 bits start at 2; 36, 40 and 42 at 1; 44 and 48 at 0.
        let below = match bits {
            32 => 1,
            36..=42 => 2,
            _ => 3,
        };
        assert_eq!(absent(&stage2, &mut m, 0).tables_needed(), below);
        map(&stage2, &mut m, 0, RW);
        assert_eq!(absent(&stage2, &mut m, 0x1000).tables_needed(), 0);
        assert_eq!(absent(&stage2, &mut m, 0x20_0000).tables_needed(), 1);
        assert_eq!(
            absent(&stage2, &mut m, 0x20_0000).descriptor(),
            Descriptor::INVALID
        );
    }
}

#[test]
fn relax_adds_rights_in_place_and_leaves_the_neighbours() {
    let (mut m, stage2) = machine_with_tree(16, 32, WEAKEST);
    let before = map(&stage2, &mut m, 0x1000, Rights::READ);
    let pa = map(&stage2, &mut m, 0x2000, Rights::READ);
    let after = map(&stage2, &mut m, 0x3000, Rights::READ);
    let leaf = present(&stage2, &mut m, 0x2abc);
    assert_eq!((leaf.output_address(), leaf.rights()), (pa, Rights::READ));
    assert!(matches!(
        leaf.relax(&mut m, Grant::data(Rights::WRITE)),
        Relaxed::Relaxed
    ));
    assert_eq!(m.translate(0x2000), Some((pa, [true, true, false])));
    for (ipa, pa) in [(0x1000, before), (0x3000, after)] {
        assert_eq!(m.translate(ipa), Some((pa, [true, false, false])));
    }
}

/// Relaxed or sufficient, this CPU's stale entries go: the caller may have faulted on one of them.
#[test]
fn every_way_out_of_relax_ends_with_the_local_invalidation() {
    let (mut m, stage2) = machine_with_tree(16, 32, WEAKEST);
    map(&stage2, &mut m, 0x2000, Rights::READ);
    let local = done_by(|m| mt::after_relax(m, Ipa::new(0x2abc), Ttl::ANY));
    for expected_relaxed in [true, false] {
        let from = m.log.len();
        let outcome = present(&stage2, &mut m, 0x2abc).relax(&mut m, Grant::data(RW));
        assert_eq!(matches!(outcome, Relaxed::Relaxed), expected_relaxed);
        assert_eq!(matches!(outcome, Relaxed::Sufficient), !expected_relaxed);
        assert_eq!(m.maintenance_since(from), local);
    }
    let from = m.log.len();
    let leaf = present(&stage2, &mut m, 0x2abc);
    let page = mt::page_at(leaf.output_address());
    let ready = mt::make_executable(&mut m, page, &WEAKEST);
    let cost = m.log.len() - from;
    // Another CPU breaks the leaf between the walk and the store.
    with_broken_leaf(&mut m, 0x2000, |m| {
        let outcome = leaf.relax(m, Grant::data(RX).and_execute(ready));
        assert!(matches!(
            outcome,
            Relaxed::Raced {
                now: Leaf::Absent(_)
            }
        ));
    });
    let log = m.maintenance_since(from);
    assert!(log[cost..].windows(local.len()).any(|tail| tail == local));
}

/// Runs `body` while another CPU is between the break and the make of the leaf at `ipa`.
fn with_broken_leaf(m: &mut Recorder, ipa: u64, body: impl FnOnce(&mut Recorder)) {
    let raw = m.leaf(ipa).unwrap();
    m.other_cpu_stores(ipa, raw, Descriptor::LOCKED.raw());
    body(m);
    m.other_cpu_stores(ipa, Descriptor::LOCKED.raw(), raw);
}

#[test]
fn a_locked_leaf_is_not_mapped_over() {
    let (mut m, stage2) = machine_with_tree(16, 32, WEAKEST);
    let pa = map(&stage2, &mut m, 0x2000, RW);
    let pool = m.pool.clone();
    with_broken_leaf(&mut m, 0x2000, |m| {
        let absent = absent(&stage2, m, 0x2000);
        let page = pool.take().unwrap().zeroed(m, &WEAKEST);
        let outcome = absent.map(m, page, Grant::data(RW), &mut Tables::default());
        let Mapped::Raced {
            page,
            now: Leaf::Absent(_),
        } = outcome
        else {
            panic!("a locked leaf was mapped")
        };
        pool.give(page.into_owned());
    });
    assert_eq!(m.translate(0x2000), Some((pa, [true, true, false])));
    assert_eq!(stage2.page_count(), 1);
}

#[test]
fn a_leaf_is_made_again_as_it_was_after_a_complete_break() {
    let (mut m, stage2) = machine_with_tree(16, 32, WEAKEST);
    map(&stage2, &mut m, 0x2000, RX);
    let raw = m.leaf(0x2000);
    let from = m.log.len();
    present(&stage2, &mut m, 0x2000).remake(&mut m);
    assert_eq!(m.leaf(0x2000), raw);
    let mut expected = done_by(|m| mt::after_break(m, Ipa::new(0x2000), Ttl::ANY));
    expected.extend(done_by(mt::after_map));
    assert_eq!(m.maintenance_since(from), expected);
    let stores = m.log[from..]
        .iter()
        .filter(|op| matches!(op, Op::Publish { .. }))
        .count();
    assert_eq!(stores, 2, "broken, then made");
    m.enter_guest();
}

#[test]
fn hardware_updates_between_walk_and_store_are_no_race_and_are_not_lost() {
    let (mut m, stage2) = machine_with_tree(16, 32, WEAKEST);
    map(&stage2, &mut m, 0x2000, Rights::READ);
    let leaf = present(&stage2, &mut m, 0x2000);
    let raw = m.leaf(0x2000).unwrap();
    // Dirty state: the hardware sets S2AP[1].
    m.other_cpu_stores(0x2000, raw, raw | 1 << 7);
    let ready = mt::make_executable(&mut m, mt::page_at(leaf.output_address()), &WEAKEST);
    assert!(matches!(
        leaf.relax(&mut m, Grant::data(Rights::READ).and_execute(ready)),
        Relaxed::Relaxed
    ));
    assert_eq!(m.translate(0x2000).unwrap().1, [true, true, true]);
}

#[test]
#[should_panic(expected = "X is granted for the memory that was made coherent")]
fn the_proof_for_one_page_does_not_execute_another() {
    let (mut m, stage2) = machine_with_tree(16, 32, WEAKEST);
    let other = map(&stage2, &mut m, 0x1000, Rights::READ);
    map(&stage2, &mut m, 0x2000, Rights::READ);
    let ready = mt::make_executable(&mut m, mt::page_at(other), &WEAKEST);
    let _ = present(&stage2, &mut m, 0x2000).relax(&mut m, Grant::data(RX).and_execute(ready));
}

#[test]
fn x_in_a_data_grant_is_not_given() {
    assert_eq!(Grant::data(RX).rights(), Rights::READ);
}

#[test]
fn the_end_of_a_tree_invalidates_its_vmid_before_any_page_is_free() {
    let (mut m, stage2) = machine_with_tree(32, 40, WEAKEST);
    for ipa in [0, 0x2000, 0x80_0000_0000] {
        map(&stage2, &mut m, ipa, RW);
    }
    let window = PaRange::new(Pa::new(0x0804_0000), PAGE_SIZE).unwrap();
    m.add_window(window);
    let pool = m.pool.clone();
    let absent = absent(&stage2, &mut m, 0x1000);
    assert!(
        absent
            .map_window(&mut m, window.start, &mut Tables::default())
            .is_ok()
    );
    assert_eq!(stage2.page_count(), 3, "a window page is not the tree's");
    m.enter_guest();
    m.as_other_cpu(Recorder::enter_guest);
    m.park();
    let from = m.log.len();
    assert_eq!(
        pool.account().taken,
        stage2.page_count() + stage2.table_count()
    );
    stage2.destroy(&mut m, &pool);
    let expected = done_by(|m| mt::under_vttbr(m, 7 << 48, mt::invalidate_vmid));
    assert_eq!(m.log[from..], expected);
    assert_eq!(pool.account().taken, 0);
}

#[test]
fn a_root_that_cannot_be_had_takes_nothing() {
    let mut m = Recorder::new(7, WEAKEST);
    let pool = m.pool.clone();
    let refused = Stage2::new(&mut m, &pool, config(42), Vmid(1), WEAKEST);
    assert!(matches!(refused, Err(OutOfPages)));
    assert_eq!(pool.account().taken, 0);
}

#[test]
fn a_new_tree_is_empty_whatever_its_pages_held() {
    for (bits, _) in SHAPES {
        let (mut m, stage2) = machine_with_tree(16, bits, WEAKEST);
        assert!(
            m.log.contains(&Op::Dsb(Dsb::IshSt)),
            "the root is seen by walks"
        );
        let size = 1u64 << bits;
        for part in 0..64 {
            let _ = absent(&stage2, &mut m, size / 64 * part);
        }
    }
}

#[test]
fn prepared_tables_are_all_or_none() {
    for free in 0..4 {
        let mut m = Recorder::new(free, WEAKEST);
        let pool = m.pool.clone();
        match Tables::prepare(&mut m, &pool, 3) {
            Ok(tables) => {
                assert_eq!((free, pool.account().taken), (3, 3));
                tables.give_back(&pool);
            }
            Err(OutOfPages) => assert!(free < 3),
        }
        assert_eq!(pool.account().taken, 0);
    }
}

#[test]
fn vttbr_holds_root_and_vmid_as_the_manual_places_them() {
    assert_eq!(
        vttbr(Pa::new(0x12_3456_7000), Vmid(0xabcd)),
        0xabcd_0012_3456_7000
    );
}

proptest! {
    #[test]
    fn any_pages_map_to_themselves_and_come_back(pages in proptest::collection::btree_set(0u64..1 << 28, 1..12), shape in 2usize..6) {
        let (bits, _) = SHAPES[shape];
        let (mut m, stage2) = machine_with_tree(64, bits, WEAKEST);
        let mut expected = std::collections::BTreeMap::new();
        for page in pages {
            let ipa = (page << 12) % (1 << bits);
            if expected.contains_key(&ipa) {
                continue;
            }
            let rights = [Rights::READ, RW, RX][(page % 3) as usize];
            let pa = map(&stage2, &mut m, ipa, rights);
            expected.insert(ipa, (pa, [true, page % 3 == 1, page % 3 == 2]));
            m.enter_guest();
            for (ipa, leaf) in &expected {
                prop_assert_eq!(m.translate(*ipa), Some(*leaf));
            }
            prop_assert_eq!(m.mapped().len(), expected.len());
        }
        m.park();
        let pool = m.pool.clone();
        prop_assert_eq!(pool.account().taken, stage2.page_count() + stage2.table_count());
        stage2.destroy(&mut m, &pool);
        prop_assert_eq!(pool.account().taken, 0);
    }
}
