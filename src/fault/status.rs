//! Faults that are not about what is mapped: errors of the hardware, TLB conflicts, and what the guest's own access was wrong
//! about. None of them maps anything, and none reaches beyond the VM that met it.
//!
//! An error met by a guest's access is the guest's, as it would be on a machine of its own, unless it lies in the memory of
//! our tables. Then this VM cannot be translated for any more, and is stopped.
//!
//! Source: DDI 0487 "Synchronous External abort", "TLB conflict aborts", "HCR_EL2.TEA".

use crate::addr::Ipa;
use crate::exit::{Abort, FaultStatus};
use crate::fault::elsewhere::too_large;
use crate::fault::inject::Exception;
use crate::fault::progress::{Attempt, Escalation};
use crate::fault::{FaultingVcpu, GuestMemory, Resolution, Stop, ipa, unlocated};
use crate::machine::Machine;
use crate::stage2::maintenance;

/// Whether the abort is about what is mapped, and not one for [`resolve`].
#[inline]
pub(super) fn is_about_leaf(abort: &Abort) -> bool {
    matches!(
        abort.status(),
        FaultStatus::Translation(_) | FaultStatus::AccessFlag(_) | FaultStatus::Permission(_)
    )
}

/// The answer to a status that no page can mend; `None` if the abort [`is_about_leaf`].
#[cold]
pub(super) fn resolve<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    abort: &Abort,
    m: &mut M,
) -> Option<Resolution> {
    let (pc, esr) = (vcpu.registers.pc, abort.esr());
    Some(match abort.status() {
        FaultStatus::Translation(_) | FaultStatus::AccessFlag(_) | FaultStatus::Permission(_) => {
            return None;
        }
        FaultStatus::AddressSize(_) => address_size(memory, vcpu, abort, m),
        FaultStatus::TlbConflict => tlb_conflict(vcpu, abort, m),
        FaultStatus::ExternalOnWalk(_) | FaultStatus::ParityOnWalk(_)
            if is_our_table(memory, abort) =>
        {
            Resolution::Stop(Stop::TableMemory { pc, esr })
        }
        FaultStatus::Alignment
        | FaultStatus::UnsupportedExclusive
        | FaultStatus::External
        | FaultStatus::Parity
        | FaultStatus::ExternalOnWalk(_)
        | FaultStatus::ParityOnWalk(_) => Resolution::Inject(Exception::same_status(abort)),
        // The guest's walker could not set a flag in the guest's table: memory of a type that cannot do it.
        FaultStatus::UnsupportedUpdate if abort.s1ptw() => {
            Resolution::Inject(Exception::same_status(abort))
        }
        FaultStatus::UnsupportedUpdate | FaultStatus::GranuleProtection | FaultStatus::Other(_) => {
            Resolution::Stop(Stop::Hardware { pc, esr })
        }
    })
}

/// An address that is too large: the guest's, with more bits than its PARange says that there are; or one in our tables.
fn address_size<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    abort: &Abort,
    m: &mut M,
) -> Resolution {
    let far = abort.far().unwrap_or_default();
    let Some((ipa, by_at)) = ipa::locate(abort, far, memory.erratum_834220, m) else {
        return unlocated(vcpu, abort, far, m);
    };
    vcpu.counters.note_place(by_at, abort.s1ptw());
    if ipa.raw() >= memory.stage2.config().limit() {
        let ipa = Ipa::new(ipa.raw() | far.page_offset());
        return too_large(memory, abort, far, ipa, m);
    }
    Resolution::Stop(Stop::OutputSize {
        pc: vcpu.registers.pc,
        ipa,
        esr: abort.esr(),
    })
}

/// Whether an error on a walk was met in stage 2's tables. A stage-1 walk's own errors come to EL2 only with
/// `HCR_EL2.TEA`, and then without S1PTW.
fn is_our_table(memory: GuestMemory<'_>, abort: &Abort) -> bool {
    abort.s1ptw() || !memory.guest_errors_trap
}

/// Two entries for one address: both go, and the guest tries again. A block or a table that is resized in place may be met so
/// until its TLBI is over. Here first, then everywhere; if that does not help, a break-before-make of ours is missing, and this
/// VM is stopped.
fn tlb_conflict<M: Machine>(vcpu: &mut FaultingVcpu<'_>, abort: &Abort, m: &mut M) -> Resolution {
    let pc = vcpu.registers.pc;
    vcpu.counters.tlb_conflicts.add(1);
    vcpu.counters.tlbi.add(1);
    let attempt = Attempt {
        pc,
        far: abort.far().unwrap_or_default(),
        ipa: None,
        need: abort.need(),
        code: abort.code(),
        descriptor: 0,
    };
    match vcpu.progress.note(attempt) {
        Escalation::None => maintenance::forget_vmid(m),
        Escalation::Invalidate | Escalation::Remake => maintenance::invalidate_vmid(m),
        Escalation::Stop { .. } => {
            return Resolution::Stop(Stop::TlbConflict {
                pc,
                esr: abort.esr(),
            });
        }
    }
    Resolution::Retry
}
