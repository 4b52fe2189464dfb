//! Writes to every page of its RAM. With more RAM promised than the machine has, it must be stopped, not the host.
#![no_std]
#![no_main]

use runtime::{fdt, mmio, pages, println};

runtime::guest!("exhaustion", exhaustion);

fn exhaustion() {
    let (base, size) = fdt::memory();
    let first = pages::fresh();
    println!("touching all of {} MiB", size >> 20);
    for page in (first..base + size).step_by(pages::PAGE as usize) {
        mmio::write64(page, page);
    }
    println!("touched all of {} MiB", size >> 20);
}
