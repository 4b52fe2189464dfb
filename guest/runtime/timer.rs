//! The virtual timer of EL1.
//!
//! Source: DDI 0487 "The Generic Timer in AArch64 state".
use crate::{read_sysreg, write_sysreg};

/// CNTV_CTL_EL0.ENABLE.
pub const ENABLE: u64 = 1;
/// CNTV_CTL_EL0.IMASK.
pub const IMASK: u64 = 1 << 1;
/// CNTV_CTL_EL0.ISTATUS.
pub const ISTATUS: u64 = 1 << 2;

/// Ticks per second.
pub fn frequency() -> u64 {
    read_sysreg!("CNTFRQ_EL0")
}

/// The virtual count.
pub fn now() -> u64 {
    // SAFETY: a barrier, so that the count is not read early.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) };
    read_sysreg!("CNTVCT_EL0")
}

/// Fires at this count.
pub fn set(at: u64) {
    write_sysreg!("CNTV_CVAL_EL0", at);
    write_sysreg!("CNTV_CTL_EL0", ENABLE);
}

/// Stops it.
pub fn stop() {
    write_sysreg!("CNTV_CTL_EL0", 0);
}

/// Lets this many milliseconds pass, busily.
pub fn spin_ms(milliseconds: u64) {
    let end = now() + frequency() * milliseconds / 1000;
    while now() < end {}
}
