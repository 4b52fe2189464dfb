//! The VM ends, by one CPU's call, while the others compute, sleep, take faults, call, or are off: all of them stop, and
//! every page comes back (the hypervisor's account says so).
//!
//! `how=` on the command line: `off` (by default), `reset`, `reset2`, `exit` or `nothing` (all CPUs turn themselves off, which ends the VM too);
//! `by=` the number of the CPU that calls. Whether a reset is to come the console says, so that somebody counts them.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::hypercall::{self, Conduit, call};
use runtime::platform::{PL031, VTIMER_INTID};
use runtime::sync::wait_for;
use runtime::{console, fdt, gic, mmio, mmu, pages, println, smp, timer, trap, verdict};

runtime::guest!("smp_stop", smp_stop);

/// SYSTEM_RESET2, 64-bit.
const SYSTEM_RESET2: u32 = 0xc400_0012;
/// How long the others are at it before the end.
const BUSY_MS: u64 = 20;

static AT_WORK: AtomicU64 = AtomicU64::new(0);
static PAGES: AtomicU64 = AtomicU64::new(0);

fn smp_stop() {
    smp::require(2);
    mmu::Tables::identity().enable();
    let by = by();
    PAGES.store(pages::fresh_run(4096), Ordering::Relaxed);
    smp::start_others(smp::count(), if by == 0 { work } else { wait_or_end });
    if by != 0 {
        work();
    }
    wait_for_work();
    end()
}

fn by() -> usize {
    fdt::number("by").unwrap_or(0) as usize % smp::count()
}

fn wait_or_end() {
    if smp::index() != by() {
        return work();
    }
    wait_for_work();
    end()
}

/// All others are at work, and some time at it.
fn wait_for_work() {
    let others = smp::count() as u64 - 1;
    wait_for("the others to work", || {
        AT_WORK.load(Ordering::Acquire) == others
    });
    timer::spin_ms(BUSY_MS);
}

fn end() -> ! {
    let word = |what| fdt::has_word(what);
    println!("CPU {} ends it", smp::index());
    if word("how=reset") || word("how=reset2") {
        if !console::ask("again?") {
            verdict::pass();
        }
        if word("how=reset2") {
            // Architectural, warm.
            call(Conduit::Hvc, SYSTEM_RESET2, [0, 0, 0]);
        } else {
            hypercall::reset();
        }
    }
    if word("how=exit") {
        verdict::pass();
    }
    println!("PASS smp_stop");
    if word("how=nothing") {
        smp::off();
    }
    hypercall::power_off()
}

/// What the others do when the end comes: a kind each, never ending.
fn work() {
    AT_WORK.fetch_add(1, Ordering::Release);
    if fdt::has_word("how=nothing") {
        smp::off();
    }
    match smp::index() % 7 {
        0 => loop {
            core::hint::black_box(0);
        },
        1 => loop {
            // SAFETY: waits for an interrupt that does not come.
            unsafe { asm!("wfi", options(nostack)) };
        },
        2 => touch(),
        3 => loop {
            hypercall::hvc(hypercall::PSCI_VERSION, 0);
        },
        4 => tick(),
        5 => loop {
            mmio::read32(PL031);
        },
        _ => smp::off(),
    }
}

/// Fresh pages, one fault after the other; then reads of devices.
fn touch() {
    let base = PAGES.load(Ordering::Relaxed);
    for page in 0..4096 {
        mmio::write64(base + page * pages::PAGE, page);
    }
    loop {
        mmio::read32(PL031);
    }
}

/// Takes a timer interrupt after the other.
fn tick() {
    let Some(gic) = gic::Gic::from_tree() else {
        verdict::fail(format_args!("no interrupt controller"));
    };
    gic.enable();
    gic.enable_interrupt(VTIMER_INTID);
    trap::on_irq(on_tick);
    timer::set(0);
    trap::unmask_irq();
    loop {
        // SAFETY: waits for an interrupt.
        unsafe { asm!("wfi", options(nostack)) };
    }
}

fn on_tick() {
    if let Some(gic) = gic::Gic::from_tree() {
        let intid = gic.acknowledge();
        timer::set(timer::now() + timer::frequency() / 10_000);
        gic.end(intid);
    }
}
