//! Says by EXIT(7) that it failed; the hypervisor's verdict and make's exit code must tell.
#![no_std]
#![no_main]

use runtime::{hypercall, println};

runtime::guest!("exit_code", exit_code);

fn exit_code() {
    println!("ending with code 7");
    hypercall::exit(7)
}
