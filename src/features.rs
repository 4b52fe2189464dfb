//! What a CPU can do, read off its ID registers as plain values.
//!
//! `el2` reads the registers; here they become facts with names. Whatever several CPUs must agree on is combined with
//! [`Coherence::and`].
//!
//! Source: DDI 0487 "AArch64 System register descriptions", each register by its name.

use core::fmt;

use tock_registers::LocalRegisterCopy;

/// Bit positions, named as in the manual.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the names are the manual's"
)]
mod bits {
    use tock_registers::register_bitfields;

    register_bitfields! { u64,
        /// Cache Type Register.
        pub CTR_EL0 [
            IMINLINE OFFSET(0) NUMBITS(4) [],
            L1IP OFFSET(14) NUMBITS(2) [Vpipt = 0, Aivivt = 1, Vipt = 2, Pipt = 3],
            DMINLINE OFFSET(16) NUMBITS(4) [],
            IDC OFFSET(28) NUMBITS(1) [],
            DIC OFFSET(29) NUMBITS(1) []
        ],
        /// Cache Level ID Register.
        pub CLIDR_EL1 [
            LOUIS OFFSET(21) NUMBITS(3) [],
            LOC OFFSET(24) NUMBITS(3) [],
            LOUU OFFSET(27) NUMBITS(3) []
        ],
        /// AArch64 Memory Model Feature Register 0.
        pub ID_AA64MMFR0_EL1 [
            PARANGE OFFSET(0) NUMBITS(4) [],
            TGRAN4 OFFSET(28) NUMBITS(4) [Absent = 0xf],
            TGRAN4_2 OFFSET(40) NUMBITS(4) [AsStage1 = 0, Absent = 1],
            FGT OFFSET(56) NUMBITS(4) []
        ],
        /// AArch64 Memory Model Feature Register 1.
        pub ID_AA64MMFR1_EL1 [
            HAFDBS OFFSET(0) NUMBITS(4) [],
            VMIDBITS OFFSET(4) NUMBITS(4) [Sixteen = 2],
            VH OFFSET(8) NUMBITS(4) [],
            XNX OFFSET(28) NUMBITS(4) [],
            HCX OFFSET(40) NUMBITS(4) []
        ],
        /// AArch64 Memory Model Feature Register 2.
        pub ID_AA64MMFR2_EL1 [
            FWB OFFSET(40) NUMBITS(4) [],
            TTL OFFSET(48) NUMBITS(4) [],
            BBM OFFSET(52) NUMBITS(4) []
        ],
        /// AArch64 Instruction Set Attribute Register 0.
        pub ID_AA64ISAR0_EL1 [
            TLB OFFSET(56) NUMBITS(4) [],
            RNDR OFFSET(60) NUMBITS(4) []
        ],
        /// AArch64 Processor Feature Register 0.
        pub ID_AA64PFR0_EL1 [
            EL0 OFFSET(0) NUMBITS(4) [],
            GIC OFFSET(24) NUMBITS(4) [],
            RAS OFFSET(28) NUMBITS(4) [],
            SVE OFFSET(32) NUMBITS(4) []
        ],
        /// AArch64 Debug Feature Register 0.
        pub ID_AA64DFR0_EL1 [
            PMUVER OFFSET(8) NUMBITS(4) []
        ]
    }
}
use bits::{
    CLIDR_EL1, CTR_EL0, ID_AA64DFR0_EL1, ID_AA64ISAR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1,
    ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1,
};

/// The ID registers that [`Features`] are read from, raw.
#[derive(Clone, Copy, Default, Debug)]
pub struct IdRegisters {
    /// `CTR_EL0`
    pub ctr: u64,
    /// `CLIDR_EL1`
    pub clidr: u64,
    /// `ID_AA64MMFR0_EL1`
    pub mmfr0: u64,
    /// `ID_AA64MMFR1_EL1`
    pub mmfr1: u64,
    /// `ID_AA64MMFR2_EL1`
    pub mmfr2: u64,
    /// `ID_AA64ISAR0_EL1`
    pub isar0: u64,
    /// `ID_AA64PFR0_EL1`
    pub pfr0: u64,
    /// `ID_AA64ISAR1_EL1`
    pub isar1: u64,
    /// `ID_AA64ISAR2_EL1`
    pub isar2: u64,
    /// `ID_AA64DFR0_EL1`
    pub dfr0: u64,
    /// `PMCR_EL0`, where that says that it is there
    pub pmcr: u64,
    /// `MIDR_EL1`
    pub midr: u64,
}

/// What must be done for caches to agree: with memory (FWB, IDC) and with instruction fetches (DIC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coherence {
    /// FEAT_S2FWB: stage 2 forces Normal Write-Back, so a guest cannot look past the caches.
    pub fwb: bool,
    /// Instruction fetches see the data caches: no clean to the point of unification. From `CTR_EL0.IDC` or from
    /// `CLIDR_EL1` (no level needs cleaning).
    pub idc: bool,
    /// `CTR_EL0.DIC`: no instruction cache invalidation is needed either.
    pub dic: bool,
    /// The I-cache is physically indexed and tagged; otherwise (VIPT) only `IC IALLU*` reaches every alias.
    pub pipt: bool,
}

impl Coherence {
    /// What holds on both of two CPUs.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            fwb: self.fwb && other.fwb,
            idc: self.idc && other.idc,
            dic: self.dic && other.dic,
            pipt: self.pipt && other.pipt,
        }
    }
}

/// What the MMU can do beyond Armv8.0, as far as stage 2 uses it. All false is always right, only slower.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mmu {
    /// FEAT_TTL: a TLBI may say at which level the leaf lay.
    pub ttl: bool,
    /// FEAT_TLBIRANGE: one TLBI for many pages.
    pub tlbi_range: bool,
    /// FEAT_HAFDBS: the hardware sets access flags.
    pub access_flag: bool,
    /// FEAT_HAFDBS: and keeps the dirty state of leaves that ask for it.
    pub dirty_state: bool,
    /// FEAT_BBM from level 2, with FWB and DIC: a block and the table of its parts may stand for each other without a break
    /// between. A TLB that holds both may answer with a TLB conflict abort.
    pub resizes_in_place: bool,
}

/// What a CPU can do that Faultline cares for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Physical address bits (`ID_AA64MMFR0_EL1.PARange`), 32 to 52.
    pub pa_bits: u32,
    /// VMID bits: 8 or 16.
    pub vmid_bits: u32,
    /// Cache rules.
    pub coherence: Coherence,
    /// Smallest data cache line in bytes.
    pub dcache_line: u64,
    /// Smallest instruction cache line in bytes.
    pub icache_line: u64,
    /// FEAT_XNX: execute-never per exception level.
    pub xnx: bool,
    /// FEAT_VHE, not used.
    pub vhe: bool,
    /// FEAT_HAFDBS: 0 none, 1 access flag, 2 and dirty state.
    pub hafdbs: u64,
    /// FEAT_TTL.
    pub ttl: bool,
    /// FEAT_TLBIRANGE.
    pub tlbi_range: bool,
    /// FEAT_BBM level.
    pub bbm: u64,
    /// FEAT_FGT: fine-grained traps.
    pub fgt: bool,
    /// FEAT_HCX: `HCRX_EL2`.
    pub hcx: bool,
    /// FEAT_RNG.
    pub rng: bool,
    /// FEAT_SVE.
    pub sve: bool,
    /// FEAT_RAS.
    pub ras: bool,
    /// External aborts and errors of a guest's own accesses can be had to come to EL2 (`HCR_EL2.TEA`, with FEAT_RAS).
    pub guest_errors_trap: bool,
    /// FEAT_PAuth, by any algorithm.
    pub pauth: bool,
    /// FEAT_PMUv3.
    pub pmu: bool,
    /// Its event counters.
    pub pmu_counters: u8,
    /// `ID_AA64PFR0_EL1`, for what it proves of vulnerabilities.
    pub pfr0: u64,
    /// The 4 KiB granule works at stage 2.
    pub granule_4k: bool,
    /// EL0 can run AArch32.
    pub aarch32_el0: bool,
    /// Cortex-A57 before r1p3: a stage-2 translation fault may be reported where a stage-1 fault was due (834220).
    pub erratum_834220: bool,
    /// `MIDR_EL1`.
    pub midr: u64,
}

/// Whether `MIDR_EL1` is an AmpereOne's: implementer 0xc0, part 0xac3.
const fn is_ampere1(midr: u64) -> bool {
    midr >> 24 & 0xff == 0xc0 && midr >> 4 & 0xfff == 0xac3
}

impl Features {
    /// What stage 2 uses of its MMU. Ampere's AC03_CPU_38 sets access flags wrongly; there, faults do it.
    #[must_use]
    pub const fn mmu(&self) -> Mmu {
        let sound = !is_ampere1(self.midr);
        Mmu {
            ttl: self.ttl,
            tlbi_range: self.tlbi_range,
            access_flag: self.hafdbs >= 1 && sound,
            dirty_state: self.hafdbs >= 2 && sound,
            resizes_in_place: self.bbm >= 2 && self.coherence.fwb && self.coherence.dic,
        }
    }

    /// What holds on both of two CPUs: the VMs of a machine run on any of its CPUs. What a CPU is, and what differs for its
    /// own software only, stays this one's.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            pa_bits: self.pa_bits.min(other.pa_bits),
            vmid_bits: self.vmid_bits.min(other.vmid_bits),
            coherence: self.coherence.and(other.coherence),
            dcache_line: self.dcache_line.min(other.dcache_line),
            icache_line: self.icache_line.min(other.icache_line),
            xnx: self.xnx && other.xnx,
            // One unsound implementation is enough to have none.
            hafdbs: if is_ampere1(other.midr) {
                0
            } else {
                self.hafdbs.min(other.hafdbs)
            },
            ttl: self.ttl && other.ttl,
            tlbi_range: self.tlbi_range && other.tlbi_range,
            bbm: self.bbm.min(other.bbm),
            rng: self.rng && other.rng,
            guest_errors_trap: self.guest_errors_trap && other.guest_errors_trap,
            pauth: self.pauth && other.pauth,
            pmu: self.pmu && other.pmu,
            pmu_counters: self.pmu_counters.min(other.pmu_counters),
            granule_4k: self.granule_4k && other.granule_4k,
            aarch32_el0: self.aarch32_el0 && other.aarch32_el0,
            erratum_834220: self.erratum_834220 || other.erratum_834220,
            ..*self
        }
    }

    /// By what traps are set on a CPU that can do `own`, of a machine whose CPUs can all do this: what there is to trap is the
    /// CPU's own matter, what guests count on is the same everywhere.
    #[must_use]
    pub const fn trapping_on(&self, own: &Self) -> Self {
        Self {
            coherence: self.coherence,
            guest_errors_trap: self.guest_errors_trap,
            ..*own
        }
    }

    /// Reads the facts off one CPU's ID registers.
    #[must_use]
    pub fn new(id: &IdRegisters) -> Self {
        let ctr = LocalRegisterCopy::<u64, CTR_EL0::Register>::new(id.ctr);
        let mmfr0 = LocalRegisterCopy::<u64, ID_AA64MMFR0_EL1::Register>::new(id.mmfr0);
        let mmfr1 = LocalRegisterCopy::<u64, ID_AA64MMFR1_EL1::Register>::new(id.mmfr1);
        let mmfr2 = LocalRegisterCopy::<u64, ID_AA64MMFR2_EL1::Register>::new(id.mmfr2);
        let isar0 = LocalRegisterCopy::<u64, ID_AA64ISAR0_EL1::Register>::new(id.isar0);
        let pfr0 = LocalRegisterCopy::<u64, ID_AA64PFR0_EL1::Register>::new(id.pfr0);
        let granule_4k = match mmfr0.read(ID_AA64MMFR0_EL1::TGRAN4_2) {
            0 => !mmfr0.matches_all(ID_AA64MMFR0_EL1::TGRAN4::Absent),
            1 => false,
            _ => true,
        };
        Self {
            pa_bits: pa_bits(mmfr0.read(ID_AA64MMFR0_EL1::PARANGE)),
            vmid_bits: if mmfr1.matches_all(ID_AA64MMFR1_EL1::VMIDBITS::Sixteen) {
                16
            } else {
                8
            },
            coherence: Coherence {
                fwb: mmfr2.read(ID_AA64MMFR2_EL1::FWB) != 0,
                idc: ctr.is_set(CTR_EL0::IDC) || needs_no_clean(id.clidr),
                dic: ctr.is_set(CTR_EL0::DIC),
                pipt: ctr.matches_all(CTR_EL0::L1IP::Pipt),
            },
            dcache_line: 4 << ctr.read(CTR_EL0::DMINLINE),
            icache_line: 4 << ctr.read(CTR_EL0::IMINLINE),
            xnx: mmfr1.read(ID_AA64MMFR1_EL1::XNX) != 0,
            vhe: mmfr1.read(ID_AA64MMFR1_EL1::VH) != 0,
            hafdbs: mmfr1.read(ID_AA64MMFR1_EL1::HAFDBS),
            ttl: mmfr2.read(ID_AA64MMFR2_EL1::TTL) != 0,
            tlbi_range: isar0.read(ID_AA64ISAR0_EL1::TLB) >= 2,
            bbm: mmfr2.read(ID_AA64MMFR2_EL1::BBM),
            fgt: mmfr0.read(ID_AA64MMFR0_EL1::FGT) != 0,
            hcx: mmfr1.read(ID_AA64MMFR1_EL1::HCX) != 0,
            rng: isar0.read(ID_AA64ISAR0_EL1::RNDR) != 0,
            sve: pfr0.read(ID_AA64PFR0_EL1::SVE) != 0,
            ras: pfr0.read(ID_AA64PFR0_EL1::RAS) != 0,
            guest_errors_trap: pfr0.read(ID_AA64PFR0_EL1::RAS) != 0,
            // APA, API, GPA and GPI of one register, APA3 and GPA3 of the other.
            pauth: id.isar1 & 0xff00_0ff0 != 0 || id.isar2 & 0xff00 != 0,
            pmu: has_pmu(id.dfr0),
            pmu_counters: event_counters(id.pmcr),
            pfr0: id.pfr0,
            granule_4k,
            aarch32_el0: pfr0.read(ID_AA64PFR0_EL1::EL0) == 2,
            erratum_834220: Midr(id.midr).is_a57_before_r1p3(),
            midr: id.midr,
        }
    }
}

/// Whether a CPU with this `ID_AA64DFR0_EL1` has the architecture's performance monitors.
#[must_use]
pub fn has_pmu(dfr0: u64) -> bool {
    let dfr0 = LocalRegisterCopy::<u64, ID_AA64DFR0_EL1::Register>::new(dfr0);
    !matches!(dfr0.read(ID_AA64DFR0_EL1::PMUVER), 0 | 0xf)
}

/// `PMCR_EL0.N`.
const fn event_counters(pmcr: u64) -> u8 {
    (pmcr >> 11 & 0x1f) as u8
}

/// `CLIDR_EL1` says that no data cache needs cleaning to the point of unification: LoC is 0, or both LoUIS and LoUU are.
/// The same as `CTR_EL0.IDC` for us.
fn needs_no_clean(clidr: u64) -> bool {
    let clidr = LocalRegisterCopy::<u64, CLIDR_EL1::Register>::new(clidr);
    clidr.read(CLIDR_EL1::LOC) == 0
        || (clidr.read(CLIDR_EL1::LOUIS) == 0 && clidr.read(CLIDR_EL1::LOUU) == 0)
}

/// Physical address bits of a `PARange` field; a value this table does not know counts as the largest it does.
#[must_use]
pub const fn pa_bits(pa_range: u64) -> u32 {
    match pa_range {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => 52,
    }
}

/// The `PARange` (and `VTCR_EL2.PS`) encoding of a number of bits: the largest that does not exceed it.
#[must_use]
pub const fn pa_range(bits: u32) -> u64 {
    match bits {
        0..36 => 0,
        36..40 => 1,
        40..42 => 2,
        42..44 => 3,
        44..48 => 4,
        48..52 => 5,
        _ => 6,
    }
}

/// `MIDR_EL1`, shown as a CPU's name and revision: `Cortex-A72 r0p3`.
#[derive(Clone, Copy)]
pub struct Midr(pub u64);

impl Midr {
    pub(crate) const fn part(self) -> u64 {
        self.0 >> 4 & 0xfff
    }

    pub(crate) const fn is_arm(self) -> bool {
        self.0 >> 24 & 0xff == b'A' as u64
    }

    const fn variant(self) -> u64 {
        self.0 >> 20 & 0xf
    }

    const fn revision(self) -> u64 {
        self.0 & 0xf
    }

    const fn is_a57_before_r1p3(self) -> bool {
        self.is_arm() && self.part() == 0xd07 && (self.variant() << 4 | self.revision()) < 0x13
    }
}

impl fmt::Display for Midr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ARM_PARTS: [(u64, &str); 18] = [
            (0xd03, "Cortex-A53"),
            (0xd04, "Cortex-A35"),
            (0xd05, "Cortex-A55"),
            (0xd07, "Cortex-A57"),
            (0xd08, "Cortex-A72"),
            (0xd09, "Cortex-A73"),
            (0xd0a, "Cortex-A75"),
            (0xd0b, "Cortex-A76"),
            (0xd0c, "Neoverse-N1"),
            (0xd0d, "Cortex-A77"),
            (0xd40, "Neoverse-V1"),
            (0xd41, "Cortex-A78"),
            (0xd44, "Cortex-X1"),
            (0xd46, "Cortex-A510"),
            (0xd47, "Cortex-A710"),
            (0xd49, "Neoverse-N2"),
            (0xd4d, "Cortex-A715"),
            (0xd4f, "Neoverse-V2"),
        ];
        let known = ARM_PARTS
            .iter()
            .find(|(part, _)| self.is_arm() && *part == self.part());
        match known {
            Some((_, name)) => write!(f, "{name} r{}p{}", self.variant(), self.revision()),
            None if self.0 >> 24 & 0xff == 0 => write!(f, "a software CPU (MIDR {:#010x})", self.0),
            None => write!(f, "CPU with MIDR {:#010x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests;
