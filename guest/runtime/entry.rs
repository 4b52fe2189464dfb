//! From the first byte to the guest's function.
//!
//! In: x0 = device tree, EL1h, MMU off. Out: stack, zeroed .bss, vectors, floating point allowed, name set.
use crate::global::Global;
use crate::{verdict, write_sysreg};

static DTB: Global<u64> = Global::new(0);

core::arch::global_asm!(
    ".pushsection .text.entry, \"ax\"",
    ".global _start",
    "_start:",
    "msr   spsel, #1",
    "adrp  x1, __stack_top",
    "add   x1, x1, :lo12:__stack_top",
    "mov   sp, x1",
    // The binary does not carry .bss: after a reset it may hold anything where there is no hypervisor to clear it.
    "adrp  x2, __bss_start",
    "add   x2, x2, :lo12:__bss_start",
    "0: cmp x2, x1",
    "b.hs  1f",
    "stp   xzr, xzr, [x2], #16",
    "b     0b",
    "1: mov x29, xzr",
    "mov   x30, xzr",
    "bl    guest_main",
    "b     .",
    ".popsection",
);

/// First Rust code of a guest; `guest!` gives it its arguments.
pub fn enter(dtb: u64, name: &'static str, body: fn()) -> ! {
    DTB.set(dtb);
    write_sysreg!("TPIDRRO_EL0", 0);
    verdict::set_name(name);
    crate::trap::install();
    crate::console::enable();
    allow_fp();
    body();
    verdict::pass()
}

/// FPEN = 0b11: no trap of floating point and SIMD, at EL1 and EL0.
pub fn allow_fp() {
    write_sysreg!("CPACR_EL1", 0b11 << 20);
}

/// Where the device tree was handed over.
pub fn dtb() -> u64 {
    DTB.get()
}

/// Makes `body` the guest called `name`. A body that returns has passed.
#[macro_export]
macro_rules! guest {
    ($name:literal, $body:path) => {
        /// Called by the entry code.
        // SAFETY: the entry code of the runtime knows this one symbol, and each guest defines it once.
        #[unsafe(no_mangle)]
        extern "C" fn guest_main(dtb: u64) -> ! {
            $crate::entry::enter(dtb, $name, $body)
        }
    };
}
