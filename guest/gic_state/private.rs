//! PPIs: those of the two timers, whose lines a hypervisor may have tied to the hardware's, and one without a device.
use super::{LEFT, PLAIN, forget, gic, length, logged, settle, wait_for_length};
use crate::delivery::manner;
use runtime::gic::register::{ICACTIVER, ICFGR, ICPENDR, ISACTIVER, ISPENDR};
use runtime::platform::{PTIMER_INTID, VTIMER_INTID};
use runtime::sync::wait_for;
use runtime::{check, check_eq, hypercall, mmio, smp, timer, write_sysreg};

/// A PPI that no device here drives.
const NOBODYS: u32 = 20;
const TIMERS: [u32; 2] = [VTIMER_INTID, PTIMER_INTID];
/// A moment that does not come.
const NEVER: u64 = u64::MAX >> 2;

pub(crate) fn all() {
    for intid in TIMERS.into_iter().chain([NOBODYS]) {
        set(intid, None);
        if software_may() {
            by_software(intid);
            held_active(intid);
        }
    }
    for intid in TIMERS {
        line_shows(intid);
        active_while_handled(intid);
        active_before_the_line(intid);
        masked_by_the_timer(intid);
    }
    for intid in TIMERS {
        set(intid, None);
        gic().disable_interrupt(intid);
    }
}

/// QEMU's own GICv2 forgets whose PPI it was that was made pending, where there are several CPUs.
fn software_may() -> bool {
    gic().version() == 3 || smp::count() == 1 || hypercall::counter(0).is_some()
}

/// The line of the timer of this PPI: `None` off, else on with this compare value.
fn set(intid: u32, compare: Option<u64>) {
    let control = if compare.is_some() { timer::ENABLE } else { 0 };
    let compare = compare.unwrap_or(NEVER);
    if intid == VTIMER_INTID {
        write_sysreg!("CNTV_CVAL_EL0", compare);
        write_sysreg!("CNTV_CTL_EL0", control);
    } else if intid == PTIMER_INTID {
        write_sysreg!("CNTP_CVAL_EL0", compare);
        write_sysreg!("CNTP_CTL_EL0", control);
    }
}

fn is_pending(intid: u32) -> bool {
    gic().bit(ISPENDR, intid)
}

fn is_active(intid: u32) -> bool {
    gic().bit(ISACTIVER, intid)
}

/// Made pending by software, with its line low: kept while disabled, taken back, and taken once.
fn by_software(intid: u32) {
    manner(PLAIN);
    gic().disable_interrupt(intid);
    gic().pend(intid);
    check!(is_pending(intid), "PPI {intid} made pending while disabled");
    gic().set_bit(ICPENDR, intid);
    check!(!is_pending(intid), "PPI {intid} taken back");
    gic().enable_interrupt(intid);
    settle();
    check_eq!(length(), 0, "PPI {intid} taken that was taken back");
    for n in 1..=3 {
        gic().pend(intid);
        wait_for_length("a PPI by software", n);
        check_eq!(length(), n, "PPI {intid} taken by software");
        check_eq!(logged(n - 1), intid, "the PPI taken");
        check!(!is_pending(intid), "PPI {intid} pending after its end");
        check!(!is_active(intid), "PPI {intid} active after its end");
    }
}

/// Active by software: what is pending waits until it is not.
fn held_active(intid: u32) {
    manner(PLAIN);
    gic().set_bit(ISACTIVER, intid);
    check!(is_active(intid), "PPI {intid} made active");
    gic().pend(intid);
    settle();
    check_eq!(length(), 0, "PPI {intid} taken while active");
    gic().set_bit(ICACTIVER, intid);
    wait_for_length("a PPI that is active no more", 1);
    check_eq!(length(), 1, "PPI {intid} taken that is active no more");
}

/// While disabled the line shows in the pending bit, up and down, whatever is written to it; the configuration says level.
fn line_shows(intid: u32) {
    manner(PLAIN);
    gic().disable_interrupt(intid);
    let configuration = mmio::read32(gic().frame(intid) + ICFGR + u64::from(intid / 16) * 4);
    check_eq!(
        configuration >> (intid % 16 * 2 + 1) & 1,
        0,
        "ICFGR of timer {intid}"
    );
    for _ in 0..3 {
        set(intid, Some(NEVER));
        check!(
            !is_pending(intid),
            "timer {intid} pending before its moment"
        );
        set(intid, Some(timer::now() + timer::frequency() / 2000));
        wait_for("a timer's pending bit", || is_pending(intid));
        gic().set_bit(ICPENDR, intid);
        check!(
            is_pending(intid),
            "timer {intid}: a line that was written to"
        );
        if software_may() {
            // Pending by software as well, which outlives the line.
            gic().pend(intid);
            set(intid, None);
            check!(is_pending(intid), "timer {intid}: a latch without its line");
            gic().set_bit(ICPENDR, intid);
        }
        set(intid, None);
        check!(
            !is_pending(intid),
            "timer {intid} pending after its line fell"
        );
    }
    gic().enable_interrupt(intid);
    settle();
    check_eq!(length(), 0, "ticks of timer {intid} that went away");
}

/// Taken: active and, for the line is up, pending; afterwards neither.
fn active_while_handled(intid: u32) {
    for ends_by_clearing in [false, true] {
        manner(LEFT);
        set(intid, Some(0));
        wait_for_length("a timer", 1);
        check!(is_active(intid), "timer {intid} not active while handled");
        check!(is_pending(intid), "timer {intid}: its line is up");
        set(intid, None);
        check!(!is_pending(intid), "timer {intid}: its line is down");
        if ends_by_clearing {
            gic().set_bit(ICACTIVER, intid);
            check!(
                !is_active(intid),
                "timer {intid} active after it was cleared"
            );
        }
        gic().end(intid);
        check!(!is_active(intid), "timer {intid} active after its end");
        settle();
        check_eq!(length(), 1, "ticks of timer {intid}");
    }
    // And it comes again, to a handler that ends it with its line up: each time.
    forget();
    set(intid, Some(0));
    for n in 1..=3 {
        wait_for_length("a timer whose line stays up", n);
        check_eq!(length(), n, "ticks of timer {intid} before its end");
        if n == 3 {
            set(intid, None);
        }
        gic().end(intid);
    }
    settle();
    check_eq!(length(), 3, "ticks of timer {intid} with its line up");
}

/// Active by software before its line rises: the tick waits.
fn active_before_the_line(intid: u32) {
    manner(LEFT);
    gic().set_bit(ISACTIVER, intid);
    set(intid, Some(0));
    settle();
    check_eq!(length(), 0, "ticks of timer {intid} while it is active");
    check!(is_pending(intid), "timer {intid}: its line is up");
    gic().set_bit(ICACTIVER, intid);
    wait_for_length("a timer that is active no more", 1);
    set(intid, None);
    gic().end(intid);
    settle();
    check_eq!(length(), 1, "ticks of timer {intid} that is active no more");
}

/// CNTx_CTL.IMASK takes the line down, and up again.
fn masked_by_the_timer(intid: u32) {
    manner(PLAIN);
    gic().disable_interrupt(intid);
    set(intid, Some(0));
    wait_for("a timer's pending bit", || is_pending(intid));
    for _ in 0..3 {
        mask(intid, true);
        check!(!is_pending(intid), "timer {intid} pending while masked");
        mask(intid, false);
        check!(is_pending(intid), "timer {intid} not pending, unmasked");
    }
    set(intid, None);
    gic().enable_interrupt(intid);
    settle();
    check_eq!(length(), 0, "ticks of timer {intid} that went away");
}

fn mask(intid: u32, masked: bool) {
    let control = timer::ENABLE | if masked { timer::IMASK } else { 0 };
    if intid == VTIMER_INTID {
        write_sysreg!("CNTV_CTL_EL0", control);
    } else {
        write_sysreg!("CNTP_CTL_EL0", control);
    }
}
