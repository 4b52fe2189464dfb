//! What a machine answers where the architecture leaves no choice, or nobody should notice one: printed, not judged. The
//! same image on bare QEMU and on Faultline must print the same; `guest/qemu/observed.rs` compares.
#![no_std]
#![no_main]

mod debug;
mod devices;
mod el0;
mod interrupts;
mod memory;
mod registers;
mod time;

use core::fmt::Arguments;
use runtime::trap::{Caught, catch};
use runtime::{mmu, pages, println};

runtime::guest!("observations", observations);

fn observations() {
    pages::settle_image();
    interrupts::observe();
    devices::observe();
    time::observe();
    debug::observe();
    el0::observe();
    mmu::Tables::identity().enable();
    memory::observe();
}

/// One observation.
pub(crate) fn see(what: Arguments, value: u64) {
    println!("= {what}: {value:#x}");
}

/// What `action` answers, or the exception it takes.
pub(crate) fn attempt(what: Arguments, action: impl FnOnce() -> u64) {
    let (value, Caught { count, last }) = catch(action);
    match last {
        Some(frame) if frame.is_abort() => println!(
            "= {what}: {count} aborts, ESR {:#x} FAR {:#x}",
            frame.esr, frame.far
        ),
        Some(frame) => println!("= {what}: {count} exceptions, ESR {:#x}", frame.esr),
        None => see(what, value),
    }
}

/// A system register: read, and what of a value stays in it.
#[macro_export]
macro_rules! register {
    ($name:literal) => {
        $crate::attempt(format_args!($name), || runtime::read_sysreg!($name))
    };
    ($name:literal, $($value:expr),+) => {{
        let (before, caught) = runtime::trap::catch(|| runtime::read_sysreg!($name));
        if caught.count > 0 {
            $crate::attempt(format_args!($name), || runtime::read_sysreg!($name));
        } else {
            $crate::see(format_args!($name), before);
        }
        $($crate::attempt(format_args!("{} after {:#x}", $name, $value as u64), || {
            runtime::write_sysreg!($name, $value as u64);
            runtime::read_sysreg!($name)
        });)+
        if caught.count == 0 {
            runtime::write_sysreg!($name, before);
        }
    }};
}
