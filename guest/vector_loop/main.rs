//! A vector whose first instruction faults: it aborts into itself and never retires one. It must be stopped.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::platform::NOWHERE;
use runtime::{cache, mmio, pages, println, verdict, write_sysreg};

runtime::guest!("vector_loop", vector_loop);

/// `LDR X0, [X0]`.
const LOAD: u32 = 0xf940_0000;

fn vector_loop() {
    let vectors = pages::fresh();
    for at in (vectors..vectors + 0x800).step_by(4) {
        mmio::write32(at, LOAD);
    }
    cache::publish_code(vectors, 0x800);
    write_sysreg!("VBAR_EL1", vectors);
    println!("a vector that faults, and now an access to nothing");
    // SAFETY: does not go on; if it does, x0 is all it changed.
    unsafe { asm!("ldr x0, [x0]", inout("x0") NOWHERE => _, options(nostack)) };
    verdict::fail(format_args!("the access to nothing was not refused"));
}
