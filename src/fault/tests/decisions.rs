//! The order of decisions: whom to believe, and what each kind of access to each kind of place comes to.

use super::inject::{Taken, take};
use super::world::{DEVICE, PC, RAM_SIZE, RAM_START, Setup, WINDOW, WINDOW_PA, World};
use crate::addr::{Gva, Pa};
use crate::device::Width;
use crate::exit::{Need, Transfer};
use crate::fault::{Mmio, Resolution, Stop};
use crate::machine::recorder::{Op, VA_BASE, abort, abort_with};
use crate::machine::{AtAborted, Dsb, Machine, Tlbi};

const DATA: u64 = 0x24;
const FETCH: u64 = 0x20;
const WNR: u64 = 1 << 6;
const S1PTW: u64 = 1 << 7;
const CM: u64 = 1 << 8;
const NOTHING: u64 = 0x1000_0000;
/// ISV, word, x3, 32-bit register.
const ISV_WORD_X3: u64 = 1 << 24 | 2 << 22 | 3 << 16;

fn injected(resolution: Resolution) -> Taken {
    match resolution {
        Resolution::Inject(exception) => take(exception, 0x3c5, 0),
        other => panic!("not injected: {other:?}"),
    }
}

fn asked_stage1(world: &World, from: usize) -> bool {
    world.m.log[from..].iter().any(|op| matches!(op, Op::At(_)))
}

/// `HPFAR_EL2` is poisoned wherever it is UNKNOWN; the page that changes is the one that was meant all the same.
#[test]
fn the_page_is_found_by_hpfar_where_it_is_defined_and_by_at_where_not() {
    for (class, iss, by_at) in [
        (DATA, 0x04, false),
        (DATA, 0x07, false),
        (DATA, 0x07 | WNR, false),
        (DATA, 0x0b, false),
        (DATA, 0x07 | S1PTW, false),
        (DATA, 0x0f | S1PTW, false),
        (FETCH, 0x07, false),
        (FETCH, 0x0f | S1PTW, false),
        (DATA, 0x0f, true),
        (DATA, 0x0d | WNR, true),
        (FETCH, 0x0f, true),
    ] {
        let mut world = World::new();
        let page = RAM_START + 0x5000;
        let from = world.m.log.len();
        let abort = abort_with(class, iss, VA_BASE | page | 0x123, page);
        assert_eq!(world.resolve(&abort), Resolution::Retry);
        assert_eq!(asked_stage1(&world, from), by_at, "ISS {iss:#x}");
        assert_eq!(world.vcpu.counters.translated_by_at, u64::from(by_at));
        assert_eq!(world.vcpu.counters.stage1_walk, u64::from(iss & S1PTW != 0));
        assert_eq!(
            world.m.mapped().into_keys().collect::<Vec<_>>(),
            [page],
            "ISS {iss:#x}"
        );
        // Checks that PAR_EL1 is what it was.
        world.m.enter_guest();
    }
}

#[test]
fn at_is_asked_for_the_address_of_the_access_and_gives_ipa_bits_12_to_51() {
    let mut world = World::new();
    world.m.at = Some(Box::new(|_, va| {
        assert_eq!(va, Gva::new(0x0000_7654_3210_0abc));
        // Attributes 0xff, NS, SH, and RES1 around PA bits 51 to 12.
        Ok(0xff00_0000_0000_0000 | (RAM_START + 0x3000) | 1 << 11 | 1 << 9 | 3 << 7)
    }));
    let abort = abort_with(DATA, 0x0f | WNR, 0x0000_7654_3210_0abc, 0);
    assert_eq!(world.resolve(&abort), Resolution::Retry);
    assert_eq!(
        world.m.mapped().into_keys().collect::<Vec<_>>(),
        [RAM_START + 0x3000]
    );
    world.m.enter_guest();
}

#[test]
fn on_a_cpu_with_erratum_834220_a_translation_fault_is_looked_up_again() {
    for (iss, by_at) in [(0x07, true), (0x07 | S1PTW, false), (0x0b, false)] {
        let mut world = Setup {
            erratum_834220: true,
            ..Setup::default()
        }
        .build();
        // What HPFAR_EL2 says may be wrong: here it names another page than stage 1 does.
        let told = if by_at { RAM_START + 0x9000 } else { RAM_START };
        let from = world.m.log.len();
        let abort = abort_with(DATA, iss, VA_BASE | RAM_START, told);
        assert_eq!(world.resolve(&abort), Resolution::Retry);
        assert_eq!(asked_stage1(&world, from), by_at);
        assert_eq!(
            world.m.mapped().into_keys().collect::<Vec<_>>(),
            [RAM_START]
        );
    }
}

/// Stage 1 changed under the access: nothing is injected, PAR_EL1 is kept, a stale combined entry goes, and it ends.
#[test]
fn an_address_that_stage_1_no_longer_translates_is_tried_again_and_not_for_ever() {
    for aborts in [false, true] {
        let mut world = World::new();
        world.touch(RAM_START, Need::Read);
        world.m.at = Some(Box::new(
            move |_, _| if aborts { Err(AtAborted) } else { Ok(0x80b) },
        ));
        let fault = abort(RAM_START, Need::Write, 0x0f);
        let before = world.m.mapped();
        for _ in 0..64 {
            let from = world.m.log.len();
            assert_eq!(world.resolve(&fault), Resolution::Retry);
            world.m.enter_guest();
            let local = [
                Op::Dsb(Dsb::NshSt),
                Op::Tlbi(Tlbi::Vmalle1),
                Op::Dsb(Dsb::Nsh),
                Op::Isb,
            ];
            assert!(world.m.maintenance_since(from).ends_with(&local));
        }
        let Resolution::Stop(stop @ Stop::NoProgress { repeats: 64, .. }) = world.resolve(&fault)
        else {
            panic!("a silent loop")
        };
        assert!(format!("{stop}").contains("stage 1 does not say"), "{stop}");
        assert_eq!(world.vcpu.counters.tlbi, 64);
        assert_eq!(world.m.mapped(), before);
        world.m.enter_guest();
        world.m.at = None;
        world.end();
    }
}

/// Statuses that have nothing to do with what is mapped; each by its number in the Arm ARM's DFSC table.
#[test]
fn other_statuses_are_injected_or_end_the_vm_and_never_map() {
    for code in 0u64..64 {
        let mut world = World::new();
        let answer = world.resolve(&abort_with(DATA, code, VA_BASE | RAM_START | 8, RAM_START));
        match code {
            0x04..=0x0f | 0x2a | 0x2b => assert_eq!(answer, Resolution::Retry, "{code:#x}"),
            // The IPA is in range, so it is an address in our tables that is too wide.
            0x00..=0x03 | 0x29 | 0x2c => {
                assert!(matches!(answer, Resolution::Stop(Stop::OutputSize { .. })));
            }
            // External aborts and parity errors, on the guest's walk or not; alignment; exclusives.
            0x10 | 0x12..=0x17 | 0x18 | 0x1b..=0x1f | 0x21 | 0x35 => {
                let taken = injected(answer);
                assert_eq!(
                    (taken.esr, taken.far),
                    (0x9600_0000 | code, VA_BASE | RAM_START | 8)
                );
            }
            0x30 => assert_eq!(answer, Resolution::Retry),
            _ => assert!(
                matches!(answer, Resolution::Stop(Stop::Hardware { .. })),
                "{code:#x}"
            ),
        }
        assert!(matches!(code, 0x04..=0x0f | 0x2a | 0x2b) || world.m.mapped().is_empty());
    }
}

/// S1PTW, or a CPU that keeps the guest's own errors at EL1: then what erred is the memory of our tables.
#[test]
fn an_error_in_our_own_tables_ends_this_vm_with_the_reason() {
    for code in [0x12, 0x13, 0x14, 0x17, 0x1b, 0x1c, 0x1f] {
        for (class, iss, trap) in [
            (DATA, S1PTW, true),
            (FETCH, S1PTW, true),
            (DATA, 0, false),
            (FETCH, 0, false),
        ] {
            let mut world = Setup {
                guest_errors_trap: trap,
                ..Setup::default()
            }
            .build();
            let answer = world.resolve(&abort_with(class, code | iss, VA_BASE | RAM_START, 0));
            let Resolution::Stop(stop @ Stop::TableMemory { .. }) = answer else {
                panic!("{code:#x}: {answer:?}")
            };
            assert!(
                format!("{stop}").contains("stage-2 tables is bad"),
                "{stop}"
            );
        }
    }
}

/// FnV: where the access went is not known, to us as little as to the guest.
#[test]
fn an_error_without_an_address_is_injected_without_one() {
    const FNV: u64 = 1 << 10;
    let mut world = World::new();
    let from = world.m.log.len();
    let taken = injected(world.resolve(&abort_with(DATA, 0x10 | FNV | WNR, 0xdead, 0)));
    assert_eq!(taken.esr, 0x9600_0450);
    assert!(!asked_stage1(&world, from), "AT has nothing to ask for");
}

/// 0x31 with S1PTW: the guest's walker was to set a flag in memory that cannot do it. Else the table is ours.
#[test]
fn an_update_that_memory_cannot_do_is_the_guests_on_its_own_tables() {
    let mut world = World::new();
    let taken = injected(world.resolve(&abort_with(DATA, 0x31 | S1PTW, VA_BASE | RAM_START, 0)));
    assert_eq!(taken.esr, 0x9600_0031);
    let answer = world.resolve(&abort_with(DATA, 0x31, VA_BASE | RAM_START, 0));
    assert!(matches!(answer, Resolution::Stop(Stop::Hardware { .. })));
}

/// All entries of the VM go: of this PE at first, of all PEs where that does not help; and it ends.
#[test]
fn a_tlb_conflict_is_invalidated_and_ends() {
    let mut world = World::new();
    world.touch(RAM_START, Need::Write);
    let conflict = abort_with(DATA, 0x30, VA_BASE | RAM_START, 0);
    let (mut here, mut everywhere) = (0, 0);
    for n in 0..64 {
        let from = world.m.log.len();
        assert_eq!(world.resolve(&conflict), Resolution::Retry);
        let done = world.m.maintenance_since(from);
        let local = [
            Op::Dsb(Dsb::NshSt),
            Op::Tlbi(Tlbi::Vmalls12e1),
            Op::Dsb(Dsb::Nsh),
            Op::Isb,
        ];
        if done == local {
            here += 1;
        } else {
            assert!(done.contains(&Op::Tlbi(Tlbi::Vmalls12e1Is)), "{done:?}");
            everywhere += 1;
        }
        assert!(n > 0 || here == 1, "this PE first");
        world.m.enter_guest();
    }
    assert_eq!((here, everywhere), (62, 2));
    assert_eq!(world.vcpu.counters.tlb_conflicts, 64);
    let answer = world.resolve(&conflict);
    assert!(matches!(answer, Resolution::Stop(Stop::TlbConflict { .. })));
    world.m.enter_guest();
    world.end();
}

#[test]
fn an_access_to_nothing_is_an_external_abort_and_maps_nothing() {
    for (class, iss, esr) in [
        (DATA, 0x07, 0x9600_0010),
        (DATA, 0x07 | WNR, 0x9600_0050),
        (DATA, 0x07 | WNR | ISV_WORD_X3, 0x9600_0050),
        (FETCH, 0x07, 0x8600_0010),
        (DATA, 0x04, 0x9600_0010),
    ] {
        let mut world = World::new();
        let taken =
            injected(world.resolve(&abort_with(class, iss, VA_BASE | NOTHING | 0x10, NOTHING)));
        assert_eq!((taken.esr, taken.far), (esr, VA_BASE | NOTHING | 0x10));
        assert!(world.m.mapped().is_empty() && world.nothing_leaked());
    }
}

/// DDI 0487 "Address size faults": bits above the guest's PARange are that, at level 0.
#[test]
fn an_address_beyond_the_ipa_size_is_an_address_size_fault() {
    let limit = 1u64 << 32;
    for (ipa, fsc) in [
        (limit, 0x00),
        (limit + 0x5000, 0x00),
        (0xf_ffff_ffff_f000, 0x00),
        (limit - 0x1000, 0x10),
    ] {
        for (class, iss) in [
            (DATA, 0x04),
            (DATA, 0x04 | WNR | ISV_WORD_X3),
            (FETCH, 0x04),
            (DATA, 0x04 | CM | WNR),
        ] {
            let mut world = World::new();
            let answer = world.resolve(&abort_with(class, iss, 0x7000, ipa));
            if fsc == 0x10 && iss & CM != 0 {
                assert_eq!(answer, Resolution::Skip);
                continue;
            }
            let taken = injected(answer);
            assert_eq!(taken.esr & 0x3f, fsc, "IPA {ipa:#x}");
            assert_eq!(taken.esr >> 26, if class == FETCH { 0x21 } else { 0x25 });
        }
    }
}

#[test]
fn ram_ends_where_its_slot_ends() {
    let mut world = World::new();
    assert_eq!(world.touch(RAM_START + RAM_SIZE - 1, Need::Write), 1);
    for outside in [RAM_START - 1, RAM_START + RAM_SIZE] {
        assert!(matches!(
            world.resolve(&abort(outside, Need::Read, 0x07)),
            Resolution::Inject(_)
        ));
    }
}

#[test]
fn cache_maintenance_of_nothing_is_stepped_over_and_of_ram_maps_it() {
    for place in [NOTHING, DEVICE] {
        let mut world = World::new();
        let answer = world.resolve(&abort_with(DATA, 0x07 | CM | WNR, VA_BASE | place, place));
        assert_eq!(answer, Resolution::Skip);
        assert_eq!(world.vcpu.counters.skipped, 1);
        // ISV = 1 with CM is not to be had from a CPU, and would be no load or store either.
        let odd = abort_with(DATA, 0x07 | CM | WNR | ISV_WORD_X3, VA_BASE | place, place);
        assert_eq!(world.resolve(&odd), Resolution::Skip);
    }
    let mut world = World::new();
    let abort = abort_with(DATA, 0x07 | CM | WNR, VA_BASE | RAM_START, RAM_START);
    assert_eq!(world.resolve(&abort), Resolution::Retry);
    assert_eq!(
        world.m.translate(RAM_START).unwrap().1,
        [true, false, false],
        "it needs to read"
    );
    let abort = abort_with(DATA, 0x0f | CM | WNR, VA_BASE | RAM_START, RAM_START);
    assert_eq!(world.resolve(&abort), Resolution::Retry);
    assert_eq!(
        world.m.translate(RAM_START).unwrap().1,
        [true, true, false],
        "DC IVAC needs to write"
    );
}

fn device_access(iss: u64, offset: u64) -> Resolution {
    let mut world = World::new();
    // What it was done with, zeroes, is no load or store.
    world.touch(PC, Need::Execute);
    world.resolve(&abort_with(
        DATA,
        0x07 | iss,
        VA_BASE | DEVICE | offset,
        DEVICE,
    ))
}

#[test]
fn a_device_gets_offset_direction_and_transfer() {
    for (sas, width) in [Width::Byte, Width::Half, Width::Word, Width::Double]
        .into_iter()
        .enumerate()
    {
        for is_write in [false, true] {
            let iss = 1 << 24
                | (sas as u64) << 22
                | 1 << 21
                | 17 << 16
                | 1 << 15
                | 1 << 14
                | u64::from(is_write) << 6;
            let transfer = Transfer {
                width,
                sign_extend: true,
                register: 17,
                is_64_bit: true,
                is_ordered: true,
            };
            let expected = Mmio {
                device: 2,
                offset: 0x18,
                is_write,
                transfer,
            };
            assert_eq!(device_access(iss, 0x18), Resolution::Mmio(expected));
        }
    }
}

#[test]
fn a_device_access_that_cannot_be_told_is_injected_and_never_guessed() {
    for (name, iss, offset) in [
        ("SIMD, exclusive, atomic: ISV = 0", 0, 0x10),
        ("a word at 2 modulo 4", ISV_WORD_X3, 0x12),
        ("a doubleword at 4 modulo 8", 1 << 24 | 3 << 22, 0x14),
        (
            "a halfword over the end of the page",
            1 << 24 | 1 << 22,
            0xfff,
        ),
        (
            "eight registers of LD64B: LST = 2",
            ISV_WORD_X3 | 2 << 11,
            0x10,
        ),
    ] {
        let taken = injected(device_access(iss, offset));
        assert_eq!(taken.esr, 0x9600_0010, "{name}");
        assert_eq!(taken.far, VA_BASE | DEVICE | offset);
    }
    let fetch = World::new().resolve(&abort_with(FETCH, 0x07, VA_BASE | DEVICE, DEVICE));
    assert_eq!(injected(fetch).esr, 0x8600_0010);
}

/// An access that begins in RAM and ends in the device reports the device's first byte, with the width of the whole.
#[test]
fn an_access_that_crosses_into_a_device_is_injected_at_the_end_of_a_small_slot_too() {
    let byte_at_the_end = device_access(1 << 24, 0xfff);
    assert!(matches!(
        byte_at_the_end,
        Resolution::Mmio(Mmio { offset: 0xfff, .. })
    ));
    let double_at_the_end = device_access(1 << 24 | 3 << 22, 0xff8);
    assert!(matches!(
        double_at_the_end,
        Resolution::Mmio(Mmio { offset: 0xff8, .. })
    ));
}

#[test]
fn a_window_is_mapped_page_by_page_for_data_only() {
    let mut world = World::new();
    for page in [0, 0x1000] {
        assert_eq!(world.touch(WINDOW + page, Need::Write), 1);
        let expected = Some((Pa::new(WINDOW_PA + page), [true, true, false]));
        assert_eq!(world.m.translate(WINDOW + page), expected);
    }
    assert_eq!(world.vcpu.counters.windows, 2);
    assert_eq!(
        world.shared.stage2.page_count(),
        0,
        "the pool gave nothing but a table"
    );
    let fetch = world.resolve(&abort_with(FETCH, 0x07, VA_BASE | WINDOW, WINDOW));
    assert_eq!(injected(fetch).esr, 0x8600_0010);
    world.end();
}

/// A fault on a window page that is there comes from a stale entry as well; returning to it would be a silent loop.
#[test]
fn a_fault_on_a_mapped_window_drops_the_stale_entry_and_is_watched() {
    let mut world = World::new();
    world.touch(WINDOW, Need::Read);
    let from = world.m.log.len();
    assert_eq!(
        world.resolve(&abort(WINDOW, Need::Read, 0x07)),
        Resolution::Retry
    );
    assert!(
        world
            .m
            .maintenance_since(from)
            .contains(&Op::Tlbi(Tlbi::Vmalle1))
    );
    assert_eq!(world.vcpu.counters.sufficient, 1);
    let stopped = (0..100).any(|_| {
        matches!(
            world.resolve(&abort(WINDOW, Need::Read, 0x07)),
            Resolution::Stop(_)
        )
    });
    assert!(stopped);
}

#[test]
fn a_window_page_is_never_executable_whatever_is_asked() {
    let mut world = World::new();
    world.touch(WINDOW, Need::Write);
    let answer = world.resolve(&abort(WINDOW, Need::Execute, 0x0f));
    assert!(matches!(answer, Resolution::Inject(_)));
    assert_eq!(world.m.translate(WINDOW).unwrap().1, [true, true, false]);
    assert_eq!(world.m.vttbr(), world.shared.stage2.vttbr());
}
