//! Translation faults: nothing is mapped. Take memory from the pool, make it clean, map it.
//!
//! Prepare, then commit: memory is taken, filled and cleaned, and the tables are at hand, before anything in the tree
//! changes. What a boot loader left in memory just as a leaf needs it is not copied but lent, until the guest writes it.

use crate::addr::{Pa, PaRange};
use crate::fault::ram::{RamFault, out_of_pages};
use crate::fault::{GuestMemory, Resolution, block, group, neighbours};
use crate::machine::Machine;
use crate::stage2::{Absent, Lent, Level, Mapped, Rights, Tables};
use crate::stats::Counters;

/// Answers a fault on RAM where the walk found nothing: with the largest leaf that the policy permits, that lies in the
/// slot, that finds nothing mapped, and that the pool has.
#[inline(always)]
pub(super) fn resolve<M: Machine>(
    fault: &RamFault<'_>,
    absent: Absent<'_>,
    m: &mut M,
) -> Resolution {
    if fault.is_for_page() {
        map_page(fault, absent, m)
    } else {
        map_more(*fault, absent.handed_on(), m)
    }
}

/// Where the policy permits more than the page.
#[inline(never)]
fn map_more<M: Machine>(fault: RamFault<'_>, absent: Absent<'_>, m: &mut M) -> Resolution {
    let mut absent = absent;
    for level in fault.blocks() {
        let room = absent.has_room_for(*level);
        let Some(leaf) = fault.leaf(*level).filter(|_| room) else {
            continue;
        };
        match block::map(&fault, leaf, absent, m) {
            Ok(answer) => return answer,
            Err(unused) => absent = unused,
        }
    }
    if fault.are_grouped() {
        match group::map(&fault, absent, m) {
            Ok(answer) => return answer,
            Err(unused) => absent = unused,
        }
    }
    if fault.has_neighbours() {
        neighbours::map(&fault, absent, m)
    } else {
        map_page(&fault, absent, m)
    }
}

#[inline(always)]
fn map_page<M: Machine>(fault: &RamFault<'_>, absent: Absent<'_>, m: &mut M) -> Resolution {
    match absent.tables_needed() {
        0 => map_page_by(fault, absent, &mut Tables::default(), m),
        count => map_page_and_tables(*fault, absent.handed_on(), count, m),
    }
}

#[cold]
fn map_page_and_tables<M: Machine>(
    fault: RamFault<'_>,
    absent: Absent<'_>,
    count: usize,
    m: &mut M,
) -> Resolution {
    let pool = fault.memory.pool;
    let Ok(mut tables) = Tables::prepare(m, pool, count) else {
        return fault.out_of_pages();
    };
    let answer = map_page_by(&fault, absent, &mut tables, m);
    tables.give_back(pool);
    answer
}

#[inline(always)]
fn map_page_by<M: Machine>(
    fault: &RamFault<'_>,
    absent: Absent<'_>,
    tables: &mut Tables,
    m: &mut M,
) -> Resolution {
    match fault.page_to_lend(fault.ipa, fault.need) {
        Some(range) => lend_page(*fault, absent.handed_on(), range, tables, m),
        None => map_own(fault, absent, tables, m),
    }
}

#[cold]
fn lend_page<M: Machine>(
    fault: RamFault<'_>,
    absent: Absent<'_>,
    range: PaRange,
    tables: &mut Tables,
    m: &mut M,
) -> Resolution {
    let lent = Lent::visible(m, range, fault.stage2().coherence());
    lend(&fault, absent, &lent, tables, m);
    Resolution::Retry
}

/// Maps a page of the pool.
#[inline(always)]
fn map_own<M: Machine>(
    fault: &RamFault<'_>,
    absent: Absent<'_>,
    tables: &mut Tables,
    m: &mut M,
) -> Resolution {
    let Some(page) = fault.take_page(fault.ipa, m) else {
        return fault.out_of_pages();
    };
    let coherence = fault.stage2().coherence();
    let grant = fault.first_grant(fault.need, |m| page.make_executable(m, coherence), m);
    match absent.map(m, page, grant, tables) {
        Mapped::Installed => fault.note_mapped(1),
        Mapped::Raced { page, .. } => {
            fault.note_raced();
            page.give_back(m, fault.memory.pool, coherence);
        }
    }
    Resolution::Retry
}

/// Maps memory that is lent, a page or a block, to answer a fault that does not want to write.
pub(super) fn lend<M: Machine>(
    fault: &RamFault<'_>,
    absent: Absent<'_>,
    lent: &Lent,
    tables: &mut Tables,
    m: &mut M,
) {
    let coherence = fault.stage2().coherence();
    let pages = Level::of_size(lent.range().size).pages();
    let fault = fault.without(Rights::WRITE);
    fault.counters.dcache.add(u64::from(!coherence.fwb) * pages);
    let grant = fault.first_grant(fault.need, |m| lent.make_executable(m, coherence), m);
    if absent.lend(m, lent, &grant, tables).is_ok() {
        fault.counters.lent.add(pages);
        fault.note_mapped(pages);
    } else {
        fault.note_raced();
    }
}

/// Answers a fault on a hardware window where the walk found nothing: its page is mapped, nothing but tables is taken
/// from the pool.
#[inline(never)] // `faultline break` of gdb stops here
pub(super) fn map_window<M: Machine>(
    memory: GuestMemory<'_>,
    counters: &Counters,
    absent: Absent<'_>,
    page: Pa,
    m: &mut M,
) -> Resolution {
    let Ok(mut tables) = Tables::prepare(m, memory.pool, absent.tables_needed()) else {
        return out_of_pages(memory);
    };
    let is_mapped = absent.map_window(m, page, &mut tables).is_ok();
    counters.windows.add(u64::from(is_mapped));
    tables.give_back(memory.pool);
    Resolution::Retry
}
