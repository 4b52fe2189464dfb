//! The header of an arm64 `Image`.
//!
//! Source: Linux `Documentation/arch/arm64/booting.rst`, section 4 "Call the kernel image"; DDI 0487
//! "ID_AA64MMFR0_EL1".

use core::fmt;

/// Offset of `text_offset`.
const TEXT_OFFSET: usize = 8;
/// Offset of `image_size`.
const IMAGE_SIZE: usize = 16;
/// Offset of `flags`.
const FLAGS: usize = 24;
/// Offset of the magic number.
const MAGIC_OFFSET: usize = 56;
/// The magic number.
const MAGIC: &[u8] = b"ARM\x64";

/// `flags` bit 0: the kernel is big-endian.
const FLAG_BIG_ENDIAN: u64 = 1 << 0;
/// `flags` bits 1 and 2: the kernel's page size.
const FLAG_PAGE_SIZE_SHIFT: u32 = 1;

/// Where kernels from before Linux 3.17 go, whose `text_offset` cannot be trusted.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;

/// A granule of stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 16 KiB.
    Medium,
    /// 64 KiB.
    Large,
}

/// Position of `ID_AA64MMFR0_EL1.TGran16`, where 0 means that the granule is not there.
const TGRAN16_SHIFT: u32 = 20;
/// Position of `ID_AA64MMFR0_EL1.TGran64`, where 15 means that the granule is not there.
const TGRAN64_SHIFT: u32 = 24;
/// Position of `ID_AA64MMFR0_EL1.TGran4`, where 15 means that the granule is not there.
const TGRAN4_SHIFT: u32 = 28;

impl PageSize {
    /// Whether a CPU with this `ID_AA64MMFR0_EL1` has it at stage 1. A kernel without its granule stops without a word.
    #[must_use]
    pub const fn is_offered_by(self, id_aa64mmfr0: u64) -> bool {
        let (shift, absent) = match self {
            Self::Small => (TGRAN4_SHIFT, 0xf),
            Self::Medium => (TGRAN16_SHIFT, 0),
            Self::Large => (TGRAN64_SHIFT, 0xf),
        };
        (id_aa64mmfr0 >> shift) & 0xf != absent
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "4 KiB",
            Self::Medium => "16 KiB",
            Self::Large => "64 KiB",
        })
    }
}

/// The header of an arm64 `Image`, as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageHeader {
    text_offset: u64,
    image_size: u64,
    flags: u64,
}

impl ImageHeader {
    /// The header at the start of `head`, if there is one.
    #[must_use]
    pub fn parse(head: &[u8]) -> Option<Self> {
        let field = |offset: usize| {
            let bytes = head.get(offset..offset.checked_add(size_of::<u64>())?)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        if !head.get(MAGIC_OFFSET..)?.starts_with(MAGIC) {
            return None;
        }
        Some(Self {
            text_offset: field(TEXT_OFFSET)?,
            image_size: field(IMAGE_SIZE)?,
            flags: field(FLAGS)?,
        })
    }

    /// Bytes from a 2 MiB boundary to the first byte of the image.
    #[must_use]
    pub const fn text_offset(&self) -> u64 {
        if self.is_old() {
            OLD_TEXT_OFFSET
        } else {
            self.text_offset
        }
    }

    /// Bytes the kernel needs from its first byte on, its BSS included, for a file of `size` bytes.
    #[must_use]
    pub fn footprint(&self, size: u64) -> u64 {
        self.image_size.max(size)
    }

    /// Whether the kernel does not say how much memory it needs: it is from before Linux 3.17.
    #[must_use]
    pub const fn is_old(&self) -> bool {
        self.image_size == 0
    }

    /// Whether the kernel runs big-endian.
    #[must_use]
    pub const fn is_big_endian(&self) -> bool {
        self.flags & FLAG_BIG_ENDIAN != 0
    }

    /// The granule the kernel is built for, if it says so. Stage 2 does not care; a CPU without it cannot run the kernel.
    #[must_use]
    pub const fn page_size(&self) -> Option<PageSize> {
        match (self.flags >> FLAG_PAGE_SIZE_SHIFT) & 0b11 {
            1 => Some(PageSize::Small),
            2 => Some(PageSize::Medium),
            3 => Some(PageSize::Large),
            _ => None,
        }
    }
}
