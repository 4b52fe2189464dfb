//! Resets itself as often as its console says: each time it must begin with fresh memory and the state of a reset, and
//! its clock goes on (what it prints of it, the harness compares).
//!
//! All state is outside of the VM, as a reset takes all memory.
#![no_std]
#![no_main]

use runtime::platform::PL031;
use runtime::{check_eq, console, hypercall, mmio, pages, println, read_sysreg, timer};

runtime::guest!("reboot", reboot);

/// The pages each life looks at and scribbles on.
const PAGES: u64 = 64;
const SCRIBBLE: u64 = 0x5c21_bb1e_5c21_bb1e;

fn reboot() {
    println!("booted at {}", mmio::read32(PL031));
    let first = pages::fresh_run(PAGES);
    for page in (0..PAGES).map(|n| first + n * pages::PAGE) {
        check_eq!(mmio::read64(page), 0, "memory after a reset, at {page:#x}");
        mmio::write64(page, SCRIBBLE);
    }
    check_eq!(
        read_sysreg!("TPIDR_EL1") & read_sysreg!("TPIDR_EL0"),
        0,
        "TPIDR_EL1 and TPIDR_EL0 after a reset"
    );
    check_eq!(
        read_sysreg!("SCTLR_EL1") & 1,
        0,
        "SCTLR_EL1.M after a reset"
    );
    check_eq!(
        read_sysreg!("CNTV_CTL_EL0") & 1,
        0,
        "CNTV_CTL_EL0.ENABLE after a reset"
    );
    if !console::ask("again?") {
        return;
    }
    runtime::write_sysreg!("TPIDR_EL1", u64::MAX);
    runtime::write_sysreg!("TPIDR_EL0", u64::MAX);
    timer::set(u64::MAX >> 1);
    hypercall::reset()
}
