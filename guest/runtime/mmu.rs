//! Stage 1 of EL1: an identity map with 4 KiB pages, its tables in fresh pages.
//!
//! 39-bit addresses, so that level 1 is the root: two 1 GiB entries (devices, RAM) make a program run, and single pages
//! can be mapped anywhere else.
//!
//! Source: DDI 0487 "VMSAv8-64 translation table format descriptors".
use crate::pages::{self, PAGE};
use crate::{mmio, read_sysreg, write_sysreg};
use core::arch::asm;

/// Valid descriptor that points to a table, or a page at level 3.
pub const TABLE_OR_PAGE: u64 = 0b11;
/// Valid descriptor of a block.
pub const BLOCK: u64 = 0b01;
/// Access flag.
pub const AF: u64 = 1 << 10;
/// Inner shareable.
pub const INNER_SHAREABLE: u64 = 0b11 << 8;
/// AP[1]: EL0 may access too.
pub const EL0: u64 = 1 << 6;
/// AP[2]: nobody writes.
pub const READ_ONLY: u64 = 1 << 7;
/// AttrIndx 1: Device-nGnRE.
pub const DEVICE: u64 = 1 << 2;
/// Execute-never at both levels.
pub const XN: u64 = 0b11 << 53;
/// A page or block of Normal write-back memory (AttrIndx 0), read and written and executed by EL1.
pub const NORMAL: u64 = AF | INNER_SHAREABLE;

/// MAIR_EL1: 0 Normal write-back, 1 Device-nGnRE.
const MAIR: u64 = 0x04ff;
/// T0SZ = 25 (39 bits), write-back inner shareable walks, 4 KiB granule, no TTBR1 walks.
const TCR: u64 = 25 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12 | 1 << 23;
/// TCR_EL1.HA: the walker sets access flags.
const TCR_HA: u64 = 1 << 39;
/// TCR_EL1.HD: the walker sets dirty state.
const TCR_HD: u64 = 1 << 40;
/// SCTLR_EL1: MMU, data cache, instruction cache.
const SCTLR_M_C_I: u64 = 1 | 1 << 2 | 1 << 12;

/// Stage-1 tables, by their root.
#[derive(Clone, Copy)]
pub struct Tables {
    root: u64,
}

impl Tables {
    /// Tables that map what a guest needs to go on: devices below 1 GiB, three GiB of RAM from there.
    pub fn identity() -> Self {
        let tables = Self {
            root: pages::fresh(),
        };
        tables.set_root(0, BLOCK | AF | DEVICE | XN);
        for gib in 1..4 {
            tables.set_root(gib, gib << 30 | BLOCK | NORMAL);
        }
        tables
    }

    /// Where the level-1 table is.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Writes a level-1 descriptor.
    pub fn set_root(&self, index: u64, descriptor: u64) {
        set(self.root + index * 8, descriptor);
    }

    /// Makes the tables live.
    pub fn enable(&self) {
        self.enable_with(0);
    }

    /// Makes them live, with hardware access flag (and dirty state) management for `hafdbs` 1 (and 2).
    pub fn enable_with(&self, hafdbs: u64) {
        let pa_range = (read_sysreg!("ID_AA64MMFR0_EL1") & 0xf).min(5);
        let hardware = [0, TCR_HA, TCR_HA | TCR_HD][hafdbs.min(2) as usize];
        write_sysreg!("MAIR_EL1", MAIR);
        write_sysreg!("TCR_EL1", TCR | pa_range << 32 | hardware);
        write_sysreg!("TTBR0_EL1", self.root);
        invalidate();
        write_sysreg!("SCTLR_EL1", read_sysreg!("SCTLR_EL1") | SCTLR_M_C_I);
    }
}

/// Turns stage 1 off again.
pub fn disable() {
    write_sysreg!("SCTLR_EL1", read_sysreg!("SCTLR_EL1") & !SCTLR_M_C_I);
    invalidate();
}

/// Writes a descriptor and makes the walker see it.
pub fn set(address: u64, descriptor: u64) {
    mmio::write64(address, descriptor);
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
}

/// Drops all stage-1 translations of EL1, on every CPU.
pub fn invalidate_everywhere() {
    // SAFETY: as below.
    unsafe {
        asm!(
            "dsb ish",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        )
    };
}

/// Drops all stage-1 translations of EL1 on this CPU.
pub fn invalidate() {
    // SAFETY: dropping cached translations is always allowed; the tables are complete.
    unsafe {
        asm!(
            "dsb ish",
            "tlbi vmalle1",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        )
    };
}

/// Index of `address` in a table of this level (1 to 3).
pub fn index(address: u64, level: u32) -> u64 {
    address >> (39 - 9 * level) & 0x1ff
}

/// A virtual address outside of the identity map, number `n`, each in a 1 GiB region of its own.
pub fn elsewhere(n: u64) -> u64 {
    (8 + n) << 30
}

const _: () = assert!(PAGE == 4096);
