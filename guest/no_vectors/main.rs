//! The beginner's first program: no exception vectors, and an access to nothing. It must be stopped, with a reason.
#![no_std]
#![no_main]

use runtime::platform::NOWHERE;
use runtime::{mmio, println, verdict, write_sysreg};

runtime::guest!("no_vectors", no_vectors);

fn no_vectors() {
    write_sysreg!("VBAR_EL1", NOWHERE);
    println!("no vectors, and now an access to nothing");
    mmio::read32(NOWHERE + 0x1000);
    verdict::fail(format_args!("the access to nothing was not refused"));
}
