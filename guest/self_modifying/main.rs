//! Code that changes under several CPUs, with the maintenance that the architecture asks for: what runs is what was
//! written last.
//!
//! Oracle: DDI 0487 "Synchronization and coherency issues between data and instruction accesses": clean by DC CVAU,
//! DSB ISH, invalidate by IC IVAU (or IC IALLUIS), DSB ISH, then an ISB on each CPU that executes.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::hypercall::{Counter, counted};
use runtime::pages::{self, PAGE};
use runtime::sync::Barrier;
use runtime::{cache, check, check_eq, mmio, mmu, println, smp, sysreg};

runtime::guest!("self_modifying", self_modifying);

/// Versions of the code.
const ROUNDS: u64 = 300;
/// A second address of the page.
const ALIAS: u64 = 9 << 30;
const RET: u32 = 0xd65f_03c0;

static GATE: Barrier = Barrier::new();
static PAGE_AT: AtomicU64 = AtomicU64::new(0);
static WRITE_AT: AtomicU64 = AtomicU64::new(0);

fn self_modifying() {
    pages::settle_image();
    let tables = mmu::Tables::identity();
    tables.enable();
    smp::start_others(cpus(), smp::serve);
    let page = pages::fresh();
    one_address(page);
    another_address(tables);
    whole_cache();
}

fn cpus() -> usize {
    smp::count().min(4)
}

fn rotate(what: &str, write_at: u64, run_at: u64, action: fn()) {
    WRITE_AT.store(write_at, Ordering::Release);
    PAGE_AT.store(run_at, Ordering::Release);
    mmio::write32(write_at + 4, RET);
    let ((), cost) = counted(|| smp::on_all(cpus(), action));
    let Some(cost) = cost else { return };
    println!(
        "{what}: {} faults, {} relaxed, {} made coherent",
        cost.faults(),
        cost.get(Counter::WriteRelaxed) + cost.get(Counter::ExecRelaxed),
        cost.get(Counter::IcacheCoherent)
    );
    // Once a page may be written and executed it stays so: the faults do not grow with the versions.
    let most = 8 * cpus() as u64;
    check!(cost.faults() <= most, "{what}: {} faults", cost.faults());
}

/// `MOVZ X0, #version`.
fn version(round: u64) -> u32 {
    0xd280_0000 | (round as u32 & 0xffff) << 5
}

fn execute(round: u64) {
    // SAFETY: a barrier: what is fetched from here on is what was written.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
    check_eq!(
        pages::call(PAGE_AT.load(Ordering::Acquire)),
        round,
        "the version that CPU {} ran",
        smp::index()
    );
}

/// Each CPU in turn writes; all run it.
fn versions(publish: impl Fn(u64)) {
    let write_at = WRITE_AT.load(Ordering::Acquire);
    for round in 0..smp::rounds(ROUNDS) {
        if round as usize % cpus() == smp::index() {
            mmio::write32(write_at, version(round));
            publish(PAGE_AT.load(Ordering::Acquire));
        }
        GATE.wait(cpus());
        execute(round);
        GATE.wait(cpus());
    }
}

fn one_address(page: u64) {
    rotate("by address", page, page, || {
        versions(|page| cache::publish_code(page, 4));
    });
}

/// Written through one virtual address, run at another.
fn another_address(tables: mmu::Tables) {
    let [level2, level3, page] = [pages::fresh(), pages::fresh(), pages::fresh()];
    tables.set_root(mmu::index(ALIAS, 1), level2 | mmu::TABLE_OR_PAGE);
    mmio::write64(level2, level3 | mmu::TABLE_OR_PAGE);
    mmio::write64(
        level3,
        page | mmu::TABLE_OR_PAGE | mmu::NORMAL | mmu::READ_ONLY,
    );
    mmu::invalidate_everywhere();
    rotate("by another address", page, ALIAS, || {
        versions(|page| {
            cache::clean_to_pou(WRITE_AT.load(Ordering::Acquire), 4);
            cache::publish_code(page, 4);
        });
    });
    check_eq!(mmio::read32(ALIAS + PAGE - 4), 0, "the end of the page");
}

/// IC IALLUIS instead of IC IVAU.
fn whole_cache() {
    let page = pages::fresh();
    rotate("by the whole I-cache", page, page, || {
        versions(|page| {
            cache::clean_to_pou(page, 4);
            if !sysreg::dic() {
                // SAFETY: invalidating instructions changes no value in memory.
                unsafe {
                    asm!(
                        "ic ialluis",
                        "dsb ish",
                        "isb",
                        options(nostack, preserves_flags)
                    )
                };
            }
        });
    });
}
