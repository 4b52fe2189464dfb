//! Translation faults: nothing is mapped. Take a page from the pool, make it clean, map it.

use crate::addr::Pa;
use crate::exit::Need;
use crate::fault::{
    Fault, FaultingVcpu, GuestMemory, Resolution, RightsPolicy, Stop, contents_of, page_of,
};
use crate::machine::Machine;
use crate::stage2::{Absent, CleanPage, Grant, Mapped, Tables};

/// Answers a fault on RAM where the walk found nothing.
///
/// Prepare, then commit: the page is taken, filled and cleaned, and the tables are at hand, before anything in the tree
/// changes.
#[inline(never)] // `faultline break` of gdb stops here
pub(super) fn resolve<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    absent: Absent<'_>,
    m: &mut M,
) -> Resolution {
    let Ok(mut tables) = Tables::prepare(m, memory.pool, absent.tables_needed()) else {
        return out_of_pages(memory);
    };
    let Some(page) = fresh_page(memory, fault, m) else {
        tables.give_back(memory.pool);
        return out_of_pages(memory);
    };
    let coherence = memory.stage2.coherence();
    vcpu.counters.dcache.add(u64::from(!coherence.fwb));
    let grant = first_grant(memory, vcpu, fault.need, &page, m);
    match absent.map(m, page, grant, &mut tables) {
        Mapped::Installed => {
            vcpu.counters.mapped.add(1);
            vcpu.counters.note_translation(fault.need);
        }
        // Another vCPU mapped the page first. The guest tries again and finds it, or faults for a right it lacks.
        Mapped::Raced { page, .. } => {
            vcpu.counters.raced.add(1);
            page.give_back(m, memory.pool);
        }
    }
    tables.give_back(memory.pool);
    Resolution::Retry
}

/// A page for the IPA of the fault: of zeroes, which this pCPU has at hand most of the time, or with what was loaded there.
fn fresh_page<M: Machine>(
    memory: &GuestMemory<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Option<CleanPage> {
    let coherence = memory.stage2.coherence();
    let mut contents = contents_of(memory.contents, fault.ipa).peekable();
    if contents.peek().is_none() {
        return CleanPage::take(m, memory.pool, coherence);
    }
    let page = memory.pool.take_raw(m.cpu())?;
    Some(page.filled(m, coherence, |m, pa| {
        contents.for_each(|content| content.fill(m, page_of(fault.ipa), pa));
    }))
}

/// The rights a fresh page starts with.
fn first_grant<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    need: Need,
    page: &CleanPage,
    m: &mut M,
) -> Grant {
    let grant = Grant::data(memory.rights.data_rights(need));
    let coherence = memory.stage2.coherence();
    // With DIC = 0 a page starts without X, so that the first fetch is the hook for I-cache maintenance.
    if need == Need::Execute || (memory.rights == RightsPolicy::Eager && coherence.dic) {
        let ready = page.make_executable(m, coherence);
        vcpu.counters.icache.add(u64::from(ready.was_maintained()));
        grant.and_execute(ready)
    } else {
        grant
    }
}

/// Answers a fault on a hardware window where the walk found nothing: its page is mapped, nothing but tables is taken
/// from the pool.
#[inline(never)] // `faultline break` of gdb stops here
pub(super) fn map_window<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    absent: Absent<'_>,
    page: Pa,
    m: &mut M,
) -> Resolution {
    let Ok(mut tables) = Tables::prepare(m, memory.pool, absent.tables_needed()) else {
        return out_of_pages(memory);
    };
    vcpu.counters
        .windows
        .add(u64::from(absent.map_window(m, page, &mut tables).is_ok()));
    tables.give_back(memory.pool);
    Resolution::Retry
}

fn out_of_pages(memory: &GuestMemory<'_>) -> Resolution {
    let account = memory.pool.account();
    Resolution::Stop(Stop::OutOfPages {
        total: account.total,
        mapped: memory.stage2.page_count(),
    })
}
