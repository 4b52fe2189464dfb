//! Interrupts from their cause to the guest and back.

use super::guest::Guest;
use super::{BOTH, SPI, TIMER, read, running, write};
use crate::device::Width;
use crate::vgic::{Group, IntId, State, Version};

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
