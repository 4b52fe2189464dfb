//! Time in instructions, from a counter that may tick once per 16 of them.
use core::arch::asm;
use runtime::timer;

/// Instructions per second under `-icount shift=0`.
const PER_SECOND: u64 = 1_000_000_000;

/// Instructions in this many ticks of the counter.
pub fn instructions(ticks: u64) -> u64 {
    (u128::from(ticks) * u128::from(PER_SECOND) / u128::from(timer::frequency())) as u64
}

/// What one of `rounds` rounds of `action` costs more than one of `nothing`, rounded.
pub fn per_round(rounds: u64, action: impl FnMut(u64), nothing: impl FnMut(u64)) -> u64 {
    let (with, without) = (ticks_of(rounds, action), ticks_of(rounds, nothing));
    rounded(instructions(with.saturating_sub(without)), rounds)
}

/// `total / count`, to the nearest.
pub fn rounded(total: u64, count: u64) -> u64 {
    (total + count / 2) / count
}

/// Ticks that `rounds` rounds take.
#[inline(never)]
pub fn ticks_of(rounds: u64, mut action: impl FnMut(u64)) -> u64 {
    let start = timer::now();
    for round in 0..rounds {
        action(round);
    }
    timer::now() - start
}

/// Waits for the counter to tick; answers what it says then. So begins what takes less than some ticks.
#[inline(always)]
pub fn edge() -> u64 {
    let ticks: u64;
    // SAFETY: reads a counter.
    unsafe {
        asm!(
            "mrs  {before}, cntvct_el0",
            "2: mrs {ticks}, cntvct_el0",
            "cmp  {ticks}, {before}",
            "b.eq 2b",
            before = out(reg) _,
            ticks = out(reg) ticks,
            options(nomem, nostack)
        );
    }
    ticks
}

/// The time now, in instructions: how long the counter takes to tick says how much of a tick had passed.
#[inline(always)]
pub fn fine() -> u64 {
    let (ticks, polls): (u64, u64);
    // SAFETY: reads a counter.
    unsafe {
        asm!(
            "mrs  {before}, cntvct_el0",
            "mov  {polls}, #0",
            "2: mrs {ticks}, cntvct_el0",
            "add  {polls}, {polls}, #1",
            "cmp  {ticks}, {before}",
            "b.eq 2b",
            before = out(reg) _,
            ticks = out(reg) ticks,
            polls = out(reg) polls,
            options(nomem, nostack)
        );
    }
    moment(ticks, polls)
}

/// The moment of the first of `polls` polls of four instructions each, the last of which saw the counter reach `ticks`.
pub fn moment(ticks: u64, polls: u64) -> u64 {
    instructions(ticks).saturating_sub(polls * 4)
}
