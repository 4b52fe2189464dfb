//! Every breakpoint and watchpoint there is, not the first alone; and what a watchpoint can be narrowed and widened to.
use super::{BCR, HITS, WCR_LOAD, WCR_STORE, allowed, data, hits, mine};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::{check_eq, mmio, read_sysreg, smp};

/// DBGWCR: enabled, EL0 only; EL1 only.
const EL0_ONLY: u64 = 1 | 0b10 << 1;
const EL1_ONLY: u64 = 1 | 0b01 << 1;
/// DBGWCR.BAS: all eight bytes; the bytes from the n-th on.
const ALL_BYTES: u64 = 0xff << 5;
/// DBGWCR.MASK: so many bits of the address are not looked at.
const fn mask(bits: u64) -> u64 {
    bits << 24
}

/// Which slot each CPU is to clear when it is hit.
static SLOT: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];

/// The registers of a slot.
#[derive(Clone, Copy)]
pub(crate) enum Register {
    /// DBGBVRn_EL1, DBGBCRn_EL1, DBGWVRn_EL1, DBGWCRn_EL1, by their op2.
    BreakValue = 4,
    BreakControl = 5,
    WatchValue = 6,
    WatchControl = 7,
}
use Register::{BreakControl, BreakValue, WatchControl, WatchValue};

fn write(slot: u64, register: Register, value: u64) {
    macro_rules! write {
        ($($n:literal)*) => {
            match (slot, register as u64) {
                $(
                    // SAFETY: as `write_sysreg!`; none of them decides about memory.
                    ($n, 4) => unsafe { asm!(concat!("msr S2_0_C0_C", $n, "_4, {}"), "isb", in(reg) value) },
                    // SAFETY: as above.
                    ($n, 5) => unsafe { asm!(concat!("msr S2_0_C0_C", $n, "_5, {}"), "isb", in(reg) value) },
                    // SAFETY: as above.
                    ($n, 6) => unsafe { asm!(concat!("msr S2_0_C0_C", $n, "_6, {}"), "isb", in(reg) value) },
                    // SAFETY: as above.
                    ($n, 7) => unsafe { asm!(concat!("msr S2_0_C0_C", $n, "_7, {}"), "isb", in(reg) value) },
                )*
                _ => {}
            }
        };
    }
    write!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// This CPU's slot was hit: it would be hit again by the same instruction.
pub(crate) fn clear(register: Register) {
    write(SLOT[smp::index()].load(Ordering::Relaxed), register, 0);
}

fn counts() -> [u64; 2] {
    let dfr0 = read_sysreg!("ID_AA64DFR0_EL1");
    [12, 20].map(|field| (dfr0 >> field & 0xf) + 1)
}

/// One hit of each, alone and beside all others that are set to something else.
pub(crate) fn every_one() {
    let [breakpoints, watchpoints] = counts();
    let cell = data();
    let cpu = smp::index();
    for slot in 0..breakpoints {
        write(slot, BreakValue, cell);
        write(slot, BreakControl, BCR);
    }
    for slot in 0..breakpoints {
        SLOT[cpu].store(slot, Ordering::Relaxed);
        write(slot, BreakValue, mine());
        write(slot, BreakControl, BCR);
        let before = hits();
        allowed(|| runtime::pages::call(mine()));
        check_eq!(hits() - before, 1, "hits of breakpoint {slot}, CPU {cpu}");
    }
    for slot in 0..watchpoints {
        write(slot, WatchValue, cell + 1024);
        write(slot, WatchControl, EL1_ONLY | WCR_STORE | ALL_BYTES);
    }
    for slot in 0..watchpoints {
        SLOT[cpu].store(slot, Ordering::Relaxed);
        write(slot, WatchValue, cell);
        write(slot, WatchControl, EL1_ONLY | WCR_STORE | ALL_BYTES);
        let before = hits();
        allowed(|| mmio::write64(cell, slot));
        check_eq!(hits() - before, 1, "hits of watchpoint {slot}, CPU {cpu}");
    }
    SLOT[cpu].store(0, Ordering::Relaxed);
    (0..breakpoints).for_each(|slot| write(slot, BreakControl, 0));
    (0..watchpoints).for_each(|slot| write(slot, WatchControl, 0));
}

/// What each control watches: bytes by themselves, ranges, one exception level.
pub(crate) fn watched() {
    let cell = data();
    let hits_of = |control: u64, value: u64, access: &dyn Fn()| {
        write(0, WatchValue, value);
        write(0, WatchControl, control);
        let before = HITS[smp::index()].load(Ordering::Relaxed);
        allowed(access);
        write(0, WatchControl, 0);
        hits() - before
    };
    let any = WCR_LOAD | WCR_STORE;
    for byte in 0..8 {
        let control = EL1_ONLY | any | 1 << (5 + byte);
        for other in 0..8 {
            let hit = hits_of(control, cell, &|| mmio::write8(cell + other, 1));
            check_eq!(
                hit,
                u64::from(other == byte),
                "byte {other} with byte {byte} watched"
            );
        }
        let hit = hits_of(control, cell, &|| {
            mmio::read64(cell);
        });
        check_eq!(hit, 1, "a double word with byte {byte} watched");
    }
    // 2 KiB from an address aligned to it.
    let control = EL1_ONLY | any | ALL_BYTES | mask(11);
    for (offset, expected) in [(0, 1), (8, 1), (2047, 1), (2048, 0), (3000, 0)] {
        let hit = hits_of(control, cell, &|| mmio::write8(cell + offset, 1));
        check_eq!(hit, expected, "byte {offset} with 2 KiB watched");
    }
    let hit = hits_of(EL0_ONLY | any | ALL_BYTES, cell, &|| mmio::write64(cell, 1));
    check_eq!(hit, 0, "an access of EL1 with EL0 watched");
    let hit = hits_of(EL1_ONLY & !1 | any | ALL_BYTES, cell, &|| {
        mmio::write64(cell, 1)
    });
    check_eq!(hit, 0, "an access with the watchpoint off");
}
