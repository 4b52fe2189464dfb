//! The ID registers field by field: what a guest is shown of each, and why. `docs/id-registers.md` is this table for people.

/// A rule for one 4-bit field.
#[derive(Clone, Copy, PartialEq, Eq)]
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

/// Not shown.
const ABSENT: Rule = Fixed(0);

/// A field: its lowest bit, its name, what a guest sees, and why.
pub type Field = (u32, &'static str, Rule, &'static str);

/// A register: CRm, op2, name, and its fields. A field that is not named reads as zero.
pub type Register = (u16, u16, &'static str, &'static [Field]);

const FREE: &str = "needs nothing from EL2";
const STAGE_1: &str = "of stage 1, which is the guest's";
const STATE: &str = "state that EL2 does not switch";
const EL2_ONLY: &str = "for EL2, which a guest does not have";
const ENABLED_BY_EL2: &str = "EL2 does not enable it";
const EL0_AARCH32: &str = "EL0 may use AArch32 as the CPU has it";

/// All registers that are not zero for a guest, whatever the CPU has.
pub const FIELDS: &[Register] = &[
    (1, 0, "ID_PFR0_EL1", PFR0_32),
    (1, 1, "ID_PFR1_EL1", PFR1_32),
    (1, 2, "ID_DFR0_EL1", DFR0_32),
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
    (3, 4, "ID_PFR2_EL1", PFR2_32),
    (4, 0, "ID_AA64PFR0_EL1", PFR0),
    (4, 1, "ID_AA64PFR1_EL1", PFR1),
    (5, 0, "ID_AA64DFR0_EL1", DFR0),
    (6, 0, "ID_AA64ISAR0_EL1", ISAR0),
    (6, 1, "ID_AA64ISAR1_EL1", ISAR1),
    (6, 2, "ID_AA64ISAR2_EL1", ISAR2),
    (7, 0, "ID_AA64MMFR0_EL1", MMFR0),
    (7, 1, "ID_AA64MMFR1_EL1", MMFR1),
    (7, 2, "ID_AA64MMFR2_EL1", MMFR2),
];

const PFR0_32: &[Field] = &[
    (0, "State0", Keep, EL0_AARCH32),
    (4, "State1", Keep, EL0_AARCH32),
    (8, "State2", Keep, EL0_AARCH32),
    (12, "State3", Keep, EL0_AARCH32),
    (16, "CSV2", AtMost(1), "as ID_AA64PFR0_EL1.CSV2"),
    (20, "AMU", ABSENT, "as ID_AA64PFR0_EL1.AMU"),
    (24, "DIT", Keep, FREE),
    (28, "RAS", AtMost(1), "as ID_AA64PFR0_EL1.RAS"),
];

const PFR1_32: &[Field] = &[
    (0, "ProgMod", Keep, EL0_AARCH32),
    (4, "Security", Keep, EL0_AARCH32),
    (8, "MProgMod", ABSENT, "of an older architecture"),
    (12, "Virtualization", ABSENT, EL2_ONLY),
    (16, "GenTimer", Keep, FREE),
    (
        20,
        "Sec_frac",
        ABSENT,
        "of EL3, which a guest does not have",
    ),
    (24, "Virt_frac", ABSENT, EL2_ONLY),
    (28, "GIC", Gic, "the GIC's version is the board's"),
];

const DFR0_32: &[Field] = &[
    (0, "CopDbg", Keep, "debug is the guest's"),
    (4, "CopSDbg", Keep, "debug is the guest's"),
    (8, "MMapDbg", ABSENT, "there is no memory-mapped debug"),
    (12, "CopTrc", ABSENT, "as ID_AA64DFR0_EL1.TraceVer"),
    (16, "MMapTrc", ABSENT, "there is no memory-mapped trace"),
    (20, "MProfDbg", ABSENT, "of another profile"),
    (24, "PerfMon", SignedAtMost(8), "as ID_AA64DFR0_EL1.PMUVer"),
    (28, "TraceFilt", ABSENT, "as ID_AA64DFR0_EL1.TraceFilt"),
];

const PFR2_32: &[Field] = &[
    (0, "CSV3", Keep, FREE),
    (4, "SSBS", Keep, FREE),
    (8, "RAS_frac", ABSENT, "as ID_AA64PFR1_EL1.RAS_frac"),
];

const PFR0: &[Field] = &[
    (0, "EL0", Keep, EL0_AARCH32),
    (4, "EL1", Fixed(1), "EL1 is AArch64"),
    (8, "EL2", ABSENT, EL2_ONLY),
    (12, "EL3", ABSENT, "a guest does not have EL3"),
    (16, "FP", SignedAtMost(1), FREE),
    (20, "AdvSIMD", SignedAtMost(1), FREE),
    (24, "GIC", Gic, "the GIC's version is the board's"),
    (
        28,
        "RAS",
        AtMost(1),
        "`ESB`, `DISR_EL1`; there are no error records: `ERRIDR_EL1` is 0",
    ),
    (32, "SVE", ABSENT, STATE),
    (36, "SEL2", ABSENT, EL2_ONLY),
    (40, "MPAM", ABSENT, "partitions are the machine's"),
    (
        44,
        "AMU",
        ABSENT,
        "activity monitors count the machine's work",
    ),
    (48, "DIT", Keep, FREE),
    (52, "RME", ABSENT, "of EL3, which a guest does not have"),
    (
        56,
        "CSV2",
        AtMost(1),
        "2 would come with `SCXTNUM_EL1`, which EL2 does not switch",
    ),
    (60, "CSV3", Keep, FREE),
];

const PFR1: &[Field] = &[
    (0, "BT", AtMost(1), FREE),
    (4, "SSBS", AtMost(2), FREE),
    (8, "MTE", ABSENT, "there are no tags for guest memory"),
    (12, "RAS_frac", ABSENT, "error injection is the machine's"),
    (16, "MPAM_frac", ABSENT, "partitions are the machine's"),
    (24, "SME", ABSENT, STATE),
    (
        28,
        "RNDR_trap",
        ABSENT,
        "of EL3, which a guest does not have",
    ),
    (
        32,
        "CSV2_frac",
        AtMost(1),
        "2 would come with `SCXTNUM_EL1`, which EL2 does not switch",
    ),
    (36, "NMI", ABSENT, ENABLED_BY_EL2),
    (40, "MTE_frac", ABSENT, "there are no tags for guest memory"),
    (44, "GCS", ABSENT, STATE),
    (48, "THE", ABSENT, STATE),
    (52, "MTEX", ABSENT, "there are no tags for guest memory"),
    (56, "DF2", ABSENT, STATE),
    (60, "PFAR", ABSENT, STATE),
];

const DFR0: &[Field] = &[
    (
        0,
        "DebugVer",
        AtMost(8),
        "breakpoints, watchpoints and single step are the guest's; later versions add state",
    ),
    (4, "TraceVer", ABSENT, "trace is the machine's"),
    (
        8,
        "PMUVer",
        SignedAtMost(8),
        "counters are switched; later versions add some",
    ),
    (12, "BRPs", Keep, "breakpoints are the guest's"),
    (16, "PMSS", ABSENT, STATE),
    (20, "WRPs", Keep, "watchpoints are the guest's"),
    (24, "SEBEP", ABSENT, STATE),
    (28, "CTX_CMPs", Keep, "breakpoints are the guest's"),
    (32, "PMSVer", ABSENT, "profiling is the machine's"),
    (36, "DoubleLock", Keep, "debug is the guest's"),
    (40, "TraceFilt", ABSENT, "trace is the machine's"),
    (44, "TraceBuffer", ABSENT, "trace is the machine's"),
    (48, "MTPMU", ABSENT, "other threads are other CPUs"),
    (52, "BRBE", ABSENT, "branch records are the machine's"),
    (56, "ExtTrcBuff", ABSENT, "trace is the machine's"),
    (60, "HPMN0", ABSENT, EL2_ONLY),
];

const ISAR0: &[Field] = &[
    (4, "AES", Keep, FREE),
    (8, "SHA1", Keep, FREE),
    (12, "SHA2", Keep, FREE),
    (16, "CRC32", Keep, FREE),
    (20, "Atomic", AtMost(2), FREE),
    (24, "TME", ABSENT, ENABLED_BY_EL2),
    (28, "RDM", Keep, FREE),
    (32, "SHA3", Keep, FREE),
    (36, "SM3", Keep, FREE),
    (40, "SM4", Keep, FREE),
    (44, "DP", Keep, FREE),
    (48, "FHM", Keep, FREE),
    (52, "TS", Keep, FREE),
    (56, "TLB", AtMost(2), STAGE_1),
    (60, "RNDR", AtMost(1), "nothing could keep it from a guest"),
];

const ISAR1: &[Field] = &[
    (0, "DPB", AtMost(2), FREE),
    (4, "APA", Keep, "keys are switched with the vCPU"),
    (8, "API", Keep, "keys are switched with the vCPU"),
    (12, "JSCVT", Keep, FREE),
    (16, "FCMA", Keep, FREE),
    (20, "LRCPC", AtMost(2), FREE),
    (24, "GPA", Keep, "keys are switched with the vCPU"),
    (28, "GPI", Keep, "keys are switched with the vCPU"),
    (32, "FRINTTS", Keep, FREE),
    (36, "SB", Keep, FREE),
    (40, "SPECRES", AtMost(2), FREE),
    (44, "BF16", AtMost(1), FREE),
    (48, "DGH", Keep, FREE),
    (52, "I8MM", Keep, FREE),
    (56, "XS", ABSENT, ENABLED_BY_EL2),
    (60, "LS64", ABSENT, ENABLED_BY_EL2),
];

const ISAR2: &[Field] = &[
    (0, "WFxT", ABSENT, "a trapped wait has no deadline"),
    (4, "RPRES", Keep, FREE),
    (8, "GPA3", Keep, "keys are switched with the vCPU"),
    (12, "APA3", Keep, "keys are switched with the vCPU"),
    (16, "MOPS", ABSENT, ENABLED_BY_EL2),
    (20, "BC", Keep, FREE),
    (24, "PAC_frac", Keep, "as APA, API and APA3"),
    (28, "CLRBHB", Keep, FREE),
    (32, "SYSREG_128", ABSENT, ENABLED_BY_EL2),
    (36, "SYSINSTR_128", ABSENT, ENABLED_BY_EL2),
    (40, "PRFMSLC", Keep, FREE),
    (48, "RPRFM", Keep, FREE),
    (52, "CSSC", Keep, FREE),
    (56, "LUT", ABSENT, "of SVE2 and SME2"),
    (60, "ATS1A", ABSENT, EL2_ONLY),
];

const MMFR0: &[Field] = &[
    (0, "PARange", PaRange, "the size of the guest's IPA space"),
    (4, "ASIDBits", Keep, STAGE_1),
    (8, "BigEnd", Keep, FREE),
    (12, "SNSMem", ABSENT, "of EL3, which a guest does not have"),
    (16, "BigEndEL0", Keep, FREE),
    (
        20,
        "TGran16",
        AtMost(1),
        "without FEAT_LPA2: stage-1 output addresses have no more bits than PARange says",
    ),
    (24, "TGran64", Keep, STAGE_1),
    (
        28,
        "TGran4",
        SignedAtMost(0),
        "without FEAT_LPA2, as TGran16",
    ),
    (32, "TGran16_2", ABSENT, EL2_ONLY),
    (36, "TGran64_2", ABSENT, EL2_ONLY),
    (40, "TGran4_2", ABSENT, EL2_ONLY),
    (
        44,
        "ExS",
        ABSENT,
        "exceptions synchronize, as emulation has it",
    ),
    (56, "FGT", ABSENT, EL2_ONLY),
    (
        60,
        "ECV",
        AtMost(1),
        "2 is for EL2, which a guest does not have",
    ),
];

const MMFR1: &[Field] = &[
    (0, "HAFDBS", AtMost(2), STAGE_1),
    (4, "VMIDBits", ABSENT, EL2_ONLY),
    (8, "VH", ABSENT, EL2_ONLY),
    (12, "HPDS", AtMost(2), STAGE_1),
    (
        16,
        "LO",
        ABSENT,
        "regions of physical memory are the machine's",
    ),
    (20, "PAN", AtMost(3), STAGE_1),
    (24, "SpecSEI", ABSENT, "system errors do not go to a guest"),
    (28, "XNX", ABSENT, EL2_ONLY),
    (32, "TWED", ABSENT, EL2_ONLY),
    (36, "ETS", Keep, FREE),
    (40, "HCX", ABSENT, EL2_ONLY),
    (44, "AFP", Keep, FREE),
    (48, "nTLBPA", Keep, STAGE_1),
    (52, "TIDCP1", ABSENT, "such accesses trap to EL2 first"),
    (56, "CMOW", ABSENT, ENABLED_BY_EL2),
    (60, "ECBHB", Keep, FREE),
];

const MMFR2: &[Field] = &[
    (0, "CnP", Keep, STAGE_1),
    (4, "UAO", Keep, FREE),
    (8, "LSM", Keep, FREE),
    (
        12,
        "IESB",
        ABSENT,
        "exceptions synchronize no errors, as emulation has it",
    ),
    (
        16,
        "VARange",
        ABSENT,
        "EL2 follows a guest's stage 1 with 48-bit addresses",
    ),
    (
        20,
        "CCIDX",
        Keep,
        "the format of `CCSIDR_EL1`, which is the CPU's",
    ),
    (24, "NV", ABSENT, EL2_ONLY),
    (
        28,
        "ST",
        ABSENT,
        "EL2 follows a guest's stage 1 through its usual sizes",
    ),
    (32, "AT", Keep, FREE),
    (36, "IDS", ABSENT, "UNDEFINED is reported the plain way"),
    (40, "FWB", ABSENT, EL2_ONLY),
    (48, "TTL", Keep, STAGE_1),
    (
        52,
        "BBM",
        ABSENT,
        "EL2 does not ask whether the CPUs agree on it",
    ),
    (56, "EVT", ABSENT, EL2_ONLY),
    (60, "E0PD", Keep, STAGE_1),
];

/// AArch32's instruction sets and memory model, which EL0 may use as the CPU has them.
const ALL: &[Field] = &[
    (0, "", Keep, EL0_AARCH32),
    (4, "", Keep, EL0_AARCH32),
    (8, "", Keep, EL0_AARCH32),
    (12, "", Keep, EL0_AARCH32),
    (16, "", Keep, EL0_AARCH32),
    (20, "", Keep, EL0_AARCH32),
    (24, "", Keep, EL0_AARCH32),
    (28, "", Keep, EL0_AARCH32),
];
