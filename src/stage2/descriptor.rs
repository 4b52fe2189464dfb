//! One 64-bit stage-2 descriptor, as the hardware sees it and as a value with names.
//!
//! Source: DDI 0487 "VMSAv8-64 translation table format descriptors", "Stage 2 attribute fields in Block and Page
//! descriptors".

mod level;
mod rights;

pub use level::{ENTRY_BITS, Level};
pub use rights::Rights;

use core::fmt;

use tock_registers::LocalRegisterCopy;

use crate::addr::Pa;

/// Bit positions, named as in the manual.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the names are the manual's"
)]
mod bits {
    use tock_registers::register_bitfields;

    register_bitfields! { u64,
        /// A descriptor of stage 2, 4 KiB granule.
        pub STAGE2 [
            VALID OFFSET(0) NUMBITS(1) [],
            TABLE_OR_PAGE OFFSET(1) NUMBITS(1) [],
            MEMATTR OFFSET(2) NUMBITS(4) [
                DeviceNGnRE = 0b0001,
                // FEAT_S2FWB off: outer and inner Write-Back. On: 0b0110 forces Write-Back whatever stage 1 says.
                NormalWriteBack = 0b1111,
                ForcedWriteBack = 0b0110
            ],
            S2AP_READ OFFSET(6) NUMBITS(1) [],
            S2AP_WRITE OFFSET(7) NUMBITS(1) [],
            SH OFFSET(8) NUMBITS(2) [InnerShareable = 3],
            AF OFFSET(10) NUMBITS(1) [],
            OA OFFSET(12) NUMBITS(36) [],
            /// Dirty Bit Modifier (FEAT_HAFDBS): a store to a leaf without S2AP write makes the hardware set it.
            DBM OFFSET(51) NUMBITS(1) [],
            /// One of 16 that a TLB may keep as one.
            CONTIGUOUS OFFSET(52) NUMBITS(1) [],
            // One bit does for both exception levels, with FEAT_XNX and without: 0b00 executes, 0b10 does not.
            XN OFFSET(53) NUMBITS(2) [ExecuteAll = 0b00, ExecuteNone = 0b10],
            /// Software: the memory belongs to this tree and goes back to the pool when it is destroyed.
            OWNED OFFSET(55) NUMBITS(1) []
        ]
    }
}
use bits::STAGE2;

/// The memory type of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// Normal, Write-Back, Inner Shareable. With `forced`, stage 1 cannot weaken it (FEAT_S2FWB).
    Normal {
        /// FEAT_S2FWB is on.
        forced: bool,
    },
    /// Device-nGnRE: a hardware window the guest may touch directly.
    Device,
}

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Valid bit clear.
    Invalid,
    /// Points to the next level's table.
    Table(Pa),
    /// A page or a block.
    Leaf(Pa, Rights),
}

/// A descriptor's 64 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Descriptor(u64);

type Bits = LocalRegisterCopy<u64, STAGE2::Register>;

impl Descriptor {
    /// All zero: nothing is mapped.
    pub const INVALID: Self = Self(0);
    /// Invalid for the hardware, taken for the software: a leaf is being broken and made again.
    pub const LOCKED: Self = Self(1 << 56);

    /// The descriptor with these bits.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Its bits.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// A table descriptor. At stage 2 it carries no rights.
    #[must_use]
    pub fn table(table: Pa) -> Self {
        Self((STAGE2::VALID::SET + STAGE2::TABLE_OR_PAGE::SET).value | address_bits(table))
    }

    /// A page or block descriptor for `level`, access flag set. `owned`: the memory goes back to the pool with the tree.
    ///
    /// # Panics
    /// At a level without leaves, or for an address that is not aligned to the leaf's size.
    #[must_use]
    #[inline(always)]
    pub fn leaf(level: Level, oa: Pa, rights: Rights, memory: Memory, owned: bool) -> Self {
        assert!(
            level.has_leaves() && oa.is_aligned(level.size()),
            "a leaf is aligned to its size"
        );
        let attributes = match memory {
            Memory::Normal { forced: false } => {
                STAGE2::MEMATTR::NormalWriteBack + STAGE2::SH::InnerShareable
            }
            Memory::Normal { forced: true } => {
                STAGE2::MEMATTR::ForcedWriteBack + STAGE2::SH::InnerShareable
            }
            Memory::Device => STAGE2::MEMATTR::DeviceNGnRE + STAGE2::SH.val(0),
        };
        let is_page = STAGE2::TABLE_OR_PAGE.val(u64::from(level.is_last()));
        let shape = STAGE2::VALID::SET + is_page + STAGE2::AF::SET;
        let owner = STAGE2::OWNED.val(u64::from(owned));
        Self((shape + attributes + owner + rights_field(rights)).value | address_bits(oa))
    }

    /// The leaf of the next level down that stands for part `index` of this block: same rights, same attributes, same
    /// software bits, its own part of the output.
    ///
    /// # Panics
    /// If `level`, where this block lies, is the last.
    #[must_use]
    pub fn part(self, level: Level, index: usize) -> Self {
        let below = level.next();
        let page = if below.is_last() {
            STAGE2::TABLE_OR_PAGE::SET.value
        } else {
            0
        };
        Self((self.0 | page) + index as u64 * below.size())
    }

    /// The block of the level above whose first part this leaf at `level` would be.
    ///
    /// # Panics
    /// If the address is not aligned to that block.
    #[must_use]
    pub fn whole(self, level: Level) -> Self {
        let above = Level::new(level.number() - 1);
        assert!(
            self.address().is_aligned(above.size()),
            "a block is aligned to its size"
        );
        Self(self.0 & !STAGE2::TABLE_OR_PAGE::SET.value)
    }

    fn bits(self) -> Bits {
        Bits::new(self.0)
    }

    /// What it is at `level`.
    #[must_use]
    #[inline]
    pub fn view(self, level: Level) -> View {
        let bits = self.bits();
        match (
            bits.is_set(STAGE2::VALID),
            bits.is_set(STAGE2::TABLE_OR_PAGE),
            level.is_last(),
        ) {
            (false, _, _) | (true, false, true) => View::Invalid,
            (true, true, false) => View::Table(self.address()),
            (true, true, true) | (true, false, false) => View::Leaf(self.address(), self.rights()),
        }
    }

    /// The next table, if it points to one at `level`.
    #[must_use]
    #[inline]
    pub fn next_table(self, level: Level) -> Option<Pa> {
        let table = STAGE2::VALID::SET + STAGE2::TABLE_OR_PAGE::SET;
        (self.bits().matches_all(table) && !level.is_last()).then_some(self.address())
    }

    /// Whether it is a page or a block at `level`.
    #[must_use]
    #[inline]
    pub fn is_leaf(self, level: Level) -> bool {
        let bits = self.bits();
        bits.is_set(STAGE2::VALID) && bits.is_set(STAGE2::TABLE_OR_PAGE) == level.is_last()
    }

    /// The output address, or the next table's.
    #[must_use]
    #[inline]
    pub fn address(self) -> Pa {
        Pa::new(self.bits().read(STAGE2::OA) << 12)
    }

    /// The rights of a leaf.
    #[must_use]
    #[inline]
    pub fn rights(self) -> Rights {
        let bits = self.bits();
        let one = |set: bool, right| if set { right } else { Rights::NONE };
        one(bits.is_set(STAGE2::S2AP_READ), Rights::READ)
            .with(one(bits.is_set(STAGE2::S2AP_WRITE), Rights::WRITE))
            .with(one(
                bits.matches_all(STAGE2::XN::ExecuteAll),
                Rights::EXECUTE,
            ))
    }

    /// Whether the page goes back to the pool with the tree.
    #[must_use]
    #[inline]
    pub fn is_owned(self) -> bool {
        self.bits().is_set(STAGE2::OWNED)
    }

    /// Whether it is a leaf of memory, and not a hardware window's.
    #[must_use]
    #[inline]
    pub fn is_memory(self) -> bool {
        !self.bits().matches_all(STAGE2::MEMATTR::DeviceNGnRE)
    }

    /// Whether it is a leaf of memory that somebody lent ([`crate::stage2::Lent`]): the tree does not own it, and nobody
    /// may write it.
    #[must_use]
    #[inline]
    pub fn is_lent(self) -> bool {
        self.bits().is_set(STAGE2::VALID) && self.is_memory() && !self.is_owned()
    }

    /// Whether it is [`Self::LOCKED`].
    #[must_use]
    #[inline]
    pub fn is_locked(self) -> bool {
        self == Self::LOCKED
    }

    /// Whether the access flag is set: the leaf was used since it was cleared, or nobody ever cleared it.
    #[must_use]
    #[inline]
    pub fn is_young(self) -> bool {
        self.bits().is_set(STAGE2::AF)
    }

    /// The same leaf with the access flag set, or clear.
    #[must_use]
    #[inline]
    pub fn with_access_flag(self, set: bool) -> Self {
        let mut bits = self.bits();
        bits.modify(STAGE2::AF.val(u64::from(set)));
        Self(bits.get())
    }

    /// Whether the hardware keeps the dirty state of this leaf: then, and only then, S2AP write says "was written".
    #[must_use]
    pub fn tracks_writes(self) -> bool {
        self.bits().is_set(STAGE2::DBM)
    }

    /// The same leaf with the hardware keeping its dirty state (FEAT_HAFDBS), or not.
    #[must_use]
    pub fn with_tracking(self, tracked: bool) -> Self {
        let mut bits = self.bits();
        bits.modify(STAGE2::DBM.val(u64::from(tracked)));
        Self(bits.get())
    }

    /// Whether it is one of a group of 16 that a TLB may keep as one entry (the Contiguous bit).
    #[must_use]
    #[inline]
    pub fn has_hint(self) -> bool {
        self.bits().is_set(STAGE2::CONTIGUOUS)
    }

    /// The same leaf as one of such a group, or not.
    #[must_use]
    pub fn with_hint(self, hint: bool) -> Self {
        let mut bits = self.bits();
        bits.modify(STAGE2::CONTIGUOUS.val(u64::from(hint)));
        Self(bits.get())
    }

    /// The same leaf with no rights but those of `most` that it has already. Without W in `most` the hardware does not give
    /// it back by itself either.
    #[must_use]
    pub fn with_at_most(self, most: Rights) -> Self {
        let mut bits = self.bits();
        bits.modify(rights_field(self.rights().intersection(most)));
        Self(bits.get()).with_tracking(self.tracks_writes() && most.allows(Rights::WRITE))
    }

    /// The same leaf with `more` rights besides its own. Rights only grow: a write fault never strips X.
    #[must_use]
    #[inline]
    pub fn with_rights(self, more: Rights) -> Self {
        let mut bits = self.bits();
        bits.modify(rights_field(self.rights().with(more)));
        Self(bits.get())
    }

    /// What of a leaf is neither rights nor state nor a hint: valid, type, output, memory attributes, owner. With no rights at all.
    #[must_use]
    pub fn fixed(self) -> Self {
        self.with_at_most(Rights::NONE)
            .with_access_flag(false)
            .with_tracking(false)
            .with_hint(false)
    }

    /// Whether the two differ in nothing but what the hardware may write by itself: access flag and S2AP write.
    #[must_use]
    pub fn differs_only_by_hardware(self, other: Self) -> bool {
        let hardware = (STAGE2::AF::SET + STAGE2::S2AP_WRITE::SET).value;
        (self.0 ^ other.0) & !hardware == 0
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Descriptor({:#018x})", self.0)
    }
}

#[inline]
fn rights_field(rights: Rights) -> tock_registers::fields::FieldValue<u64, STAGE2::Register> {
    let xn = if rights.allows(Rights::EXECUTE) {
        STAGE2::XN::ExecuteAll
    } else {
        STAGE2::XN::ExecuteNone
    };
    STAGE2::S2AP_READ.val(u64::from(rights.allows(Rights::READ)))
        + STAGE2::S2AP_WRITE.val(u64::from(rights.allows(Rights::WRITE)))
        + xn
}

#[inline]
fn address_bits(pa: Pa) -> u64 {
    assert!(
        pa.page_offset() == 0 && pa.raw() >> 48 == 0,
        "output addresses are pages of a 48-bit space"
    );
    pa.raw()
}

#[cfg(test)]
mod tests;
