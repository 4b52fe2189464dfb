//! What an access to nothing does to its author: the exception taken, bit by bit, from EL1h, EL1t and EL0.
//!
//! Oracle: DDI 0487 exception entry to AArch64 state, ESR_EL1 and FAR_EL1; the same guest passes on bare QEMU, where
//! the bus refuses the access and no hypervisor is involved.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use runtime::platform::NOWHERE;
use runtime::trap::{Frame, catch, class};
use runtime::{check, check_eq, el0, hypercall, mmu, pages, println};

runtime::guest!("aborts", aborts);

/// Where the code that makes the access runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    El1h,
    El1t,
    El0,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    Load,
    Store,
    Fetch,
}

/// PSTATE.NZCV as the probes set it: N and C.
const FLAGS: u64 = 0b1010 << 28;
/// Synchronous external abort, not on a walk.
const EXTERNAL: u64 = 0x10;
/// ISS.WnR.
const WNR: u64 = 1 << 6;
/// What the load's register holds before, and must hold after.
const UNTOUCHED: u64 = 0x5a5a_0123_4567_a5a5;

fn aborts() {
    every_way("stage 1 off", |_| NOWHERE + 0xab8, |code| code);
    let windows = Windows::open();
    every_way(
        "stage 1 on",
        |from| windows.nowhere(from),
        |code| windows.code(code),
    );
}

fn every_way(setting: &str, target: impl Fn(From) -> u64, code: impl Fn(u64) -> u64) {
    for from in [From::El1h, From::El1t, From::El0] {
        for access in [Access::Load, Access::Store, Access::Fetch] {
            let address = target(from);
            let (probe, frame) = probe(from, access, address, &code);
            println!(
                "{setting}, {from:?} {access:?}: ESR {:#x} FAR {:#x} SPSR {:#x}",
                frame.esr, frame.far, frame.spsr
            );
            examine(from, access, address, probe, &frame);
        }
    }
}

/// Holds the exception against the architecture.
fn examine(from: From, access: Access, address: u64, instruction: u64, frame: &Frame) {
    let lower = from == From::El0;
    let expected_class = match access {
        Access::Fetch if lower => class::INSTRUCTION_ABORT_LOWER,
        Access::Fetch => class::INSTRUCTION_ABORT,
        _ if lower => class::DATA_ABORT_LOWER,
        _ => class::DATA_ABORT,
    };
    let (vector, mode) = match from {
        From::El1t => (0x000, 0b0100),
        From::El1h => (0x200, 0b0101),
        From::El0 => (0x400, 0b0000),
    };
    let iss = EXTERNAL | if access == Access::Store { WNR } else { 0 };
    let daif = if lower { 0x3c0 } else { 0 };
    check_eq!(frame.vector, vector, "{from:?} {access:?}: vector");
    check_eq!(
        frame.class(),
        expected_class,
        "{from:?} {access:?}: ESR_EL1.EC"
    );
    check!(frame.il(), "{from:?} {access:?}: ESR_EL1.IL is 0");
    check_eq!(frame.iss(), iss, "{from:?} {access:?}: ESR_EL1.ISS");
    check_eq!(
        frame.esr >> 32,
        0,
        "{from:?} {access:?}: ESR_EL1 upper half"
    );
    check_eq!(frame.far, address, "{from:?} {access:?}: FAR_EL1");
    let elr = if access == Access::Fetch {
        address
    } else {
        instruction
    };
    check_eq!(frame.elr, elr, "{from:?} {access:?}: ELR_EL1");
    check_eq!(frame.spsr & 0xf, mode, "{from:?} {access:?}: SPSR_EL1.M");
    check_eq!(
        frame.spsr & 0x3c0,
        daif,
        "{from:?} {access:?}: SPSR_EL1.DAIF"
    );
    check_eq!(
        frame.spsr & 0xf000_0000,
        FLAGS,
        "{from:?} {access:?}: SPSR_EL1.NZCV"
    );
    // SS and IL.
    check_eq!(
        frame.spsr >> 20 & 3,
        0,
        "{from:?} {access:?}: SPSR_EL1.SS and IL"
    );
    // The architecture keeps them; QEMU's own exception entry does not.
    if hypercall::counter(0).is_some() {
        check_eq!(
            frame.nzcv,
            FLAGS,
            "{from:?} {access:?}: NZCV in the handler"
        );
    }
    check_eq!(
        frame.daif,
        0x3c0,
        "{from:?} {access:?}: DAIF in the handler"
    );
    check_eq!(frame.spsel, 1, "{from:?} {access:?}: SPSel in the handler");
    check_eq!(
        frame.current_el,
        1 << 2,
        "{from:?} {access:?}: CurrentEL in the handler"
    );
}

/// Makes the access; answers the address of the instruction that made it, and the exception.
fn probe(from: From, access: Access, address: u64, code: &impl Fn(u64) -> u64) -> (u64, Frame) {
    let (instruction, caught) = catch(|| match from {
        From::El1h => at_el1::<1>(access, address),
        From::El1t => at_el1::<0>(access, address),
        From::El0 => at_el0(access, address, code),
    });
    check_eq!(
        caught.count,
        1,
        "{from:?} {access:?} of nothing: exceptions"
    );
    (instruction, caught.last.unwrap_or_else(|| unreachable!()))
}

fn at_el1<const SPSEL: u64>(access: Access, address: u64) -> u64 {
    let mut value = UNTOUCHED;
    let mut at = 0u64;
    macro_rules! probe {
        ($instruction:literal) => {
            // SAFETY: with SPSel = 0 nothing uses the stack, and the exception's handler runs on SP_EL1. DAIF, SPSel
            // and the flags are put back; the access itself touches nothing of Rust's.
            unsafe {
                asm!(
                    "msr nzcv, {flags}",
                    "msr daifclr, #15",
                    "cbnz {spsel}, 1f",
                    "msr spsel, #0",
                    "1: adr {at}, 2f",
                    "adr x30, 3f",
                    concat!("2: ", $instruction, " // {value}"),
                    "3: msr spsel, #1",
                    "msr daifset, #15",
                    flags = in(reg) FLAGS, spsel = in(reg) SPSEL, at = inout(reg) at, value = inout(reg) value,
                    address = in(reg) address, out("x30") _, options(nostack),
                )
            }
        };
    }
    match access {
        Access::Load => probe!("ldr {value}, [{address}]"),
        Access::Store => probe!("str {value}, [{address}]"),
        Access::Fetch => probe!("br {address}"),
    }
    check_eq!(value, UNTOUCHED, "the register of an access that failed");
    at
}

unsafe extern "C" {
    static el0_load: u8;
    static el0_load_at: u8;
    static el0_store: u8;
    static el0_store_at: u8;
    static el0_fetch: u8;
}

global_asm!(
    ".pushsection .text.el0_probes, \"ax\"",
    ".balign 256",
    "el0_load:",
    "mov   x1, #0x28",
    "lsl   x1, x1, #26",
    "msr   nzcv, x1",
    "el0_load_at: ldr x2, [x0]",
    "svc   #0xfa7e",
    "el0_store:",
    "mov   x1, #0x28",
    "lsl   x1, x1, #26",
    "msr   nzcv, x1",
    "el0_store_at: str x2, [x0]",
    "svc   #0xfa7e",
    "el0_fetch:",
    "mov   x1, #0x28",
    "lsl   x1, x1, #26",
    "msr   nzcv, x1",
    "adr   x30, 1f",
    "br    x0",
    "1: svc #0xfa7e",
    ".popsection",
);

fn at_el0(access: Access, address: u64, code: &impl Fn(u64) -> u64) -> u64 {
    let (start, at) = match access {
        Access::Load => (&raw const el0_load, &raw const el0_load_at),
        Access::Store => (&raw const el0_store, &raw const el0_store_at),
        Access::Fetch => (&raw const el0_fetch, &raw const el0_fetch),
    };
    let (start, at) = (code(start as u64), code(at as u64));
    pages::set_el0_code(start & !0xfff);
    // SAFETY: the probes above end in their SVC and use no memory and no stack.
    unsafe { el0::run(start, address, 0) };
    at
}

/// Virtual addresses that stage 1 allows, of a page that is nowhere, one for EL1 and one for EL0; and of the probes'
/// code for EL0.
struct Windows;

impl Windows {
    fn open() -> Self {
        let tables = mmu::Tables::identity();
        let map = |n: u64, page: u64, rights: u64| {
            let (level2, level3) = (pages::fresh(), pages::fresh());
            tables.set_root(
                mmu::index(mmu::elsewhere(n), 1),
                level2 | mmu::TABLE_OR_PAGE,
            );
            mmu::set(level2, level3 | mmu::TABLE_OR_PAGE);
            mmu::set(level3, page | mmu::TABLE_OR_PAGE | mmu::NORMAL | rights);
        };
        map(0, NOWHERE, 0);
        map(1, NOWHERE, mmu::EL0);
        map(
            2,
            &raw const el0_load as u64 & !0xfff,
            mmu::EL0 | mmu::READ_ONLY,
        );
        tables.enable();
        Self
    }

    fn nowhere(&self, from: From) -> u64 {
        mmu::elsewhere(if from == From::El0 { 1 } else { 0 }) + 0x128
    }

    fn code(&self, address: u64) -> u64 {
        mmu::elsewhere(2) + (address & 0xfff)
    }
}
