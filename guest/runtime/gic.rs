//! The interrupt controller, GICv2 or GICv3 as the device tree says: group 1 interrupts for one CPU.
//!
//! Source: GIC architecture specification v2 (IHI 0048), v3 (IHI 0069).
use crate::{fdt, mmio, read_sysreg, write_sysreg};

const GICD_CTLR: u64 = 0x000;
const GICD_TYPER: u64 = 0x004;
const GICD_IGROUPR: u64 = 0x080;
const GICD_ISENABLER: u64 = 0x100;
const GICD_ICENABLER: u64 = 0x180;
const GICD_ISPENDR: u64 = 0x200;
const GICD_IPRIORITYR: u64 = 0x400;
const GICD_ITARGETSR: u64 = 0x800;
const GICD_SGIR: u64 = 0xf00;
const GICC_CTLR: u64 = 0x000;
const GICC_PMR: u64 = 0x004;
const GICC_IAR: u64 = 0x00c;
const GICC_EOIR: u64 = 0x010;
const GICR_WAKER: u64 = 0x014;
/// GICR_WAKER.ProcessorSleep.
const PROCESSOR_SLEEP: u32 = 1 << 1;
/// GICR_WAKER.ChildrenAsleep.
const CHILDREN_ASLEEP: u32 = 1 << 2;
/// The second 64 KiB frame of a redistributor: its SGIs and PPIs, laid out like a distributor's first registers.
const SGI_FRAME: u64 = 0x1_0000;

/// First INTID that means "none".
pub const SPECIAL: u32 = 1020;

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
        /// Redistributor of this CPU.
        gicr: u64,
    },
}

impl Gic {
    /// What the device tree describes.
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
            Self::V3 { gicd, gicr: second }
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
        mmio::read32(self.gicd() + GICD_TYPER)
    }

    /// Turns on distributor and CPU interface, all priorities let through.
    pub fn enable(self) {
        match self {
            Self::V2 { gicd, gicc } => {
                mmio::write32(gicd + GICD_CTLR, 1);
                mmio::write32(gicc + GICC_PMR, 0xff);
                mmio::write32(gicc + GICC_CTLR, 1);
            }
            Self::V3 { gicd, gicr } => {
                // EnableGrp1 and affinity routing.
                mmio::write32(gicd + GICD_CTLR, 1 << 4 | 1 << 1);
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
    fn frame(self, intid: u32) -> u64 {
        match self {
            Self::V3 { gicr, .. } if intid < 32 => gicr + SGI_FRAME,
            _ => self.gicd(),
        }
    }

    fn bit(self, register: u64, intid: u32) {
        mmio::write32(
            self.frame(intid) + register + u64::from(intid / 32) * 4,
            1 << (intid % 32),
        );
    }

    /// Lets an interrupt through, to this CPU.
    pub fn enable_interrupt(self, intid: u32) {
        let frame = self.frame(intid);
        mmio::write8(frame + GICD_IPRIORITYR + u64::from(intid), 0x80);
        match self {
            Self::V2 { gicd, .. } if intid >= 32 => {
                mmio::write8(gicd + GICD_ITARGETSR + u64::from(intid), 1)
            }
            Self::V2 { .. } => {}
            Self::V3 { gicd, .. } => {
                let group = frame + GICD_IGROUPR + u64::from(intid / 32) * 4;
                mmio::write32(group, mmio::read32(group) | 1 << (intid % 32));
                if intid >= 32 {
                    // GICD_IROUTER<n>: affinity 0.0.0.0.
                    mmio::write64(gicd + 0x6000 + 8 * u64::from(intid), 0);
                }
            }
        }
        self.bit(GICD_ISENABLER, intid);
    }

    /// Holds an interrupt back.
    pub fn disable_interrupt(self, intid: u32) {
        self.bit(GICD_ICENABLER, intid);
    }

    /// Makes an interrupt pending by software.
    pub fn pend(self, intid: u32) {
        self.bit(GICD_ISPENDR, intid);
    }

    /// Sends SGI `intid` to this CPU.
    pub fn send_to_self(self, intid: u32) {
        match self {
            // TargetListFilter 0b10: the CPU that asks.
            Self::V2 { gicd, .. } => mmio::write32(gicd + GICD_SGIR, 0b10 << 24 | intid),
            // ICC_SGI1R_EL1: affinity 0.0.0, target list bit 0.
            Self::V3 { .. } => write_sysreg!("S3_0_C12_C11_5", u64::from(intid) << 24 | 1),
        }
    }

    /// Takes the most urgent pending interrupt; `SPECIAL` or more when there is none.
    pub fn acknowledge(self) -> u32 {
        match self {
            Self::V2 { gicc, .. } => mmio::read32(gicc + GICC_IAR) & 0x3ff,
            // ICC_IAR1_EL1.
            Self::V3 { .. } => read_sysreg!("S3_0_C12_C12_0") as u32 & 0xff_ffff,
        }
    }

    /// Ends it.
    pub fn end(self, intid: u32) {
        match self {
            Self::V2 { gicc, .. } => mmio::write32(gicc + GICC_EOIR, intid),
            // ICC_EOIR1_EL1.
            Self::V3 { .. } => write_sysreg!("S3_0_C12_C12_1", u64::from(intid)),
        }
    }
}
