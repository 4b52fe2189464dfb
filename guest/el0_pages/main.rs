//! EL0 under its own stage 1: its code, data and stack pages arrive by fault like any other, and it cannot see EL1's.
#![no_std]
#![no_main]

use core::arch::global_asm;
use runtime::hypercall::counted;
use runtime::mmu::{self, Tables};
use runtime::trap::{catch, class};
use runtime::{cache, check, check_eq, el0, mmio, pages};

runtime::guest!("el0_pages", el0_pages);

unsafe extern "C" {
    static el0_program: u8;
    static el0_program_end: u8;
}

global_asm!(
    ".pushsection .text.el0_program, \"ax\"",
    // x0 = a fresh page, sp = the end of another: sums 1 to 100 through memory and stack; answers the sum in x0.
    "el0_program:",
    "mov   x1, #100",
    "1: ldr x2, [x0]",
    "stp   x1, x2, [sp, #-16]!",
    "ldp   x3, x4, [sp], #16",
    "add   x2, x3, x4",
    "str   x2, [x0]",
    "subs  x1, x1, #1",
    "b.ne  1b",
    "ldr   x0, [x0]",
    "svc   #0xfa7e",
    "el0_program_end:",
    ".popsection",
);

fn el0_pages() {
    pages::settle_image();
    let tables = Tables::identity();
    let window = mmu::elsewhere(0);
    let (level2, level3) = (pages::fresh(), pages::fresh());
    tables.set_root(mmu::index(window, 1), level2 | mmu::TABLE_OR_PAGE);
    mmio::write64(level2, level3 | mmu::TABLE_OR_PAGE);
    let [code, data, stack] = [pages::fresh(), pages::fresh(), pages::fresh()];
    for (n, page) in [code, data, stack].into_iter().enumerate() {
        let rights = mmu::NORMAL
            | mmu::EL0
            | if page == code {
                mmu::READ_ONLY
            } else {
                mmu::XN
            };
        mmu::set(level3 + 8 * n as u64, page | mmu::TABLE_OR_PAGE | rights);
    }
    let (from, to) = (
        &raw const el0_program as u64,
        &raw const el0_program_end as u64,
    );
    for offset in (0..to - from).step_by(4) {
        mmio::write32(code + offset, mmio::read32(from + offset));
    }
    cache::publish_code(code, to - from);
    tables.enable();
    let (sum, cost) = counted(|| {
        // SAFETY: the program above, which ends in its SVC and touches only the pages made for it.
        unsafe { el0::run(window, window + pages::PAGE, window + 3 * pages::PAGE) }
    });
    check_eq!(sum, 5050, "the sum of 1 to 100, computed at EL0");
    if let Some(cost) = cost {
        check!(
            cost.faults() <= 6,
            "three pages took {} faults",
            cost.faults()
        );
    }
    refuses_kernel_memory(window);
}

/// A page of EL1's: EL0's permission fault is its own stage 1's and goes to EL1 without EL2.
fn refuses_kernel_memory(window: u64) {
    pages::set_el0_code(window);
    let kernel = pages::fresh();
    let (_, caught) = catch(|| {
        // SAFETY: the program above; its loads and stores of `kernel` are refused and skipped.
        unsafe { el0::run(window, kernel, window + 3 * pages::PAGE) }
    });
    let frame = caught
        .last
        .unwrap_or_else(|| runtime::verdict::fail(format_args!("EL0 read EL1's memory")));
    check_eq!(frame.class(), class::DATA_ABORT_LOWER, "ESR_EL1.EC");
    check!(
        matches!(frame.fault_status(), 0x0d..=0x0f),
        "status {:#x}: not a permission fault",
        frame.fault_status()
    );
    check_eq!(frame.far, kernel, "FAR_EL1");
}
