//! Modules: the kernels and ramdisks a description names.

use alloc::string::String;
use core::ops::Range;

use super::{ConfigError, Parser, Problem};
use crate::addr::{Pa, PaRange};
use crate::board::tree::Node;

/// The bytes of a module. They do not change for the life of their VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Module {
    /// In memory, where a boot loader put them.
    At(PaRange),
    /// In the very tree that describes the VM: offsets from its first byte.
    Inside(Range<usize>),
}

impl Module {
    /// Their physical address, for a description that lies at `tree`.
    #[must_use]
    pub fn range(&self, tree: Pa) -> Option<PaRange> {
        match self {
            Self::At(range) => Some(*range),
            Self::Inside(place) => {
                PaRange::new(tree.checked_add(place.start as u64)?, place.len() as u64)
            }
        }
    }

    /// Number of bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::At(range) => range.size,
            Self::Inside(place) => place.len() as u64,
        }
    }

    /// What modules are sorted by: their place.
    pub(super) fn start(&self) -> u64 {
        match self {
            Self::At(range) => range.start.raw(),
            Self::Inside(place) => place.start as u64,
        }
    }
}

/// What a module is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ModuleKind {
    Kernel,
    Ramdisk,
}

/// Properties a module may have.
const KNOWN: &[&str] = &[
    "compatible",
    "reg",
    "bootargs",
    "faultline,data",
    "faultline,pad",
    "status",
    "phandle",
];

/// What an enabled node is as a module; `None` if it is none.
///
/// # Errors
/// `Passthrough` for a kind that we cannot ignore without breaking what it describes.
pub(super) fn kind(
    parser: &Parser<'_, '_>,
    node: &Node<'_>,
) -> Result<Option<ModuleKind>, ConfigError> {
    if !node.is_enabled() {
        return Ok(None);
    }
    if node.is_compatible(&["multiboot,device-tree"]) {
        return Err(parser.error(node.name(), Problem::Passthrough));
    }
    if node.is_compatible(&["multiboot,kernel", "xen,linux-zimage"]) {
        return Ok(Some(ModuleKind::Kernel));
    }
    Ok(node
        .is_compatible(&["multiboot,ramdisk", "xen,linux-initrd"])
        .then_some(ModuleKind::Ramdisk))
}

/// The bytes of a module node; names in `ignored` what is not understood of it.
///
/// # Errors
/// `ModulePlace`, or `Unreadable` for a `reg` that is no address and size.
pub(super) fn module(
    parser: &Parser<'_, '_>,
    node: &Node<'_>,
    ignored: &mut alloc::vec::Vec<String>,
) -> Result<Module, ConfigError> {
    ignored.extend(
        node.property_names()
            .filter(|name| !KNOWN.contains(&name.as_str())),
    );
    match (node.property("faultline,data"), node.property("reg")) {
        (Some(data), None) => Ok(Module::Inside(parser.tree.place_of(&data))),
        (None, Some(_)) => {
            let range = address(node).and_then(|(start, size)| PaRange::new(Pa::new(start), size));
            range
                .map(Module::At)
                .ok_or_else(|| parser.error(node.name(), Problem::Unreadable("reg")))
        }
        _ => Err(parser.error(node.name(), Problem::ModulePlace)),
    }
}

/// Bytes of an address and a size of two cells each.
const WIDE_ENTRY: usize = 16;

/// Where a module lies in memory: no bus is between, whatever the nodes above say.
///
/// QEMU's `guest-loader` writes two cells for the size into a `/chosen` that does not say how many there are, where the
/// specification's default is one; the length of the value settles it.
fn address(node: &Node<'_>) -> Option<(u64, u64)> {
    let reg = node.property("reg")?;
    let said = node.parent()?.property("#size-cells").is_some();
    if !said && reg.bytes().len() == WIDE_ENTRY {
        return reg
            .entries([2, 2])?
            .first()
            .map(|[start, size]| (*start, *size));
    }
    node.untranslated_reg()?.first().copied()
}

/// The command line a node gives; `None` if it has none.
///
/// # Errors
/// `Unreadable` for one that is no single string.
pub(super) fn bootargs(
    parser: &Parser<'_, '_>,
    node: &Node<'_>,
    property: &'static str,
) -> Result<Option<String>, ConfigError> {
    let Some(value) = node.property(property) else {
        return Ok(None);
    };
    let text = value
        .string()
        .ok_or_else(|| parser.error(node.name(), Problem::Unreadable(property)))?;
    Ok(Some(String::from(text)))
}
