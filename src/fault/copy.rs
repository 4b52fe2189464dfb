//! Copy on write: the guest stores to memory that is lent, and gets memory of its own in its place.
//!
//! The copy is made before anything changes, then put there by break-before-make. Nobody writes what is lent, so the copy
//! is right whenever it is made.

use crate::exit::Need;
use crate::fault::Resolution;
use crate::fault::permission::split;
use crate::fault::ram::RamFault;
use crate::machine::Machine;
use crate::stage2::maintenance::ExecReady;
use crate::stage2::{Grant, Leaf, Level, OutOfPages, Present, Replaced, Rights};

/// Answers a store to memory that is lent: a block is copied as a block where the policy permits blocks and the pool has
/// one, else it is split, and the page alone is copied.
#[cold]
pub(super) fn resolve<M: Machine>(
    fault: RamFault<'_>,
    present: Present<'_>,
    m: &mut M,
) -> Resolution {
    let fault = &fault;
    if present.level().is_last() {
        return page(fault, present, m);
    }
    let present = match block(fault, present, m) {
        Ok(answer) => return answer,
        Err(unused) => unused,
    };
    drop(present);
    match split(fault, m) {
        Ok(Leaf::Present(present)) if present.is_lent() => page(fault, present, m),
        Ok(_) => {
            fault.note_raced();
            Resolution::Retry
        }
        Err(OutOfPages) => fault.out_of_pages(),
    }
}

fn block<'t, M: Machine>(
    fault: &RamFault<'_>,
    present: Present<'t>,
    m: &mut M,
) -> Result<Resolution, Present<'t>> {
    let (level, from) = (present.level(), present.output());
    if !fault.blocks().contains(&level) {
        return Err(present);
    }
    let Some(block) = fault.memory.pool.take_block(from.size) else {
        return Err(present);
    };
    let coherence = fault.stage2().coherence();
    let block = block.copied(m, coherence, from);
    let grant = grant(fault, &present, |m| block.make_executable(m, coherence), m);
    match present.replace_lent(m, block, &grant) {
        Ok(()) => note(fault, level.pages()),
        Err((block, _)) => {
            fault.note_raced();
            fault.memory.pool.give_block(block.into_owned());
        }
    }
    Ok(Resolution::Retry)
}

fn page<M: Machine>(fault: &RamFault<'_>, present: Present<'_>, m: &mut M) -> Resolution {
    let pool = fault.memory.pool;
    let Some(page) = pool.take_raw(m.cpu()) else {
        return fault.out_of_pages();
    };
    let coherence = fault.stage2().coherence();
    let page = page.copied(m, coherence, present.output());
    let grant = grant(fault, &present, |m| page.make_executable(m, coherence), m);
    match present.replace(m, page, grant) {
        Replaced::Done(old) => {
            note(fault, Level::LAST.pages());
            old.into_iter().for_each(|page| pool.give(page));
        }
        Replaced::Raced { page, .. } => {
            fault.note_raced();
            pool.give(page.into_owned());
        }
    }
    Resolution::Retry
}

/// What the guest may do to the copy: all that it could do to the original, and write.
fn grant<M: Machine>(
    fault: &RamFault<'_>,
    original: &Present<'_>,
    make_executable: impl FnOnce(&mut M) -> ExecReady,
    m: &mut M,
) -> Grant {
    if original.rights().allows(Rights::EXECUTE) {
        fault.and_execute(fault.data_grant(), make_executable, m)
    } else {
        fault.first_grant(Need::Write, make_executable, m)
    }
}

fn note(fault: &RamFault<'_>, pages: u64) {
    let coherence = fault.stage2().coherence();
    fault.counters.dcache.add(u64::from(!coherence.fwb) * pages);
    fault.counters.copied.add(pages);
    fault.counters.note_permission(fault.need);
    fault.counters.tlbi.add(1);
}
