//! Making new code visible to instruction fetch, as CTR_EL0 of this CPU asks.
//!
//! Source: DDI 0487 "Concurrent modification and execution of instructions"; CTR_EL0.
use crate::read_sysreg;
use crate::sysreg::{dic, idc};
use core::arch::asm;

/// After code was written to `size` bytes at `address`: clean, invalidate, synchronise.
pub fn publish_code(address: u64, size: u64) {
    clean_to_pou(address, size);
    let instruction_line = 4u64 << (read_sysreg!("CTR_EL0") & 0xf);
    if !dic() {
        for line in lines(address, size, instruction_line) {
            // SAFETY: invalidating instructions changes no value in memory.
            unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
        }
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
}

/// What was written there is where instruction fetch will look.
pub fn clean_to_pou(address: u64, size: u64) {
    if !idc() {
        for line in lines(address, size, data_line()) {
            // SAFETY: cleaning changes no value in memory.
            unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
        }
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
}

/// What was written to `size` bytes at `address` is in memory, for those who read it with caches off.
pub fn clean_to_poc(address: u64, size: u64) {
    for line in lines(address, size, data_line()) {
        // SAFETY: cleaning and invalidating changes no value in memory.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

fn data_line() -> u64 {
    4 << (read_sysreg!("CTR_EL0") >> 16 & 0xf)
}

fn lines(address: u64, size: u64, line: u64) -> impl Iterator<Item = u64> {
    (address & !(line - 1)..address + size).step_by(line as usize)
}
