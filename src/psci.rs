//! PSCI 1.1.
//!
//! The functions that are there do what the specification says; [`FEATURES`](FunctionId::PsciFeatures) names exactly these,
//! and every other one is `NOT_SUPPORTED`. What changes the VM is an [`Action`]; which vCPUs are on is in [`Power`], where
//! races are decided. Nothing is powered, so a suspend is a wait.
//!
//! Source: DEN 0022 "Arm Power State Coordination Interface", sections 5.1 "Function prototypes", 5.2.2 "Return error codes",
//! 5.4 "Parameter encoding" and 6.4 "Initial core configuration".

mod power;

use arm_psci::{
    AffinityInfo, EntryPoint, ErrorCode, Function, FunctionId, MigrateInfoType, PsciFeature,
    ResetType,
};

pub use power::Power;

use crate::addr::{Ipa, IpaRange};
use crate::smccc::{Action, low};

/// What `PSCI_VERSION` answers: 1.1, the major version in bits 31 to 16.
const VERSION: u64 = 1 << 16 | 1;

/// Bits of a `power_state` in the original format that must be zero: all but `StateID`, `StateType` and `PowerLevel`.
const POWER_STATE_RESERVED: u32 = 0xfcfe_0000;
/// `StateType` of a `power_state`: a power-down state, which would go on at an entry point.
const POWER_STATE_DOWN: u32 = 1 << 16;

/// Bits of an affinity field.
const AFFINITY_BITS: u32 = 8;
/// Where `Aff3` stands: not next to the others.
const AFF3_SHIFT: u32 = 32;
/// Bytes of an A64 instruction, and their alignment.
const INSTRUCTION: u64 = 4;

/// A PSCI call: the function and the registers it came with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    function: FunctionId,
    x: [u64; 4],
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Number of the vCPU.
    pub vcpu: usize,
    /// Which vCPUs of its VM are on.
    pub power: &'a Power,
    /// Its VM's RAM, where an entry point has to be.
    pub ram: IpaRange,
}

impl Caller<'_> {
    /// Whether a vCPU could start here: the address of an instruction in RAM.
    fn can_enter(&self, entry: Ipa) -> bool {
        self.ram.contains(entry) && entry.is_aligned(INSTRUCTION)
    }
}

impl Call {
    /// The PSCI call that `x0` to `x3` make, if it is one.
    #[must_use]
    #[inline]
    pub fn decode(x: [u64; 4]) -> Option<Self> {
        let function = FunctionId::try_from(low(x[0])).ok()?;
        Some(Self { function, x })
    }

    /// What `x0` gets, where that depends on nothing at all.
    #[must_use]
    #[inline]
    pub fn constant(&self) -> Option<u64> {
        (self.function == FunctionId::PsciVersion).then_some(VERSION)
    }

    /// What is to be done about it. A `CPU_ON` that succeeds is entered in [`Power`] already.
    #[must_use]
    pub fn action(self, caller: &Caller<'_>) -> Action {
        if !is_implemented(self.function) {
            return error(ErrorCode::NotSupported);
        }
        match self.function {
            // Decoded here: the crate knows only the extended format, which FEATURES says we do not use.
            FunctionId::CpuSuspend32 => suspend(low(self.x[1]), u64::from(low(self.x[2])), caller),
            FunctionId::CpuSuspend64 => suspend(low(self.x[1]), self.x[2], caller),
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

fn answer(function: Function, caller: &Caller<'_>) -> Action {
    match function {
        Function::Version => Action::answer(VERSION),
        // Never DENIED: only a Trusted OS that lives on the CPU may do that.
        Function::CpuOff => Action::CpuOff,
        Function::CpuOn { target_cpu, entry } => cpu_on(u64::from(target_cpu), entry, caller),
        Function::AffinityInfo {
            mpidr,
            lowest_affinity_level,
        } => affinity_info(u64::from(mpidr), lowest_affinity_level, caller.power),
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

/// What is wrong is said in this order: no such target, a target that is on, an entry point where nothing can be.
fn cpu_on(target: u64, entry: EntryPoint, caller: &Caller<'_>) -> Action {
    let (entry, context) = (Ipa::new(entry.entry_point_address()), entry.context_id());
    let Some(vcpu) = caller.power.find(target) else {
        return error(ErrorCode::InvalidParameters);
    };
    if caller.power.is_on(vcpu) {
        error(ErrorCode::AlreadyOn)
    } else if !caller.can_enter(entry) {
        error(ErrorCode::InvalidAddress)
    } else if caller.power.switch_on(vcpu) {
        Action::CpuOn {
            vcpu,
            entry,
            context,
        }
    } else {
        // Somebody else was faster.
        error(ErrorCode::AlreadyOn)
    }
}

/// Whatever state is asked for, the vCPU waits in one that keeps everything, and the call returns: a power-down state may
/// always be left that way, as by an interrupt that comes before the power is off.
fn suspend(power_state: u32, entry: u64, caller: &Caller<'_>) -> Action {
    if power_state & POWER_STATE_RESERVED != 0 {
        error(ErrorCode::InvalidParameters)
    } else if power_state & POWER_STATE_DOWN != 0 && !caller.can_enter(Ipa::new(entry)) {
        error(ErrorCode::InvalidAddress)
    } else {
        Action::Wait
    }
}

/// Whether any vCPU below this node of the affinity hierarchy is on.
fn affinity_info(target: u64, lowest_level: u32, power: &Power) -> Action {
    let compared = match lowest_level {
        0..=2 => u64::MAX << (lowest_level * AFFINITY_BITS),
        3 => u64::MAX << AFF3_SHIFT,
        _ => return error(ErrorCode::InvalidParameters),
    };
    let state = match power.any_on(target, compared) {
        Some(true) => AffinityInfo::On,
        Some(false) => AffinityInfo::Off,
        None => return error(ErrorCode::InvalidParameters),
    };
    Action::answer(u64::from(u32::from(state)))
}

/// An error code, sign-extended as both conventions read it.
fn error(code: ErrorCode) -> Action {
    Action::answer(u64::from(code))
}

#[cfg(test)]
mod tests;
