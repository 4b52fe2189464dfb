//! What is the same on several CPUs, so that a vCPU can run on any of them: the AND of their ID registers.
//!
//! Most fields grow with what a CPU can do: the lower value holds on both. In some, 0xf means "absent", which is lower than
//! 0. Some name one of several algorithms or formats: if they differ there is none. `CTR_EL0` has rules of its own. Who
//! the CPU is (`MIDR_EL1`, `AIDR_EL1`) cannot be combined: a guest sees the boot CPU, wherever it runs, and `REVIDR_EL1`
//! claims those repairs that all CPUs of that kind have.
//!
//! Sources: DDI 0487 "Principles of the ID scheme for fields in ID registers", "CTR_EL0".

use super::{RawIds, index};

/// Fields in which 0xf means "absent" or "none": CRm, op2, lowest bit.
const SIGNED: [(u16, u16, u32); 10] = [
    (4, 0, 16), // ID_AA64PFR0_EL1.FP
    (4, 0, 20), // AdvSIMD
    (7, 0, 24), // ID_AA64MMFR0_EL1.TGran64
    (7, 0, 28), // TGran4
    (5, 0, 8),  // ID_AA64DFR0_EL1.PMUVer
    (5, 0, 36), // DoubleLock
    (5, 0, 48), // MTPMU
    (1, 2, 24), // ID_DFR0_EL1.PerfMon
    (1, 4, 8),  // ID_MMFR0_EL1.OuterShr
    (1, 4, 28), // InnerShr
];

/// Fields that name an algorithm or a format.
const EXACT: [(u16, u16, u32); 8] = [
    (6, 1, 4),  // ID_AA64ISAR1_EL1.APA
    (6, 1, 8),  // API
    (6, 1, 24), // GPA
    (6, 1, 28), // GPI
    (6, 2, 8),  // ID_AA64ISAR2_EL1.GPA3
    (6, 2, 12), // APA3
    (6, 2, 24), // PAC_frac
    (7, 2, 20), // ID_AA64MMFR2_EL1.CCIDX
];

impl RawIds {
    /// What holds on a CPU with these and on one with `other`. Who the CPU is stays as it is here.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for crm in 1..8 {
            for op2 in 0..8 {
                let at = index(crm, op2);
                both.0[at] = register(crm, op2, self.0[at], other.0[at]);
            }
        }
        both.0[Self::CTR] = ctr(self.0[Self::CTR], other.0[Self::CTR]);
        if self.0[Self::MIDR] == other.0[Self::MIDR] {
            both.0[Self::REVIDR] &= other.0[Self::REVIDR];
        }
        both.0[Self::CTR_DIFFERS] |=
            other.0[Self::CTR_DIFFERS] | u64::from(self.0[Self::CTR] != other.0[Self::CTR]);
        both
    }
}

fn register(crm: u16, op2: u16, one: u64, other: u64) -> u64 {
    let fields = (0..u64::BITS).step_by(4);
    fields.fold(0, |both, shift| {
        let (a, b) = (one >> shift & 0xf, other >> shift & 0xf);
        let field = (crm, op2, shift);
        let lower = if EXACT.contains(&field) {
            if a == b { a } else { 0 }
        } else if SIGNED.contains(&field) {
            signed_min(a, b)
        } else {
            a.min(b)
        };
        both | lower << shift
    })
}

/// The lower of two fields of four bits, of which the highest is a sign.
fn signed_min(a: u64, b: u64) -> u64 {
    // Adding 8 modulo 16 puts negative numbers before the others.
    if (a ^ 8) <= (b ^ 8) { a } else { b }
}

/// `CTR_EL0` of both: lines are as small as the smallest, granules as large as the largest, and what needs no maintenance
/// needs none on either.
fn ctr(one: u64, other: u64) -> u64 {
    const IMINLINE: u32 = 0;
    const L1IP: u64 = 0b11 << 14;
    const VIPT: u64 = 0b10 << 14;
    const DMINLINE: u32 = 16;
    const ERG: u32 = 20;
    const CWG: u32 = 24;
    const IDC_DIC: u64 = 0b11 << 28;
    const RES1: u64 = 1 << 31;
    const TMINLINE: u64 = 0x3f << 32;
    let field = |ctr: u64, shift: u32| ctr >> shift & 0xf;
    let smallest = |shift: u32| field(one, shift).min(field(other, shift)) << shift;
    // 0 means that the CPU does not say: then nobody knows.
    let largest = |shift: u32| match (field(one, shift), field(other, shift)) {
        (0, _) | (_, 0) => 0,
        (a, b) => a.max(b) << shift,
    };
    smallest(IMINLINE)
        | if (one ^ other) & L1IP == 0 {
            one & L1IP
        } else {
            VIPT
        }
        | smallest(DMINLINE)
        | largest(ERG)
        | largest(CWG)
        | one & other & IDC_DIC
        | RES1
        | (one & TMINLINE).min(other & TMINLINE)
}

#[cfg(test)]
mod tests;
