//! GICv3: GICD, this CPU's GICR, and the ICC and ICH system registers.
//!
//! Source: IHI 0069 "Programmers' Model"; the sequences of "Initialization of the GIC".

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ICC_SRE_EL2, MPIDR_EL1};
use faultline::addr::{Pa, PaRange};
use faultline::board::Redistributors;
use faultline::traps;
use faultline::vgic::Plan;
use tock_registers::interfaces::{Readable, Writeable};

use super::{FIRST_SPI, PRIORITY};
use crate::el2::driver::{read32, write8, write32, write64};
use crate::el2::el3;
use crate::el2::hyp_map::{self, TooRagged, Use};
use crate::el2::sysreg::{
    ICC_AP1R0_EL1, ICC_BPR1_EL1, ICC_CTLR_EL1, ICC_DIR_EL1, ICC_EOIR1_EL1, ICC_IAR1_EL1,
    ICC_IGRPEN1_EL1, ICC_PMR_EL1, ICC_SRE_EL1, ICH_AP0R0_EL2, ICH_AP1R0_EL2, ICH_HCR_EL2,
    ICH_VMCR_EL2, ICH_VTR_EL2, list_register, set_list_register,
};

const GICD_CTLR: u64 = 0x0000;
const GICD_TYPER: u64 = 0x0004;
const GICD_IGROUPR: u64 = 0x0080;
const GICD_ICENABLER: u64 = 0x0180;
const GICD_ISENABLER: u64 = 0x0100;
const GICD_ICPENDR: u64 = 0x0280;
const GICD_ICACTIVER: u64 = 0x0380;
const GICD_IPRIORITYR: u64 = 0x0400;
const GICD_IROUTER: u64 = 0x6000;

/// Group 1 and affinity routing, in the Non-secure view and in that of a GIC without security.
const CTLR_ENABLE: u32 = 1 << 0 | 1 << 1 | 1 << 4;
/// Nothing enabled. ARE stays: to clear it once it was set is UNPREDICTABLE.
const CTLR_DISABLED: u32 = 1 << 4;
/// DS: security disabled.
const CTLR_DS: u32 = 1 << 6;
const CTLR_RWP: u32 = 1 << 31;

const GICR_CTLR: u64 = 0x0000;
const GICR_TYPER: u64 = 0x0008;
const GICR_WAKER: u64 = 0x0014;
/// SGI_base, from RD_base.
const SGI_FRAME: u64 = 0x1_0000;
const TYPER_VLPIS: u32 = 1 << 1;
const TYPER_LAST: u32 = 1 << 4;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
const GICR_RWP: u32 = 1 << 3;

const ICC_CTLR_EOI_MODE: u64 = 1 << 1;

/// The controller, as one CPU sees it.
pub(in crate::el2) struct GicV3 {
    distributor: Pa,
    redistributor: Pa,
    list_registers: usize,
}

impl GicV3 {
    pub(super) fn new(
        distributor: PaRange,
        redistributors: &[Redistributors],
    ) -> Result<Self, TooRagged> {
        hyp_map::map(distributor, Use::Device)?;
        let redistributor = find_redistributor(redistributors)?;
        let gic = Self {
            distributor: distributor.start,
            redistributor,
            list_registers: (ICH_VTR_EL2.get() & 0x1f) as usize + 1,
        };
        gic.init_distributor();
        gic.init_redistributor();
        init_cpu_interface();
        gic.reset_virtual();
        Ok(gic)
    }

    fn init_distributor(&self) {
        let gicd = self.distributor;
        // SAFETY: GICD, mapped by `new`; every SPI is disabled, idle, of group 1, one priority, and for this CPU.
        unsafe {
            let lines = (u64::from(read32(gicd, GICD_TYPER)) & 0x1f) + 1;
            if el3::is_ours() {
                // One security state: a GIC out of reset keeps all interrupts for the Secure world.
                el3::store(gicd.add(GICD_CTLR), CTLR_DS);
            }
            write32(gicd, GICD_CTLR, CTLR_DISABLED);
            self.wait_distributor();
            for line in 1..lines {
                write32(gicd, GICD_ICENABLER + 4 * line, u32::MAX);
                write32(gicd, GICD_ICPENDR + 4 * line, u32::MAX);
                write32(gicd, GICD_ICACTIVER + 4 * line, u32::MAX);
                write32(gicd, GICD_IGROUPR + 4 * line, u32::MAX);
            }
            self.wait_distributor();
            write32(gicd, GICD_CTLR, CTLR_ENABLE);
            self.wait_distributor();
            for intid in u64::from(FIRST_SPI)..(32 * lines).min(1020) {
                write8(gicd, GICD_IPRIORITYR + intid, PRIORITY);
                write64(gicd, GICD_IROUTER + 8 * intid, this_affinity());
            }
        }
    }

    fn init_redistributor(&self) {
        let (rd, sgi) = (self.redistributor, self.redistributor.add(SGI_FRAME));
        // SAFETY: this CPU's GICR, mapped by `find_redistributor`.
        unsafe {
            let waker = read32(rd, GICR_WAKER);
            write32(rd, GICR_WAKER, waker & !WAKER_PROCESSOR_SLEEP);
            while read32(rd, GICR_WAKER) & WAKER_CHILDREN_ASLEEP != 0 {}
            write32(sgi, GICD_ICENABLER, u32::MAX);
            write32(sgi, GICD_ICPENDR, u32::MAX);
            write32(sgi, GICD_ICACTIVER, u32::MAX);
            write32(sgi, GICD_IGROUPR, u32::MAX);
            (0..u64::from(FIRST_SPI))
                .for_each(|intid| write8(sgi, GICD_IPRIORITYR + intid, PRIORITY));
            while read32(rd, GICR_CTLR) & GICR_RWP != 0 {}
        }
    }

    /// Waits until the distributor has taken in what was written. Bounded by hardware.
    fn wait_distributor(&self) {
        // SAFETY: GICD.
        while unsafe { read32(self.distributor, GICD_CTLR) } & CTLR_RWP != 0 {}
    }

    pub(super) fn enable(&self, intid: u32) {
        let frame = if intid < FIRST_SPI {
            self.redistributor.add(SGI_FRAME)
        } else {
            self.distributor
        };
        // SAFETY: GICD or our GICR; the interrupt has a handler (interrupts.rs).
        unsafe {
            write32(
                frame,
                GICD_ISENABLER + u64::from(intid / 32) * 4,
                1 << (intid % 32),
            )
        };
    }

    pub(super) fn acknowledge(&self) -> u32 {
        let iar = ICC_IAR1_EL1.get() as u32;
        // The acknowledgement is seen by the distributor before the device is touched.
        barrier::dsb(barrier::SY);
        iar
    }

    pub(super) fn drop_priority(&self, iar: u32) {
        ICC_EOIR1_EL1.set(iar.into());
        barrier::isb(barrier::SY);
    }

    pub(super) fn deactivate(&self, iar: u32) {
        ICC_DIR_EL1.set(iar.into());
        barrier::isb(barrier::SY);
    }

    pub(super) const fn list_register_count(&self) -> usize {
        self.list_registers
    }

    pub(super) fn list_register(&self, n: usize) -> u64 {
        list_register(n)
    }

    pub(super) fn set_list_register(&self, n: usize, value: u64) {
        set_list_register(n, value);
    }

    pub(super) fn control(&self) -> u32 {
        ICH_HCR_EL2.get() as u32
    }

    pub(super) fn set_control(&self, value: u32) {
        ICH_HCR_EL2.set(value.into());
    }

    pub(super) fn reset_virtual(&self) {
        (0..self.list_register_count()).for_each(|n| set_list_register(n, 0));
        ICH_AP0R0_EL2.set(0);
        ICH_AP1R0_EL2.set(0);
        ICH_VMCR_EL2.set(0);
        // EL1's own: system registers, no bypass.
        ICC_SRE_EL1.set(7);
        barrier::isb(barrier::SY);
        self.set_control(1);
    }
}

/// The trap bits of ICH_HCR_EL2.
pub(super) const fn traps(plan: Plan) -> u32 {
    const TDIR: u32 = 1 << 14;
    if plan.traps_deactivation { TDIR } else { 0 }
}

fn init_cpu_interface() {
    // The value does not depend on the CPU's features.
    let sre = traps::ICC_SRE_EL2
        .iter()
        .fold(0, |value, setting| value | setting.value << setting.shift);
    ICC_SRE_EL2.set(sre);
    barrier::isb(barrier::SY);
    // A boot loader may have left a priority running that would mask all of ours.
    ICC_AP1R0_EL1.set(0);
    ICC_PMR_EL1.set(0xff);
    ICC_BPR1_EL1.set(0);
    ICC_CTLR_EL1.set(ICC_CTLR_EL1.get() | ICC_CTLR_EOI_MODE);
    ICC_IGRPEN1_EL1.set(1);
    barrier::isb(barrier::SY);
}

/// This CPU's affinity as GICD_IROUTER wants it: Aff3 at 32, the others from 0.
fn this_affinity() -> u64 {
    MPIDR_EL1.get() & 0x00ff_00ff_ffff
}

/// This CPU's redistributor: frames are mapped one by one until its affinity comes up.
fn find_redistributor(ranges: &[Redistributors]) -> Result<Pa, TooRagged> {
    let mpidr = this_affinity();
    let wanted = (mpidr >> 8 & 0xff00_0000 | mpidr & 0x00ff_ffff) as u32;
    for Redistributors { range, stride } in ranges {
        let mut frame = range.start;
        while range.contains(frame) {
            hyp_map::map(
                PaRange {
                    start: frame,
                    size: 2 * SGI_FRAME,
                },
                Use::Device,
            )?;
            // SAFETY: a redistributor as the device tree says, mapped just now.
            let (typer, affinity) =
                unsafe { (read32(frame, GICR_TYPER), read32(frame, GICR_TYPER + 4)) };
            if affinity == wanted {
                return Ok(frame);
            }
            if typer & TYPER_LAST != 0 {
                break;
            }
            let own = if typer & TYPER_VLPIS != 0 {
                4 * SGI_FRAME
            } else {
                2 * SGI_FRAME
            };
            frame = frame.add(stride.unwrap_or(own));
        }
    }
    crate::el2::power::refuse(format_args!(
        "no GICv3 redistributor has this CPU's affinity {mpidr:#x}"
    ))
}
