//! A piece of code run at EL0, and the way back.
//!
//! Source: DDI 0487 "Exception return"; SVC.
use crate::trap::{Frame, class};
use core::arch::global_asm;

/// The SVC immediate by which code at EL0 ends.
pub const FAREWELL: u16 = 0xfa7e;

/// SPSR_EL1 of EL0t with all of DAIF set.
const EL0_MASKED: u64 = 0x3c0;
/// SPSR_EL1.D.
const SPSR_D: u64 = 1 << 9;
/// SPSR_EL1 of EL1h with all of DAIF set.
const EL1H_MASKED: u64 = 0x3c5;

unsafe extern "C" {
    fn guest_enter_el0(code: u64, argument: u64, stack: u64, spsr: u64) -> u64;
    fn guest_leave_el0();
}

global_asm!(
    ".pushsection .text.el0, \"ax\"",
    // x0 = code, x1 = argument, x2 = stack, x3 = SPSR_EL1: keeps what a call must keep on our own stack and drops to EL0t.
    "guest_enter_el0:",
    "sub   sp, sp, #112",
    "stp   x19, x20, [sp]",
    "stp   x21, x22, [sp, #16]",
    "stp   x23, x24, [sp, #32]",
    "stp   x25, x26, [sp, #48]",
    "stp   x27, x28, [sp, #64]",
    "stp   x29, x30, [sp, #80]",
    "msr   elr_el1, x0",
    "mov   x0, x1",
    "msr   sp_el0, x2",
    "msr   spsr_el1, x3",
    "eret",
    // Returned to by the exception that said farewell, with SP as it was above and x0 as EL0 left it.
    "guest_leave_el0:",
    "ldp   x19, x20, [sp]",
    "ldp   x21, x22, [sp, #16]",
    "ldp   x23, x24, [sp, #32]",
    "ldp   x25, x26, [sp, #48]",
    "ldp   x27, x28, [sp, #64]",
    "ldp   x29, x30, [sp, #80]",
    "add   sp, sp, #112",
    "ret",
    ".popsection",
);

/// Runs `code` at EL0 with `argument` in x0 on `stack` until it says `svc #0xfa7e`; answers its x0.
///
/// # Safety
/// `code` must be A64 code that ends so, touches no memory of Rust's, and may clobber what a call may.
pub unsafe fn run(code: u64, argument: u64, stack: u64) -> u64 {
    // SAFETY: the assembly keeps the callee-saved registers; the rest is the caller's promise.
    unsafe { guest_enter_el0(code, argument, stack, EL0_MASKED) }
}

/// The same with debug exceptions let in, and more bits of PSTATE.
///
/// # Safety
/// As for [`run`].
pub unsafe fn run_with(code: u64, argument: u64, stack: u64, pstate: u64) -> u64 {
    let spsr = EL0_MASKED & !SPSR_D | pstate;
    // SAFETY: the assembly keeps the callee-saved registers; the rest is the caller's promise.
    unsafe { guest_enter_el0(code, argument, stack, spsr) }
}

/// Whether this exception is EL0's last.
pub fn is_farewell(frame: &Frame) -> bool {
    frame.class() == class::SVC64 && frame.vector == 0x400 && frame.iss() == u64::from(FAREWELL)
}

/// Turns the exception's return into the return of [`run`].
pub fn leave(frame: &mut Frame) {
    frame.elr = guest_leave_el0 as *const () as u64;
    frame.spsr = EL1H_MASKED;
}
