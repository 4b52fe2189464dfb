//! The Broadcom power-management watchdog: the way to end a Raspberry Pi without PSCI.
//!
//! The firmware reads the partition number in PM_RSTS after the reset; 63 means "stay off".
//! Source: Linux binding `brcm,bcm2835-pm`; BCM2835 register behaviour as documented by its drivers.

use faultline::addr::PaRange;

use super::{read32, write32};
use crate::el2::hyp_map::{self, Use};

const PM_RSTC: u64 = 0x1c;
const PM_RSTS: u64 = 0x20;
const PM_WDOG: u64 = 0x24;

const PASSWORD: u32 = 0x5a00_0000;
const RSTC_FULL_RESET: u32 = 0x20;
const RSTC_CONFIG_MASK: u32 = 0xffff_ffcf;
/// Partition 63, whose bits are spread over the even ones.
const RSTS_HALT: u32 = 0x555;
const TICKS: u32 = 10;

/// Halts the board: it resets within a millisecond and its firmware leaves it off.
pub(in crate::el2) fn halt(registers: PaRange) {
    if hyp_map::map(registers, Use::Device).is_err() {
        return;
    }
    // SAFETY: the device tree says that the watchdog is there, it is mapped now, and the machine is to end.
    unsafe {
        let status = read32(registers.start, PM_RSTS);
        write32(registers.start, PM_RSTS, PASSWORD | status | RSTS_HALT);
        write32(registers.start, PM_WDOG, PASSWORD | TICKS);
        let control = read32(registers.start, PM_RSTC) & RSTC_CONFIG_MASK;
        write32(
            registers.start,
            PM_RSTC,
            PASSWORD | control | RSTC_FULL_RESET,
        );
    }
}
