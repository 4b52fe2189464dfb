//! Interrupts of one vCPU: how late they come, what taking them costs.
use super::vectors::take_interrupt;
use super::{ROUNDS, clock};
use core::arch::asm;
use runtime::gic::Gic;
use runtime::platform::VTIMER_INTID;
use runtime::timer;

/// An SGI.
const SGI: u32 = 5;
/// How far ahead a timer is set, in instructions: EL2 and guest are idle again by then.
const AHEAD: u64 = 20_000;

/// Sets the virtual timer some time ahead; answers the moment, in instructions.
fn set_timer() -> u64 {
    let at = timer::now() + AHEAD * timer::frequency() / 1_000_000_000;
    timer::set(at);
    clock::instructions(at)
}

/// Ends the interrupt that waits or was taken.
fn end_interrupt(gic: Gic) {
    timer::stop();
    let intid = gic.acknowledge();
    gic.end(intid);
}

/// The mean of `ROUNDS` measurements.
fn mean(mut measure: impl FnMut() -> u64) -> u64 {
    let total = (0..ROUNDS).map(|_| measure()).sum();
    clock::rounded(total, ROUNDS)
}

pub fn timer_late(gic: Gic) -> Option<u64> {
    gic.enable_interrupt(VTIMER_INTID);
    let late = mean(|| {
        let at = set_timer();
        let came = take_interrupt();
        end_interrupt(gic);
        came.saturating_sub(at)
    });
    gic.disable_interrupt(VTIMER_INTID);
    Some(late)
}

/// The interrupt stays masked: it only ends the WFI.
pub fn wfi_wake(gic: Gic) -> Option<u64> {
    gic.enable_interrupt(VTIMER_INTID);
    let late = mean(|| {
        let at = set_timer();
        // SAFETY: waits for the timer.
        unsafe { asm!("wfi", options(nomem, nostack)) };
        let woke = clock::fine();
        end_interrupt(gic);
        woke.saturating_sub(at)
    });
    gic.disable_interrupt(VTIMER_INTID);
    Some(late)
}

pub fn irq_ack_eoi(gic: Gic) -> Option<u64> {
    gic.enable_interrupt(SGI);
    let taken = |take: fn(Gic)| {
        mean(|| {
            gic.send_to_self(SGI);
            let start = clock::instructions(clock::edge());
            take(gic);
            let end = clock::fine();
            end_interrupt(gic);
            end.saturating_sub(start)
        })
    };
    let ends = |gic: Gic| {
        let intid = gic.acknowledge();
        gic.end(intid);
    };
    Some(taken(ends).saturating_sub(taken(|_| ())))
}

pub fn sgi_self(gic: Gic) -> Option<u64> {
    gic.enable_interrupt(SGI);
    Some(mean(|| {
        let start = clock::instructions(clock::edge());
        gic.send_to_self(SGI);
        let came = take_interrupt();
        end_interrupt(gic);
        came.saturating_sub(start)
    }))
}

pub fn timer_set(_: Gic) -> Option<u64> {
    let later = timer::now() + timer::frequency() * 1000;
    let cost = clock::per_round(ROUNDS, |_| timer::set(later), |_| ());
    timer::stop();
    Some(cost)
}
