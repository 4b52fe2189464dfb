//! Fresh pages read zero, whatever touches them first, and keep what is written to them.
//!
//! `mib=N` on the command line: how much to touch (default 8).
#![no_std]
#![no_main]

use runtime::hypercall::{Counter, counters};
use runtime::pages::PAGE;
use runtime::{check, check_eq, fdt, mmio, pages, println};

runtime::guest!("first_touch", first_touch);

fn first_touch() {
    pages::settle_image();
    let count = fdt::number("mib").unwrap_or(8) << 20 >> 12;
    let first = pages::fresh_run(count);
    let before = counters();
    for page in (0..count).map(|n| first + n * PAGE) {
        // A third is written first, at one word; the rest of that page is zero still.
        let written = (page / PAGE).is_multiple_of(3);
        if written {
            mmio::write64(page + 8, stamp(page));
        }
        for at in (page..page + PAGE).step_by(8) {
            let expected = if written && at == page + 8 {
                stamp(page)
            } else {
                0
            };
            check_eq!(mmio::read64(at), expected, "fresh memory at {at:#x}");
        }
        mmio::write64(page, stamp(page));
    }
    let after = counters();
    for page in (0..count).map(|n| first + n * PAGE) {
        check_eq!(
            mmio::read64(page),
            stamp(page),
            "what was written at {page:#x}"
        );
    }
    let Some(cost) = after
        .zip(before)
        .map(|(after, before)| after.since(&before))
    else {
        return;
    };
    println!(
        "{count} pages touched: {} mapped on {} faults",
        cost.get(Counter::PagesMapped),
        cost.faults()
    );
    check!(
        cost.faults() <= 2 * count,
        "{} faults for {count} pages",
        cost.faults()
    );
}

/// Differs from page to page, so that two addresses that share memory are found.
fn stamp(page: u64) -> u64 {
    page.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}
