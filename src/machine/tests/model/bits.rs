//! Stage-2 descriptors as the hardware reads them, spelled from DDI 0487 "VMSAv8-64 translation table format descriptors".

pub(super) const READ: u64 = 1 << 6;
pub(super) const WRITE: u64 = 1 << 7;
pub(super) const AF: u64 = 1 << 10;
pub(super) const DBM: u64 = 1 << 51;
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

/// MemAttr: Device-nGnRE, with FWB and without.
pub(super) const fn is_device(leaf: u64) -> bool {
    leaf >> 2 & 0xf == 0b0001
}

/// What of a leaf must not change while a TLB may hold it.
pub(super) const fn fixed(leaf: u64) -> u64 {
    leaf & !IN_PLACE
}
