//! Stage-2 descriptors as the hardware reads them, spelled from DDI 0487 "VMSAv8-64 translation table format descriptors".

pub(super) const READ: u64 = 1 << 6;
pub(super) const WRITE: u64 = 1 << 7;
pub(super) const AF: u64 = 1 << 10;
pub(super) const DBM: u64 = 1 << 51;
/// The contiguous hint: the leaf is one of a group that a TLB may keep as one entry.
pub(super) const CONTIGUOUS: u64 = 1 << 52;
pub(super) const XN: u64 = 3 << 53;
/// Bits for software, which no TLB keeps.
pub(super) const SOFTWARE: u64 = 0xf << 55;
/// What may change in a valid leaf without break-before-make.
pub(super) const IN_PLACE: u64 = READ | WRITE | AF | DBM | XN | SOFTWARE;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What a descriptor is at its level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Invalid,
    Table(u64),
    Leaf,
}

pub(super) const fn kind(descriptor: u64, level: u8) -> Kind {
    match (descriptor & 3, level) {
        (3, 3) | (1, 1 | 2) => Kind::Leaf,
        (3, _) => Kind::Table(descriptor & ADDRESS),
        _ => Kind::Invalid,
    }
}

/// Invalid for the hardware, taken for the software.
pub(super) const LOCKED: u64 = 1 << 56;

pub(super) const fn address(descriptor: u64) -> u64 {
    descriptor & ADDRESS
}

/// Bytes that one descriptor stands for.
pub(super) const fn span(level: u8) -> u64 {
    1 << (12 + 9 * (3 - level))
}

pub(super) const fn index(ipa: u64, level: u8) -> usize {
    (ipa / span(level) % 512) as usize
}

/// R, W, X of a leaf. XN = 0b00 is "everybody executes", 0b10 "nobody does".
pub(super) const fn rights(leaf: u64) -> [bool; 3] {
    [leaf & READ != 0, leaf & WRITE != 0, leaf & XN == 0]
}

/// Pages of a group with the contiguous hint, 4 KiB granule.
pub(super) const GROUP: u64 = 16;

/// Bytes that a TLB may keep a leaf's entry for: with the hint, those of the whole group.
pub(super) const fn reach(leaf: u64, level: u8) -> u64 {
    if leaf & CONTIGUOUS != 0 {
        GROUP * span(level)
    } else {
        span(level)
    }
}

/// What all leaves of a group have in common: what must not change, and where the group's memory begins.
pub(super) const fn common(leaf: u64, level: u8) -> u64 {
    fixed(leaf) & !(ADDRESS & (reach(leaf, level) - 1))
}

/// Whether `leaf`, for `ipa`, and what is in the place for `at` may stand in one group. An entry may be made of any member
/// before the others are, so a member that is not there must be locked: whoever takes it for free would be passed over.
pub(super) const fn agree(leaf: u64, ipa: u64, level: u8, other: u64, at: u64) -> bool {
    let group = reach(leaf, level);
    let is_congruent = address(other) % group == at % group && address(leaf) % group == ipa % group;
    // The hardware notes what it sees in one member or in all.
    let noted = AF | if leaf & DBM != 0 { WRITE } else { 0 };
    let is_same = common(leaf, level) == common(other, level)
        && (leaf ^ other) & IN_PLACE & !(SOFTWARE | noted) == 0;
    other == LOCKED || is_congruent && is_same
}

/// MemAttr: Device-nGnRE, with FWB and without.
pub(super) const fn is_device(leaf: u64) -> bool {
    leaf >> 2 & 0xf == 0b0001
}

/// What of a leaf must not change while a TLB may hold it.
pub(super) const fn fixed(leaf: u64) -> u64 {
    leaf & !IN_PLACE
}
