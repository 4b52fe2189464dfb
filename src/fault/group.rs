//! Contiguous groups: one fault brings 64 KiB of memory in one piece, as 16 pages with the contiguous hint.

use crate::addr::{Ipa, IpaRange, WINDOW_PAGES, WINDOW_SIZE};
use crate::exit::Need;
use crate::fault::Resolution;
use crate::fault::block::filled;
use crate::fault::ram::RamFault;
use crate::machine::Machine;
use crate::stage2::{Absent, Tables};

/// Maps the group that holds the place.
///
/// # Errors
/// What the walk found, if there is no group to be had: where the slot ends, where memory is lent, where something is mapped
/// already or memory in one piece is used up.
pub(super) fn map<'t, M: Machine>(
    fault: &RamFault<'_>,
    absent: Absent<'t>,
    m: &mut M,
) -> Result<Resolution, Absent<'t>> {
    let pool = fault.memory.pool;
    let group = IpaRange {
        start: Ipa::new(fault.ipa.raw() & !(WINDOW_SIZE - 1)),
        size: WINDOW_SIZE,
    };
    let is_lent = fault.need != Need::Write && fault.in_place(group).is_some();
    if !fault.holds(group) || is_lent || absent.vacant_around(m) != u16::MAX {
        return Err(absent);
    }
    let Ok(mut tables) = Tables::prepare(m, pool, absent.tables_needed()) else {
        return Err(absent);
    };
    let Some(block) = pool.take_window() else {
        tables.give_back(pool);
        return Err(absent);
    };
    let answer = match absent.claim_group(m, &mut tables) {
        Ok(claim) => {
            let (block, grant) = filled(fault, group, block, m);
            claim.fill(m, block, grant);
            fault.counters.groups.add(1);
            fault.note_mapped(WINDOW_PAGES as u64);
            Ok(Resolution::Retry)
        }
        Err(absent) => {
            pool.give_window(block.into_owned());
            Err(absent)
        }
    };
    tables.give_back(pool);
    answer
}
