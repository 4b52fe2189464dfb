//! What the board is, as its device tree says: one value, no machine.
//!
//! The only source of addresses and interrupt numbers of real hardware. [`Board::from_tree`] is total: a damaged tree
//! gives one line, never a panic, and nothing is guessed. It does not touch the hardware, and it knows no board by name.
//! The console can be had by itself ([`Console::from_tree`]), so that every other complaint has somewhere to go.
//!
//! Sources: Devicetree Specification 0.4, and the bindings that the modules below name.

mod chosen;
mod console;
mod cpu;
mod gic;
pub mod interrupt;
pub mod memory;
pub mod tree;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use chosen::Chosen;
pub use console::{Console, ConsoleKind};
pub use cpu::{Conduit, Cpu, EnableMethod, Mpidr};
pub use gic::{Gic, Redistributors, TimerInterrupts};
pub use memory::Reserved;

use crate::addr::{PAGE_SIZE, PaRange};
use tree::{Node, Tree};

/// A board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Board {
    /// What the tree calls it.
    pub model: String,
    /// RAM, sorted, without overlaps.
    pub ram: Vec<PaRange>,
    /// What in it belongs to somebody else.
    pub reserved: Vec<Reserved>,
    /// The UART to talk through.
    pub console: Console,
    /// The interrupt controller.
    pub gic: Gic,
    /// The generic timer's interrupts.
    pub timer: TimerInterrupts,
    /// The interrupt of each CPU's performance monitors, where it is private to the CPU.
    pub pmu: Option<interrupt::IntId>,
    /// The CPUs; the one that reads this is among them.
    pub cpus: Vec<Cpu>,
    /// How to call PSCI, if there is firmware that offers it.
    pub psci: Option<Conduit>,
    /// The Broadcom power-management watchdog, which can reset or halt a board without PSCI.
    pub watchdog: Option<PaRange>,
    /// A PL031 real-time clock.
    pub rtc: Option<PaRange>,
    /// What the boot loader chose.
    pub chosen: Chosen,
}

impl Board {
    /// Reads the whole board from its tree.
    ///
    /// # Errors
    /// The first thing that is missing or cannot be read, of those without which EL2 cannot run guests.
    pub fn from_tree(tree: &Tree<'_>) -> Result<Self, BoardError> {
        let console = Console::from_tree(tree)?;
        let cpus = cpu::cpus(tree)?;
        let mut reserved = memory::reserved(tree)?;
        reserved.extend(release_pages(&cpus));
        reserved.dedup();
        let range_of = |names| {
            tree.compatible(names)
                .and_then(|node| node.reg()?.into_iter().next())
        };
        Ok(Self {
            model: model(tree),
            ram: memory::banks(tree)?,
            reserved,
            console,
            gic: Gic::from_tree(tree)?,
            timer: TimerInterrupts::from_tree(tree)?,
            pmu: gic::pmu_interrupt(tree),
            cpus,
            psci: Conduit::from_tree(tree),
            watchdog: range_of(&["brcm,bcm2835-pm-wdt", "brcm,bcm2835-pm", "brcm,bcm2711-pm"]),
            rtc: range_of(&["arm,pl031"]),
            chosen: Chosen::from_tree(tree)?,
        })
    }

    /// Whole pages of RAM that are neither reserved nor in `taken` (image, device tree, modules).
    #[must_use]
    pub fn free_ram(&self, taken: &[PaRange]) -> Vec<PaRange> {
        let reserved = self.reserved.iter().map(|reserved| reserved.range);
        memory::free_ram(&self.ram, reserved.chain(taken.iter().copied()))
    }
}

/// The pages in which waiting CPUs look for their entry point, reserved by the tree or not.
fn release_pages(cpus: &[Cpu]) -> impl Iterator<Item = Reserved> + '_ {
    cpus.iter().filter_map(|cpu| match cpu.enable {
        EnableMethod::SpinTable { release } => Some(Reserved {
            range: PaRange::new(release.page(), PAGE_SIZE)?,
            no_map: false,
        }),
        EnableMethod::Psci | EnableMethod::Unknown => None,
    })
}

fn model(tree: &Tree<'_>) -> String {
    let root = tree.root();
    let name = root
        .property("model")
        .or_else(|| root.property("compatible"));
    String::from(
        name.and_then(|name| name.strings().next())
            .unwrap_or("unnamed board"),
    )
}

/// Why a tree does not describe a board EL2 can run on. One line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BoardError {
    /// No enabled memory node with RAM in it.
    NoMemory,
    /// No UART we can drive; the reason, if there was a candidate.
    NoConsole(String),
    /// No GICv2, v3 or v4.
    NoGic,
    /// A GIC without GICH and GICV, or without a maintenance interrupt.
    GicWithoutVirtualization {
        /// Path of the node.
        node: String,
    },
    /// No generic timer, or not all of its interrupts.
    NoTimer,
    /// No CPU.
    NoCpus,
    /// A property that cannot be read.
    Malformed {
        /// Path of the node.
        node: String,
        /// Name of the property.
        property: &'static str,
    },
}

impl BoardError {
    fn malformed(node: &Node<'_>, property: &'static str) -> Self {
        Self::Malformed {
            node: node.path(),
            property,
        }
    }
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name is whatever bytes the tree has: on the log it stays on its line.
        match self {
            Self::NoMemory => f.write_str("the device tree has no RAM"),
            Self::NoConsole(why) if why.is_empty() => {
                f.write_str("the device tree names no console")
            }
            Self::NoConsole(why) => write!(f, "no console: {}", why.escape_debug()),
            Self::NoGic => f.write_str("the device tree has no GICv2 or GICv3"),
            Self::GicWithoutVirtualization { node } => {
                write!(
                    f,
                    "{}: this GIC has no virtualization interface (on QEMU: -M virt,virtualization=on)",
                    node.escape_debug()
                )
            }
            Self::NoTimer => f.write_str(
                "the device tree has no generic timer with physical, virtual and EL2 interrupts",
            ),
            Self::NoCpus => f.write_str("the device tree has no CPUs"),
            Self::Malformed { node, property } => {
                write!(
                    f,
                    "device tree: {}: `{property}` cannot be read",
                    node.escape_debug()
                )
            }
        }
    }
}
