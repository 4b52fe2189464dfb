//! One type per address space, and the only arithmetic between addresses.
//!
//! An address never changes its space by accident: every conversion has a name. Arithmetic that a guest can
//! influence is checked; the rest asserts.
//!
//! Source: DDI 0487 "The AArch64 Virtual Memory System Architecture" for the terms.

use core::fmt;

/// log2 of the granule Faultline uses in both stages: 4 KiB.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page (the 4 KiB granule).
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// Pages of a window, which fault-around and the contiguous hint of a 4 KiB granule deal in.
pub const WINDOW_PAGES: usize = 16;
/// Bytes of a window: 64 KiB.
pub const WINDOW_SIZE: u64 = WINDOW_PAGES as u64 * PAGE_SIZE;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The address with this numeric value.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// Its numeric value.
            #[must_use]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// Rounded down to its page.
            #[must_use]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// Byte offset in its page.
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// Whether it is a multiple of `align`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0 & (align - 1) == 0
            }

            /// Rounded up to a multiple of `align`, a power of two; `None` past the top of the space.
            #[must_use]
            pub const fn align_up(self, align: u64) -> Option<Self> {
                match self.0.checked_add(align - 1) {
                    Some(sum) => Some(Self(sum & !(align - 1))),
                    None => None,
                }
            }

            /// `self + bytes`; `None` past the top of the space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// `self + bytes` for sums that cannot leave the space.
            ///
            /// # Panics
            /// If they do: that is a bug of ours, never a guest's doing.
            #[must_use]
            pub const fn add(self, bytes: u64) -> Self {
                match self.checked_add(bytes) {
                    Some(sum) => sum,
                    None => panic!("address arithmetic left the address space"),
                }
            }

            /// Bytes from `base` up to `self`; `None` if `self` lies below it.
            #[must_use]
            pub const fn offset_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A physical address (PA): the output of stage 2.
    Pa
}
address! {
    /// An intermediate physical address (IPA): what a guest takes for physical. An allegation until translated.
    Ipa
}
address! {
    /// A guest's virtual address: the input of its stage 1.
    Gva
}

/// A half-open range `[start, start + size)` in one address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Range<A> {
    /// First address.
    pub start: A,
    /// Size in bytes.
    pub size: u64,
}

/// A range of physical addresses.
pub type PaRange = Range<Pa>;
/// A range of intermediate physical addresses.
pub type IpaRange = Range<Ipa>;

macro_rules! range {
    ($addr:ident) => {
        impl Range<$addr> {
            /// `[start, start + size)`; `None` if it would leave the address space.
            #[must_use]
            pub const fn new(start: $addr, size: u64) -> Option<Self> {
                match start.checked_add(size) {
                    Some(_) => Some(Self { start, size }),
                    None => None,
                }
            }

            /// First address past the range.
            #[must_use]
            pub const fn end(&self) -> $addr {
                self.start.add(self.size)
            }

            /// Whether `at` lies inside.
            #[must_use]
            pub const fn contains(&self, at: $addr) -> bool {
                // Below the start it wraps to more than any range holds that does not leave the space.
                at.raw().wrapping_sub(self.start.raw()) < self.size
            }

            /// Whether the two share a byte.
            #[must_use]
            pub const fn overlaps(&self, other: &Self) -> bool {
                self.contains(other.start) && other.size != 0
                    || other.contains(self.start) && self.size != 0
            }

            /// The part both have, if any.
            #[must_use]
            pub fn intersect(&self, other: &Self) -> Option<Self> {
                let start = self.start.max(other.start);
                let end = self.end().min(other.end());
                let size = end.offset_from(start)?;
                (size != 0).then_some(Self { start, size })
            }

            /// Grown to whole pages at both ends.
            ///
            /// # Panics
            /// If the last page would end past the address space.
            #[must_use]
            pub fn to_pages(&self) -> Self {
                let start = self.start.page();
                let end = self
                    .end()
                    .align_up(PAGE_SIZE)
                    .expect("the last page ends inside the address space");
                Self {
                    start,
                    size: end.raw() - start.raw(),
                }
            }
        }

        impl fmt::Display for Range<$addr> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}..{:#x}", self.start.raw(), self.end().raw())
            }
        }
    };
}
range!(Pa);
range!(Ipa);

/// A size in bytes, shown in the largest binary unit that fits: `256 MiB`, `84 KiB`, `12 B`.
#[derive(Clone, Copy)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in UNITS {
            let whole = self.0 >> shift;
            if whole == 0 {
                continue;
            }
            let tenths = ((self.0 & ((1 << shift) - 1)) * 10) >> shift;
            return if tenths == 0 {
                write!(f, "{whole} {unit}")
            } else {
                write!(f, "{whole}.{tenths} {unit}")
            };
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_read_like_a_person_writes_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (4095, "3.9 KiB"),
            (4096, "4 KiB"),
            (256 << 20, "256 MiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(std::format!("{}", Size(bytes)), text);
        }
    }

    #[test]
    fn a_range_cannot_leave_the_address_space() {
        assert!(IpaRange::new(Ipa::new(u64::MAX), 1).is_none());
        assert!(IpaRange::new(Ipa::new(u64::MAX - 4), 4).is_some());
    }

    proptest! {
        #[test]
        fn intersection_is_exactly_the_common_bytes(a in 0u64..64, n in 0u64..64, b in 0u64..64, m in 0u64..64, probe in 0u64..160) {
            let x = PaRange::new(Pa::new(a), n).unwrap();
            let y = PaRange::new(Pa::new(b), m).unwrap();
            let probe = Pa::new(probe);
            let both = x.contains(probe) && y.contains(probe);
            prop_assert_eq!(both, x.intersect(&y).is_some_and(|r| r.contains(probe)));
            if both {
                prop_assert!(x.overlaps(&y));
            }
        }

        #[test]
        fn pages_cover_the_range_and_no_page_more(start in 0u64..1 << 40, size in 1u64..1 << 20) {
            let range = PaRange::new(Pa::new(start), size).unwrap();
            let pages = range.to_pages();
            prop_assert!(pages.start <= range.start && pages.end() >= range.end());
            prop_assert!(range.start.raw() - pages.start.raw() < PAGE_SIZE);
            prop_assert!(pages.end().raw() - range.end().raw() < PAGE_SIZE);
        }
    }
}
