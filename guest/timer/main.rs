//! The virtual timer ticks through the interrupt controller, as often and as late as it should; SGIs and WFI too.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::gic::{Gic, SPECIAL};
use runtime::global::Global;
use runtime::platform::VTIMER_INTID;
use runtime::{check, check_eq, println, read_sysreg, timer, trap, verdict};

runtime::guest!("timer", timer_guest);

const TICKS: u64 = 100;
/// An SGI.
const SGI: u32 = 5;
/// A tick may come this much later than asked for, in milliseconds: the host has other work.
const LATEST_MS: u64 = 5000;

static GIC: Global<Option<Gic>> = Global::new(None);
static TICKED: Global<u64> = Global::new(0);
static EARLY: Global<u64> = Global::new(0);
static LATEST: Global<u64> = Global::new(0);
static DEADLINE: Global<u64> = Global::new(0);
static SGIS: Global<u64> = Global::new(0);

fn timer_guest() {
    let Some(gic) = Gic::from_tree() else {
        verdict::fail(format_args!("no interrupt controller in the device tree"));
    };
    println!("GICv{}, {} Hz", gic.version(), timer::frequency());
    GIC.set(Some(gic));
    gic.enable();
    gic.enable_interrupt(VTIMER_INTID);
    gic.enable_interrupt(SGI);
    trap::on_irq(on_irq);
    trap::unmask_irq();
    ticks();
    software_interrupts(gic);
    masked_timer_is_silent();
    wakes_from_wfi_while_masked(gic);
}

/// One millisecond in ticks of the counter.
fn millisecond() -> u64 {
    timer::frequency() / 1000
}

fn on_irq() {
    let Some(gic) = GIC.get() else { return };
    match gic.acknowledge() {
        VTIMER_INTID => {
            let (now, due) = (timer::now(), DEADLINE.get());
            if now < due {
                EARLY.set(EARLY.get() + 1);
            }
            LATEST.set(LATEST.get().max(now.saturating_sub(due)));
            TICKED.set(TICKED.get() + 1);
            // The next tick, from the last one's time, so that the count of ticks is the count of milliseconds.
            arm(if TICKED.get() < TICKS {
                Some(due + millisecond())
            } else {
                None
            });
            gic.end(VTIMER_INTID);
        }
        SGI => {
            SGIS.set(SGIS.get() + 1);
            gic.end(SGI);
        }
        intid if intid >= SPECIAL => {}
        intid => verdict::fail(format_args!("interrupt {intid}")),
    }
}

fn arm(at: Option<u64>) {
    match at {
        Some(at) => {
            DEADLINE.set(at);
            timer::set(at);
        }
        None => timer::stop(),
    }
}

/// Waits in WFI until `done`, for at most a few seconds of polling besides.
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let limit = timer::now() + 20 * timer::frequency();
    while !done() {
        check!(timer::now() < limit, "waited 20 s for {what}");
        trap::mask_irq();
        if !done() {
            // SAFETY: waits for an interrupt, which wakes even when masked.
            unsafe { asm!("wfi", options(nostack)) };
        }
        trap::unmask_irq();
    }
}

fn ticks() {
    let start = timer::now();
    arm(Some(start + millisecond()));
    wait_until("ticks", || TICKED.get() >= TICKS);
    let took = timer::now() - start;
    println!(
        "{TICKS} ticks of 1 ms in {} ms, latest {} us late",
        took / millisecond(),
        LATEST.get() * 1000 / millisecond()
    );
    check_eq!(EARLY.get(), 0, "ticks that came early");
    check!(took >= TICKS * millisecond(), "{TICKS} ms took less");
    check!(
        LATEST.get() < LATEST_MS * millisecond(),
        "a tick came {} ms late",
        LATEST.get() / millisecond()
    );
    timer::spin_ms(5);
    check_eq!(TICKED.get(), TICKS, "ticks after the last one");
}

fn software_interrupts(gic: Gic) {
    for n in 1..=10 {
        gic.send_to_self(SGI);
        wait_until("an SGI", || SGIS.get() >= n);
    }
    timer::spin_ms(1);
    check_eq!(SGIS.get(), 10, "SGIs taken of 10");
}

/// CNTV_CTL_EL0.IMASK keeps the line low, and ISTATUS tells none the less.
fn masked_timer_is_silent() {
    DEADLINE.set(timer::now());
    timer::set(timer::now());
    wait_until("the timer", || TICKED.get() == TICKS + 1);
    runtime::write_sysreg!("CNTV_CVAL_EL0", timer::now());
    runtime::write_sysreg!("CNTV_CTL_EL0", timer::ENABLE | timer::IMASK);
    timer::spin_ms(2);
    let control = read_sysreg!("CNTV_CTL_EL0");
    check_eq!(
        control & 7,
        timer::ENABLE | timer::IMASK | timer::ISTATUS,
        "CNTV_CTL_EL0 of a masked, expired timer"
    );
    check_eq!(TICKED.get(), TICKS + 1, "ticks of a masked timer");
    timer::stop();
}

/// With PSTATE.I = 1 a pending interrupt ends WFI and is taken once let in.
fn wakes_from_wfi_while_masked(gic: Gic) {
    trap::mask_irq();
    let due = timer::now() + 20 * millisecond();
    DEADLINE.set(due);
    timer::set(due);
    while timer::now() < due {
        // SAFETY: waits for an interrupt, which wakes even when masked.
        unsafe { asm!("wfi", options(nostack)) };
    }
    check_eq!(TICKED.get(), TICKS + 1, "ticks taken while masked");
    trap::unmask_irq();
    wait_until("the tick that was held back", || TICKED.get() == TICKS + 2);
    gic.disable_interrupt(VTIMER_INTID);
}
