//! Device accesses of every form: all widths, sign extension, 32- and 64-bit registers, the zero register; and the
//! forms whose syndrome does not say what they are (ISV = 0), which must abort or be right, never guessed.
//!
//! Devices: PL011's identification and divisor registers, PL031's match register, the GIC's priority registers. All
//! pass on bare QEMU.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::gic::Gic;
use runtime::platform::{NOWHERE, PL011, PL031};
use runtime::trap::{Caught, catch};
use runtime::{check, check_eq, console, mmio, println, read_sysreg};

runtime::guest!("mmio_widths", mmio_widths);

/// UARTPCellID0 to 3: 0x0d, 0xf0, 0x05, 0xb1, a byte each (PL011 TRM, "PrimeCell identification registers").
const CELL_ID: u64 = PL011 + 0xff0;
/// UARTPCellID1, whose top bit is set.
const CELL_ID1: u64 = CELL_ID + 4;
/// UARTIBRD: 16 bits, read and written.
const IBRD: u64 = PL011 + 0x024;
/// RTCMR: 32 bits, read and written.
const MATCH: u64 = PL031 + 0x004;

const ONES: u64 = u64::MAX;

/// Loads from `$address` with the register full of ones before.
macro_rules! load {
    ($instruction:literal, $address:expr) => {{
        let mut value = ONES;
        // SAFETY: a load from a device.
        unsafe { asm!($instruction, v = inout(reg) value, a = in(reg) $address, options(nostack)) };
        value
    }};
}

/// Stores `$value` to `$address`.
macro_rules! store {
    ($instruction:literal, $address:expr, $value:expr) => {
        // SAFETY: a store to a device register that nothing depends on.
        unsafe { asm!($instruction, v = in(reg) $value as u64, a = in(reg) $address, options(nostack)) }
    };
}

fn mmio_widths() {
    loads();
    stores();
    priorities();
    zero_register();
    without_syndrome();
    cache_maintenance_of_nothing();
}

fn loads() {
    check_eq!(load!("ldrb {v:w}, [{a}]", CELL_ID1), 0xf0, "LDRB");
    check_eq!(load!("ldrh {v:w}, [{a}]", CELL_ID1), 0xf0, "LDRH");
    check_eq!(load!("ldr {v:w}, [{a}]", CELL_ID1), 0xf0, "LDR W");
    check_eq!(
        load!("ldrsb {v:w}, [{a}]", CELL_ID1),
        0xffff_fff0,
        "LDRSB W"
    );
    check_eq!(
        load!("ldrsb {v:x}, [{a}]", CELL_ID1),
        0xffff_ffff_ffff_fff0,
        "LDRSB X"
    );
    check_eq!(
        load!("ldrsh {v:w}, [{a}]", CELL_ID1),
        0xf0,
        "LDRSH W of a positive half word"
    );
    check_eq!(
        load!("ldrsw {v:x}, [{a}]", CELL_ID1),
        0xf0,
        "LDRSW of a positive word"
    );
    check_eq!(load!("ldurb {v:w}, [{a}, #4]", CELL_ID), 0xf0, "LDURB");
    check_eq!(load!("ldarb {v:w}, [{a}]", CELL_ID1), 0xf0, "LDARB");
    check_eq!(load!("ldar {v:w}, [{a}]", CELL_ID1), 0xf0, "LDAR W");
    for (offset, id) in [(0, 0x0d), (4, 0xf0), (8, 0x05), (12, 0xb1)] {
        check_eq!(
            load!("ldr {v:w}, [{a}]", CELL_ID + offset),
            id,
            "UARTPCellID at {offset}"
        );
    }
}

fn stores() {
    store!("strh {v:w}, [{a}]", IBRD, 0x8001);
    check_eq!(load!("ldrh {v:w}, [{a}]", IBRD), 0x8001, "LDRH of STRH");
    check_eq!(load!("ldrsh {v:w}, [{a}]", IBRD), 0xffff_8001, "LDRSH W");
    check_eq!(
        load!("ldrsh {v:x}, [{a}]", IBRD),
        0xffff_ffff_ffff_8001,
        "LDRSH X"
    );
    store!("str {v:w}, [{a}]", IBRD, 0x1234);
    check_eq!(load!("ldr {v:w}, [{a}]", IBRD), 0x1234, "LDR W of STR W");
    store!("str {v:w}, [{a}]", MATCH, 0xdead_beef_8765_4321u64);
    check_eq!(
        load!("ldr {v:w}, [{a}]", MATCH),
        0x8765_4321,
        "LDR W of 32 bits"
    );
    check_eq!(
        load!("ldrsw {v:x}, [{a}]", MATCH),
        0xffff_ffff_8765_4321,
        "LDRSW"
    );
    store!("stlr {v:w}, [{a}]", MATCH, 0x1357_9bdf);
    check_eq!(
        load!("ldar {v:w}, [{a}]", MATCH),
        0x1357_9bdf,
        "LDAR of STLR"
    );
    double_word();
}

/// 64 bits at a 32-bit device: refused, or right for the low word, and nothing strange above it.
fn double_word() {
    let (value, caught) = catch(|| load!("ldr {v:x}, [{a}]", MATCH - 4));
    match caught.count {
        0 => check!(
            value >> 32 == 0x1357_9bdf || value >> 32 == 0,
            "LDR X of two registers: {value:#x}"
        ),
        _ => check_eq!(value, ONES, "the register of a refused LDR X"),
    }
}

/// The GIC's priority registers are bytes to any width.
fn priorities() {
    let Some(gic) = Gic::from_tree() else { return };
    // GICD_IPRIORITYR<16>: SPIs 64 to 67. Top five bits of each byte are there in every implementation.
    let priority = gic.gicd() + 0x400 + 64;
    if gic.typer() & 0x1f < 2 {
        println!("no SPI 64 here");
        return;
    }
    store!("str {v:w}, [{a}]", priority, 0x8090_a0b0u64);
    check_eq!(
        load!("ldr {v:w}, [{a}]", priority),
        0x8090_a0b0,
        "four priorities"
    );
    for (n, byte) in [0xb0, 0xa0, 0x90, 0x80].into_iter().enumerate() {
        check_eq!(
            load!("ldrb {v:w}, [{a}]", priority + n as u64),
            byte,
            "priority {n} by LDRB"
        );
    }
    store!("strb {v:w}, [{a}]", priority + 2, 0x40);
    check_eq!(
        load!("ldr {v:w}, [{a}]", priority),
        0x8040_a0b0,
        "four priorities after STRB"
    );
    check_eq!(
        load!("ldrsb {v:w}, [{a}]", priority + 3),
        0xffff_ff80,
        "priority by LDRSB"
    );
    store!("str {v:w}, [{a}]", priority, 0);
}

/// Register 31 in these instructions is zero, never the stack pointer.
fn zero_register() {
    store!("str {v:w}, [{a}]", MATCH, 0x1111_1111);
    // SAFETY: a load that keeps nothing, stores of zero.
    unsafe {
        asm!("ldr wzr, [{a}]", "ldr xzr, [{b}]", a = in(reg) MATCH, b = in(reg) MATCH & !7, options(nostack))
    };
    check_eq!(
        load!("ldr {v:w}, [{a}]", MATCH),
        0x1111_1111,
        "RTCMR after LDR WZR"
    );
    // SAFETY: as above.
    unsafe { asm!("str wzr, [{a}]", a = in(reg) MATCH, options(nostack)) };
    check_eq!(load!("ldr {v:w}, [{a}]", MATCH), 0, "RTCMR after STR WZR");
    store!("strh {v:w}, [{a}]", IBRD, 0xffff);
    // SAFETY: as above.
    unsafe { asm!("strh wzr, [{a}]", a = in(reg) IBRD, options(nostack)) };
    check_eq!(
        load!("ldrh {v:w}, [{a}]", IBRD),
        0,
        "UARTIBRD after STRH WZR"
    );
}

/// Forms with ISV = 0: SIMD, exclusives, atomics. Either the access happened as the instruction says, or it was refused and
/// changed nothing. (Pairs and write-back: `pair_access`.)
fn without_syndrome() {
    store!("str {v:w}, [{a}]", MATCH, 0x2222_3333);
    simd();
    exclusive_and_atomic();
}

fn simd() {
    let mut low = 0u64;
    let refused = attempt("LDR Q", || {
        // SAFETY: V0 is ours: this program has no floating point of its own.
        unsafe {
            asm!(".arch_extension fp", ".arch_extension simd", "fmov d0, {0}", "ldr s0, [{1}]", "fmov {0}, d0",
                inout(reg) low, in(reg) CELL_ID1, options(nostack));
        }
    });
    check_eq!(low, if refused { 0 } else { 0xf0 }, "LDR S");
}

fn exclusive_and_atomic() {
    let before = load!("ldr {v:w}, [{a}]", MATCH);
    let mut value = ONES;
    let refused = attempt("LDXR", || {
        // SAFETY: a load from a device; the monitor is cleared.
        unsafe {
            asm!("ldxr {0:w}, [{1}]", "clrex", inout(reg) value, in(reg) MATCH, options(nostack))
        };
    });
    check_eq!(value, if refused { ONES } else { before }, "LDXR");
    // ID_AA64ISAR0_EL1.Atomic.
    if read_sysreg!("ID_AA64ISAR0_EL1") >> 20 & 0xf < 2 {
        return;
    }
    let mut old = ONES;
    let refused = attempt("LDADD", || {
        // SAFETY: an atomic to a device register that nothing depends on.
        unsafe {
            asm!(".arch_extension lse", "ldadd {0:w}, {1:w}, [{2}]", in(reg) 1u64, inout(reg) old, in(reg) MATCH,
                options(nostack));
        }
    });
    let now = load!("ldr {v:w}, [{a}]", MATCH);
    let expected = if refused {
        (ONES, before)
    } else {
        (before, before + 1)
    };
    check!((old, now) == expected, "LDADD: old {old:#x}, now {now:#x}");
}

/// Runs an access that may be refused once; says whether it was.
fn attempt(what: &str, access: impl FnOnce()) -> bool {
    let ((), Caught { count, last }) = catch(access);
    match last {
        None => println!("{what}: done"),
        Some(frame) => {
            check_eq!(count, 1, "exceptions on {what}");
            check!(frame.is_abort(), "{what}: class {:#x}", frame.class());
            println!("{what}: refused, status {:#x}", frame.fault_status());
        }
    }
    last.is_some()
}

/// Cache maintenance by address where there is nothing does nothing.
fn cache_maintenance_of_nothing() {
    macro_rules! maintain {
        ($instruction:literal) => {
            let ((), caught) = catch(|| {
                // SAFETY: maintenance of an address at which there is no memory.
                unsafe { asm!(concat!($instruction, ", {0}"), in(reg) NOWHERE, options(nostack)) };
            });
            check_eq!(caught.count, 0, concat!("exceptions on ", $instruction, " of nothing"));
        };
    }
    maintain!("dc cvac");
    maintain!("dc cvau");
    maintain!("dc civac");
    maintain!("dc ivac");
    maintain!("ic ivau");
    console::enable();
    let _ = mmio::read32(IBRD);
}
