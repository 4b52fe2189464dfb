//! What guest memory holds when it is touched for the first time.
//!
//! A kernel, a ramdisk and a device tree are not loaded: they are *content* of IPA ranges, and a page gets its share when
//! it is taken. What no content covers is zero.

use alloc::vec::Vec;

use crate::addr::{IpaRange, PAGE_SIZE, Pa, PaRange};
use crate::machine::Machine;
use crate::page_pool::{OwnedPage, PagePool};

/// Where bytes come from.
pub enum Source {
    /// Memory that the boot loader filled and nobody changes.
    Memory(Pa),
    /// Pages of the pool in order, filled by us: an inflated kernel.
    Pages(Vec<OwnedPage>),
    /// The heap: a device tree made for this VM.
    Bytes(Vec<u8>),
}

/// Bytes for one IPA range.
pub struct Content {
    range: IpaRange,
    source: Source,
}

impl Content {
    /// The content of `range`.
    #[must_use]
    pub const fn new(range: IpaRange, source: Source) -> Self {
        Self { range, source }
    }

    /// Where it lies.
    #[must_use]
    pub const fn range(&self) -> IpaRange {
        self.range
    }

    /// The memory in which the bytes of `leaf` lie just as a leaf of that size needs them: all of it this content's, in one
    /// piece, aligned to its size. Such memory can be lent to a guest, as it is.
    #[must_use]
    pub fn in_place(&self, leaf: IpaRange) -> Option<PaRange> {
        let from = leaf.start.raw().checked_sub(self.range.start.raw())?;
        if self.range.size.checked_sub(from)? < leaf.size {
            return None;
        }
        let start = match &self.source {
            Source::Memory(base) => base.checked_add(from)?,
            Source::Pages(pages) if leaf.size == PAGE_SIZE && from.is_multiple_of(PAGE_SIZE) => {
                pages.get((from / PAGE_SIZE) as usize)?.pa()
            }
            Source::Pages(_) | Source::Bytes(_) => return None,
        };
        start.is_aligned(leaf.size).then_some(PaRange {
            start,
            size: leaf.size,
        })
    }

    /// Copies what falls into `leaf`, a page or a block of the guest's, into the memory at `memory`.
    pub fn fill<M: Machine>(&self, m: &mut M, leaf: IpaRange, memory: Pa) {
        let Some(part) = self.range.intersect(&leaf) else {
            return;
        };
        let from = part.start.raw() - self.range.start.raw();
        let to = memory.add(part.start.raw() - leaf.start.raw());
        match &self.source {
            Source::Memory(base) => m.copy(
                PaRange {
                    start: base.add(from),
                    size: part.size,
                },
                to,
            ),
            Source::Pages(pages) => copy_pages(m, pages, from, part.size, to),
            Source::Bytes(bytes) => m.write(to, &bytes[from as usize..(from + part.size) as usize]),
        }
    }

    /// Pages of the pool it holds.
    #[must_use]
    pub fn page_count(&self) -> usize {
        match &self.source {
            Source::Pages(pages) => pages.len(),
            Source::Memory(_) | Source::Bytes(_) => 0,
        }
    }

    /// Gives the pages it holds back.
    pub fn give_back(self, pool: &PagePool) {
        if let Source::Pages(pages) = self.source {
            pages.into_iter().for_each(|page| pool.give(page));
        }
    }
}

/// Copies `size` bytes at `from` of a row of pages.
fn copy_pages<M: Machine>(
    m: &mut M,
    pages: &[OwnedPage],
    mut from: u64,
    mut size: u64,
    mut to: Pa,
) {
    while size != 0 {
        let page = &pages[(from / PAGE_SIZE) as usize];
        let offset = from % PAGE_SIZE;
        let now = size.min(PAGE_SIZE - offset);
        m.copy(
            PaRange {
                start: page.pa().add(offset),
                size: now,
            },
            to,
        );
        (from, size, to) = (from + now, size - now, to.add(now));
    }
}
