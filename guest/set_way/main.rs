//! Caches: cleaned by set and way, switched off and on. What was written on one side is read on the other, and the EL1
//! registers whose writes trap meanwhile hold exactly what was written.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::mmu::{self, Tables};
use runtime::{check_eq, mmio, pages, read_sysreg, write_sysreg};

runtime::guest!("set_way", set_way);

/// Pages whose contents are followed.
const PAGES: u64 = 48;

fn set_way() {
    registers_hold_what_was_written();
    let memory = pages::fresh_run(PAGES);
    let tables = Tables::identity();
    fill(memory, 1);
    for round in 1..4 {
        tables.enable();
        verify(
            memory,
            round * 2 - 1,
            "with the caches on, what was written with them off",
        );
        fill(memory, round * 2);
        clean_by_set_and_way();
        verify(memory, round * 2, "after cleaning by set and way");
        mmu::disable();
        verify(
            memory,
            round * 2,
            "with the caches off, what was written with them on",
        );
        clean_by_set_and_way();
        fill(memory, round * 2 + 1);
    }
}

/// A pattern of its own for each page and round.
fn pattern(page: u64, round: u64) -> u64 {
    (page << 32 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn fill(memory: u64, round: u64) {
    for page in 0..PAGES {
        for offset in (0..pages::PAGE).step_by(512) {
            mmio::write64(memory + page * pages::PAGE + offset, pattern(page, round));
        }
    }
}

fn verify(memory: u64, round: u64, what: &str) {
    for page in 0..PAGES {
        for offset in (0..pages::PAGE).step_by(512) {
            let found = mmio::read64(memory + page * pages::PAGE + offset);
            check_eq!(found, pattern(page, round), "page {page}, {what}");
        }
    }
}

/// All levels of data and unified caches to the level of coherency, by the geometry that the registers tell, but no more
/// than a few hundred lines of each: under a hypervisor the first does it all.
fn clean_by_set_and_way() {
    const MOST: u64 = 200;
    let clidr = read_sysreg!("CLIDR_EL1");
    let coherency = clidr >> 24 & 7;
    for level in 0..coherency {
        if clidr >> (3 * level) & 7 < 2 {
            continue;
        }
        write_sysreg!("CSSELR_EL1", level << 1);
        // SAFETY: a barrier.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
        let ccsidr = read_sysreg!("CCSIDR_EL1");
        let line_bits = (ccsidr & 7) + 4;
        let (ways, sets) = (ccsidr >> 3 & 0x3ff, ccsidr >> 13 & 0x7fff);
        let way_shift = if ways == 0 {
            32
        } else {
            u64::from((ways as u32).leading_zeros())
        };
        for set in 0..=sets.min(MOST / (ways + 1)) {
            for way in 0..=ways {
                let operand = way << way_shift | set << line_bits | level << 1;
                // SAFETY: cleaning, with or without invalidating, changes no value in memory.
                unsafe {
                    match set % 3 {
                        0 => asm!("dc csw, {}", in(reg) operand, options(nostack, preserves_flags)),
                        1 => {
                            asm!("dc cisw, {}", in(reg) operand, options(nostack, preserves_flags))
                        }
                        // Under a hypervisor (HCR_EL2.SWIO) it cleans as well.
                        _ => asm!("dc isw, {}", in(reg) operand, options(nostack, preserves_flags)),
                    }
                }
            }
        }
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
}

/// With stage 1 off, so that any value will do.
fn registers_hold_what_was_written() {
    macro_rules! holds {
        ($($register:literal $mask:expr),+) => {$(
            for value in [0x0123_4567_89ab_cdef_u64, 0xfedc_ba98_7654_3210] {
                let before = read_sysreg!($register);
                write_sysreg!($register, value & $mask);
                check_eq!(read_sysreg!($register), value & $mask, $register);
                write_sysreg!($register, before);
            }
        )+};
    }
    const LOW: u64 = 0xffff_ffff;
    // Base address and ASID; the fields that each has in Armv8.0.
    holds!(
        "TTBR0_EL1" 0xffff_ffff_ffff_f000,
        "TTBR1_EL1" 0xffff_ffff_ffff_f000,
        "TCR_EL1" 0x0000_0077_c03f_003f,
        "ESR_EL1" LOW,
        "FAR_EL1" u64::MAX,
        "MAIR_EL1" u64::MAX,
        "CONTEXTIDR_EL1" LOW
    );
}
