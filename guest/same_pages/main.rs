//! Several CPUs fault on the same pages at once, and on different ones: each page is mapped once, nobody waits for ever,
//! and nothing that was written is lost.
//!
//! A hypervisor that maps again what another CPU has just mapped takes the page away for a moment, so CPUs can chase each
//! other without end; one whose loser does nothing spins on a stale entry. Both show in the number of table writes and
//! TLB invalidations, which Faultline counts.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::hypercall::{Counter, Counters, counted};
use runtime::pages::{self, PAGE};
use runtime::sync::Barrier;
use runtime::{cache, check, check_eq, mmio, mmu, println, smp};

runtime::guest!("same_pages", same_pages);

/// CPUs that take part.
const CPUS: usize = 4;
/// Pages all CPUs touch, one after the other, and pages that each has for itself.
const MOST_PAGES: u64 = 64;
/// Pages of 4 KiB in a block of 2 MiB.
const BLOCK: u64 = 512;
const RET: u32 = 0xd65f_03c0;

static GATE: Barrier = Barrier::new();
static BASE: AtomicU64 = AtomicU64::new(0);

fn same_pages() {
    smp::require(2);
    pages::settle_image();
    mmu::Tables::identity().enable();
    smp::start_others(cpus(), smp::serve);
    // The others' stacks and this code, once, before anything is counted.
    for action in [write_same, write_own, read_then_write, execute_same] {
        BASE.store(
            pages::fresh_run(touched() * cpus() as u64),
            Ordering::Release,
        );
        smp::on_all(cpus(), action);
    }
    each("written by all at once", write_same, touched(), |base| {
        check_sums(base, touched())
    });
    let own = touched() * cpus() as u64;
    each("written by one each", write_own, own, |base| {
        for page in 0..own {
            check_eq!(
                mmio::read64(base + page * PAGE),
                page / touched() + 1,
                "page {page} of one CPU"
            );
        }
    });
    each(
        "read, then written by all",
        read_then_write,
        touched(),
        |base| {
            check_sums(base, touched());
        },
    );
    each(
        "written and executed by all",
        execute_same,
        touched(),
        |_| {},
    );
}

fn touched() -> u64 {
    smp::rounds(MOST_PAGES)
}

fn cpus() -> usize {
    smp::count().min(CPUS)
}

/// Has all CPUs do `action` on fresh pages; `expected` pages are touched in all.
fn each(what: &str, action: fn(), expected: u64, check: impl Fn(u64)) {
    let base = pages::fresh_run(touched() * cpus() as u64);
    BASE.store(base, Ordering::Release);
    let ((), cost) = counted(|| smp::on_all(cpus(), action));
    check(base);
    if let Some(cost) = cost {
        bounded(what, &cost, expected);
    }
}

/// Whatever the policies: at most one mapping per page, at most one relaxation per page and right, and a fault is
/// answered by a mapping, a relaxation or an invalidation.
fn bounded(what: &str, cost: &Counters, pages: u64) {
    let mapped = cost.get(Counter::PagesMapped);
    let relaxed = cost.get(Counter::WriteRelaxed) + cost.get(Counter::ExecRelaxed);
    let (faults, sufficient) = (cost.faults(), cost.get(Counter::Sufficient));
    println!(
        "{pages} pages {what}: {faults} faults, {mapped} mapped, {relaxed} relaxed, {sufficient} already sufficient"
    );
    // A block brings 512 pages with one write of the table: the run's own, and one more where the run crosses into it.
    let blocks = pages.next_multiple_of(BLOCK) + BLOCK;
    check!(
        mapped <= pages + 16 || mapped % BLOCK <= 16 && mapped <= blocks,
        "{what}: {mapped} pages mapped of {pages}"
    );
    check!(
        relaxed <= 2 * pages + 16,
        "{what}: {relaxed} relaxations of {pages} pages"
    );
    let most = (pages + 16) * 3 * cpus() as u64;
    check!(faults <= most, "{what}: {faults} faults on {pages} pages");
    check_eq!(
        cost.get(Counter::AbortsInjected),
        0,
        "{what}: aborts injected"
    );
}

fn base() -> u64 {
    BASE.load(Ordering::Acquire)
}

fn add(address: u64, value: u64) {
    // SAFETY: fresh pages are no memory of Rust's; here they hold one atomic number each.
    let cell = unsafe { &*(address as *const AtomicU64) };
    cell.fetch_add(value, Ordering::Relaxed);
}

/// All CPUs add to one number per page, all at the same page at the same time.
fn write_same() {
    for page in 0..touched() {
        GATE.wait(cpus());
        add(base() + page * PAGE, 1 << (8 * smp::index()));
    }
    GATE.wait(cpus());
}

fn check_sums(base: u64, pages: u64) {
    let expected = (0..cpus()).map(|cpu| 1u64 << (8 * cpu)).sum::<u64>();
    for page in 0..pages {
        check_eq!(
            mmio::read64(base + page * PAGE),
            expected,
            "what all CPUs added to page {page}"
        );
    }
}

fn write_own() {
    let own = base() + smp::index() as u64 * touched() * PAGE;
    GATE.wait(cpus());
    for page in 0..touched() {
        mmio::write64(own + page * PAGE, smp::index() as u64 + 1);
    }
    GATE.wait(cpus());
}

/// A read maps; then all CPUs want to write.
fn read_then_write() {
    for page in 0..touched() {
        let address = base() + page * PAGE;
        GATE.wait(cpus());
        mmio::read64(address + 8);
        GATE.wait(cpus());
        add(address, 1 << (8 * smp::index()));
    }
    GATE.wait(cpus());
}

/// One CPU writes code, all run it.
fn execute_same() {
    for page in 0..touched() {
        let address = base() + page * PAGE;
        let writer = page as usize % cpus();
        if smp::index() == writer {
            // MOVZ X0, #page.
            mmio::write32(address, 0xd280_0000 | (page as u32) << 5);
            mmio::write32(address + 4, RET);
            cache::publish_code(address, 8);
        }
        GATE.wait(cpus());
        // SAFETY: a barrier: what is fetched from here on is what was written.
        unsafe { asm!("isb", options(nostack, preserves_flags)) };
        check_eq!(
            pages::call(address),
            page,
            "what CPU {} ran that CPU {writer} wrote",
            smp::index()
        );
    }
    GATE.wait(cpus());
}
