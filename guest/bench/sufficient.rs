//! A fault that finds its leaf sufficient: another vCPU answered the same one a moment before.
//!
//! QEMU walks stage 2 anew where hardware would use a stale TLB entry, so the moment must be made. Under `-icount` a vCPU's turn
//! ends exactly when a timer's moment comes: one that is set, and masked, to shortly after a store that faults lets the
//! first vCPU store to the same page while EL2 has the fault in hand and has not looked at the leaf yet.
use super::{ROUNDS, clock, memory};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::gic::Gic;
use runtime::hypercall::counter;
use runtime::pages::{self, PAGE};
use runtime::{mmio, smp, timer};

/// The vCPU that is too late: not the first, whose turn it is whenever a timer has been seen to.
const LATE: usize = 1;
/// Ticks from before the store to the end of the turn: some 100 instructions, of which the way to EL2 takes 40.
const TURN: u64 = 8;
/// The counter of faults whose leaf was sufficient (docs/guest-abi.md).
const SUFFICIENT: u64 = 6;

/// Where the pages begin.
static START: AtomicU64 = AtomicU64::new(0);
/// The page both store to, and the last one that the first vCPU has stored to.
static PAGE_AT_HAND: AtomicU64 = AtomicU64::new(0);
static STORED: AtomicU64 = AtomicU64::new(0);
/// Ticks that the faults of both took, once every page has been stored to.
static TICKS: AtomicU64 = AtomicU64::new(u64::MAX);

/// What such a fault costs; `None` unless every round was one.
pub fn sufficient(gic: Gic) -> Option<u64> {
    if smp::count() < 2 {
        return None;
    }
    let start = pages::fresh_run(ROUNDS);
    for page in 0..ROUNDS {
        mmio::read32(start + page * PAGE);
    }
    START.store(start, Ordering::Relaxed);
    let before = counter(SUFFICIENT)?;
    smp::start(LATE, late);
    store_first();
    let met = counter(SUFFICIENT)? - before;
    let both = clock::rounded(clock::instructions(TICKS.load(Ordering::Relaxed)), ROUNDS);
    // The first one's fault is one that relaxes.
    let relaxing = memory::permission_write(gic)?;
    (met == ROUNDS).then(|| both.saturating_sub(relaxing))
}

/// The late vCPU.
fn late() {
    let start = START.load(Ordering::Relaxed);
    let faulting = both_store(start);
    let again = both_store(start);
    TICKS.store(faulting.saturating_sub(again), Ordering::Release);
}

/// Ticks that it takes until both have stored to every page.
fn both_store(start: u64) -> u64 {
    let mut ticks = 0;
    STORED.store(0, Ordering::Relaxed);
    for page in 0..ROUNDS {
        let page = start + page * PAGE;
        let begin = clock::edge();
        end_turn(begin + TURN);
        PAGE_AT_HAND.store(page, Ordering::Release);
        mmio::write64(page, 1);
        while STORED.load(Ordering::Acquire) != page {
            give_way();
        }
        ticks += timer::now() - begin;
    }
    ticks
}

/// The first vCPU, until the other has measured.
fn store_first() {
    let mut last = 0;
    while TICKS.load(Ordering::Acquire) == u64::MAX {
        let page = PAGE_AT_HAND.load(Ordering::Acquire);
        if page != last {
            last = page;
            mmio::write64(page, 2);
            STORED.store(page, Ordering::Release);
        }
        give_way();
    }
}

/// Has a masked timer's moment come at `at`.
fn end_turn(at: u64) {
    // SAFETY: the virtual timer, which nobody uses meanwhile: enabled, its interrupt masked.
    unsafe {
        asm!("msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb", in(reg) at, in(reg) 0b11u64, options(nostack));
    }
}

/// Lets the other pCPU go on.
fn give_way() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}
