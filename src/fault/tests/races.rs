//! Another CPU is faster: before every store that this one tries, the other does the same work first.

use super::world::{RAM_START, Setup, TestVcpu, WINDOW, World};
use crate::exit::Need;
use crate::fault::Resolution;
use crate::machine::recorder::{Op, Recorder, abort};
use crate::machine::{Dsb, Tlbi, Ttl};
use crate::stage2::Descriptor;

/// Lets the other CPU touch `ipa` right before this one's store number `step`.
fn other_touches(world: &mut World, step: usize, ipa: u64, need: Need) {
    let shared = world.shared.clone();
    let body = move |m: &mut Recorder| {
        m.as_other_cpu(|m| {
            shared.touch(&mut TestVcpu::default(), ipa, need, m);
        });
    };
    world.m.interfere = Some((step, Box::new(body)));
}

#[test]
fn whoever_maps_second_gives_its_page_back_and_tries_again() {
    // 48 bits: three tables to link, then the page.
    for step in 0..4 {
        for (mine, theirs) in [
            (Need::Read, Need::Write),
            (Need::Write, Need::Read),
            (Need::Execute, Need::Read),
        ] {
            let mut world = Setup {
                highest: 1 << 47,
                ..Setup::default()
            }
            .build();
            other_touches(&mut world, step, RAM_START, theirs);
            let before = world.vcpu.counters.mapped.get();
            let answer = world.resolve(&abort(RAM_START, mine, 0x07));
            assert_eq!(answer, Resolution::Retry);
            assert!(
                world.m.interfere.is_none(),
                "the other CPU was there at step {step}"
            );
            assert_eq!(
                world.vcpu.counters.mapped, before,
                "the other one mapped it"
            );
            assert_eq!(world.shared.stage2.page_count(), 1);
            assert_eq!(world.shared.stage2.table_count(), 4);
            assert!(world.nothing_leaked(), "step {step}");
            assert!(world.touch(RAM_START, mine) <= 1);
            world.end();
        }
    }
}

#[test]
fn a_window_page_mapped_by_another_cpu_first_costs_no_table() {
    for step in 0..4 {
        let mut world = Setup {
            highest: 1 << 47,
            ..Setup::default()
        }
        .build();
        other_touches(&mut world, step, WINDOW, Need::Read);
        assert_eq!(
            world.resolve(&abort(WINDOW, Need::Write, 0x04)),
            Resolution::Retry
        );
        assert!(world.m.interfere.is_none());
        assert_eq!(world.vcpu.counters.windows, 0, "the other one mapped it");
        assert!(world.touch(WINDOW, Need::Write) <= 1);
        world.end();
    }
}

#[test]
fn a_neighbour_mapped_meanwhile_shares_the_tables() {
    for step in 0..4 {
        let mut world = Setup {
            highest: 1 << 47,
            ..Setup::default()
        }
        .build();
        other_touches(&mut world, step, RAM_START + 0x1000, Need::Read);
        assert!(world.touch(RAM_START, Need::Write) <= 2, "step {step}");
        assert_eq!(world.m.mapped().len(), 2);
        assert_eq!(
            world.shared.stage2.table_count(),
            4,
            "no table was linked twice"
        );
        world.end();
    }
}

/// Whether the local sequence of handbook 4.1 is in the log.
fn invalidated_locally(m: &Recorder, from: usize, ipa: u64) -> bool {
    let sequence = [
        Op::Dsb(Dsb::NshSt),
        Op::Tlbi(Tlbi::Ipas2e1(crate::addr::Ipa::new(ipa), Ttl::ANY)),
        Op::Dsb(Dsb::Nsh),
        Op::Tlbi(Tlbi::Vmalle1),
        Op::Dsb(Dsb::Nsh),
        Op::Isb,
    ];
    m.maintenance_since(from).ends_with(&sequence)
}

#[test]
fn whoever_relaxes_second_still_drops_its_stale_entry() {
    let rights = [Need::Write, Need::Execute];
    for mine in rights {
        for theirs in rights {
            let mut world = World::new();
            world.touch(RAM_START, Need::Read);
            world.m.enter_guest();
            other_touches(&mut world, 0, RAM_START, theirs);
            let from = world.m.log.len();
            assert_eq!(
                world.resolve(&abort(RAM_START, mine, 0x0f)),
                Resolution::Retry
            );
            assert!(
                invalidated_locally(&world.m, from, RAM_START),
                "{mine:?} after {theirs:?}"
            );
            assert!(world.touch(RAM_START, mine) <= 1);
            let (_, now) = world.m.translate(RAM_START).unwrap();
            assert!(
                now[mine as usize] && now[theirs as usize],
                "nobody's right was lost"
            );
            world.end();
        }
    }
}

/// be097997a273 in the handbook: the CPU that finds its right granted already must not go back to its stale entry.
#[test]
fn a_stale_entry_costs_one_fault_and_is_counted() {
    let mut world = World::new();
    for need in [Need::Write, Need::Execute] {
        world.touch(RAM_START, Need::Read);
        world.m.enter_guest();
        let shared = world.shared.clone();
        world
            .m
            .as_other_cpu(|m| shared.touch(&mut TestVcpu::default(), RAM_START, need, m));
        drop(shared);
        let counted = world.vcpu.counters.sufficient.get();
        let from = world.m.log.len();
        assert_eq!(world.touch(RAM_START, need), 1);
        assert!(invalidated_locally(&world.m, from, RAM_START));
        assert_eq!(world.vcpu.counters.sufficient, counted + 1);
    }
    assert_eq!(world.vcpu.counters.permission, [0; 3]);
    assert_eq!(
        world.vcpu.counters.icache, 0,
        "the other CPU made it coherent for all"
    );
    world.end();
}

#[test]
fn a_fault_in_the_gap_of_a_break_takes_nothing_and_tries_again() {
    let mut world = World::new();
    world.touch(RAM_START, Need::Write);
    let before = world.m.translate(RAM_START);
    let raw = world.m.leaf(RAM_START).expect("it is mapped");
    // Another CPU is between its break and its make.
    world
        .m
        .other_cpu_stores(RAM_START, raw, Descriptor::LOCKED.raw());
    world.m.enter_guest();
    let abort = abort(RAM_START, Need::Read, 0x07);
    let shared = world.shared.clone();
    let answer = shared.resolve(&mut TestVcpu::default(), &abort, &mut world.m);
    assert_eq!(
        answer,
        Resolution::Retry,
        "no abort for a guest, and no page over a page"
    );
    drop(shared);
    world
        .m
        .other_cpu_stores(RAM_START, Descriptor::LOCKED.raw(), raw);
    assert_eq!(world.m.translate(RAM_START), before);
    assert!(world.nothing_leaked());
}

#[test]
fn the_status_is_a_hint_and_the_leaf_decides() {
    let mut world = World::new();
    // A permission fault where nothing is: the leaf went away meanwhile. It is mapped, nothing is relaxed.
    world.m.at = None;
    assert_eq!(
        world.resolve(&abort(RAM_START, Need::Write, 0x0f)),
        Resolution::Retry
    );
    assert_eq!(world.m.translate(RAM_START).unwrap().1, [true, true, false]);
    // A translation fault where a page is: another CPU mapped it meanwhile. It is relaxed, nothing is mapped.
    assert_eq!(
        world.resolve(&abort(RAM_START, Need::Execute, 0x07)),
        Resolution::Retry
    );
    assert_eq!(world.m.translate(RAM_START).unwrap().1, [true, true, true]);
    assert_eq!(world.vcpu.counters.cross_check, 2);
    assert_eq!(world.shared.stage2.page_count(), 1);
    world.end();
}
