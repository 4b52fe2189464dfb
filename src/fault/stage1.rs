//! A look at the guest's own stage-1 tables, and through them at its memory.
//!
//! Needed for two things: an abort on a walk into nothing, and one on an address that is too large, carry the guest's level,
//! and `ESR_EL2` has stage 2's; and an instruction that the syndrome does not describe must be fetched. Reads guest memory through stage 2 and maps nothing; every
//! value in it is the guest's and is believed in nothing but its bits.
//!
//! Source: DDI 0487 "VMSAv8-64 address translation", "TCR_EL1".

use crate::addr::{Gva, Ipa, PaRange};
use crate::machine::{El1, Machine};
use crate::stage2::{Leaf, Stage2, maintenance};

/// `SCTLR_EL1.M`: stage 1 is on.
const SCTLR_M: u64 = 1;
/// `SCTLR_EL1.C`: so are its caches.
const SCTLR_C: u64 = 1 << 2;
/// `SCTLR_EL1.EE`: tables are big-endian.
const SCTLR_EE: u64 = 1 << 25;

/// The output address of a descriptor, or the next table's.
const OUTPUT_ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Input address bits at most, without FEAT_LVA, which no guest is shown.
const MAX_BITS: u32 = 48;

/// The half of the VA space that an address lies in, with its geometry.
struct Half {
    base: u64,
    /// Input address bits.
    bits: u32,
    /// log2 of the granule.
    granule: u32,
}

impl Half {
    fn of<M: Machine>(va: Gva, m: &mut M) -> Self {
        let tcr = m.el1(El1::Tcr);
        let is_upper = va.raw() >> 55 & 1 == 1;
        // TG0 and TG1 have different encodings for the same granules.
        let (ttbr, size, granule) = if is_upper {
            let granule = [12, 14, 12, 16][(tcr >> 30 & 3) as usize];
            (m.el1(El1::Ttbr1), tcr >> 16 & 0x3f, granule)
        } else {
            let granule = [12, 16, 14, 12][(tcr >> 14 & 3) as usize];
            (m.el1(El1::Ttbr0), tcr & 0x3f, granule)
        };
        Self {
            base: ttbr & 0x0000_ffff_ffff_fffe,
            // A size out of range comes here only from a CPU that clamps it; another faults at stage 1.
            bits: (64 - size as u32).min(MAX_BITS),
            granule,
        }
    }
}

/// Where a walk of ours ends.
enum End {
    /// It reads a descriptor in the page that was asked for, at this level; what took it there was a descriptor of the level
    /// `by`, or TTBR, which counts as level 0.
    Reads { level: u8, by: u8 },
    /// It comes out at this address, by a descriptor of this level.
    Output { ipa: Ipa, level: u8 },
}

/// The level at which the guest's walk for `va` reads a descriptor in the page of `table`; `None` if it does not (its
/// tables changed meanwhile, or cannot be read).
pub(super) fn level_of_table<M: Machine>(
    stage2: &Stage2,
    va: Gva,
    table: Ipa,
    m: &mut M,
) -> Option<u8> {
    match walk(stage2, va, Some(table.page()), m)? {
        End::Reads { level, .. } => Some(level),
        End::Output { .. } => None,
    }
}

/// The level at which the guest's stage 1 came by `ipa`, an address that is too large, on its way to `va`: that of the descriptor
/// that has it; 0 for TTBR, with stage 1 off, and where its tables say something else by now.
pub(super) fn level_of_address<M: Machine>(stage2: &Stage2, va: Gva, ipa: Ipa, m: &mut M) -> u8 {
    if m.el1(El1::Sctlr) & SCTLR_M == 0 {
        return 0;
    }
    match walk(stage2, va, Some(ipa.page()), m) {
        Some(End::Reads { by, .. }) => by,
        Some(End::Output { ipa: output, level }) if output.page() == ipa.page() => level,
        Some(End::Output { .. }) | None => 0,
    }
}

/// Where the guest's stage 1 takes `va`; `None` if nowhere, or if its tables cannot be read. Of permissions nothing is said:
/// the access that asks has passed them.
pub(super) fn translate<M: Machine>(stage2: &Stage2, va: Gva, m: &mut M) -> Option<Ipa> {
    if m.el1(El1::Sctlr) & SCTLR_M == 0 {
        return Some(Ipa::new(va.raw()));
    }
    match walk(stage2, va, None, m)? {
        End::Output { ipa, .. } => Some(ipa),
        End::Reads { .. } => None,
    }
}

/// The guest's walk for `va`, until it reads in the page `wanted` or comes out.
fn walk<M: Machine>(stage2: &Stage2, va: Gva, wanted: Option<Ipa>, m: &mut M) -> Option<End> {
    let Half {
        base,
        bits,
        granule,
    } = Half::of(va, m);
    let stride = granule - 3;
    if bits <= granule {
        return None;
    }
    let start = 4 - (bits - granule).div_ceil(stride);
    let is_big_endian = m.el1(El1::Sctlr) & SCTLR_EE != 0;
    // A table is aligned to its size; bits below are RES0, and a guest's to set. Kept, they would make a descriptor straddle
    // the end of its page, and us read what the guest does not own.
    let top_bits = bits - (granule + stride * (3 - start));
    let mut next = base & !((8 << top_bits) - 1);
    for level in start..=3 {
        let shift = granule + stride * (3 - level);
        let index_bits = if level == start { bits - shift } else { stride };
        let index = va.raw() >> shift & ((1 << index_bits) - 1);
        let place = Ipa::new(next + index * 8);
        if Some(place.page()) == wanted {
            let by = if level == start { 0 } else { level - 1 };
            return Some(End::Reads {
                level: level as u8,
                by: by as u8,
            });
        }
        let descriptor = descriptor(stage2, place, is_big_endian, m)?;
        let below = (1 << shift) - 1;
        match (descriptor & 0b11, level) {
            (0b11, 3) | (0b01, 1..=2) if level != 1 || granule == 12 => {
                let output = descriptor & OUTPUT_ADDRESS & !below | va.raw() & below;
                return Some(End::Output {
                    ipa: Ipa::new(output),
                    level: level as u8,
                });
            }
            (0b11, 0..=2) => next = descriptor & OUTPUT_ADDRESS & !((1 << granule) - 1),
            _ => return None,
        }
    }
    None
}

fn descriptor<M: Machine>(stage2: &Stage2, at: Ipa, is_big_endian: bool, m: &mut M) -> Option<u64> {
    let mut bytes = [0; 8];
    read(stage2, at, &mut bytes, m)?;
    Some(if is_big_endian {
        u64::from_be_bytes(bytes)
    } else {
        u64::from_le_bytes(bytes)
    })
}

/// Reads guest memory that is mapped: `bytes` at `at`, which do not leave their page. `None` where there is none.
pub(super) fn read<M: Machine>(
    stage2: &Stage2,
    at: Ipa,
    bytes: &mut [u8],
    m: &mut M,
) -> Option<()> {
    if at.raw() >= stage2.config().limit() {
        return None;
    }
    let Leaf::Present(present) = stage2.walk().leaf(m, at) else {
        return None;
    };
    // What lies in a window is a device's: reading it may do something.
    let page = present.memory_address()?;
    let place = PaRange {
        start: page.add(at.page_offset()),
        size: bytes.len() as u64,
    };
    if m.el1(El1::Sctlr) & (SCTLR_M | SCTLR_C) != SCTLR_M | SCTLR_C {
        // The guest writes past the caches: what they hold of the place is not what it wrote.
        maintenance::make_visible(m, place, stage2.coherence());
    }
    m.read(place.start, bytes);
    Some(())
}
