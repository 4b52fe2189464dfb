//! The console: one UART for the boot log and the guest, and the lines that Faultline itself writes.
//!
//! A line of ours never starts in the middle of a guest's. What the machine dies with is printed whoever holds the lock.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0};
use faultline::board::{Console as Description, ConsoleKind};
use faultline::sync::SpinMutex;
use tock_registers::interfaces::Readable;

use super::driver::{ns16550::Ns16550, pl011::Pl011};
use super::hyp_map::{self, TooRagged, Use};

/// A UART driver.
pub(super) enum Uart {
    Pl011(Pl011),
    Ns16550(Ns16550),
}

impl Uart {
    /// The driver for what the tree describes.
    ///
    /// # Safety
    /// The description is true, EL2 owns the UART, and (once its MMU is on) has mapped it.
    pub(super) unsafe fn new(description: &Description) -> Self {
        let base = description.range.start;
        match description.kind {
            // SAFETY: the caller's promise.
            ConsoleKind::Pl011 => Self::Pl011(unsafe { Pl011::new(base) }),
            ConsoleKind::Ns16550 {
                reg_shift,
                io_width,
            } => {
                // SAFETY: the caller's promise.
                Self::Ns16550(unsafe { Ns16550::new(base, reg_shift, io_width == 4) })
            }
        }
    }

    #[inline]
    pub(super) fn put(&self, byte: u8) {
        match self {
            Self::Pl011(uart) => uart.put(byte),
            Self::Ns16550(uart) => uart.put(byte),
        }
    }

    fn get(&self) -> Option<u8> {
        match self {
            Self::Pl011(uart) => uart.get(),
            Self::Ns16550(uart) => uart.get(),
        }
    }

    fn drain(&self) {
        match self {
            Self::Pl011(uart) => uart.drain(),
            Self::Ns16550(uart) => uart.drain(),
        }
    }

    fn interrupt_on_input(&self, on: bool) {
        match self {
            Self::Pl011(uart) => uart.interrupt_on_input(on),
            Self::Ns16550(uart) => uart.interrupt_on_input(on),
        }
    }
}

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

/// The UART, and whether the last byte ended a line.
struct Console {
    uart: Option<Uart>,
    at_line_start: bool,
}

static CONSOLE: SpinMutex<Console> = SpinMutex::new(Console {
    uart: None,
    at_line_start: true,
});
static HAS_CONSOLE: AtomicBool = AtomicBool::new(false);

impl Console {
    fn line(&mut self, arguments: fmt::Arguments<'_>) {
        let Some(uart) = &mut self.uart else { return };
        if !self.at_line_start {
            let _ = uart.write_str("\n");
        }
        let _ = uart.write_fmt(arguments);
        let _ = uart.write_str("\n");
        self.at_line_start = true;
    }
}

/// Makes `description`'s UART the console.
pub(super) fn open(description: &Description) -> Result<(), TooRagged> {
    hyp_map::map(description.range, Use::Device)?;
    // SAFETY: the device tree says that it is the console, and it is mapped now.
    install(unsafe { Uart::new(description) });
    Ok(())
}

/// Makes `uart` the console.
pub(super) fn install(uart: Uart) {
    CONSOLE.lock().uart = Some(uart);
    HAS_CONSOLE.store(true, Ordering::Relaxed);
}

/// Whether there is anything to print on.
pub(super) fn is_open() -> bool {
    HAS_CONSOLE.load(Ordering::Relaxed)
}

/// Prints a line.
pub(super) fn print(arguments: fmt::Arguments<'_>) {
    CONSOLE.lock().line(arguments);
}

/// Prints a line although somebody may hold the console: this machine is about to end.
pub(super) fn print_in_panic(arguments: fmt::Arguments<'_>) {
    let console = CONSOLE.try_lock();
    let mut console = console.unwrap_or_else(|| {
        // SAFETY: only the dying PE runs, and the holder never comes back.
        unsafe { CONSOLE.force_unlock() };
        CONSOLE.lock()
    });
    console.line(arguments);
}

/// A byte from the guest.
#[inline(always)] // once, and all there is to do for a guest that prints
pub(super) fn put_guest_byte(byte: u8) {
    let mut console = CONSOLE.lock();
    console.at_line_start = byte == b'\n';
    if let Some(uart) = &console.uart {
        uart.put(byte);
    }
}

/// A byte for the guest, if one has arrived.
pub(super) fn get() -> Option<u8> {
    CONSOLE.lock().uart.as_ref()?.get()
}

/// Whether input interrupts EL2.
pub(super) fn interrupt_on_input(on: bool) {
    if let Some(uart) = &CONSOLE.lock().uart {
        uart.interrupt_on_input(on);
    }
}

/// Waits until everything has been sent.
pub(super) fn drain() {
    if let Some(uart) = &CONSOLE.lock().uart {
        uart.drain();
    }
}

/// Time since the counter started, as the log shows it: seconds and milliseconds.
pub(super) struct Uptime;

impl fmt::Display for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hz = CNTFRQ_EL0.get().max(1);
        let now = CNTPCT_EL0.get();
        write!(f, "{:>4}.{:03}", now / hz, now % hz * 1000 / hz)
    }
}

/// One line of the boot log: time, topic, text.
macro_rules! log {
    ($topic:literal, $($text:tt)*) => {
        $crate::el2::console::print(format_args!(
            "[{}] {:<8} {}", $crate::el2::console::Uptime, $topic, format_args!($($text)*)
        ))
    };
}
pub(super) use log;
