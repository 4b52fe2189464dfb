//! The interrupt of an overflow: for as long as a counter's overflow is noted and is to interrupt, whoever else has the
//! physical CPU meanwhile.
//!
//! Oracle: DDI 0487 "Behavior on overflow" in "The Performance Monitors Extension"; the binding `arm,armv8-pmuv3`.

use crate::{
    COUNT, CYCLES, ENABLE, LONG_CYCLES, RESET_CYCLES, RESET_EVENTS, SW_INCR, count_by_hand, work,
};
use runtime::gic::register::ISPENDR;
use runtime::gic::{Gic, SPECIAL};
use runtime::platform::PMU_INTID;
use runtime::sync::pause;
use runtime::{check, check_eq, fdt, smp, timer, verdict, write_sysreg};

/// Event counter 0, in the registers with a bit for each.
const FIRST: u64 = 1;
/// Cycles until the cycle counter overflows.
const SOON: u64 = 50_000;
/// Times that CPUs take turns with it.
const TURNS: u64 = 20;

/// Whether the machine says that it has one: where each CPU has an SPI for it, it is nobody's but EL2's.
pub fn interrupts() -> bool {
    fdt::find(|_, name, value| {
        (name == b"compatible" && value.starts_with(b"arm,armv8-pmuv3")).then_some(())
    })
    .is_some()
}

/// The same on every CPU. Interrupts stay masked.
pub fn is_signalled() {
    let Some(gic) = Gic::from_tree() else {
        verdict::fail(format_args!("there is no GIC in the tree"));
    };
    gic.enable();
    is_a_level(gic);
    ends_and_comes_again(gic);
    cycles_overflow(gic);
    for _ in 0..smp::rounds(TURNS) {
        outlasts_a_turn(gic);
    }
    gic.disable_interrupt(PMU_INTID);
    quiet();
}

/// Event counter 0 counts by hand, from nothing, and interrupts when it overflows.
fn prepare() {
    quiet();
    write_sysreg!("PMEVTYPER0_EL0", SW_INCR);
    write_sysreg!("PMCNTENSET_EL0", FIRST);
    write_sysreg!("PMINTENSET_EL1", FIRST);
    write_sysreg!("PMCR_EL0", ENABLE | RESET_EVENTS);
}

fn quiet() {
    write_sysreg!("PMCR_EL0", 0u64);
    write_sysreg!("PMCNTENCLR_EL0", COUNT);
    write_sysreg!("PMINTENCLR_EL1", COUNT);
    write_sysreg!("PMOVSCLR_EL0", COUNT);
}

fn overflow() {
    write_sysreg!("PMEVCNTR0_EL0", COUNT);
    count_by_hand(1);
}

fn clear() {
    write_sysreg!("PMOVSCLR_EL0", FIRST);
}

/// What is taken within a second.
fn take(gic: Gic) -> u32 {
    let end = timer::now() + timer::frequency();
    loop {
        let intid = gic.acknowledge();
        if intid < SPECIAL || timer::now() > end {
            return intid;
        }
    }
}

/// Pending while its overflow is noted, and no longer.
fn is_a_level(gic: Gic) {
    gic.disable_interrupt(PMU_INTID);
    prepare();
    check!(!gic.bit(ISPENDR, PMU_INTID), "pending before");
    overflow();
    check!(gic.bit(ISPENDR, PMU_INTID), "pending after an overflow");
    write_sysreg!("PMINTENCLR_EL1", FIRST);
    check!(
        !gic.bit(ISPENDR, PMU_INTID),
        "pending where it is not to interrupt"
    );
    write_sysreg!("PMINTENSET_EL1", FIRST);
    check!(gic.bit(ISPENDR, PMU_INTID), "pending when it is again");
    // Off and on again. QEMU does not look at its line then, but when the other is written.
    write_sysreg!("PMCR_EL0", 0u64);
    work();
    write_sysreg!("PMCR_EL0", ENABLE);
    write_sysreg!("PMINTENSET_EL1", FIRST);
    check!(gic.bit(ISPENDR, PMU_INTID), "pending after a rest");
    clear();
    check!(!gic.bit(ISPENDR, PMU_INTID), "pending after it was cleared");
    gic.enable_interrupt(PMU_INTID);
    check_eq!(
        gic.acknowledge(),
        SPECIAL + 3,
        "an interrupt without overflow"
    );
}

fn ends_and_comes_again(gic: Gic) {
    prepare();
    overflow();
    check_eq!(take(gic), PMU_INTID, "the interrupt of an overflow");
    gic.end(PMU_INTID);
    check_eq!(take(gic), PMU_INTID, "it ends and was not cleared");
    clear();
    gic.end(PMU_INTID);
    check_eq!(gic.acknowledge(), SPECIAL + 3, "it ends and was cleared");
    overflow();
    check_eq!(take(gic), PMU_INTID, "the next one");
    clear();
    gic.end(PMU_INTID);
}

/// It comes by itself, between two instructions that have nothing to do with it.
fn cycles_overflow(gic: Gic) {
    quiet();
    write_sysreg!("PMCCFILTR_EL0", 0u64);
    write_sysreg!("PMCNTENSET_EL0", CYCLES);
    write_sysreg!("PMINTENSET_EL1", CYCLES);
    write_sysreg!("PMCR_EL0", LONG_CYCLES | RESET_CYCLES);
    write_sysreg!("PMCCNTR_EL0", 0u64.wrapping_sub(SOON));
    write_sysreg!("PMCR_EL0", LONG_CYCLES | ENABLE);
    check_eq!(take(gic), PMU_INTID, "the interrupt of the cycle counter");
    write_sysreg!("PMOVSCLR_EL0", CYCLES);
    gic.end(PMU_INTID);
    check_eq!(gic.acknowledge(), SPECIAL + 3, "it ends and was cleared");
}

/// It waits while others have the physical CPU, pending or active.
fn outlasts_a_turn(gic: Gic) {
    prepare();
    overflow();
    pause();
    check_eq!(take(gic), PMU_INTID, "the interrupt after a turn");
    pause();
    clear();
    pause();
    gic.end(PMU_INTID);
    check_eq!(gic.acknowledge(), SPECIAL + 3, "it ends after turns");
}
