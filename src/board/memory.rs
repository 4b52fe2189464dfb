//! The board's RAM: banks, what in them is not ours, and what is left.
//!
//! Sources: Devicetree Specification 0.4, "`/memory` node", "`/reserved-memory` Node", "Memory Reservation Block".

use alloc::string::String;
use alloc::vec::Vec;

use super::BoardError;
use super::tree::{Node, Tree};
use crate::addr::{PAGE_SIZE, Pa, PaRange};

/// Memory that belongs to somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// Where.
    pub range: PaRange,
    /// Not even to be mapped: speculation there may be fatal.
    pub no_map: bool,
}

/// All RAM of all enabled memory nodes, sorted, without overlaps or empty banks.
///
/// # Errors
/// `Malformed` for a `reg` that cannot be read, `NoMemory` if nothing is left.
pub(super) fn banks(tree: &Tree<'_>) -> Result<Vec<PaRange>, BoardError> {
    let root = tree.root();
    let mut banks = Vec::new();
    for node in root
        .children()
        .filter(|node| is_memory(node) && node.is_enabled())
    {
        banks.extend(
            node.reg()
                .ok_or_else(|| BoardError::malformed(&node, "reg"))?,
        );
    }
    let banks = union(banks);
    if banks.is_empty() {
        Err(BoardError::NoMemory)
    } else {
        Ok(banks)
    }
}

fn is_memory(node: &Node<'_>) -> bool {
    match node.property("device_type") {
        Some(kind) => kind.string() == Some("memory"),
        None => node.base_name() == "memory",
    }
}

/// Everything the tree asks us to keep off: reservation block, and `/reserved-memory` children that have a place.
///
/// A child with a `size` only asks for memory of our choice; it gets none, as nothing here would use it.
///
/// # Errors
/// `Malformed` for a `reg` that cannot be read: guessing might hand firmware's memory to a guest.
pub(super) fn reserved(tree: &Tree<'_>) -> Result<Vec<Reserved>, BoardError> {
    let mut list = Vec::new();
    for (start, size) in tree.memory_reservations() {
        let range = PaRange::new(Pa::new(start), size).ok_or(BoardError::Malformed {
            node: String::from("/"),
            property: "memreserve",
        })?;
        list.push(Reserved {
            range,
            no_map: false,
        });
    }
    let Some(parent) = tree.find("/reserved-memory") else {
        return Ok(list);
    };
    for node in parent.children().filter(Node::is_enabled) {
        if node.property("reg").is_none() {
            continue;
        }
        let no_map = node.property("no-map").is_some();
        let ranges = untranslated(&node).ok_or_else(|| BoardError::malformed(&node, "reg"))?;
        list.extend(ranges.into_iter().map(|range| Reserved { range, no_map }));
    }
    Ok(list)
}

/// `reg` as addresses in memory: no bus lies between, whether the node above has `ranges` or forgot them.
fn untranslated(node: &Node<'_>) -> Option<Vec<PaRange>> {
    let entries = node.untranslated_reg()?;
    entries
        .into_iter()
        .map(|(start, size)| PaRange::new(Pa::new(start), size))
        .collect()
}

/// The ranges of `list`, sorted, merged where they touch or overlap, empty ones dropped.
#[must_use]
pub fn union(list: impl IntoIterator<Item = PaRange>) -> Vec<PaRange> {
    let mut list: Vec<PaRange> = list.into_iter().filter(|range| range.size != 0).collect();
    list.sort_unstable();
    let mut merged: Vec<PaRange> = Vec::with_capacity(list.len());
    for range in list {
        match merged.last_mut() {
            Some(last) if range.start <= last.end() => {
                let end = last.end().max(range.end());
                last.size = end.raw() - last.start.raw();
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The whole pages of `banks` of which no byte is in `taken`: sorted, disjoint, none empty.
///
/// Pure set arithmetic: banks may overlap and come in any order, and so may what is taken.
#[must_use]
pub fn free_ram(banks: &[PaRange], taken: impl IntoIterator<Item = PaRange>) -> Vec<PaRange> {
    let taken = union(taken);
    let mut free = Vec::new();
    for bank in union(banks.iter().copied()) {
        let mut start = bank.start;
        for hole in taken.iter().filter(|hole| hole.overlaps(&bank)) {
            free.extend(whole_pages(start, hole.start));
            start = hole.end();
        }
        free.extend(whole_pages(start, bank.end()));
    }
    free
}

/// `[start, end)` shrunk to whole pages; `None` if there is none.
fn whole_pages(start: Pa, end: Pa) -> Option<PaRange> {
    let start = start.align_up(PAGE_SIZE)?;
    let size = end.page().offset_from(start)?;
    (size != 0).then_some(PaRange { start, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, size: u64) -> PaRange {
        PaRange::new(Pa::new(start), size).unwrap()
    }

    #[test]
    fn a_page_with_one_reserved_byte_is_not_free() {
        let free = free_ram(&[range(0x4000_0000, 0x4000)], [range(0x4000_1fff, 1)]);
        assert_eq!(
            free,
            [range(0x4000_0000, 0x1000), range(0x4000_2000, 0x2000)]
        );
    }

    #[test]
    fn ram_up_to_the_last_address_does_not_overflow() {
        let top = u64::MAX - 0x2000;
        assert_eq!(
            free_ram(&[range(top, 0x2000)], []),
            [range(u64::MAX - 0x1fff, 0x1000)]
        );
    }

    proptest! {
        /// Oracle: a bit per byte of a small address space.
        #[test]
        fn a_page_is_free_exactly_if_all_of_it_is_ram_and_none_of_it_taken(
            banks in prop::collection::vec((0u64..0x1_2000, 0u64..0x8000), 0..4),
            taken in prop::collection::vec((0u64..0x1_2000, 0u64..0x3000), 0..6),
        ) {
            const SPACE: usize = 0x1_b000;
            let mut usable = [false; SPACE];
            for (start, size) in &banks {
                usable[*start as usize..(start + size) as usize].fill(true);
            }
            for (start, size) in &taken {
                usable[*start as usize..(start + size) as usize].fill(false);
            }
            let banks: Vec<_> = banks.into_iter().map(|(start, size)| range(start, size)).collect();
            let free = free_ram(&banks, taken.into_iter().map(|(start, size)| range(start, size)));
            for (page, bytes) in usable.chunks(4096).enumerate() {
                let here = range(page as u64 * 4096, 4096);
                let listed = free.iter().filter(|range| range.overlaps(&here)).count();
                prop_assert_eq!(listed, usize::from(bytes.len() == 4096 && bytes.iter().all(|byte| *byte)));
            }
            for pair in free.windows(2) {
                prop_assert!(pair[0].end() <= pair[1].start);
            }
            prop_assert!(free.iter().all(|range| range.size != 0 && range.start.is_aligned(PAGE_SIZE)));
        }
    }
}
