//! Device accesses that only their instruction explains (`ISV` = 0): what is believed, and what is refused. Encodings are an
//! assembler's.

use super::inject::take;
use super::world::{DEVICE, PC, RAM_START, World};
use crate::addr::PAGE_SIZE;
use crate::device::Width;
use crate::exit::{Need, Transfer};
use crate::fault::{Emulation, Mmio, Resolution, Stop};
use crate::machine::El1;
use crate::machine::recorder::{Op, abort_with};

const WNR: u64 = 1 << 6;
const LDP_W3_W4_X5: u32 = 0x2940_10a3;
const STP_XZR_XZR_X6: u32 = 0xa900_7cdf;
const LDR_W0_X1_POST_4: u32 = 0xb840_4420;
const STR_X0_X1_PRE_MINUS_8: u32 = 0xf81f_8c20;
const LDR_W0_SP_POST_16: u32 = 0xb841_07e0;
const LDPSW_X1_X2_X3_PRE_8: u32 = 0x69c1_0861;
const LDR_X4_X5_W6_SXTW_3: u32 = 0xf866_d8a4;
const DC_ZVA_X0: u32 = 0xd50b_7420;

/// A guest with stage 1 off whose PC is at `instruction`.
fn world(instruction: u32) -> World {
    let mut world = World::new();
    world.touch(PC, Need::Execute);
    world.m.guest_writes(PC, &instruction.to_le_bytes());
    world
}

/// The abort that the access at `offset` of the device takes.
fn access(world: &mut World, offset: u64, iss: u64) -> Resolution {
    let answer = world.resolve(&abort_with(0x24, 0x07 | iss, DEVICE + offset, DEVICE));
    world.m.enter_guest();
    answer
}

fn transfer(width: Width, register: u8) -> Transfer {
    Transfer {
        width,
        sign_extend: false,
        register,
        is_64_bit: width == Width::Double,
        is_ordered: false,
    }
}

fn mmio(offset: u64, is_write: bool, transfer: Transfer) -> Mmio {
    Mmio {
        device: 2,
        offset,
        is_write,
        transfer,
    }
}

fn emulation(resolution: Resolution) -> Emulation {
    match resolution {
        Resolution::Emulate(emulation) => emulation,
        other => panic!("not emulated: {other:?}"),
    }
}

fn refused(world: &mut World, resolution: Resolution, what: &str) {
    let Resolution::Inject(exception) = resolution else {
        panic!("{what}: {resolution:?}")
    };
    assert_eq!(take(exception, 0x3c5, 0).esr & 0x3f, 0x10, "{what}");
    assert_eq!(world.vcpu.counters.decoded, 0, "{what}");
}

#[test]
fn a_pair_is_two_accesses_side_by_side() {
    let mut world = world(LDP_W3_W4_X5);
    world.vcpu.registers.x[5] = DEVICE + 0x20;
    let loads = emulation(access(&mut world, 0x20, 0));
    assert_eq!(loads.first, mmio(0x20, false, transfer(Width::Word, 3)));
    let second = mmio(0x24, false, transfer(Width::Word, 4));
    assert_eq!((loads.second, loads.write_back), (Some(second), None));
    assert_eq!(world.vcpu.counters.decoded, 1);

    let mut world = self::world(STP_XZR_XZR_X6);
    world.vcpu.registers.x[6] = DEVICE + 0xff0;
    let stores = emulation(access(&mut world, 0xff0, WNR));
    assert_eq!(stores.first, mmio(0xff0, true, transfer(Width::Double, 31)));
    let second = mmio(0xff8, true, transfer(Width::Double, 31));
    assert_eq!(stores.second, Some(second));
}

#[test]
fn write_back_goes_to_the_base_and_nowhere_else() {
    for (instruction, base, before, offset, iss, after) in [
        (LDR_W0_X1_POST_4, 1, 0x30, 0x30, 0, 0x34),
        (STR_X0_X1_PRE_MINUS_8, 1, 0x30, 0x28, WNR, 0x28),
        (LDPSW_X1_X2_X3_PRE_8, 3, 0x30, 0x38, 0, 0x38),
    ] {
        let mut world = world(instruction);
        let mut registers = world.vcpu.registers.clone();
        world.vcpu.registers.x[base] = DEVICE + before;
        let emulation = emulation(access(&mut world, offset, iss));
        assert_eq!(emulation.first.offset, offset, "{instruction:#x}");
        emulation
            .write_back
            .unwrap()
            .apply(&mut registers, &mut world.m);
        let mut expected = [0; 31];
        expected[base] = DEVICE + after;
        assert_eq!(registers.x, expected, "{instruction:#x}");
    }
}

/// Register 31 as a base is the stack pointer of the current mode: `SP_EL1` at EL1h, else `SP_EL0`.
#[test]
fn the_stack_pointer_is_a_base() {
    for (mode, mine, other) in [
        (0x3c5, El1::SpEl1, El1::SpEl0),
        (0x3c4, El1::SpEl0, El1::SpEl1),
        (0x3c0, El1::SpEl0, El1::SpEl1),
    ] {
        let mut world = world(LDR_W0_SP_POST_16);
        world.vcpu.registers.pstate = mode;
        world.m.el1[mine as usize] = DEVICE + 0x40;
        world.m.el1[other as usize] = RAM_START;
        let emulation = emulation(access(&mut world, 0x40, 0));
        let mut registers = world.vcpu.registers.clone();
        emulation
            .write_back
            .unwrap()
            .apply(&mut registers, &mut world.m);
        assert_eq!(world.m.el1[mine as usize], DEVICE + 0x50, "{mode:#x}");
        assert_eq!(world.m.el1[other as usize], RAM_START, "{mode:#x}");
        assert_eq!(registers.x, [0; 31]);
    }
}

#[test]
fn an_index_register_and_a_tagged_address_are_understood() {
    let mut world = world(LDR_X4_X5_W6_SXTW_3);
    world.vcpu.registers.x[5] = 0x5a << 56 | (DEVICE + 0x100);
    world.vcpu.registers.x[6] = 0x1234_5678_ffff_fffe;
    let emulation = emulation(access(&mut world, 0xf0, 0));
    assert_eq!(
        emulation.first,
        mmio(0xf0, false, transfer(Width::Double, 4))
    );
}

#[test]
fn an_instruction_that_does_not_explain_the_fault_is_refused() {
    for (what, instruction, base, offset, iss) in [
        ("another address", LDP_W3_W4_X5, 0x20, 0x28, 0),
        ("a store reported as a load", STP_XZR_XZR_X6, 0x20, 0x20, 0),
        ("a load reported as a store", LDP_W3_W4_X5, 0x20, 0x20, WNR),
        ("no load or store", DC_ZVA_X0, 0x40, 0x40, WNR),
        ("an unaligned word", LDR_W0_X1_POST_4, 0x22, 0x22, 0),
        ("a pair over the end", LDP_W3_W4_X5, 0xffc, 0xffc, 0),
        ("a pair from before it", LDP_W3_W4_X5, -4i64 as u64, 0, 0),
    ] {
        let mut world = world(instruction);
        world.vcpu.registers.x[..8].fill(DEVICE.wrapping_add(base));
        let answer = access(&mut world, offset, iss);
        refused(&mut world, answer, what);
    }
}

#[test]
fn aarch32_is_not_read_as_a64() {
    let mut world = world(LDP_W3_W4_X5);
    world.vcpu.registers.x[5] = DEVICE + 0x20;
    world.vcpu.registers.pstate = 0x10;
    let answer = access(&mut world, 0x20, 0);
    refused(&mut world, answer, "EL0 in AArch32");
}

/// Its page is gone, or stage 1 leads elsewhere: tried again by the guest's tables as they are, and not for ever.
#[test]
fn an_instruction_that_cannot_be_fetched_is_tried_again_and_ends() {
    for (pc, sctlr) in [
        (PC + PAGE_SIZE, 0),
        (0x1000_0000, 0),
        (DEVICE, 0),
        (u64::MAX - 3, 0),
        (PC + 2, 0),
        // Stage 1 on, and nothing in its tables.
        (PC, 1),
    ] {
        let mut world = world(LDP_W3_W4_X5);
        world.vcpu.registers.pc = pc;
        world.m.el1[El1::Sctlr as usize] = sctlr;
        let mapped = world.m.mapped();
        for _ in 0..64 {
            assert_eq!(access(&mut world, 0x20, 0), Resolution::Retry, "{pc:#x}");
        }
        let answer = access(&mut world, 0x20, 0);
        assert!(
            matches!(answer, Resolution::Stop(Stop::NoProgress { .. })),
            "{pc:#x}: {answer:?}"
        );
        assert_eq!(world.m.mapped(), mapped, "looking maps nothing");
    }
}

/// A guest that writes past the caches (stage 1 or its caches off, no FWB) is read past them too.
#[test]
fn what_a_guest_wrote_past_the_caches_is_read_past_them() {
    for (sctlr, is_cached) in [(0, false), (1, false), (4, false), (5, true)] {
        let mut world = world(LDP_W3_W4_X5);
        world.vcpu.registers.x[5] = DEVICE + 0x20;
        world.m.el1[El1::Sctlr as usize] = sctlr;
        if sctlr & 1 == 1 {
            // One block of 1 GiB, at its own address.
            world.touch(RAM_START, Need::Write);
            world.m.el1[El1::Tcr as usize] = 25;
            world.m.el1[El1::Ttbr0 as usize] = RAM_START;
            let block = RAM_START | 0x401;
            world.m.guest_writes(RAM_START + 8, &block.to_le_bytes());
        }
        let from = world.m.log.len();
        let answer = access(&mut world, 0x20, 0);
        assert!(matches!(answer, Resolution::Emulate(_)), "{answer:?}");
        let cleans = world.m.log[from..].iter();
        let cleaned = cleans.filter(|op| matches!(op, Op::Dc(..))).count() != 0;
        assert_eq!(cleaned, !is_cached, "SCTLR_EL1 {sctlr:#x}");
    }
}
