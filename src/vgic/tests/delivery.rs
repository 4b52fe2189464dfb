//! Interrupts from their cause to the guest and back.

use super::guest::Guest;
use super::{read, running, write};
use crate::device::Width;
use crate::vgic::{IntId, State, Version};

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
        assert_eq!(vgic.linked(0), 1 << TIMER.raw());
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
