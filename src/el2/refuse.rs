//! Where there is no EL2 for us: one line that says so, with the MMU off.

use core::fmt::Write;

use faultline::addr::Pa;
use faultline::board::Console;
use faultline::board::tree::{SIZE_PREFIX, Tree};

use super::console::{self, Uart};
use super::machine::identity;
use super::power;

/// Codes left in x0 where there is nothing to print on; `docs/boot.md` lists them.
pub(super) mod code {
    /// `HCR_EL2.E2H` is stuck at 1.
    pub(in crate::el2) const E2H: u64 = 0xe2;
    /// EL2 crashed while it reported a crash.
    pub(in crate::el2) const CRASH: u64 = 0xdead;
    /// Entered at EL1.
    pub(in crate::el2) const EL1: u64 = 0xe1;
    /// No device tree, no console known.
    pub(in crate::el2) const NO_TREE: u64 = 0xd7;
    /// A device tree without a console, and no other known.
    pub(in crate::el2) const NO_CONSOLE: u64 = 0xc0;
}

unsafe extern "C" {
    static early_console_slot: [u8; 64];
}

/// The early console that make wrote into the image.
fn early_description() -> Option<Console> {
    // SAFETY: 64 bytes in entry.S, never written while we run.
    Console::from_slot(unsafe { &early_console_slot })
}

/// Opens the early console, if there is one; tells whether there is a console now.
pub(super) fn early_console() -> bool {
    if let Some(description) = early_description() {
        // Without a map there is no console either, and the caller knows what then.
        let _ = console::open(&description);
    }
    console::is_open()
}

/// Called from entry.S, MMU off, at EL1 or where EL2 cannot be used. The early console is used before anything else is
/// touched; without one the tree is asked, which needs the heap and its lock, and may end in the vectors' own code.
pub(super) extern "C" fn refused(x0: u64, code: u64) -> ! {
    // SAFETY: make says that the UART is there; nothing else drives it.
    let early = early_description().map(|console| unsafe { Uart::new(&console) });
    let uart = early.or_else(|| {
        super::heap::init();
        // SAFETY: as the boot protocol promises; the tree names the console.
        unsafe { console_of(Pa::new(x0)).map(|console| Uart::new(&console)) }
    });
    let why = match code {
        code::EL1 => {
            "entered at EL1, but a hypervisor needs EL2 (on QEMU: -machine virtualization=on)"
        }
        _ => "this CPU cannot turn HCR_EL2.E2H off, and Faultline runs at EL2 without it",
    };
    if let Some(mut uart) = uart {
        let _ = write!(
            uart,
            "\nfaultline: cannot start: {why}\nfaultline: halted\nfaultline: verdict=refused nonce=none\n"
        );
    }
    power::wait_for_ever(code)
}

/// # Safety
/// A nonzero `tree` is a device tree, as the boot protocol promises.
unsafe fn console_of(tree: Pa) -> Option<Console> {
    if tree.raw() == 0 || !tree.is_aligned(8) {
        return None;
    }
    // SAFETY: the header is there if anything is.
    let head = unsafe { core::slice::from_raw_parts(identity::<u8>(tree), SIZE_PREFIX) };
    let size = Tree::total_size(head).ok()?;
    // SAFETY: the header says how long it is.
    let blob = unsafe { core::slice::from_raw_parts(identity::<u8>(tree), size) };
    Console::from_tree(&Tree::parse(blob).ok()?).ok()
}
