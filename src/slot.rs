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

    /// The slot that holds `ipa`.
    #[must_use]
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

    proptest! {
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
