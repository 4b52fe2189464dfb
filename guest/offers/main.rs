//! What a guest is offered besides PSCI: the architecture's calls, entropy, stolen time. By HVC and by SMC, and whatever is
//! answered, registers beyond the results stay as they were.
//!
//! Oracle: SMCCC (DEN 0028), TRNG (DEN 0098), paravirtual time (DEN 0057).
#![no_std]
#![no_main]

use core::arch::asm;

use runtime::hypercall::{Conduit, NOT_SUPPORTED, call, counter};
use runtime::trap::{catch, class};
use runtime::{check, check_eq, mmio, println, read_sysreg, verdict};

runtime::guest!("offers", offers);

const SMCCC_VERSION: u32 = 0x8000_0000;
const ARCH_FEATURES: u32 = 0x8000_0001;
const ARCH_SOC_ID: u32 = 0x8000_0002;
const WORKAROUND_1: u32 = 0x8000_8000;
const WORKAROUND_3: u32 = 0x8000_3fff;
const TRNG_VERSION: u32 = 0x8400_0050;
const TRNG_FEATURES: u32 = 0x8400_0051;
const TRNG_UUID: u32 = 0x8400_0052;
const TRNG_RND32: u32 = 0x8400_0053;
const TRNG_RND64: u32 = 0xc400_0053;
const PV_TIME_FEATURES: u32 = 0xc500_0020;
const PV_TIME_ST: u32 = 0xc500_0021;
const INVALID_PARAMETERS: i32 = -2;

fn offers() {
    if counter(0).is_none() {
        verdict::pass_without("nothing beneath offers anything");
    }
    let (_, caught) = catch(|| {
        for conduit in [Conduit::Hvc, Conduit::Smc] {
            architecture(conduit);
            entropy(conduit);
        }
    });
    check_eq!(caught.count, 0, "exceptions");
    stolen_time();
    registers_are_preserved();
}

fn architecture(conduit: Conduit) {
    let one = |function, argument: u32| call(conduit, function, [u64::from(argument), 0, 0])[0];
    check_eq!(one(SMCCC_VERSION, 0), 0x1_0001, "SMCCC_VERSION");
    check_eq!(
        one(ARCH_FEATURES, SMCCC_VERSION),
        0,
        "ARCH_FEATURES of itself"
    );
    check_eq!(
        one(ARCH_FEATURES, ARCH_SOC_ID),
        NOT_SUPPORTED,
        "ARCH_FEATURES of SOC_ID"
    );
    check_eq!(one(ARCH_SOC_ID, 0), NOT_SUPPORTED, "SOC_ID");
    let csv2 = read_sysreg!("ID_AA64PFR0_EL1") >> 56 & 0xf;
    let unaffected = one(ARCH_FEATURES, WORKAROUND_1);
    println!("CSV2 {csv2}, WORKAROUND_1 {:#x}", unaffected);
    check!(
        csv2 == 0 || unaffected == 1,
        "CSV2 {csv2}, but WORKAROUND_1 is {unaffected:#x}"
    );
    for workaround in [WORKAROUND_1, WORKAROUND_3] {
        let found = one(ARCH_FEATURES, workaround) as i32;
        check!(
            matches!(found, -1 | 1),
            "ARCH_FEATURES of {workaround:#x}: {found}"
        );
        let called = one(workaround, 0) as i32;
        check!(
            (called == 0) == (found == 1),
            "{workaround:#x} called: {called}"
        );
    }
}

fn entropy(conduit: Conduit) {
    let ask = |function, argument| call(conduit, function, [argument, 0x11, 0x22]);
    if ask(TRNG_VERSION, 0)[0] == NOT_SUPPORTED {
        for function in TRNG_VERSION..=TRNG_RND32 {
            check_eq!(
                ask(function, 8)[0],
                NOT_SUPPORTED,
                "{function:#x} without a source"
            );
        }
        check_eq!(
            ask(TRNG_RND64, 8)[0],
            NOT_SUPPORTED,
            "TRNG_RND64 without a source"
        );
        return;
    }
    println!("there is entropy");
    check_eq!(ask(TRNG_VERSION, 0)[0], 0x1_0000, "TRNG_VERSION");
    check_eq!(
        ask(TRNG_FEATURES, u64::from(TRNG_RND64))[0],
        0,
        "TRNG_FEATURES of RND64"
    );
    check_eq!(
        ask(TRNG_FEATURES, 0x8400_0054)[0],
        NOT_SUPPORTED,
        "TRNG_FEATURES of nothing"
    );
    check!(ask(TRNG_UUID, 0)[0] != u64::from(u32::MAX), "no UUID");
    for (function, bits) in [
        (TRNG_RND32, 0),
        (TRNG_RND32, 97),
        (TRNG_RND64, 0),
        (TRNG_RND64, 193),
    ] {
        check_eq!(
            ask(function, bits)[0] as i32,
            INVALID_PARAMETERS,
            "{bits} bits of {function:#x}"
        );
    }
    let [x0, x1, x2, x3] = ask(TRNG_RND64, 130);
    check!(
        x0 == 0 && x1 < 4 && x2 != 0 && x3 != 0,
        "130 bits: {x0:#x} {x1:#x} {x2:#x} {x3:#x}"
    );
    let [y0, _, y2, y3] = ask(TRNG_RND64, 128);
    check!(y0 == 0 && (x2, x3) != (y2, y3), "the same 128 bits twice");
    let [x0, x1, x2, x3] = ask(TRNG_RND32, 32);
    check!(
        x0 == 0 && x1 == 0 && x2 == 0 && x3 >> 32 == 0,
        "32 bits: {x0:#x} {x1:#x} {x2:#x} {x3:#x}"
    );
}

fn stolen_time() {
    let one =
        |function, argument: u32| call(Conduit::Hvc, function, [u64::from(argument), 0, 0])[0];
    check_eq!(
        one(ARCH_FEATURES, PV_TIME_FEATURES),
        0,
        "ARCH_FEATURES of PV_TIME_FEATURES"
    );
    check_eq!(
        one(PV_TIME_FEATURES, PV_TIME_ST),
        0,
        "PV_TIME_FEATURES of PV_TIME_ST"
    );
    let structure = one(PV_TIME_ST, 0);
    check_eq!(structure, 0x090a_0000, "PV_TIME_ST");
    check_eq!(mmio::read64(structure), 0, "revision and attributes");
    let first = mmio::read64(structure + 8);
    let second = mmio::read64(structure + 8);
    println!("{second} ns stolen");
    check!(first <= second, "stolen time went from {first} to {second}");
    let ((), caught) = catch(|| mmio::write64(structure + 8, 1));
    check_eq!(caught.count, 1, "exceptions on a write to stolen time");
    check!(
        caught
            .last
            .is_some_and(|frame| frame.class() == class::DATA_ABORT),
        "a write to stolen time is no data abort"
    );
    check_eq!(one(PV_TIME_ST, 0), structure, "PV_TIME_ST again");
    check!(mmio::read64(structure + 8) >= second, "a write got through");
}

/// SMCCC 1.1: a callee preserves x4 to x17 as well, and whatever is above.
fn registers_are_preserved() {
    macro_rules! preserved {
        ($instruction:literal, $function:expr) => {{
            let changed: u64;
            // SAFETY: a call that does not exist, or returns values; every register named is declared.
            unsafe {
                asm!(
                    "mov x4, #4", "mov x5, #5", "mov x6, #6", "mov x7, #7", "mov x8, #8", "mov x9, #9",
                    "mov x10, #10", "mov x11, #11", "mov x12, #12", "mov x13, #13", "mov x14, #14", "mov x15, #15",
                    "mov x16, #16", "mov x17, #17",
                    $instruction,
                    "eor x4, x4, #4", "eor x6, x6, #6", "eor x7, x7, #7", "eor x8, x8, #8", "eor x12, x12, #12",
                    "eor x14, x14, #14", "eor x15, x15, #15", "eor x16, x16, #16",
                    "sub x5, x5, #5", "sub x9, x9, #9", "sub x10, x10, #10", "sub x11, x11, #11",
                    "sub x13, x13, #13", "sub x17, x17, #17",
                    "orr x4, x4, x5", "orr x4, x4, x6", "orr x4, x4, x7", "orr x4, x4, x8", "orr x4, x4, x9",
                    "orr x4, x4, x10", "orr x4, x4, x11", "orr x4, x4, x12", "orr x4, x4, x13", "orr x4, x4, x14",
                    "orr x4, x4, x15", "orr x4, x4, x16", "orr x4, x4, x17",
                    inout("x0") u64::from($function) => _, inout("x1") 0u64 => _, inout("x2") 0u64 => _,
                    inout("x3") 0u64 => _, out("x4") changed, out("x5") _, out("x6") _, out("x7") _, out("x8") _,
                    out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
                    out("x16") _, out("x17") _,
                    options(nostack)
                );
            }
            check_eq!(changed, 0, "bits of x4 to x17 changed by {:#x}", $function);
        }};
    }
    for function in [
        SMCCC_VERSION,
        TRNG_RND64,
        PV_TIME_ST,
        0x8600_ff01,
        0xc600_0001,
        0x8400_00ff,
    ] {
        preserved!("hvc #0", function);
        preserved!("smc #0", function);
    }
}
