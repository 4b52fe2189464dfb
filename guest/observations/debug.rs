//! Debug registers, and instructions that end in a debug exception or should not.
use crate::{attempt, register};
use core::arch::asm;

pub(crate) fn observe() {
    register!("MDSCR_EL1", 0, 0x1000, 0x2000, 0x8000, !1u64);
    register!("OSLSR_EL1");
    attempt(format_args!("OS lock taken"), || {
        runtime::write_sysreg!("OSLAR_EL1", 1u64);
        runtime::read_sysreg!("OSLSR_EL1")
    });
    attempt(format_args!("OS lock given"), || {
        runtime::write_sysreg!("OSLAR_EL1", 0u64);
        runtime::read_sysreg!("OSLSR_EL1")
    });
    register!("OSDLR_EL1", 1, 0);
    register!("DBGPRCR_EL1", 1, 0);
    register!("DBGCLAIMSET_EL1");
    register!("DBGCLAIMCLR_EL1");
    register!("DBGAUTHSTATUS_EL1");
    register!("MDCCINT_EL1", !0u64, 0);
    register!("MDCCSR_EL0");
    register!("DBGDTR_EL0");
    register!("DBGDTRRX_EL0");
    register!("OSDTRRX_EL1", !0u64, 0);
    register!("OSDTRTX_EL1", !0u64, 0);
    register!("OSECCR_EL1", !0u64, 0);
    register!("MDRAR_EL1");
    register!("DBGBVR0_EL1", 0x1234_5678_9abc_def3u64, !0u64, 0);
    register!("DBGBCR0_EL1", !1u64, 0x1e4, 0);
    register!("DBGWVR0_EL1", 0x1234_5678_9abc_def7u64, !0u64, 0);
    register!("DBGWCR0_EL1", !1u64, 0x1ff4, 0);
    register!("DBGBVR5_EL1", 0x1000u64);
    register!("DBGBCR5_EL1", 0x1e4u64, 0);
    register!("DBGWVR3_EL1", 0x1000u64);
    attempt(format_args!("DBGBVR15_EL1"), || {
        runtime::read_sysreg!("DBGBVR15_EL1")
    });
    attempt(format_args!("DBGWCR15_EL1"), || {
        runtime::read_sysreg!("DBGWCR15_EL1")
    });
    macro_rules! instruction {
        ($($text:literal),+) => {$(
            attempt(format_args!($text), || {
                // SAFETY: no memory is touched; an exception is caught.
                unsafe { asm!($text, options(nostack)) };
                0
            });
        )+};
    }
    instruction!(
        "hlt #0",
        "hlt #0xf000",
        "brk #7",
        "udf #3",
        "svc #5",
        "dcps1 #0",
        "dcps2 #0",
        "dcps3 #0",
        "drps",
        "smc #1",
        "hvc #1"
    );
    instruction!(
        "msr pmuserenr_el0, xzr",
        "msr spsel, #1",
        "sevl",
        "yield",
        "sev",
        "hint #16",
        "hint #17",
        "csdb",
        "hint #127"
    );
    instruction!(
        "at s1e1r, xzr",
        "at s12e1r, xzr",
        "tlbi alle1",
        "tlbi ipas2e1, xzr",
        "tlbi alle2",
        "dc isw, xzr",
        "ic iallu",
        "mrs xzr, hcr_el2",
        "msr vbar_el2, xzr",
        "mrs xzr, scr_el3",
        "mrs xzr, sp_el1",
        "mrs xzr, spsr_irq",
        "mrs xzr, S3_0_C15_C2_0",
        "mrs xzr, S1_0_C7_C1_0"
    );
}
