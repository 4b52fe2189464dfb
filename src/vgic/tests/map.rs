//! The register maps, row by row as the documents have them.
//!
//! Source: IHI 0048B "Distributor register map"; IHI 0069 "The GIC Distributor register map", "The GIC Redistributor register
//! map", and there "GIC register access" for the widths.

use crate::device::Width;
use crate::vgic::register::{Frame, Kind, find};

/// Widths in bytes.
const WORD: &[u64] = &[4];
const BYTE_OR_WORD: &[u64] = &[1, 4];
const WORD_OR_DOUBLE: &[u64] = &[4, 8];

/// `start` to before `end`.
struct Row {
    start: u64,
    end: u64,
    widths: &'static [u64],
    kind: Kind,
}

const fn row(start: u64, end: u64, widths: &'static [u64], kind: Kind) -> Row {
    Row {
        start,
        end,
        widths,
        kind,
    }
}

/// GICv2 distributor, 4 KiB.
const GICD_V2: &[Row] = &[
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
        Kind::Identification(Frame::DistributorV2),
    ),
];

/// GICv3 distributor, 64 KiB.
const GICD_V3: &[Row] = &[
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
        Kind::Identification(Frame::DistributorV3),
    ),
];

/// GICv3 redistributor: RD_base and SGI_base, 64 KiB each.
const GICR: &[Row] = &[
    row(0x0_0004, 0x0_0008, WORD, Kind::Implementer),
    row(0x0_0008, 0x0_0010, WORD_OR_DOUBLE, Kind::RedistributorType),
    row(0x0_0014, 0x0_0018, WORD, Kind::Waker),
    row(
        0x0_ffd0,
        0x1_0000,
        WORD,
        Kind::Identification(Frame::Redistributor),
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
const GICC_DEACTIVATE: &[Row] = &[row(0x000, 0x004, WORD, Kind::Deactivate)];

#[test]
fn every_offset_in_every_width_is_what_the_map_says() {
    for (frame, map) in [
        (Frame::DistributorV2, GICD_V2),
        (Frame::DistributorV3, GICD_V3),
        (Frame::Redistributor, GICR),
        (Frame::Deactivation, GICC_DEACTIVATE),
    ] {
        let far = [u64::MAX - 7, u64::MAX, 1 << 32, 1 << 63];
        for offset in (0..0x2_1000).chain(far) {
            for width in (0..4).map(Width::from_sas) {
                let bytes = width.bytes();
                let expected = map
                    .iter()
                    .find(|row| (row.start..row.end).contains(&offset))
                    .filter(|row| row.widths.contains(&bytes) && offset % bytes == 0)
                    .map(|row| (row.kind, offset - row.start));
                let found = find(frame, offset, width);
                assert_eq!(found, expected, "{frame:?} {offset:#x}, {bytes} bytes");
            }
        }
    }
}

#[test]
fn identification_says_which_architecture_it_is() {
    let words = |frame: Frame| [0, 4, 5, 6, 7, 8, 9, 10, 11].map(|n| frame.identification(n));
    // PIDR4, PIDR0 to 3, CIDR0 to 3.
    for (frame, expected) in [
        (
            Frame::DistributorV2,
            [0x04, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 0x05, 0xb1],
        ),
        (
            Frame::DistributorV3,
            [0x44, 0x92, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1],
        ),
        (
            Frame::Redistributor,
            [0x44, 0x93, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1],
        ),
    ] {
        assert_eq!(words(frame), expected);
    }
}
