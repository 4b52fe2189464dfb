//! The allow-list of CPU features a guest is shown.
//!
//! Kept: the base architecture, LSE, crypto and the like (instructions that need nothing from EL2), pointer authentication,
//! stage-1 features, self-hosted debug, the PMU. Absent: SVE, SME, MTE, AMU, trace, statistical profiling, EL2 and EL3, and
//! whatever is not in the table, so that a new feature of a new CPU is not a hole. Registers that come with what is absent
//! are UNDEFINED; those that no control keeps from a guest belong to features that are shown.

mod combine;
mod fields;

pub use fields::{FIELDS, Field, Register, Rule};

use crate::exit::encoding;
use crate::features::pa_range;

/// ID registers lie at op0 = 3, op1 = 0, CRn = 0, CRm = 1 to 7; row 0 is for those that lie elsewhere.
const CRM: core::ops::Range<u16> = 1..8;
const COUNT: usize = 8 * 8;

/// The ID registers of the pCPUs, what holds on each of them, by CRm and op2; in row 0, under their own names, those that
/// lie elsewhere.
#[derive(Clone, Debug)]
pub struct RawIds(pub [u64; COUNT]);

impl RawIds {
    /// Where `MIDR_EL1` is kept.
    pub const MIDR: usize = 0;
    /// Where `REVIDR_EL1` is kept.
    pub const REVIDR: usize = 6;
    /// Where `AIDR_EL1` is kept.
    pub const AIDR: usize = 7;
    /// Where `CTR_EL0` is kept.
    pub const CTR: usize = 1;
    /// Not 0 if the CPUs' `CTR_EL0` differ.
    const CTR_DIFFERS: usize = 2;
}

impl Default for RawIds {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

/// Where register (CRm, op2) is kept.
#[must_use]
pub const fn index(crm: u16, op2: u16) -> usize {
    crm as usize * 8 + op2 as usize
}

/// `REVIDR_EL1`
const REVIDR_EL1: u16 = encoding(3, 0, 0, 0, 6);
/// `AIDR_EL1`
const AIDR_EL1: u16 = encoding(3, 1, 0, 0, 7);

/// What a guest reads.
#[derive(Clone, Debug)]
pub struct IdTable {
    shown: [u64; COUNT],
    /// `CTR_EL0` as it holds on all CPUs, if it is not the same on all.
    ctr: Option<u64>,
}

impl IdTable {
    /// The table of a guest with an IPA space of `ipa_bits` on these CPUs.
    #[must_use]
    pub fn new(raw: &RawIds, gic_v3: bool, ipa_bits: u32) -> Self {
        let mut shown = [0; COUNT];
        for (crm, op2, _, fields) in FIELDS {
            if *crm < AARCH64_CRM && !has_aarch32(raw) {
                continue;
            }
            let at = index(*crm, *op2);
            for (shift, _, rule, _) in *fields {
                let has = raw.0[at] >> shift & 0xf;
                shown[at] |= rule.shown(has, gic_v3, ipa_bits) << shift;
            }
        }
        for at in [RawIds::MIDR, RawIds::REVIDR, RawIds::AIDR] {
            shown[at] = raw.0[at];
        }
        Self {
            shown,
            ctr: (raw.0[RawIds::CTR_DIFFERS] != 0).then_some(raw.0[RawIds::CTR]),
        }
    }

    /// Register `id`; `None` if it is no ID register.
    #[must_use]
    pub fn read(&self, id: u16) -> Option<u64> {
        let (crm, op2) = (id >> 3 & 15, id & 7);
        match id {
            REVIDR_EL1 => Some(self.shown[RawIds::REVIDR]),
            AIDR_EL1 => Some(self.shown[RawIds::AIDR]),
            _ => (id == encoding(3, 0, 0, crm, op2) && CRM.contains(&crm))
                .then(|| self.shown[index(crm, op2)]),
        }
    }

    /// `MIDR_EL1`, which a guest reads without a trap: for `VPIDR_EL2`.
    #[must_use]
    pub const fn midr(&self) -> u64 {
        self.shown[RawIds::MIDR]
    }

    /// `CTR_EL0` for a guest that may not read the CPU's own, because the CPUs differ in it.
    #[must_use]
    pub const fn ctr(&self) -> Option<u64> {
        self.ctr
    }

    /// Whether the guest has FEAT_PAN.
    #[must_use]
    pub const fn has_pan(&self) -> bool {
        self.shown[index(7, 1)] >> 20 & 0xf != 0
    }

    /// Whether the guest has FEAT_SSBS.
    #[must_use]
    pub const fn has_ssbs(&self) -> bool {
        self.shown[index(4, 1)] >> 4 & 0xf != 0
    }

    /// Whether the guest has FEAT_RAS.
    #[must_use]
    pub const fn has_ras(&self) -> bool {
        self.shown[index(4, 0)] >> 28 & 0xf != 0
    }
}

/// From this CRm on the registers are AArch64's.
const AARCH64_CRM: u16 = 4;

/// Whether AArch32 is there, at EL0: otherwise its registers are UNKNOWN, and read as zero.
const fn has_aarch32(raw: &RawIds) -> bool {
    raw.0[index(4, 0)] & 0xf == 2
}

impl Rule {
    /// What is shown of a field in which the CPUs have `has`.
    fn shown(self, has: u64, gic_v3: bool, ipa_bits: u32) -> u64 {
        match self {
            Self::Keep => has,
            Self::AtMost(most) => has.min(most),
            Self::SignedAtMost(_) if has == 0xf => has,
            Self::SignedAtMost(most) => has.min(most),
            Self::Fixed(value) => value,
            Self::Gic => u64::from(gic_v3),
            Self::PaRange => pa_range(ipa_bits),
        }
    }
}

#[cfg(test)]
mod tests;
