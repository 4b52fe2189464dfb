//! Interrupt numbers of the GIC: one type for the board's and for the guest's.
//!
//! Source: IHI 0069 "INTIDs".

use core::fmt;

/// An interrupt's number: 0 to 15 SGIs, 16 to 31 PPIs, 32 to 1019 SPIs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct IntId(u32);

/// The first INTID that is a PPI.
const PPI_BASE: u32 = 16;
/// The first INTID that is an SPI.
const SPI_BASE: u32 = 32;
/// The first INTID past the SPIs: those above have special meanings.
const SPI_END: u32 = 1020;

impl IntId {
    /// The interrupt with this number.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// Software-generated interrupt `n`, 0 to 15.
    #[must_use]
    pub const fn sgi(n: u32) -> Self {
        Self(n)
    }

    /// Private peripheral interrupt `n`, 0 to 15: INTID 16 to 31.
    #[must_use]
    pub const fn ppi(n: u32) -> Self {
        Self(PPI_BASE + n)
    }

    /// Shared peripheral interrupt `n`, 0 to 987: INTID from 32.
    #[must_use]
    pub const fn spi(n: u32) -> Self {
        Self(SPI_BASE + n)
    }

    /// PPI `n` of somebody who may be wrong; `None` beyond 15.
    #[must_use]
    pub const fn try_ppi(n: u32) -> Option<Self> {
        if n < SPI_BASE - PPI_BASE {
            Some(Self::ppi(n))
        } else {
            None
        }
    }

    /// SPI `n` of somebody who may be wrong; `None` beyond 987.
    #[must_use]
    pub const fn try_spi(n: u32) -> Option<Self> {
        if n < SPI_END - SPI_BASE {
            Some(Self::spi(n))
        } else {
            None
        }
    }

    /// Its number.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Whether each CPU has one of its own.
    #[must_use]
    pub const fn is_private(self) -> bool {
        self.0 < SPI_BASE
    }

    /// Its number among its kind: SPI 1 is 1.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self.0 {
            0..PPI_BASE => self.0,
            PPI_BASE..SPI_BASE => self.0 - PPI_BASE,
            _ => self.0 - SPI_BASE,
        }
    }
}

impl fmt::Display for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            0..PPI_BASE => "SGI",
            PPI_BASE..SPI_BASE => "PPI",
            _ => "SPI",
        };
        write!(f, "{kind} {}", self.index())
    }
}
