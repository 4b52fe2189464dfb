//! What an emulated load or store does to the vCPU: one register, PC once, and nothing else.

use super::{ENTRY, RTC, Run, UART};
use crate::machine::recorder::Op;
use crate::machine::{Dsb, El1};
use crate::vm::Next;

const SSE: u64 = 1 << 21;
const SF: u64 = 1 << 15;
const AR: u64 = 1 << 14;
/// UARTPeriphID0 reads 0x11, UARTPeriphID1 0x10, UARTPeriphID2 0x14 (DDI 0183).
const PERIPH_ID: u64 = UART + 0xfe0;

/// The PL031's load register keeps any 32 bits written to it.
const RTC_MATCH: u64 = RTC + 0x4;

#[test]
fn a_load_writes_its_register_and_moves_pc_once() {
    for register in 0..31 {
        let mut run = Run::new();
        run.vcpu.registers.x = core::array::from_fn(|n| 0xaaaa_bbbb_0000_0000 | n as u64);
        let before = run.vcpu.registers.clone();
        assert_eq!(run.access(PERIPH_ID, 4, register, None, 0), Next::Look);
        let mut expected = before.x;
        expected[register as usize] = 0x11;
        assert_eq!(run.vcpu.registers.x, expected, "x{register}");
        assert_eq!(run.vcpu.registers.pc, ENTRY + 4);
        assert_eq!(run.vcpu.registers.pstate, before.pstate);
        assert_eq!(run.vcpu.counters.mmio[2], 1);
    }
}

#[test]
fn the_zero_register_reads_as_zero_and_takes_nothing() {
    let mut run = Run::new();
    run.store(RTC_MATCH, 0x1234_5678);
    let before = run.vcpu.registers.x;
    run.access(PERIPH_ID, 4, 31, None, 0);
    assert_eq!(run.vcpu.registers.x, before);
    run.access(RTC_MATCH, 4, 31, Some(0xdead), 0);
    assert_eq!(run.load(RTC_MATCH), 0);
    assert_eq!(run.vcpu.registers.pc, ENTRY + 4 * 4);
}

/// `LDRSB Wt` and the like, worked out by hand for a register that holds 0x89ab_cdef.
#[test]
fn loads_of_every_width_extend_as_the_destination_says() {
    for (width, more, expected) in [
        (1, SSE, 0xffff_ffef),
        (1, SSE | SF, 0xffff_ffff_ffff_ffef),
        (1, 0, 0xef),
        (1, SF, 0xef),
        (2, SSE, 0xffff_cdef),
        (2, SSE | SF, 0xffff_ffff_ffff_cdef),
        (2, 0, 0xcdef),
        (4, 0, 0x89ab_cdef),
        (4, SSE | SF, 0xffff_ffff_89ab_cdef),
        (4, SF, 0x89ab_cdef),
    ] {
        let mut run = Run::new();
        run.store(RTC_MATCH, 0x89ab_cdef);
        run.vcpu.registers.x[9] = u64::MAX;
        run.access(RTC_MATCH, width, 9, None, more);
        assert_eq!(
            run.vcpu.registers.x[9], expected,
            "{width} bytes, {more:#x}"
        );
    }
}

#[test]
fn a_store_hands_over_as_many_bytes_as_it_has() {
    let mut run = Run::new();
    run.access(UART, 1, 3, Some(0xffff_ffff_ffff_ff00 | u64::from(b'A')), 0);
    run.access(UART, 2, 3, Some(0xffff_ffff_ffff_0000 | u64::from(b'B')), 0);
    run.access(UART, 4, 3, Some(0xffff_ffff_0000_0000 | u64::from(b'C')), 0);
    assert_eq!(run.m.host.console, b"ABC");
    assert!(run.vm.devices().spoke());
}

/// Devices are little-endian: a big-endian guest stores the bytes the other way round, and loads them so.
#[test]
fn a_big_endian_guest_sees_its_bytes_swapped() {
    const EE: u64 = 1 << 25;
    const E0E: u64 = 1 << 24;
    for (mode, sctlr, swapped) in [
        (0x3c5, 0, false),
        (0x3c5, EE, true),
        (0x3c4, EE, true),
        (0x3c5, E0E, false),
        (0x3c0, E0E, true),
        (0x3c0, EE, false),
    ] {
        let mut run = Run::new();
        run.m.el1[El1::Sctlr as usize] = sctlr;
        run.vcpu.registers.pstate = mode;
        run.store(RTC_MATCH, 0x1122_3344);
        assert_eq!(run.load(RTC_MATCH), 0x1122_3344, "what it stored it loads");
        let id = run.load(PERIPH_ID);
        assert_eq!(
            id,
            if swapped { 0x1100_0000 } else { 0x11 },
            "PSTATE {mode:#x}, SCTLR_EL1 {sctlr:#x}"
        );
        run.access(UART, 1, 3, Some(u64::from(b'x')), 0);
        run.access(
            UART,
            4,
            3,
            Some(if swapped {
                u64::from(b'y') << 24
            } else {
                u64::from(b'y')
            }),
            0,
        );
        assert_eq!(run.m.host.console, b"xy");
    }
}

/// AArch32 at EL0 has its own bit: PSTATE.E, bit 9.
#[test]
fn an_aarch32_user_is_as_big_endian_as_its_pstate_says() {
    for (pstate, expected) in [(0x10, 0x11), (0x10 | 1 << 9, 0x1100_0000)] {
        let mut run = Run::new();
        run.m.el1[El1::Sctlr as usize] = 1 << 24;
        run.vcpu.registers.pstate = pstate;
        assert_eq!(run.load(PERIPH_ID), expected, "PSTATE {pstate:#x}");
    }
}

#[test]
fn a_short_instruction_of_t32_is_two_bytes() {
    let mut run = Run::new();
    run.vcpu.registers.pstate = 0x30;
    // ISV, word, r2, IL = 0.
    run.exit(
        0x24 << 26 | 1 << 24 | 2 << 22 | 2 << 16 | 0x07,
        0xfe0,
        PERIPH_ID,
    );
    assert_eq!(
        (run.vcpu.registers.x[2], run.vcpu.registers.pc),
        (0x11, ENTRY + 2)
    );
}

#[test]
fn acquire_and_release_are_ordered_on_their_side() {
    let is_dsb = |op: &Op| *op == Op::Dsb(Dsb::Ish);
    for (write, more, count) in [
        (None, AR, 1),
        (Some(1), AR, 1),
        (None, 0, 0),
        (Some(1), 0, 0),
    ] {
        let mut run = Run::new();
        let from = run.m.log.len();
        run.access(RTC_MATCH, 4, 3, write, more);
        assert_eq!(
            run.m.log[from..].iter().filter(|op| is_dsb(op)).count(),
            count
        );
    }
}

#[test]
fn an_access_that_is_not_emulated_is_injected_with_pc_at_it() {
    let mut run = Run::new();
    run.m.el1[El1::Vbar as usize] = RAM_VECTORS;
    run.vcpu.registers.x[3] = 0x77;
    // The first byte of the test's kernel is 1: no load or store.
    run.exit(0x20 << 26 | 1 << 25 | 0x06, ENTRY, ENTRY);
    // ISV = 0.
    assert_eq!(
        run.exit(0x24 << 26 | 1 << 25 | 0x07, 0x7000_0010, UART),
        Next::Resume
    );
    assert_eq!(run.el1(El1::Elr), ENTRY, "at the instruction, not after it");
    assert_eq!(run.el1(El1::Far), 0x7000_0010);
    assert_eq!(run.el1(El1::Esr), 0x9600_0010);
    assert_eq!(run.vcpu.registers.pc, RAM_VECTORS + 0x200);
    assert_eq!(
        run.vcpu.registers.pstate,
        0x3c5 | 1 << 22,
        "PAN, as SCTLR_EL1.SPAN is 0 and the guest has FEAT_PAN"
    );
    assert_eq!(
        (run.vcpu.registers.x[3], run.vcpu.counters.injected.get()),
        (0x77, 1)
    );
    assert_eq!(run.vcpu.counters.mmio, [0; 8]);
}

const RAM_VECTORS: u64 = 0x4010_0000;

#[test]
fn single_step_and_branch_type_end_with_an_emulated_instruction() {
    let mut run = Run::new();
    run.vcpu.registers.pstate |= 1 << 21 | 3 << 10 | 0xa << 28;
    run.load(PERIPH_ID);
    assert_eq!(run.vcpu.registers.pstate, 0x3c5 | 0xa << 28);
}

#[test]
fn maintenance_of_nothing_is_stepped_over_once() {
    let mut run = Run::new();
    assert_eq!(
        run.exit(
            0x24 << 26 | 1 << 25 | 1 << 8 | 1 << 6 | 0x07,
            0x10,
            0x1000_0000
        ),
        Next::Resume
    );
    assert_eq!(
        (run.vcpu.registers.pc, run.vcpu.counters.skipped.get()),
        (ENTRY + 4, 1)
    );
}

#[test]
fn every_access_to_every_device_leaves_the_other_registers_alone() {
    use proptest::prelude::*;
    let access = (
        0u64..4,
        0u64..0x2_0000,
        0u64..4,
        0u64..32,
        any::<u64>(),
        any::<bool>(),
    );
    proptest!(ProptestConfig::with_cases(64), |(accesses in proptest::collection::vec(access, 1..20))| {
        let mut run = Run::new();
        for (device, offset, width, register, value, is_write) in accesses {
            let (base, size) = [(super::GICD, 0x1_0000), (super::GICR, 0x2_0000), (UART, 0x1000), (RTC, 0x1000)][device as usize];
            let width = 1 << width;
            let at = base + offset % size / width * width;
            if is_write {
                run.vcpu.registers.write(register as u8, value);
            }
            let before = run.vcpu.registers.clone();
            prop_assert_eq!(run.access(at, width, register, is_write.then_some(value), SF), Next::Look);
            prop_assert_eq!(run.vcpu.registers.pc, before.pc + 4);
            for other in (0..31).filter(|other| is_write || *other != register as usize) {
                prop_assert_eq!(run.vcpu.registers.x[other], before.x[other]);
            }
        }
    });
}

/// `LDP W1, W0, [X0], #8` is not to be had (write-back over a register loaded), but `LDP W1, W0, [X0]` is; both halves come
/// from the base as it was.
#[test]
fn a_pair_moves_both_registers_and_pc_once() {
    let mut run = with_code(&[0x2940_0001]);
    run.vcpu.registers.x = [u64::MAX; 31];
    run.vcpu.registers.x[0] = PERIPH_ID;
    let mut expected = run.vcpu.registers.x;
    (expected[1], expected[0]) = (0x11, 0x10);
    assert_eq!(not_described(&mut run, PERIPH_ID, 0), Next::Look);
    assert_eq!(run.vcpu.registers.x, expected);
    assert_eq!(run.vcpu.registers.pc, ENTRY + 4);
    assert_eq!(run.vcpu.counters.mmio[2], 2, "two accesses");
}

#[test]
fn write_back_follows_the_access() {
    // LDRB W2, [X3], #4 and STR W5, [SP, #-16]! (PL031's match register keeps what it is given).
    let mut run = with_code(&[0x3840_4462, 0xb81f_0fe5]);
    run.vcpu.registers.x[3] = PERIPH_ID;
    not_described(&mut run, PERIPH_ID, 0);
    assert_eq!(run.vcpu.registers.x[2..4], [0x11, PERIPH_ID + 4]);
    run.vcpu.registers.x[5] = 0xffff_ffff_1234_5678;
    run.m.el1[El1::SpEl1 as usize] = RTC_MATCH + 16;
    not_described(&mut run, RTC_MATCH, 1 << 6);
    assert_eq!(run.el1(El1::SpEl1), RTC_MATCH);
    assert_eq!(run.vcpu.registers.pc, ENTRY + 8);
    assert_eq!(run.load(RTC_MATCH), 0x1234_5678);
}

#[test]
fn a_refused_instruction_leaves_its_base_alone() {
    // LDR Q0, [X1], #16.
    let mut run = with_code(&[0x3cc1_0420]);
    run.vcpu.registers.x[1] = PERIPH_ID;
    not_described(&mut run, PERIPH_ID, 0);
    assert_eq!(run.vcpu.registers.x[1], PERIPH_ID);
    assert_eq!(
        (run.vcpu.counters.injected.get(), run.el1(El1::Elr)),
        (1, ENTRY)
    );
}

/// A VM whose kernel begins with these instructions, its first page mapped: fetched, then written, which makes it its own.
fn with_code(words: &[u32]) -> Run {
    let mut run = Run::new();
    run.exit(0x20 << 26 | 1 << 25 | 0x06, ENTRY, ENTRY);
    run.exit(0x24 << 26 | 1 << 25 | 1 << 6 | 0x0f, ENTRY, ENTRY);
    for (n, word) in words.iter().enumerate() {
        run.m
            .guest_writes(ENTRY + 4 * n as u64, &word.to_le_bytes());
    }
    run
}

/// A data abort with ISV = 0, stage 1 off.
fn not_described(run: &mut Run, at: u64, iss: u64) -> Next {
    run.exit(0x24 << 26 | 1 << 25 | 0x07 | iss, at, at)
}

/// The distributor's slot goes on beyond the page, but where stage 1 has the next page only the guest knows.
#[test]
fn a_pair_that_crosses_a_page_of_its_device_is_refused() {
    for (offset, is_done) in [(0xff8, true), (0xffc, false)] {
        // LDP W3, W4, [X5].
        let mut run = with_code(&[0x2940_10a3]);
        run.vcpu.registers.x[5] = super::GICD + offset;
        not_described(&mut run, super::GICD + offset, 0);
        assert_eq!(run.vcpu.counters.mmio[0], if is_done { 2 } else { 0 });
        assert_eq!(run.vcpu.counters.injected, u64::from(!is_done));
    }
}
