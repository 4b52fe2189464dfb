//! A ramdisk that the hypervisor lends in blocks of 2 MiB, and too little memory for a block of one's own: a store there
//! takes the block apart, while other CPUs read all of it. They never see anything but what was there.
//!
//! The ramdisk is `guest/qemu/smp.rs`'s: each word of it says where it lies.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use runtime::hypercall::counted;
use runtime::pages::{self, PAGE};
use runtime::sync::Barrier;
use runtime::{check, check_eq, fdt, mmio, mmu, println, smp};

runtime::guest!("lent_blocks", lent_blocks);

const BLOCK: u64 = 2 << 20;
const WORDS: u64 = BLOCK / 8;
/// What a word of the ramdisk is, by its number: no two of a block are the same.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Words that each reader looks at after the store, at least.
const LOOKS: u64 = 4096;

static GATE: Barrier = Barrier::new();
static RAMDISK: AtomicU64 = AtomicU64::new(0);
/// The block at hand.
static NOW: AtomicU64 = AtomicU64::new(0);
/// 1 when the store to it is done.
static STORED: AtomicU64 = AtomicU64::new(0);

fn lent_blocks() {
    smp::require(2);
    pages::settle_image();
    mmu::Tables::identity().enable();
    smp::start_others(smp::count(), smp::serve);
    let (start, size) = fdt::ramdisk().unwrap_or((0, 0));
    RAMDISK.store(start, Ordering::Release);
    let first = start.next_multiple_of(BLOCK);
    let blocks = (start + size).saturating_sub(first) / BLOCK;
    check!(blocks >= 3, "{size} bytes at {start:#x} are too few blocks");
    leave_no_block(start + size);
    // Once, so that code and stacks are there when faults are counted.
    at_block(first);
    (1..blocks).for_each(|n| at_block(first + n * BLOCK));
    println!("{blocks} blocks came apart under {} CPUs", smp::count());
}

/// Has the last page of each block of RAM beyond `from`, which is nobody's: while there are blocks, each brings one.
fn leave_no_block(from: u64) {
    let (base, size) = fdt::memory();
    for at in (from.next_multiple_of(BLOCK)..base + size).step_by(BLOCK as usize) {
        mmio::write64(at + BLOCK - PAGE, 1);
    }
}

/// A store to the block under the eyes of the others.
fn at_block(block: u64) {
    NOW.store(block, Ordering::Release);
    STORED.store(0, Ordering::Release);
    // The block is there, for each of them.
    smp::on_all(smp::count(), look_about);
    let ((), cost) = counted(|| smp::on_all(smp::count(), store_or_read));
    for word in (0..WORDS).filter(|word| *word != stored_word(block)) {
        check_word(block, word);
    }
    check_eq!(
        mmio::read64(block + 8 * stored_word(block)),
        block,
        "the word that was stored"
    );
    if let Some(cost) = cost {
        check_eq!(cost.faults(), 1, "faults answered: the store's");
    }
}

/// In some page of the block, another one in each.
const fn stored_word(block: u64) -> u64 {
    (block / BLOCK * 37 % 512) * (PAGE / 8) + 5
}

fn check_word(block: u64, word: u64) {
    let at = block + 8 * word;
    let number = (at - RAMDISK.load(Ordering::Acquire)) / 8;
    check_eq!(
        mmio::read64(at),
        number.wrapping_mul(FACTOR),
        "word {word} of the block at {block:#x}"
    );
}

/// Checks a word of the block at hand, unless it is the one that is stored to.
fn look(word: u64) {
    let block = NOW.load(Ordering::Acquire);
    if word != stored_word(block) {
        check_word(block, word);
    }
}

fn look_about() {
    (0..WORDS).step_by(PAGE as usize / 8).for_each(look);
}

fn store_or_read() {
    GATE.wait(smp::count());
    if smp::index() == 0 {
        let block = NOW.load(Ordering::Acquire);
        mmio::write64(block + 8 * stored_word(block), block);
        STORED.store(1, Ordering::Release);
    } else {
        let mut word = smp::index() as u64;
        let mut left = LOOKS;
        while left > 0 {
            word = (word * 5 + 0x1235) % WORDS;
            look(word);
            left -= STORED.load(Ordering::Acquire).min(left);
        }
    }
    GATE.wait(smp::count());
}
