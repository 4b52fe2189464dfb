//! The timer: an interrupt that stands for a physical one.

use super::guest::Guest;
use super::{BOTH, SPI, TIMER, running, write};
use crate::device::Width;
use crate::vgic::{IntId, State, Version, Vgic};

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
