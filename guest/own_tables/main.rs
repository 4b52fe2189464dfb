//! CPUs with stage-1 tables of their own: the same virtual address, the same ASID, not global or global, and a different
//! page behind it on each CPU. Each sees its own, however often they take turns, also on one physical CPU.
//!
//! TLB entries of EL1&0 are tagged with VMID and ASID, not with the vCPU: a hypervisor that runs two vCPUs of one VM on
//! one physical CPU must drop them between the two. The same holds for an I-cache that is tagged so.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use runtime::pages::{self, PAGE};
use runtime::sync::Barrier;
use runtime::{cache, check_eq, mmio, mmu, println, smp, timer, write_sysreg};

runtime::guest!("own_tables", own_tables);

/// Virtual address that means something else to each CPU: data, then code.
const WHERE: u64 = 8 << 30;
const RET: u32 = 0xd65f_03c0;
/// nG: tagged with the ASID.
const NOT_GLOBAL: u64 = 1 << 11;
/// Milliseconds of looking, for each kind of entry.
const LOOK_MS: u64 = 60;
/// Turns taken.
const TURNS: u64 = 100;

static GATE: Barrier = Barrier::new();
static ROOT: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static LEAF: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];

fn own_tables() {
    smp::require(2);
    let shared = mmu::Tables::identity();
    shared.enable();
    smp::start_others(cpus(), smp::serve);
    for cpu in 0..cpus() {
        lay_out(cpu);
    }
    for (what, bits) in [("not global", NOT_GLOBAL), ("global", 0)] {
        for cpu in 0..cpus() {
            let (leaf, data) = (LEAF[cpu].load(Ordering::Relaxed), data(cpu));
            for page in 0..2 {
                let descriptor = (data + page * PAGE) | mmu::TABLE_OR_PAGE | mmu::NORMAL | bits;
                mmio::write64(leaf + 8 * page, descriptor);
            }
        }
        mmu::invalidate_everywhere();
        smp::on_all(cpus(), look);
        println!("{what}: each of {} CPUs saw its own", cpus());
    }
}

fn cpus() -> usize {
    smp::count().min(4)
}

fn data(cpu: usize) -> u64 {
    mmio::read64(ROOT[cpu].load(Ordering::Relaxed) + 8 * 511) & !1
}

/// Tables for one CPU: the identity map, and two pages of its own at `WHERE`.
fn lay_out(cpu: usize) {
    let tables = mmu::Tables::identity();
    let [level2, level3] = [pages::fresh(), pages::fresh()];
    let data = pages::fresh_run(2);
    tables.set_root(mmu::index(WHERE, 1), level2 | mmu::TABLE_OR_PAGE);
    mmio::write64(level2, level3 | mmu::TABLE_OR_PAGE);
    // An invalid descriptor's other bits are ours to keep a number in.
    tables.set_root(511, data);
    mmio::write64(data, number(cpu));
    // MOVZ X0, #number; RET.
    mmio::write32(data + PAGE, 0xd280_0000 | (number(cpu) as u32) << 5);
    mmio::write32(data + PAGE + 4, RET);
    cache::publish_code(data + PAGE, 8);
    ROOT[cpu].store(tables.root(), Ordering::Relaxed);
    LEAF[cpu].store(level3, Ordering::Relaxed);
}

fn number(cpu: usize) -> u64 {
    0x1100 + 0x11 * cpu as u64
}

fn look() {
    let cpu = smp::index();
    // The same ASID, 1, on each.
    write_sysreg!("TTBR0_EL1", 1 << 48 | ROOT[cpu].load(Ordering::Acquire));
    mmu::invalidate();
    let check = |when: &str| {
        check_eq!(
            mmio::read64(WHERE),
            number(cpu),
            "{when}: data of CPU {cpu}"
        );
        check_eq!(
            pages::call(WHERE + PAGE),
            number(cpu),
            "{when}: code of CPU {cpu}"
        );
    };
    GATE.wait(cpus());
    for _ in 0..smp::rounds(TURNS) {
        check("taking turns");
        // Where CPUs share a physical one, this hands it over.
        GATE.wait(cpus());
    }
    let end = timer::now() + timer::frequency() * LOOK_MS / 1000;
    while timer::now() < end {
        check("preempted");
    }
    GATE.wait(cpus());
}
