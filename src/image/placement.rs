//! Where everything lies in a guest's RAM when it starts.
//!
//! `docs/guest-platform.md` says the same to people. Sources: Linux `Documentation/arch/arm64/booting.rst`, section 4;
//! QEMU's and U-Boot's habits for what has no header.

use core::fmt;

use super::ImageHeader;
use crate::addr::{Ipa, IpaRange, Size};

/// Most bytes a guest's device tree can have: what lies between RAM base and a raw binary.
pub const TREE_MAX: u64 = RAW_OFFSET;

/// A raw binary's distance from RAM base.
const RAW_OFFSET: u64 = 0x8_0000;

/// What an `Image`'s text offset counts from, and what a ramdisk is aligned to.
const ALIGN: u64 = 2 << 20;

/// Where a guest's parts lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// First byte of the device tree, at most [`TREE_MAX`] long; also `x0` at entry.
    pub tree: Ipa,
    /// The kernel's bytes; entered at the first of them.
    pub kernel: IpaRange,
    /// The ramdisk's bytes.
    pub ramdisk: Option<IpaRange>,
}

/// Places a kernel of `size` bytes (unpacked), with a header or raw, and a ramdisk of so many bytes into `ram`.
///
/// # Errors
/// [`DoesNotFit`], with all sizes.
pub fn place(
    ram: IpaRange,
    header: Option<&ImageHeader>,
    size: u64,
    ramdisk: Option<u64>,
) -> Result<Placement, DoesNotFit> {
    let offset = match header {
        Some(header) => ALIGN.checked_add(header.text_offset()),
        None => Some(RAW_OFFSET),
    };
    let footprint = header.map_or(size, |header| header.footprint(size));
    let misfit = DoesNotFit {
        ram: ram.size,
        kernel_offset: offset,
        footprint,
        ramdisk,
    };
    let kernel = offset
        .and_then(|offset| within(ram, ram.start.checked_add(offset)?, footprint))
        .ok_or(misfit)?;
    let at_end = header.is_some_and(ImageHeader::is_old);
    let ramdisk = match ramdisk {
        Some(bytes) => Some(place_ramdisk(ram, kernel, bytes, at_end).ok_or(misfit)?),
        None => None,
    };
    Ok(Placement {
        tree: ram.start,
        kernel: IpaRange {
            start: kernel.start,
            size,
        },
        ramdisk,
    })
}

/// At the next boundary after the kernel, or, for a kernel that wants all memory after it, at the last there is.
fn place_ramdisk(ram: IpaRange, kernel: IpaRange, size: u64, at_end: bool) -> Option<IpaRange> {
    let first = kernel.end().align_up(ALIGN)?;
    let start = if at_end {
        let last = Ipa::new(ram.end().raw().checked_sub(size)? & !(ALIGN - 1));
        (last >= first).then_some(last)?
    } else {
        first
    };
    within(ram, start, size)
}

/// The range, if all of it is RAM.
fn within(ram: IpaRange, start: Ipa, size: u64) -> Option<IpaRange> {
    let range = IpaRange::new(start, size)?;
    (range.start >= ram.start && range.end() <= ram.end()).then_some(range)
}

/// A guest with too little RAM for what it is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoesNotFit {
    /// Its RAM, in bytes.
    pub ram: u64,
    /// How far from its start the kernel goes; `None`: farther than any address.
    pub kernel_offset: Option<u64>,
    /// Bytes the kernel needs from there on.
    pub footprint: u64,
    /// Bytes of the ramdisk.
    pub ramdisk: Option<u64>,
}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = Size(self.kernel_offset.unwrap_or(u64::MAX));
        write!(
            f,
            "{} of RAM are too little: the kernel needs {}, {offset} above the start",
            Size(self.ram),
            Size(self.footprint)
        )?;
        match self.ramdisk {
            Some(bytes) => write!(f, ", and its ramdisk {}", Size(bytes)),
            None => Ok(()),
        }
    }
}
