//! Which UART the board talks through.
//!
//! Sources: Devicetree Specification 0.4, "`/chosen` Node" and "`/aliases` node"; the `arm,pl011`, `brcm,bcm2835-aux-uart`,
//! `8250` and `snps,dw-apb-uart` bindings.

use alloc::format;
use alloc::string::String;

use super::BoardError;
use super::interrupt::{self, IntId};
use super::tree::{Node, Tree};
use crate::addr::PaRange;

/// The register model of a UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleKind {
    /// Arm PL011.
    Pl011,
    /// National Semiconductor 16550 and its kin.
    Ns16550 {
        /// log2 of the distance between two registers, in bytes.
        reg_shift: u32,
        /// Bytes of one register access: 1, 2 or 4.
        io_width: u32,
    },
}

/// The UART to talk through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Console {
    /// Its register model.
    pub kind: ConsoleKind,
    /// Its registers.
    pub range: PaRange,
    /// Its interrupt, if it goes to the GIC.
    pub interrupt: Option<IntId>,
}

impl Console {
    /// The console the tree asks for: `/chosen/stdout-path`, else `/chosen/linux,stdout-path`, else the alias `serial0`;
    /// the first of these that leads to an enabled UART with a driver.
    ///
    /// # Errors
    /// `NoConsole` with the reason the first of them had.
    pub fn from_tree(tree: &Tree<'_>) -> Result<Self, BoardError> {
        let chosen = tree.find("/chosen");
        let named = |property| {
            chosen
                .as_ref()
                .and_then(|chosen| chosen.property(property)?.string())
        };
        let candidates = [
            named("stdout-path"),
            named("linux,stdout-path"),
            Some("serial0"),
        ];
        let mut reason = None;
        for name in candidates.into_iter().flatten() {
            match uart(tree, name) {
                Ok(console) => return Ok(console),
                Err(why) => reason = reason.or(Some(why)),
            }
        }
        Err(BoardError::NoConsole(reason.unwrap_or_default()))
    }
}

/// The UART that an alias or path names, or why not.
fn uart(tree: &Tree<'_>, name: &str) -> Result<Console, String> {
    let node = tree
        .resolve(name)
        .ok_or_else(|| format!("`{name}` names no node"))?;
    let path = node.path();
    if !node.is_enabled() {
        return Err(format!("{path} is disabled"));
    }
    let kind = kind(&node).ok_or_else(|| {
        let compatible = node
            .property("compatible")
            .and_then(|list| list.strings().next());
        format!(
            "{path} is a `{}`, for which there is no driver",
            compatible.unwrap_or("?")
        )
    })?;
    let range = node
        .reg()
        .and_then(|reg| reg.into_iter().next())
        .filter(|range| range.size != 0);
    let range = range.and_then(|range| skip(range, register_offset(&node)));
    let range = range.ok_or_else(|| format!("{path} has no address a CPU reaches"))?;
    let interrupt = interrupt::first(tree, &node).map(|interrupt| interrupt.id);
    Ok(Console {
        kind,
        range,
        interrupt,
    })
}

fn kind(node: &Node<'_>) -> Option<ConsoleKind> {
    let cell = |name, default| {
        node.property(name)
            .and_then(|value| value.u32())
            .unwrap_or(default)
    };
    let ns16550 = |shift, width| {
        let (reg_shift, io_width) = (cell("reg-shift", shift), cell("reg-io-width", width));
        let sound = reg_shift <= 3 && matches!(io_width, 1 | 2 | 4);
        sound.then_some(ConsoleKind::Ns16550 {
            reg_shift,
            io_width,
        })
    };
    if node.is_compatible(&["arm,pl011"]) {
        Some(ConsoleKind::Pl011)
    } else if node.is_compatible(&["brcm,bcm2835-aux-uart"]) {
        ns16550(2, 4)
    } else if node.is_compatible(&["ns16550a", "ns16550", "snps,dw-apb-uart"]) {
        ns16550(0, 1)
    } else {
        None
    }
}

/// Where in `reg` the first register is, for 16550s that say so.
fn register_offset(node: &Node<'_>) -> u64 {
    node.property("reg-offset")
        .and_then(|value| value.u32())
        .map_or(0, u64::from)
}

fn skip(range: PaRange, bytes: u64) -> Option<PaRange> {
    let size = range.size.checked_sub(bytes).filter(|size| *size != 0)?;
    Some(PaRange {
        start: range.start.checked_add(bytes)?,
        size,
    })
}
