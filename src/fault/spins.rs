//! Whether a vCPU waits for another in a loop that does not trap.
//!
//! `HCR_EL2.TWE` is a permission, not a promise: a WFE whose event register is set does not wait, and QEMU's, with a thread per
//! CPU, never does; and YIELD never traps. A CPU of the guest that waits for a lock so uses up its slice, and the one it waits for
//! waits for the pCPU. Where the loop is, its hint is next to PC.
//!
//! Source: DDI 0487 "Wait for Event mechanism and Send event", "Traps to EL2 of Non-secure EL0 and EL1 execution of WFE and WFI
//! instructions", "YIELD".

use crate::addr::{Gva, PAGE_SIZE};
use crate::fault::stage1;
use crate::machine::Machine;
use crate::registers::{Registers, pstate};
use crate::stage2::Stage2;

/// `WFE` and `YIELD`.
const HINTS: [u32; 2] = [0xd503_205f, 0xd503_203f];
/// Bytes before PC, and from PC on, that are looked at: Linux's loops, a load, a test, `SEVL`, `WFE`, a load again, a test and
/// `WFE`, are as long.
const REACH: u64 = 32;

/// Whether the vCPU is in a loop around a WFE or a YIELD. Nothing is mapped for the answer; `false` where the code cannot be read.
pub fn spins<M: Machine>(stage2: &Stage2, registers: &Registers, m: &mut M) -> bool {
    let pc = registers.pc;
    if registers.pstate & pstate::AARCH32 != 0 || !pc.is_multiple_of(4) {
        return false;
    }
    // The next page may be anywhere.
    let offset = pc % PAGE_SIZE;
    let before = REACH.min(offset);
    let size = before + REACH.min(PAGE_SIZE - offset);
    let mut code = [0; 2 * REACH as usize];
    let (code, _) = code.split_at_mut(size as usize);
    stage1::translate(stage2, Gva::new(pc - before), m)
        .and_then(|ipa| stage1::read(stage2, ipa, code, m))
        .is_some_and(|()| {
            let is_hint = |word| HINTS.iter().any(|hint| word == hint.to_le_bytes());
            code.chunks_exact(4).any(is_hint)
        })
}
