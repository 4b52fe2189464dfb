//! The allow-list of CPU features a guest is shown.
//!
//! Kept: the base architecture, LSE, crypto and the like (instructions that need nothing from EL2), pointer authentication,
//! stage-1 features, self-hosted debug. Absent: SVE, SME, MTE, PMU, AMU, trace, RAS, statistical profiling, EL2 and EL3, and
//! whatever is not in the table, so that a new feature of a new CPU is not a hole.

use crate::exit::encoding;
use crate::features::pa_range;

/// ID registers lie at op0 = 3, op1 = 0, CRn = 0, CRm = 1 to 7.
const CRM: core::ops::Range<u16> = 1..8;
const COUNT: usize = 7 * 8;

/// The ID registers of the pCPUs, all that are the same on each, by CRm and op2.
#[derive(Clone, Debug)]
pub struct RawIds(pub [u64; COUNT]);

impl Default for RawIds {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

/// Where register (CRm, op2) is kept.
#[must_use]
pub const fn index(crm: u16, op2: u16) -> usize {
    (crm as usize - 1) * 8 + op2 as usize
}

/// A rule for one 4-bit field.
#[derive(Clone, Copy)]
pub enum Rule {
    /// As the CPU has it.
    Keep,
    /// As the CPU has it, but no more than this.
    AtMost(u64),
    /// A field with 0xf for "absent": values up to this as they are, larger ones (but 0xf) as this.
    SignedAtMost(u64),
    /// This.
    Fixed(u64),
    /// 1 with a GICv3 whose CPU interface is system registers.
    Gic,
    /// The IPA size.
    PaRange,
}
use Rule::{AtMost, Fixed, Gic, Keep, PaRange, SignedAtMost};

/// A register of the allow-list: CRm, op2, name, and the fields that are not absent.
pub type Register = (u16, u16, &'static str, &'static [(u32, &'static str, Rule)]);

/// The allow-list. Registers that are not here read as zero.
pub const FIELDS: &[Register] = &[
    (
        1,
        2,
        "ID_DFR0_EL1",
        &[(0, "CopDbg", Keep), (4, "CopSDbg", Keep)],
    ),
    (
        1,
        0,
        "ID_PFR0_EL1",
        &[
            (0, "State0", Keep),
            (4, "State1", Keep),
            (8, "State2", Keep),
            (12, "State3", Keep),
            (16, "CSV2", AtMost(1)),
            (24, "DIT", Keep),
        ],
    ),
    (
        1,
        1,
        "ID_PFR1_EL1",
        &[
            (0, "ProgMod", Keep),
            (4, "Security", Keep),
            (16, "GenTimer", Keep),
            (28, "GIC", Gic),
        ],
    ),
    (1, 4, "ID_MMFR0_EL1", ALL),
    (1, 5, "ID_MMFR1_EL1", ALL),
    (1, 6, "ID_MMFR2_EL1", ALL),
    (1, 7, "ID_MMFR3_EL1", ALL),
    (2, 0, "ID_ISAR0_EL1", ALL),
    (2, 1, "ID_ISAR1_EL1", ALL),
    (2, 2, "ID_ISAR2_EL1", ALL),
    (2, 3, "ID_ISAR3_EL1", ALL),
    (2, 4, "ID_ISAR4_EL1", ALL),
    (2, 5, "ID_ISAR5_EL1", ALL),
    (2, 6, "ID_MMFR4_EL1", ALL),
    (2, 7, "ID_ISAR6_EL1", ALL),
    (3, 0, "MVFR0_EL1", ALL),
    (3, 1, "MVFR1_EL1", ALL),
    (3, 2, "MVFR2_EL1", ALL),
    (3, 4, "ID_PFR2_EL1", &[(0, "CSV3", Keep), (4, "SSBS", Keep)]),
    (
        4,
        0,
        "ID_AA64PFR0_EL1",
        &[
            (0, "EL0", Keep),
            (4, "EL1", Fixed(1)),
            (16, "FP", SignedAtMost(1)),
            (20, "AdvSIMD", SignedAtMost(1)),
            (24, "GIC", Gic),
            (48, "DIT", Keep),
            // 2 would come with SCXTNUM_ELx, which HCR_EL2.EnSCXT keeps from the guest.
            (56, "CSV2", AtMost(1)),
            (60, "CSV3", Keep),
        ],
    ),
    (4, 1, "ID_AA64PFR1_EL1", &[(4, "SSBS", AtMost(2))]),
    (
        5,
        0,
        "ID_AA64DFR0_EL1",
        &[
            (0, "DebugVer", AtMost(8)),
            (12, "BRPs", Keep),
            (20, "WRPs", Keep),
            (28, "CTX_CMPs", Keep),
            (36, "DoubleLock", Keep),
        ],
    ),
    (
        6,
        0,
        "ID_AA64ISAR0_EL1",
        &[
            (4, "AES", Keep),
            (8, "SHA1", Keep),
            (12, "SHA2", Keep),
            (16, "CRC32", Keep),
            (20, "Atomic", AtMost(2)),
            (28, "RDM", Keep),
            (32, "SHA3", Keep),
            (36, "SM3", Keep),
            (40, "SM4", Keep),
            (44, "DP", Keep),
            (48, "FHM", Keep),
            (52, "TS", Keep),
            (56, "TLB", AtMost(2)),
        ],
    ),
    (
        6,
        1,
        "ID_AA64ISAR1_EL1",
        &[
            (0, "DPB", AtMost(2)),
            (4, "APA", Keep),
            (8, "API", Keep),
            (12, "JSCVT", Keep),
            (16, "FCMA", Keep),
            (20, "LRCPC", AtMost(2)),
            (24, "GPA", Keep),
            (28, "GPI", Keep),
            (32, "FRINTTS", Keep),
            (36, "SB", Keep),
            (44, "BF16", AtMost(1)),
            (48, "DGH", Keep),
            (52, "I8MM", Keep),
        ],
    ),
    (
        6,
        2,
        "ID_AA64ISAR2_EL1",
        &[
            (8, "GPA3", Keep),
            (12, "APA3", Keep),
            (24, "PAC_frac", Keep),
        ],
    ),
    (
        7,
        0,
        "ID_AA64MMFR0_EL1",
        &[
            (0, "PARange", PaRange),
            (4, "ASIDBits", Keep),
            (8, "BigEnd", Keep),
            (16, "BigEndEL0", Keep),
            // Without FEAT_LPA2: stage-1 output addresses have no more bits than PARange says.
            (20, "TGran16", AtMost(1)),
            (24, "TGran64", Keep),
            (28, "TGran4", SignedAtMost(0)),
        ],
    ),
    (
        7,
        1,
        "ID_AA64MMFR1_EL1",
        &[
            (0, "HAFDBS", AtMost(2)),
            (12, "HPDS", AtMost(2)),
            (20, "PAN", AtMost(3)),
            (36, "ETS", Keep),
        ],
    ),
    (
        7,
        2,
        "ID_AA64MMFR2_EL1",
        &[
            (0, "CnP", Keep),
            (4, "UAO", Keep),
            (20, "CCIDX", Keep),
            (32, "AT", Keep),
            (48, "TTL", Keep),
            (60, "E0PD", Keep),
        ],
    ),
];

/// AArch32's instruction sets and memory model, which EL0 may use as the CPU has them.
const ALL: &[(u32, &str, Rule)] = &[
    (0, "", Keep),
    (4, "", Keep),
    (8, "", Keep),
    (12, "", Keep),
    (16, "", Keep),
    (20, "", Keep),
    (24, "", Keep),
    (28, "", Keep),
];

/// What a guest reads.
#[derive(Clone, Debug)]
pub struct IdTable([u64; COUNT]);

impl IdTable {
    /// The table of a guest with an IPA space of `ipa_bits` on these CPUs.
    #[must_use]
    pub fn new(raw: &RawIds, gic_v3: bool, ipa_bits: u32) -> Self {
        let mut table = [0; COUNT];
        for (crm, op2, _, fields) in FIELDS {
            let at = index(*crm, *op2);
            for (shift, _, rule) in *fields {
                let has = raw.0[at] >> shift & 0xf;
                let shown = match *rule {
                    Keep => has,
                    AtMost(most) => has.min(most),
                    SignedAtMost(_) if has == 0xf => has,
                    SignedAtMost(most) => has.min(most),
                    Fixed(value) => value,
                    Gic => u64::from(gic_v3),
                    PaRange => pa_range(ipa_bits),
                };
                table[at] |= shown << shift;
            }
        }
        Self(table)
    }

    /// Register `id`; `None` if it is no ID register.
    #[must_use]
    pub fn read(&self, id: u16) -> Option<u64> {
        let (crm, op2) = (id >> 3 & 15, id & 7);
        (id == encoding(3, 0, 0, crm, op2) && CRM.contains(&crm)).then(|| self.0[index(crm, op2)])
    }

    /// Whether the guest has FEAT_PAN.
    #[must_use]
    pub const fn has_pan(&self) -> bool {
        self.0[index(7, 1)] >> 20 & 0xf != 0
    }

    /// Whether the guest has FEAT_SSBS.
    #[must_use]
    pub const fn has_ssbs(&self) -> bool {
        self.0[index(4, 1)] >> 4 & 0xf != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CPU that claims everything in every field.
    fn greedy() -> RawIds {
        RawIds([0x6666_6666_6666_6666; COUNT])
    }

    #[test]
    fn hidden_features_read_as_absent_whatever_the_cpu_has() {
        let table = IdTable::new(&greedy(), true, 40);
        for (crm, op2, shift, name) in [
            (4, 0, 32, "SVE"),
            (4, 0, 28, "RAS"),
            (4, 0, 44, "AMU"),
            (4, 0, 40, "MPAM"),
            (4, 0, 8, "EL2"),
            (4, 0, 12, "EL3"),
            (4, 1, 8, "MTE"),
            (4, 1, 24, "SME"),
            (5, 0, 8, "PMUVer"),
            (5, 0, 4, "TraceVer"),
            (5, 0, 32, "PMSVer"),
            (6, 0, 60, "RNDR"),
            (6, 0, 24, "TME"),
            (6, 1, 60, "LS64"),
            (6, 2, 16, "MOPS"),
            (7, 0, 56, "FGT"),
            (7, 1, 8, "VH"),
            (7, 2, 16, "VARange"),
        ] {
            let value = table.read(encoding(3, 0, 0, crm, op2)).unwrap();
            assert_eq!(value >> shift & 0xf, 0, "{name}");
        }
        for (crm, op2) in [(4, 4), (4, 5), (7, 3), (7, 4), (5, 1), (3, 7)] {
            assert_eq!(table.read(encoding(3, 0, 0, crm, op2)), Some(0));
        }
    }

    #[test]
    fn what_a_guest_has_is_shown() {
        let mut raw = RawIds::default();
        raw.0[index(6, 0)] = 0x1022_1120_2112_1120;
        raw.0[index(7, 0)] = 0x0000_0000_0000_1125;
        let table = IdTable::new(&raw, true, 36);
        // AES, SHA1, SHA2, CRC32, Atomic and so on stay; RNDR goes.
        assert_eq!(
            table.read(encoding(3, 0, 0, 6, 0)),
            Some(0x0022_1120_2012_1120)
        );
        assert_eq!(
            table.read(encoding(3, 0, 0, 7, 0)).unwrap() & 0xff,
            0x21,
            "PARange is the IPA size"
        );
        assert_eq!(
            table.read(encoding(3, 0, 0, 4, 0)),
            Some(0x0100_0010),
            "EL1 AArch64 only, GIC system registers"
        );
    }

    #[test]
    fn absent_floating_point_and_granules_stay_absent() {
        let mut raw = RawIds::default();
        raw.0[index(4, 0)] = 0x00ff_0011;
        raw.0[index(7, 0)] = 0xf000_0000;
        let table = IdTable::new(&raw, false, 36);
        assert_eq!(table.read(encoding(3, 0, 0, 4, 0)), Some(0x00ff_0011));
        assert_eq!(table.read(encoding(3, 0, 0, 7, 0)).unwrap() >> 28, 0xf);
    }

    #[test]
    fn only_id_registers_are_read_here() {
        let table = IdTable::new(&greedy(), true, 40);
        // MIDR_EL1 (CRm 0) is VPIDR_EL2's; SCTLR_EL1 is no ID register.
        assert_eq!(table.read(encoding(3, 0, 0, 0, 0)), None);
        assert_eq!(table.read(encoding(3, 0, 1, 0, 0)), None);
        assert_eq!(table.read(encoding(3, 1, 0, 4, 0)), None);
    }
}
