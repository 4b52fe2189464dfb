//! The interrupt controller and the timer's interrupts.
//!
//! Sources: the `arm,gic`, `arm,gic-v3` and `arm,arch_timer` device tree bindings.

use alloc::vec::Vec;

use super::BoardError;
use super::interrupt::{self, GICV2, GICV3, IntId};
use super::tree::{Node, Tree};
use crate::addr::PaRange;

/// A range of redistributors, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redistributors {
    /// Where they lie.
    pub range: PaRange,
    /// Bytes from one to the next; `None`: as `GICR_TYPER.VLPIS` says, 128 KiB or 256 KiB.
    pub stride: Option<u64>,
}

/// The board's interrupt controller, with what virtualization needs of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gic {
    /// GICv2: everything is memory mapped.
    V2 {
        /// GICD.
        distributor: PaRange,
        /// GICC: our own.
        cpu_interface: PaRange,
        /// GICH: list registers.
        hyp_interface: PaRange,
        /// GICV: what a guest gets as its GICC.
        vcpu_interface: PaRange,
        /// The maintenance interrupt.
        maintenance: IntId,
    },
    /// GICv3 or v4: CPU interface and list registers are system registers.
    V3 {
        /// GICD.
        distributor: PaRange,
        /// GICR, in ranges.
        redistributors: Vec<Redistributors>,
        /// The maintenance interrupt.
        maintenance: IntId,
    },
}

impl Gic {
    /// The maintenance interrupt.
    #[must_use]
    pub const fn maintenance(&self) -> IntId {
        match self {
            Self::V2 { maintenance, .. } | Self::V3 { maintenance, .. } => *maintenance,
        }
    }

    /// The first enabled GIC of the tree.
    ///
    /// # Errors
    /// `NoGic`, `Malformed`, or `GicWithoutVirtualization` if GICH, GICV or the maintenance interrupt is missing.
    pub(super) fn from_tree(tree: &Tree<'_>) -> Result<Self, BoardError> {
        if let Some(node) = tree.compatible(GICV3) {
            return v3(tree, &node);
        }
        let node = tree.compatible(GICV2).ok_or(BoardError::NoGic)?;
        v2(tree, &node)
    }
}

fn v2(tree: &Tree<'_>, node: &Node<'_>) -> Result<Gic, BoardError> {
    let reg = node
        .reg()
        .ok_or_else(|| BoardError::malformed(node, "reg"))?;
    let maintenance = interrupt::first(tree, node);
    let (
        &[
            distributor,
            cpu_interface,
            hyp_interface,
            vcpu_interface,
            ..,
        ],
        Some(maintenance),
    ) = (&reg[..], maintenance)
    else {
        return Err(BoardError::GicWithoutVirtualization { node: node.path() });
    };
    Ok(Gic::V2 {
        distributor,
        cpu_interface,
        hyp_interface,
        vcpu_interface,
        maintenance: maintenance.id,
    })
}

fn v3(tree: &Tree<'_>, node: &Node<'_>) -> Result<Gic, BoardError> {
    let reg = node
        .reg()
        .ok_or_else(|| BoardError::malformed(node, "reg"))?;
    let regions = match node.property("#redistributor-regions") {
        Some(count) => count
            .u32()
            .ok_or_else(|| BoardError::malformed(node, "#redistributor-regions"))?,
        None => 1,
    };
    let stride = match node.property("redistributor-stride") {
        Some(stride) => Some(
            stride
                .u64()
                .ok_or_else(|| BoardError::malformed(node, "redistributor-stride"))?,
        ),
        None => None,
    };
    let malformed = || BoardError::malformed(node, "reg");
    let (distributor, rest) = reg.split_first().ok_or_else(malformed)?;
    let ranges = rest
        .get(..regions as usize)
        .filter(|ranges| !ranges.is_empty())
        .ok_or_else(malformed)?;
    let Some(maintenance) = interrupt::first(tree, node) else {
        return Err(BoardError::GicWithoutVirtualization { node: node.path() });
    };
    Ok(Gic::V3 {
        distributor: *distributor,
        redistributors: ranges
            .iter()
            .map(|range| Redistributors {
                range: *range,
                stride,
            })
            .collect(),
        maintenance: maintenance.id,
    })
}

/// What performance monitors are called in trees, by the architecture or by the CPU they are part of.
const PMUS: &[&str] = &[
    "arm,armv8-pmuv3",
    "arm,cortex-a35-pmu",
    "arm,cortex-a53-pmu",
    "arm,cortex-a55-pmu",
    "arm,cortex-a57-pmu",
    "arm,cortex-a65-pmu",
    "arm,cortex-a72-pmu",
    "arm,cortex-a73-pmu",
    "arm,cortex-a75-pmu",
    "arm,cortex-a76-pmu",
    "arm,cortex-a77-pmu",
    "arm,cortex-a78-pmu",
    "arm,cortex-a510-pmu",
    "arm,cortex-a710-pmu",
    "arm,cortex-x1-pmu",
    "arm,cortex-x2-pmu",
    "arm,neoverse-e1-pmu",
    "arm,neoverse-n1-pmu",
    "arm,neoverse-n2-pmu",
    "arm,neoverse-v1-pmu",
];

/// The interrupt of the performance monitors, if it is a PPI. Boards that give each CPU an SPI have none that could be a guest's.
///
/// Source: the `arm,cortex-a57-pmu` device tree binding ("ARM Performance Monitor Units").
pub(super) fn pmu_interrupt(tree: &Tree<'_>) -> Option<IntId> {
    let node = tree.compatible(PMUS)?;
    let first = interrupt::interrupts(tree, &node).first().copied()??;
    Some(first.id).filter(|id| id.is_private())
}

/// The interrupts of the generic timer, one per timer of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerInterrupts {
    /// EL3's physical timer; a tree may leave it out.
    pub secure: Option<IntId>,
    /// EL1's physical timer (`CNTP`).
    pub physical: IntId,
    /// EL1's virtual timer (`CNTV`).
    pub virt: IntId,
    /// EL2's physical timer (`CNTHP`).
    pub hyp: IntId,
}

impl TimerInterrupts {
    /// Of the `arm,armv8-timer` node: in the order of the binding, or as `interrupt-names` says.
    ///
    /// # Errors
    /// `NoTimer` without a node, or without one of the three interrupts that are needed.
    pub(super) fn from_tree(tree: &Tree<'_>) -> Result<Self, BoardError> {
        let node = tree
            .compatible(&["arm,armv8-timer", "arm,armv7-timer"])
            .ok_or(BoardError::NoTimer)?;
        let list = interrupt::interrupts(tree, &node);
        let names: Option<Vec<&str>> = node
            .property("interrupt-names")
            .map(|names| names.strings().collect());
        let by_name = |name: &str, index: usize| {
            let index = match &names {
                Some(names) => names.iter().position(|entry| *entry == name)?,
                None => index,
            };
            list.get(index)
                .copied()
                .flatten()
                .map(|interrupt| interrupt.id)
        };
        Ok(Self {
            secure: by_name("sec-phys", 0),
            physical: by_name("phys", 1).ok_or(BoardError::NoTimer)?,
            virt: by_name("virt", 2).ok_or(BoardError::NoTimer)?,
            hyp: by_name("hyp-phys", 3).ok_or(BoardError::NoTimer)?,
        })
    }
}
