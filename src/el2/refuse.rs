//! Entered at EL1: there is no EL2 here for us. One line that says so, with the MMU off and no lock taken.

use core::fmt::Write;

use faultline::addr::{Pa, PaRange};
use faultline::board::tree::{SIZE_PREFIX, Tree};
use faultline::board::{Console, ConsoleKind};

use super::console::{self, Uart};
use super::machine::identity;
use super::power;

/// Codes left in x0 where there is nothing to print on; `docs/boot.md` lists them.
pub(super) mod code {
    /// Entered at EL1, no console known.
    pub(in crate::el2) const EL1: u64 = 0xe1;
    /// No device tree, no console known.
    pub(in crate::el2) const NO_TREE: u64 = 0xd7;
    /// A device tree without a console, and no other known.
    pub(in crate::el2) const NO_CONSOLE: u64 = 0xc0;
}

unsafe extern "C" {
    static early_console_slot: [u8; 64];
}

/// The early console that make wrote into the image: `pl011,0x9000000` or `ns16550,0xfe215040`.
fn early_description() -> Option<Console> {
    // SAFETY: 64 bytes in entry.S, never written while we run.
    let slot = unsafe { &early_console_slot };
    let end = slot
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(slot.len());
    let (kind, address) = core::str::from_utf8(&slot[..end]).ok()?.split_once(',')?;
    let start = Pa::new(u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?);
    let kind = match kind {
        "pl011" => ConsoleKind::Pl011,
        "ns16550" => ConsoleKind::Ns16550 {
            reg_shift: 2,
            io_width: 4,
        },
        _ => return None,
    };
    Some(Console {
        kind,
        range: PaRange { start, size: 64 },
        interrupt: None,
    })
}

/// Opens the early console, if there is one; tells whether there is a console now.
pub(super) fn early_console() -> bool {
    if let Some(description) = early_description() {
        // Without a map there is no console either, and the caller knows what then.
        let _ = console::open(&description);
    }
    console::is_open()
}

/// Called from entry.S at EL1.
pub(super) extern "C" fn entered_at_el1(x0: u64) -> ! {
    super::heap::init();
    // SAFETY: the tree names the console, or make did; nothing else drives it.
    let uart = unsafe { console_of(Pa::new(x0)).map(|console| Uart::new(&console)) };
    // SAFETY: as above.
    let uart = uart.or_else(|| early_description().map(|console| unsafe { Uart::new(&console) }));
    if let Some(mut uart) = uart {
        let _ = uart.write_str(
            "\nfaultline: cannot start: entered at EL1, but a hypervisor needs EL2 (on QEMU: -machine virtualization=on)\n\
             faultline: halted\nfaultline: verdict=refused nonce=none\n",
        );
    }
    power::wait_for_ever(code::EL1)
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
