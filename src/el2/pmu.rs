//! Performance counters of a vCPU, switched only for those that use them.
//!
//! A vCPU's accesses to the PMU trap (`MDCR_EL2.TPM`) until it makes one: then the hardware's counters are its own, for as long as
//! it has one count or lets EL0 look, and follow it. Others find nothing of them, and whoever does not count pays nothing. They
//! stand still while another vCPU has the pCPU, and, unless the guest asks for EL2's events (`NSH`), while EL2 works. Their overflow
//! interrupt, where it is a PPI, is the guest's as a timer's is ([`super::interrupts`]).
//!
//! Source: DDI 0487 "The Performance Monitors Extension", "MDCR_EL2, Monitor Debug Configuration Register".

use faultline::vm::PMU;

use super::guest_state::untrap_mdcr;
use super::ids;
use super::sysreg::{
    MDCR_EL2, PMCCFILTR_EL0, PMCCNTR_EL0, PMCNTENCLR_EL0, PMCNTENSET_EL0, PMCR_EL0, PMINTENCLR_EL1,
    PMINTENSET_EL1, PMOVSCLR_EL0, PMOVSSET_EL0, PMSELR_EL0, PMUSERENR_EL0,
};

/// `MDCR_EL2.TPM`.
pub(super) const TPM: u64 = 1 << 6;
/// `MDCR_EL2.HPMN`: the event counters that are EL1's.
const HPMN: u64 = 0x1f;
/// `PMCR_EL0.E`.
const ENABLE: u64 = 1 << 0;
/// `PMCR_EL0.P` and `C`: writing them resets counters.
const RESET: u64 = 1 << 1 | 1 << 2;
/// Every counter and the cycle counter, in the registers with a bit for each.
const ALL: u64 = 0xffff_ffff;
/// Event counters an implementation has at most.
const MOST: usize = 31;

/// What a vCPU left in the PMU.
#[derive(Default)]
struct Registers {
    control: u64,
    enabled: u64,
    interrupting: u64,
    overflowed: u64,
    selected: u64,
    for_el0: u64,
    cycles: u64,
    cycle_filter: u64,
    counts: [u64; MOST],
    events: [u64; MOST],
}

/// One vCPU's.
#[derive(Default)]
pub(super) struct Pmu {
    registers: Registers,
    /// Its guest is shown a PMU.
    is_there: bool,
    /// The hardware's is its own in this slice.
    is_open: bool,
}

impl Pmu {
    /// As at reset; `is_there`: all CPUs have one.
    pub(super) fn at_reset(is_there: bool) -> Self {
        Self {
            is_there,
            ..Self::default()
        }
    }

    /// A slice begins.
    #[inline]
    pub(super) fn load(&self) {
        if self.is_open {
            self.registers.write();
        }
    }

    /// Bits of `MDCR_EL2`: what traps.
    pub(super) const fn traps(&self) -> u64 {
        if self.is_open { 0 } else { TPM }
    }

    /// The vCPU accessed the PMU while that trapped: from now on it is its own. Answers whether that was so.
    pub(super) fn open(&mut self) -> bool {
        if self.is_open || !self.is_there {
            return false;
        }
        self.is_open = true;
        self.registers.write();
        untrap_mdcr(TPM);
        true
    }

    /// A slice ends. Nothing counts after that.
    pub(super) fn save(&mut self) {
        if self.is_open {
            self.registers.read();
            switch_off();
            self.is_open = self.registers.are_in_use();
        }
    }

    /// The line that it asserts, a bit by INTID, of one that was saved.
    #[inline]
    pub(super) const fn line(&self) -> u32 {
        (self.is_open && self.registers.assert()) as u32 * (1 << PMU.raw())
    }
}

/// Whether the PMU of this CPU asserts its line: a counter has overflowed that is to interrupt then. Where the guest has cleared
/// PMCR_EL0.E since, QEMU goes on asserting it, so that is not asked. EL2's own counters do not interrupt.
pub(super) fn asserts() -> bool {
    ids::has_pmu() && PMINTENSET_EL1.get() & PMOVSSET_EL0.get() != 0
}

/// At boot, on a CPU that has a PMU: off, whatever firmware left.
pub(super) fn begin() {
    if ids::has_pmu() {
        switch_off();
    }
}

fn switch_off() {
    PMCR_EL0.set(PMCR_EL0.get() & !(ENABLE | RESET));
    PMCNTENCLR_EL0.set(ALL);
    PMINTENCLR_EL1.set(ALL);
    PMOVSCLR_EL0.set(ALL);
    PMUSERENR_EL0.set(0);
}

impl Registers {
    /// Something counts or interrupts, or EL0 may look.
    const fn are_in_use(&self) -> bool {
        self.control & ENABLE != 0 && self.enabled != 0 || self.for_el0 != 0 || self.assert()
    }

    /// A counter has overflowed that is to interrupt then.
    const fn assert(&self) -> bool {
        self.control & ENABLE != 0 && self.interrupting & self.overflowed != 0
    }

    /// Out of the hardware.
    fn read(&mut self) {
        self.control = PMCR_EL0.get() & !RESET;
        PMCR_EL0.set(self.control & !ENABLE);
        self.enabled = PMCNTENSET_EL0.get();
        self.interrupting = PMINTENSET_EL1.get();
        self.overflowed = PMOVSSET_EL0.get();
        self.selected = PMSELR_EL0.get();
        self.for_el0 = PMUSERENR_EL0.get();
        self.cycles = PMCCNTR_EL0.get();
        self.cycle_filter = PMCCFILTR_EL0.get();
        read_counters(self);
    }

    /// Into the hardware, where nothing counts. What lets them count comes last.
    fn write(&self) {
        write_counters(self);
        PMCCFILTR_EL0.set(self.cycle_filter);
        PMCCNTR_EL0.set(self.cycles);
        PMUSERENR_EL0.set(self.for_el0);
        PMSELR_EL0.set(self.selected);
        PMOVSSET_EL0.set(self.overflowed);
        PMCNTENSET_EL0.set(self.enabled);
        PMCR_EL0.set(self.control);
        // After PMCR_EL0.E, whose change QEMU does not tell the interrupt controller.
        PMINTENSET_EL1.set(self.interrupting);
    }
}

macro_rules! each {
    ($($n:literal)*) => {
        fn write_counters(from: &Registers) {
            let count = MDCR_EL2.get() & HPMN;
            $(
                if $n < count {
                    // SAFETY: a counter that EL1 has, by its number; it counts nothing that is EL2's.
                    unsafe {
                        core::arch::asm!(
                            concat!("msr pmevtyper", $n, "_el0, {}"),
                            concat!("msr pmevcntr", $n, "_el0, {}"),
                            in(reg) from.events[$n],
                            in(reg) from.counts[$n],
                            options(nomem, nostack)
                        );
                    }
                }
            )*
        }

        fn read_counters(to: &mut Registers) {
            let count = MDCR_EL2.get() & HPMN;
            $(
                if $n < count {
                    // SAFETY: reading has no side effect; the count keeps us off those there are not.
                    unsafe {
                        core::arch::asm!(
                            concat!("mrs {}, pmevtyper", $n, "_el0"),
                            concat!("mrs {}, pmevcntr", $n, "_el0"),
                            out(reg) to.events[$n],
                            out(reg) to.counts[$n],
                            options(nomem, nostack)
                        );
                    }
                }
            )*
        }
    };
}
each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30);
