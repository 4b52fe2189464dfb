//! The board's RAM: whether there is enough, and into the page pool with what is free.

use faultline::addr::{PAGE_SIZE, PaRange, Size};
use faultline::board::Board;
use faultline::page_pool::PagePool;

use super::mapped;
use crate::el2::console::log;
use crate::el2::heap;
use crate::el2::hyp_map::{self, Use};
use crate::el2::power::refuse;

/// Less than this is too little to run anything: 1 MiB.
const LEAST_RAM: u64 = 1 << 20;
/// The most RAM the pool takes, more than any guest can have: its book-keeping, 40 KiB a GiB, lies on the heap.
const POOL_MOST: u64 = 96 << 30;

/// Maps all RAM that is free and gives it to the pool.
pub(super) fn ram(board: &Board, taken: &[PaRange]) -> PagePool {
    let pool = PagePool::new();
    let mut room = POOL_MOST;
    for range in board.free_ram(taken) {
        let part = PaRange {
            start: range.start,
            size: range.size.min(room),
        };
        room -= part.size;
        mapped(hyp_map::map(part, Use::Data));
        pool.add(part);
    }
    if room == 0 {
        log!(
            "warning",
            "RAM beyond the first {} is not used",
            Size(POOL_MOST)
        );
    }
    let all: u64 = board.ram.iter().map(|bank| bank.size).sum();
    let free = pool.account().total * PAGE_SIZE;
    let (heap_used, heap_size) = heap::usage();
    log!(
        "memory",
        "{} of RAM, {} of it in the page pool; heap {} of {}",
        Size(all),
        Size(free),
        Size(heap_used as u64),
        Size(heap_size as u64)
    );
    refuse_little(free, all);
    pool
}

/// Before anything else needs it: is there RAM besides our image?
pub(super) fn enough_ram(board: &Board, blob: PaRange) {
    let image = hyp_map::image();
    if !is_ram(board, image) {
        refuse(format_args!(
            "too little RAM: the device tree's does not hold the hypervisor itself, at {image}"
        ));
    }
    let free = board.free_ram(&[image, blob]);
    refuse_little(
        free.iter().map(|range| range.size).sum(),
        board.ram.iter().map(|bank| bank.size).sum(),
    );
}

/// Whether a range lies in one bank of RAM.
pub(super) fn is_ram(board: &Board, range: PaRange) -> bool {
    board
        .ram
        .iter()
        .any(|bank| bank.intersect(&range) == Some(range))
}

fn refuse_little(free: u64, all: u64) {
    if free < LEAST_RAM {
        refuse(format_args!(
            "too little RAM: {} of {} are free, {} is the least",
            Size(free),
            Size(all),
            Size(LEAST_RAM)
        ));
    }
}
