//! How a device tree names interrupts.
//!
//! Sources: the `arm,gic` and `arm,gic-v3` device tree bindings for three-cell specifiers; Devicetree
//! Specification 0.4, "Interrupts and Interrupt Mapping".

use alloc::vec::Vec;

pub use crate::intid::IntId;

use super::tree::{Node, Tree};

/// What a GICv2 is called in trees.
pub(super) const GICV2: &[&str] = &[
    "arm,gic-400",
    "arm,cortex-a15-gic",
    "arm,cortex-a7-gic",
    "arm,cortex-a9-gic",
];
/// What a GICv3 or v4 is called in trees.
pub(super) const GICV3: &[&str] = &["arm,gic-v3"];

/// The three cells by which a device tree names an interrupt.
#[must_use]
pub const fn specifier(id: IntId, flags: u32) -> [u32; 3] {
    let kind = if id.is_private() { TYPE_PPI } else { TYPE_SPI };
    [kind, id.index(), flags]
}

/// When a line means an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Each rising edge.
    Edge,
    /// As long as it is asserted.
    Level,
}

/// An interrupt of a device on the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// Its number.
    pub id: IntId,
    /// How its line is to be configured.
    pub trigger: Trigger,
}

/// Specifier cell 0: shared.
const TYPE_SPI: u32 = 0;
/// Specifier cell 0: private.
const TYPE_PPI: u32 = 1;
/// Specifier cell 2: rising or falling edge.
const FLAG_EDGES: u32 = 0b0011;

/// No device we know has more interrupts than this; further ones are left out.
const MAX_INTERRUPTS: usize = 16;

/// All interrupts of a node, in its order; one that does not go to the GIC, or that we cannot read, is `None`.
///
/// `interrupts-extended` wins over `interrupts`; `interrupt-parent` is inherited.
#[must_use]
pub fn interrupts(tree: &Tree<'_>, node: &Node<'_>) -> Vec<Option<Interrupt>> {
    if let Some(list) = node.property("interrupts-extended") {
        return extended(tree, list.cells());
    }
    let Some(list) = node.property("interrupts") else {
        return Vec::new();
    };
    let parent = node
        .inherited("interrupt-parent")
        .and_then(|parent| tree.by_phandle(parent.u32()?));
    let Some((parent, width)) =
        parent.and_then(|parent| Some((parent.clone(), interrupt_cells(&parent)?)))
    else {
        return Vec::new();
    };
    let cells: Vec<u32> = list.cells().collect();
    cells
        .chunks_exact(width)
        .take(MAX_INTERRUPTS)
        .map(|specifier| decode(&parent, specifier))
        .collect()
}

/// Like [`interrupts`], but only the first.
#[must_use]
pub fn first(tree: &Tree<'_>, node: &Node<'_>) -> Option<Interrupt> {
    interrupts(tree, node).into_iter().next().flatten()
}

/// A list in which every specifier names its controller; it ends where a controller is unknown.
fn extended(tree: &Tree<'_>, mut cells: impl Iterator<Item = u32>) -> Vec<Option<Interrupt>> {
    let mut list = Vec::new();
    while list.len() < MAX_INTERRUPTS {
        let Some(phandle) = cells.next() else { break };
        let Some(parent) = tree.by_phandle(phandle) else {
            break;
        };
        let Some(width) = interrupt_cells(&parent) else {
            break;
        };
        let specifier: Vec<u32> = cells.by_ref().take(width).collect();
        if specifier.len() < width {
            break;
        }
        list.push(decode(&parent, &specifier));
    }
    list
}

/// Cells of a specifier of this controller; none has more than a few.
fn interrupt_cells(controller: &Node<'_>) -> Option<usize> {
    let cells = controller.property("#interrupt-cells")?.u32()?;
    (1..=8).contains(&cells).then_some(cells as usize)
}

/// A specifier of the GIC; the extended ranges of GICv3.1 (types 2 and 3) are not for us.
fn decode(controller: &Node<'_>, specifier: &[u32]) -> Option<Interrupt> {
    if !controller.is_compatible(GICV2) && !controller.is_compatible(GICV3) {
        return None;
    }
    let [kind, number, flags, ..] = *specifier else {
        return None;
    };
    let id = match kind {
        TYPE_SPI => IntId::try_spi(number)?,
        TYPE_PPI => IntId::try_ppi(number)?,
        _ => return None,
    };
    let trigger = if flags & FLAG_EDGES != 0 {
        Trigger::Edge
    } else {
        Trigger::Level
    };
    Some(Interrupt { id, trigger })
}
