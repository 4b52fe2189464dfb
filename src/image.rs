//! Kernels: what a module is, how it is unpacked, and where it goes in a guest's RAM.
//!
//! [`classify`] tells an arm64 `Image` from a raw binary from something that has to be converted first; [`gzip`] unpacks a
//! page at a time; [`place`] is the map of a guest's RAM at its start. All of it is arithmetic on bytes that nobody has
//! vouched for: whatever is wrong is one line, and what can be converted is named together with the command. Nothing is
//! copied here, and nothing is executed.
//!
//! Source: Linux `Documentation/arch/arm64/booting.rst`, sections 3 "Decompress the kernel image" and 4 "Call the kernel
//! image".

mod foreign;
pub mod gzip;
mod header;
mod placement;

use core::fmt;

pub use foreign::Foreign;
pub use header::{ImageHeader, PageSize};
pub use placement::{DoesNotFit, Placement, TREE_MAX, place};

/// Bytes at the start of a kernel that [`classify`] looks at; a shorter kernel is given whole.
pub const HEAD: usize = 1024;

/// A module that can be a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Starts with an arm64 `Image` header.
    Image(ImageHeader),
    /// Nothing we know: entered at its first byte.
    Raw,
    /// One of the others, compressed: classify again what comes out of it.
    Gzip,
}

/// What a module with these first bytes is.
///
/// # Errors
/// One line for what cannot be entered as it is.
pub fn classify(head: &[u8]) -> Result<Format, ImageError> {
    if head.is_empty() {
        return Err(ImageError::Empty);
    }
    if let Some(foreign) = foreign::recognise(head) {
        return Err(ImageError::Foreign(foreign));
    }
    if head.starts_with(&gzip::MAGIC) {
        return Ok(Format::Gzip);
    }
    match ImageHeader::parse(head) {
        None => Ok(Format::Raw),
        Some(header) if header.is_big_endian() => Err(ImageError::BigEndian),
        Some(header) if !header.text_offset().is_multiple_of(crate::addr::PAGE_SIZE) => {
            Err(ImageError::TextOffset(header.text_offset()))
        }
        Some(header) => Ok(Format::Image(header)),
    }
}

/// Why a module cannot be a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// No bytes at all.
    Empty,
    /// A format that is not entered as it is.
    Foreign(Foreign),
    /// An `Image` of a big-endian kernel: it would find its devices' registers byte-swapped.
    BigEndian,
    /// An `Image` whose text offset is no whole number of pages.
    TextOffset(u64),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the kernel is empty"),
            Self::Foreign(foreign) => write!(f, "the kernel is {foreign}"),
            Self::BigEndian => {
                f.write_str("the kernel is a big-endian Image; the devices are little-endian only")
            }
            Self::TextOffset(offset) => write!(
                f,
                "the kernel's text_offset {offset:#x} is no multiple of 4 KiB"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
