//! This program's own image arrived whole: it holds a quarter of a MiB that can be computed again.
//!
//! Faultline copies module pages when they are first touched: here in an order of its own, by loads, stores and fetches.
#![no_std]
#![no_main]

use runtime::{check_eq, pages};

runtime::guest!("integrity", integrity);

const WORDS: usize = 32 * 1024;
const WORDS_PER_PAGE: usize = pages::PAGE as usize / 8;

#[repr(C, align(4096))]
struct Sequence([u64; WORDS]);

/// A linear congruential generator (Knuth's MMIX constants).
const fn next(value: u64) -> u64 {
    value
        .wrapping_mul(0x5851_f42d_4c95_7f2d)
        .wrapping_add(0x1405_7b7e_f767_814f)
}

#[allow(
    long_running_const_eval,
    reason = "it runs once, when the guest is built"
)]
static CONSTANT: Sequence = {
    let mut words = [0; WORDS];
    let mut n = 1;
    while n < WORDS {
        words[n] = next(words[n - 1]);
        n += 1;
    }
    Sequence(words)
};

fn integrity() {
    let base = &raw const CONSTANT as u64;
    // Last page first, then the others by a stride that visits each once.
    let pages = WORDS / WORDS_PER_PAGE;
    let mut page = pages - 1;
    let mut start_of_page = [0u64; WORDS / WORDS_PER_PAGE];
    for _ in 0..pages {
        start_of_page[page] = runtime::mmio::read64(base + page as u64 * pages::PAGE);
        page = (page + 27) % pages;
    }
    let mut expected = 0;
    for n in 0..WORDS {
        check_eq!(
            runtime::mmio::read64(base + n as u64 * 8),
            expected,
            "word {n} of the image"
        );
        if n % WORDS_PER_PAGE == 0 {
            check_eq!(
                start_of_page[n / WORDS_PER_PAGE],
                expected,
                "word {n} of the image, read first"
            );
        }
        expected = next(expected);
    }
    // After the image comes what nobody wrote.
    let fresh = pages::fresh();
    check_eq!(runtime::mmio::read64(fresh), 0, "memory after the image");
}
