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
    Identification(&'static [u32; 12]),
}

/// Widths a register may be accessed in: the sum of their bytes.
#[derive(Clone, Copy)]
struct Widths(u64);

const WORD: Widths = Widths(4);
const BYTE_OR_WORD: Widths = Widths(1 | 4);
const WORD_OR_DOUBLE: Widths = Widths(4 | 8);

/// One row of a register map: `start` to before `end`.
pub(super) struct Row {
    start: u64,
    end: u64,
    widths: Widths,
    kind: Kind,
}

const fn row(start: u64, end: u64, widths: Widths, kind: Kind) -> Row {
    Row {
        start,
        end,
        widths,
        kind,
    }
}

/// GICv2's PIDR4-7, PIDR0-3, CIDR0-3: ArchRev 2, as a GIC-400 or QEMU's `virt` has them.
const GICV2_IDENTIFICATION: [u32; 12] =
    [0x04, 0, 0, 0, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 0x05, 0xb1];
/// GICv3's for the distributor: ArchRev 3, 64 KiB.
const GICD_IDENTIFICATION: [u32; 12] = [0x44, 0, 0, 0, 0x92, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];
/// GICv3's for a redistributor.
const GICR_IDENTIFICATION: [u32; 12] = [0x44, 0, 0, 0, 0x93, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];

/// GICv2 distributor, 4 KiB.
pub(super) const GICD_V2: &[Row] = &[
    row(0x000, 0x004, WORD, Kind::Control),
    row(0x004, 0x008, WORD, Kind::Type),
    row(0x008, 0x00c, WORD, Kind::Implementer),
    row(0x080, 0x100, WORD, Kind::Group),
    row(0x100, 0x180, WORD, Kind::EnableSet),
    row(0x180, 0x200, WORD, Kind::EnableClear),
    row(0x200, 0x280, WORD, Kind::PendingSet),
    row(0x280, 0x300, WORD, Kind::PendingClear),
    row(0x300, 0x380, WORD, Kind::ActiveSet),
    row(0x380, 0x400, WORD, Kind::ActiveClear),
    row(0x400, 0x800, BYTE_OR_WORD, Kind::Priority),
    row(0x800, 0xc00, BYTE_OR_WORD, Kind::Target),
    row(0xc00, 0xd00, WORD, Kind::Configuration),
    row(0xf00, 0xf04, WORD, Kind::SgiGenerate),
    row(0xf10, 0xf20, BYTE_OR_WORD, Kind::SgiPendingClear),
    row(0xf20, 0xf30, BYTE_OR_WORD, Kind::SgiPendingSet),
    row(
        0xfd0,
        0x1000,
        WORD,
        Kind::Identification(&GICV2_IDENTIFICATION),
    ),
];

/// GICv3 distributor, 64 KiB.
pub(super) const GICD_V3: &[Row] = &[
    row(0x0000, 0x0004, WORD, Kind::Control),
    row(0x0004, 0x0008, WORD, Kind::Type),
    row(0x0008, 0x000c, WORD, Kind::Implementer),
    row(0x0080, 0x0100, WORD, Kind::Group),
    row(0x0100, 0x0180, WORD, Kind::EnableSet),
    row(0x0180, 0x0200, WORD, Kind::EnableClear),
    row(0x0200, 0x0280, WORD, Kind::PendingSet),
    row(0x0280, 0x0300, WORD, Kind::PendingClear),
    row(0x0300, 0x0380, WORD, Kind::ActiveSet),
    row(0x0380, 0x0400, WORD, Kind::ActiveClear),
    row(0x0400, 0x0800, BYTE_OR_WORD, Kind::Priority),
    row(0x0c00, 0x0d00, WORD, Kind::Configuration),
    row(0x6000, 0x8000, WORD_OR_DOUBLE, Kind::Route),
    row(
        0xffd0,
        0x1_0000,
        WORD,
        Kind::Identification(&GICD_IDENTIFICATION),
    ),
];

/// GICv3 redistributor: RD_base and SGI_base, 64 KiB each.
pub(super) const GICR: &[Row] = &[
    row(0x0_0004, 0x0_0008, WORD, Kind::Implementer),
    row(0x0_0008, 0x0_0010, WORD_OR_DOUBLE, Kind::RedistributorType),
    row(0x0_0014, 0x0_0018, WORD, Kind::Waker),
    row(
        0x0_ffd0,
        0x1_0000,
        WORD,
        Kind::Identification(&GICR_IDENTIFICATION),
    ),
    row(0x1_0080, 0x1_0084, WORD, Kind::Group),
    row(0x1_0100, 0x1_0104, WORD, Kind::EnableSet),
    row(0x1_0180, 0x1_0184, WORD, Kind::EnableClear),
    row(0x1_0200, 0x1_0204, WORD, Kind::PendingSet),
    row(0x1_0280, 0x1_0284, WORD, Kind::PendingClear),
    row(0x1_0300, 0x1_0304, WORD, Kind::ActiveSet),
    row(0x1_0380, 0x1_0384, WORD, Kind::ActiveClear),
    row(0x1_0400, 0x1_0420, BYTE_OR_WORD, Kind::Priority),
    row(0x1_0c00, 0x1_0c08, WORD, Kind::Configuration),
];

/// The second page of a GICv2's CPU interface.
pub(super) const GICC_DEACTIVATE: &[Row] = &[row(0x000, 0x004, WORD, Kind::Deactivate)];

/// The register at `offset` and the offset in its row, if it may be accessed so.
pub(super) fn find(map: &[Row], offset: u64, width: Width) -> Option<(Kind, u64)> {
    let after = map.partition_point(|row| row.start <= offset);
    let row = map.get(after.checked_sub(1)?)?;
    let is_allowed = offset < row.end
        && row.widths.0 & width.bytes() != 0
        && offset.is_multiple_of(width.bytes());
    is_allowed.then_some((row.kind, offset - row.start))
}
