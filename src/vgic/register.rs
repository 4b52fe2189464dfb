//! The register maps: which offsets mean which register, and in which widths they may be accessed.
//!
//! What is in no row, is accessed in a width its row does not have, or is not aligned, reads as zero and ignores writes.
//!
//! Source: IHI 0048B "Distributor register map"; IHI 0069 "The GIC Distributor register map", "The GIC Redistributor
//! register map", and there "GIC register access" for the widths.

use crate::device::Width;

/// What a register is, whatever frame it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// GICD_CTLR.
    Control,
    /// GICD_TYPER.
    Type,
    /// GICD_IIDR, GICR_IIDR.
    Implementer,
    /// IGROUPR.
    Group,
    /// ISENABLER.
    EnableSet,
    /// ICENABLER.
    EnableClear,
    /// ISPENDR.
    PendingSet,
    /// ICPENDR.
    PendingClear,
    /// ISACTIVER.
    ActiveSet,
    /// ICACTIVER.
    ActiveClear,
    /// IPRIORITYR.
    Priority,
    /// GICD_ITARGETSR.
    Target,
    /// ICFGR.
    Configuration,
    /// GICD_SGIR.
    SgiGenerate,
    /// GICD_CPENDSGIR.
    SgiPendingClear,
    /// GICD_SPENDSGIR.
    SgiPendingSet,
    /// GICD_IROUTER.
    Route,
    /// GICR_TYPER.
    RedistributorType,
    /// GICR_WAKER.
    Waker,
    /// GICC_DIR, ICC_DIR_EL1.
    Deactivate,
    /// PIDR and CIDR, by word.
    Identification(Frame),
}

impl Kind {
    /// Widths it may be accessed in: the sum of their bytes.
    const fn widths(self) -> u64 {
        match self {
            Self::Priority | Self::Target | Self::SgiPendingClear | Self::SgiPendingSet => 1 | 4,
            Self::Route | Self::RedistributorType => 4 | 8,
            _ => 4,
        }
    }
}

/// Where registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Frame {
    /// A GICv2's distributor, 4 KiB.
    DistributorV2,
    /// A GICv3's, 64 KiB.
    DistributorV3,
    /// A GICv3's redistributor: RD_base and SGI_base, 64 KiB each.
    Redistributor,
    /// The second page of a GICv2's CPU interface.
    Deactivation,
}

impl Frame {
    /// PIDR4-7, PIDR0-3, CIDR0-3: an architecture of version 2 as a GIC-400 or QEMU's `virt` have them, or version 3 in 64 KiB.
    pub(super) const fn identification(self, word: u64) -> u32 {
        let (pidr4, pidr0, pidr1, pidr2) = match self {
            Self::DistributorV2 => (0x04, 0x90, 0xb4, 0x2b),
            Self::DistributorV3 => (0x44, 0x92, 0xb4, 0x3b),
            Self::Redistributor => (0x44, 0x93, 0xb4, 0x3b),
            Self::Deactivation => return 0,
        };
        match word {
            0 => pidr4,
            4 => pidr0,
            5 => pidr1,
            6 => pidr2,
            8 => 0x0d,
            9 => 0xf0,
            10 => 0x05,
            11 => 0xb1,
            _ => 0,
        }
    }
}

/// Where GICD_SGIR is in a GICv2's distributor.
pub const SGIR: u64 = 0xf00;

/// The registers are laid out in blocks of this many bytes, log2.
const BLOCK: u32 = 7;

/// The register at `offset` of a frame and the offset in its row, if it may be accessed so.
#[inline]
pub(super) fn find(frame: Frame, offset: u64, width: Width) -> Option<(Kind, u64)> {
    let (kind, start) = match frame {
        Frame::DistributorV2 => distributor_v2(offset),
        Frame::DistributorV3 => distributor_v3(offset),
        Frame::Redistributor => redistributor(offset),
        Frame::Deactivation => (offset < 4).then_some((Kind::Deactivate, 0)),
    }?;
    let is_allowed = kind.widths() & width.bytes() != 0 && offset & (width.bytes() - 1) == 0;
    is_allowed.then_some((kind, offset - start))
}

const fn distributor_v2(offset: u64) -> Option<(Kind, u64)> {
    Some(match (offset >> BLOCK, offset) {
        (0..16 | 24..26, _) => return distributor(offset),
        (16..24, _) => (Kind::Target, 0x800),
        (_, SGIR..0xf04) => (Kind::SgiGenerate, SGIR),
        (_, 0xf10..0xf20) => (Kind::SgiPendingClear, 0xf10),
        (_, 0xf20..0xf30) => (Kind::SgiPendingSet, 0xf20),
        (_, 0xfd0..0x1000) => (Kind::Identification(Frame::DistributorV2), 0xfd0),
        _ => return None,
    })
}

const fn distributor_v3(offset: u64) -> Option<(Kind, u64)> {
    Some(match (offset >> BLOCK, offset) {
        (0..16 | 24..26, _) => return distributor(offset),
        (_, 0x6000..0x8000) => (Kind::Route, 0x6000),
        (_, 0xffd0..0x1_0000) => (Kind::Identification(Frame::DistributorV3), 0xffd0),
        _ => return None,
    })
}

/// What the versions' distributors have in common.
const fn distributor(offset: u64) -> Option<(Kind, u64)> {
    Some(match offset {
        0..4 => (Kind::Control, 0),
        4..8 => (Kind::Type, 4),
        8..12 => (Kind::Implementer, 8),
        _ => return per_interrupt(offset),
    })
}

const fn redistributor(offset: u64) -> Option<(Kind, u64)> {
    const SGI_BASE: u64 = 0x1_0000;
    let (kind, start) = match offset {
        0x0004..0x0008 => (Kind::Implementer, 0x0004),
        0x0008..0x0010 => (Kind::RedistributorType, 0x0008),
        0x0014..0x0018 => (Kind::Waker, 0x0014),
        0xffd0..0x1_0000 => (Kind::Identification(Frame::Redistributor), 0xffd0),
        0x1_0080.. => match per_interrupt(offset - SGI_BASE) {
            Some((kind, start)) => (kind, SGI_BASE + start),
            None => return None,
        },
        _ => return None,
    };
    // SGIs and PPIs alone.
    let end = match kind {
        Kind::Priority => 32,
        Kind::Configuration => 8,
        Kind::RedistributorType => 8,
        Kind::Identification(_) => 0x30,
        _ => 4,
    };
    if offset - start < end {
        Some((kind, start))
    } else {
        None
    }
}

/// Registers with a field per interrupt, which are the same in all frames.
const fn per_interrupt(offset: u64) -> Option<(Kind, u64)> {
    let (kind, first) = match offset >> BLOCK {
        1 => (Kind::Group, 1),
        2 => (Kind::EnableSet, 2),
        3 => (Kind::EnableClear, 3),
        4 => (Kind::PendingSet, 4),
        5 => (Kind::PendingClear, 5),
        6 => (Kind::ActiveSet, 6),
        7 => (Kind::ActiveClear, 7),
        8..16 => (Kind::Priority, 8),
        24..26 => (Kind::Configuration, 24),
        _ => return None,
    };
    Some((kind, first << BLOCK))
}
