//! The PL011 under `arm-pl011-uart`.

use super::{UART_BASE, with_board};
use arm_pl011_uart::{
    DataBits, FifoLevel, Interrupts, LineConfig, PL011Registers, Parity, StopBits, Uart,
};
use core::ptr::NonNull;
use safe_mmio::UniqueMmioPointer;
use std::fmt::Write;

const LINE: LineConfig = LineConfig {
    data_bits: DataBits::Bits8,
    parity: Parity::None,
    stop_bits: StopBits::One,
};

fn uart() -> Uart<'static> {
    let registers = core::ptr::without_provenance_mut::<PL011Registers>(UART_BASE as usize);
    let registers = NonNull::new(registers).expect("the UART is not at zero");
    // SAFETY: every access through this pointer goes to `Trap`, which never dereferences it, and each test makes one.
    Uart::new(unsafe { UniqueMmioPointer::new(registers) })
}

/// Hands in as much of `bytes` as there is room for; the number of bytes taken.
fn type_in(bytes: &[u8]) -> usize {
    with_board(|board| {
        let mut taken = 0;
        for byte in bytes {
            if !board.uart.has_room(true) {
                break;
            }
            board.uart.receive(*byte);
            taken += 1;
        }
        taken
    })
}

#[test]
fn pl011_driver_accepts_the_identification() {
    let identification = uart().read_identification();
    assert!(identification.is_valid());
    assert_eq!(identification.revision_number, 1);
}

#[test]
fn pl011_driver_writes_text() {
    let mut uart = uart();
    uart.enable(LINE, 115_200, 24_000_000)
        .expect("a usual rate");
    writeln!(uart, "hello, driver {}", 1 + 1).expect("the driver never fails");
    assert!(uart.is_tx_fifo_empty() && !uart.is_tx_fifo_full() && !uart.is_busy());
    assert_eq!(with_board(|board| board.sent.clone()), b"hello, driver 2\n");
}

#[test]
fn pl011_driver_reads_by_polling_what_was_typed() {
    let mut uart = uart();
    uart.enable(LINE, 115_200, 24_000_000)
        .expect("a usual rate");
    let mut typed: &[u8] = b"every byte, in order";
    let mut seen = Vec::new();
    for _ in 0..200 {
        typed = &typed[type_in(typed)..];
        seen.extend(uart.read_word().expect("no line error"));
    }
    assert_eq!(seen, b"every byte, in order");
}

#[test]
fn pl011_driver_reads_by_interrupt_what_was_typed() {
    let mut uart = uart();
    uart.enable(LINE, 115_200, 24_000_000)
        .expect("a usual rate");
    uart.set_interrupt_fifo_levels(FifoLevel::Bytes16, FifoLevel::Bytes16);
    uart.clear_interrupts(Interrupts::all());
    uart.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
    let mut typed: &[u8] = b"more than one FIFO full of bytes, and all of them arrive";
    let mut seen = Vec::new();
    typed = &typed[type_in(typed)..];
    assert!(uart.is_rx_fifo_full());
    assert_eq!(
        uart.raw_interrupt_status(),
        Interrupts::RXI | Interrupts::RTI
    );
    while with_board(|board| board.uart.line()) {
        let pending = uart.masked_interrupt_status();
        uart.clear_interrupts(pending);
        while let Some(byte) = uart.read_word().expect("no line error") {
            seen.push(byte);
        }
        typed = &typed[type_in(typed)..];
    }
    assert_eq!(
        seen,
        b"more than one FIFO full of bytes, and all of them arrive"
    );
    assert_eq!(uart.masked_interrupt_status(), Interrupts::empty());
}
