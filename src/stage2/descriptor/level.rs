//! Levels of the walk, and what one descriptor of each stands for: 4 KiB granule.
//!
//! Source: DDI 0487 "Translation table lookup levels", "4KB translation granule".

use core::fmt;

use crate::addr::PAGE_SHIFT;

/// log2 of the entries in a table.
pub const ENTRY_BITS: u32 = 9;

/// A level of the walk, as the Arm ARM counts: 0 is the largest, 3 holds pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(Number);

/// The compiler knows that there are no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)] // a structure with it in has no holes, which would be copied one by one
enum Number {
    Zero,
    One,
    Two,
    Three,
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Level({})", self.number())
    }
}

impl Level {
    /// The last level.
    pub const LAST: Self = Self(Number::Three);

    /// Level `number`.
    ///
    /// # Panics
    /// Above 3.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self(match number {
            0 => Number::Zero,
            1 => Number::One,
            2 => Number::Two,
            3 => Number::Three,
            _ => panic!("levels are 0 to 3"),
        })
    }

    /// 0 to 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0 as u8
    }

    /// Bytes that one descriptor of this level stands for.
    #[must_use]
    pub const fn size(self) -> u64 {
        1 << self.shift()
    }

    /// The level at which a leaf stands for `size` bytes.
    ///
    /// # Panics
    /// If no leaf does.
    #[must_use]
    pub const fn of_size(size: u64) -> Self {
        let mut number = 1;
        while number <= 3 {
            if Self::new(number).size() == size {
                return Self::new(number);
            }
            number += 1;
        }
        panic!("leaves are of 4 KiB, 2 MiB or 1 GiB")
    }

    /// Pages of 4 KiB that one descriptor of this level stands for.
    #[must_use]
    pub const fn pages(self) -> u64 {
        1 << (self.shift() - PAGE_SHIFT)
    }

    /// Whether a leaf may lie here: pages at level 3, blocks of 2 MiB at 2 and of 1 GiB at 1.
    #[must_use]
    pub const fn has_leaves(self) -> bool {
        self.number() >= 1
    }

    /// Whether descriptors here are pages or nothing.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(self.0, Number::Three)
    }

    /// The next level down.
    ///
    /// # Panics
    /// On the last.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.number() + 1)
    }

    /// log2 of the bytes that one descriptor of this level stands for.
    #[must_use]
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + ENTRY_BITS * (3 - self.number() as u32)
    }

    /// Which descriptor of its table stands for the address `raw`.
    #[must_use]
    pub const fn index(self, raw: u64) -> usize {
        (raw >> self.shift()) as usize % (1 << ENTRY_BITS)
    }
}
