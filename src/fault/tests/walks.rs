//! The guest's own tables lie in nothing: its abort names the level of its own walk, not of ours.

use super::inject::take;
use super::world::{DEVICE, RAM_START, WINDOW, World};
use crate::exit::Need;
use crate::fault::{Resolution, Stop};
use crate::machine::El1;
use crate::machine::Tlbi;
use crate::machine::recorder::{Op, abort_with};

const NOTHING: u64 = 0x1000_0000;
const S1PTW: u64 = 1 << 7;

/// A granule: log2 of its size, TG0, TG1, and which VA bits index which level (from the Arm ARM's figures).
struct Granule {
    shift: u32,
    tg0: u64,
    tg1: u64,
    /// Level, lowest VA bit of its index, bits of a full table.
    levels: &'static [(u64, u32, u32)],
    /// Input sizes in bits, with the level that the walk starts at.
    sizes: &'static [(u64, u64)],
}

const GRANULES: [Granule; 3] = [
    Granule {
        shift: 12,
        tg0: 0b00,
        tg1: 0b10,
        levels: &[(0, 39, 9), (1, 30, 9), (2, 21, 9), (3, 12, 9)],
        sizes: &[(48, 0), (40, 0), (39, 1), (31, 1), (30, 2), (25, 2)],
    },
    Granule {
        shift: 14,
        tg0: 0b10,
        tg1: 0b01,
        levels: &[(0, 47, 1), (1, 36, 11), (2, 25, 11), (3, 14, 11)],
        sizes: &[(48, 0), (47, 1), (36, 2), (25, 3)],
    },
    Granule {
        shift: 16,
        tg0: 0b01,
        tg1: 0b11,
        levels: &[(1, 42, 6), (2, 29, 13), (3, 16, 13)],
        sizes: &[(48, 1), (43, 1), (42, 2), (29, 3)],
    },
];

const VA: u64 = 0x0000_5a5a_a5a5_5a58;

fn va_of(bits: u64, is_upper: bool) -> u64 {
    let low = VA & ((1 << bits) - 1);
    if is_upper {
        !((1 << bits) - 1) | low
    } else {
        low
    }
}

fn tcr(granule: &Granule, bits: u64, is_upper: bool) -> u64 {
    let size = 64 - bits;
    if is_upper {
        // The other half is of another shape.
        size << 16 | granule.tg1 << 30 | 33
    } else {
        size | granule.tg0 << 14 | 33 << 16 | 0b10 << 30
    }
}

/// Builds a walk that meets a table in nothing at level `target`; answers the IPA of the descriptor it wants there.
fn build(
    world: &mut World,
    granule: &Granule,
    bits: u64,
    start: u64,
    target: u64,
    is_upper: bool,
    big: bool,
) -> u64 {
    let va = va_of(bits, is_upper);
    let place = |level: u64| {
        if level == target {
            NOTHING
        } else {
            RAM_START + (level + 1) * 0x10_0000
        }
    };
    let ttbr = place(start) | 0x7b << 48 | 1;
    world.m.el1[El1::Tcr as usize] = tcr(granule, bits, is_upper);
    world.m.el1[El1::Sctlr as usize] = u64::from(big) << 25 | 1;
    let (mine, other) = if is_upper {
        (El1::Ttbr1, El1::Ttbr0)
    } else {
        (El1::Ttbr0, El1::Ttbr1)
    };
    world.m.el1[mine as usize] = ttbr;
    world.m.el1[other as usize] = RAM_START + 0x200_0000;
    for (level, low, width) in granule.levels.iter().filter(|(level, ..)| *level >= start) {
        let top = if *level == start {
            bits as u32
        } else {
            low + width
        };
        let index = va >> low & ((1 << (top - low)) - 1);
        let at = place(*level) + index * 8;
        if *level == target {
            return at;
        }
        let descriptor = place(level + 1) | 0b11 | 1 << 63 | 1 << 59;
        world.touch(at, Need::Write);
        let bytes = if big {
            descriptor.to_be_bytes()
        } else {
            descriptor.to_le_bytes()
        };
        world.m.guest_writes(at, &bytes);
    }
    unreachable!("the target is one of the levels")
}

#[test]
fn an_abort_on_a_walk_names_the_guests_level_for_every_granule_and_size() {
    for granule in &GRANULES {
        for (bits, start) in granule.sizes {
            for target in *start..=3 {
                for (is_upper, big, class) in [
                    (false, false, 0x24),
                    (true, false, 0x24),
                    (false, true, 0x20),
                ] {
                    let mut world = World::new();
                    let at = build(&mut world, granule, *bits, *start, target, is_upper, big);
                    let va = va_of(*bits, is_upper);
                    let pages = world.m.mapped();
                    // Stage 2 says level 3 of its own.
                    let answer = world.resolve(&abort_with(class, 0x07 | S1PTW, va, at & !0xfff));
                    let Resolution::Inject(exception) = answer else {
                        panic!(
                            "{} bits of {}: level {target}: {answer:?}",
                            bits, granule.shift
                        )
                    };
                    let taken = take(exception, 0x3c5, 0);
                    let expected = (class + 1) << 26 | 1 << 25 | (0x14 + target);
                    assert_eq!(
                        taken.esr, expected,
                        "{} bits of granule {}",
                        bits, granule.shift
                    );
                    assert_eq!(taken.far, va);
                    assert_eq!(world.m.mapped(), pages, "looking maps nothing");
                }
            }
        }
    }
}

/// A table with more address bits than there are: the level of the descriptor that points to it, 0 for TTBR (DDI 0487 "Address
/// size faults").
#[test]
fn a_table_out_of_reach_is_the_fault_of_the_descriptor_that_points_to_it() {
    let granule = &GRANULES[0];
    for (bits, start) in granule.sizes {
        for target in *start..=3 {
            let mut world = World::new();
            let at = build(&mut world, granule, *bits, *start, target, false, false);
            let beyond = 1 << 40 | at & 0xfff;
            // The descriptor, or TTBR, that leads to the table says another one.
            let wrong = 1 << 40 | 0b11;
            if target == *start {
                world.m.el1[El1::Ttbr0 as usize] = wrong & !0b11;
            } else {
                let above = place_of(granule, *bits, *start, target - 1);
                world.m.guest_writes(above, &u64::to_le_bytes(wrong));
            }
            let va = va_of(*bits, false);
            let answer = world.resolve(&abort_with(0x24, 0x04 | S1PTW, va, beyond & !0xfff));
            let Resolution::Inject(exception) = answer else {
                panic!("{bits} bits, level {target}: {answer:?}")
            };
            let level = if target == *start { 0 } else { target - 1 };
            assert_eq!(take(exception, 0x3c5, 0).esr & 0x3f, level, "{bits} bits");
        }
    }
}

/// Where `build` has the descriptor of this level.
fn place_of(granule: &Granule, bits: u64, start: u64, level: u64) -> u64 {
    let (_, low, width) = granule.levels[level as usize];
    let top = if level == start {
        bits as u32
    } else {
        low + width
    };
    let index = va_of(bits, false) >> low & ((1 << (top - low)) - 1);
    RAM_START + (level + 1) * 0x10_0000 + index * 8
}

/// `LDP W3, W4, [X5]`
const LDP: u32 = 0x2940_10a3;

/// An instruction is found through tables of every shape, blocks and pages alike, as the figures of the manual have them.
#[test]
fn code_is_found_through_every_granule_size_and_block() {
    let mut found = 0;
    for granule in &GRANULES {
        for (bits, start) in granule.sizes {
            // Which levels may have blocks.
            let blocks: &[u64] = if granule.shift == 12 { &[1, 2] } else { &[2] };
            for last in (*start..=3).filter(|level| *level == 3 || blocks.contains(level)) {
                for (is_upper, big) in [(false, false), (true, false), (true, true)] {
                    let mut world = World::new();
                    // The descriptor that `build` leaves to us, in RAM now and a leaf.
                    let at = build(&mut world, granule, *bits, *start, last, is_upper, big);
                    let table = RAM_START + 0x300_0000;
                    relocate(
                        &mut world, granule, *bits, *start, last, is_upper, big, table,
                    );
                    let low = if last == 3 {
                        granule.shift
                    } else {
                        granule
                            .levels
                            .iter()
                            .find(|level| level.0 == last)
                            .unwrap()
                            .1
                    };
                    let va = va_of(*bits, is_upper) & !3;
                    let below = va & ((1 << low) - 1);
                    let block = RAM_START >> low << low;
                    let ipa = block | below;
                    if !(RAM_START..RAM_START + 0x200_0000).contains(&ipa) {
                        continue;
                    }
                    let leaf = block | 0x401 | u64::from(last == 3) << 1;
                    let bytes = if big {
                        leaf.to_be_bytes()
                    } else {
                        leaf.to_le_bytes()
                    };
                    let place = table + (at - NOTHING);
                    world.touch(place, Need::Write);
                    world.m.guest_writes(place, &bytes);
                    world.touch(ipa, Need::Execute);
                    world.m.guest_writes(ipa, &LDP.to_le_bytes());
                    world.vcpu.registers.pc = va;
                    world.vcpu.registers.x[5] = DEVICE + 8;
                    let answer = world.resolve(&abort_with(0x24, 0x07, DEVICE + 8, DEVICE));
                    assert!(
                        matches!(answer, Resolution::Emulate(_)),
                        "{bits} bits of granule {}, leaf at level {last}: {answer:?}",
                        granule.shift
                    );
                    found += 1;
                }
            }
        }
    }
    assert!(found > 40, "{found} shapes");
}

/// Points the walk that `build` made at the table `table` instead of into nothing.
#[allow(clippy::too_many_arguments, reason = "the shape of a walk")]
fn relocate(
    world: &mut World,
    granule: &Granule,
    bits: u64,
    start: u64,
    target: u64,
    is_upper: bool,
    big: bool,
    table: u64,
) {
    let ttbr = if is_upper { El1::Ttbr1 } else { El1::Ttbr0 };
    if target == start {
        world.m.el1[ttbr as usize] = table;
        return;
    }
    let above = target - 1;
    let (_, low, width) = *granule
        .levels
        .iter()
        .find(|level| level.0 == above)
        .unwrap();
    let top = if above == start {
        bits as u32
    } else {
        low + width
    };
    let index = va_of(bits, is_upper) >> low & ((1 << (top - low)) - 1);
    let descriptor = table | 0b11;
    let bytes = if big {
        descriptor.to_be_bytes()
    } else {
        descriptor.to_le_bytes()
    };
    let at = RAM_START + (above + 1) * 0x10_0000 + index * 8;
    world.m.guest_writes(at, &bytes);
}

/// Tables in a device or in a hardware window are in nothing a walk may read: neither emulated nor mapped.
#[test]
fn a_walk_into_a_device_or_a_window_is_aborted() {
    for place in [DEVICE, WINDOW] {
        let mut world = World::new();
        let va = va_of(39, false);
        world.m.el1[El1::Tcr as usize] = tcr(&GRANULES[0], 39, false);
        world.m.el1[El1::Ttbr0 as usize] = place;
        let answer = world.resolve(&abort_with(0x24, 0x07 | S1PTW, va, place));
        let Resolution::Inject(exception) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(take(exception, 0x3c5, 0).esr, 0x9600_0015);
        assert!(world.m.mapped().is_empty());
    }
}

#[test]
fn a_write_that_walked_into_nothing_says_write() {
    let mut world = World::new();
    let at = build(&mut world, &GRANULES[0], 39, 1, 2, false, false);
    let answer = world.resolve(&abort_with(
        0x24,
        0x07 | S1PTW | 1 << 6,
        va_of(39, false),
        at & !0xfff,
    ));
    let Resolution::Inject(exception) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(take(exception, 0x3c5, 0).esr, 0x9600_0056);
}

/// A guest's AT reports CM besides S1PTW: it is aborted like any walk, not stepped over like maintenance.
#[test]
fn a_walk_for_at_is_no_cache_maintenance() {
    let mut world = World::new();
    let at = build(&mut world, &GRANULES[0], 39, 1, 1, false, false);
    let answer = world.resolve(&abort_with(
        0x24,
        0x07 | S1PTW | 1 << 8 | 1 << 6,
        va_of(39, false),
        at & !0xfff,
    ));
    assert!(matches!(answer, Resolution::Inject(_)), "{answer:?}");
}

/// The first thing a beginner does: TCR_EL1 and TTBR0_EL1 still 0, SCTLR_EL1.M = 1. Some CPUs take T0SZ = 0 for 16.
#[test]
fn a_size_out_of_range_is_clamped_as_the_cpu_that_walks_with_it_does() {
    let mut world = World::new();
    world.m.el1[El1::Sctlr as usize] = 1;
    let answer = world.resolve(&abort_with(0x20, 0x07 | S1PTW, 0x4008_0000, 0));
    let Resolution::Inject(exception) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(take(exception, 0x3c5, 0).esr & 0x3f, 0x14);
}

/// TTBR bits below the table's size are RES0 and the guest's to set: no descriptor is read over the end of a page.
#[test]
fn a_ragged_table_base_reads_no_byte_beyond_the_guests_page() {
    for low in [2, 4, 6, 0xffe] {
        let mut world = World::new();
        world.touch(RAM_START, Need::Write);
        world.m.el1[El1::Tcr as usize] = tcr(&GRANULES[0], 39, false);
        world.m.el1[El1::Ttbr0 as usize] = RAM_START | low;
        // The last descriptor of the table.
        let va = 0x1ff << 30;
        world
            .m
            .guest_writes(RAM_START + 0xff8, &(NOTHING | 3).to_le_bytes());
        let answer = world.resolve(&abort_with(0x24, 0x07 | S1PTW, va, NOTHING));
        let Resolution::Inject(exception) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(take(exception, 0x3c5, 0).esr, 0x9600_0016);
    }
}

/// A guest may point its tables at a window into hardware: that is not looked into (the machine panics if it is).
#[test]
fn tables_in_a_hardware_window_are_not_read() {
    let mut world = World::new();
    world.touch(WINDOW, Need::Write);
    world.m.el1[El1::Tcr as usize] = tcr(&GRANULES[0], 39, false);
    world.m.el1[El1::Ttbr0 as usize] = WINDOW;
    let answer = world.resolve(&abort_with(0x24, 0x07 | S1PTW, 0x1000, NOTHING));
    assert_eq!(answer, Resolution::Retry);
}

/// The guest's tables changed meanwhile: try again, by the tables as they are now, and not for ever.
#[test]
fn a_walk_that_cannot_be_found_again_is_tried_again_and_ends() {
    let mut world = World::new();
    build(&mut world, &GRANULES[0], 39, 1, 3, false, false);
    let fault = abort_with(0x24, 0x07 | S1PTW, va_of(39, false), NOTHING + 0x77_0000);
    for n in 0..64 {
        let from = world.m.log.len();
        assert_eq!(world.resolve(&fault), Resolution::Retry, "time {n}");
        assert!(
            world
                .m
                .maintenance_since(from)
                .contains(&Op::Tlbi(Tlbi::Vmalle1))
        );
        world.m.enter_guest();
    }
    assert!(
        matches!(
            world.resolve(&fault),
            Resolution::Stop(Stop::NoProgress { .. })
        ),
        "a silent loop"
    );
}

#[test]
fn tables_anywhere_and_of_any_shape_are_looked_at_without_a_panic() {
    use proptest::prelude::*;
    let shape = (
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    );
    proptest!(ProptestConfig::with_cases(256), |((tcr, ttbr0, ttbr1, sctlr, va, hpfar) in shape)| {
        let mut world = World::new();
        world.touch(RAM_START, Need::Write);
        world.m.guest_writes(RAM_START, &[0xff; 4096]);
        let near = RAM_START | ttbr0 & 0x7ff;
        for (register, value) in [(El1::Tcr, tcr), (El1::Ttbr0, near), (El1::Ttbr1, ttbr1), (El1::Sctlr, sctlr)] {
            world.m.el1[register as usize] = value;
        }
        let _ = world.resolve(&abort_with(0x24, 0x07 | S1PTW, va, hpfar & 0x3fff_f000));
    });
}

/// Tables of the guest in RAM that has not been touched are mapped like any page that is read.
#[test]
fn a_walk_reads_its_tables_and_its_updates_write_them() {
    let mut world = World::new();
    let table = RAM_START + 0x8000;
    for class in [0x20, 0x24] {
        let walk = abort_with(class, 0x07 | S1PTW | 1 << 6, VA, table);
        assert_eq!(world.resolve(&walk), Resolution::Retry);
        assert_eq!(
            world.m.translate(table).unwrap().1,
            [true, false, false],
            "a walk reads"
        );
    }
    let update = abort_with(0x20, 0x0f | S1PTW, VA, table);
    assert_eq!(world.resolve(&update), Resolution::Retry);
    assert_eq!(
        world.m.translate(table).unwrap().1,
        [true, true, false],
        "the access flag is written"
    );
}
