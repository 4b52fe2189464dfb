//! Oracles: DDI 0183's text and numbers, and the access sequences of real drivers, written out here as raw offsets.

use super::Pl011;
use crate::device::Width;
use proptest::prelude::*;
use std::collections::VecDeque;

const DR: u64 = 0x000;
const RSR: u64 = 0x004;
const FR: u64 = 0x018;
const LCR_H: u64 = 0x02c;
const CR: u64 = 0x030;
const IFLS: u64 = 0x034;
const IMSC: u64 = 0x038;
const RIS: u64 = 0x03c;
const MIS: u64 = 0x040;
const ICR: u64 = 0x044;

const RXFE: u64 = 1 << 4;
const RXFF: u64 = 1 << 6;
const RXI: u64 = 1 << 4;
const TXI: u64 = 1 << 5;
const RTI: u64 = 1 << 6;
const OEI: u64 = 1 << 10;
const FEN: u64 = 1 << 4;
const LBE: u64 = 1 << 7;

fn read(uart: &mut Pl011, offset: u64) -> u64 {
    uart.read(offset, Width::Word)
}

fn write(uart: &mut Pl011, offset: u64, value: u64) -> Option<u8> {
    uart.write(offset, Width::Word, value)
}

fn with_fifo(rx_level: u64) -> Pl011 {
    let mut uart = Pl011::new();
    write(&mut uart, LCR_H, 0x70);
    write(&mut uart, IFLS, rx_level << 3);
    uart
}

#[test]
fn reset_values_are_those_of_the_manual() {
    // DDI 0183 "Summary of registers", column "Reset value"; UARTFR's modem bits are inputs, low here.
    for (offset, value) in [
        (RSR, 0),
        (FR, 0x90),
        (0x20, 0),
        (0x24, 0),
        (0x28, 0),
        (LCR_H, 0),
        (CR, 0x300),
        (IFLS, 0x12),
        (IMSC, 0),
        (RIS, 0),
        (MIS, 0),
        (0x48, 0),
    ] {
        assert_eq!(
            read(&mut Pl011::new(), offset),
            value,
            "register {offset:#x}"
        );
    }
}

#[test]
fn identifies_as_an_arm_pl011_revision_one() {
    let mut uart = Pl011::new();
    let id: Vec<u64> = (0xfe0..0x1000)
        .step_by(4)
        .map(|offset| read(&mut uart, offset))
        .collect();
    assert_eq!(id, [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn written_bytes_leave_at_once_with_every_width() {
    let mut uart = Pl011::new();
    for width in [Width::Byte, Width::Half, Width::Word, Width::Double] {
        assert_eq!(
            uart.write(DR, width, 0x1_0000_0041),
            Some(0x41),
            "{width:?}"
        );
    }
    assert_eq!(
        read(&mut uart, FR),
        0x90,
        "the transmit FIFO is empty, the UART is not busy"
    );
}

#[test]
fn an_eight_byte_access_is_two_words_low_first() {
    let mut uart = Pl011::new();
    uart.write(0x28, Width::Double, 0x0000_0070_0000_0015);
    assert_eq!(read(&mut uart, 0x28), 0x15);
    assert_eq!(read(&mut uart, LCR_H), 0x70);
    assert_eq!(uart.read(0x28, Width::Double), 0x0000_0070_0000_0015);
}

#[test]
fn between_registers_reads_are_zero_and_writes_ignored() {
    let mut uart = with_fifo(0);
    uart.receive(b'x');
    for offset in [
        0x001,
        0x002,
        0x003,
        0x008,
        0x01c,
        0x031,
        0x04c,
        0xfdc,
        0x1000,
        u64::MAX,
    ] {
        assert_eq!(uart.read(offset, Width::Byte), 0, "offset {offset:#x}");
        assert_eq!(
            uart.write(offset, Width::Byte, 0xff),
            None,
            "offset {offset:#x}"
        );
    }
    assert_eq!(
        read(&mut uart, DR),
        u64::from(b'x'),
        "and no byte was taken"
    );
}

#[test]
fn receive_interrupt_follows_the_trigger_levels_of_the_manual() {
    // DDI 0183 "Interrupt FIFO level select register, UARTIFLS": 1/8, 1/4, 1/2, 3/4, 7/8 of 16.
    for (level, trigger) in [(0, 2), (1, 4), (2, 8), (3, 12), (4, 14)] {
        let mut uart = with_fifo(level);
        for count in 1..=16 {
            uart.receive(0);
            assert_eq!(
                read(&mut uart, RIS) & RXI != 0,
                count >= trigger,
                "level {level}, {count} bytes"
            );
        }
        for left in (0..16).rev() {
            read(&mut uart, DR);
            assert_eq!(
                read(&mut uart, RIS) & RXI != 0,
                left >= trigger,
                "level {level}, {left} bytes left"
            );
        }
    }
}

#[test]
fn receive_timeout_is_raised_while_any_byte_waits() {
    let mut uart = with_fifo(4);
    assert_eq!(read(&mut uart, RIS), 0);
    uart.receive(b'a');
    uart.receive(b'b');
    assert_eq!(read(&mut uart, RIS), RTI);
    read(&mut uart, DR);
    assert_eq!(read(&mut uart, RIS), RTI);
    read(&mut uart, DR);
    assert_eq!(read(&mut uart, RIS), 0);
}

#[test]
fn clearing_interrupts_before_reading_strands_no_byte() {
    let mut uart = with_fifo(0);
    write(&mut uart, IMSC, RXI | RTI);
    uart.receive(b'a');
    write(&mut uart, ICR, 0x7ff);
    assert!(
        uart.line(),
        "a byte waits, so the interrupt is still asked for"
    );
    read(&mut uart, DR);
    assert!(!uart.line());
}

#[test]
fn without_fifo_one_byte_fills_the_receiver() {
    let mut uart = Pl011::new();
    write(&mut uart, IMSC, RXI);
    assert!(uart.has_room(true));
    uart.receive(b'a');
    assert!(!uart.has_room(true));
    assert_eq!(read(&mut uart, FR) & (RXFE | RXFF), RXFF);
    assert_eq!(read(&mut uart, MIS), RXI);
    assert_eq!(read(&mut uart, DR), u64::from(b'a'));
    assert_eq!(read(&mut uart, FR) & (RXFE | RXFF), RXFE);
}

#[test]
fn an_empty_data_register_reads_as_zero() {
    assert_eq!(read(&mut Pl011::new(), DR), 0);
}

#[test]
fn transmit_interrupt_is_a_transition_not_a_level() {
    // DDI 0183 "UARTTXINTR": "based on a transition through a level, rather than on the level itself".
    let mut uart = with_fifo(0);
    write(&mut uart, IMSC, TXI);
    assert!(!uart.line(), "nothing was ever sent");
    write(&mut uart, DR, 0x41);
    assert!(uart.line());
    write(&mut uart, ICR, TXI);
    assert!(!uart.line());
    write(&mut uart, DR, 0x42);
    assert!(uart.line());
}

#[test]
fn the_mask_gates_the_line_and_the_masked_status_only() {
    let mut uart = with_fifo(0);
    write(&mut uart, DR, 0);
    assert_eq!(
        (read(&mut uart, RIS), read(&mut uart, MIS), uart.line()),
        (TXI, 0, false)
    );
    write(&mut uart, IMSC, TXI);
    assert_eq!(
        (read(&mut uart, RIS), read(&mut uart, MIS), uart.line()),
        (TXI, TXI, true)
    );
}

#[test]
fn loopback_returns_bytes_and_modem_outputs_and_nothing_leaves() {
    let mut uart = with_fifo(0);
    // RTS, Out1 | DTR, Out2 to CTS, RI | DSR, DCD.
    write(&mut uart, CR, LBE | 1 << 11 | 1 << 12);
    assert_eq!(read(&mut uart, FR), 0x90 | 1 | 1 << 8);
    write(&mut uart, CR, LBE | 1 << 10 | 1 << 13);
    assert_eq!(read(&mut uart, FR), 0x90 | 1 << 1 | 1 << 2);
    for byte in *b"loop" {
        assert_eq!(write(&mut uart, DR, u64::from(byte)), None);
    }
    let back: Vec<u8> = (0..4).map(|_| read(&mut uart, DR) as u8).collect();
    assert_eq!(back, *b"loop");
}

#[test]
fn loopback_overrun_is_reported_and_cleared_as_the_manual_says() {
    let mut uart = with_fifo(0);
    write(&mut uart, CR, LBE);
    for byte in 0..17 {
        write(&mut uart, DR, byte);
    }
    assert_eq!(read(&mut uart, RSR), 1 << 3);
    assert_eq!(read(&mut uart, RIS) & OEI, OEI);
    assert_eq!(read(&mut uart, DR), 1 << 11, "byte 0 with OE");
    write(&mut uart, DR, 0x55);
    assert_eq!(
        read(&mut uart, DR),
        1,
        "OE is gone once a byte fitted again"
    );
    write(&mut uart, RSR, 0);
    write(&mut uart, ICR, OEI);
    assert_eq!(read(&mut uart, RSR), 0);
    assert_eq!(read(&mut uart, RIS) & OEI, 0);
}

#[test]
fn loopback_cuts_the_outside_off() {
    let mut uart = with_fifo(0);
    write(&mut uart, IMSC, RXI);
    write(&mut uart, CR, LBE);
    assert!(!uart.has_room(true));
}

#[test]
fn a_silent_guest_is_given_nothing() {
    let mut uart = Pl011::new();
    assert!(!uart.has_room(true));
    for _ in 0..100 {
        write(&mut uart, DR, 0x2e);
    }
    assert!(!uart.has_room(true));
}

#[test]
fn a_polling_guest_is_given_one_byte_at_a_time() {
    let mut uart = Pl011::new();
    for _ in 0..31 {
        read(&mut uart, FR);
        assert!(!uart.has_room(false));
    }
    read(&mut uart, FR);
    for byte in *b"ls\n" {
        assert!(uart.has_room(false));
        uart.receive(byte);
        assert!(!uart.has_room(false), "the byte before is not read yet");
        assert_eq!(read(&mut uart, FR) & RXFE, 0);
        assert_eq!(read(&mut uart, DR), u64::from(byte));
    }
    assert!(uart.has_room(false), "reading data did not end polling");
    write(&mut uart, DR, 0x24);
    assert!(!uart.has_room(false), "writing did");
}

#[test]
fn interrupts_that_the_controller_does_not_forward_are_not_listened_to() {
    let mut uart = with_fifo(0);
    write(&mut uart, IMSC, RXI | RTI);
    assert!(!uart.has_room(false));
    assert!(uart.has_room(true));
}

/// A guest at work on its UART while a person's bytes wait: after every access, what there is room for is handed in.
struct Session {
    uart: Pl011,
    waiting: VecDeque<u8>,
    forwarded: bool,
}

impl Session {
    fn read(&mut self, offset: u64) -> u64 {
        let value = read(&mut self.uart, offset);
        self.offer();
        value
    }

    fn write(&mut self, offset: u64, value: u64) {
        write(&mut self.uart, offset, value);
        self.offer();
    }

    fn offer(&mut self) {
        while self.uart.has_room(self.forwarded)
            && let Some(byte) = self.waiting.pop_front()
        {
            self.uart.receive(byte);
        }
    }
}

/// Linux 6.12, drivers/tty/serial/amba-pl011.c: what its early console, probe, `pl011_startup`, `pl011_set_termios` and
/// interrupt handler do to the device.
#[test]
fn no_byte_is_lost_to_the_start_up_of_linux() {
    let typed = b"uname -a\npoweroff\n, and more than two FIFOs hold in all";
    let mut linux = Session {
        uart: Pl011::new(),
        waiting: typed.iter().copied().collect(),
        forwarded: false,
    };
    // earlycon: wait for room, write, wait until it left.
    for byte in *b"Booting Linux\n" {
        linux.read(FR);
        linux.write(DR, u64::from(byte));
        linux.read(FR);
    }
    // The AMBA bus reads the identification; pl011_probe masks and clears.
    for offset in (0xfe0..0x1000).step_by(4) {
        linux.read(offset);
    }
    linux.write(IMSC, 0);
    linux.write(ICR, 0xffff);
    // pl011_hwinit unmasks RX and RT for NMI consoles; pl011_allocate_irq masks again and requests the interrupt.
    linux.write(ICR, 0x7d0);
    linux.read(IMSC);
    linux.write(IMSC, RXI | RTI);
    linux.write(IMSC, 0);
    linux.forwarded = true;
    linux.write(IFLS, 0x12);
    linux.read(CR);
    linux.write(CR, 0x301);
    linux.read(FR);
    // pl011_enable_interrupts clears, drains up to two FIFOs, unmasks.
    linux.write(ICR, RTI | RXI);
    for _ in 0..32 {
        if linux.read(FR) & RXFE != 0 {
            break;
        }
        linux.read(DR);
    }
    linux.write(IMSC, RTI | RXI);
    // pl011_set_termios turns the FIFO on only now.
    linux.read(CR);
    linux.write(CR, 0);
    linux.write(LCR_H, 0x70);
    linux.write(CR, 0x301);
    // pl011_int reads while RIS says so, until the FIFO is empty.
    let mut seen = Vec::new();
    while linux.uart.line() {
        while linux.read(RIS) & (RXI | RTI) != 0 {
            while linux.read(FR) & RXFE == 0 {
                seen.push(linux.read(DR) as u8);
            }
        }
    }
    assert_eq!(seen, typed);
}

#[test]
fn linux_transmits_by_interrupt_to_the_last_byte() {
    // pl011_start_tx: write while TXFF is clear, then unmask TXIM; pl011_int: up to half a FIFO per TXIS, mask when done.
    let text: Vec<u8> = (0..100).collect();
    let mut left: VecDeque<u8> = text.iter().copied().collect();
    let mut uart = with_fifo(2);
    let mut sent = Vec::new();
    sent.extend(write(&mut uart, DR, u64::from(left.pop_front().unwrap())));
    write(&mut uart, IMSC, TXI);
    while uart.line() {
        assert_eq!(read(&mut uart, RIS) & TXI, TXI);
        write(&mut uart, ICR, 0);
        for _ in 0..8 {
            match left.pop_front() {
                Some(byte) => sent.extend(write(&mut uart, DR, u64::from(byte))),
                None => drop(write(&mut uart, IMSC, 0)),
            }
        }
    }
    assert_eq!(sent, text);
}

fn any_width() -> impl Strategy<Value = Width> {
    prop_oneof![
        Just(Width::Byte),
        Just(Width::Half),
        Just(Width::Word),
        Just(Width::Double)
    ]
}

proptest! {
    #[test]
    fn any_access_anywhere_is_answered_within_its_width(
        accesses in prop::collection::vec((any::<bool>(), prop_oneof![0u64..0x50, 0u64..0x2000, any::<u64>()],
            any_width(), any::<u64>(), any::<u8>()), 0..200)
    ) {
        let mut uart = Pl011::new();
        for (is_write, offset, width, value, byte) in accesses {
            if is_write {
                uart.write(offset, width, value);
            } else {
                prop_assert_eq!(uart.read(offset, width) & !width.mask(), 0);
            }
            uart.receive(byte);
        }
    }

    #[test]
    fn bytes_in_are_bytes_out_in_order(
        steps in prop::collection::vec(prop_oneof![any::<u8>().prop_map(Some), Just(None)], 0..400),
        fifo: bool,
    ) {
        let mut uart = Pl011::new();
        write(&mut uart, LCR_H, if fifo { FEN } else { 0 });
        write(&mut uart, IMSC, RXI);
        let mut expected = VecDeque::new();
        for step in steps {
            match step {
                Some(byte) if uart.has_room(true) => {
                    uart.receive(byte);
                    expected.push_back(byte);
                }
                Some(_) => prop_assert_eq!(expected.len(), if fifo { 16 } else { 1 }),
                None if read(&mut uart, FR) & RXFE == 0 => {
                    prop_assert_eq!(Some(read(&mut uart, DR) as u8), expected.pop_front());
                }
                None => prop_assert!(expected.is_empty()),
            }
        }
    }
}
