//! Resets itself until a moment given on the command line (`until=<seconds since 1970>`), by its clock: each time it
//! must begin with fresh memory and the state of a reset.
//!
//! All state is outside of the VM, as a reset takes all memory: the clock and the command line.
#![no_std]
#![no_main]

use runtime::platform::PL031;
use runtime::{check, check_eq, fdt, hypercall, mmio, pages, println, read_sysreg, timer, verdict};

runtime::guest!("reboot", reboot);

/// The pages each life looks at and scribbles on.
const PAGES: u64 = 64;
const SCRIBBLE: u64 = 0x5c21_bb1e_5c21_bb1e;

fn reboot() {
    let Some(until) = fdt::number("until") else {
        verdict::fail(format_args!(
            "no until=<seconds since 1970> on the command line"
        ));
    };
    let now = u64::from(mmio::read32(PL031));
    println!("booted at {now}");
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
    if now >= until {
        check!(now < until + 60, "the clock jumped to {now}");
        return;
    }
    runtime::write_sysreg!("TPIDR_EL1", u64::MAX);
    runtime::write_sysreg!("TPIDR_EL0", u64::MAX);
    timer::set(u64::MAX >> 1);
    timer::spin_ms(700);
    hypercall::reset()
}
