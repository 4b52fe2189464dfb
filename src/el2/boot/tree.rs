//! Finds the board's device tree: where firmware says, or where QEMU puts it.

use faultline::addr::{PAGE_SIZE, Pa, PaRange};
use faultline::board::tree::{SIZE_PREFIX, Tree};

use crate::el2::exception;
use crate::el2::hyp_map::{self, TooRagged, Use};
use crate::el2::machine::identity;
use crate::el2::power::{self, refuse};
use crate::el2::refuse::{code, early_console};

/// How far below the image a tree may lie that nobody told us of: QEMU's RAM base.
const TREE_BELOW_IMAGE: u64 = 2 << 20;
/// Bits of an address in EL2's own map.
const ADDRESS_BITS: u32 = 48;
/// Room for a tree that nobody told us of.
const PROBE_SIZE: u64 = PAGE_SIZE;

/// The tree firmware passed, or one that lies where QEMU puts it.
pub(super) fn device_tree(x0: Pa) -> (PaRange, Tree<'static>) {
    let below = hyp_map::image()
        .start
        .raw()
        .checked_sub(TREE_BELOW_IMAGE)
        .map(Pa::new);
    let named = (x0.raw() != 0).then(|| tree_at(x0));
    if let Some(Ok(found)) = named {
        return found;
    }
    // `x0` without a tree: QEMU's place, if there is one.
    let there = below.map(tree_at);
    if let Some(Ok(found)) = there {
        return found;
    }
    if !early_console() {
        power::wait_for_ever(code::NO_TREE);
    }
    match (named, there, below) {
        (Some(Err(why)), ..) => refuse(format_args!("no device tree at {x0} (x0): {why}")),
        (None, Some(Err(why)), Some(at)) => {
            refuse(format_args!("no device tree at {at} (x0 = {x0}): {why}"))
        }
        _ => refuse(format_args!("no device tree: none was passed in x0")),
    }
}

fn tree_at(at: Pa) -> Result<(PaRange, Tree<'static>), &'static str> {
    if !at.is_aligned(8) {
        return Err("its address is no multiple of 8");
    }
    if at.raw() >> ADDRESS_BITS != 0 {
        return Err("its address has more than 48 bits");
    }
    let too_ragged = |TooRagged| "the map of EL2 has no room for it";
    hyp_map::map(
        PaRange {
            start: at,
            size: PROBE_SIZE,
        },
        Use::Data,
    )
    .map_err(too_ragged)?;
    exception::probe(at).ok_or("there is no memory")?;
    let size = Tree::total_size(bytes(PaRange {
        start: at,
        size: SIZE_PREFIX as u64,
    }))
    .map_err(describe)?;
    let range = PaRange::new(at, size as u64).ok_or("it would end past the address space")?;
    hyp_map::map(range, Use::Data).map_err(too_ragged)?;
    exception::probe(Pa::new((range.end().raw() - 1) & !3)).ok_or("its end is no memory")?;
    let tree = Tree::parse(bytes(range)).map_err(describe)?;
    Ok((range, tree))
}

fn describe(error: faultline::board::tree::TreeError) -> &'static str {
    alloc::format!("{error}").leak()
}

/// Memory that is mapped at EL2 and that nobody writes while we run, as bytes.
pub(super) fn bytes(range: PaRange) -> &'static [u8] {
    // SAFETY: the callers map the range first; it holds a device tree or a module, which boot reserves and nobody writes.
    unsafe { core::slice::from_raw_parts(identity::<u8>(range.start), range.size as usize) }
}
