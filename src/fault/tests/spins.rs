//! Who spins around a WFE or a YIELD.

use super::world::{PC, World};
use crate::addr::PAGE_SIZE;
use crate::exit::Need;
use crate::fault::spins;
use crate::machine::El1;

const WFE: u32 = 0xd503_205f;
const YIELD: u32 = 0xd503_203f;
const WFI: u32 = 0xd503_207f;

/// A guest with stage 1 off whose page of code has one `hint`.
fn world(hint: u32, at: u64) -> World {
    let mut world = World::new();
    world.touch(PC, Need::Execute);
    world.m.guest_writes(at, &hint.to_le_bytes());
    world
}

fn asked_at(world: &mut World, pc: u64) -> bool {
    world.vcpu.registers.pc = pc;
    let mapped = world.m.mapped();
    let answer = spins(
        &world.shared.memory.stage2,
        &world.vcpu.registers,
        &mut world.m,
    );
    assert_eq!(world.m.mapped(), mapped, "looking maps nothing");
    answer
}

#[test]
fn a_loop_is_known_by_the_wfe_next_to_pc() {
    let page = PC & !(PAGE_SIZE - 1);
    for wfe in [page, page + 0x800, page + PAGE_SIZE - 4] {
        let mut world = world(WFE, wfe);
        for pc in (page..page + PAGE_SIZE).step_by(4) {
            let is_near = pc <= wfe + 32 && wfe < pc + 32;
            assert_eq!(
                asked_at(&mut world, pc),
                is_near,
                "WFE {wfe:#x}, PC {pc:#x}"
            );
        }
    }
}

#[test]
fn code_that_cannot_be_read_does_not_spin() {
    let mut world = world(YIELD, PC);
    for pc in [PC + 1, PC + PAGE_SIZE, 0x1000_0000, u64::MAX - 3, 0] {
        assert!(!asked_at(&mut world, pc), "{pc:#x}");
    }
    world.vcpu.registers.pstate = 0x10;
    assert!(!asked_at(&mut world, PC), "AArch32 at EL0");
    world.vcpu.registers.pstate = 0x3c5;
    assert!(asked_at(&mut world, PC));
    world.m.el1[El1::Sctlr as usize] = 1;
    assert!(!asked_at(&mut world, PC), "stage 1 on, and nothing in it");
}

#[test]
fn what_waits_for_an_interrupt_is_no_loop() {
    assert!(asked_at(&mut world(YIELD, PC), PC));
    assert!(!asked_at(&mut world(WFI, PC), PC), "it traps");
}
