//! Accesses of every kind to devices, to nothing, and at the end of RAM; stage 1 is on.
use crate::attempt;
use core::arch::asm;
use runtime::platform::{NOWHERE, PL011, PL031};
use runtime::{fdt, pages};

pub(crate) fn observe() {
    let (base, size) = fdt::memory();
    let end = base + size;
    let ram = pages::fresh();
    for (what, at) in [
        ("RAM", ram),
        ("the UART", PL011 + 0xfe0),
        ("the clock", PL031 + 0xfe0),
        ("nowhere", NOWHERE),
        ("the last word of RAM", end - 16),
        ("just beyond RAM", end),
    ] {
        macro_rules! access {
            ($($text:literal),+) => {$(
                attempt(format_args!("{what}: {}", $text), || {
                    let value: u64;
                    // SAFETY: what is accessed is a device, a page of ours, or nothing; an exception is caught.
                    unsafe {
                        asm!(".arch_extension fp",
                            ".arch_extension simd",
                            "mov x2, #0", "mov x3, #0", "mov x4, #0", $text, inout("x0") at => _, out("x2") value, out("x3") _, out("x4") _, out("x5") _ , options(nostack));
                    }
                    value
                });
            )+};
        }
        access!(
            "ldr w2, [x0]",
            "ldr w2, [x0], #4",
            "ldp w2, w3, [x0]",
            "ldur w2, [x0, #1]",
            "ldrsb x2, [x0]",
            "ldar w2, [x0]",
            "ldxr w2, [x0]",
            "ldaxr w2, [x0]"
        );
        access!(
            "ldr q0, [x0]",
            "ldr s0, [x0]",
            "ldp q0, q1, [x0]",
            "ld1 {{v0.16b}}, [x0]",
            "ldnp x2, x3, [x0]",
            "prfm pldl1keep, [x0]",
            "prfm pstl1keep, [x0]"
        );
        access!("dc cvac, x0", "dc civac, x0", "ic ivau, x0", "dc cvau, x0");
        if what == "RAM" || what == "nowhere" || what == "just beyond RAM" {
            access!(
                "stp w3, w4, [x0]",
                "str q0, [x0]",
                "stlr w3, [x0]",
                "stxr w2, w3, [x0]",
                "dc zva, x0",
                "dc ivac, x0",
                "str w3, [x0], #4"
            );
        }
        if what != "RAM" && what != "the last word of RAM" {
            attempt(format_args!("{what}: fetched"), || pages::call(at & !0xfff));
        }
    }
}
