//! Never a silent loop: what repeats is escalated, then named.

use super::world::{PC, RAM_START, Setup, World};
use crate::addr::Ipa;
use crate::exit::{Abort, Need};
use crate::fault::inject::{Exception, PstateFeatures};
use crate::fault::progress::Progress;
use crate::fault::{Resolution, Stop};
use crate::machine::El1;
use crate::machine::Tlbi;
use crate::machine::recorder::{Op, Recorder, abort};
use crate::registers::Registers;

use super::world::A72;

/// Repeats `fault` until the VM is stopped; answers the text, and after how many repeats each escalation came.
fn until_stopped(world: &mut World, fault: &Abort) -> (String, Vec<(u32, &'static str)>) {
    let mut escalations = Vec::new();
    for repeat in 0..=100 {
        let from = world.m.log.len();
        match world.resolve(fault) {
            Resolution::Retry => {}
            Resolution::Stop(stop) => {
                escalations.push((repeat, "stop"));
                assert!(matches!(stop, Stop::NoProgress { repeats, .. } if repeats == repeat));
                return (format!("{stop}"), escalations);
            }
            other => panic!("{other:?}"),
        }
        for op in &world.m.log[from..] {
            match op {
                Op::Tlbi(Tlbi::Vmalls12e1Is) => escalations.push((repeat, "whole VM")),
                Op::Tlbi(Tlbi::Ipas2e1Is(..)) => escalations.push((repeat, "break")),
                _ => {}
            }
        }
    }
    panic!("a silent loop")
}

const ORDER: [(u32, &str); 3] = [(4, "whole VM"), (9, "break"), (64, "stop")];

/// KVM's bug of May 2026 as the detector sees it: the handler answers "done", and the leaf stays as it was.
#[test]
fn a_permission_fault_that_changes_nothing_is_escalated_and_named() {
    for (need, rights) in [(Need::Write, "R--"), (Need::Execute, "R--")] {
        let mut world = World::new();
        world.touch(RAM_START, Need::Read);
        world.m.loses_stores = true;
        let (text, escalations) = until_stopped(&mut world, &abort(RAM_START | 0x44, need, 0x0f));
        assert_eq!(escalations, ORDER);
        for part in [
            "no progress: 64 times",
            "map-on-permission",
            rights,
            "PC 0x40080000",
            "IPA 0x40000000",
        ] {
            assert!(text.contains(part), "{part} in: {text}");
        }
        assert!(text.contains(&format!("{need:?}")), "{text}");
    }
}

#[test]
fn a_cpu_that_keeps_its_stale_entry_is_escalated_and_named() {
    let mut world = World::new();
    world.touch(RAM_START, Need::Write);
    let before = world.m.leaf(RAM_START);
    let (text, escalations) = until_stopped(&mut world, &abort(RAM_START, Need::Write, 0x0f));
    assert_eq!(escalations, ORDER);
    assert!(
        text.contains("RW- already") && text.contains("stale"),
        "{text}"
    );
    assert!(!text.contains("map-on-permission"), "{text}");
    assert_eq!(
        world.m.leaf(RAM_START),
        before,
        "broken and made again as it was"
    );
    assert_eq!(
        world.vcpu.counters.tlbi, 66,
        "64 local ones, and two broadcasts"
    );
    world.end();
}

#[test]
fn a_translation_fault_that_maps_nothing_is_named() {
    let mut world = Setup {
        pages: 400,
        ..Setup::default()
    }
    .build();
    world.m.loses_stores = true;
    let (text, escalations) = until_stopped(&mut world, &abort(RAM_START, Need::Read, 0x07));
    assert_eq!(
        escalations,
        [(4, "whole VM"), (64, "stop")],
        "there is no leaf to break"
    );
    assert!(text.contains("nothing gets mapped"), "{text}");
}

/// One instruction may touch two pages in turn, and be stuck on both.
#[test]
fn two_faults_in_turn_are_a_loop_as_well() {
    let mut world = World::new();
    world.touch(RAM_START, Need::Read);
    world.touch(RAM_START + 0x1000, Need::Read);
    let faults = [
        abort(RAM_START + 0xffc, Need::Read, 0x0f),
        abort(RAM_START + 0x1000, Need::Read, 0x0f),
    ];
    let stopped = (0..200).any(|n| matches!(world.resolve(&faults[n % 2]), Resolution::Stop(_)));
    assert!(stopped);
}

#[test]
fn faults_that_change_something_are_no_loop() {
    let mut world = Setup {
        pages: 400,
        ..Setup::default()
    }
    .build();
    for page in 0..100 {
        for need in [Need::Read, Need::Write, Need::Execute] {
            assert_eq!(world.touch(RAM_START + page * 0x1000, need), 1);
        }
    }
    // Another instruction, another address or another need is another attempt.
    for n in 0..100 {
        world.vcpu.registers.pc = PC + n * 4;
        assert_eq!(
            world.resolve(&abort(RAM_START, Need::Read, 0x0f)),
            Resolution::Retry
        );
    }
    for n in 0..100 {
        assert_eq!(
            world.resolve(&abort(RAM_START + n * 8, Need::Read, 0x0f)),
            Resolution::Retry
        );
    }
    world.end();
}

/// A stale entry now and then at the same place, over a long life, is not a loop: the guest did something in between.
#[test]
fn the_same_fault_again_after_the_guest_got_on_is_counted_anew() {
    let mut world = World::new();
    world.touch(RAM_START, Need::Read);
    for _ in 0..300 {
        for _ in 0..3 {
            assert_eq!(
                world.resolve(&abort(RAM_START, Need::Read, 0x0f)),
                Resolution::Retry
            );
        }
        world.vcpu.progress.retired();
    }
    world.end();
}

/// A guest with VBAR_EL1 somewhere, and what its exceptions do.
struct Guest {
    m: Recorder,
    registers: Registers,
    progress: Progress,
}

impl Guest {
    fn new(vbar: u64, pc: u64) -> Self {
        let mut m = Recorder::new(0, A72);
        m.el1[El1::Vbar as usize] = vbar;
        Self {
            m,
            registers: Registers::entering(pc),
            progress: Progress::default(),
        }
    }

    /// The instruction at PC aborts on `ipa`.
    fn aborts(&mut self, need: Need, ipa: u64) -> Result<(), Stop> {
        let abort = abort(ipa, need, 0x07);
        let exception = Exception::external(&abort, abort.far().unwrap(), Ipa::new(ipa));
        let features = PstateFeatures::default();
        exception.take(
            &mut self.registers,
            features,
            &mut self.progress,
            &mut self.m,
        )
    }
}

#[test]
fn a_vector_that_cannot_be_fetched_stops_the_vm_with_its_first_abort() {
    let mut guest = Guest::new(0, 0x4008_0010);
    guest.aborts(Need::Read, 0x1000_0000).unwrap();
    assert_eq!(guest.registers.pc, 0x200);
    let before = guest.registers.clone();
    let stop = guest.aborts(Need::Execute, 0x200).unwrap_err();
    let text = format!("{stop}");
    for part in [
        "no exception vectors",
        "VBAR_EL1 = 0x0",
        "0x200",
        "abort at PC 0x40080010",
        "IPA 0x10000000",
    ] {
        assert!(text.contains(part), "{part} in: {text}");
    }
    assert_eq!(
        (guest.registers.pc, guest.registers.pstate),
        (before.pc, before.pstate),
        "it was not taken"
    );
}

#[test]
fn sixteen_exceptions_without_an_instruction_between_are_let_through_and_the_next_is_not() {
    let mut guest = Guest::new(0x4000_0000, 0x4008_0010);
    guest.aborts(Need::Write, 0x1000_0000).unwrap();
    for n in 1..16 {
        assert_eq!(guest.registers.pc, 0x4000_0200);
        assert!(
            guest.aborts(Need::Write, 0x2000_0000).is_ok(),
            "number {n} in the chain"
        );
    }
    let stop = guest.aborts(Need::Write, 0x2000_0000).unwrap_err();
    assert!(matches!(
        stop,
        Stop::NoVectors {
            first_pc: 0x4008_0010,
            vbar: 0x4000_0000,
            vector: 0x4000_0200,
            ..
        }
    ));
}

#[test]
fn exceptions_that_are_handled_never_add_up() {
    let mut guest = Guest::new(0x4000_0000, 0x4008_0010);
    for _ in 0..1000 {
        // The handler retires some instructions and returns; the access is tried again.
        guest.registers.pc = 0x4008_0010;
        guest.aborts(Need::Read, 0x1000_0000).unwrap();
    }
    // A probe for memory from within the handler, past its first instruction.
    for _ in 0..1000 {
        guest.registers.pc = 0x4000_0204;
        guest.aborts(Need::Read, 0x1000_0000).unwrap();
    }
}

#[test]
fn a_fetch_abort_elsewhere_is_the_guests_own_affair() {
    let mut guest = Guest::new(0x4000_0000, 0x1000_0000);
    for _ in 0..100 {
        guest.registers.pc = 0x1000_0000;
        guest.aborts(Need::Execute, 0x1000_0000).unwrap();
    }
}
