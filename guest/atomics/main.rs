//! Exclusives, atomics, DC ZVA, pairs and SIMD as the first touch of a page: forms whose syndrome is not valid (ISV = 0)
//! fault like any other, and an exclusive pair gets through in the end.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::hypercall::counted;
use runtime::{check, check_eq, mmio, mmu, pages, println, read_sysreg};

runtime::guest!("atomics", atomics);

/// Tries an exclusive pair may need: the fault of the load, the fault of the store, and one more.
const TRIES: u32 = 4;

fn atomics() {
    pages::settle_image();
    // Exclusives and atomics need Normal cacheable memory.
    mmu::Tables::identity().enable();
    exclusive(pages::fresh());
    let read_before = pages::fresh();
    mmio::read32(read_before);
    exclusive(read_before);
    // ID_AA64ISAR0_EL1.Atomic.
    if read_sysreg!("ID_AA64ISAR0_EL1") >> 20 & 0xf >= 2 {
        large_system_extension();
    } else {
        println!("this CPU has no LSE");
    }
    zero_by_line();
    simd();
    ordered();
}

/// Does one access to a page and checks that it took a bounded number of faults.
fn bounded<T>(what: &str, access: impl FnOnce() -> T) -> T {
    let (result, cost) = counted(access);
    if let Some(cost) = cost {
        check!(cost.faults() <= 2, "{what} took {} faults", cost.faults());
    }
    result
}

fn exclusive(page: u64) {
    let tries = bounded("LDXR/STXR", || {
        (1..=TRIES).find(|_| {
            let failed: u64;
            // SAFETY: a page of ours.
            unsafe {
                asm!("ldxr {v}, [{a}]", "add {v}, {v}, #1", "stxr {f:w}, {v}, [{a}]", v = out(reg) _, f = out(reg) failed,
                    a = in(reg) page, options(nostack));
            }
            failed == 0
        })
    });
    check!(tries.is_some(), "STXR failed {TRIES} times");
    check_eq!(mmio::read64(page), 1, "one added by exclusives");
}

fn large_system_extension() {
    let page = pages::fresh();
    let old: u64;
    // SAFETY: a page of ours.
    unsafe {
        asm!(".arch_extension lse", "ldadd {n}, {o}, [{a}]", n = in(reg) 5u64, o = out(reg) old, a = in(reg) page,
            options(nostack));
    }
    check!(
        old == 0 && mmio::read64(page) == 5,
        "LDADD on a fresh page: {old}, then {}",
        mmio::read64(page)
    );
    let page = pages::fresh();
    let mut swapped = 9u64;
    bounded("SWP", || {
        // SAFETY: a page of ours.
        unsafe {
            asm!(".arch_extension lse", "swp {n}, {o}, [{a}]", n = in(reg) 7u64, o = inout(reg) swapped,
                a = in(reg) page, options(nostack));
        }
    });
    check!(
        swapped == 0 && mmio::read64(page) == 7,
        "SWP on a fresh page"
    );
    let page = pages::fresh();
    let mut compared = 0u64;
    bounded("CAS", || {
        // SAFETY: a page of ours.
        unsafe {
            asm!(".arch_extension lse", "cas {c}, {n}, [{a}]", c = inout(reg) compared, n = in(reg) 3u64,
                a = in(reg) page, options(nostack));
        }
    });
    check!(
        compared == 0 && mmio::read64(page) == 3,
        "CAS on a fresh page"
    );
}

fn zero_by_line() {
    let dczid = read_sysreg!("DCZID_EL0");
    if dczid >> 4 & 1 == 1 {
        println!("DC ZVA is prohibited");
        return;
    }
    let line = 4u64 << (dczid & 0xf);
    let page = pages::fresh();
    let zero = |at: u64| {
        // SAFETY: a line of a page of ours.
        unsafe { asm!("dc zva, {0}", in(reg) at, options(nostack)) };
    };
    bounded("DC ZVA", || zero(page));
    for at in (page..page + pages::PAGE).step_by(8) {
        mmio::write64(at, u64::MAX);
    }
    zero(page + line);
    for at in (page..page + pages::PAGE).step_by(8) {
        let expected = if (line..2 * line).contains(&(at - page)) {
            0
        } else {
            u64::MAX
        };
        check_eq!(mmio::read64(at), expected, "at {at:#x} after DC ZVA");
    }
}

fn simd() {
    let page = pages::fresh();
    let back: u64;
    bounded("STR Q", || {
        // SAFETY: V0 is ours: this program has no floating point of its own; 16 bytes of a page of ours.
        unsafe {
            asm!(".arch_extension fp", ".arch_extension simd", "fmov d0, {v}", "str q0, [{a}]",
                v = in(reg) 0x0123_4567_89ab_cdefu64, a = in(reg) page, options(nostack));
        }
    });
    // SAFETY: as above.
    unsafe {
        asm!(".arch_extension fp", ".arch_extension simd", "ldr q0, [{a}]", "fmov {v}, d0", v = out(reg) back,
            a = in(reg) page, options(nostack));
    }
    check_eq!(back, 0x0123_4567_89ab_cdef, "LDR Q of STR Q");
    check_eq!(mmio::read64(page + 8), 0, "upper half of STR Q");
}

/// Load-acquire and store-release.
fn ordered() {
    let page = pages::fresh();
    bounded("STLR", || {
        // SAFETY: a page of ours.
        unsafe { asm!("stlr {v}, [{a}]", v = in(reg) 11u64, a = in(reg) page, options(nostack)) };
    });
    let value: u64;
    // SAFETY: as above.
    unsafe { asm!("ldar {v}, [{a}]", v = out(reg) value, a = in(reg) page, options(nostack)) };
    check_eq!(value, 11, "LDAR of STLR");
}
