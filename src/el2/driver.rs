//! Drivers: how EL2 talks to metal. (What a guest sees is a *device*, and lives in the library.)

pub(super) mod gic;
pub(super) mod ns16550;
pub(super) mod pl011;
pub(super) mod pl031;
pub(super) mod watchdog;

use faultline::addr::Pa;

/// Reads a 32-bit register.
///
/// # Safety
/// `base + offset` is a register of a device that EL2 has mapped.
unsafe fn read32(base: Pa, offset: u64) -> u32 {
    let value: u32;
    // SAFETY: the caller's promise; a plain LDR, which a hypervisor beneath us could emulate.
    unsafe {
        core::arch::asm!("ldr {:w}, [{}]", out(reg) value, in(reg) base.raw() + offset, options(nostack))
    };
    value
}

/// Writes a 32-bit register.
///
/// # Safety
/// As [`read32`]; and the write does to the device what the caller wants.
unsafe fn write32(base: Pa, offset: u64, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("str {:w}, [{}]", in(reg) value, in(reg) base.raw() + offset, options(nostack))
    };
}

/// Reads an 8-bit register.
///
/// # Safety
/// As [`read32`].
unsafe fn read8(base: Pa, offset: u64) -> u8 {
    let value: u32;
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("ldrb {:w}, [{}]", out(reg) value, in(reg) base.raw() + offset, options(nostack))
    };
    value as u8
}

/// Writes an 8-bit register.
///
/// # Safety
/// As [`write32`].
unsafe fn write8(base: Pa, offset: u64, value: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("strb {:w}, [{}]", in(reg) u32::from(value), in(reg) base.raw() + offset, options(nostack))
    };
}

/// Writes a 64-bit register.
///
/// # Safety
/// As [`write32`].
unsafe fn write64(base: Pa, offset: u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("str {}, [{}]", in(reg) value, in(reg) base.raw() + offset, options(nostack))
    };
}
