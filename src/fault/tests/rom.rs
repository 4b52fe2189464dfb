//! RAM with fewer rights: read-only, and execute-never.

use std::vec::Vec;

use super::inject::{Taken, take};
use super::world::{RAM_START, Setup, World};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE};
use crate::content::{Content, Source};
use crate::exit::Need;
use crate::fault::{GranulePolicy, Resolution, RightsPolicy};
use crate::machine::recorder::{Op, VA_BASE, abort_with};
use crate::machine::{El1, Tlbi, Ttl};
use crate::stage2::Rights;

const ROM: u64 = RAM_START + 0x40_0000;
const XN: u64 = RAM_START + 0x60_0000;
const SIZE: u64 = 0x20_0000;
const S1PTW: u64 = 1 << 7;
const CM: u64 = 1 << 8;
const WNR: u64 = 1 << 6;
const RX: Rights = Rights::READ.with(Rights::EXECUTE);
const RW: Rights = Rights::READ.with(Rights::WRITE);

fn setup(granule: GranulePolicy, rights: RightsPolicy) -> Setup {
    Setup {
        granule,
        rights,
        pages: 3 * 512,
        ram: Vec::from([
            (RAM_START, 0x40_0000, Rights::ALL),
            (ROM, SIZE, RX),
            (XN, SIZE, RW),
        ]),
        ..Setup::default()
    }
}

const WAYS: [(GranulePolicy, RightsPolicy); 4] = [
    (GranulePolicy::Page, RightsPolicy::Lazy),
    (GranulePolicy::Page, RightsPolicy::Eager),
    (GranulePolicy::Neighbours, RightsPolicy::Eager),
    (GranulePolicy::Block2M, RightsPolicy::Eager),
];

fn injected(answer: Resolution) -> Taken {
    match answer {
        Resolution::Inject(exception) => take(exception, 0x3c5, 0),
        other => panic!("not injected: {other:?}"),
    }
}

/// An abort on `ipa`, its address in the register where it is defined.
fn fault(world: &mut World, class: u64, iss: u64, ipa: u64) -> Resolution {
    let answer = world.resolve(&abort_with(class, iss, VA_BASE | ipa, ipa));
    world.m.enter_guest();
    answer
}

#[test]
fn rom_is_read_and_executed_and_a_store_fails_before_and_after() {
    for (granule, rights) in WAYS {
        let mut world = setup(granule, rights).build();
        let at = ROM + 0x3008;
        for status in [0x07, 0x0f] {
            let taken = injected(fault(&mut world, 0x24, status | WNR, at));
            assert_eq!((taken.esr, taken.far), (0x9600_0050, VA_BASE | at));
            if status == 0x07 {
                assert!(world.m.mapped().is_empty(), "a store brings no page");
                world.touch(at, Need::Read);
                world.touch(at, Need::Execute);
            }
        }
        assert_eq!(world.m.translate(at).unwrap().1, [true, false, true]);
        assert!(world.m.mapped().values().all(|leaf| leaf >> 7 & 1 == 0));
        world.end();
    }
}

#[test]
fn execute_never_is_read_and_written_and_a_fetch_fails_before_and_after() {
    for (granule, rights) in WAYS {
        for bits in [0, 0b1110] {
            let mut world = Setup {
                // DIC = 1 gives X with the first touch elsewhere.
                coherence: super::world::coherence(bits),
                ..setup(granule, rights)
            }
            .build();
            let at = XN + 0x5000;
            for status in [0x07, 0x0f] {
                let taken = injected(fault(&mut world, 0x20, status, at));
                assert_eq!((taken.esr, taken.far), (0x8600_0010, VA_BASE | at));
                world.touch(at, Need::Read);
                world.touch(at, Need::Write);
            }
            assert_eq!(world.m.translate(at).unwrap().1, [true, true, false]);
            world.end();
        }
    }
}

/// A walk or maintenance that wants to write what is read-only: the CPU may have gone by an entry without R, so it is told to
/// forget it and to try again; what comes then is answered for good.
fn fault_for_good(world: &mut World, class: u64, iss: u64, far: u64, ipa: u64) -> Taken {
    let abort = abort_with(class, iss, far, ipa);
    let tlbi = world.vcpu.counters.tlbi.get();
    assert_eq!(world.resolve(&abort), Resolution::Retry);
    assert_eq!(world.vcpu.counters.tlbi, tlbi + 1);
    world.m.enter_guest();
    let taken = injected(world.resolve(&abort));
    world.m.enter_guest();
    taken
}

/// Handbook 2.1 (6): maintenance of nothing is skipped; of ROM it is not, where it wants to write.
#[test]
fn cache_maintenance_of_rom_maps_it_and_fails_where_it_would_write() {
    let mut world = setup(GranulePolicy::Page, RightsPolicy::Eager).build();
    assert_eq!(
        fault(&mut world, 0x24, 0x07 | CM | WNR, ROM),
        Resolution::Retry
    );
    assert_eq!(world.m.translate(ROM).unwrap().1, [true, false, false]);
    // However often it tries.
    for _ in 0..100 {
        let taken = fault_for_good(&mut world, 0x24, 0x0f | CM | WNR, VA_BASE | ROM, ROM);
        assert_eq!(taken.esr, 0x9600_0150);
    }
    assert_eq!(world.vcpu.counters.skipped, 0);
    world.end();
}

/// Tables in ROM, level 1 to 3 of a 39-bit walk, one page each; the last maps its VA nowhere in particular.
fn with_tables() -> World {
    let mut world = setup(GranulePolicy::Page, RightsPolicy::Lazy).build_with(|_, _| {
        let mut tables = Vec::new();
        for next in [ROM + 0x1003, ROM + 0x2003, RAM_START + 0x703] {
            tables.extend(u64::to_le_bytes(next));
            tables.resize(tables.len().next_multiple_of(PAGE_SIZE as usize), 0);
        }
        let range = IpaRange::new(Ipa::new(ROM), tables.len() as u64).unwrap();
        Vec::from([Content::new(range, Source::Bytes(tables))])
    });
    world.m.el1[El1::Sctlr as usize] = 1;
    world.m.el1[El1::Tcr as usize] = 25 | 33 << 16 | 0b10 << 30;
    world.m.el1[El1::Ttbr0 as usize] = ROM;
    world
}

/// Handbook section 9 (9), 406504c7b040: a walk that finds nothing mapped reads, whatever the access wanted.
#[test]
fn tables_in_rom_are_walked() {
    let mut world = with_tables();
    for (n, (class, iss)) in [(0x24, WNR), (0x20, 0), (0x24, 0)].into_iter().enumerate() {
        let table = ROM + n as u64 * PAGE_SIZE;
        let answer = world.resolve(&abort_with(class, 0x07 | S1PTW | iss, 0x234, table));
        assert_eq!(answer, Resolution::Retry);
        assert_eq!(world.m.translate(table).unwrap().1, [true, false, false]);
    }
    world.end();
}

/// Handbook section 9 (10): the hardware wants to set a flag in a table that is read-only. The abort is the walk's, at the
/// guest's level, of the class of the access.
#[test]
fn a_hardware_update_of_a_table_in_rom_is_an_external_abort_on_the_walk() {
    for (class, iss, esr) in [
        (0x24, 0, 0x9600_0000),
        (0x24, WNR, 0x9600_0040),
        (0x20, 0, 0x8600_0000),
        (0x24, CM | WNR, 0x9600_0140),
    ] {
        for level in 1..4u64 {
            let mut world = with_tables();
            let table = |level: u64| ROM + (level - 1) * PAGE_SIZE;
            for below in 1..=level {
                let walk = abort_with(class, 0x07 | S1PTW | iss, 0x234, table(below));
                assert_eq!(world.resolve(&walk), Resolution::Retry);
            }
            let taken = fault_for_good(&mut world, class, 0x0f | S1PTW | iss, 0x234, table(level));
            assert_eq!((taken.esr, taken.far), (esr | (0x14 + level), 0x234));
            world.end();
        }
    }
}

/// The leaf has R, and the CPU faults by an entry from when it had not: what it wanted was R, and it gets it. The guest sees
/// nothing of it.
#[test]
fn maintenance_of_rom_through_a_stale_entry_is_tried_again_without_it() {
    let mut world = setup(GranulePolicy::Page, RightsPolicy::Lazy).build();
    world.touch(ROM, Need::Read);
    let stale = abort_with(0x24, 0x0f | CM | WNR, VA_BASE | ROM, ROM);
    world.m.log.clear();
    assert_eq!(world.resolve(&stale), Resolution::Retry);
    let dropped = |tlbi: Tlbi| world.m.log.contains(&Op::Tlbi(tlbi));
    assert!(dropped(Tlbi::Ipas2e1(Ipa::new(ROM), Ttl::ANY)) && dropped(Tlbi::Vmalle1));
    world.m.enter_guest();
    // It reads, and goes on; the next of its kind is a first one again.
    world.vcpu.progress.retired();
    assert_eq!(world.resolve(&stale), Resolution::Retry);
    assert_eq!(world.m.translate(ROM).unwrap().1, [true, false, false]);
    world.end();
}
