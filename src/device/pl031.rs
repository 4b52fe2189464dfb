//! The guest's time of day: an Arm PL031 real-time clock, as QEMU's `virt` board has it.
//!
//! A 32-bit counter of seconds that runs from the moment the VM's clock does, and one match interrupt. The model keeps no
//! time: whoever owns it says how many seconds have passed since the VM's clock base. Passing time raises the interrupt in
//! [`Pl031::advance`], which every access does as well; [`Pl031::seconds_to_match`] says when it will be worth a call.
//!
//! Accesses of 1, 2 and 4 bytes at a register's own offset act on it, 8 bytes are two words, low first; anything else reads
//! as zero and ignores writes. The clock is always running: RTCCR reads as one and ignores writes.
//!
//! Source: DDI 0224 "PrimeCell Real Time Clock (PL031) Technical Reference Manual", chapter 3 "Programmer's Model".

#[cfg(test)]
mod tests;

use crate::device::Width;

/// RTCDR: the seconds now.
const DATA: u64 = 0x00;
/// RTCMR: the seconds at which to interrupt.
const MATCH: u64 = 0x04;
/// RTCLR: sets the seconds.
const LOAD: u64 = 0x08;
/// RTCCR: start.
const CONTROL: u64 = 0x0c;
/// RTCIMSC: interrupt mask set or clear.
const INTERRUPT_MASK: u64 = 0x10;
/// RTCRIS: raw interrupt status.
const RAW_INTERRUPT: u64 = 0x14;
/// RTCMIS: masked interrupt status.
const MASKED_INTERRUPT: u64 = 0x18;
/// RTCICR: interrupt clear.
const INTERRUPT_CLEAR: u64 = 0x1c;
/// RTCPeriphID0; the eight identification registers fill the page from here.
const IDENTIFICATION: u64 = 0xfe0;

/// RTCPeriphID0..3 and RTCPCellID0..3.
const IDENTIFICATION_BYTES: [u32; 8] = [0x31, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The one interrupt's bit in RTCIMSC, RTCRIS, RTCMIS and RTCICR.
const INTERRUPT: u32 = 1;

/// A PL031 as one guest sees it.
#[derive(Clone, Debug)]
pub struct Pl031 {
    /// What the counter showed at the VM's clock base.
    base: u32,
    match_value: u32,
    load_value: u32,
    mask: u32,
    raised: bool,
    /// The last `now` the counter was looked at.
    seen: u64,
}

impl Pl031 {
    /// A clock that shows `epoch_seconds` (since 1970, its low 32 bits) at the VM's clock base.
    #[must_use]
    pub const fn new(epoch_seconds: u64) -> Self {
        Self {
            base: epoch_seconds as u32,
            match_value: 0,
            load_value: epoch_seconds as u32,
            mask: 0,
            raised: false,
            seen: 0,
        }
    }

    /// A guest's read of `width` at `offset` in the clock's page, `now` seconds after the VM's clock base.
    pub fn read(&mut self, offset: u64, width: Width, now: u64) -> u64 {
        self.advance(now);
        let low = u64::from(self.read_word(offset, now));
        let high = match width {
            Width::Double => u64::from(self.read_word(offset.wrapping_add(4), now)),
            _ => 0,
        };
        (high << 32 | low) & width.mask()
    }

    /// A guest's write of `width` at `offset`, `now` seconds after the VM's clock base.
    pub fn write(&mut self, offset: u64, width: Width, value: u64, now: u64) {
        self.advance(now);
        let value = value & width.mask();
        self.write_word(offset, value as u32, now);
        if width == Width::Double {
            self.write_word(offset.wrapping_add(4), (value >> 32) as u32, now);
        }
    }

    /// The level of RTCINTR as of the last access or [`Pl031::advance`].
    #[must_use]
    pub const fn line(&self) -> bool {
        self.raised && self.mask & INTERRUPT != 0
    }

    /// Lets time pass to `now`; raises the interrupt if the counter has shown the match value meanwhile.
    ///
    /// A `now` before one already seen changes nothing.
    pub fn advance(&mut self, now: u64) {
        let Some(passed) = now.checked_sub(self.seen) else {
            return;
        };
        if self.distance_to_match(self.seen) <= passed {
            self.raised = true;
        }
        self.seen = now;
    }

    /// Seconds from the last look at the clock until its line will rise by itself; `None` if it will not or is up.
    #[must_use]
    pub const fn seconds_to_match(&self) -> Option<u64> {
        if self.raised || self.mask & INTERRUPT == 0 {
            return None;
        }
        Some(self.distance_to_match(self.seen))
    }

    const fn counter(&self, now: u64) -> u32 {
        self.base.wrapping_add(now as u32)
    }

    /// Seconds from `now` until the counter next *becomes* the match value: 1 to 2^32, the latter when it shows it now.
    const fn distance_to_match(&self, now: u64) -> u64 {
        let distance = self.match_value.wrapping_sub(self.counter(now));
        if distance == 0 {
            1 << 32
        } else {
            distance as u64
        }
    }

    fn read_word(&self, offset: u64, now: u64) -> u32 {
        let raw = if self.raised { INTERRUPT } else { 0 };
        match offset {
            DATA => self.counter(now),
            MATCH => self.match_value,
            LOAD => self.load_value,
            CONTROL => 1,
            INTERRUPT_MASK => self.mask,
            RAW_INTERRUPT => raw,
            MASKED_INTERRUPT => raw & self.mask,
            IDENTIFICATION..=0xffc if offset.is_multiple_of(4) => {
                let index = ((offset - IDENTIFICATION) / 4) as usize;
                IDENTIFICATION_BYTES.get(index).copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn write_word(&mut self, offset: u64, value: u32, now: u64) {
        match offset {
            MATCH => self.match_value = value,
            LOAD => {
                self.load_value = value;
                self.base = value.wrapping_sub(now as u32);
            }
            INTERRUPT_MASK => self.mask = value & INTERRUPT,
            INTERRUPT_CLEAR if value & INTERRUPT != 0 => self.raised = false,
            _ => {}
        }
        // The comparator has no edge: a value set to what the counter shows matches at once.
        if matches!(offset, MATCH | LOAD) && self.counter(now) == self.match_value {
            self.raised = true;
        }
    }
}
