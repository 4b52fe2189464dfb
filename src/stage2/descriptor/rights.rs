//! What a guest may do to memory, as a set.

use core::fmt;

/// What a guest may do to a page.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(pub(super) u8);

impl Rights {
    /// All there is.
    pub const ALL: Self = Self(7);
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Loads.
    pub const READ: Self = Self(1);
    /// Stores.
    pub const WRITE: Self = Self(2);
    /// Instruction fetches at EL1 and EL0.
    pub const EXECUTE: Self = Self(4);

    /// One right: the first, second or third of these.
    #[must_use]
    pub const fn single(number: u8) -> Self {
        Self(1 << (number & 3))
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `need` is there.
    #[must_use]
    pub const fn allows(self, need: Self) -> bool {
        need.0 & !self.0 == 0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |right, letter| if self.allows(right) { letter } else { '-' };
        write!(
            f,
            "{}{}{}",
            letter(Self::READ, 'R'),
            letter(Self::WRITE, 'W'),
            letter(Self::EXECUTE, 'X')
        )
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
