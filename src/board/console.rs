//! Which UART the board talks through.
//!
//! Sources: Devicetree Specification 0.4, "`/chosen` Node" and "`/aliases` node"; the `arm,pl011`, `brcm,bcm2835-aux-uart`,
//! `8250` and `snps,dw-apb-uart` bindings.

use alloc::format;
use alloc::string::String;

use super::BoardError;
use super::interrupt::{self, IntId};
use super::tree::{Node, Tree};
use crate::addr::{Pa, PaRange};

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

/// Bytes of registers that a console without a tree is taken to have: a page.
const EARLY_SIZE: u64 = 0x1000;

impl Console {
    /// The early console, as the slot in the image's header names it: `pl011,<address>` or
    /// `ns16550,<address>[,<reg-shift>[,<io-width>]]`, numbers as C writes them, NULs after it. It has no interrupt.
    #[must_use]
    pub fn from_slot(slot: &[u8]) -> Option<Self> {
        let text = slot.split(|byte| *byte == 0).next()?;
        let mut fields = core::str::from_utf8(text).ok()?.split(',');
        let name = fields.next()?;
        let start = Pa::new(number(fields.next()?)?);
        let kind = match name {
            "pl011" => ConsoleKind::Pl011,
            "ns16550" => {
                let mut field = |default| fields.next().map_or(Some(default), number);
                ns16550(field(0)?, field(1)?)?
            }
            _ => return None,
        };
        if fields.next().is_some() {
            return None;
        }
        Some(Self {
            kind,
            range: PaRange::new(start, EARLY_SIZE)?,
            interrupt: None,
        })
    }
}

/// Decimal, or hexadecimal after `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A 16550 whose registers can be told apart and accessed.
fn ns16550(reg_shift: u64, io_width: u64) -> Option<ConsoleKind> {
    let reg_shift = u32::try_from(reg_shift).ok().filter(|shift| *shift <= 3)?;
    let io_width = u32::try_from(io_width)
        .ok()
        .filter(|width| matches!(width, 1 | 2 | 4))?;
    Some(ConsoleKind::Ns16550 {
        reg_shift,
        io_width,
    })
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
            .map_or(default, u64::from)
    };
    if node.is_compatible(&["arm,pl011"]) {
        Some(ConsoleKind::Pl011)
    } else if node.is_compatible(&["brcm,bcm2835-aux-uart"]) {
        ns16550(cell("reg-shift", 2), cell("reg-io-width", 4))
    } else if node.is_compatible(&["ns16550a", "ns16550", "snps,dw-apb-uart"]) {
        ns16550(cell("reg-shift", 0), cell("reg-io-width", 1))
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
