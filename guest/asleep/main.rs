//! Goes to sleep for good: its timer off, every vCPU off or in WFI. Faultline says so, once. With `listens` it has the console
//! interrupt it first, and sleeps until somebody types.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::gic::Gic;
use runtime::{fdt, println, smp, timer};

runtime::guest!("asleep", asleep);

fn asleep() {
    timer::stop();
    if smp::count() > 1 {
        // The last one stays off.
        (1..smp::count() - 1).for_each(|vcpu| smp::start(vcpu, sleep));
    }
    if fdt::has_word("listens") {
        listen();
    }
    println!("good night");
    sleep();
}

/// Has the UART's interrupt on at both ends.
fn listen() {
    const UART_SPI: u32 = 33;
    const UARTIMSC: usize = 0x0900_0038;
    if let Some(gic) = Gic::from_tree() {
        gic.enable();
        gic.enable_interrupt(UART_SPI);
    }
    // SAFETY: the UART's mask register: an interrupt when a byte is there.
    unsafe { (UARTIMSC as *mut u32).write_volatile(1 << 4 | 1 << 6) };
}

fn sleep() {
    loop {
        // SAFETY: waits for an interrupt.
        unsafe { asm!("wfi", options(nomem, nostack, preserves_flags)) };
    }
}
