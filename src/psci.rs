//! PSCI 1.1 for a VM with one vCPU.
//!
//! The functions that are there do what the specification says; [`FEATURES`](FunctionId::PsciFeatures) names exactly these,
//! and every other one is `NOT_SUPPORTED`. Nothing is powered, so a suspend is a wait and an `OFF` is for good.
//!
//! Source: DEN 0022 "Arm Power State Coordination Interface", sections 5.1 "Function prototypes", 5.2.2 "Return error codes"
//! and 5.4 "Parameter encoding".

use arm_psci::{
    AffinityInfo, ErrorCode, Function, FunctionId, MigrateInfoType, PsciFeature, ResetType, Version,
};

use crate::board::Mpidr;
use crate::smccc::{Action, low};

/// What `PSCI_VERSION` answers.
const PSCI_1_1: Version = Version { major: 1, minor: 1 };

/// Bits of a `power_state` in the original format that must be zero: all but `StateID`, `StateType` and `PowerLevel`.
const POWER_STATE_RESERVED: u32 = 0xfcfe_0000;

/// Bits of an affinity field.
const AFFINITY_BITS: u32 = 8;
/// Where `Aff3` stands: not next to the others.
const AFF3_SHIFT: u32 = 32;

/// A PSCI call: the function and the registers it came with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    function: FunctionId,
    x: [u64; 4],
}

impl Call {
    /// The PSCI call that `x0` to `x3` make, if it is one.
    #[must_use]
    pub fn decode(x: [u64; 4]) -> Option<Self> {
        let function = FunctionId::try_from(low(x[0])).ok()?;
        Some(Self { function, x })
    }

    /// What is to be done about it, for a vCPU of this affinity in a VM that has no other.
    #[must_use]
    pub fn action(&self, caller: Mpidr) -> Action {
        if !is_implemented(self.function) {
            return error(ErrorCode::NotSupported);
        }
        match self.function {
            // Decoded here: the crate knows only the extended format, which FEATURES says we do not use.
            FunctionId::CpuSuspend32 | FunctionId::CpuSuspend64 => suspend(low(self.x[1])),
            _ => match Function::try_from(&self.x) {
                Ok(function) => answer(function, caller),
                Err(why) => error(why.into()),
            },
        }
    }
}

/// Whether a function is there: what `PSCI_FEATURES` says.
const fn is_implemented(function: FunctionId) -> bool {
    matches!(
        function,
        FunctionId::PsciVersion
            | FunctionId::CpuSuspend32
            | FunctionId::CpuSuspend64
            | FunctionId::CpuOff
            | FunctionId::CpuOn32
            | FunctionId::CpuOn64
            | FunctionId::AffinityInfo32
            | FunctionId::AffinityInfo64
            | FunctionId::MigrateInfoType
            | FunctionId::SystemOff
            | FunctionId::SystemReset
            | FunctionId::PsciFeatures
            | FunctionId::SystemReset232
            | FunctionId::SystemReset264
    )
}

fn answer(function: Function, caller: Mpidr) -> Action {
    match function {
        Function::Version => Action::answer(u64::from(u32::from(PSCI_1_1))),
        // Never DENIED: only a Trusted OS that lives on the CPU may do that.
        Function::CpuOff => Action::CpuOff,
        Function::CpuOn { target_cpu, .. } if u64::from(target_cpu) == caller.raw() => {
            error(ErrorCode::AlreadyOn)
        }
        Function::CpuOn { .. } => error(ErrorCode::InvalidParameters),
        Function::AffinityInfo {
            mpidr,
            lowest_affinity_level,
        } => affinity_info(u64::from(mpidr), lowest_affinity_level, caller),
        Function::MigrateInfoType => {
            Action::answer(u64::from(u32::from(MigrateInfoType::MigrationNotRequired)))
        }
        Function::SystemOff => Action::SystemOff,
        Function::SystemReset
        | Function::SystemReset2 {
            reset_type: ResetType::Architectural(_),
            ..
        } => Action::SystemReset,
        // There are no vendor-specific resets.
        Function::SystemReset2 { .. } => error(ErrorCode::InvalidParameters),
        Function::Features { psci_func_id } => features(psci_func_id),
        _ => error(ErrorCode::NotSupported),
    }
}

/// Zero, the flags of every function we have: original format of power states, platform-coordinated mode.
fn features(feature: PsciFeature) -> Action {
    match feature {
        PsciFeature::SmcccVersion => Action::answer(0),
        PsciFeature::PsciFunction(function) if is_implemented(function) => Action::answer(0),
        PsciFeature::PsciFunction(_) => error(ErrorCode::NotSupported),
    }
}

/// Whatever state is asked for, the vCPU waits in one that keeps everything, as a caller must expect.
fn suspend(power_state: u32) -> Action {
    if power_state & POWER_STATE_RESERVED == 0 {
        Action::Wait
    } else {
        error(ErrorCode::InvalidParameters)
    }
}

/// Whether any vCPU below this node of the affinity hierarchy is on: the caller is, and there is no other.
fn affinity_info(target: u64, lowest_level: u32, caller: Mpidr) -> Action {
    let compared = match lowest_level {
        0..=2 => u64::MAX << (lowest_level * AFFINITY_BITS),
        3 => u64::MAX << AFF3_SHIFT,
        _ => return error(ErrorCode::InvalidParameters),
    };
    if target & compared == caller.raw() & compared {
        Action::answer(u64::from(u32::from(AffinityInfo::On)))
    } else {
        error(ErrorCode::InvalidParameters)
    }
}

/// An error code, sign-extended as both conventions read it.
fn error(code: ErrorCode) -> Action {
    Action::answer(u64::from(code))
}

#[cfg(test)]
mod tests;
