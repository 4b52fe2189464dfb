//! The guest's console: an Arm PL011 UART, as QEMU's `virt` board has it.
//!
//! Guarantees: a byte handed in by [`Pl011::receive`] is read by the guest once and in order; a byte the guest writes
//! comes out of [`Pl011::write`] at once; no access of any width at any offset fails. [`Pl011::has_room`] is the other
//! half of "no byte is lost": it is false while a guest that is still starting would throw bytes away.
//!
//! What is simpler than silicon: there is no bit clock. Transmission takes no time, so the transmit FIFO is always empty
//! and BUSY never set; the receive timeout (32 bit periods of silence) has always elapsed. There is no DMA, no IrDA, no
//! parity, framing or break error. Modem inputs read as deasserted outside loopback. As in QEMU, UARTEN, TXE and RXE
//! need not be set: bare-metal programs forget them.
//!
//! Accesses of 1, 2 and 4 bytes at a register's own offset act on it (a narrow write is zero-extended: the APB has no
//! byte strobes); 8 bytes are two words, low first; anything else reads as zero and ignores writes.
//!
//! Source: DDI 0183 r1p5 "PrimeCell UART (PL011) Technical Reference Manual", chapter 3 "Programmers Model".

mod fifo;
mod register;
#[cfg(test)]
mod tests;

use crate::device::Width;
use fifo::{DEPTH, Fifo};
use register::{
    IDENTIFICATION_BYTES, Register, control, fifo_level, flag, interrupt, line_control, receive,
    stored,
};

/// So many status reads in a row, with no other access between them, make a guest that polls.
///
/// Linux before its interrupts are on reads UARTFR at most twice in a row: its console waits for BUSY after one byte
/// and for TXFF before the next; the rest is margin, for what asks for status now and then. U-Boot and bare-metal programs that wait for input read it without end. (A program that
/// looks for input once between any two bytes it prints does the same accesses as Linux's console: it is given input when
/// it stops printing.)
const POLLING_READS: u8 = 32;

/// Offset of UARTDR, the data register.
pub const UARTDR: u64 = 0x000;
/// Offset of UARTFR, the flag register.
pub const UARTFR: u64 = 0x018;

/// A PL011 as one guest sees it.
#[derive(Clone, Debug)]
pub struct Pl011 {
    fifo: Fifo,
    line_control: u32,
    control: u32,
    fifo_level: u32,
    interrupt_mask: u32,
    /// UARTRIS bits that stay until UARTICR clears them. RX and RT are not among them: they follow the FIFO.
    latched: u32,
    /// UARTFR, kept up to date: it is read for every byte that a console sends.
    flags: u32,
    /// To send a byte changes nothing but [`Self::status_reads`]. Kept up to date.
    sends_plainly: bool,
    /// A byte was lost in loopback; UARTDR.OE until the next byte fits, UARTRSR.OE until UARTECR.
    data_overrun: bool,
    status_overrun: bool,
    status_reads: u8,
    irda_counter: u32,
    integer_baud_rate: u32,
    fractional_baud_rate: u32,
    dma_control: u32,
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Pl011 {
    /// A UART out of reset.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            fifo: Fifo::new(),
            line_control: 0,
            control: control::RESET,
            fifo_level: fifo_level::RESET,
            interrupt_mask: 0,
            latched: 0,
            flags: flag::TXFE | flag::RXFE,
            sends_plainly: false,
            data_overrun: false,
            status_overrun: false,
            status_reads: 0,
            irda_counter: 0,
            integer_baud_rate: 0,
            fractional_baud_rate: 0,
            dma_control: 0,
        }
    }

    /// A guest's read of `width` at `offset` in the UART's page.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        let low = u64::from(self.read_word(offset));
        let high = match width {
            Width::Double => u64::from(self.read_word(offset.wrapping_add(4))),
            _ => 0,
        };
        self.settle();
        (high << 32 | low) & width.mask()
    }

    /// A guest's write of `width` at `offset`; the byte it transmitted, if it did.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Option<u8> {
        let value = value & width.mask();
        let low = self.write_word(offset, value as u32);
        let sent = match width {
            // Only the word at offset 0 transmits, so at most one half of a double does.
            Width::Double => low.or(self.write_word(offset.wrapping_add(4), (value >> 32) as u32)),
            _ => low,
        };
        self.settle();
        sent
    }

    /// A read of UARTFR, if it changes neither [`Pl011::line`] nor [`Pl011::has_room`]; else nothing is done.
    #[inline]
    pub fn read_flags(&mut self) -> Option<u32> {
        if self.status_reads == POLLING_READS - 1 {
            return None;
        }
        self.status_reads = self.status_reads.saturating_add(1);
        Some(self.flags)
    }

    /// A write to UARTDR that sends its byte, if it changes neither [`Pl011::line`] nor [`Pl011::has_room`]; else nothing is
    /// done, and false is the answer.
    #[inline]
    pub fn send(&mut self) -> bool {
        if self.sends_plainly {
            self.status_reads = 0;
        }
        self.sends_plainly
    }

    /// The level of UARTINTR, the combined interrupt.
    #[must_use]
    pub const fn line(&self) -> bool {
        self.raw_interrupts() & self.interrupt_mask != 0
    }

    /// Whether a byte from outside may be handed in now.
    ///
    /// `interrupt_forwarded`: the guest has enabled this UART's interrupt in its interrupt controller.
    ///
    /// A person pipes input before the guest is up, and a starting guest discards what it finds: Linux's
    /// `pl011_startup` unmasks the receive interrupts for a moment (for NMI consoles), masks them, requests its
    /// interrupt, then reads and drops up to two FIFOs of bytes, and only then unmasks for good. So there is room only
    /// when the guest really listens, in one of two ways:
    ///
    /// - *By interrupt*: UARTIMSC has RXIM or RTIM set **and** the interrupt controller forwards the interrupt. The
    ///   second half tells the moment of Linux's start-up (not forwarded yet) from the end of it; either alone would
    ///   lose a FIFO of bytes. The whole FIFO may be filled.
    /// - *By polling*: it read UARTFR (or UARTRIS, UARTMIS) 32 times in a row without another access.
    ///   Reads of UARTDR do not end polling, everything else does. Only an empty FIFO is filled, so that a boot loader
    ///   that hands over to a kernel leaves at most the byte it was about to read.
    ///
    /// Ask again after every access to the UART and after the interrupt was enabled. In loopback the receiver is cut
    /// off from outside, and there is none.
    #[must_use]
    pub const fn has_room(&self, interrupt_forwarded: bool) -> bool {
        if self.is_loopback() {
            return false;
        }
        let by_interrupt = interrupt_forwarded && self.interrupts_on_input();
        let by_polling = self.status_reads >= POLLING_READS;
        (by_interrupt && self.fifo.len() < self.depth()) || (by_polling && self.fifo.is_empty())
    }

    /// Whether a byte that comes in asserts the line.
    #[must_use]
    pub const fn interrupts_on_input(&self) -> bool {
        self.interrupt_mask & (interrupt::RX | interrupt::RT) != 0
    }

    /// Takes in a byte from outside. Call it only when [`Pl011::has_room`]: in a full FIFO the byte is lost and an
    /// overrun reported to the guest, as in silicon.
    pub fn receive(&mut self, byte: u8) {
        self.take_in(byte);
        self.settle();
    }

    fn take_in(&mut self, byte: u8) {
        if self.fifo.len() < self.depth() && self.fifo.push(byte) {
            self.data_overrun = false;
        } else {
            self.data_overrun = true;
            self.status_overrun = true;
            self.latched |= interrupt::OE;
        }
    }

    fn read_word(&mut self, offset: u64) -> u32 {
        let register = Register::at(offset);
        self.note_access(register, false);
        match register {
            Register::Data => self.read_data(),
            Register::ReceiveStatus if self.status_overrun => receive::STATUS_OVERRUN,
            Register::ReceiveStatus | Register::InterruptClear | Register::Reserved => 0,
            Register::Flag => self.flags_now(),
            Register::IrdaCounter => self.irda_counter,
            Register::IntegerBaudRate => self.integer_baud_rate,
            Register::FractionalBaudRate => self.fractional_baud_rate,
            Register::LineControl => self.line_control,
            Register::Control => self.control,
            Register::FifoLevel => self.fifo_level,
            Register::InterruptMask => self.interrupt_mask,
            Register::RawInterrupt => self.raw_interrupts(),
            Register::MaskedInterrupt => self.raw_interrupts() & self.interrupt_mask,
            Register::DmaControl => self.dma_control,
            Register::Identification(index) => {
                IDENTIFICATION_BYTES.get(index).copied().unwrap_or(0)
            }
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) -> Option<u8> {
        let register = Register::at(offset);
        self.note_access(register, true);
        match register {
            Register::Data => return self.transmit(value as u8),
            Register::ReceiveStatus => self.status_overrun = false,
            Register::IrdaCounter => self.irda_counter = value & stored::IRDA_COUNTER,
            Register::IntegerBaudRate => self.integer_baud_rate = value & stored::INTEGER_BAUD_RATE,
            Register::FractionalBaudRate => {
                self.fractional_baud_rate = value & stored::FRACTIONAL_BAUD_RATE
            }
            // Bytes received stay when FEN changes: Linux sets FEN after it began to listen.
            Register::LineControl => self.line_control = value & line_control::MASK,
            Register::Control => self.control = value & control::MASK,
            Register::FifoLevel => self.fifo_level = value & fifo_level::MASK,
            Register::InterruptMask => self.interrupt_mask = value & interrupt::MASK,
            // RX and RT return at once while their bytes wait. Were they edges, a byte that came between a guest's
            // last read and its clear would wait for the next one; silicon has a bit period of distance there.
            Register::InterruptClear => self.latched &= !value,
            Register::DmaControl => self.dma_control = value & stored::DMA_CONTROL,
            Register::Flag
            | Register::RawInterrupt
            | Register::MaskedInterrupt
            | Register::Identification(_)
            | Register::Reserved => {}
        }
        None
    }

    /// Counts status reads in a row: the polling half of [`Pl011::has_room`].
    fn note_access(&mut self, register: Register, is_write: bool) {
        match register {
            Register::Flag | Register::RawInterrupt | Register::MaskedInterrupt if !is_write => {
                self.status_reads = self.status_reads.saturating_add(1);
            }
            Register::Data if !is_write => {}
            _ => self.status_reads = 0,
        }
    }

    fn read_data(&mut self) -> u32 {
        let overrun = if self.data_overrun {
            receive::DATA_OVERRUN
        } else {
            0
        };
        match self.fifo.pop() {
            Some(byte) => overrun | u32::from(byte),
            None => 0,
        }
    }

    fn transmit(&mut self, byte: u8) -> Option<u8> {
        // The byte has left by the time the write is done: the FIFO fell through its trigger level again.
        self.latched |= interrupt::TX;
        if self.is_loopback() {
            self.take_in(byte);
            return None;
        }
        Some(byte)
    }

    const fn is_loopback(&self) -> bool {
        self.control & control::LBE != 0
    }

    /// Bytes the receiver holds: the FIFO, or one holding register without it.
    const fn depth(&self) -> usize {
        if self.line_control & line_control::FEN != 0 {
            DEPTH
        } else {
            1
        }
    }

    /// Bytes at which RX is raised. RXIFLSEL: 1/8, 1/4, 1/2, 3/4, 7/8 full; the reserved values act as the last.
    const fn trigger(&self) -> usize {
        if self.line_control & line_control::FEN == 0 {
            return 1;
        }
        match self.fifo_level >> fifo_level::RECEIVE_SHIFT {
            0 => DEPTH / 8,
            1 => DEPTH / 4,
            2 => DEPTH / 2,
            3 => DEPTH / 4 * 3,
            _ => DEPTH / 8 * 7,
        }
    }

    const fn raw_interrupts(&self) -> u32 {
        let mut raw = self.latched;
        if self.fifo.len() >= self.trigger() {
            raw |= interrupt::RX;
        }
        if !self.fifo.is_empty() {
            raw |= interrupt::RT;
        }
        raw
    }

    /// Brings what is kept up to date there.
    const fn settle(&mut self) {
        self.flags = self.flags_now();
        self.sends_plainly = self.latched & interrupt::TX != 0
            && self.interrupt_mask & interrupt::TX == 0
            && !self.is_loopback()
            && self.status_reads < POLLING_READS;
    }

    const fn flags_now(&self) -> u32 {
        let mut flags = flag::TXFE;
        if self.fifo.is_empty() {
            flags |= flag::RXFE;
        }
        if self.fifo.len() >= self.depth() {
            flags |= flag::RXFF;
        }
        if self.is_loopback() {
            flags |= self.looped_modem_inputs();
        }
        flags
    }

    /// In loopback the modem outputs are fed to the inputs (DDI 0183 "Control Register, UARTCR", LBE).
    const fn looped_modem_inputs(&self) -> u32 {
        const WIRES: [(u32, u32); 4] = [
            (control::RTS, flag::CTS),
            (control::DTR, flag::DSR),
            (control::OUT1, flag::RI),
            (control::OUT2, flag::DCD),
        ];
        let mut inputs = 0;
        let mut wire = 0;
        while wire < WIRES.len() {
            if self.control & WIRES[wire].0 != 0 {
                inputs |= WIRES[wire].1;
            }
            wire += 1;
        }
        inputs
    }
}
