//! The interrupt controller, GICv2 or GICv3 as the device tree says, seen from the CPU that asks: group 1 interrupts.
//!
//! Source: GIC architecture specification v2 (IHI 0048), v3 (IHI 0069).
use crate::{fdt, mmio, read_sysreg, smp, sync, write_sysreg};

/// Registers by their offset in the distributor, or in a GICv3 redistributor's second frame.
#[allow(missing_docs, reason = "the names are the specification's")]
pub mod register {
    pub const CTLR: u64 = 0x000;
    pub const TYPER: u64 = 0x004;
    pub const IIDR: u64 = 0x008;
    pub const IGROUPR: u64 = 0x080;
    pub const ISENABLER: u64 = 0x100;
    pub const ICENABLER: u64 = 0x180;
    pub const ISPENDR: u64 = 0x200;
    pub const ICPENDR: u64 = 0x280;
    pub const ISACTIVER: u64 = 0x300;
    pub const ICACTIVER: u64 = 0x380;
    pub const IPRIORITYR: u64 = 0x400;
    pub const ITARGETSR: u64 = 0x800;
    pub const ICFGR: u64 = 0xc00;
    pub const SGIR: u64 = 0xf00;
    pub const CPENDSGIR: u64 = 0xf10;
    pub const SPENDSGIR: u64 = 0xf20;
    pub const IROUTER: u64 = 0x6000;
    pub const GICR_TYPER: u64 = 0x008;
    pub const GICR_WAKER: u64 = 0x014;
}
use register::{
    CTLR, GICR_TYPER, GICR_WAKER, IGROUPR, IPRIORITYR, IROUTER, ISENABLER, ITARGETSR, SGIR, TYPER,
};

const GICC_CTLR: u64 = 0x000;
const GICC_PMR: u64 = 0x004;
const GICC_BPR: u64 = 0x008;
const GICC_IAR: u64 = 0x00c;
const GICC_EOIR: u64 = 0x010;
const GICC_RPR: u64 = 0x014;
const GICC_HPPIR: u64 = 0x018;
const GICC_DIR: u64 = 0x1000;
/// GICC_CTLR.EOImode.
const GICC_EOI_MODE: u32 = 1 << 9;
/// GICR_WAKER.ProcessorSleep.
const PROCESSOR_SLEEP: u32 = 1 << 1;
/// GICR_WAKER.ChildrenAsleep.
const CHILDREN_ASLEEP: u32 = 1 << 2;
/// GICR_TYPER.Last.
const LAST: u64 = 1 << 4;
/// The second 64 KiB frame of a redistributor: its SGIs and PPIs, laid out like a distributor's first registers.
const SGI_FRAME: u64 = 0x1_0000;
/// Both frames of a redistributor.
const REDISTRIBUTOR: u64 = 0x2_0000;

/// First INTID that means "none".
pub const SPECIAL: u32 = 1020;
/// The priority that [`Gic::enable_interrupt`] gives.
pub const PRIORITY: u8 = 0x80;

/// The interrupt controller of this VM.
#[derive(Clone, Copy)]
pub enum Gic {
    /// GICv2.
    V2 {
        /// Distributor.
        gicd: u64,
        /// CPU interface.
        gicc: u64,
    },
    /// GICv3.
    V3 {
        /// Distributor.
        gicd: u64,
        /// Redistributor of the CPU that asked [`Gic::from_tree`].
        gicr: u64,
    },
}

impl Gic {
    /// What the device tree describes, as this CPU has it.
    pub fn from_tree() -> Option<Self> {
        let mut v3 = None;
        // Within a node the order of properties is free: remember both, by node name.
        let mut reg: Option<&[u8]> = None;
        fdt::find(|node, property, value| {
            if !node.starts_with(b"intc") && !node.starts_with(b"interrupt-controller") {
                return None;
            }
            match property {
                b"compatible" => v3 = Some(value.starts_with(b"arm,gic-v3")),
                b"reg" => reg = Some(value),
                _ => {}
            }
            v3.is_some().then_some(())?;
            reg.map(|_| ())
        })?;
        let reg = reg?;
        // Two-cell addresses and sizes: distributor first, then CPU interface or redistributors.
        let (gicd, second) = (fdt::cells64(reg, 0)?, fdt::cells64(reg, 2)?);
        Some(if v3? {
            Self::V3 {
                gicd,
                gicr: own_redistributor(second)?,
            }
        } else {
            Self::V2 { gicd, gicc: second }
        })
    }

    /// 2 or 3.
    pub fn version(self) -> u32 {
        match self {
            Self::V2 { .. } => 2,
            Self::V3 { .. } => 3,
        }
    }

    /// Distributor's address.
    pub fn gicd(self) -> u64 {
        match self {
            Self::V2 { gicd, .. } | Self::V3 { gicd, .. } => gicd,
        }
    }

    /// GICD_TYPER.
    pub fn typer(self) -> u32 {
        mmio::read32(self.gicd() + TYPER)
    }

    /// Turns on the distributor and this CPU's interface, all priorities let through.
    pub fn enable(self) {
        match self {
            Self::V2 { gicd, gicc } => {
                mmio::write32(gicd + CTLR, 1);
                mmio::write32(gicc + GICC_PMR, 0xff);
                mmio::write32(gicc + GICC_CTLR, 1);
            }
            Self::V3 { gicd, gicr } => {
                // EnableGrp1 and affinity routing.
                mmio::write32(gicd + CTLR, 1 << 4 | 1 << 1);
                mmio::write32(
                    gicr + GICR_WAKER,
                    mmio::read32(gicr + GICR_WAKER) & !PROCESSOR_SLEEP,
                );
                while mmio::read32(gicr + GICR_WAKER) & CHILDREN_ASLEEP != 0 {}
                // ICC_SRE_EL1.SRE, ICC_PMR_EL1, ICC_IGRPEN1_EL1.
                write_sysreg!("S3_0_C12_C12_5", 1);
                write_sysreg!("S3_0_C4_C6_0", 0xff);
                write_sysreg!("S3_0_C12_C12_7", 1);
            }
        }
    }

    /// The frame that holds this interrupt's registers.
    pub fn frame(self, intid: u32) -> u64 {
        match self {
            Self::V3 { gicr, .. } if intid < 32 => gicr + SGI_FRAME,
            _ => self.gicd(),
        }
    }

    /// Address of the word of a register of one bit per interrupt.
    pub fn word(self, register: u64, intid: u32) -> u64 {
        self.frame(intid) + register + u64::from(intid / 32) * 4
    }

    /// Writes 1 to the interrupt's bit of a set or clear register.
    pub fn set_bit(self, register: u64, intid: u32) {
        mmio::write32(self.word(register, intid), 1 << (intid % 32));
    }

    /// Whether the interrupt's bit of a register is 1.
    pub fn bit(self, register: u64, intid: u32) -> bool {
        mmio::read32(self.word(register, intid)) >> (intid % 32) & 1 == 1
    }

    /// Gives it a priority.
    pub fn set_priority(self, intid: u32, priority: u8) {
        mmio::write8(self.frame(intid) + IPRIORITYR + u64::from(intid), priority);
    }

    /// Its priority, as the register has it.
    pub fn priority(self, intid: u32) -> u8 {
        mmio::read8(self.frame(intid) + IPRIORITYR + u64::from(intid))
    }

    /// Sends an SPI to CPU `cpu`.
    pub fn route(self, intid: u32, cpu: usize) {
        match self {
            Self::V2 { gicd, .. } => {
                mmio::write8(gicd + ITARGETSR + u64::from(intid), 1 << cpu);
            }
            Self::V3 { gicd, .. } => {
                mmio::write64(gicd + IROUTER + 8 * u64::from(intid), smp::affinity(cpu));
            }
        }
    }

    /// Lets an interrupt through, to this CPU.
    pub fn enable_interrupt(self, intid: u32) {
        self.set_priority(intid, PRIORITY);
        if intid >= 32 {
            self.route(intid, smp::index());
        }
        if self.version() == 3 {
            let group = self.word(IGROUPR, intid);
            mmio::write32(group, mmio::read32(group) | 1 << (intid % 32));
        }
        self.set_bit(ISENABLER, intid);
    }

    /// Holds an interrupt back.
    pub fn disable_interrupt(self, intid: u32) {
        self.set_bit(register::ICENABLER, intid);
    }

    /// Makes an interrupt pending by software.
    pub fn pend(self, intid: u32) {
        self.set_bit(register::ISPENDR, intid);
    }

    /// Sends SGI `intid` to this CPU.
    pub fn send_to_self(self, intid: u32) {
        match self {
            // TargetListFilter 0b10: the CPU that asks.
            Self::V2 { gicd, .. } => mmio::write32(gicd + SGIR, 0b10 << 24 | intid),
            Self::V3 { .. } => self.send(intid, smp::index()),
        }
    }

    /// Sends SGI `intid` to CPU `cpu`.
    pub fn send(self, intid: u32, cpu: usize) {
        sync::publish();
        match self {
            Self::V2 { gicd, .. } => mmio::write32(gicd + SGIR, 1 << (16 + cpu) | intid),
            Self::V3 { .. } => {
                let affinity = smp::affinity(cpu);
                let [aff0, aff1, aff2, aff3] = [0, 8, 16, 32].map(|bit| affinity >> bit & 0xff);
                // Range selector: targets 16 x RS to 16 x RS + 15; 0 on all we run on.
                let target = aff3 << 48 | aff2 << 32 | aff1 << 16 | 1 << aff0;
                self.write_sgi1r(target | u64::from(intid) << 24);
            }
        }
    }

    /// Sends SGI `intid` to every CPU but this one.
    pub fn send_to_others(self, intid: u32) {
        sync::publish();
        match self {
            Self::V2 { gicd, .. } => mmio::write32(gicd + SGIR, 0b01 << 24 | intid),
            Self::V3 { .. } => self.write_sgi1r(1 << 40 | u64::from(intid) << 24),
        }
    }

    /// ICC_SGI1R_EL1.
    pub fn write_sgi1r(self, value: u64) {
        write_sysreg!("S3_0_C12_C11_5", value);
    }

    /// Takes the most urgent pending interrupt; `SPECIAL` or more when there is none.
    pub fn acknowledge(self) -> u32 {
        self.acknowledge_raw() & self.intid_mask()
    }

    /// The same with GICv2's CPUID, the sender of an SGI, in bits 12:10.
    pub fn acknowledge_raw(self) -> u32 {
        match self {
            Self::V2 { gicc, .. } => mmio::read32(gicc + GICC_IAR),
            // ICC_IAR1_EL1.
            Self::V3 { .. } => read_sysreg!("S3_0_C12_C12_0") as u32,
        }
    }

    fn intid_mask(self) -> u32 {
        match self {
            Self::V2 { .. } => 0x3ff,
            Self::V3 { .. } => 0xff_ffff,
        }
    }

    /// Ends it: the value that [`Self::acknowledge_raw`] gave.
    pub fn end(self, intid: u32) {
        match self {
            Self::V2 { gicc, .. } => mmio::write32(gicc + GICC_EOIR, intid),
            // ICC_EOIR1_EL1.
            Self::V3 { .. } => write_sysreg!("S3_0_C12_C12_1", u64::from(intid)),
        }
    }

    /// Deactivates it, with [`Self::split_end`].
    pub fn deactivate(self, intid: u32) {
        match self {
            Self::V2 { gicc, .. } => mmio::write32(gicc + GICC_DIR, intid),
            // ICC_DIR_EL1.
            Self::V3 { .. } => write_sysreg!("S3_0_C12_C11_1", u64::from(intid)),
        }
    }

    /// EOImode: whether ending drops the priority only.
    pub fn split_end(self, split: bool) {
        match self {
            Self::V2 { gicc, .. } => {
                mmio::write32(gicc + GICC_CTLR, 1 | if split { GICC_EOI_MODE } else { 0 });
            }
            // ICC_CTLR_EL1.EOImode.
            Self::V3 { .. } => write_sysreg!("S3_0_C12_C12_4", u64::from(split) << 1),
        }
    }

    /// The priority mask: only what is more urgent gets through.
    pub fn set_mask(self, priority: u8) {
        match self {
            Self::V2 { gicc, .. } => mmio::write32(gicc + GICC_PMR, priority.into()),
            Self::V3 { .. } => write_sysreg!("S3_0_C4_C6_0", u64::from(priority)),
        }
    }

    /// The binary point: 0 makes every implemented priority bit preempt.
    pub fn set_binary_point(self, value: u8) {
        match self {
            Self::V2 { gicc, .. } => mmio::write32(gicc + GICC_BPR, value.into()),
            // ICC_BPR1_EL1.
            Self::V3 { .. } => write_sysreg!("S3_0_C12_C12_3", u64::from(value)),
        }
    }

    /// The running priority; 0xff when none is active.
    pub fn running_priority(self) -> u8 {
        match self {
            Self::V2 { gicc, .. } => mmio::read32(gicc + GICC_RPR) as u8,
            // ICC_RPR_EL1.
            Self::V3 { .. } => read_sysreg!("S3_0_C12_C11_3") as u8,
        }
    }

    /// The most urgent pending interrupt, without taking it.
    pub fn highest_pending(self) -> u32 {
        match self {
            Self::V2 { gicc, .. } => mmio::read32(gicc + GICC_HPPIR) & 0x3ff,
            // ICC_HPPIR1_EL1.
            Self::V3 { .. } => read_sysreg!("S3_0_C12_C12_2") as u32 & 0xff_ffff,
        }
    }
}

/// Redistributors follow one another; each says whose it is.
fn own_redistributor(first: u64) -> Option<u64> {
    let mpidr = read_sysreg!("MPIDR_EL1");
    let own = mpidr & 0xff_ffff | mpidr >> 32 << 24 & 0xff00_0000;
    let mut gicr = first;
    loop {
        let typer = mmio::read64(gicr + GICR_TYPER);
        if typer >> 32 == own {
            return Some(gicr);
        }
        if typer & LAST != 0 {
            return None;
        }
        gicr += REDISTRIBUTOR;
    }
}
