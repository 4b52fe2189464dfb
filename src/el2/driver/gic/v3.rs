//! GICv3: GICD, this CPU's GICR, and the ICC and ICH system registers.
//!
//! Source: IHI 0069 "Programmers' Model"; the sequences of "Initialization of the GIC".

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ICC_SRE_EL2, MPIDR_EL1};
use faultline::addr::{Pa, PaRange};
use faultline::board::Redistributors;
use faultline::traps;
use faultline::vgic::{CpuInterface, InterfaceType, Plan};
use tock_registers::interfaces::{Readable, Writeable};

use super::{FIRST_SPI, PRIORITY};
use crate::el2::driver::{read32, write8, write32, write64};
use crate::el2::el3;
use crate::el2::hyp_map::{self, TooRagged, Use};
use crate::el2::sysreg::{
    ICC_AP1R0_EL1, ICC_BPR1_EL1, ICC_CTLR_EL1, ICC_DIR_EL1, ICC_EOIR1_EL1, ICC_IAR1_EL1,
    ICC_IGRPEN1_EL1, ICC_PMR_EL1, ICC_SGI1R_EL1, ICC_SRE_EL1, ICH_AP0R0_EL2, ICH_AP0R1_EL2,
    ICH_AP0R2_EL2, ICH_AP0R3_EL2, ICH_AP1R0_EL2, ICH_AP1R1_EL2, ICH_AP1R2_EL2, ICH_AP1R3_EL2,
    ICH_HCR_EL2, ICH_VMCR_EL2, ICH_VTR_EL2, list_register, set_list_register,
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
#[derive(Clone)]
pub(in crate::el2) struct GicV3 {
    distributor: Pa,
    redistributor: Pa,
    list_registers: usize,
    /// log2 of the registers of active priorities there are for each group.
    priority_registers_log2: u32,
    /// The bit of ICH_HCR_EL2 that has ICC_DIR_EL1 trap.
    deactivation_trap: u32,
}

impl GicV3 {
    pub(super) fn new(
        distributor: PaRange,
        redistributors: &[Redistributors],
    ) -> Result<Self, TooRagged> {
        hyp_map::map(distributor, Use::Device)?;
        map_redistributors(redistributors)?;
        let gic = Self::of_this_cpu(distributor, redistributors).unwrap_or_else(|| {
            crate::el2::power::refuse(format_args!(
                "no GICv3 redistributor has this CPU's affinity {:#x}",
                this_affinity()
            ))
        });
        gic.init_distributor();
        gic.init_this_cpu();
        Ok(gic)
    }

    /// Another CPU's, once the distributor is set up and all is mapped; `None` if it has no redistributor.
    pub(super) fn join(distributor: PaRange, redistributors: &[Redistributors]) -> Option<Self> {
        let gic = Self::of_this_cpu(distributor, redistributors)?;
        gic.init_this_cpu();
        Some(gic)
    }

    fn of_this_cpu(distributor: PaRange, redistributors: &[Redistributors]) -> Option<Self> {
        let mpidr = this_affinity();
        let wanted = (mpidr >> 8 & 0xff00_0000 | mpidr & 0x00ff_ffff) as u32;
        let is_ours = |frame: &Pa| {
            // SAFETY: a redistributor as the device tree says, mapped by `map_redistributors`.
            unsafe { read32(*frame, GICR_TYPER + 4) == wanted }
        };
        let redistributor = redistributors.iter().flat_map(frames).find(is_ours)?;
        let vtr = ICH_VTR_EL2.get();
        Some(Self {
            distributor: distributor.start,
            redistributor,
            list_registers: (vtr & 0x1f) as usize + 1,
            // PREbits, less one, says 4, 5 or 6.
            priority_registers_log2: ((vtr >> 26 & 7) as u32).saturating_sub(4).min(2),
            deactivation_trap: if interface_type().traps_deactivation_alone() {
                TDIR
            } else {
                TC
            },
        })
    }

    fn init_this_cpu(&self) {
        self.init_redistributor();
        init_cpu_interface();
        self.reset_virtual();
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

    /// This CPU's affinity, as an SGI names it.
    pub(super) fn target(&self) -> u64 {
        this_affinity()
    }

    /// Sends the SGI `number` to the CPU with this affinity.
    pub(super) fn send_sgi(&self, number: u32, mpidr: u64) {
        let aff = |n: u32| mpidr >> (8 * n) & 0xff;
        // TargetList 15:0 and RS 47:44 name Aff0; Aff1 at 16, Aff2 at 32, Aff3 at 48.
        let target = 1 << (aff(0) % 16) | (aff(0) / 16) << 44;
        let cluster = aff(1) << 16 | aff(2) << 32 | aff(4) << 48;
        // What was written before is seen by the CPU that takes the interrupt.
        barrier::dsb(barrier::ISHST);
        ICC_SGI1R_EL1.set(u64::from(number) << 24 | cluster | target);
        barrier::isb(barrier::SY);
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

    #[inline(always)]
    pub(super) fn set_list_register(&self, n: usize, value: u64) {
        set_list_register(n, value);
    }

    pub(super) fn control(&self) -> u32 {
        ICH_HCR_EL2.get() as u32
    }

    pub(super) fn set_control(&self, value: u32) {
        ICH_HCR_EL2.set(value.into());
    }

    /// The trap bits of ICH_HCR_EL2.
    pub(super) const fn traps(&self, plan: Plan) -> u32 {
        if plan.traps_deactivation {
            self.deactivation_trap
        } else {
            0
        }
    }

    /// Writes ICH_VMCR_EL2, by a guest whose writes to what is in it go on trapping or not.
    pub(super) fn set_interface_control(&self, vmcr: u32, goes_on_trapping: bool) {
        ICH_VMCR_EL2.set(vmcr.into());
        if !goes_on_trapping {
            self.set_control(self.control() & !TC);
        }
    }

    /// What the hardware says of virtual CPU interfaces.
    pub(super) fn interface_type(&self) -> InterfaceType {
        interface_type()
    }

    /// A vCPU comes, with list registers that are free.
    pub(super) fn load_virtual(&self, interface: &CpuInterface) {
        // What VMCR holds depends on it. Only a GIC that has a memory-mapped interface too lets a guest change it.
        if ICC_SRE_EL1.get() != SYSTEM_REGISTERS {
            ICC_SRE_EL1.set(SYSTEM_REGISTERS);
            barrier::isb(barrier::SY);
        }
        self.set_active_priorities(interface);
        ICH_VMCR_EL2.set(interface.vmcr.into());
        let traps = if interface.may_deactivate {
            0
        } else {
            self.deactivation_trap
        };
        self.set_control(1 | traps);
    }

    /// The vCPU leaves, its list registers free.
    pub(super) fn unload_virtual(&self, interface: &mut CpuInterface) {
        interface.may_deactivate = self.deactivation_trap == TDIR && self.control() & TDIR == 0;
        self.set_control(0);
        self.read_interface(interface);
    }

    /// What the vCPU has there; of its active priorities, as many as there are.
    pub(super) fn read_interface(&self, interface: &mut CpuInterface) {
        interface.vmcr = ICH_VMCR_EL2.get() as u32;
        interface.step = 8 >> self.priority_registers_log2;
        let (group_0, group_1) = (&mut interface.group_0, &mut interface.group_1);
        group_0[0] = ICH_AP0R0_EL2.get() as u32;
        group_1[0] = ICH_AP1R0_EL2.get() as u32;
        if self.priority_registers_log2 >= 1 {
            group_0[1] = ICH_AP0R1_EL2.get() as u32;
            group_1[1] = ICH_AP1R1_EL2.get() as u32;
        }
        if self.priority_registers_log2 >= 2 {
            group_0[2..].copy_from_slice(&[ICH_AP0R2_EL2.get() as u32, ICH_AP0R3_EL2.get() as u32]);
            group_1[2..].copy_from_slice(&[ICH_AP1R2_EL2.get() as u32, ICH_AP1R3_EL2.get() as u32]);
        }
    }

    /// Whatever a boot loader left there.
    fn reset_virtual(&self) {
        self.set_control(0);
        (0..self.list_registers).for_each(|n| set_list_register(n, 0));
    }

    fn set_active_priorities(&self, interface: &CpuInterface) {
        let (group_0, group_1) = (interface.group_0, interface.group_1);
        ICH_AP0R0_EL2.set(group_0[0].into());
        ICH_AP1R0_EL2.set(group_1[0].into());
        if self.priority_registers_log2 >= 1 {
            ICH_AP0R1_EL2.set(group_0[1].into());
            ICH_AP1R1_EL2.set(group_1[1].into());
        }
        if self.priority_registers_log2 >= 2 {
            ICH_AP0R2_EL2.set(group_0[2].into());
            ICH_AP0R3_EL2.set(group_0[3].into());
            ICH_AP1R2_EL2.set(group_1[2].into());
            ICH_AP1R3_EL2.set(group_1[3].into());
        }
    }
}

/// ICC_SRE_EL1, which is EL1's own: system registers, no bypass.
const SYSTEM_REGISTERS: u64 = 0b111;

/// ICH_HCR_EL2: writes to ICC_DIR_EL1 trap, where the hardware has TDS.
const TDIR: u32 = 1 << 14;
/// ICH_HCR_EL2: ICC_DIR_EL1, ICC_CTLR_EL1, ICC_PMR_EL1 and ICC_RPR_EL1 trap.
const TC: u32 = 1 << 10;

/// What the hardware says of its virtual CPU interfaces. Built with `--cfg faultline_poison` it does as a Cortex-A72's does,
/// which QEMU has not: no TDS.
fn interface_type() -> InterfaceType {
    const TDS: u64 = 1 << 19;
    const RSS: u64 = 1 << 18;
    let vtr = ICH_VTR_EL2.get();
    InterfaceType {
        vtr: if cfg!(faultline_poison) {
            vtr & !TDS
        } else {
            vtr
        },
        has_range_selector: ICC_CTLR_EL1.get() & RSS != 0,
    }
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

/// The redistributors of a range, up to the one that says it is the last. One that was handed out is asked where the next
/// is only when that is wanted: it has to be mapped by then.
fn frames(range: &Redistributors) -> impl Iterator<Item = Pa> + use<> {
    let Redistributors { range, stride } = *range;
    let mut last = None;
    core::iter::from_fn(move || {
        let next = match last {
            None => range.start,
            Some(frame) => after(frame, stride)?,
        };
        last = Some(next);
        last.filter(|frame| range.contains(*frame))
    })
}

/// Where the redistributor after `frame` lies.
fn after(frame: Pa, stride: Option<u64>) -> Option<Pa> {
    // SAFETY: a redistributor as the device tree says, mapped.
    let typer = unsafe { read32(frame, GICR_TYPER) };
    let own = if typer & TYPER_VLPIS != 0 {
        4 * SGI_FRAME
    } else {
        2 * SGI_FRAME
    };
    (typer & TYPER_LAST == 0).then(|| frame.add(stride.unwrap_or(own)))
}

/// Maps the redistributors of all CPUs, and nothing of what follows the last.
fn map_redistributors(ranges: &[Redistributors]) -> Result<(), TooRagged> {
    const FRAME: u64 = 2 * SGI_FRAME;
    for range in ranges {
        for frame in frames(range) {
            hyp_map::map(
                PaRange {
                    start: frame,
                    size: FRAME,
                },
                Use::Device,
            )?;
        }
    }
    Ok(())
}
