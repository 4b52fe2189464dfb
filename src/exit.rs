//! A guest exit as a value, decoded once.
//!
//! [`Exit::decode`] is pure and total: every syndrome the hardware can report becomes exactly one exit, and what this
//! version does not know keeps its raw syndrome. Nothing here acts.
//!
//! Source: DDI 0487 "ESR_EL2, Exception Syndrome Register (EL2)", one ISS encoding per exception class.

mod abort;
pub mod instruction;
mod syndrome;

pub use abort::{Abort, FaultStatus, Need, Transfer};
pub use syndrome::{Syndrome, SysRegAccess};

pub use syndrome::encoding;
use syndrome::{EC, ESR, Esr};

/// Which of the four lower-EL vectors was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Vector {
    /// Synchronous.
    Synchronous = 0,
    /// IRQ.
    Irq = 1,
    /// FIQ.
    Fiq = 2,
    /// SError.
    SError = 3,
}

/// Why the guest left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A physical interrupt.
    Interrupt,
    /// A data or instruction abort on a stage-2 matter, or an external abort.
    Abort(Abort),
    /// `HVC #imm`; the PC is past it already.
    Hvc(u16),
    /// `SMC #imm`, trapped; the PC is at it.
    Smc(u16),
    /// A trapped `MSR`, `MRS` or system instruction.
    SysReg(SysRegAccess),
    /// A trapped `WFI` or `WFE`.
    Wait {
        /// `WFE`, which may have been sent its event already. Or a wait with a deadline, `WFIT` or `WFET`, of a guest that was
        /// told there is none: a short wait is right whatever the deadline.
        event: bool,
    },
    /// Use of a feature the guest was told it does not have (SVE, SME, trace, pointer authentication traps, …).
    Hidden {
        /// `ESR_EL2.EC`
        class: u64,
    },
    /// A system error.
    SError {
        /// `ESR_EL2`
        esr: u64,
    },
    /// An exception class that nothing we enable produces.
    Unknown {
        /// `ESR_EL2`
        esr: u64,
    },
}

impl Exit {
    /// What happened.
    #[must_use]
    pub fn decode(vector: Vector, syndrome: &Syndrome) -> Self {
        match vector {
            Vector::Synchronous => Self::decode_synchronous(syndrome),
            Vector::Irq | Vector::Fiq => Self::Interrupt,
            Vector::SError => Self::SError { esr: syndrome.esr },
        }
    }

    fn decode_synchronous(syndrome: &Syndrome) -> Self {
        let esr = Esr::new(syndrome.esr);
        let imm = (esr.read(ESR::ISS) & 0xffff) as u16;
        match esr.read(ESR::EC) {
            EC::INSTRUCTION_ABORT_LOWER | EC::DATA_ABORT_LOWER => Self::Abort(Abort::of(syndrome)),
            EC::HVC64 => Self::Hvc(imm),
            EC::SMC64 => Self::Smc(imm),
            EC::SYSREG => Self::SysReg(SysRegAccess::decode(esr.read(ESR::ISS))),
            EC::WFX => Self::Wait {
                event: is_for_event(&esr),
            },
            class @ (EC::FP_SIMD
            | EC::PAUTH
            | EC::LS64
            | EC::SVE
            | EC::SME
            | EC::CP15_32..=EC::CP14_LDC
            | EC::CP14_64) => Self::Hidden { class },
            _ => Self::Unknown { esr: syndrome.esr },
        }
    }
}

/// Whether a synchronous exit is that of a wait for an event (WFE), or for an interrupt (WFI); `None`: of neither.
#[must_use]
#[inline]
pub fn waits(syndrome: &Syndrome) -> Option<bool> {
    let esr = Esr::new(syndrome.esr);
    (esr.read(ESR::EC) == EC::WFX).then(|| is_for_event(&esr))
}

fn is_for_event(esr: &Esr) -> bool {
    esr.read(ESR::TI) != 0
}

/// Whether a system error was corrected (`AET` CE) or lets what was interrupted go on (UEO), on a CPU with FEAT_RAS.
///
/// Source: DDI 0487 "ISS encoding for an SError interrupt": IDS, AET, DFSC.
#[must_use]
pub fn is_survivable(esr: u64) -> bool {
    const ASYNCHRONOUS_SERROR: u64 = 0x11;
    let esr = Esr::new(esr);
    let is_architected = !esr.is_set(ESR::IDS) && esr.read(ESR::FSC) == ASYNCHRONOUS_SERROR;
    is_architected && matches!(esr.read(ESR::AET), 0b010 | 0b110)
}

#[cfg(test)]
mod tests;
