//! Exceptions that a guest takes because we say so, exactly as the architecture enters EL1.
//!
//! Source: DDI 0487 "Exception entry", AArch64.TakeException() in the pseudocode; "ESR_EL1".

use crate::addr::{Gva, Ipa};
use crate::exit::Abort;
use crate::fault::progress::Progress;
use crate::fault::stop::Stop;
use crate::machine::{El1, Machine};
use crate::registers::{Registers, pstate};

/// `ESR_ELx.IL`
const IL: u64 = 1 << 25;
/// `ISS.WnR`
const WNR: u64 = 1 << 6;
/// `ISS.CM`: cache maintenance, or an address translation instruction.
const CM: u64 = 1 << 8;
/// `ISS.FnV`: FAR is not valid.
const FNV: u64 = 1 << 10;
/// Synchronous external abort, not on a walk.
const FSC_EXTERNAL: u64 = 0x10;
/// Synchronous external abort on a walk, level 0.
const FSC_EXTERNAL_ON_WALK: u64 = 0x14;
/// Address size fault; the level is added.
const FSC_ADDRESS_SIZE: u64 = 0x00;

/// Exception classes we inject, for a lower EL; one more for the same EL.
const EC_INSTRUCTION_ABORT: u64 = 0x20;
const EC_DATA_ABORT: u64 = 0x24;

/// `SCTLR_EL1.SPAN`: PSTATE.PAN is left alone on exception entry.
const SCTLR_SPAN: u64 = 1 << 23;
/// `SCTLR_EL1.DSSBS`: PSTATE.SSBS on exception entry.
const SCTLR_DSSBS: u64 = 1 << 44;

/// A synchronous exception for the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    kind: Kind,
    /// Where the access went, for the explanation if this leads nowhere.
    ipa: Option<Ipa>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Abort { is_fetch: bool, iss: u64, far: Gva },
    Undefined,
}

/// PSTATE features the guest has, which decide what exception entry does to their bits. TCO (MTE), ALLINT (NMI) and EXLOCK
/// (GCS) belong to features that no guest is shown: they stay clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PstateFeatures {
    /// FEAT_PAN.
    pub pan: bool,
    /// FEAT_SSBS.
    pub ssbs: bool,
}

impl Exception {
    fn abort(abort: &Abort, far: Gva, ipa: Option<Ipa>, fsc: u64) -> Self {
        let wnr = if !abort.is_fetch() && abort.wnr() {
            WNR
        } else {
            0
        };
        let cm = if abort.is_maintenance() { CM } else { 0 };
        Self {
            kind: Kind::Abort {
                is_fetch: abort.is_fetch(),
                iss: fsc | wnr | cm,
                far,
            },
            ipa,
        }
    }

    /// A synchronous external abort: there is nothing at that address.
    #[must_use]
    pub fn external(abort: &Abort, far: Gva, ipa: Ipa) -> Self {
        Self::abort(abort, far, Some(ipa), FSC_EXTERNAL)
    }

    /// A synchronous external abort on the guest's own walk, at stage-1 level `level`.
    #[must_use]
    pub fn external_on_walk(abort: &Abort, far: Gva, ipa: Ipa, level: u8) -> Self {
        Self::abort(
            abort,
            far,
            Some(ipa),
            FSC_EXTERNAL_ON_WALK + u64::from(level & 3),
        )
    }

    /// An address size fault at stage-1 level `level`: more bits than the guest's PARange.
    #[must_use]
    pub fn address_size(abort: &Abort, far: Gva, ipa: Ipa, level: u8) -> Self {
        Self::abort(
            abort,
            far,
            Some(ipa),
            FSC_ADDRESS_SIZE + u64::from(level & 3),
        )
    }

    /// An abort with the status it came with: alignment, an exclusive that memory cannot do, an error of the memory itself.
    #[must_use]
    pub fn same_status(abort: &Abort) -> Self {
        let fnv = if abort.far().is_none() { FNV } else { 0 };
        let far = abort.far().unwrap_or_default();
        Self::abort(abort, far, None, abort.esr() & 0x3f | fnv)
    }

    /// An undefined instruction.
    #[must_use]
    pub const fn undefined() -> Self {
        Self {
            kind: Kind::Undefined,
            ipa: None,
        }
    }

    /// Whether it is an abort.
    #[must_use]
    pub const fn is_abort(&self) -> bool {
        matches!(self.kind, Kind::Abort { .. })
    }

    /// Makes the vCPU take it: EL1's syndrome registers, then PC and PSTATE.
    ///
    /// # Errors
    /// [`Stop::NoVectors`] if it would only repeat: the instruction that failed is the vector the last one went to.
    pub fn take<M: Machine>(
        self,
        registers: &mut Registers,
        features: PstateFeatures,
        progress: &mut Progress,
        m: &mut M,
    ) -> Result<(), Stop> {
        let from = Origin::of(registers.pstate);
        let vbar = m.el1(El1::Vbar) & !0x7ff;
        let vector = vbar.wrapping_add(from.vector_offset());
        let is_fetch = matches!(self.kind, Kind::Abort { is_fetch: true, .. });
        progress.note_injection(registers.pc, is_fetch, self.ipa, vbar, vector)?;
        let (esr, far) = match self.kind {
            Kind::Undefined => (IL, None),
            Kind::Abort { is_fetch, iss, far } => {
                let class = if is_fetch {
                    EC_INSTRUCTION_ABORT
                } else {
                    EC_DATA_ABORT
                };
                (
                    (class + u64::from(from == Origin::El1t || from == Origin::El1h)) << 26
                        | IL
                        | iss,
                    Some(far),
                )
            }
        };
        m.set_el1(El1::Esr, esr);
        if let Some(far) = far {
            m.set_el1(El1::Far, far.raw());
        }
        m.set_el1(El1::Elr, registers.pc);
        m.set_el1(El1::Spsr, registers.pstate);
        registers.pstate = pstate_on_entry(registers.pstate, m.el1(El1::Sctlr), features);
        registers.pc = vector;
        Ok(())
    }
}

/// Where an exception to EL1 comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    El1t,
    El1h,
    El0,
    El0Aarch32,
}

impl Origin {
    const fn of(pstate: u64) -> Self {
        match (pstate & pstate::AARCH32 != 0, pstate & pstate::MODE) {
            (true, _) => Self::El0Aarch32,
            (false, pstate::EL1T) => Self::El1t,
            (false, pstate::EL0T) => Self::El0,
            (false, _) => Self::El1h,
        }
    }

    const fn vector_offset(self) -> u64 {
        match self {
            Self::El1t => 0x000,
            Self::El1h => 0x200,
            Self::El0 => 0x400,
            Self::El0Aarch32 => 0x600,
        }
    }
}

/// PSTATE in the handler. Bits not named here (UAO, IL, SS, BTYPE, …) are cleared by exception entry.
fn pstate_on_entry(before: u64, sctlr: u64, features: PstateFeatures) -> u64 {
    let kept = before & (pstate::NZCV | pstate::DIT | pstate::PAN);
    let pan = if features.pan && sctlr & SCTLR_SPAN == 0 {
        pstate::PAN
    } else {
        0
    };
    let ssbs = if features.ssbs && sctlr & SCTLR_DSSBS != 0 {
        pstate::SSBS
    } else {
        0
    };
    kept | pan | ssbs | pstate::DAIF | pstate::EL1H
}
