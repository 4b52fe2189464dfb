//! More interrupts than list registers.

use super::guest::Guest;
use super::{BOTH, SPI, read, running, write};
use crate::device::Width;
use crate::vgic::{IntId, Version, Vgic};

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

/// By a register, in its handler; and then it ends it as it ends all.
#[test]
fn the_end_of_what_a_guest_cleared_ends_nothing_else() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 2);
        nest(&mut vgic, &mut guest, 5);
        guest.exit(&mut vgic);
        write(&mut vgic, 0, 0x384, 1 << 4);
        guest.enter(&mut vgic);
        for (ended, left) in [(4, 0b1111), (3, 0b0111), (2, 0b0011)] {
            guest.end(IntId::spi(ended));
            guest.turn(&mut vgic);
            assert_eq!(read(&vgic, 0, 0x304), left, "after the end of SPI {ended}");
        }
    }
}
