//! Text on the PL011, polled.
use crate::platform::PL011;
use crate::sync::Lock;
use crate::{mmio, smp};
use core::fmt;

const DR: u64 = PL011;
const FR: u64 = PL011 + 0x018;
const CR: u64 = PL011 + 0x030;
/// UARTCR: enabled, transmit, receive.
const CR_ENABLED: u32 = 1 | 1 << 8 | 1 << 9;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;

/// The console as a writer: `\n` becomes `\r\n`.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
        Ok(())
    }
}

static LINE: Lock = Lock::new();

/// Prints, one CPU at a time once there are several.
pub fn print(text: fmt::Arguments) {
    let write = || {
        // Writing to the console cannot fail.
        let _ = fmt::Write::write_fmt(&mut Console, text);
    };
    if smp::have_started() {
        LINE.with(write);
    } else {
        write();
    }
}

/// Turns the UART on.
pub fn enable() {
    mmio::write32(CR, CR_ENABLED);
}

/// Sends one byte.
pub fn put(byte: u8) {
    while mmio::read32(FR) & FR_TXFF != 0 {}
    mmio::write32(DR, u32::from(byte));
}

/// The next byte that has arrived, if one has.
pub fn take() -> Option<u8> {
    (mmio::read32(FR) & FR_RXFE == 0).then(|| mmio::read32(DR) as u8)
}

/// Asks, and waits for one byte: whether it is a `y`.
pub fn ask(question: &str) -> bool {
    print(format_args!("{question} "));
    loop {
        if let Some(byte) = take() {
            print(format_args!("\n"));
            return byte == b'y';
        }
    }
}

/// Prints on the console.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {{
        $crate::console::print(format_args!($($arg)*));
    }};
}

/// Prints a line on the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", format_args!($($arg)*)) };
}
