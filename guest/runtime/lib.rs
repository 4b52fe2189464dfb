//! What every guest of ours stands on: entry at EL1, exception vectors that record, a console, hypercalls.
//!
//! A guest is one `fn()` handed to [`guest!`]. It shows one behaviour, states what it expects with [`check!`], and
//! ends in exactly one verdict line, `PASS name` or `FAIL name: why`, followed by the EXIT hypercall.
//!
//! On entry: EL1h, MMU and caches off, x0 = device tree, one CPU (docs/guest-platform.md). The MMU stays off unless the
//! guest turns it on with [`mmu`]; hence no atomics here: exclusives need cacheable memory. More CPUs are started by
//! [`smp`], with the first one's tables; what they share is in [`sync`].
//!
//! A guest also runs without Faultline: `qemu-system-aarch64 -M virt -kernel guest.bin` enters it the same way at EL1.
//! There the COUNTER hypercall answers "not supported" and [`hypercall::counters`] is `None`. What must hold on bare
//! metal too is checked in both places: that is how the expectations themselves are tested.
#![no_std]

pub mod cache;
pub mod console;
pub mod el0;
pub mod entry;
pub mod fdt;
pub mod gic;
pub mod global;
pub mod hypercall;
pub mod mmio;
pub mod mmu;
pub mod pages;
pub mod platform;
pub mod random;
pub mod smp;
pub mod sync;
pub mod sysreg;
pub mod timer;
pub mod trap;
pub mod verdict;
