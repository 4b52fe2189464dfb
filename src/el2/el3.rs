//! Entered at EL3, without firmware: entry.S left a few instructions there that can do one store for us.

use core::sync::atomic::{AtomicBool, Ordering};

use faultline::addr::Pa;

/// The call: x1 = address, w2 = value. In the range that SMCCC leaves to SiP services.
pub(super) const STORE: u64 = 0xc200_f001;

static OWN_EL3: AtomicBool = AtomicBool::new(false);

/// Takes note of how we were entered.
pub(super) fn note(own_el3: bool) {
    OWN_EL3.store(own_el3, Ordering::Relaxed);
}

/// Whether EL3 is ours: there is no firmware to call.
pub(super) fn is_ours() -> bool {
    OWN_EL3.load(Ordering::Relaxed)
}

/// Stores a word as the Secure world.
///
/// # Safety
/// EL3 is ours, and `address` is a register of the interrupt controller.
pub(super) unsafe fn store(address: Pa, value: u32) {
    // SAFETY: entry.S answers this call with the store and touches x0 only.
    unsafe {
        core::arch::asm!(
            // SMC #0, which the assembler knows only with EL3 switched on.
            ".inst 0xd4000003",
            inout("x0") STORE => _,
            in("x1") address.raw(),
            in("x2") u64::from(value),
            options(nostack)
        );
    }
}
