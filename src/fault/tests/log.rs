//! Faults while a dirty log is kept, and faults for want of an access flag.

use std::vec::Vec;

use super::world::{RAM_SIZE, RAM_START, Setup, World};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE};
use crate::exit::Need;
use crate::fault::{GranulePolicy, Resolution, RightsPolicy, Stop};
use crate::machine::recorder::{Op, abort};

const BLOCK: u64 = 2 << 20;

fn setup(granule: GranulePolicy, rights: RightsPolicy) -> Setup {
    Setup {
        granule,
        rights,
        pages: 3 * 512,
        ..Setup::default()
    }
}

fn ram() -> IpaRange {
    IpaRange::new(Ipa::new(RAM_START), RAM_SIZE).unwrap()
}

fn start_log(world: &mut World) {
    let shared = world.shared.clone();
    let started = world.m.taking(|m| shared.stage2.start_log(m, ram()));
    started.unwrap();
}

fn harvest(world: &mut World) -> Vec<u64> {
    let shared = world.shared.clone();
    let mut pages = Vec::new();
    world
        .m
        .taking(|m| shared.stage2.harvest(m, |ipa| pages.push(ipa.raw())));
    pages
}

const BLOCKS: [GranulePolicy; 2] = [GranulePolicy::Neighbours, GranulePolicy::Block2M];

#[test]
fn w_comes_page_by_page_and_every_page_that_has_it_is_in_the_log() {
    for granule in BLOCKS {
        for rights in [RightsPolicy::Eager, RightsPolicy::Lazy] {
            let mut world = setup(granule, rights).build();
            world.touch(RAM_START, Need::Write);
            world.touch(RAM_START + 0x3000, Need::Execute);
            start_log(&mut world);
            // Nothing was mapped here.
            let fresh = RAM_START + 2 * BLOCK;
            world.touch(fresh, Need::Read);
            world.touch(fresh + 0x1000, Need::Execute);
            world.touch(fresh + 0x2000, Need::Write);
            assert_eq!(world.touch(RAM_START + 0x5000, Need::Read), 0);
            assert!(world.touch(RAM_START + 0x5000, Need::Write) <= 2);
            let writable: Vec<u64> = world
                .m
                .mapped()
                .into_iter()
                .filter(|(_, leaf)| leaf >> 7 & 1 == 1)
                .map(|(ipa, _)| ipa)
                .collect();
            assert_eq!(
                writable,
                [RAM_START + 0x5000, fresh + 0x2000],
                "{granule} {rights:?}"
            );
            assert_eq!(harvest(&mut world), writable);
            assert_eq!(harvest(&mut world), []);
            // X that was there is there still, on the part as on the whole.
            assert_eq!(world.touch(RAM_START + 0x3000, Need::Execute), 0);
            world.touch(RAM_START + 0x5000, Need::Write);
            assert_eq!(harvest(&mut world), [RAM_START + 0x5000]);
            world.end();
        }
    }
}

/// Handbook section 9 (19): the first access is a fetch, on a block that is still whole.
#[test]
fn a_fetch_on_a_logged_block_needs_a_table_and_ends_cleanly_without_one() {
    for need in [Need::Execute, Need::Write] {
        let mut world = setup(GranulePolicy::Block2M, RightsPolicy::Lazy).build();
        world.touch(RAM_START, Need::Read);
        start_log(&mut world);
        let pool = world.shared.pool.clone();
        let held: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
        let before = world.m.mapped();
        for _ in 0..3 {
            let answer = world.resolve(&abort(RAM_START, need, 0x0e));
            assert!(
                matches!(answer, Resolution::Stop(Stop::OutOfPages { .. })),
                "{answer:?}"
            );
        }
        assert_eq!(world.m.mapped(), before);
        held.into_iter()
            .for_each(|page| pool.give(page.into_owned()));
        assert_eq!(world.touch(RAM_START + 0x1000, need), 1);
        assert_eq!(world.vcpu.counters.split, 1);
        let with_right = |leaf: &u64| match need {
            Need::Execute => leaf >> 53 & 3 == 0,
            _ => leaf >> 7 & 1 == 1,
        };
        let given = world
            .m
            .mapped()
            .values()
            .filter(|leaf| with_right(leaf))
            .count();
        assert_eq!(given, 1, "the page alone");
        world.end();
    }
}

/// Handbook section 9 (4): log on, touch, log off, write: it finishes, and the block can be made again.
#[test]
fn when_the_log_has_ended_pages_relax_and_the_block_is_made_again() {
    let mut world = setup(GranulePolicy::Block2M, RightsPolicy::Eager).build();
    world.touch(RAM_START, Need::Write);
    start_log(&mut world);
    world.touch(RAM_START, Need::Write);
    let shared = world.shared.clone();
    shared.stage2.stop_log(&mut world.m);
    for page in 0..512 {
        assert!(world.touch(RAM_START + page * PAGE_SIZE, Need::Write) <= 1);
    }
    // The recorder's rules end where a table becomes a block; the model has those.
    drop(shared);
    world.end();
}

#[test]
fn a_page_that_is_lent_is_copied_and_logged_in_one() {
    use crate::content::{Content, Source};
    let at = crate::addr::Pa::new(0x7_0000_0000);
    let mut world = setup(GranulePolicy::Block2M, RightsPolicy::Lazy).build_with(|m, _| {
        m.add_module(at, std::vec![7; BLOCK as usize]);
        let range = IpaRange::new(Ipa::new(RAM_START), BLOCK).unwrap();
        Vec::from([Content::new(range, Source::Memory(at))])
    });
    world.touch(RAM_START, Need::Execute);
    start_log(&mut world);
    assert_eq!(world.touch(RAM_START + 0x9000, Need::Write), 1);
    assert_eq!(harvest(&mut world), [RAM_START + 0x9000]);
    assert_eq!(world.shared.stage2.page_count(), 1);
    world.end();
}

/// A CPU that does not set access flags: the fault sets it, and that is all. No TLB holds an entry without it.
#[test]
fn an_access_flag_fault_sets_the_flag_and_nothing_else() {
    for granule in [GranulePolicy::Page, GranulePolicy::Block2M] {
        for need in [Need::Read, Need::Write, Need::Execute] {
            let mut world = setup(granule, RightsPolicy::Lazy).build();
            world.touch(RAM_START, Need::Read);
            let before = world.m.leaf(RAM_START).unwrap();
            let shared = world.shared.clone();
            world.m.taking(|m| shared.stage2.age(m, ram()));
            drop(shared);
            assert_eq!(world.m.leaf(RAM_START).unwrap(), before & !(1 << 10));
            let from = world.m.log.len();
            let answer = world.resolve(&abort(RAM_START, need, 0x0b));
            assert_eq!(answer, Resolution::Retry);
            assert_eq!(
                world.m.leaf(RAM_START),
                Some(before),
                "no right came with it"
            );
            let tlbi = |op: &Op| matches!(op, Op::Tlbi(_) | Op::Dc(..) | Op::Ic(_) | Op::At(_));
            assert!(!world.m.log[from..].iter().any(tlbi));
            assert_eq!(world.vcpu.counters.aged, 1);
            assert_eq!(world.vcpu.counters.cross_check, 0);
            assert_eq!(world.touch(RAM_START, Need::Read), 0);
            world.end();
        }
    }
}

/// Another vCPU, or the hardware, set it meanwhile; or the flag is clear where the CPU speaks of rights.
#[test]
fn statuses_and_flags_that_do_not_agree_end_well() {
    let mut world = setup(GranulePolicy::Page, RightsPolicy::Lazy).build();
    world.touch(RAM_START, Need::Read);
    assert_eq!(
        world.resolve(&abort(RAM_START, Need::Read, 0x0b)),
        Resolution::Retry
    );
    assert_eq!(
        (
            world.vcpu.counters.cross_check.get(),
            world.vcpu.counters.sufficient.get()
        ),
        (1, 1)
    );
    let shared = world.shared.clone();
    world.m.taking(|m| shared.stage2.age(m, ram()));
    drop(shared);
    // A permission fault on a leaf without its flag: both are given at once.
    assert_eq!(
        world.resolve(&abort(RAM_START, Need::Write, 0x0f)),
        Resolution::Retry
    );
    assert_eq!(world.touch(RAM_START, Need::Write), 0);
    assert_eq!(world.vcpu.counters.cross_check, 1);
    // An access flag fault where nothing is.
    assert_eq!(
        world.resolve(&abort(RAM_START + 0x5000, Need::Write, 0x0b)),
        Resolution::Retry
    );
    assert_eq!(world.vcpu.counters.cross_check, 2);
    assert_eq!(world.touch(RAM_START + 0x5000, Need::Write), 0);
    world.end();
}
