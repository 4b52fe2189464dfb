//! Parts of RAM that a VM may not use in every way (`faultline,rom` and `faultline,xn` of docs/vm-bundle.md): what is
//! allowed works, anything else is a synchronous external abort, and the pages beside them are like all others. The CPU's
//! own walk may read tables in ROM, and not set flags in them.
//!
//! The ramdisk, which is this very program, lies in the ROM, so what should be in it is known. Where the three parts are
//! is agreed with `guest/qemu/cases.rs`.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::hypercall::{Counter, counted};
use runtime::mmu::{self, Tables};
use runtime::pages::{self, PAGE};
use runtime::platform::RAM_BASE;
use runtime::trap::{Caught, catch, class};
use runtime::{cache, check, check_eq, fdt, mmio, println, read_sysreg, sysreg};

runtime::guest!("rom_and_xn", rom_and_xn);

/// A part: where it begins, how long it is.
type Part = (u64, u64);
/// Where a ramdisk goes after a kernel of less than 1.5 MiB.
const ROM: Part = (RAM_BASE + 0x20_0000, 0x2_0000);
/// Neither its begin nor its end is that of a block or of a group of pages.
const XN: Part = (RAM_BASE + 0x680_3000, 0x4000);
/// Nothing but reading.
const READ_ONLY: Part = (RAM_BASE + 0x690_0000, PAGE);

/// Where this program runs, and what the tables below map.
const KERNEL: u64 = RAM_BASE + 0x8_0000;
const MAPPED: u64 = RAM_BASE + 0x600_0000;
const RET: u32 = 0xd65f_03c0;
/// ESR_EL1 status: synchronous external abort; on a walk at level 2, and 3.
const EXTERNAL: u64 = 0x10;
const ON_WALK: [u64; 2] = [0x16, 0x17];
const WNR: u64 = 1 << 6;
/// Stage-1 descriptors: DBM, and AP[2], which with DBM means clean.
const DBM: u64 = 1 << 51;
const CLEAN: u64 = 1 << 7;

#[repr(C, align(4096))]
struct Table([u64; 512]);

const fn table_of(descriptor: u64) -> Table {
    let mut table = Table([0; 512]);
    table.0[0] = descriptor;
    table
}

const BLOCK: u64 = MAPPED | mmu::BLOCK | mmu::NORMAL;
const PAGE_THERE: u64 = MAPPED | mmu::TABLE_OR_PAGE | mmu::NORMAL;
/// What comes with the program, and so is in ROM too: tables of level 2 and of level 3; complete, without the access flag,
/// clean; and code.
static COMPLETE: [Table; 2] = [table_of(BLOCK), table_of(PAGE_THERE)];
static NOT_ACCESSED: [Table; 2] = [table_of(BLOCK & !mmu::AF), table_of(PAGE_THERE & !mmu::AF)];
static CLEAN_ONES: [Table; 2] = [
    table_of(BLOCK | DBM | CLEAN),
    table_of(PAGE_THERE | DBM | CLEAN),
];
/// MOVZ X0, #0x1234; RET.
static CODE: [u32; 2] = [0xd282_4680, RET];

fn rom_and_xn() {
    for part in [ROM, XN, READ_ONLY] {
        check!(
            is_reserved(part),
            "{:#x} is not in /reserved-memory",
            part.0
        );
    }
    // Stage 1 off, then on.
    rom_refuses_stores();
    let tables = Tables::identity();
    tables.enable_with(sysreg::hafdbs());
    rom_is_read_and_executed();
    rom_refuses_stores();
    xn_is_read_and_written();
    xn_refuses_fetches();
    only_reading();
    neighbours();
    tables_in_rom(tables);
    flags_in_rom(tables);
}

fn is_reserved((base, size): Part) -> bool {
    let found = fdt::find(|node, property, value| {
        let is_it = node.starts_with(b"memory@")
            && property == b"reg"
            && (fdt::cells64(value, 0), fdt::cells64(value, 1)) == (Some(base), Some(size));
        is_it.then_some(())
    });
    found.is_some()
}

/// Where something of this program lies in ROM.
fn in_rom<T>(thing: &T) -> u64 {
    ROM.0 + (core::ptr::from_ref(thing) as u64 - KERNEL)
}

/// What an access must have come to: one abort, of this status.
fn expect(what: &str, caught: Caught, expected_class: u64, iss: u64, far: u64) {
    check_eq!(caught.count, 1, "{what}: exceptions");
    let frame = caught.last.unwrap_or_else(|| unreachable!());
    check_eq!(frame.class(), expected_class, "{what}: ESR_EL1.EC");
    check_eq!(frame.iss(), iss, "{what}: ESR_EL1.ISS");
    check_eq!(frame.far, far, "{what}: FAR_EL1");
    if expected_class == class::INSTRUCTION_ABORT {
        check_eq!(frame.elr, far, "{what}: ELR_EL1");
    }
}

fn rom_is_read_and_executed() {
    check_eq!(pages::call(in_rom(&CODE)), 0x1234, "code in ROM");
    for page in (0..CODE.as_ptr() as u64 - KERNEL).step_by(PAGE as usize) {
        check_eq!(
            mmio::read64(ROM.0 + page),
            mmio::read64(KERNEL + page),
            "ROM at {page:#x}"
        );
    }
    // Cache maintenance by address writes nothing.
    let ((), caught) = catch(|| {
        cache::clean_to_pou(ROM.0, PAGE);
        cache::clean_to_poc(ROM.0, PAGE);
    });
    check_eq!(caught.count, 0, "exceptions on cache maintenance of ROM");
}

/// Every kind of store: refused, with nothing written. `$address` is the operand's name in the template.
fn rom_refuses_stores() {
    let is_cached = read_sysreg!("SCTLR_EL1") & 1 == 1;
    let address = ROM.0 + 0x100;
    let before = mmio::read64(address);
    macro_rules! refused {
        ($what:literal, $($template:literal),+) => {{
            // SAFETY: ROM is no memory of Rust's, and what faults is skipped.
            let ((), caught) = catch(|| unsafe {
                asm!(".arch_extension lse", $($template),+, at = in(reg) address, value = in(reg) !before,
                    old = out(reg) _, options(nostack))
            });
            expect($what, caught, class::DATA_ABORT, EXTERNAL | WNR, address);
            check_eq!(mmio::read64(address), before, "ROM after {}", $what);
        }};
    }
    refused!("STR", "str {value}, [{at}] // {old}");
    refused!("STRB", "strb {value:w}, [{at}] // {old}");
    refused!("STP", "stp {value}, xzr, [{at}] // {old}");
    refused!("STLR", "stlr {value}, [{at}] // {old}");
    if !is_cached {
        // Exclusives, atomics and DC ZVA want Normal memory.
        return;
    }
    refused!(
        "STXR",
        "ldxr {old}, [{at}]",
        "stxr {old:w}, {value}, [{at}]"
    );
    if read_sysreg!("ID_AA64ISAR0_EL1") >> 20 & 0xf >= 2 {
        refused!("LDADD", "ldadd {value}, {old}, [{at}]");
        refused!("SWP", "swp {value}, {old}, [{at}]");
    }
    refused!("DC ZVA", "dc zva, {at} // {value} {old}");
}

fn xn_is_read_and_written() {
    for page in (XN.0..XN.0 + XN.1 - PAGE).step_by(PAGE as usize) {
        check_eq!(mmio::read64(page), 0, "fresh memory at {page:#x}");
        mmio::write32(page, RET);
        check_eq!(mmio::read32(page), RET, "memory at {page:#x}");
    }
}

/// The last page has never been touched.
fn xn_refuses_fetches() {
    cache::publish_code(XN.0, XN.1 - PAGE);
    for page in (XN.0..XN.0 + XN.1).step_by(PAGE as usize) {
        let (_, caught) = catch(|| pages::call(page));
        expect("fetch", caught, class::INSTRUCTION_ABORT, EXTERNAL, page);
    }
    check_eq!(mmio::read32(XN.0), RET, "memory after a fetch was refused");
    mmio::write32(XN.0, 0);
}

fn only_reading() {
    let address = READ_ONLY.0;
    check_eq!(mmio::read64(address), 0, "read-only memory");
    let ((), caught) = catch(|| mmio::write32(address, RET));
    let iss = EXTERNAL | WNR;
    expect("store", caught, class::DATA_ABORT, iss, address);
    let (_, caught) = catch(|| pages::call(address));
    expect("fetch", caught, class::INSTRUCTION_ABORT, EXTERNAL, address);
}

/// The pages before and after the parts are written and executed.
fn neighbours() {
    for (base, size) in [ROM, XN, READ_ONLY] {
        for page in [base - PAGE, base + size] {
            mmio::write32(page, RET);
            cache::publish_code(page, 4);
            check_eq!(pages::call(page), u64::MAX, "code at {page:#x}");
        }
    }
}

/// A window, number `n`, that the table of level 2 or 3 at `table` describes.
fn window(tables: Tables, n: u64, level: u64, table: u64) -> u64 {
    let address = mmu::elsewhere(n);
    let level2 = match level {
        2 => table,
        _ => {
            let level2 = pages::fresh();
            mmu::set(level2, table | mmu::TABLE_OR_PAGE);
            level2
        }
    };
    tables.set_root(mmu::index(address, 1), level2 | mmu::TABLE_OR_PAGE);
    mmu::invalidate();
    address
}

/// The walker reads them: data is read and written, code executed.
fn tables_in_rom(tables: Tables) {
    for (level, table) in (2..).zip(&COMPLETE) {
        let address = window(tables, level, level, in_rom(table));
        mmio::write32(address, RET);
        cache::publish_code(address, 4);
        check_eq!(
            mmio::read32(MAPPED),
            RET,
            "what was written through a table in ROM"
        );
        check_eq!(
            pages::call(address),
            u64::MAX,
            "code through a table in ROM"
        );
    }
}

/// The walker may not write them: an external abort on the walk, whatever the access was.
fn flags_in_rom(tables: Tables) {
    let hafdbs = sysreg::hafdbs();
    let ((), cost) = counted(|| {
        for (n, level) in [2, 3].into_iter().enumerate().filter(|_| hafdbs >= 1) {
            let status = ON_WALK[n];
            let address = window(tables, 8 + level, level, in_rom(&NOT_ACCESSED[n]));
            let (_, caught) = catch(|| mmio::read32(address));
            expect(
                "access flag, load",
                caught,
                class::DATA_ABORT,
                status,
                address,
            );
            let ((), caught) = catch(|| mmio::write32(address, 0));
            expect(
                "access flag, store",
                caught,
                class::DATA_ABORT,
                status | WNR,
                address,
            );
            let (_, caught) = catch(|| pages::call(address));
            expect(
                "access flag, fetch",
                caught,
                class::INSTRUCTION_ABORT,
                status,
                address,
            );
        }
        for (n, level) in [2, 3].into_iter().enumerate().filter(|_| hafdbs >= 2) {
            let address = window(tables, 16 + level, level, in_rom(&CLEAN_ONES[n]));
            check_eq!(
                mmio::read32(address),
                RET,
                "a load through a clean descriptor"
            );
            let ((), caught) = catch(|| mmio::write32(address, 0));
            let iss = ON_WALK[n] | WNR;
            expect("dirty state", caught, class::DATA_ABORT, iss, address);
        }
    });
    check_eq!(mmio::read32(MAPPED), RET, "what no store has reached");
    let expected = [0, 6, 8][hafdbs.min(2) as usize];
    println!("{expected} flags that the walker could not set");
    if let Some(cost) = cost {
        check_eq!(
            cost.get(Counter::AbortsInjected),
            expected,
            "aborts injected"
        );
    }
}
