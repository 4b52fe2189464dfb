//! What a pCPU finds through TPIDR_EL2.

use aarch64_cpu::registers::TPIDR_EL2;
use faultline::registers::Registers;
use tock_registers::interfaces::Writeable;

/// A pCPU's block. Its first word is read by vectors.S.
#[repr(C)]
pub(super) struct PerCpu {
    /// Where the exit path saves the current vCPU's registers.
    registers: *mut Registers,
}

unsafe extern "C" {
    /// vectors.S: runs the guest until it exits; answers the vector.
    fn enter_guest(registers: *mut Registers) -> u64;
}

/// Runs the guest with these registers until it exits; answers the number of the vector.
pub(super) fn enter(registers: &mut Registers) -> u64 {
    let block = PerCpu { registers };
    TPIDR_EL2.set(&raw const block as u64);
    // SAFETY: stage 2, the traps and EL1's registers are set up for this vCPU (run.rs), which is ours alone; the block lives
    // until the exit has used it.
    unsafe { enter_guest(registers) }
}
