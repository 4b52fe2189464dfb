//! Weaknesses of CPUs that firmware can work around, and what is known about them on these CPUs.
//!
//! "Not required" is said only where the CPU proves it (`ID_AA64PFR0_EL1.CSV2`) or its maker's list of unaffected cores names
//! it: those that do not speculate far enough. Otherwise the answer is NOT_SUPPORTED: a guest that is told of a firmware
//! workaround calls it on every entry from EL0, a trap to EL2 each time that would protect nothing.
//!
//! Sources: Arm "Speculative Processor Vulnerability", tables of affected cores; DEN 0028, 7.5 and on; DDI 0487
//! "ID_AA64PFR0_EL1".

use crate::features::Midr;

/// `SMCCC_ARCH_WORKAROUND_1`: branch target injection.
pub const ARCH_WORKAROUND_1: u32 = 0x8000_8000;
/// `SMCCC_ARCH_WORKAROUND_2`: speculative store bypass.
pub const ARCH_WORKAROUND_2: u32 = 0x8000_7fff;
/// `SMCCC_ARCH_WORKAROUND_3`: branch history injection.
pub const ARCH_WORKAROUND_3: u32 = 0x8000_3fff;

/// A weakness of CPUs that firmware can work around.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workaround {
    /// `SMCCC_ARCH_WORKAROUND_1`.
    BranchTarget,
    /// `SMCCC_ARCH_WORKAROUND_2`.
    SpeculativeStore,
    /// `SMCCC_ARCH_WORKAROUND_3`.
    BranchHistory,
}

impl Workaround {
    pub(super) const fn from_function(function: u32) -> Option<Self> {
        match function {
            ARCH_WORKAROUND_1 => Some(Self::BranchTarget),
            ARCH_WORKAROUND_2 => Some(Self::SpeculativeStore),
            ARCH_WORKAROUND_3 => Some(Self::BranchHistory),
            _ => None,
        }
    }
}

/// What is known about a weakness. The less is known, the smaller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Mitigation {
    /// We do not know, or it is there and we do nothing: the guest is told that it is on its own.
    #[default]
    Unknown,
    /// The CPU does not have it.
    NotRequired,
}

/// What is known about all of them. The default claims nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mitigations {
    /// Branch target injection (Spectre variant 2).
    pub branch_target: Mitigation,
    /// Speculative store bypass (variant 4).
    pub speculative_store: Mitigation,
    /// Branch history injection.
    pub branch_history: Mitigation,
}

/// Position of `ID_AA64PFR0_EL1.CSV2`, four bits.
const CSV2_SHIFT: u32 = 56;
/// `CSV2` from here on: branch targets do not leak between contexts.
const CSV2_BRANCH_TARGETS: u64 = 1;
/// `CSV2` from here on (`FEAT_CSV2_3`): nor does branch history.
const CSV2_BRANCH_HISTORY: u64 = 3;
/// Parts of Arm's that have none of these weaknesses: Cortex-A35, A53, A55, which execute in order.
const UNAFFECTED_PARTS: [u64; 3] = [0xd04, 0xd03, 0xd05];

impl Mitigations {
    /// What is known of a CPU with this `MIDR_EL1` and this `ID_AA64PFR0_EL1`.
    #[must_use]
    pub fn new(midr: u64, id_aa64pfr0: u64) -> Self {
        let csv2 = id_aa64pfr0 >> CSV2_SHIFT & 0xf;
        let midr = Midr(midr);
        let in_order = midr.is_arm() && UNAFFECTED_PARTS.contains(&midr.part());
        Self {
            branch_target: proved(in_order || csv2 >= CSV2_BRANCH_TARGETS),
            speculative_store: proved(in_order),
            branch_history: proved(in_order || csv2 >= CSV2_BRANCH_HISTORY),
        }
    }

    /// What is known of both of two CPUs, for a vCPU that may run on either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            branch_target: self.branch_target.min(other.branch_target),
            speculative_store: self.speculative_store.min(other.speculative_store),
            branch_history: self.branch_history.min(other.branch_history),
        }
    }

    pub(super) const fn of(self, workaround: Workaround) -> Mitigation {
        match workaround {
            Workaround::BranchTarget => self.branch_target,
            Workaround::SpeculativeStore => self.speculative_store,
            Workaround::BranchHistory => self.branch_history,
        }
    }
}

const fn proved(unaffected: bool) -> Mitigation {
    if unaffected {
        Mitigation::NotRequired
    } else {
        Mitigation::Unknown
    }
}
