//! Calls a guest makes with `HVC #0` or `SMC #0`, decoded into values.
//!
//! [`Call::decode`] is total: registers in, a [`Call`] out; [`Call::action`] says what is to be done about it. What is not
//! implemented is answered −1, never success and never an UNDEFINED exception. Function identifiers are the low 32 bits of
//! `x0`; calls of the 32-bit convention have 32-bit arguments. `docs/guest-abi.md` tells guests' authors the same, and a
//! test keeps the identifiers there equal. PSCI is next door.
//!
//! `x4` and up are preserved, floating point and SVE registers too, so a caller that sets the "no SVE live" hint
//! (identifier bit 16) names a function that does not exist, as version 1.1 has it.
//!
//! Does not do: conduits (both are answered alike; the caller advances the PC of a trapped SMC), immediates other than 0, and
//! firmware workarounds.
//!
//! Sources: DEN 0028 "SMC Calling Convention", version 1.1 and later; DEN 0057 "Paravirtualized Time for Arm-based Systems".

mod mitigations;
pub mod trng;

pub use mitigations::{
    ARCH_WORKAROUND_1, ARCH_WORKAROUND_2, ARCH_WORKAROUND_3, Mitigation, Mitigations, Workaround,
};

use crate::addr::Ipa;
use crate::psci;

/// `SMCCC_VERSION`.
pub const VERSION: u32 = 0x8000_0000;
/// `SMCCC_ARCH_FEATURES`.
pub const ARCH_FEATURES: u32 = 0x8000_0001;
/// `PV_TIME_FEATURES`: which parts of paravirtual time are there?
pub const PV_TIME_FEATURES: u32 = 0xc500_0020;
/// `PV_TIME_ST`: where does the calling vCPU find its stolen time?
pub const PV_TIME_ST: u32 = 0xc500_0021;
/// Call UID query of the vendor-specific hypervisor service: who we are.
pub const CALL_UID: u32 = 0x8600_ff01;
/// Our own: the guest is done, with a code.
pub const EXIT: u32 = 0xc600_0000;
/// Our own: one of the VM's counters.
pub const COUNTER: u32 = 0xc600_0001;

/// Bits 29 to 24 of a function identifier: whose service it is.
const OWNER_SHIFT: u32 = 24;
const OWNER: u32 = 0x3f;
const OWNER_ARCHITECTURE: u32 = 0;
const OWNER_STANDARD_SECURE: u32 = 4;
const OWNER_STANDARD_HYPERVISOR: u32 = 5;
const OWNER_VENDOR_HYPERVISOR: u32 = 6;

/// SMCCC 1.1: what `SMCCC_VERSION` answers.
const SMCCC_1_1: u64 = 0x1_0001;

/// `SUCCESS`.
const SUCCESS: u64 = 0;
/// `NOT_SUPPORTED`, −1 in any width.
const NOT_SUPPORTED: u64 = u64::MAX;
/// `NOT_REQUIRED`, −2: what `SMCCC_ARCH_WORKAROUND_2` answers where nothing has to be done.
const NOT_REQUIRED: u64 = u64::MAX - 1;
/// What the other workarounds answer there.
const UNAFFECTED: u64 = 1;

/// Our UID, d9c5e6a4-5a8f-4f0e-9a57-0f4c1e2b7a10, in the order it is written.
pub const UID: [u8; 16] = [
    0xd9, 0xc5, 0xe6, 0xa4, 0x5a, 0x8f, 0x4f, 0x0e, 0x9a, 0x57, 0x0f, 0x4c, 0x1e, 0x2b, 0x7a, 0x10,
];

/// A call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// One of PSCI's functions.
    Psci(psci::Call),
    /// Which version of the convention is this?
    Version,
    /// Is this function of the architecture there?
    ArchFeatures(u32),
    /// One of the workarounds.
    Workaround(Workaround),
    /// One of the entropy functions.
    Trng(trng::Call),
    /// Is this function of paravirtual time there?
    PvTimeFeatures(u32),
    /// Where does this vCPU find its stolen time?
    StolenTime,
    /// Who are you?
    Uid,
    /// The guest is done.
    Exit {
        /// 0: content.
        code: u64,
    },
    /// What does this counter read?
    Counter {
        /// Its number: see `docs/guest-abi.md`.
        id: u64,
    },
    /// Anything else.
    Unknown {
        /// Its function identifier.
        function: u32,
    },
}

/// What is to be done about a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// `x0` to `x3` get these values and the guest goes on.
    Return([u64; 4]),
    /// The vCPU waits for an interrupt as in WFI; then `x0` to `x3` are 0 and the guest goes on.
    Wait,
    /// This vCPU, which is entered as on, starts.
    CpuOn {
        /// Its number.
        vcpu: usize,
        /// Where it starts.
        entry: Ipa,
        /// What it finds in `x0`.
        context: u64,
    },
    /// The vCPU is off and does not come back by itself. The last one takes the VM with it.
    CpuOff,
    /// The VM is off.
    SystemOff,
    /// The VM starts again, or ends: as its policy says.
    SystemReset,
    /// The VM is done, with a code: 0 is content.
    Exit {
        /// The code.
        code: u64,
    },
    /// `x0` to `x3` get [`trng::Request::answer`] and the guest goes on.
    Random(trng::Request),
    /// `x0` gets the address of the calling vCPU's stolen time, or NOT_SUPPORTED if there is no memory for it.
    StolenTime,
    /// `x0` to `x3` get [`counter`] of the VM's counter of this number and the guest goes on.
    Counter {
        /// The number; there may be no such counter.
        id: u64,
    },
}

impl Action {
    /// `x0` gets this value; `x1` to `x3` are cleared.
    pub(crate) const fn answer(x0: u64) -> Self {
        Self::Return([x0, 0, 0, 0])
    }

    /// The convention's refusal.
    pub(crate) const NOT_SUPPORTED: Self = Self::answer(NOT_SUPPORTED);
}

/// `x0` to `x3` after `COUNTER`, for the counter's value or for a counter that does not exist.
#[must_use]
pub const fn counter(value: Option<u64>) -> [u64; 4] {
    match value {
        Some(value) => [SUCCESS, value, 0, 0],
        None => [NOT_SUPPORTED, 0, 0, 0],
    }
}

/// What an answer depends on besides the call.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Who calls.
    pub caller: psci::Caller<'a>,
    /// What is known about the CPUs' weaknesses.
    pub mitigations: Mitigations,
    /// Whether there is a source of entropy.
    pub has_entropy: bool,
}

impl Call {
    /// The call that `x0` to `x3` make.
    #[must_use]
    #[inline]
    pub fn decode(x: [u64; 4]) -> Self {
        let [x0, x1, ..] = x;
        let function = low(x0);
        let call = match function >> OWNER_SHIFT & OWNER {
            OWNER_ARCHITECTURE => Self::of_architecture(function, x1),
            OWNER_STANDARD_SECURE => psci::Call::decode(x)
                .map(Self::Psci)
                .or_else(|| trng::Call::decode(function, x1).map(Self::Trng)),
            OWNER_STANDARD_HYPERVISOR => match function {
                PV_TIME_FEATURES => Some(Self::PvTimeFeatures(low(x1))),
                PV_TIME_ST => Some(Self::StolenTime),
                _ => None,
            },
            OWNER_VENDOR_HYPERVISOR => match function {
                CALL_UID => Some(Self::Uid),
                EXIT => Some(Self::Exit { code: x1 }),
                COUNTER => Some(Self::Counter { id: x1 }),
                _ => None,
            },
            _ => None,
        };
        call.unwrap_or(Self::Unknown { function })
    }

    fn of_architecture(function: u32, x1: u64) -> Option<Self> {
        match function {
            VERSION => Some(Self::Version),
            ARCH_FEATURES => Some(Self::ArchFeatures(low(x1))),
            _ => Workaround::from_function(function).map(Self::Workaround),
        }
    }

    /// What `x0` gets (`x1` to `x3` are cleared), where that depends on nothing at all.
    #[must_use]
    #[inline]
    pub fn constant(&self) -> Option<u64> {
        match self {
            Self::Unknown { .. } => Some(NOT_SUPPORTED),
            Self::Version => Some(SMCCC_1_1),
            Self::Psci(call) => call.constant(),
            _ => None,
        }
    }

    /// What is to be done about it.
    #[must_use]
    pub fn action(self, context: &Context<'_>) -> Action {
        let mitigations = context.mitigations;
        match self {
            Self::Psci(call) => call.action(&context.caller),
            Self::Version => Action::answer(SMCCC_1_1),
            Self::ArchFeatures(function) => arch_features(function, mitigations),
            Self::Workaround(workaround) => match mitigations.of(workaround) {
                Mitigation::NotRequired => Action::answer(SUCCESS),
                Mitigation::Unknown => Action::NOT_SUPPORTED,
            },
            Self::Trng(call) if context.has_entropy => call.action(),
            Self::Trng(_) => Action::NOT_SUPPORTED,
            Self::PvTimeFeatures(PV_TIME_FEATURES | PV_TIME_ST) => Action::answer(SUCCESS),
            Self::PvTimeFeatures(_) => Action::NOT_SUPPORTED,
            Self::StolenTime => Action::StolenTime,
            Self::Uid => Action::Return(uuid_words(&UID)),
            Self::Exit { code } => Action::Exit { code },
            Self::Counter { id } => Action::Counter { id },
            Self::Unknown { .. } => Action::NOT_SUPPORTED,
        }
    }
}

/// The low 32 bits of a register: `Wn`.
pub(crate) const fn low(x: u64) -> u32 {
    (x & u32::MAX as u64) as u32
}

fn arch_features(function: u32, mitigations: Mitigations) -> Action {
    if matches!(function, VERSION | ARCH_FEATURES | PV_TIME_FEATURES) {
        return Action::answer(SUCCESS);
    }
    let Some(workaround) = Workaround::from_function(function) else {
        return Action::NOT_SUPPORTED;
    };
    match (mitigations.of(workaround), workaround) {
        (Mitigation::Unknown, _) => Action::NOT_SUPPORTED,
        (Mitigation::NotRequired, Workaround::SpeculativeStore) => Action::answer(NOT_REQUIRED),
        (Mitigation::NotRequired, _) => Action::answer(UNAFFECTED),
    }
}

/// A UUID as the convention returns it: four words, the first byte in the lowest bits of the first.
fn uuid_words(uuid: &[u8; 16]) -> [u64; 4] {
    let (words, _) = uuid.as_chunks::<4>();
    let mut x = [0; 4];
    for (register, word) in x.iter_mut().zip(words) {
        *register = u64::from(u32::from_le_bytes(*word));
    }
    x
}

#[cfg(test)]
mod tests;
