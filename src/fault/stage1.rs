//! A look at the guest's own stage-1 tables: at which level does its walk hit a given table page?
//!
//! Needed for one thing: an abort on a walk into nothing carries the guest's level, and `ESR_EL2` has stage 2's. Reads
//! guest memory through stage 2 and maps nothing; every value in it is the guest's and is believed in nothing but its bits.
//!
//! Source: DDI 0487 "VMSAv8-64 address translation", "TCR_EL1".

use crate::addr::{Gva, Ipa};
use crate::machine::{El1, Machine};
use crate::stage2::{Leaf, Stage2};

/// `SCTLR_EL1.EE`: tables are big-endian.
const SCTLR_EE: u64 = 1 << 25;

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

/// The level at which the guest's walk for `va` reads a descriptor in the page of `table`; `None` if it does not (its
/// tables changed meanwhile, or cannot be read).
pub(super) fn level_of_table<M: Machine>(
    stage2: &Stage2,
    va: Gva,
    table: Ipa,
    m: &mut M,
) -> Option<u8> {
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
        if place.page() == table.page() {
            return Some(level as u8);
        }
        let descriptor = read(stage2, place, is_big_endian, m)?;
        if descriptor & 0b11 != 0b11 || level == 3 {
            return None;
        }
        next = descriptor & 0x0000_ffff_ffff_f000 & !((1 << granule) - 1);
    }
    None
}

fn read<M: Machine>(stage2: &Stage2, at: Ipa, is_big_endian: bool, m: &mut M) -> Option<u64> {
    if at.raw() >= stage2.config().limit() {
        return None;
    }
    let Leaf::Present(present) = stage2.walk().leaf(m, at) else {
        return None;
    };
    let mut bytes = [0; 8];
    // A table in a window would have us read a device.
    let page = present.memory_address()?;
    m.read(page.add(at.page_offset()), &mut bytes);
    Some(if is_big_endian {
        u64::from_be_bytes(bytes)
    } else {
        u64::from_le_bytes(bytes)
    })
}
