//! Unmodified drivers on the device models: what a guest does with `ldr` and `str` arrives here through `safe-mmio`'s
//! `custom-mmio` back end, one access at a time, as it would from a data abort.
//!
//! A driver gets a pointer into a window of addresses that are never dereferenced; the window says which device is
//! meant. One back end may be registered per test binary, so all drivers share this one. Devices live per thread: tests
//! run in parallel and never meet.

use arm_pl011_uart::{
    DataBits, FifoLevel, Interrupts, LineConfig, PL011Registers, Parity, StopBits, Uart,
};
use core::cell::RefCell;
use core::ptr::NonNull;
use faultline::device::Width;
use faultline::device::pl011::Pl011;
use safe_mmio::{MmioOps, UniqueMmioPointer, set_mmio_ops};
use std::fmt::Write;

/// Where the UART's page is for the driver.
const UART_BASE: u64 = 0x0900_0000;
const PAGE: u64 = 0x1000;

thread_local! {
    static BOARD: RefCell<Board> = const { RefCell::new(Board { uart: Pl011::new(), sent: Vec::new() }) };
}

/// The devices of one test, and what left them.
struct Board {
    uart: Pl011,
    sent: Vec<u8>,
}

impl Board {
    fn read(&mut self, address: u64, width: Width) -> u64 {
        match address.checked_sub(UART_BASE) {
            Some(offset @ 0..PAGE) => self.uart.read(offset, width),
            _ => panic!("read of {address:#x}, where there is no device"),
        }
    }

    fn write(&mut self, address: u64, width: Width, value: u64) {
        match address.checked_sub(UART_BASE) {
            Some(offset @ 0..PAGE) => self.sent.extend(self.uart.write(offset, width, value)),
            _ => panic!("write to {address:#x}, where there is no device"),
        }
    }
}

fn with_board<T>(act: impl FnOnce(&mut Board) -> T) -> T {
    BOARD.with_borrow_mut(act)
}

struct Trap;

macro_rules! trap {
    ($($read:ident $write:ident $integer:ty, $width:expr;)*) => {
        // SAFETY: no method uses its pointer as anything but a number, so there is nothing to keep.
        impl MmioOps for Trap {
            $(
                unsafe fn $read(src: *const $integer) -> $integer {
                    with_board(|board| board.read(src.addr() as u64, $width)) as $integer
                }
                unsafe fn $write(dst: *mut $integer, value: $integer) {
                    with_board(|board| board.write(dst.addr() as u64, $width, u64::from(value)));
                }
            )*
        }
    };
}

trap! {
    read_u8 write_u8 u8, Width::Byte;
    read_u16 write_u16 u16, Width::Half;
    read_u32 write_u32 u32, Width::Word;
    read_u64 write_u64 u64, Width::Double;
}

set_mmio_ops!(Trap);

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
