//! Blocks of 2 MiB and of 1 GiB: one fault brings as much as one descriptor can.
//!
//! A block takes long to make ready, so its descriptor is claimed first: other vCPUs that fault on it meanwhile find it
//! locked and try again until it is filled, taking their interrupts in between. They take no page instead: that would need
//! a table where the block is to be, and the guest has the whole block by the time it would have faulted a second time.

use crate::addr::{IpaRange, PAGE_SIZE};
use crate::exit::Need;
use crate::fault::ram::RamFault;
use crate::fault::{Resolution, translation};
use crate::machine::Machine;
use crate::page_pool::RawBlock;
use crate::stage2::{Absent, CleanBlock, Grant, Lent, Level, Tables};

/// Maps a block for `leaf`, where there is room for one.
///
/// # Errors
/// What the walk found, if there is no block to be had: something smaller may do.
pub(super) fn map<'t, M: Machine>(
    fault: &RamFault<'_>,
    leaf: IpaRange,
    absent: Absent<'t>,
    m: &mut M,
) -> Result<Resolution, Absent<'t>> {
    let pool = fault.memory.pool;
    let level = Level::of_size(leaf.size);
    let from = fault.in_place(leaf).filter(|_| fault.need != Need::Write);
    if from.is_some() && level < Level::new(2) {
        // Of what is lent a block of 2 MiB at most: when it is written, that much must be copied.
        return Err(absent);
    }
    let Ok(mut tables) = Tables::prepare(m, pool, absent.tables_needed_at(level)) else {
        return Err(absent);
    };
    let answer = match from {
        Some(range) => {
            let lent = Lent::visible(m, range, fault.stage2().coherence());
            translation::lend(fault, absent, &lent, &mut tables, m);
            Ok(Resolution::Retry)
        }
        None => map_own(fault, leaf, absent, &mut tables, m),
    };
    tables.give_back(pool);
    answer
}

/// Maps a block of the pool.
fn map_own<'t, M: Machine>(
    fault: &RamFault<'_>,
    leaf: IpaRange,
    absent: Absent<'t>,
    tables: &mut Tables,
    m: &mut M,
) -> Result<Resolution, Absent<'t>> {
    let Some(block) = fault.memory.pool.take_block(leaf.size) else {
        return Err(absent);
    };
    let level = Level::of_size(leaf.size);
    let Ok(claim) = absent.claim(m, level, tables) else {
        fault.note_raced();
        fault.memory.pool.give_block(block.into_owned());
        return Ok(Resolution::Retry);
    };
    let (block, grant) = filled(fault, leaf, block, m);
    claim.fill(m, block, grant);
    fault.counters.blocks.add(1);
    fault.note_mapped(level.pages());
    Ok(Resolution::Retry)
}

/// The block with what `leaf` is to hold, and what the guest may do to it at first.
pub(super) fn filled<M: Machine>(
    fault: &RamFault<'_>,
    leaf: IpaRange,
    block: RawBlock,
    m: &mut M,
) -> (CleanBlock, Grant) {
    let coherence = fault.stage2().coherence();
    let pages = leaf.size / PAGE_SIZE;
    fault.counters.dcache.add(u64::from(!coherence.fwb) * pages);
    let block = match fault.in_place(leaf) {
        Some(from) => block.copied(m, coherence, from),
        None => block.filled(m, coherence, |m, pa| {
            let contents = fault.memory.contents_of(leaf);
            contents.for_each(|content| content.fill(m, leaf, pa));
        }),
    };
    let grant = fault.first_grant(fault.need, |m| block.make_executable(m, coherence), m);
    (block, grant)
}
