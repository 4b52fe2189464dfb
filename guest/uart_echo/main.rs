//! Console input: one line polled, one line by interrupt, every byte of it. The harness types both, at once or in turn:
//! the UART is left without its FIFO, whose switching on would drop what was typed ahead.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::gic::Gic;
use runtime::global::Global;
use runtime::platform::{PL011, PL011_INTID};
use runtime::{console, mmio, print, println, trap, verdict};

runtime::guest!("uart_echo", uart_echo);

/// UARTIMSC, UARTICR.
const IMSC: u64 = PL011 + 0x038;
const ICR: u64 = PL011 + 0x044;
/// Receive and receive-timeout interrupts.
const RECEIVE: u32 = 1 << 4 | 1 << 6;
const LINE: usize = 80;

/// A line being received.
#[derive(Clone, Copy)]
struct Line {
    bytes: [u8; LINE],
    length: usize,
    complete: bool,
}

impl Line {
    const EMPTY: Self = Self {
        bytes: [0; LINE],
        length: 0,
        complete: false,
    };

    fn push(&mut self, byte: u8) {
        match byte {
            b'\n' | b'\r' => self.complete = true,
            _ if self.length < LINE => {
                self.bytes[self.length] = byte;
                self.length += 1;
            }
            _ => verdict::fail(format_args!("a line longer than {LINE}")),
        }
    }

    fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("(not text)")
    }
}

static GIC: Global<Option<Gic>> = Global::new(None);
static RECEIVED: Global<Line> = Global::new(Line::EMPTY);
static INTERRUPTS: Global<u64> = Global::new(0);

fn uart_echo() {
    let Some(gic) = Gic::from_tree() else {
        verdict::fail(format_args!("no interrupt controller in the device tree"));
    };
    println!("type a line, please");
    let mut line = Line::EMPTY;
    while !line.complete {
        if let Some(byte) = console::take() {
            line.push(byte);
        }
    }
    println!("polled: {}", line.text());

    GIC.set(Some(gic));
    trap::on_irq(on_irq);
    gic.enable();
    gic.enable_interrupt(PL011_INTID);
    trap::unmask_irq();
    mmio::write32(IMSC, RECEIVE);
    println!("and another");
    while !RECEIVED.get().complete {
        trap::mask_irq();
        if !RECEIVED.get().complete {
            // SAFETY: waits for an interrupt, which wakes even when masked.
            unsafe { asm!("wfi", options(nostack)) };
        }
        trap::unmask_irq();
    }
    print!(
        "by {} interrupts: {}\n",
        if INTERRUPTS.get() > 0 { "some" } else { "no" },
        RECEIVED.get().text()
    );
}

fn on_irq() {
    let Some(gic) = GIC.get() else { return };
    let intid = gic.acknowledge();
    if intid == PL011_INTID {
        INTERRUPTS.set(INTERRUPTS.get() + 1);
        let mut line = RECEIVED.get();
        while let Some(byte) = (!line.complete).then(console::take).flatten() {
            line.push(byte);
        }
        RECEIVED.set(line);
        if line.complete {
            mmio::write32(IMSC, 0);
        }
        mmio::write32(ICR, RECEIVE);
    }
    gic.end(intid);
}
