//! Exceptions as short as they can be: the vectors of the bench while it measures.
//!
//! A synchronous exception is stepped over. An interrupt is noted (when, in x9 and x10 as `clock::moment` wants it) and
//! masked: what was interrupted goes on, with x9 no longer 0. Interrupts are let in by [`take_interrupt`] alone.
use super::clock;
use core::arch::{asm, global_asm};
use runtime::{trap, write_sysreg};

global_asm!(
    ".pushsection .text.bench_vectors, \"ax\"",
    ".balign 0x800",
    ".global bench_vectors",
    "bench_vectors:",
    // Current EL with SP_ELx, synchronous: x16 is declared lost by those who cause one.
    ".space 0x200",
    "mrs   x16, elr_el1",
    "add   x16, x16, #4",
    "msr   elr_el1, x16",
    "eret",
    // IRQ.
    ".balign 0x80",
    "mrs   x11, cntvct_el0",
    "mov   x10, #0",
    "2: mrs x9, cntvct_el0",
    "add   x10, x10, #1",
    "cmp   x9, x11",
    "b.eq  2b",
    "mrs   x11, spsr_el1",
    "orr   x11, x11, #0x80",
    "msr   spsr_el1, x11",
    "eret",
    ".balign 0x800",
    ".popsection",
);

/// Points VBAR_EL1 to the bench's vectors.
pub fn install() {
    let address: u64;
    // SAFETY: only forms an address.
    unsafe {
        asm!("adrp {0}, bench_vectors", "add {0}, {0}, :lo12:bench_vectors", out(reg) address, options(nomem, nostack));
    }
    write_sysreg!("VBAR_EL1", address);
}

/// Back to the vectors that report.
pub fn leave() {
    trap::install();
}

/// The same, and yields while it spins.
pub fn take_interrupt_yielding() -> u64 {
    let (ticks, polls): (u64, u64);
    // SAFETY: the handler changes x9 to x11 and PSTATE.I, and nothing else.
    unsafe {
        asm!(
            "mov  x9, #0",
            "msr  daifclr, #2",
            "2: yield",
            "cbz x9, 2b",
            out("x9") ticks,
            out("x10") polls,
            out("x11") _,
            options(nomem, nostack)
        );
    }
    clock::moment(ticks, polls)
}

/// Lets interrupts in and spins until one comes; answers when its handler began, in instructions.
#[inline(always)]
pub fn take_interrupt() -> u64 {
    let (ticks, polls): (u64, u64);
    // SAFETY: the handler changes x9 to x11 and PSTATE.I, and nothing else.
    unsafe {
        asm!(
            "mov  x9, #0",
            "msr  daifclr, #2",
            "2: cbz x9, 2b",
            out("x9") ticks,
            out("x10") polls,
            out("x11") _,
            options(nomem, nostack)
        );
    }
    clock::moment(ticks, polls)
}
