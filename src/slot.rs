//! Slots: what lies where in a VM's IPA space.
//!
//! Sorted, page aligned, never overlapping. An IPA in no slot is nothing, and a guest that touches nothing gets an abort.

use alloc::vec::Vec;

use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa};
use crate::stage2::Rights;

/// What a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Guest memory, empty until touched, with the rights that the guest can have there at most.
    Ram(Rights),
    /// A device model answers each access. The number is the VM's own name for it.
    Device(u8),
    /// A hardware window, mapped page by page when touched: the GICV of a GICv2.
    Window(Pa),
}

/// A window of a VM's IPA space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Where.
    pub range: IpaRange,
    /// What.
    pub kind: Kind,
}

impl Slot {
    /// The rights that the guest can have there at most: none where it is not RAM.
    #[must_use]
    #[inline]
    pub const fn rights(&self) -> Rights {
        match self.kind {
            Kind::Ram(most) => most,
            Kind::Device(_) | Kind::Window(_) => Rights::NONE,
        }
    }
}

/// Why a slot was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotError {
    /// Empty, or not whole pages.
    NotPages,
    /// It shares bytes with this one.
    Overlaps(IpaRange),
}

/// All slots of a VM.
#[derive(Default, Debug)]
pub struct Slots {
    sorted: Vec<Slot>,
}

impl Slots {
    /// Adds a slot.
    ///
    /// # Errors
    /// [`SlotError`]; nothing is added then.
    pub fn add(&mut self, slot: Slot) -> Result<(), SlotError> {
        if slot.range.size == 0
            || !slot.range.start.is_aligned(PAGE_SIZE)
            || !slot.range.size.is_multiple_of(PAGE_SIZE)
        {
            return Err(SlotError::NotPages);
        }
        if let Some(other) = self
            .sorted
            .iter()
            .find(|other| other.range.overlaps(&slot.range))
        {
            return Err(SlotError::Overlaps(other.range));
        }
        let place = self
            .sorted
            .partition_point(|other| other.range.start < slot.range.start);
        self.sorted.insert(place, slot);
        Ok(())
    }

    /// Adds RAM that has all rights but where `rom` takes W and `xn` takes X: one slot for each piece of equal rights.
    ///
    /// # Errors
    /// [`SlotError`] of the first piece that cannot be added.
    pub fn add_ram(
        &mut self,
        ram: IpaRange,
        rom: &[IpaRange],
        xn: &[IpaRange],
    ) -> Result<(), SlotError> {
        let most_at = |ipa: Ipa| {
            let lies_in = |ranges: &[IpaRange]| ranges.iter().any(|range| range.contains(ipa));
            let without = |rights: Rights, other, is_taken| match is_taken {
                true => rights.without(other),
                false => rights,
            };
            let rights = without(Rights::ALL, Rights::WRITE, lies_in(rom));
            without(rights, Rights::EXECUTE, lies_in(xn))
        };
        let mut at = ram.start;
        while at < ram.end() {
            let most = most_at(at);
            let edges = rom
                .iter()
                .chain(xn)
                .flat_map(|range| [range.start, range.end()]);
            let is_change = |edge: &Ipa| *edge > at && *edge < ram.end() && most_at(*edge) != most;
            let end = edges.filter(is_change).min().unwrap_or(ram.end());
            self.add(Slot {
                range: IpaRange {
                    start: at,
                    size: end.raw() - at.raw(),
                },
                kind: Kind::Ram(most),
            })?;
            at = end;
        }
        Ok(())
    }

    /// The slot that holds `ipa`.
    #[must_use]
    #[inline]
    pub fn find(&self, ipa: Ipa) -> Option<&Slot> {
        // From above: RAM lies highest, and is what is asked for most.
        self.sorted
            .iter()
            .rfind(|slot| slot.range.start <= ipa)
            .filter(|slot| slot.range.contains(ipa))
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.sorted.iter()
    }

    /// The highest IPA in any slot; 0 without slots.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.sorted
            .last()
            .map_or(0, |slot| slot.range.end().raw() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot(page: u64, pages: u64) -> Slot {
        Slot {
            range: IpaRange::new(Ipa::new(page << 12), pages << 12).unwrap(),
            kind: Kind::Ram(Rights::ALL),
        }
    }

    #[test]
    fn empty_and_ragged_slots_are_refused() {
        let mut slots = Slots::default();
        assert_eq!(slots.add(slot(1, 0)), Err(SlotError::NotPages));
        let ragged = Slot {
            range: IpaRange::new(Ipa::new(0x800), 0x1000).unwrap(),
            kind: Kind::Ram(Rights::ALL),
        };
        assert_eq!(slots.add(ragged), Err(SlotError::NotPages));
    }

    fn range(page: u64, pages: u64) -> IpaRange {
        IpaRange::new(Ipa::new(page << 12), pages << 12).unwrap()
    }

    #[test]
    fn ram_is_cut_where_its_rights_change_and_nowhere_else() {
        let (rom, xn) = ([range(4, 4), range(8, 2)], [range(6, 10)]);
        let mut slots = Slots::default();
        slots.add_ram(range(0, 16), &rom, &xn).unwrap();
        let pieces: Vec<(u64, u64, Kind)> = slots
            .iter()
            .map(|slot| {
                (
                    slot.range.start.raw() >> 12,
                    slot.range.size >> 12,
                    slot.kind,
                )
            })
            .collect();
        let ram = |rights| Kind::Ram(rights);
        let (read, write, execute) = (Rights::READ, Rights::WRITE, Rights::EXECUTE);
        assert_eq!(
            pieces,
            [
                (0, 4, ram(Rights::ALL)),
                (4, 2, ram(read.with(execute))),
                (6, 4, ram(read)),
                (10, 6, ram(read.with(write))),
            ]
        );
    }

    proptest! {
        #[test]
        fn every_page_of_ram_has_the_rights_that_are_left(
            rom in proptest::collection::vec((0u64..40, 1u64..12), 0..4), xn in proptest::collection::vec((0u64..40, 1u64..12), 0..4),
        ) {
            let ranges = |pairs: &[(u64, u64)]| pairs.iter().map(|(page, pages)| range(*page, *pages)).collect::<Vec<_>>();
            let mut slots = Slots::default();
            slots.add_ram(range(8, 24), &ranges(&rom), &ranges(&xn)).unwrap();
            for page in 0..64u64 {
                let found = slots.find(Ipa::new(page << 12)).map(|slot| slot.kind);
                let lies_in = |pairs: &[(u64, u64)]| pairs.iter().any(|(start, pages)| (*start..start + pages).contains(&page));
                let mut most = Rights::READ;
                if !lies_in(&rom) {
                    most = most.with(Rights::WRITE);
                }
                if !lies_in(&xn) {
                    most = most.with(Rights::EXECUTE);
                }
                prop_assert_eq!(found, (8..32).contains(&page).then_some(Kind::Ram(most)));
            }
        }

        #[test]
        fn find_agrees_with_a_search_through_all(adds in proptest::collection::vec((0u64..64, 1u64..8), 0..20), probe in 0u64..80) {
            let mut slots = Slots::default();
            let mut kept: Vec<Slot> = Vec::new();
            for (page, pages) in adds {
                let new = slot(page, pages);
                let free = kept.iter().all(|old| !old.range.overlaps(&new.range));
                prop_assert_eq!(slots.add(new).is_ok(), free);
                if free {
                    kept.push(new);
                }
            }
            let ipa = Ipa::new((probe << 12) + 0x123);
            prop_assert_eq!(slots.find(ipa), kept.iter().find(|slot| slot.range.contains(ipa)));
        }
    }
}
