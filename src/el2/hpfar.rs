//! `HPFAR_EL2`, which the architecture writes for some aborts only; elsewhere it is UNKNOWN.
//!
//! QEMU writes it for every stage-2 fault, so nothing there would ever show that it was believed too often. A build with
//! `--cfg faultline_poison` (`POISON=1`) therefore puts a wrong address where the architecture promises none; the guests
//! must not notice.
//!
//! Source: DDI 0487 `HPFAR_EL2`: "written for translation, access flag and address size faults in stage 2, and for stage 2
//! faults on a stage 1 walk".

use aarch64_cpu::registers::HPFAR_EL2;
use tock_registers::interfaces::Readable;

/// What it holds after an exit with this `ESR_EL2`.
pub(super) fn after(esr: u64) -> u64 {
    #[cfg(faultline_poison)]
    poison(esr);
    #[cfg(not(faultline_poison))]
    let _ = esr;
    HPFAR_EL2.get()
}

/// Overwrites it where it is UNKNOWN: on what is no abort, on permission faults but those of a walk, on external aborts.
///
/// Decoded here by itself, so that a mistake in [`faultline::exit`] cannot hide.
#[cfg(faultline_poison)]
fn poison(esr: u64) {
    /// Nowhere in any guest, and easily known again.
    const POISON: u64 = 0x0b_adba_dbad << 4;
    const S1PTW: u64 = 1 << 7;
    let is_abort = matches!(esr >> 26 & 0x3f, 0x20 | 0x24);
    let status = esr & 0x3f;
    let is_written = match status >> 2 {
        // Address size, translation, access flag; levels 0 to 3.
        0b00_00..=0b00_10 => true,
        0b00_11 => esr & S1PTW != 0,
        // Translation and address size at level -1.
        _ => matches!(status, 0b10_1001 | 0b10_1011),
    };
    if !(is_abort && is_written) {
        // SAFETY: the register tells what happened and decides nothing.
        unsafe { core::arch::asm!("msr hpfar_el2, {}", in(reg) POISON, options(nostack)) };
    }
}
