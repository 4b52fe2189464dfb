//! The founding bug's sequence: read a page, then execute it. Each access is resolved by at most two faults.
//!
//! A hypervisor that answers a permission fault as if nothing were mapped faults on the same instruction for ever; the
//! harness's time limit, or Faultline's own detector, sees that. The counters say more: how many faults each access
//! took, and that a page that is both written and executed, again and again, stays both.
#![no_std]
#![no_main]

use runtime::hypercall::{Counter, Counters, counted};
use runtime::trap::{catch, class};
use runtime::{cache, check, check_eq, mmio, pages, println, sysreg};

runtime::guest!("founding_bug", founding_bug);

/// Faults any one access may take: one to map, one to relax.
const FAULTS_PER_ACCESS: u64 = 2;
const RET: u32 = 0xd65f_03c0;

/// `MOVZ X0, #value`.
fn mov_x0(value: u16) -> u32 {
    0xd280_0000 | u32::from(value) << 5
}

/// Does `access` and checks what it cost.
fn bounded<T>(what: &str, access: impl FnOnce() -> T) -> (T, Option<Counters>) {
    let (result, cost) = counted(access);
    if let Some(cost) = &cost {
        let faults = cost.faults();
        check!(faults <= FAULTS_PER_ACCESS, "{what} took {faults} faults");
        check_eq!(
            cost.get(Counter::AbortsInjected),
            0,
            "aborts injected by {what}"
        );
    }
    (result, cost)
}

fn founding_bug() {
    pages::settle_image();
    let (_, all) = counted(|| {
        read_then_execute();
        read_write_execute();
        execute_then_write();
        write_and_execute_in_turn();
    });
    let Some(all) = all else { return };
    println!(
        "read {}, write {}, fetch {} translation faults; write {}, fetch {} permission faults",
        all.get(Counter::TranslationRead),
        all.get(Counter::TranslationWrite),
        all.get(Counter::TranslationFetch),
        all.get(Counter::PermissionWrite),
        all.get(Counter::PermissionFetch)
    );
    if !sysreg::dic() {
        check!(
            all.get(Counter::PermissionFetch) > 0,
            "DIC = 0, yet no fetch was refused: this shows nothing"
        );
        check!(
            all.get(Counter::IcacheCoherent) > 0,
            "DIC = 0, yet no page was made coherent for the I-cache"
        );
    }
}

/// A page never written: it holds zeros, which are UDF.
fn read_then_execute() {
    let page = pages::fresh();
    let (value, _) = bounded("reading a fresh page", || mmio::read32(page));
    check_eq!(value, 0, "a fresh page");
    let ((_, caught), _) = bounded("executing what was read", || catch(|| pages::call(page)));
    check_eq!(caught.count, 1, "exceptions on executing zeros");
    let frame = caught.last.unwrap_or_else(|| unreachable!());
    check_eq!(frame.class(), class::UNKNOWN, "class of the exception");
    check_eq!(frame.elr, page, "its address");
}

fn read_write_execute() {
    for n in 0..16 {
        let page = pages::fresh();
        bounded("a read", || mmio::read32(page));
        bounded("a write", || mmio::write32(page, mov_x0(n)));
        mmio::write32(page + 4, RET);
        cache::publish_code(page, 8);
        let (answer, _) = bounded("a fetch", || pages::call(page));
        check_eq!(answer, u64::from(n), "answer of the code");
        let (_, cost) = bounded("a second fetch", || pages::call(page));
        check_eq!(
            cost.map_or(0, |cost| cost.faults()),
            0,
            "faults of a second fetch"
        );
    }
}

/// The first touch is the fetch.
fn execute_then_write() {
    let page = pages::fresh();
    let ((_, caught), _) = bounded("a first fetch", || catch(|| pages::call(page)));
    check_eq!(caught.count, 1, "exceptions on executing zeros");
    bounded("a read", || mmio::read32(page));
    bounded("a write", || mmio::write32(page, mov_x0(7)));
    mmio::write32(page + 4, RET);
    cache::publish_code(page, 8);
    let (answer, _) = bounded("a fetch", || pages::call(page));
    check_eq!(answer, 7, "answer of the code");
}

/// A write must not take execute away, nor a fetch the write: the cost does not grow with the turns.
fn write_and_execute_in_turn() {
    let page = pages::fresh();
    mmio::write32(page + 4, RET);
    let (_, cost) = counted(|| {
        for n in 0..200 {
            mmio::write32(page, mov_x0(n));
            cache::publish_code(page, 4);
            check_eq!(pages::call(page), u64::from(n), "answer of rewritten code");
        }
    });
    if let Some(cost) = cost {
        check!(
            cost.faults() <= FAULTS_PER_ACCESS,
            "writing and executing in turn took {} faults",
            cost.faults()
        );
    }
}
