//! Permission faults: a page is mapped with too few rights. Relax them in place; never allocate, never map over it.

use crate::exit::Need;
use crate::fault::{Fault, FaultingVcpu, GuestMemory, Resolution};
use crate::machine::Machine;
use crate::stage2::maintenance::{self, page_at};
use crate::stage2::{Grant, Present, Relaxed};

/// Answers a fault on RAM where the walk found a page.
///
/// A page that has the right already was faulted on through a stale TLB entry: `relax` drops that too, so no path back
/// into the guest leaves things as they were.
#[inline(never)] // `faultline break` of gdb stops here
pub(super) fn resolve<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    present: Present<'_>,
    m: &mut M,
) -> Resolution {
    #[cfg(faultline_bug = "map-on-permission")]
    if let Some(answer) = map_on_permission(&present) {
        return answer;
    }
    let before = present.rights();
    let grant = more_rights(memory, vcpu, fault.need, &present, m);
    let added = grant.rights().without(before);
    vcpu.counters.tlbi.add(1);
    match present.relax(m, grant) {
        Relaxed::Relaxed => {
            vcpu.counters.note_permission(fault.need);
            for need in [Need::Read, Need::Write, Need::Execute] {
                vcpu.counters.relaxed[need as usize].add(u64::from(added.allows(need.rights())));
            }
        }
        Relaxed::Sufficient => vcpu.counters.sufficient.add(1),
        // Somebody else changed the leaf: the guest tries again with what is there now.
        Relaxed::Raced { .. } => vcpu.counters.raced.add(1),
    }
    Resolution::Retry
}

/// What the guest needs, and what its policy gives with it.
fn more_rights<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    need: Need,
    present: &Present<'_>,
    m: &mut M,
) -> Grant {
    let grant = Grant::data(memory.rights.data_rights(need));
    if need == Need::Execute && !present.rights().allows(need.rights()) {
        let page = page_at(present.output_address());
        let ready = maintenance::make_executable(m, page, memory.stage2.coherence());
        vcpu.counters.icache.add(u64::from(ready.was_maintained()));
        grant.and_execute(ready)
    } else {
        grant
    }
}

/// KVM's mistake of May 2026, on purpose: a permission fault goes to a `map` that finds something there and answers
/// "already there". The progress detector names it; `make image` refuses to build it.
#[cfg(faultline_bug = "map-on-permission")]
fn map_on_permission(_already_there: &Present<'_>) -> Option<Resolution> {
    Some(Resolution::Retry)
}
