//! Fault-around: a page brings the others of its window of 64 KiB, where nothing is mapped and the slot reaches.
//!
//! Pages of their own: one may be written, aged or taken back without the others.

use crate::addr::{Ipa, PAGE_SIZE, WINDOW_SIZE};
use crate::exit::Need;
use crate::fault::ram::RamFault;
use crate::fault::{Resolution, RightsPolicy, page_of};
use crate::machine::Machine;
use crate::stage2::{Absent, Grant, Lent, Neighbours, Rights, Supply, Tables};

/// Maps the page that faulted and its neighbours. The page is a must; a neighbour that the pool has no page for is left out.
pub(super) fn map<M: Machine>(fault: &RamFault<'_>, absent: Absent<'_>, m: &mut M) -> Resolution {
    let pool = fault.memory.pool;
    let Ok(mut tables) = Tables::prepare(m, pool, absent.tables_needed()) else {
        return fault.out_of_pages();
    };
    let mut around = Neighbours::default();
    let own = (fault.ipa.raw() % WINDOW_SIZE / PAGE_SIZE) as usize;
    around[own] = supply(fault, fault.ipa.page(), fault.need, m);
    if around[own].is_none() {
        tables.give_back(pool);
        return fault.out_of_pages();
    }
    let vacant = absent.vacant_around(m);
    let start = Ipa::new(fault.ipa.raw() & !(WINDOW_SIZE - 1));
    for (n, place) in around.iter_mut().enumerate() {
        let page = page_of(start.add(n as u64 * PAGE_SIZE));
        if n != own && vacant >> n & 1 == 1 && fault.holds(page) {
            *place = supply(fault, page.start, unasked(fault), m);
        }
    }
    match absent.map_around(m, &mut around, &mut tables) {
        0 => fault.note_raced(),
        pages => fault.note_mapped(pages),
    }
    let unused = around.into_iter().flatten();
    unused
        .filter_map(|(supply, _)| supply.into_owned())
        .for_each(|page| pool.give(page));
    tables.give_back(pool);
    Resolution::Retry
}

/// What a neighbour is given for: the same as the page that faulted, unless the policy gives nothing unasked.
fn unasked(fault: &RamFault<'_>) -> Need {
    match fault.memory.rights {
        RightsPolicy::Eager => fault.need,
        RightsPolicy::Lazy => Need::Read,
    }
}

/// A page for the place at `ipa`, and what the guest may do to it at first.
fn supply<M: Machine>(
    fault: &RamFault<'_>,
    ipa: Ipa,
    need: Need,
    m: &mut M,
) -> Option<(Supply, Grant)> {
    let coherence = fault.stage2().coherence();
    Some(match fault.page_to_lend(ipa, need) {
        Some(range) => {
            let lent = Lent::visible(m, range, coherence);
            fault.counters.dcache.add(u64::from(!coherence.fwb));
            fault.counters.lent.add(1);
            let fault = fault.without(Rights::WRITE);
            let grant = fault.first_grant(need, |m| lent.make_executable(m, coherence), m);
            (Supply::Lent(lent), grant)
        }
        None => {
            let page = fault.take_page(ipa, m)?;
            let grant = fault.first_grant(need, |m| page.make_executable(m, coherence), m);
            (Supply::Own(page), grant)
        }
    })
}
