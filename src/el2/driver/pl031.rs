//! A PL031, read once: what time is it?
//!
//! Source: DDI 0224 "PrimeCell Real Time Clock (PL031)", RTCDR.

use faultline::addr::PaRange;

use super::read32;
use crate::el2::hyp_map::{self, TooRagged, Use};

/// Seconds since 1970.
pub(in crate::el2) fn read(registers: PaRange) -> Result<u64, TooRagged> {
    const RTCDR: u64 = 0;
    hyp_map::map(registers, Use::Device)?;
    // SAFETY: the device tree says that a PL031 is there, and it is mapped now.
    Ok(u64::from(unsafe { read32(registers.start, RTCDR) }))
}
