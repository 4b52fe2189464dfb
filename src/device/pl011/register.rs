//! Names of the PL011's registers and bits (DDI 0183 "Summary of registers"), as plain values.

/// A register, by its word in the 4 KiB page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    /// UARTDR: data.
    Data,
    /// UARTRSR/UARTECR: receive status; any write clears it.
    ReceiveStatus,
    /// UARTFR: flags.
    Flag,
    /// UARTILPR: IrDA low-power counter.
    IrdaCounter,
    /// UARTIBRD: integer baud rate divisor.
    IntegerBaudRate,
    /// UARTFBRD: fractional baud rate divisor.
    FractionalBaudRate,
    /// UARTLCR_H: line control.
    LineControl,
    /// UARTCR: control.
    Control,
    /// UARTIFLS: interrupt FIFO level select.
    FifoLevel,
    /// UARTIMSC: interrupt mask set/clear.
    InterruptMask,
    /// UARTRIS: raw interrupt status.
    RawInterrupt,
    /// UARTMIS: masked interrupt status.
    MaskedInterrupt,
    /// UARTICR: interrupt clear.
    InterruptClear,
    /// UARTDMACR: DMA control.
    DmaControl,
    /// UARTPeriphID0..3 and UARTPCellID0..3, by index.
    Identification(usize),
    /// Reserved: reads as zero, ignores writes.
    Reserved,
}

/// Offset of UARTPeriphID0; the eight identification registers fill the page from here.
const IDENTIFICATION: u64 = 0xfe0;

impl Register {
    /// The register at `offset` in the page. Every offset that is not a register's own is [`Register::Reserved`].
    pub(super) const fn at(offset: u64) -> Self {
        match offset {
            0x000 => Self::Data,
            0x004 => Self::ReceiveStatus,
            0x018 => Self::Flag,
            0x020 => Self::IrdaCounter,
            0x024 => Self::IntegerBaudRate,
            0x028 => Self::FractionalBaudRate,
            0x02c => Self::LineControl,
            0x030 => Self::Control,
            0x034 => Self::FifoLevel,
            0x038 => Self::InterruptMask,
            0x03c => Self::RawInterrupt,
            0x040 => Self::MaskedInterrupt,
            0x044 => Self::InterruptClear,
            0x048 => Self::DmaControl,
            IDENTIFICATION..=0xffc if offset.is_multiple_of(4) => {
                Self::Identification(((offset - IDENTIFICATION) / 4) as usize)
            }
            _ => Self::Reserved,
        }
    }
}

/// PeriphID0..3 and PCellID0..3: part 0x011, designer 0x41 (Arm), revision 1 (r1p0..r1p4: 16-byte FIFOs), as QEMU's.
pub(super) const IDENTIFICATION_BYTES: [u32; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// UARTDR and UARTRSR: errors that come with a received byte.
pub(super) mod receive {
    /// UARTDR.OE: a byte was lost because the FIFO was full.
    pub(in super::super) const DATA_OVERRUN: u32 = 1 << 11;
    /// UARTRSR.OE.
    pub(in super::super) const STATUS_OVERRUN: u32 = 1 << 3;
}

/// UARTFR.
pub(super) mod flag {
    /// Clear to send.
    pub(in super::super) const CTS: u32 = 1 << 0;
    /// Data set ready.
    pub(in super::super) const DSR: u32 = 1 << 1;
    /// Data carrier detect.
    pub(in super::super) const DCD: u32 = 1 << 2;
    /// Receive FIFO empty.
    pub(in super::super) const RXFE: u32 = 1 << 4;
    /// Receive FIFO full.
    pub(in super::super) const RXFF: u32 = 1 << 6;
    /// Transmit FIFO empty.
    pub(in super::super) const TXFE: u32 = 1 << 7;
    /// Ring indicator.
    pub(in super::super) const RI: u32 = 1 << 8;
}

/// UARTLCR_H.
pub(super) mod line_control {
    /// Enable FIFOs.
    pub(in super::super) const FEN: u32 = 1 << 4;
    /// The bits that exist.
    pub(in super::super) const MASK: u32 = 0xff;
}

/// UARTCR.
pub(super) mod control {
    /// Loopback enable.
    pub(in super::super) const LBE: u32 = 1 << 7;
    /// Data transmit ready.
    pub(in super::super) const DTR: u32 = 1 << 10;
    /// Request to send.
    pub(in super::super) const RTS: u32 = 1 << 11;
    /// Out1.
    pub(in super::super) const OUT1: u32 = 1 << 12;
    /// Out2.
    pub(in super::super) const OUT2: u32 = 1 << 13;
    /// The bits that exist.
    pub(in super::super) const MASK: u32 = 0xff87;
    /// Reset: TXE and RXE set, UARTEN clear.
    pub(in super::super) const RESET: u32 = 0x300;
}

/// UARTIFLS.
pub(super) mod fifo_level {
    /// Shift of RXIFLSEL.
    pub(in super::super) const RECEIVE_SHIFT: u32 = 3;
    /// The bits that exist.
    pub(in super::super) const MASK: u32 = 0x3f;
    /// Reset: both triggers at half full.
    pub(in super::super) const RESET: u32 = 0x12;
}

/// UARTIMSC, UARTRIS, UARTMIS, UARTICR.
pub(super) mod interrupt {
    /// Receive: the FIFO holds as much as UARTIFLS asks for.
    pub(in super::super) const RX: u32 = 1 << 4;
    /// Transmit.
    pub(in super::super) const TX: u32 = 1 << 5;
    /// Receive timeout: bytes wait in the FIFO.
    pub(in super::super) const RT: u32 = 1 << 6;
    /// Overrun.
    pub(in super::super) const OE: u32 = 1 << 10;
    /// The bits that exist.
    pub(in super::super) const MASK: u32 = 0x7ff;
}

/// Bits that exist in the registers that are only stored.
pub(super) mod stored {
    /// UARTILPR.
    pub(in super::super) const IRDA_COUNTER: u32 = 0xff;
    /// UARTIBRD.
    pub(in super::super) const INTEGER_BAUD_RATE: u32 = 0xffff;
    /// UARTFBRD.
    pub(in super::super) const FRACTIONAL_BAUD_RATE: u32 = 0x3f;
    /// UARTDMACR.
    pub(in super::super) const DMA_CONTROL: u32 = 0x7;
}
