//! Oracle: DDI 0224's text; offsets are written out.

use super::Pl031;
use crate::device::Width;
use proptest::prelude::*;

const EPOCH: u64 = 1_700_000_000;

fn read(clock: &mut Pl031, offset: u64, now: u64) -> u64 {
    clock.read(offset, Width::Word, now)
}

fn write(clock: &mut Pl031, offset: u64, value: u64, now: u64) {
    clock.write(offset, Width::Word, value, now);
}

#[test]
fn shows_the_epoch_and_runs() {
    let mut clock = Pl031::new(EPOCH);
    assert_eq!(read(&mut clock, 0x00, 0), EPOCH);
    assert_eq!(read(&mut clock, 0x00, 86_400), EPOCH + 86_400);
    assert_eq!(read(&mut clock, 0x0c, 0), 1, "and is always enabled");
}

#[test]
fn identifies_as_an_arm_pl031() {
    let mut clock = Pl031::new(EPOCH);
    let id: Vec<u64> = (0xfe0..0x1000)
        .step_by(4)
        .map(|offset| read(&mut clock, offset, 0))
        .collect();
    assert_eq!(id, [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn loading_sets_the_time_and_reads_back() {
    let mut clock = Pl031::new(EPOCH);
    write(&mut clock, 0x08, 1_000, 50);
    assert_eq!(read(&mut clock, 0x08, 60), 1_000);
    assert_eq!(read(&mut clock, 0x00, 60), 1_010);
}

#[test]
fn the_counter_wraps_at_32_bits() {
    let mut clock = Pl031::new(u64::from(u32::MAX));
    assert_eq!(read(&mut clock, 0x00, 1), 0);
}

#[test]
fn a_match_interrupts_until_cleared() {
    let mut clock = Pl031::new(EPOCH);
    write(&mut clock, 0x04, EPOCH + 10, 0);
    write(&mut clock, 0x10, 1, 0);
    assert_eq!(clock.seconds_to_match(), Some(10));
    clock.advance(9);
    assert!(!clock.line());
    assert_eq!(clock.seconds_to_match(), Some(1));
    clock.advance(10);
    assert!(clock.line());
    assert_eq!(clock.seconds_to_match(), None);
    clock.advance(20);
    assert_eq!(
        (read(&mut clock, 0x14, 20), read(&mut clock, 0x18, 20)),
        (1, 1)
    );
    write(&mut clock, 0x1c, 1, 20);
    assert!(!clock.line());
    assert_eq!(
        (read(&mut clock, 0x14, 20), read(&mut clock, 0x18, 20)),
        (0, 0)
    );
}

#[test]
fn a_match_that_nobody_looked_at_is_not_missed() {
    let mut clock = Pl031::new(EPOCH);
    write(&mut clock, 0x04, EPOCH + 10, 0);
    write(&mut clock, 0x10, 1, 0);
    clock.advance(100);
    assert!(clock.line());
}

#[test]
fn a_match_in_the_past_waits_for_the_wrap() {
    let mut clock = Pl031::new(EPOCH);
    write(&mut clock, 0x10, 1, 0);
    write(&mut clock, 0x04, EPOCH - 1, 0);
    clock.advance(1_000_000);
    assert!(!clock.line());
    clock.advance((1 << 32) - 2);
    assert!(!clock.line());
    clock.advance((1 << 32) - 1);
    assert!(clock.line());
}

#[test]
fn setting_the_match_to_now_interrupts_at_once() {
    let mut clock = Pl031::new(EPOCH);
    write(&mut clock, 0x10, 1, 7);
    write(&mut clock, 0x04, EPOCH + 7, 7);
    assert!(clock.line());
}

#[test]
fn a_cleared_match_does_not_return_while_the_second_lasts() {
    let mut clock = Pl031::new(EPOCH);
    write(&mut clock, 0x10, 1, 7);
    write(&mut clock, 0x04, EPOCH + 7, 7);
    write(&mut clock, 0x1c, 1, 7);
    clock.advance(7);
    clock.advance(8);
    assert!(!clock.line());
}

#[test]
fn the_mask_gates_the_line_not_the_raw_status() {
    let mut clock = Pl031::new(EPOCH);
    write(&mut clock, 0x04, EPOCH + 1, 0);
    clock.advance(1);
    assert!(!clock.line());
    assert_eq!(
        (read(&mut clock, 0x14, 1), read(&mut clock, 0x18, 1)),
        (1, 0)
    );
    write(&mut clock, 0x10, 0xffff_ffff, 1);
    assert!(clock.line());
    assert_eq!(read(&mut clock, 0x10, 1), 1, "one bit is implemented");
}

proptest! {
    #[test]
    fn any_access_at_any_time_is_answered_within_its_width(
        accesses in prop::collection::vec(
            (any::<bool>(), prop_oneof![0u64..0x30, 0u64..0x2000, any::<u64>()], 0u64..4, any::<u64>(), any::<u64>()), 0..100)
    ) {
        let mut clock = Pl031::new(u64::MAX);
        for (is_write, offset, sas, value, now) in accesses {
            let width = Width::from_sas(sas);
            if is_write {
                clock.write(offset, width, value, now);
            } else {
                prop_assert_eq!(clock.read(offset, width, now) & !width.mask(), 0);
            }
        }
    }
}
