//! Interrupts from their cause to the guest and back.

use super::guest::Guest;
use super::{read, running, write};
use crate::device::Width;
use crate::vgic::{Group, IntId, State, Version, Vgic};

const BOTH: [Version; 2] = [Version::V2, Version::V3];
const SPI: IntId = IntId::spi(1);
const TIMER: IntId = IntId::ppi(11);

#[test]
fn a_level_is_delivered_and_gone_when_the_line_falls() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.turn(&mut vgic);
        vgic.set_line(SPI, true);
        assert!(vgic.is_pending(0));
        guest.turn(&mut vgic);
        assert_eq!(
            guest.acknowledge().map(|register| register.vintid),
            Some(SPI)
        );
        guest.exit(&mut vgic);
        vgic.set_line(SPI, false);
        guest.enter(&mut vgic);
        guest.end(SPI);
        assert!(
            !guest.wants_maintenance(),
            "the line was low, so the end needs no exit"
        );
        guest.turn(&mut vgic);
        assert_eq!(guest.acknowledge(), None);
        assert!(!vgic.is_pending(0));
    }
}

#[test]
fn a_level_that_stays_is_delivered_again() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        vgic.set_line(SPI, true);
        for _ in 0..3 {
            guest.turn(&mut vgic);
            assert_eq!(
                guest.acknowledge().map(|register| register.vintid),
                Some(SPI)
            );
            guest.end(SPI);
            assert!(
                guest.wants_maintenance(),
                "nobody else would look at the line"
            );
        }
    }
}

#[test]
fn a_level_that_falls_before_it_is_seen_is_withdrawn() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        vgic.set_line(SPI, true);
        guest.turn(&mut vgic);
        guest.exit(&mut vgic);
        vgic.set_line(SPI, false);
        guest.enter(&mut vgic);
        assert_eq!(guest.acknowledge(), None);
    }
}

#[test]
fn the_timer_is_linked_and_the_guest_ends_it_alone() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        for _ in 0..3 {
            guest.physical_interrupt(&mut vgic, TIMER);
            let register = guest.acknowledge().expect("pending");
            assert_eq!((register.vintid, register.pintid), (TIMER, Some(TIMER)));
            guest.end(TIMER);
            assert!(
                guest.physical.is_empty(),
                "the guest's end is the physical one"
            );
            assert!(!guest.wants_maintenance());
        }
    }
}

#[test]
fn a_timer_that_falls_before_it_is_seen_is_withdrawn_and_deactivated() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.physical_interrupt(&mut vgic, TIMER);
        guest.exit(&mut vgic);
        assert_eq!(vgic.raised(0), 1 << TIMER.raw());
        vgic.set_private_line(0, TIMER, false);
        guest.enter(&mut vgic);
        assert!(guest.physical.is_empty());
        assert_eq!(guest.acknowledge(), None);
        guest.physical_interrupt(&mut vgic, TIMER);
        assert_eq!(
            guest.acknowledge().map(|register| register.vintid),
            Some(TIMER)
        );
    }
}

#[test]
fn nothing_is_touched_when_nothing_changed() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        vgic.set_line(SPI, true);
        guest.turn(&mut vgic);
        let writes = guest.writes;
        for _ in 0..3 {
            guest.turn(&mut vgic);
            read(&vgic, 0, 0x200);
            vgic.set_line(SPI, true);
        }
        guest.acknowledge();
        guest.turn(&mut vgic);
        assert_eq!(guest.writes, writes);
    }
}

#[test]
fn an_sgi_reaches_its_targets_and_names_its_source() {
    let mut vgic = running(Version::V2, 3);
    let mut guest = Guest::new(2, 4);
    guest.turn(&mut vgic);
    // GICD_SGIR: list filter, vCPU 2, SGI 5; from vCPUs 0 and 1.
    write(&mut vgic, 0, 0xf00, 0x0004_0005);
    write(&mut vgic, 1, 0xf00, 0x0004_0005);
    assert_eq!(vgic.vcpus_to_plan() & 4, 4, "vCPU 2 must leave its guest");
    let mut sources = Vec::new();
    guest.turn(&mut vgic);
    while let Some(register) = guest.acknowledge() {
        assert_eq!(register.vintid, IntId::sgi(5));
        sources.push(register.source);
        guest.end(register.vintid);
        guest.turn(&mut vgic);
    }
    assert_eq!(sources, [0, 1]);
}

#[test]
fn an_sgi_of_a_gicv3_reaches_who_is_listed() {
    let mut vgic = running(Version::V3, 3);
    let mut guests: Vec<Guest> = (0..3).map(|vcpu| Guest::new(vcpu, 4)).collect();
    // ICC_SGI1R_EL1: INTID 7, target list {0, 2}.
    vgic.write_sgi1r(1, 7 << 24 | 0b101);
    let mut reached = Vec::new();
    for guest in &mut guests {
        guest.turn(&mut vgic);
        reached.push(guest.acknowledge().map(|register| register.vintid));
    }
    assert_eq!(reached, [Some(IntId::sgi(7)), None, Some(IntId::sgi(7))]);
}

#[test]
fn more_interrupts_than_list_registers_all_arrive_in_priority_order() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        for spi in 0..20 {
            // Priorities fall with the number, so the last is the most urgent.
            vgic.write_distributor(
                0,
                0x420 + u64::from(spi),
                Width::Byte,
                u64::from(0xf0 - 8 * spi),
            );
            vgic.set_line(IntId::spi(spi), true);
        }
        let mut seen = Vec::new();
        guest.turn(&mut vgic);
        while let Some(register) = guest.acknowledge() {
            seen.push(register.vintid);
            guest.exit(&mut vgic);
            vgic.set_line(register.vintid, false);
            guest.enter(&mut vgic);
            guest.end(register.vintid);
            if guest.wants_maintenance() {
                guest.turn(&mut vgic);
            }
        }
        let expected: Vec<_> = (0..20).rev().map(IntId::spi).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_disabled_interrupt_stays_pending_and_comes_when_enabled() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        vgic.set_line(SPI, true);
        guest.turn(&mut vgic);
        guest.exit(&mut vgic);
        write(&mut vgic, 0, 0x184, 1 << 1);
        guest.enter(&mut vgic);
        assert_eq!(guest.registers[0].state, State::Invalid);
        assert_eq!(read(&vgic, 0, 0x204), 1 << 1);
        guest.exit(&mut vgic);
        write(&mut vgic, 0, 0x104, 1 << 1);
        guest.enter(&mut vgic);
        assert_eq!(
            guest.acknowledge().map(|register| register.vintid),
            Some(SPI)
        );
    }
}

#[test]
fn a_timer_being_handled_stays_linked_when_other_interrupts_come() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.physical_interrupt(&mut vgic, TIMER);
        guest.acknowledge();
        guest.exit(&mut vgic);
        vgic.set_line(SPI, true);
        guest.enter(&mut vgic);
        guest.end(TIMER);
        assert!(guest.physical.is_empty());
        assert!(
            !guest.wants_maintenance(),
            "a timer tick costs no maintenance"
        );
    }
}

/// GICD_ISPENDR0 and friends are in the distributor or in the redistributor.
fn write_private(vgic: &mut Vgic, offset: u64, value: u64) {
    vgic.write_redistributor(0x1_0000 + offset, Width::Word, value);
    write(vgic, 0, offset, value);
}

#[test]
fn a_timer_made_pending_by_software_while_handled_comes_again() {
    for (version, is_enabled) in [
        (Version::V2, true),
        (Version::V2, false),
        (Version::V3, true),
        (Version::V3, false),
    ] {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.physical_interrupt(&mut vgic, TIMER);
        guest.acknowledge();
        guest.exit(&mut vgic);
        write_private(&mut vgic, 0x200, 1 << TIMER.raw());
        if !is_enabled {
            write_private(&mut vgic, 0x180, 1 << TIMER.raw());
        }
        guest.enter(&mut vgic);
        guest.end(TIMER);
        assert!(
            guest.wants_maintenance(),
            "EL2 must deactivate the physical timer, or it never fires again"
        );
        guest.turn(&mut vgic);
        assert!(guest.physical.is_empty());
        let again = guest
            .acknowledge()
            .map(|register| (register.vintid, register.pintid));
        assert_eq!(again, is_enabled.then_some((TIMER, None)));
    }
}

#[test]
fn a_timer_that_fires_while_software_has_it_active_waits() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.exit(&mut vgic);
        write_private(&mut vgic, 0x200, 1 << TIMER.raw());
        guest.enter(&mut vgic);
        assert_eq!(
            guest.acknowledge().map(|register| register.pintid),
            Some(None)
        );
        guest.physical_interrupt(&mut vgic, TIMER);
        guest.end(TIMER);
        assert!(
            !guest.physical.is_empty(),
            "the physical interrupt has not been delivered yet"
        );
        guest.turn(&mut vgic);
        assert_eq!(
            guest.acknowledge().map(|register| register.pintid),
            Some(Some(TIMER))
        );
        guest.end(TIMER);
        assert!(guest.physical.is_empty());
    }
}

#[test]
fn a_timer_deactivated_by_register_is_deactivated_physically() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.physical_interrupt(&mut vgic, TIMER);
        guest.acknowledge();
        guest.exit(&mut vgic);
        write_private(&mut vgic, 0x380, 1 << TIMER.raw());
        guest.enter(&mut vgic);
        assert!(guest.physical.is_empty());
        assert_eq!(guest.registers[0].state, State::Invalid);
    }
}

#[test]
fn a_vcpu_that_leaves_its_cpu_leaves_no_link_behind() {
    for version in BOTH {
        for is_handling in [false, true] {
            let mut vgic = running(version, 1);
            let mut guest = Guest::new(0, 4);
            guest.physical_interrupt(&mut vgic, TIMER);
            if is_handling {
                guest.acknowledge();
            }
            guest.exit(&mut vgic);
            vgic.unlink(0);
            guest.enter(&mut vgic);
            assert!(guest.physical.is_empty());
            assert_eq!(vgic.raised(0), 0);
            if is_handling {
                assert_eq!(
                    guest.registers[0].state,
                    State::Active,
                    "the guest is still in its handler"
                );
                guest.end(TIMER);
            }
            guest.turn(&mut vgic);
            assert_eq!(guest.acknowledge(), None);
        }
    }
}

/// In its handler the guest sets the timer to later without an exit; it must not be given the interrupt again.
#[test]
fn a_timer_whose_vcpu_moves_while_it_is_handled_comes_once() {
    for version in BOTH {
        let mut vgic = running(version, 1).with_unseen_lines(&[TIMER]);
        let mut guest = Guest::new(0, 4);
        guest.physical_interrupt(&mut vgic, TIMER);
        guest.acknowledge();
        guest.leave(&mut vgic);
        guest.enter(&mut vgic);
        assert_eq!(guest.registers[0].state, State::Active);
        guest.timer_asserted = false;
        guest.end(TIMER);
        assert_eq!(guest.acknowledge(), None);
        assert!(guest.wants_maintenance(), "EL2 must look at the line");
        guest.turn(&mut vgic);
        assert_eq!(guest.acknowledge(), None);
    }
}

#[test]
fn a_timer_that_expires_while_its_vcpu_is_nowhere_is_a_reason_to_wake() {
    for version in BOTH {
        let mut vgic = running(version, 2).with_unseen_lines(&[TIMER]);
        let mut guest = Guest::new(1, 4);
        guest.timer_asserted = false;
        guest.turn(&mut vgic);
        guest.leave(&mut vgic);
        vgic.take_news();
        assert!(!vgic.is_pending(1));
        vgic.set_private_line(1, TIMER, true);
        assert!(vgic.is_pending(1));
        assert_eq!(vgic.take_news(), 0b10);
        guest.timer_asserted = true;
        guest.physical_interrupt(&mut vgic, TIMER);
        let register = guest.acknowledge().expect("pending");
        assert_eq!((register.vintid, register.pintid), (TIMER, Some(TIMER)));
    }
}

#[test]
fn an_spi_that_another_vcpu_acknowledged_can_be_deactivated() {
    for version in BOTH {
        let mut vgic = running(version, 2);
        let mut guest = Guest::new(0, 4);
        guest.splits_end = true;
        vgic.set_line(SPI, true);
        guest.turn(&mut vgic);
        assert!(guest.plan.traps_deactivation, "and so on every vCPU");
        guest.acknowledge();
        guest.end(SPI);
        vgic.set_line(SPI, false);
        let access = vgic.deactivation(1).unwrap();
        let value = u64::from(SPI.raw());
        assert_eq!(vgic.depends_on(access, Some(value)), 0b01);
        guest.exit(&mut vgic);
        vgic.write(access, value);
        assert!(vgic.needs_plan(0), "its list register shows it active");
        guest.turn(&mut vgic);
        assert_eq!(guest.registers[0].state, State::Invalid);
        assert_eq!(read(&vgic, 1, 0x304), 0);
    }
}

/// Its old vCPU's list register stays as it was until that vCPU plans again.
#[test]
fn an_interrupt_that_went_elsewhere_is_not_taken_back_from_there() {
    for version in BOTH {
        let mut vgic = running(version, 2);
        let mut guests = [Guest::new(0, 4), Guest::new(1, 4)];
        write(&mut vgic, 0, 0xc08, 0b10 << 2);
        vgic.set_line(SPI, true);
        guests[0].turn(&mut vgic);
        guests[0].acknowledge();
        guests[0].end(SPI);
        guests[0].exit(&mut vgic);
        vgic.write_distributor(0, 0x821, Width::Byte, 2);
        vgic.write_distributor(0, 0x6000 + 8 * 33, Width::Double, 1);
        vgic.set_line(SPI, false);
        vgic.set_line(SPI, true);
        guests[1].turn(&mut vgic);
        assert_eq!(
            guests[1].acknowledge().map(|register| register.vintid),
            Some(SPI)
        );
        vgic.set_line(IntId::spi(2), true);
        guests[0].turn(&mut vgic);
        guests[1].end(SPI);
        for guest in &mut guests {
            guest.turn(&mut vgic);
        }
        assert_eq!(guests[1].acknowledge(), None, "it came once");
        assert_eq!(read(&vgic, 0, 0x304), 0, "and is not stuck active");
    }
}

#[test]
fn only_ppis_of_vcpus_that_exist_are_linked() {
    let mut vgic = running(Version::V3, 2);
    for (vcpu, intid) in [
        (2, TIMER),
        (0, IntId::sgi(3)),
        (0, SPI),
        (0, IntId::new(1020)),
    ] {
        assert!(!vgic.hardware_interrupt(vcpu, intid, TIMER));
    }
    assert_eq!(vgic.vcpus_to_plan() & !0b11, 0);
    assert_eq!(vgic.take_deactivation(0), None);
}

/// SPIs 0 to `count` - 1 nested in each other: each is more urgent than the one before and preempts it.
fn nest(vgic: &mut Vgic, guest: &mut Guest, count: u32) {
    for spi in 0..count {
        vgic.write_distributor(
            0,
            0x420 + u64::from(spi),
            Width::Byte,
            u64::from(0xf0 - 8 * spi),
        );
        guest.exit(vgic);
        write(vgic, 0, 0xc08, 0xaaaa_aaaa);
        vgic.set_line(IntId::spi(spi), true);
        guest.enter(vgic);
        assert_eq!(
            guest.acknowledge().map(|register| register.vintid),
            Some(IntId::spi(spi))
        );
    }
}

#[test]
fn handlers_nested_deeper_than_there_are_list_registers_all_end() {
    for (version, list_registers) in [
        (Version::V2, 4),
        (Version::V3, 4),
        (Version::V3, 2),
        (Version::V3, 15),
    ] {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, list_registers);
        nest(&mut vgic, &mut guest, 16);
        for spi in (0..16).rev() {
            guest.end(IntId::spi(spi));
            if guest.wants_maintenance() {
                guest.turn(&mut vgic);
            }
        }
        assert_eq!(guest.ends_outside, 0, "each was brought back in time");
        guest.turn(&mut vgic);
        assert_eq!(read(&vgic, 0, 0x304), 0, "nothing is stuck active");
    }
}

#[test]
fn ends_outside_are_counted_once_however_often_they_are_folded_in() {
    let mut vgic = running(Version::V3, 1);
    let mut guest = Guest::new(0, 1);
    nest(&mut vgic, &mut guest, 3);
    guest.end(IntId::spi(2));
    guest.end(IntId::spi(1));
    assert!(guest.wants_maintenance());
    for _ in 0..3 {
        guest.exit(&mut vgic);
    }
    assert_eq!(read(&vgic, 0, 0x304), 1, "SPI 0 is still being handled");
}

#[test]
fn with_one_list_register_nested_handlers_still_end() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 1);
        nest(&mut vgic, &mut guest, 5);
        for spi in (0..5).rev() {
            guest.end(IntId::spi(spi));
            if guest.wants_maintenance() {
                guest.turn(&mut vgic);
            }
        }
        guest.turn(&mut vgic);
        assert_eq!(read(&vgic, 0, 0x304), 0);
    }
}

#[test]
fn what_is_being_handled_keeps_its_list_register_among_equals() {
    let mut vgic = running(Version::V3, 1);
    let mut guest = Guest::new(0, 4);
    for spi in [9, 1, 2, 3, 4, 5] {
        guest.exit(&mut vgic);
        vgic.set_line(IntId::spi(spi), true);
        guest.enter(&mut vgic);
        if spi == 9 {
            guest.acknowledge();
        }
    }
    guest.end(IntId::spi(9));
    assert_eq!(guest.ends_outside, 0);
}

#[test]
fn deactivations_in_any_order_find_their_interrupts() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.splits_end = true;
        for spi in 0..8 {
            vgic.set_line(IntId::spi(spi), true);
        }
        guest.turn(&mut vgic);
        for spi in 0..8 {
            assert_eq!(
                guest.acknowledge().map(|register| register.vintid),
                Some(IntId::spi(spi))
            );
            guest.end(IntId::spi(spi));
            guest.exit(&mut vgic);
            vgic.set_line(IntId::spi(spi), false);
            guest.enter(&mut vgic);
        }
        assert!(
            guest.plan.entry_not_present,
            "four of them are left outside, DIR must be trapped"
        );
        for spi in [6, 0, 7, 3, 1, 2, 5, 4] {
            guest.exit(&mut vgic);
            vgic.deactivate(0, IntId::spi(spi));
            guest.enter(&mut vgic);
            assert_eq!(read(&vgic, 0, 0x304) & 1 << spi, 0);
        }
        assert_eq!(guest.used(), 0);
        assert_eq!(guest.plan.hcr(), 1);
    }
}

#[test]
fn an_edge_that_comes_while_its_predecessor_is_handled_is_kept() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        write(&mut vgic, 0, 0xc08, 0b10 << 2);
        vgic.set_line(SPI, true);
        guest.turn(&mut vgic);
        guest.acknowledge();
        guest.exit(&mut vgic);
        vgic.set_line(SPI, false);
        vgic.set_line(SPI, true);
        vgic.set_line(SPI, false);
        guest.enter(&mut vgic);
        guest.end(SPI);
        assert_eq!(
            guest.acknowledge().map(|register| register.vintid),
            Some(SPI)
        );
        guest.end(SPI);
        guest.turn(&mut vgic);
        assert_eq!(guest.acknowledge(), None);
    }
}

#[test]
fn an_edge_from_another_cpu_in_the_moment_of_acknowledgement_is_kept() {
    let mut vgic = running(Version::V3, 2);
    let mut guest = Guest::new(0, 4);
    write(&mut vgic, 0, 0xc08, 0b10 << 2);
    vgic.set_line(SPI, true);
    guest.turn(&mut vgic);
    guest.acknowledge();
    // vCPU 1's exit raises it again; what vCPU 0 just did is not known to the model yet.
    vgic.set_line(SPI, false);
    vgic.set_line(SPI, true);
    assert!(vgic.needs_plan(0), "vCPU 0 is to be kicked");
    guest.turn(&mut vgic);
    guest.end(SPI);
    assert_eq!(
        guest.acknowledge().map(|register| register.vintid),
        Some(SPI)
    );
}

#[test]
fn folding_back_twice_is_folding_back_once() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        vgic.set_line(SPI, true);
        guest.turn(&mut vgic);
        guest.exit(&mut vgic);
        // The guest clears its own pending interrupt's enable; EL2 folds back again before it plans.
        write(&mut vgic, 0, 0x184, 1 << 1);
        guest.exit(&mut vgic);
        guest.exit(&mut vgic);
        guest.enter(&mut vgic);
        assert_eq!(guest.acknowledge(), None);
    }
}

#[test]
fn clearing_the_pending_state_of_a_loaded_interrupt_takes_it_out() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.exit(&mut vgic);
        write(&mut vgic, 0, 0x204, 1 << 1);
        guest.enter(&mut vgic);
        assert_eq!(guest.registers[0].state, State::Pending);
        guest.exit(&mut vgic);
        write(&mut vgic, 0, 0x284, 1 << 1);
        guest.exit(&mut vgic);
        guest.enter(&mut vgic);
        assert_eq!(guest.acknowledge(), None);
        assert_eq!(read(&vgic, 0, 0x204), 0);
    }
}

#[test]
fn an_sgi_from_two_sources_is_ended_by_the_name_it_was_acknowledged_with() {
    let mut vgic = running(Version::V2, 2);
    let mut guest = Guest::new(0, 4);
    write(&mut vgic, 1, 0xf00, 0x0001_0003);
    guest.turn(&mut vgic);
    assert_eq!(guest.acknowledge().map(|register| register.source), Some(1));
    guest.exit(&mut vgic);
    write(&mut vgic, 0, 0xf00, 0x0001_0003);
    guest.enter(&mut vgic);
    let loaded = guest.registers[0];
    assert_eq!(
        (loaded.state, loaded.source),
        (State::Active, 1),
        "GICC_EOIR must match the source"
    );
    guest.end(IntId::sgi(3));
    guest.turn(&mut vgic);
    assert_eq!(guest.acknowledge().map(|register| register.source), Some(0));
}

#[test]
fn one_of_n_picks_a_vcpu_that_is_awake() {
    let mut vgic = running(Version::V3, 3);
    vgic.write_distributor(0, 0x6000 + 8 * 33, Width::Double, 1 << 31);
    vgic.write_redistributor(2 * 0x2_0000 + 0x14, Width::Word, 0);
    vgic.set_line(SPI, true);
    assert_eq!(
        [0, 1, 2].map(|vcpu| vgic.is_pending(vcpu)),
        [false, false, true]
    );
}

#[test]
fn wfi_ends_for_what_could_be_delivered_only() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        assert!(!vgic.is_pending(0));
        write(&mut vgic, 0, 0x184, 1 << 1);
        vgic.set_line(SPI, true);
        assert!(!vgic.is_pending(0), "disabled");
        write(&mut vgic, 0, 0x104, 1 << 1);
        assert!(vgic.is_pending(0));
        assert_eq!(vgic.highest_pending(0), Some(0xa0));
        guest.turn(&mut vgic);
        guest.acknowledge();
        guest.exit(&mut vgic);
        assert!(!vgic.is_pending(0), "it is being handled");
        write(&mut vgic, 0, 0x000, 0);
        vgic.set_line(IntId::spi(2), true);
        assert!(!vgic.is_pending(0), "the distributor is off");
        assert!(!vgic.forwards(0, SPI));
    }
}

#[test]
fn an_interrupt_ended_outside_the_list_registers_comes_before_what_is_less_urgent() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 1);
        vgic.write_distributor(0, 0x421, Width::Byte, 0x80);
        vgic.set_line(SPI, true);
        guest.turn(&mut vgic);
        guest.acknowledge();
        guest.exit(&mut vgic);
        vgic.set_line(IntId::spi(2), true);
        guest.enter(&mut vgic);
        guest.end(SPI);
        assert_eq!(
            guest.ends_outside, 1,
            "the list register went to what is pending"
        );
        guest.turn(&mut vgic);
        assert_eq!(
            guest.acknowledge().map(|register| register.vintid),
            Some(SPI),
            "its line is still asserted"
        );
    }
}

#[test]
fn the_end_of_an_interrupt_leaves_nothing_to_plan() {
    for version in BOTH {
        let mut vgic = running(version, 2);
        let mut guest = Guest::new(0, 4);
        guest.physical_interrupt(&mut vgic, TIMER);
        guest.acknowledge();
        guest.end(TIMER);
        guest.exit(&mut vgic);
        assert!(!vgic.needs_plan(0), "a timer tick costs one plan");
        // Nor is the interrupt still with this vCPU: a new edge goes straight to where it is routed now.
        write(&mut vgic, 0, 0xc08, 0b10 << 2);
        vgic.set_line(SPI, true);
        guest.turn(&mut vgic);
        guest.acknowledge();
        guest.end(SPI);
        guest.exit(&mut vgic);
        assert!(!vgic.needs_plan(0));
        vgic.write_distributor(0, 0x821, Width::Byte, 2);
        vgic.write_distributor(0, 0x6000 + 8 * 33, Width::Double, 1);
        vgic.set_line(SPI, false);
        vgic.set_line(SPI, true);
        assert!(!vgic.needs_plan(0) && vgic.is_pending(1));
    }
}

#[test]
fn an_interrupt_that_changes_its_group_changes_it_in_the_list_register() {
    let mut vgic = running(Version::V3, 1);
    let mut guest = Guest::new(0, 4);
    vgic.set_line(SPI, true);
    guest.turn(&mut vgic);
    assert_eq!(guest.registers[0].group, Group::One);
    guest.exit(&mut vgic);
    write(&mut vgic, 0, 0x084, 0);
    guest.enter(&mut vgic);
    assert_eq!(guest.registers[0].group, Group::Zero);
}

#[test]
fn an_interrupt_made_active_by_register_is_active_where_it_is_routed() {
    for version in BOTH {
        let mut vgic = running(version, 2);
        let mut guests = [Guest::new(0, 4), Guest::new(1, 4)];
        vgic.write_distributor(0, 0x821, Width::Byte, 2);
        vgic.write_distributor(0, 0x6000 + 8 * 33, Width::Double, 1);
        write(&mut vgic, 0, 0x304, 1 << 1);
        for guest in &mut guests {
            guest.turn(&mut vgic);
        }
        assert_eq!(guests[0].registers[0].state, State::Invalid);
        assert_eq!(
            (guests[1].registers[0].vintid, guests[1].registers[0].state),
            (SPI, State::Active)
        );
    }
}

#[test]
fn the_vcpu_whose_timer_another_deactivates_is_kicked() {
    let mut vgic = running(Version::V3, 2);
    let mut guest = Guest::new(1, 4);
    guest.physical_interrupt(&mut vgic, TIMER);
    guest.acknowledge();
    guest.turn(&mut vgic);
    assert!(!vgic.needs_plan(1));
    vgic.write_redistributor(0x2_0000 + 0x1_0380, Width::Word, 1 << TIMER.raw());
    assert!(
        vgic.needs_plan(1),
        "its CPU has a physical interrupt to deactivate"
    );
    guest.turn(&mut vgic);
    assert!(guest.physical.is_empty());
}

#[test]
fn without_hardware_links_el2_deactivates_once_the_guest_has_ended() {
    for version in BOTH {
        let mut vgic = running(version, 1).without_hardware_links();
        let mut guest = Guest::new(0, 4);
        for _ in 0..3 {
            guest.physical_interrupt(&mut vgic, TIMER);
            let register = guest.acknowledge().expect("pending");
            assert_eq!((register.vintid, register.pintid), (TIMER, None));
            guest.turn(&mut vgic);
            assert!(
                !guest.physical.is_empty(),
                "the guest is still in its handler"
            );
            guest.end(TIMER);
            assert!(guest.wants_maintenance());
            guest.turn(&mut vgic);
            assert!(guest.physical.is_empty());
            assert_eq!(guest.acknowledge(), None, "delivered once");
        }
    }
}
