//! Accesses that cross from one fresh page into the next: the second half's fault reports an address of its own.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::hypercall::{counted, page_by_page};
use runtime::{check, check_eq, mmio, mmu, pages};

runtime::guest!("page_crossing", page_crossing);

const PATTERN: u64 = 0x8877_6655_4433_2211;

fn page_crossing() {
    pages::settle_image();
    // Only Normal memory may be accessed unaligned.
    mmu::Tables::identity().enable();
    for first_bytes in 1..8 {
        crossing(first_bytes, |at| {
            check_eq!(
                mmio::read64(at),
                0,
                "8 fresh bytes, {first_bytes} in the first page"
            )
        });
        crossing(first_bytes, |at| {
            mmio::write64(at, PATTERN);
            check_bytes(at);
        });
        half_touched(first_bytes);
        pair(first_bytes);
    }
}

/// `access` at 8 bytes, `first_bytes` of them in one fresh page, the others in the next.
fn crossing(first_bytes: u64, access: impl FnOnce(u64)) {
    let second = pages::fresh_run(2) + pages::PAGE;
    let ((), cost) = counted(|| access(second - first_bytes));
    if let Some(cost) = cost {
        let least = if page_by_page() { 2 } else { 0 };
        check!(
            (least..=4).contains(&cost.faults()),
            "two pages took {} faults",
            cost.faults()
        );
    }
}

fn check_bytes(at: u64) {
    for (n, byte) in PATTERN.to_le_bytes().into_iter().enumerate() {
        check_eq!(mmio::read8(at + n as u64), byte, "byte {n}");
    }
}

/// One half is in a page already read (and not written), the other in a fresh one; both ways round.
fn half_touched(first_bytes: u64) {
    for touched in [0, 1] {
        let first = pages::fresh_run(2);
        mmio::read8(first + touched * pages::PAGE);
        let at = first + pages::PAGE - first_bytes;
        mmio::write64(at, PATTERN);
        check_bytes(at);
    }
}

/// Two registers, 16 bytes.
fn pair(first_bytes: u64) {
    let at = pages::fresh_run(2) + pages::PAGE - first_bytes;
    let (low, high): (u64, u64);
    // SAFETY: 16 bytes of fresh RAM.
    unsafe {
        asm!("stp {p}, {q}, [{a}]", "ldp {l}, {h}, [{a}]", p = in(reg) PATTERN, q = in(reg) !PATTERN, a = in(reg) at,
            l = out(reg) low, h = out(reg) high, options(nostack));
    }
    check!(
        (low, high) == (PATTERN, !PATTERN),
        "LDP of STP: {low:#x}, {high:#x}"
    );
}
