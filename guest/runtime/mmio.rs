//! Device accesses by single loads and stores of a chosen width, whose syndrome a hypervisor can decode (ISV = 1).
use core::arch::asm;

macro_rules! access {
    ($read:ident, $write:ident, $load:literal, $store:literal, $modifier:literal, $type:ty, $what:literal) => {
        #[doc = concat!("Reads ", $what, " at `address`. What is there may answer or abort; nothing else happens.")]
        pub fn $read(address: u64) -> $type {
            let value: $type;
            // SAFETY: a load changes no memory that Rust knows of; an abort is caught by the vectors.
            unsafe {
                asm!(concat!($load, " {0:", $modifier, "}, [{1}]"), inout(reg) 0 as $type => value, in(reg) address,
                    options(nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $what, " at `address`, which must be no memory that Rust code uses.")]
        pub fn $write(address: u64, value: $type) {
            // SAFETY: by the contract above the store hits a device, a fresh page, or nothing.
            unsafe {
                asm!(concat!($store, " {0:", $modifier, "}, [{1}]"), in(reg) value, in(reg) address,
                    options(nostack, preserves_flags));
            }
        }
    };
}

access!(read8, write8, "ldrb", "strb", "w", u8, "a byte");
access!(read16, write16, "ldrh", "strh", "w", u16, "a half word");
access!(read32, write32, "ldr", "str", "w", u32, "a word");
access!(read64, write64, "ldr", "str", "x", u64, "a double word");
