//! Pokes at every offset of every device, in every width, aligned or not: each access answers or aborts, and the
//! machine lives on. Nothing written is kept: the devices are as after reset when it ends.
#![no_std]
#![no_main]

use runtime::gic::Gic;
use runtime::platform::{NOWHERE, PL011, PL031};
use runtime::trap::{Caught, catch};
use runtime::{check, console, hypercall, mmio, println};

runtime::guest!("every_device", every_device);

/// Accesses of nothing, at least.
const NOWHERE_REFUSED: u64 = 64;
/// Registers of a window that are looked at.
const SPAN: u64 = 0x1000;

fn every_device() {
    let mut refused = 0;
    // The UART is only read, and never its data register, which would eat what somebody types.
    refused += reads("PL011", PL011 + 4, SPAN - 4);
    refused += reads("PL031", PL031, SPAN);
    refused += writes("PL031", PL031 + 0x0c, SPAN - 0x0c);
    refused += reads("nothing", NOWHERE, 64);
    refused += writes("nothing", NOWHERE, 64);
    match Gic::from_tree() {
        Some(Gic::V2 { gicd, gicc }) => {
            refused += both("GICD", gicd, SPAN) + both("GICC", gicc, SPAN);
        }
        Some(Gic::V3 { gicd, gicr }) => {
            refused += both("GICD", gicd, SPAN)
                + both("GICR", gicr, SPAN)
                + both("GICR SGI", gicr + 0x1_0000, SPAN);
            // GICD_IROUTER and the identification registers.
            refused +=
                both("GICD_IROUTER", gicd + 0x6000, SPAN) + reads("GICD ID", gicd + 0xf000, SPAN);
        }
        None => {}
    }
    console::enable();
    println!("{refused} accesses refused");
    // What lies nowhere is refused for sure, and by the hypervisor. Hardware behind a window (GICV) refuses by itself.
    let injected = hypercall::counter(14);
    check!(
        refused >= NOWHERE_REFUSED,
        "only {refused} accesses refused"
    );
    check!(
        injected.is_none_or(|count| count >= NOWHERE_REFUSED),
        "only {injected:?} aborts injected"
    );
}

fn both(name: &str, base: u64, span: u64) -> u64 {
    reads(name, base, span) + writes(name, base, span)
}

/// Counts the refused.
fn tally(name: &str, at: u64, caught: Caught) -> u64 {
    if let Some(frame) = caught.last {
        check!(
            frame.is_abort(),
            "{name} {at:#x}: class {:#x}",
            frame.class()
        );
        check!(
            // The access's own address, or where it goes on in the next page.
            (at & !7..at + 8).contains(&frame.far),
            "{name} {at:#x}: FAR_EL1 {:#x}",
            frame.far
        );
    }
    caught.count
}

fn reads(name: &str, base: u64, span: u64) -> u64 {
    let each = |at| {
        tally(name, at, catch(|| mmio::read8(at)).1)
            + tally(name, at, catch(|| mmio::read16(at)).1)
            + tally(name, at, catch(|| mmio::read32(at)).1)
            + tally(name, at, catch(|| mmio::read64(at)).1)
    };
    (base..base + span).step_by(2).map(each).sum()
}

fn writes(name: &str, base: u64, span: u64) -> u64 {
    let each = |at| {
        tally(name, at, catch(|| mmio::write8(at, 0)).1)
            + tally(name, at, catch(|| mmio::write16(at, 0)).1)
            + tally(name, at, catch(|| mmio::write32(at, 0)).1)
            + tally(name, at, catch(|| mmio::write64(at, 0)).1)
    };
    (base..base + span).step_by(2).map(each).sum()
}
