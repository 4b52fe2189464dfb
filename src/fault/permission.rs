//! Permission faults: memory is mapped with too few rights. Relax them in place; never map over it.
//!
//! Nothing is allocated but for two reasons: a block is split where rights are needed page by page, and memory that is
//! lent is copied when it is written.

use crate::exit::Need;
use crate::fault::ram::RamFault;
use crate::fault::{Fault, Resolution, copy, page_of};
use crate::machine::Machine;
use crate::stage2::maintenance;
use crate::stage2::{Grant, Leaf, Level, OutOfPages, Present, Relaxed, Rights};
use crate::stats::Counters;

/// Answers a fault on RAM where the walk found a page or a block.
///
/// A leaf that has the right already was faulted on through a stale TLB entry: `relax` drops that too, so no path back
/// into the guest leaves things as they were.
#[inline(always)]
pub(super) fn resolve<M: Machine>(
    fault: &RamFault<'_>,
    present: Present<'_>,
    m: &mut M,
) -> Resolution {
    #[cfg(faultline_bug = "map-on-permission")]
    if let Some(answer) = map_on_permission(&present) {
        return answer;
    }
    let is_block = !present.level().is_last();
    // What it gets would be given to another slot's memory as well, which may be read-only.
    let reaches_out = is_block && !fault.holds(present.range());
    if present.rights().allows(fault.need.rights()) && !reaches_out {
        return relax(fault, present, m);
    }
    if reaches_out || (fault.is_logged && is_block) {
        return page_of_block(*fault, m);
    }
    one_leaf(fault, present, m)
}

/// Splits the block, and gives the page alone what it lacks.
#[cold]
fn page_of_block<M: Machine>(fault: RamFault<'_>, m: &mut M) -> Resolution {
    match split(&fault, m) {
        Ok(Leaf::Present(page)) => one_leaf(&fault, page, m),
        // Taken back, or being changed: the guest tries again with what is there now.
        Ok(Leaf::Absent(_)) => {
            fault.note_raced();
            Resolution::Retry
        }
        Err(OutOfPages) => fault.out_of_pages(),
    }
}

#[inline(always)]
fn one_leaf<M: Machine>(fault: &RamFault<'_>, present: Present<'_>, m: &mut M) -> Resolution {
    if fault.need == Need::Write && present.is_lent() {
        copy::resolve(*fault, present, m)
    } else {
        relax(fault, present, m)
    }
}

/// Splits the block at the place that faulted down to pages. Answers what is mapped there then.
pub(super) fn split<'a, M: Machine>(
    fault: &RamFault<'a>,
    m: &mut M,
) -> Result<Leaf<'a>, OutOfPages> {
    let stage2 = fault.stage2();
    let blocks = stage2.split(m, page_of(fault.ipa), Level::LAST, fault.memory.pool)?;
    fault.counters.split.add(blocks);
    Ok(stage2.walk().leaf(m, fault.ipa))
}

/// Gives a leaf the rights it lacks, in place.
#[inline(always)]
fn relax<M: Machine>(fault: &RamFault<'_>, present: Present<'_>, m: &mut M) -> Resolution {
    let before = present.rights();
    let mut grant = fault.data_grant();
    if present.is_lent() {
        grant = Grant::data(grant.rights().without(Rights::WRITE));
    }
    if fault.need == Need::Execute && !before.allows(Rights::EXECUTE) {
        let (memory, coherence) = (present.output(), fault.stage2().coherence());
        let make_executable = |m: &mut M| maintenance::make_executable(m, memory, coherence);
        grant = fault.and_execute(grant, make_executable, m);
    }
    let added = grant.rights().without(before);
    fault.counters.tlbi.add(1);
    match present.relax(m, grant) {
        Relaxed::Relaxed => {
            fault.counters.note_permission(fault.need);
            for need in [Need::Read, Need::Write, Need::Execute] {
                if added.allows(need.rights()) {
                    fault.counters.relaxed[need as usize].add(1);
                }
            }
        }
        Relaxed::Sufficient => fault.counters.sufficient.add(1),
        // Somebody else changed the leaf: the guest tries again with what is there now.
        Relaxed::Raced { .. } => fault.note_raced(),
    }
    Resolution::Retry
}

/// Answers a fault on a window that is mapped already: it has all the rights a window has, so the CPU's entry is stale.
pub(super) fn drop_stale<M: Machine>(
    counters: &Counters,
    fault: &Fault<'_>,
    present: Present<'_>,
    m: &mut M,
) -> Resolution {
    let grant = Grant::data(fault.need.rights());
    counters.tlbi.add(1);
    match present.relax(m, grant) {
        Relaxed::Relaxed => counters.note_permission(fault.need),
        Relaxed::Sufficient => counters.sufficient.add(1),
        Relaxed::Raced { .. } => counters.raced.add(1),
    }
    Resolution::Retry
}

/// KVM's mistake of May 2026, on purpose: a permission fault goes to a `map` that finds something there and answers
/// "already there". The progress detector names it; `make image` refuses to build it.
#[cfg(faultline_bug = "map-on-permission")]
fn map_on_permission(_already_there: &Present<'_>) -> Option<Resolution> {
    Some(Resolution::Retry)
}
