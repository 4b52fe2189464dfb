//! The machine: Faultline's binary, entered by firmware at EL2. All of it is in [`el2`]; on a desk it is empty.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod el2;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("faultline runs at EL2, not under an operating system: try `make run`");
    std::process::exit(1);
}
