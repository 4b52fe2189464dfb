//! A 16550 as the board's console, the Raspberry Pi's mini-UART among them: polled output, input by interrupt.
//!
//! Sources: National PC16550D data sheet; BCM2711 ARM Peripherals, "Auxiliaries", for the mini-UART's differences.

use faultline::addr::Pa;

use super::{read8, read32, write8, write32};

const RBR_THR: u64 = 0;
const IER: u64 = 1;
const LSR: u64 = 5;

/// Receive; and receiver line status, without which the BCM2835's mini-UART raises nothing.
const IER_RX: u8 = 1 << 0 | 1 << 2;
const LSR_DATA_READY: u8 = 1 << 0;
const LSR_THR_EMPTY: u8 = 1 << 5;
const LSR_IDLE: u8 = 1 << 6;

/// The UART.
pub(in crate::el2) struct Ns16550 {
    base: Pa,
    /// log2 of the distance of two registers.
    shift: u32,
    /// Registers are read and written as words.
    words: bool,
}

impl Ns16550 {
    /// The UART at `base`, its interrupts off.
    ///
    /// # Safety
    /// `base` is a 16550 with this register layout that EL2 owns and (once its MMU is on) has mapped.
    pub(in crate::el2) unsafe fn new(base: Pa, shift: u32, words: bool) -> Self {
        let uart = Self { base, shift, words };
        uart.write(IER, 0);
        uart
    }

    fn read(&self, register: u64) -> u8 {
        let offset = register << self.shift;
        // SAFETY: by `new`'s contract.
        unsafe {
            if self.words {
                read32(self.base, offset) as u8
            } else {
                read8(self.base, offset)
            }
        }
    }

    fn write(&self, register: u64, value: u8) {
        let offset = register << self.shift;
        // SAFETY: by `new`'s contract.
        unsafe {
            if self.words {
                write32(self.base, offset, value.into())
            } else {
                write8(self.base, offset, value)
            }
        }
    }

    /// Sends a byte, waiting for room.
    pub(in crate::el2) fn put(&self, byte: u8) {
        while self.read(LSR) & LSR_THR_EMPTY == 0 {}
        self.write(RBR_THR, byte);
    }

    /// Waits until the last byte has left.
    pub(in crate::el2) fn drain(&self) {
        while self.read(LSR) & LSR_IDLE == 0 {}
    }

    /// A byte that arrived, if one did.
    pub(in crate::el2) fn get(&self) -> Option<u8> {
        (self.read(LSR) & LSR_DATA_READY != 0).then(|| self.read(RBR_THR))
    }

    /// Whether input interrupts.
    pub(in crate::el2) fn interrupt_on_input(&self, on: bool) {
        self.write(IER, if on { IER_RX } else { 0 });
    }
}
