//! Property values and the shapes they may have.
//!
//! Source: Devicetree Specification 0.4, "Property Values".

use alloc::vec::Vec;

/// Bytes of a cell.
const CELL: usize = 4;

/// The value of a property: bytes, and the shapes they may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Exactly one cell.
    #[must_use]
    pub fn u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.0.try_into().ok()?))
    }

    /// One cell or two.
    #[must_use]
    pub fn u64(&self) -> Option<u64> {
        match self.0.len() {
            CELL => self.u32().map(u64::from),
            _ => Some(u64::from_be_bytes(self.0.try_into().ok()?)),
        }
    }

    /// Exactly one string, without its NUL.
    #[must_use]
    pub fn string(&self) -> Option<&'a str> {
        let (nul, text) = self.0.split_last()?;
        if *nul != 0 || text.contains(&0) {
            return None;
        }
        core::str::from_utf8(text).ok()
    }

    /// Its strings; the first one that is none ends the list.
    pub fn strings(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let bytes = self.0.strip_suffix(&[0]).unwrap_or_default();
        bytes
            .split(|byte| *byte == 0)
            .map_while(|text| core::str::from_utf8(text).ok())
    }

    /// Its cells; bytes beyond the last whole cell are left out.
    pub fn cells(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        self.0
            .as_chunks::<CELL>()
            .0
            .iter()
            .map(|cell| u32::from_be_bytes(*cell))
    }

    /// Tuples of numbers of `widths` cells each (0 to 2; a number of no cells is 0); `None` unless they fill the value.
    #[must_use]
    pub fn entries<const N: usize>(&self, widths: [usize; N]) -> Option<Vec<[u64; N]>> {
        let width: usize = widths.iter().sum();
        if width == 0 || !self.0.len().is_multiple_of(width * CELL) {
            return None;
        }
        let mut cells = self.cells();
        let count = self.0.len() / (width * CELL);
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(widths.map(|width| {
                (0..width).fold(0, |number, _| {
                    (number << 32) | u64::from(cells.next().unwrap_or_default())
                })
            }));
        }
        Some(entries)
    }
}
