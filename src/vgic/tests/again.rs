//! Interrupts that come again. That what is done then is right is what [`super::model`] and [`super::race`] try; here, that it
//! is done.

use super::guest::Guest;
use super::{BOTH, TIMER, running, write};
use crate::device::Width;
use crate::vgic::{IntId, Version, Vgic};

const SGI: IntId = IntId::sgi(4);

/// Sends [`SGI`] from vCPU 1 to vCPU 0.
fn send(vgic: &mut Vgic) {
    match vgic.version() {
        Version::V2 => write(vgic, 1, 0xf00, 1 << 16 | u64::from(SGI.raw())),
        Version::V3 => vgic.write_sgi1r(1, u64::from(SGI.raw()) << 24 | 1),
    }
}

/// The guest takes what is pending, which is `expected`, and ends it.
fn take(guest: &mut Guest, expected: IntId) {
    let taken = guest.acknowledge().map(|register| register.vintid);
    assert_eq!(taken, Some(expected));
    guest.end(expected);
}

#[test]
fn a_timer_that_ticks_writes_its_list_register_and_no_more() {
    for version in BOTH {
        let mut vgic = running(version, 1);
        let mut guest = Guest::new(0, 4);
        guest.turn(&mut vgic);
        for tick in 1..5 {
            guest.physical_interrupt(&mut vgic, TIMER);
            take(&mut guest, TIMER);
            assert_eq!((guest.writes, guest.again), (tick, tick));
        }
        assert_eq!(guest.from_scratch, 1);
    }
}

/// Each end of it is told to EL2 there, and leaves its list register free.
#[test]
fn a_timer_that_ticks_without_hardware_links_writes_one_list_register_and_no_more() {
    for version in BOTH {
        let mut vgic = running(version, 1).without_hardware_links();
        let mut guest = Guest::new(0, 4);
        guest.turn(&mut vgic);
        for tick in 1..5 {
            guest.physical_interrupt(&mut vgic, TIMER);
            assert_eq!(guest.again, tick);
            take(&mut guest, TIMER);
            guest.turn(&mut vgic);
        }
        assert_eq!(guest.from_scratch, 1);
    }
}

#[test]
fn an_sgi_that_comes_again_writes_its_list_register_and_no_more() {
    for version in BOTH {
        let mut vgic = running(version, 2);
        let mut guest = Guest::new(0, 4);
        guest.turn(&mut vgic);
        for round in 1..5 {
            send(&mut vgic);
            guest.enter(&mut vgic);
            take(&mut guest, SGI);
            assert_eq!((guest.writes, guest.again), (round, round));
        }
        assert_eq!(guest.from_scratch, 1);
    }
}

/// A vCPU that sleeps in between, and so has nothing in its list registers when the next one comes.
#[test]
fn an_sgi_that_comes_alone_writes_one_list_register_and_no_more() {
    for version in BOTH {
        let mut vgic = running(version, 2);
        let mut guest = Guest::new(0, 4);
        guest.timer_asserted = false;
        guest.turn(&mut vgic);
        for round in 1..5 {
            guest.leave(&mut vgic);
            assert_eq!(guest.left_nothing, round, "what has ended is gone");
            send(&mut vgic);
            guest.enter(&mut vgic);
            take(&mut guest, SGI);
            assert_eq!((guest.writes, guest.again), (round, round));
        }
        assert_eq!(guest.from_scratch, 1);
    }
}

/// A guest that is busy with several of them.
#[test]
fn a_timer_and_sgis_in_turn_need_no_plan_from_scratch() {
    for version in BOTH {
        let mut vgic = running(version, 2);
        let mut guest = Guest::new(0, 4);
        guest.turn(&mut vgic);
        for _ in 0..5 {
            guest.physical_interrupt(&mut vgic, TIMER);
            send(&mut vgic);
            guest.enter(&mut vgic);
            take(&mut guest, SGI);
            take(&mut guest, TIMER);
        }
        assert_eq!((guest.from_scratch, guest.again), (1, 9));
    }
}

/// With each a list register of its own, all of them filled: what has ended makes room.
#[test]
fn one_more_than_there_are_list_registers_makes_room_for_itself() {
    let mut vgic = running(Version::V3, 1);
    let mut guest = Guest::new(0, 2);
    guest.turn(&mut vgic);
    for number in [1, 2, 3, 1, 2, 3] {
        vgic.write_sgi1r(0, number << 24 | 1);
        guest.enter(&mut vgic);
        take(&mut guest, IntId::sgi(number as u32));
    }
    assert_eq!(guest.from_scratch, 1);
}

#[test]
fn what_changed_meanwhile_counts() {
    let mut vgic = running(Version::V3, 1);
    let mut guest = Guest::new(0, 4);
    guest.turn(&mut vgic);
    guest.physical_interrupt(&mut vgic, TIMER);
    take(&mut guest, TIMER);
    let frame = 0x1_0000;
    vgic.write_redistributor(frame + 0x400 + u64::from(TIMER.raw()), Width::Byte, 0x40);
    guest.physical_interrupt(&mut vgic, TIMER);
    let taken = guest.acknowledge().map(|register| register.priority);
    assert_eq!((taken, guest.again), (Some(0x40), 1));
    guest.end(TIMER);
    // Disabled: the physical interrupt waits for the guest to enable it again.
    vgic.write_redistributor(frame + 0x180, Width::Word, 1 << TIMER.raw());
    guest.physical_interrupt(&mut vgic, TIMER);
    assert_eq!(guest.acknowledge(), None);
    vgic.write_redistributor(frame + 0x100, Width::Word, 1 << TIMER.raw());
    guest.enter(&mut vgic);
    take(&mut guest, TIMER);
}
