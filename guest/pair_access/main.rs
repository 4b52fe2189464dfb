//! Device accesses that move more than one register: pairs, and single ones with write-back. Their syndrome says nothing
//! (ISV = 0), so that a hypervisor has to read the instruction itself, with stage 1 off and through tables of mine.
//!
//! On bare QEMU the devices answer all of them; beneath Faultline they must be done just so, not refused.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::hypercall::{Counter, counted};
use runtime::platform::{NOWHERE, PL011, PL031};
use runtime::trap::{catch, class};
use runtime::{check, check_eq, mmio, mmu, pages, println};

runtime::guest!("pair_access", pair_access);

/// UARTPCellID0 to 3: 0x0d, 0xf0, 0x05, 0xb1, a byte each (PL011 TRM, "PrimeCell identification registers").
const CELL_ID: u64 = 0xff0;
/// UARTIBRD and UARTFBRD: 16 and 6 bits, read and written, side by side.
const DIVISORS: u64 = 0x024;
/// RTCMR: 32 bits, read and written.
const MATCH: u64 = 0x004;
/// The last three words of a page.
const PAGE_END: u64 = 0xff4;

const ONES: u64 = u64::MAX;

fn pair_access() {
    everything("stage 1 off", PL011, PL031);
    let (uart, rtc) = map_elsewhere();
    everything("stage 1 on", uart, rtc);
    foreign_code(uart);
    mmu::disable();
}

fn everything(setting: &str, uart: u64, rtc: u64) {
    let ((), cost) = counted(|| {
        pairs(uart);
        write_back(uart, rtc);
        stack_pointer(rtc);
        refused(uart);
    });
    if let Some(cost) = cost {
        let (done, injected) = (
            cost.get(Counter::MmioEmulated),
            cost.get(Counter::AbortsInjected),
        );
        println!("{setting}: {done} device accesses, {injected} refused");
        // Those of `refused`.
        check_eq!(injected, 2, "{setting}: aborts injected");
    }
}

fn pairs(uart: u64) {
    let (mut first, mut second) = (ONES, ONES);
    // SAFETY: loads from a device.
    unsafe {
        asm!("ldp {0:w}, {1:w}, [{2}]", inout(reg) first, inout(reg) second, in(reg) uart + CELL_ID, options(nostack));
    }
    check!(
        (first, second) == (0x0d, 0xf0),
        "LDP: {first:#x}, {second:#x}"
    );
    // SAFETY: as above.
    unsafe {
        asm!("ldpsw {0:x}, {1:x}, [{2}, #8]", inout(reg) first, inout(reg) second, in(reg) uart + CELL_ID, options(nostack));
    }
    check!(
        (first, second) == (0x05, 0xb1),
        "LDPSW: {first:#x}, {second:#x}"
    );
    // Both halves come from the base as it was.
    let mut base = uart + CELL_ID;
    // SAFETY: as above.
    unsafe { asm!("ldp {0:w}, {1:w}, [{1}]", out(reg) first, inout(reg) base, options(nostack)) };
    check!(
        (first, base) == (0x0d, 0xf0),
        "LDP over its base: {first:#x}, {base:#x}"
    );
    // SAFETY: stores to registers that nothing depends on.
    unsafe {
        asm!("stp {0:w}, {1:w}, [{2}]", in(reg) 0x1234u64, in(reg) 0x2bu64, in(reg) uart + DIVISORS, options(nostack));
    }
    check_eq!(mmio::read32(uart + DIVISORS), 0x1234, "first half of STP");
    check_eq!(
        mmio::read32(uart + DIVISORS + 4),
        0x2b,
        "second half of STP"
    );
    // SAFETY: as above.
    unsafe { asm!("stp wzr, wzr, [{0}]", in(reg) uart + DIVISORS, options(nostack)) };
    check_eq!(mmio::read32(uart + DIVISORS), 0, "STP of WZR");
    check_eq!(
        mmio::read32(uart + DIVISORS + 4),
        0,
        "STP of WZR, second half"
    );
}

fn write_back(uart: u64, rtc: u64) {
    let cell = uart + CELL_ID;
    macro_rules! load {
        ($instruction:literal, $from:expr, $value:expr, $base:expr) => {
            let (mut value, mut base) = (ONES, $from);
            // SAFETY: a load from a device.
            unsafe { asm!($instruction, v = inout(reg) value, b = inout(reg) base, options(nostack)) };
            check_eq!(value, $value, "value of {}", $instruction);
            check_eq!(base, $base, "base of {}", $instruction);
        };
    }
    load!("ldr {v:w}, [{b}], #8", cell, 0x0d, cell + 8);
    load!("ldr {v:w}, [{b}, #4]!", cell, 0xf0, cell + 4);
    load!("ldrb {v:w}, [{b}], #-1", cell + 4, 0xf0, cell + 3);
    load!("ldrh {v:w}, [{b}, #-4]!", cell + 12, 0x05, cell + 8);
    load!(
        "ldrsb {v:x}, [{b}], #4",
        cell + 4,
        0xffff_ffff_ffff_fff0,
        cell + 8
    );
    load!("ldrsb {v:w}, [{b}], #4", cell + 4, 0xffff_fff0, cell + 8);
    load!("ldrsw {v:x}, [{b}, #12]!", cell, 0xb1, cell + 12);
    let mut base = rtc + MATCH;
    // SAFETY: stores to a register that nothing depends on.
    unsafe {
        asm!("str {0:w}, [{1}], #4", in(reg) 0x8765_4321u64, inout(reg) base, options(nostack))
    };
    check_eq!(base, rtc + MATCH + 4, "base of STR post-index");
    check_eq!(mmio::read32(rtc + MATCH), 0x8765_4321, "STR post-index");
    load!(
        "ldrsw {v:x}, [{b}], #-4",
        rtc + MATCH,
        0xffff_ffff_8765_4321,
        rtc
    );
    let (mut first, mut second, mut base) = (ONES, ONES, cell);
    // SAFETY: loads from a device.
    unsafe {
        asm!("ldp {0:w}, {1:w}, [{2}], #8", inout(reg) first, inout(reg) second, inout(reg) base, options(nostack));
    }
    check!(
        (first, second, base) == (0x0d, 0xf0, cell + 8),
        "LDP post-index: {first:#x}, {second:#x}, base {base:#x}"
    );
    // SAFETY: stores to registers that nothing depends on.
    unsafe {
        let mut base = uart + DIVISORS - 8;
        asm!("stp {0:w}, {1:w}, [{2}, #8]!", in(reg) 0x77u64, in(reg) 0x3fu64, inout(reg) base, options(nostack));
        check_eq!(base, uart + DIVISORS, "base of STP pre-index");
    }
    check_eq!(mmio::read32(uart + DIVISORS), 0x77, "STP pre-index");
    check_eq!(
        mmio::read32(uart + DIVISORS + 4),
        0x3f,
        "STP pre-index, second half"
    );
}

/// The base is SP: `SP_EL0`, while nothing else uses the stack.
fn stack_pointer(rtc: u64) {
    let (mut value, at) = (ONES, rtc & !0xf | 0x10);
    let after: u64;
    // SAFETY: with SPSel = 0 SP is SP_EL0, which nothing uses; an exception would run on SP_EL1.
    unsafe {
        asm!("msr spsel, #0", "mov sp, {at}", "ldr {v:w}, [sp], #16", "mov {after}, sp", "msr spsel, #1",
            at = in(reg) at, v = inout(reg) value, after = out(reg) after, options(nostack));
    }
    // RTCIMSC: no interrupt is wanted.
    check_eq!(value, 0, "LDR from SP");
    check_eq!(after, at + 16, "SP after LDR post-index");
}

/// What cannot be done whole is not done by halves: a pair that leaves its device for nothing is refused, and what has
/// neither memory nor device behind it too.
fn refused(uart: u64) {
    let nowhere = if uart == PL011 {
        NOWHERE
    } else {
        mmu::elsewhere(3)
    };
    // On bare QEMU the page above the PL011 is the PL031.
    let at = nowhere + PAGE_END;
    let (mut first, mut second, mut base) = (ONES, ONES, at);
    for what in ["LDP of nothing", "LDP of nothing, again"] {
        let ((), caught) = catch(|| {
            // SAFETY: loads from where there is nothing.
            unsafe {
                asm!("ldp {0:w}, {1:w}, [{2}], #8", inout(reg) first, inout(reg) second, inout(reg) base, options(nostack));
            }
        });
        check_eq!(caught.count, 1, "exceptions on {what}");
        let frame = caught.last.unwrap_or_else(|| unreachable!());
        check_eq!(frame.class(), class::DATA_ABORT, "{what}: ESR_EL1.EC");
        check_eq!(frame.fault_status(), 0x10, "{what}: status");
        check_eq!(frame.far, at, "{what}: FAR_EL1");
        check!(
            (first, second, base) == (ONES, ONES, at),
            "{what} changed a register: {first:#x}, {second:#x}, base {base:#x}"
        );
    }
}

/// Pages of their own for the devices and for nothing, at addresses that are not theirs.
fn map_elsewhere() -> (u64, u64) {
    let tables = mmu::Tables::identity();
    let device = |n: u64, page: u64| {
        let (level2, level3) = (pages::fresh(), pages::fresh());
        tables.set_root(
            mmu::index(mmu::elsewhere(n), 1),
            level2 | mmu::TABLE_OR_PAGE,
        );
        mmu::set(level2, level3 | mmu::TABLE_OR_PAGE);
        mmu::set(
            level3,
            page | mmu::TABLE_OR_PAGE | mmu::AF | mmu::DEVICE | mmu::XN,
        );
        mmu::elsewhere(n)
    };
    let (uart, rtc) = (device(1, PL011), device(2, PL031));
    device(3, NOWHERE);
    code(tables);
    tables.enable();
    (uart, rtc)
}

/// `LDP W1, W2, [X0]`, `ADD X0, X1, X2`, `RET`.
const CODE: [u32; 3] = [0x2940_0801, 0x8b02_0020, 0xd65f_03c0];

fn code(tables: mmu::Tables) {
    let [level2, level3, page] = [pages::fresh(), pages::fresh(), pages::fresh()];
    for (n, word) in CODE.into_iter().enumerate() {
        mmio::write32(page + 4 * n as u64, word);
    }
    runtime::cache::publish_code(page, 16);
    let address = mmu::elsewhere(4);
    tables.set_root(mmu::index(address, 1), level2 | mmu::TABLE_OR_PAGE);
    mmu::set(level2, level3 | mmu::TABLE_OR_PAGE);
    mmu::set(
        level3,
        page | mmu::TABLE_OR_PAGE | mmu::NORMAL | mmu::READ_ONLY,
    );
}

/// The instruction itself lies at an address that only my tables explain.
fn foreign_code(uart: u64) {
    let sum: u64;
    // SAFETY: the three instructions above: they load two words from a device and add them.
    unsafe {
        asm!("blr {0}", in(reg) mmu::elsewhere(4), inout("x0") uart + CELL_ID => sum, clobber_abi("C"));
    }
    check_eq!(sum, 0x0d + 0xf0, "the sum of a pair, by code elsewhere");
}
