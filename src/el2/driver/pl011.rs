//! A PL011 as the board's console: polled output, input by interrupt. Line settings stay as firmware left them.
//!
//! Source: DDI 0183 "PrimeCell UART (PL011) Technical Reference Manual", programmer's model.

use faultline::addr::Pa;
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

register_bitfields! { u32,
    UARTFR [ RXFE OFFSET(4) NUMBITS(1) [], TXFF OFFSET(5) NUMBITS(1) [], BUSY OFFSET(3) NUMBITS(1) [] ],
    UARTLCR_H [ WLEN OFFSET(5) NUMBITS(2) [Eight = 3] ],
    UARTCR [ UARTEN OFFSET(0) NUMBITS(1) [], TXE OFFSET(8) NUMBITS(1) [], RXE OFFSET(9) NUMBITS(1) [] ],
    UARTINT [ RX OFFSET(4) NUMBITS(1) [], RT OFFSET(6) NUMBITS(1) [] ]
}

register_structs! {
    Registers {
        (0x000 => dr: ReadWrite<u32>),
        (0x004 => _reserved0),
        (0x018 => fr: ReadOnly<u32, UARTFR::Register>),
        (0x01c => _reserved1),
        (0x02c => lcr_h: ReadWrite<u32, UARTLCR_H::Register>),
        (0x030 => cr: ReadWrite<u32, UARTCR::Register>),
        (0x034 => ifls: ReadWrite<u32>),
        (0x038 => imsc: ReadWrite<u32, UARTINT::Register>),
        (0x03c => ris: ReadOnly<u32>),
        (0x040 => mis: ReadOnly<u32>),
        (0x044 => icr: WriteOnly<u32>),
        (0x048 => @END),
    }
}

/// The UART.
pub(in crate::el2) struct Pl011 {
    base: Pa,
}

impl Pl011 {
    /// The PL011 at `base`, enabled if firmware did not, its interrupts off.
    ///
    /// # Safety
    /// `base` is a PL011 that EL2 owns and (once its MMU is on) has mapped.
    pub(in crate::el2) unsafe fn new(base: Pa) -> Self {
        let uart = Self { base };
        let registers = uart.registers();
        registers.imsc.set(0);
        registers.icr.set(0x7ff);
        if !registers.cr.is_set(UARTCR::UARTEN) {
            // The FIFOs stay as they are: switching them on drops a byte that was typed already.
            registers.lcr_h.modify(UARTLCR_H::WLEN::Eight);
            registers
                .cr
                .write(UARTCR::UARTEN::SET + UARTCR::TXE::SET + UARTCR::RXE::SET);
        }
        uart
    }

    fn registers(&self) -> &Registers {
        // SAFETY: by `new`'s contract the block is ours and mapped; the reference does not outlive the call.
        unsafe { &*super::super::machine::identity::<Registers>(self.base) }
    }

    /// Sends a byte, waiting for room.
    pub(in crate::el2) fn put(&self, byte: u8) {
        while self.registers().fr.is_set(UARTFR::TXFF) {}
        self.registers().dr.set(u32::from(byte));
    }

    /// Waits until the last byte has left.
    pub(in crate::el2) fn drain(&self) {
        while self.registers().fr.is_set(UARTFR::BUSY) {}
    }

    /// A byte that arrived, if one did.
    pub(in crate::el2) fn get(&self) -> Option<u8> {
        let registers = self.registers();
        (!registers.fr.is_set(UARTFR::RXFE)).then(|| registers.dr.get() as u8)
    }

    /// Whether input interrupts. Off, bytes stay where they are and the sender waits.
    pub(in crate::el2) fn interrupt_on_input(&self, on: bool) {
        self.registers()
            .imsc
            .modify(UARTINT::RX.val(u32::from(on)) + UARTINT::RT.val(u32::from(on)));
    }
}
