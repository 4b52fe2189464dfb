//! How much one fault brings: as much as the policy permits, and never more than slot, tree and pool allow.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::world::{PC, RAM_SIZE, RAM_START, Setup, TestVcpu, World, coherence};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa};
use crate::content::{Content, Source};
use crate::exit::Need;
use crate::fault::{GranulePolicy, Resolution, RightsPolicy, Stop};
use crate::machine::recorder::{Op, Recorder, abort};
use crate::machine::{Ic, Tlbi};
use crate::stage2::Rights;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 2 * MIB;
/// Two blocks and then some.
const PAGES: u64 = 2 * 512 + 64;
/// `auto` finds the VM too large for the pool.
const _: () = assert!(RAM_SIZE > PAGES * PAGE_SIZE);

const POLICIES: [(GranulePolicy, u64); 6] = [
    (GranulePolicy::Page, 1),
    (GranulePolicy::Neighbours, 16),
    (GranulePolicy::Group, 16),
    (GranulePolicy::Block2M, 512),
    // No slot of these tests holds 1 GiB.
    (GranulePolicy::Block1G, 512),
    // The pool could not give this VM its 64 MiB.
    (GranulePolicy::Auto, 1),
];

fn setup(granule: GranulePolicy) -> Setup {
    Setup {
        granule,
        pages: PAGES,
        ..Setup::default()
    }
}

/// IPAs that are mapped, without their leaves.
fn mapped(world: &World) -> Vec<u64> {
    world.m.mapped().into_keys().collect()
}

fn pages(start: u64, count: u64) -> Vec<u64> {
    (0..count).map(|n| start + n * PAGE_SIZE).collect()
}

#[test]
fn one_fault_brings_what_the_policy_says() {
    for (granule, count) in POLICIES {
        for need in [Need::Read, Need::Write, Need::Execute] {
            let mut world = setup(granule).build();
            let touched = RAM_START + BLOCK + 0x5_1234;
            assert_eq!(world.touch(touched, need), 1);
            let start = touched & !(count * PAGE_SIZE - 1);
            assert_eq!(mapped(&world), pages(start, count), "{granule} {need:?}");
            assert_eq!(world.vcpu.counters.mapped, count);
            assert_eq!(world.vcpu.counters.translation[need as usize], 1);
            assert_eq!(world.vcpu.counters.blocks, u64::from(count == 512));
            assert_eq!(world.vcpu.counters.dcache, count);
            assert_eq!(
                world.touch(start, need) + world.touch(start + count * PAGE_SIZE - 1, need),
                u32::from(granule == GranulePolicy::Neighbours && need != Need::Read) * 2
            );
            world.end();
        }
    }
}

#[test]
fn auto_gives_blocks_as_long_as_the_vm_could_have_all_its_memory() {
    // 4 MiB for the VM; what the root takes is missing, or is not.
    for (more, count) in [(0, 1), (64, 512)] {
        let mut world = Setup {
            ram: Vec::from([(RAM_START, 2 * BLOCK, Rights::ALL)]),
            pages: 2 * 512 + more,
            granule: GranulePolicy::Auto,
            ..Setup::default()
        }
        .build();
        world.touch(RAM_START, Need::Read);
        assert_eq!(mapped(&world).len() as u64, count);
        world.touch(RAM_START + BLOCK, Need::Write);
        assert_eq!(mapped(&world).len() as u64, 2 * count);
        world.end();
    }
}

#[test]
fn a_block_stays_in_its_slot_and_goes_where_nothing_is() {
    let ram = Vec::from([
        (RAM_START, BLOCK - PAGE_SIZE, Rights::ALL),
        (RAM_START + 2 * BLOCK + 3 * PAGE_SIZE, BLOCK, Rights::ALL),
        (RAM_START + 4 * BLOCK, BLOCK, Rights::ALL),
        (RAM_START + 5 * BLOCK, BLOCK, Rights::ALL),
    ]);
    for granule in [GranulePolicy::Block2M, GranulePolicy::Block1G] {
        let mut world = Setup {
            ram: ram.clone(),
            ..setup(granule)
        }
        .build();
        // Both ends of slots that do not fill a block.
        for ipa in [
            RAM_START,
            RAM_START + BLOCK - 2 * PAGE_SIZE,
            RAM_START + 2 * BLOCK + 3 * PAGE_SIZE,
            RAM_START + 3 * BLOCK,
        ] {
            let before = mapped(&world).len();
            world.touch(ipa, Need::Read);
            assert_eq!(mapped(&world).len(), before + 1, "{ipa:#x}");
        }
        // Slots that touch each other are two slots all the same.
        for n in 4..6 {
            let before = mapped(&world).len();
            world.touch(RAM_START + n * BLOCK + 0x1000, Need::Read);
            assert_eq!(mapped(&world).len(), before + 512);
        }
        world.end();
    }
}

#[test]
fn a_window_of_neighbours_is_cut_at_the_slot_and_leaves_what_is_mapped() {
    let ram = Vec::from([(RAM_START + 0x3000, 0x1_0000, Rights::ALL)]);
    let mut world = Setup {
        ram,
        ..setup(GranulePolicy::Neighbours)
    }
    .build();
    world.touch(RAM_START + 0x5000, Need::Read);
    assert_eq!(mapped(&world), pages(RAM_START + 0x3000, 13));
    let kept = world.m.mapped();
    world.touch(RAM_START + 0x1_2000, Need::Write);
    assert_eq!(mapped(&world), pages(RAM_START + 0x3000, 16));
    let now = world.m.mapped();
    assert!(kept.iter().all(|(ipa, leaf)| now[ipa] == *leaf));
    world.end();
}

/// Pages that are there stay, whatever came first: the window fills up around them.
#[test]
fn a_window_with_a_page_in_it_takes_no_page_that_it_does_not_need() {
    let mut world = setup(GranulePolicy::Page).build();
    world.touch(RAM_START + 0x4000, Need::Write);
    set_granule(&mut world, GranulePolicy::Neighbours);
    let from = world.m.log.len();
    world.touch(RAM_START + 0x6000, Need::Read);
    let zeroed = world.m.log[from..].iter();
    assert_eq!(zeroed.filter(|op| matches!(op, Op::Zero(_))).count(), 15);
    assert_eq!(mapped(&world), pages(RAM_START, 16));
    assert!(world.m.translate(RAM_START + 0x4000).unwrap().1[1]);
    assert!(
        !world.m.translate(RAM_START + 0x5000).unwrap().1[1],
        "nothing unasked"
    );
    world.end();
}

fn set_granule(world: &mut World, granule: GranulePolicy) {
    let shared = std::rc::Rc::get_mut(&mut world.shared).unwrap();
    shared.memory.granule = granule;
}

#[test]
fn something_smaller_in_the_way_leaves_the_rest_to_pages() {
    let mut world = setup(GranulePolicy::Page).build();
    world.touch(RAM_START + 0x4000, Need::Write);
    set_granule(&mut world, GranulePolicy::Block2M);
    world.touch(RAM_START + 0x9000, Need::Write);
    assert_eq!(mapped(&world), [RAM_START + 0x4000, RAM_START + 0x9000]);
    world.touch(RAM_START + BLOCK, Need::Read);
    assert_eq!(mapped(&world).len(), 2 + 512, "the next is free");
    world.end();
}

#[test]
fn a_pool_without_a_block_gives_a_page() {
    let mut world = Setup {
        pages: 300,
        ..setup(GranulePolicy::Block2M)
    }
    .build();
    world.touch(RAM_START, Need::Read);
    assert_eq!(mapped(&world), [RAM_START]);
    assert_eq!(world.vcpu.counters.blocks, 0);
    world.end();
}

/// 48 bits: a block needs two tables. With too few pages free nothing is linked, and nothing is lost.
#[test]
fn a_pool_that_runs_dry_at_any_step_stops_the_vm_and_changes_nothing() {
    for granule in [GranulePolicy::Neighbours, GranulePolicy::Block2M] {
        for free in 0..4 {
            let mut world = Setup {
                highest: 1 << 47,
                pages: 16,
                ..setup(granule)
            }
            .build();
            let pool = world.shared.pool.clone();
            let mut held: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
            held.drain(..free)
                .for_each(|page| pool.give(page.into_owned()));
            let before = pool.account();
            let answer = world.resolve(&abort(RAM_START, Need::Write, 0x04));
            let Resolution::Stop(Stop::OutOfPages { .. }) = answer else {
                panic!("{free} pages free: {answer:?}")
            };
            assert_eq!(pool.account().taken, before.taken);
            assert!(world.m.mapped().is_empty());
            held.into_iter()
                .for_each(|page| pool.give(page.into_owned()));
            world.touch(RAM_START, Need::Write);
            world.end();
        }
    }
}

/// With just enough for the page that faulted its neighbours stay away.
#[test]
fn neighbours_are_no_reason_to_stop() {
    let mut world = Setup {
        pages: 9,
        ..setup(GranulePolicy::Neighbours)
    }
    .build();
    world.touch(RAM_START + 0x8000, Need::Write);
    // Roots 4, a table 1: four pages are left.
    assert_eq!(mapped(&world).len(), 4);
    assert!(mapped(&world).contains(&(RAM_START + 0x8000)));
    world.end();
}

/// Handbook section 9 (7), (8): X on a whole block comes with maintenance of the whole block, and W does not take it away.
#[test]
fn a_fetch_relaxes_the_whole_block_with_maintenance_for_all_of_it() {
    for bits in 0..16 {
        let rules = coherence(bits);
        for rights in [RightsPolicy::Lazy, RightsPolicy::Eager] {
            let mut world = Setup {
                coherence: rules,
                rights,
                ..setup(GranulePolicy::Block2M)
            }
            .build();
            world.touch(RAM_START + 0x3000, Need::Read);
            let from = world.m.log.len();
            let at_once = rights == RightsPolicy::Eager && rules.dic;
            assert_eq!(
                world.touch(RAM_START + 0x7000, Need::Execute),
                u32::from(!at_once)
            );
            let lines = |op: &Op| matches!(op, Op::Ic(Ic::AllInnerShareable));
            let whole = world.m.log[from..].iter().any(lines);
            assert_eq!(whole, !rules.dic, "{rules:?}");
            for page in [0, 0x3000, BLOCK - PAGE_SIZE] {
                assert_eq!(world.touch(RAM_START + page, Need::Execute), 0);
            }
            world.touch(RAM_START + 0x1000, Need::Write);
            assert_eq!(world.touch(RAM_START + 0x1000, Need::Execute), 0);
            assert_eq!(world.m.translate(RAM_START).unwrap().1, [true; 3]);
            assert_eq!(world.shared.stage2.table_count(), 4, "it is one leaf still");
            world.end();
        }
    }
}

/// A block takes long to fill: whoever faults on it meanwhile takes nothing, tries again, and is never told to give up.
#[test]
fn others_wait_for_a_block_that_is_being_filled() {
    let mut world = setup(GranulePolicy::Block2M).build();
    let shared = world.shared.clone();
    let body = move |m: &mut Recorder| {
        m.as_other_cpu(|m| {
            let mut other = TestVcpu::at_pc();
            let taken = shared.pool.account().taken;
            for _ in 0..1000 {
                m.enter_guest();
                let abort = m.access(RAM_START + 0x8000, Need::Write).unwrap_err();
                assert_eq!(shared.resolve(&mut other, &abort, m), Resolution::Retry);
            }
            assert_eq!(other.counters.raced, 1000);
            assert_eq!(other.counters.cross_check, 0);
            assert_eq!(shared.pool.account().taken, taken);
        });
    };
    // The first store claims the block, the second fills it.
    world.m.interfere = Some((1, Box::new(body)));
    assert_eq!(world.touch(RAM_START, Need::Write), 1);
    assert!(world.m.interfere.is_none());
    world.end();
}

#[test]
fn a_block_that_another_vcpu_maps_first_goes_back_to_the_pool() {
    for theirs in [RAM_START, RAM_START + 0x10_0000, RAM_START + BLOCK] {
        for step in 0..2 {
            let mut world = Setup {
                highest: 1 << 39,
                ..setup(GranulePolicy::Block2M)
            }
            .build();
            let shared = world.shared.clone();
            let body = move |m: &mut Recorder| {
                m.as_other_cpu(|m| {
                    shared.touch(&mut TestVcpu::default(), theirs, Need::Write, m);
                });
            };
            world.m.interfere = Some((step, Box::new(body)));
            assert!(world.touch(RAM_START, Need::Write) <= 2);
            assert!(world.nothing_leaked(), "step {step}");
            world.end();
        }
    }
}

#[test]
fn neighbours_that_another_vcpu_maps_first_go_back_to_the_pool() {
    for theirs in [0, 0x1000, 0xf000] {
        let mut world = setup(GranulePolicy::Neighbours).build();
        let shared = world.shared.clone();
        let body = move |m: &mut Recorder| {
            m.as_other_cpu(|m| {
                shared.touch(&mut TestVcpu::default(), RAM_START + theirs, Need::Write, m);
            });
        };
        // Store 0 links the table; the pages follow.
        world.m.interfere = Some((4, Box::new(body)));
        assert!(world.touch(RAM_START, Need::Write) <= 1);
        assert_eq!(mapped(&world), pages(RAM_START, 16));
        assert!(world.nothing_leaked());
        world.end();
    }
}

/// A leaf that stays locked for ever is a bug of ours: it ends, and is named.
#[test]
fn a_lock_that_is_never_released_is_no_silent_loop() {
    use crate::fault::progress::{Attempt, Escalation, Progress};
    let attempt = Attempt {
        pc: PC,
        far: crate::addr::Gva::new(0),
        ipa: Some(Ipa::new(RAM_START)),
        need: Need::Read,
        code: 0x06,
        descriptor: 1 << 56,
    };
    let mut progress = Progress::default();
    let stopped = (0..1u32 << 25).find(|_| progress.note(attempt) != Escalation::None);
    assert!(stopped.is_some_and(|n| n > 1 << 20));
}

fn pattern(size: u64) -> Vec<u8> {
    (0..size)
        .map(|n| (n ^ n >> 8 ^ n >> 16) as u8 | 1)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Whatever brings it, a page holds what content says, and neighbours and blocks hold theirs.
    #[test]
    fn every_page_of_a_granule_has_its_content(
        start in 0u64..0x30_0000, size in 1u64..0x18_0000, touches in proptest::collection::vec((0u64..0x40_0000, 0usize..3), 1..6),
        policy in 0usize..5, from_memory: bool,
    ) {
        let bytes = pattern(size);
        let range = IpaRange::new(Ipa::new(RAM_START + start), size).unwrap();
        let (granule, _) = POLICIES[policy];
        let mut world = setup(granule).build_with(|m, _| {
            let source = if from_memory {
                // As far from a page boundary as the range is: such pages are lent.
                let at = Pa::new(0x7_0000_0000 + start % BLOCK);
                m.add_module(at, bytes.clone());
                Source::Memory(at)
            } else {
                Source::Bytes(bytes.clone())
            };
            Vec::from([Content::new(range, source)])
        });
        for (at, need) in touches {
            world.touch(RAM_START + at, [Need::Read, Need::Write, Need::Execute][need]);
        }
        let byte = |ipa: u64| ipa.checked_sub(range.start.raw()).and_then(|n| bytes.get(n as usize)).copied().unwrap_or(0);
        let all: BTreeMap<u64, u64> = world.m.mapped();
        for ipa in all.into_keys() {
            let (pa, _) = world.m.translate(ipa).unwrap();
            prop_assert!(world.m.page(pa).iter().zip(ipa..).all(|(found, at)| *found == byte(at)), "{ipa:#x}");
        }
        world.end();
    }
}

#[test]
fn a_block_is_remade_when_a_cpu_keeps_faulting_on_it() {
    let mut world = setup(GranulePolicy::Block2M).build();
    world.touch(RAM_START, Need::Write);
    let before = world.m.mapped();
    let mut broken = false;
    for _ in 0..64 {
        let from = world.m.log.len();
        let abort = abort(RAM_START + 0x2000, Need::Write, 0x0e);
        assert_eq!(world.resolve(&abort), Resolution::Retry);
        let is_break = |op: &Op| matches!(op, Op::Tlbi(Tlbi::Ipas2e1Is(..)));
        broken |= world.m.log[from..].iter().any(is_break);
    }
    let abort = abort(RAM_START + 0x2000, Need::Write, 0x0e);
    let Resolution::Stop(stop) = world.resolve(&abort) else {
        panic!("a silent loop")
    };
    assert!(
        broken && format!("{stop}").contains("RW- already"),
        "{stop}"
    );
    assert_eq!(world.m.mapped(), before);
    world.end();
}
