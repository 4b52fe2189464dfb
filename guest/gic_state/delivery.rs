//! What the state does to delivery.
use super::{
    AGAIN, FIRST_SPI, LEFT, LOG_CPU, MANNER, NESTED, PLAIN, forget, gic, length, logged, ready,
    set_edge, settle, spis, wait_for_length,
};
use core::sync::atomic::Ordering;
use runtime::gic::{Gic, PRIORITY, register};
use runtime::platform::VTIMER_INTID;
use runtime::sync::wait_for;
use runtime::{check, check_eq, hypercall, mmio, smp, timer, trap};

const A: u32 = FIRST_SPI;
const B: u32 = FIRST_SPI + 1;
const C: u32 = FIRST_SPI + 2;

pub(crate) fn all() {
    for intid in spis() {
        ready(intid);
    }
    one();
    held_back();
    changed_while_pending();
    by_priority();
    again_while_active();
    preemption();
    split_end();
    level();
    latched_level();
    active_by_software();
    if smp::count() > 1 {
        routed();
        to_cpu_0();
        // QEMU's own GICv2, before version 8, remembers whom an SPI was meant for when it became pending.
        if gic().version() == 3 || hypercall::counter(0).is_some() {
            moves();
            to_cpu_0();
        }
        ended_elsewhere();
    }
    if gic().version() == 3 {
        if smp::count() > 1 {
            ended_by_name_elsewhere();
        }
        to_any();
    }
}

pub(crate) fn manner(manner: u32) {
    forget();
    MANNER.store(manner, Ordering::Release);
}

/// Made pending by software: comes once, and nothing is left.
fn one() {
    manner(PLAIN);
    for n in 1..=10 {
        gic().pend(A);
        wait_for_length("an SPI", n);
        check_eq!(length(), n, "SPIs taken");
        check_eq!(logged(n - 1), A, "the SPI taken");
    }
    check!(!gic().bit(register::ISPENDR, A), "pending after the end");
    check!(!gic().bit(register::ISACTIVER, A), "active after the end");
    check_eq!(gic().running_priority(), 0xff, "running priority when idle");
}

/// Disabled, masked by priority, or by the distributor: kept, and delivered when let through.
fn held_back() {
    manner(PLAIN);
    type Change = fn();
    let ways: [(&str, Change, Change); 4] = [
        (
            "by its enable",
            || gic().disable_interrupt(A),
            || gic().enable_interrupt(A),
        ),
        (
            "by the priority mask",
            || gic().set_mask(PRIORITY),
            || gic().set_mask(0xff),
        ),
        (
            "by the distributor",
            || {
                mmio::write32(
                    gic().gicd() + register::CTLR,
                    if gic().version() == 3 { 1 << 4 } else { 0 },
                )
            },
            || gic().enable(),
        ),
        ("by PSTATE.I", trap::mask_irq, trap::unmask_irq),
    ];
    for (n, (what, hold, release)) in ways.into_iter().enumerate() {
        hold();
        gic().pend(A);
        settle();
        check_eq!(length(), n, "SPIs taken that were held back {what}");
        check!(gic().bit(register::ISPENDR, A), "pending, held back {what}");
        release();
        wait_for_length("an SPI that was held back", n + 1);
        check_eq!(
            length(),
            n + 1,
            "SPIs taken after they were held back {what}"
        );
    }
    // And one that is taken back does not come.
    gic().disable_interrupt(A);
    gic().pend(A);
    gic().set_bit(register::ICPENDR, A);
    gic().enable_interrupt(A);
    settle();
    check_eq!(length(), 4, "SPIs taken that were taken back");
}

/// With IRQs masked the CPU interface holds it already; a change reaches it there (IHI 0048 1.4.2 "Interrupt handling state
/// machine", IHI 0069 4.1).
fn changed_while_pending() {
    type Change = fn();
    let taken_back: [(&str, Change, Change); 3] = [
        (
            "disabled",
            || gic().disable_interrupt(A),
            || gic().enable_interrupt(A),
        ),
        (
            "made active",
            || gic().set_bit(register::ISACTIVER, A),
            || gic().set_bit(register::ICACTIVER, A),
        ),
        (
            "cleared",
            || gic().set_bit(register::ICPENDR, A),
            || gic().pend(A),
        ),
    ];
    for (what, hold, release) in taken_back {
        manner(PLAIN);
        trap::mask_irq();
        gic().pend(A);
        settle();
        check_eq!(gic().highest_pending(), A, "the highest pending interrupt");
        hold();
        check!(
            gic().highest_pending() >= 1020,
            "highest pending after it was {what}"
        );
        trap::unmask_irq();
        settle();
        check_eq!(length(), 0, "SPIs taken after they were {what}");
        release();
        wait_for_length("an SPI that may come again", 1);
        check_eq!(length(), 1, "SPIs taken that were {what} for a while");
    }
    manner(PLAIN);
    trap::mask_irq();
    gic().set_priority(B, 0xa0);
    gic().pend(A);
    gic().pend(B);
    settle();
    check_eq!(gic().highest_pending(), A, "the most urgent of A and B");
    gic().set_priority(B, 0x40);
    check_eq!(
        gic().highest_pending(),
        B,
        "the most urgent after B's priority rose"
    );
    trap::unmask_irq();
    wait_for_length("A and B", 2);
    check_eq!(logged(0), B, "the first of A and B");
    gic().set_priority(B, PRIORITY);
}

/// More than list registers hold, pending at once, most urgent last: the most urgent comes first, each once.
fn by_priority() {
    for round in 0..3 {
        manner(PLAIN);
        trap::mask_irq();
        for (n, intid) in spis().enumerate() {
            gic().set_priority(intid, 0xc0 - (n as u8) * 0x10);
            gic().pend(intid);
        }
        check_eq!(
            gic().highest_pending(),
            spis().end - 1,
            "the highest pending interrupt"
        );
        trap::unmask_irq();
        wait_for_length("many SPIs", spis().len());
        check_eq!(length(), spis().len(), "SPIs taken of many, round {round}");
        for (n, intid) in spis().rev().enumerate() {
            check_eq!(logged(n), intid, "the order of many, place {n}");
        }
        for intid in spis() {
            check!(
                !gic().bit(register::ISACTIVER, intid),
                "{intid} stuck active"
            );
            check!(
                !gic().bit(register::ISPENDR, intid),
                "{intid} stuck pending"
            );
            gic().set_priority(intid, PRIORITY);
        }
    }
}

/// Pending again while active: comes again after its end, once.
fn again_while_active() {
    manner(AGAIN);
    gic().pend(A);
    wait_for_length("an SPI that came again", 2);
    check_eq!(length(), 2, "an edge while active");
}

/// In a handler with IRQs let in ([`NESTED`]): A makes B pending; B has another priority.
pub(crate) fn within(intid: u32) {
    if intid != A {
        return;
    }
    check_eq!(gic().running_priority(), PRIORITY, "running priority");
    check!(gic().bit(register::ISACTIVER, A), "active in its handler");
    gic().pend(B);
    // The vector has saved ELR_EL1 and SPSR_EL1.
    trap::unmask_irq();
    settle();
    trap::mask_irq();
    let preempted = length() == 2;
    check_eq!(
        u8::from(preempted),
        u8::from(gic().priority(B) < PRIORITY),
        "whether priority {:#x} preempts {PRIORITY:#x}",
        gic().priority(B)
    );
}

fn preemption() {
    for priority in [0x40, PRIORITY, 0xa0] {
        manner(NESTED);
        gic().set_priority(B, priority);
        gic().pend(A);
        wait_for_length("A and B", 2);
        check_eq!(length(), 2, "interrupts taken of A and B");
        check_eq!(logged(0), A, "the first");
        check_eq!(logged(1), B, "the second");
        check_eq!(
            gic().running_priority(),
            0xff,
            "running priority afterwards"
        );
    }
    gic().set_priority(B, PRIORITY);
}

/// EOImode = 1: the end drops the priority; the interrupt stays active until it is deactivated.
fn split_end() {
    manner(PLAIN);
    gic().split_end(true);
    gic().pend(A);
    wait_for_length("A", 1);
    check!(
        gic().bit(register::ISACTIVER, A),
        "not active after its priority drop"
    );
    check_eq!(
        gic().running_priority(),
        0xff,
        "running priority after the drop"
    );
    gic().pend(A);
    settle();
    check_eq!(length(), 1, "A taken again before it was deactivated");
    // Another of the same priority is not held back.
    gic().pend(B);
    wait_for_length("B while A is active", 2);
    check_eq!(logged(1), B, "what was taken while A is active");
    gic().deactivate(B);
    gic().deactivate(A);
    wait_for_length("A again", 3);
    check_eq!(logged(2), A, "what came after A was deactivated");
    gic().deactivate(A);
    check!(
        !gic().bit(register::ISACTIVER, A),
        "active after it was deactivated"
    );
    gic().split_end(false);
    settle();
    check_eq!(length(), 3, "interrupts taken with EOImode 1");
}

/// A level that stays high comes again after each end; one that falls before it is taken does not come.
fn level() {
    manner(LEFT);
    gic().enable_interrupt(VTIMER_INTID);
    runtime::write_sysreg!("CNTV_CVAL_EL0", 0);
    runtime::write_sysreg!("CNTV_CTL_EL0", timer::ENABLE);
    for n in 1..=5 {
        wait_for_length("the timer's level", n);
        check_eq!(length(), n, "levels taken before the end");
        check!(
            gic().bit(register::ISACTIVER, VTIMER_INTID),
            "a level not active in its handler"
        );
        if n == 5 {
            timer::stop();
        }
        gic().end(VTIMER_INTID);
    }
    settle();
    check_eq!(length(), 5, "levels taken after the line fell");
    check!(
        !gic().bit(register::ISPENDR, VTIMER_INTID),
        "pending after the line fell"
    );
    // While high it is pending, whatever is written to clear it.
    gic().disable_interrupt(VTIMER_INTID);
    runtime::write_sysreg!("CNTV_CTL_EL0", timer::ENABLE);
    wait_for("a pending level", || {
        gic().bit(register::ISPENDR, VTIMER_INTID)
    });
    gic().set_bit(register::ICPENDR, VTIMER_INTID);
    check!(
        gic().bit(register::ISPENDR, VTIMER_INTID),
        "a level that is high, after its pending bit was cleared"
    );
    timer::stop();
    check!(
        !gic().bit(register::ISPENDR, VTIMER_INTID),
        "a level that is low"
    );
}

/// A level-sensitive SPI, made pending by software with its line low: a latch, which taking it clears.
fn latched_level() {
    manner(LEFT);
    set_edge(A, false);
    gic().pend(A);
    wait_for_length("a latched level", 1);
    check!(!gic().bit(register::ISPENDR, A), "a latch that was taken");
    check!(gic().bit(register::ISACTIVER, A), "a latched level, active");
    gic().pend(A);
    gic().set_bit(register::ICPENDR, A);
    gic().pend(A);
    gic().end(A);
    wait_for_length("a latched level again", 2);
    gic().end(A);
    settle();
    check_eq!(length(), 2, "latched levels taken");
    set_edge(A, true);
}

/// Active by software: not delivered until it is not.
fn active_by_software() {
    manner(PLAIN);
    gic().set_bit(register::ISACTIVER, C);
    gic().pend(C);
    settle();
    check_eq!(length(), 0, "an interrupt taken that is active already");
    gic().set_bit(register::ICACTIVER, C);
    wait_for_length("an interrupt that is active no more", 1);
    check_eq!(length(), 1, "an interrupt that is active no more");
}

fn cpu_of(n: usize) -> u32 {
    LOG_CPU[n].load(Ordering::Acquire)
}

/// Each CPU gets what is routed to it.
fn routed() {
    for cpu in 0..smp::count() {
        manner(PLAIN);
        for intid in spis() {
            gic().route(intid, cpu);
        }
        for (n, intid) in spis().enumerate() {
            gic().pend(intid);
            wait_for("a routed SPI", || length() > n);
            check_eq!(cpu_of(n), cpu as u32, "the CPU that took {intid}");
            check_eq!(logged(n), intid, "what CPU {cpu} took");
        }
        settle();
        check_eq!(length(), spis().len(), "SPIs taken by CPU {cpu}");
    }
}

/// All to CPU 0 again.
fn to_cpu_0() {
    for intid in spis() {
        gic().route(intid, 0);
    }
}

/// Pending for a CPU that does not take it, then routed to another (IHI 0048 4.3.12: a change has an immediate effect on
/// a pending interrupt).
fn moves() {
    manner(PLAIN);
    gic().route(A, 0);
    trap::mask_irq();
    gic().pend(A);
    settle();
    gic().route(A, 1);
    wait_for("an SPI that moved", || length() == 1);
    check_eq!(cpu_of(0), 1, "the CPU that took what moved");
    trap::unmask_irq();
    settle();
    check_eq!(length(), 1, "SPIs taken of one that moved");
}

fn deactivate_a() {
    gic().set_bit(register::ICACTIVER, A);
}

/// Deactivated by another CPU's write.
fn ended_elsewhere() {
    manner(PLAIN);
    gic().split_end(true);
    gic().pend(A);
    wait_for_length("A", 1);
    check!(
        gic().bit(register::ISACTIVER, A),
        "not active after its priority drop"
    );
    smp::on(1, deactivate_a);
    check!(
        !gic().bit(register::ISACTIVER, A),
        "active after CPU 1 cleared it"
    );
    gic().pend(A);
    wait_for_length("A again", 2);
    gic().deactivate(A);
    gic().split_end(false);
}

/// ICC_DIR_EL1 of any CPU deactivates an SPI, whoever took it.
fn ended_by_name_elsewhere() {
    manner(PLAIN);
    smp::on(1, || gic().split_end(true));
    gic().split_end(true);
    for n in 1..=3 {
        gic().pend(A);
        wait_for_length("A", n);
        check!(
            gic().bit(register::ISACTIVER, A),
            "not active after its priority drop"
        );
        smp::on(1, || gic().deactivate(A));
        check!(
            !gic().bit(register::ISACTIVER, A),
            "active after CPU 1 deactivated it by name"
        );
    }
    check_eq!(length(), 3, "interrupts ended by name elsewhere");
    gic().split_end(false);
    smp::on(1, || gic().split_end(false));
}

/// GICD_IROUTER.IRM: any one CPU takes it.
fn to_any() {
    manner(PLAIN);
    let Gic::V3 { gicd, .. } = gic() else { return };
    mmio::write64(gicd + register::IROUTER + 8 * u64::from(A), 1 << 31);
    for n in 1..=10 {
        gic().pend(A);
        wait_for("an SPI for any CPU", || length() >= n);
        settle();
        check_eq!(length(), n, "CPUs that took an SPI for any");
    }
    gic().route(A, 0);
}
