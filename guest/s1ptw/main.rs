//! Faults of the stage-1 walk: tables in pages that nobody has touched, tables the walker itself must write (hardware
//! access flag and dirty state), address translation instructions, and a table where there is no memory.
//!
//! The original access is a read, a write or a fetch; the abort at EL2 is the walker's (S1PTW = 1), and its WnR says
//! nothing about it. A hypervisor that looks at WnR first answers the wrong question, and loops.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::global::Global;
use runtime::hypercall::{Counter, counted, page_by_page};
use runtime::mmu::{self, Tables};
use runtime::platform::{NOWHERE, RAM_BASE};
use runtime::trap::{self, Frame, catch, class};
use runtime::{check, check_eq, mmio, pages, println, read_sysreg, sysreg};

runtime::guest!("s1ptw", s1ptw);

const RET: u32 = 0xd65f_03c0;
/// Stage-1 translation fault, level 3; one less per level.
const TRANSLATION_LEVEL_3: u64 = 0x07;

fn s1ptw() {
    pages::settle_image();
    let tables = Tables::identity();
    tables.enable_with(sysreg::hafdbs());
    trap::on_abort(Some(build));
    for (n, access) in [read, write, fetch].into_iter().enumerate() {
        walker_comes_first(tables, n as u64, access);
    }
    trap::on_abort(None);
    address_translation(tables);
    hardware_updates(tables);
    table_in_nowhere(tables);
}

type Access = fn(u64);

fn read(address: u64) {
    check_eq!(
        mmio::read32(address),
        RET,
        "what was read through the new tables"
    );
}

fn write(address: u64) {
    mmio::write32(address, RET);
    check_eq!(
        mmio::read32(address),
        RET,
        "what was written through the new tables"
    );
}

fn fetch(address: u64) {
    check_eq!(pages::call(address), u64::MAX, "what the code answered");
}

/// The chain that `build` fills: descriptors' addresses at levels 2 and 3, and what belongs there.
static CHAIN: Global<[(u64, u64); 2]> = Global::new([(0, 0); 2]);

/// Levels 2 and 3 are pages that only the walker has touched; each access faults in stage 1 once per level, is mended,
/// and goes on.
fn walker_comes_first(tables: Tables, n: u64, access: Access) {
    let address = mmu::elsewhere(n);
    let [level2, level3, page] = [pages::fresh(), pages::fresh(), pages::fresh()];
    mmio::write32(page, RET);
    runtime::cache::publish_code(page, 4);
    CHAIN.set([
        (
            level2 + 8 * mmu::index(address, 2),
            level3 | mmu::TABLE_OR_PAGE,
        ),
        (
            level3 + 8 * mmu::index(address, 3),
            page | mmu::TABLE_OR_PAGE | mmu::NORMAL,
        ),
    ]);
    tables.set_root(mmu::index(address, 1), level2 | mmu::TABLE_OR_PAGE);
    let ((), cost) = counted(|| access(address));
    if let Some(cost) = cost {
        println!(
            "walker first, {n}: {} stage-2 faults, {} of the walk",
            cost.faults(),
            cost.get(Counter::Stage1Walk)
        );
        let walks = cost.get(Counter::Stage1Walk);
        check!(
            walks == 2 || (walks < 2 && !page_by_page()),
            "{walks} faults of the walk, not one per table"
        );
        check_eq!(cost.get(Counter::AbortsInjected), 0, "aborts injected");
        check!(
            cost.faults() <= 8,
            "{} stage-2 faults for three pages",
            cost.faults()
        );
    }
}

/// My own demand paging.
fn build(frame: &Frame) -> bool {
    let level = match frame.fault_status() {
        0x06 => 0,
        TRANSLATION_LEVEL_3 => 1,
        _ => return false,
    };
    let (entry, descriptor) = CHAIN.get()[level];
    check_eq!(
        mmio::read64(entry),
        0,
        "the descriptor the walker found at level {}",
        level + 2
    );
    mmu::set(entry, descriptor);
    true
}

/// AT through a table nobody has touched: EL2 sees a cache maintenance syndrome (CM = 1), and must not skip it.
fn address_translation(tables: Tables) {
    let address = mmu::elsewhere(8);
    let level2 = pages::fresh();
    tables.set_root(mmu::index(address, 1), level2 | mmu::TABLE_OR_PAGE);
    let (par, caught) = catch(|| translate(address));
    check_eq!(caught.count, 0, "exceptions on AT S1E1R");
    check!(
        par & 1 == 1,
        "PAR_EL1 {par:#x}: no fault through an empty table"
    );
    check_eq!(
        par >> 1 & 0x3f,
        0x06,
        "PAR_EL1.FST (stage-1 translation fault, level 2)"
    );
    check_eq!(par >> 8 & 3, 0, "PAR_EL1.PTW and S");
    // A page that is mapped in stage 1 but not there yet: AT S1E1R needs only stage 1.
    let page = pages::fresh();
    let par = translate(page);
    check_eq!(par & 0x000f_ffff_ffff_f001, page, "PAR_EL1 of a fresh page");
}

fn translate(address: u64) -> u64 {
    // SAFETY: a question about an address; the answer is in PAR_EL1.
    unsafe { asm!("at s1e1r, {0}", "isb", in(reg) address, options(nostack)) };
    read_sysreg!("PAR_EL1")
}

/// A page the tables below describe: between this program and the fresh pages.
const SCRATCH: u64 = RAM_BASE + 0x00e0_0000;
/// DBM: hardware makes the page writable by clearing AP[2].
const DBM: u64 = 1 << 51;
/// AP[2]: read-only; with DBM, clean.
const CLEAN: u64 = 1 << 7;

#[repr(C, align(4096))]
struct Table([u64; 512]);

/// Level-3 tables that come with the program and are never written by it: under `rights = "lazy"` they are read-only at
/// stage 2 when the walker wants to write them.
#[rustfmt::skip]
static NOT_ACCESSED: [Table; 3] = {
    let mut tables = [const { Table([0; 512]) }; 3];
    let mut n = 0;
    while n < 3 {
        tables[n].0[0] = SCRATCH | mmu::TABLE_OR_PAGE | mmu::NORMAL & !mmu::AF;
        n += 1;
    }
    tables[1].0[0] |= DBM | CLEAN;
    tables
};

fn hardware_updates(tables: Tables) {
    let hafdbs = sysreg::hafdbs();
    if hafdbs == 0 {
        println!("this CPU's walker sets no access flags");
        return;
    }
    mmio::write32(SCRATCH, RET);
    runtime::cache::publish_code(SCRATCH, 4);
    let cases: [(&str, Access, u64); 3] =
        [("read", read, 1), ("write", write, 2), ("fetch", fetch, 1)];
    for (n, (what, access, needs)) in cases.into_iter().enumerate() {
        if hafdbs < needs {
            continue;
        }
        let address = mmu::elsewhere(16 + n as u64);
        let (level2, level3) = (pages::fresh(), &raw const NOT_ACCESSED[n] as u64);
        mmio::write64(level2, level3 | mmu::TABLE_OR_PAGE);
        tables.set_root(mmu::index(address, 1), level2 | mmu::TABLE_OR_PAGE);
        let ((), cost) = counted(|| access(address));
        let descriptor = mmio::read64(level3);
        check!(
            descriptor & mmu::AF != 0,
            "{what}: the access flag was not set: {descriptor:#x}"
        );
        check!(
            needs < 2 || descriptor & CLEAN == 0,
            "{what}: the dirty state was not set: {descriptor:#x}"
        );
        if let Some(cost) = cost {
            let (faults, of_the_walk) = (cost.faults(), cost.get(Counter::Stage1Walk));
            println!(
                "hardware update on a {what}: {faults} stage-2 faults, {of_the_walk} of the walk"
            );
            check!(
                faults <= 4,
                "hardware update on a {what} took {faults} faults"
            );
            check_eq!(cost.get(Counter::AbortsInjected), 0, "aborts injected");
        }
    }
}

/// A table where there is no memory: a synchronous external abort on the walk, at the table's level.
fn table_in_nowhere(tables: Tables) {
    let address = mmu::elsewhere(24) + 0x1230;
    let level2 = pages::fresh();
    tables.set_root(mmu::index(address, 1), level2 | mmu::TABLE_OR_PAGE);
    mmu::set(level2, NOWHERE | mmu::TABLE_OR_PAGE);
    let (_, caught) = catch(|| mmio::read32(address));
    check_eq!(caught.count, 1, "exceptions on a table in nowhere");
    let frame = caught.last.unwrap_or_else(|| unreachable!());
    check_eq!(frame.class(), class::DATA_ABORT, "ESR_EL1.EC");
    check_eq!(
        frame.fault_status(),
        0x17,
        "ESR_EL1 status (external abort on a walk, level 3)"
    );
    // No S1PTW (it is for EL2's eyes), no ISV and what goes with it.
    check_eq!(
        frame.iss() & !0x3f & !(1 << 9),
        0,
        "ESR_EL1.ISS besides the status"
    );
    check_eq!(frame.far, address, "FAR_EL1");
    let (_, caught) = catch(|| pages::call(address));
    check_eq!(
        caught.count,
        1,
        "exceptions on a fetch through a table in nowhere"
    );
    let frame = caught.last.unwrap_or_else(|| unreachable!());
    check_eq!(
        frame.class(),
        class::INSTRUCTION_ABORT,
        "ESR_EL1.EC of a fetch"
    );
    check_eq!(frame.fault_status(), 0x17, "ESR_EL1 status of a fetch");
}
