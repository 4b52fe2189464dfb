//! Stage-2 faults, each on pages of its own. What the same accesses cost once there is no fault is taken off.
use super::{ROUNDS, clock};
use runtime::gic::Gic;
use runtime::pages::{self, PAGE};
use runtime::{fdt, mmio};

/// A block of stage 2.
const BLOCK: u64 = 512 * PAGE;
/// `RET`.
const RET: u32 = 0xd65f_03c0;

/// `touch` of each of `ROUNDS` units of memory for the first time, against the same for the second time.
fn first_time(start: u64, unit: u64, touch: impl Fn(u64)) -> u64 {
    let touch_all = |round| touch(start + round * unit);
    clock::per_round(ROUNDS, touch_all, touch_all)
}

fn write(address: u64) {
    mmio::write64(address, 1);
}

/// Pages in order, whole tables' worth: with the one table page per 512.
pub fn translation_4k(_: Gic) -> Option<u64> {
    let start = pages::fresh_aligned(512);
    pages::fresh_run(ROUNDS - 512);
    Some(first_time(start, PAGE, write))
}

/// Only with memory for as many blocks, and the policy to map them: `make bench` says so.
pub fn translation_2m(_: Gic) -> Option<u64> {
    let (base, size) = fdt::memory();
    let start = pages::fresh_aligned(512);
    if start + (ROUNDS + 1) * BLOCK > base + size {
        return None;
    }
    pages::fresh_run(ROUNDS * 512);
    Some(first_time(start, BLOCK, write))
}

/// Pages that were read before; nothing to see where a first touch gives all rights.
pub fn permission_write(_: Gic) -> Option<u64> {
    let start = pages::fresh_run(ROUNDS);
    for page in 0..ROUNDS {
        mmio::read32(start + page * PAGE);
    }
    Some(first_time(start, PAGE, write))
}

/// Pages that were written before, with code.
pub fn permission_exec(_: Gic) -> Option<u64> {
    let start = pages::fresh_run(ROUNDS);
    for page in 0..ROUNDS {
        mmio::write32(start + page * PAGE, RET);
    }
    runtime::cache::publish_code(start, ROUNDS * PAGE);
    let call = |address| {
        pages::call(address);
    };
    Some(first_time(start, PAGE, call))
}
