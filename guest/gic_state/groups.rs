//! Group 0 of a GICv3 that has one Security state: FIQs, with registers of their own.
//!
//! Oracle: IHI 0069 section 4.6 "Interrupt grouping", GICD_IGROUPR, ICC_IAR0_EL1, ICC_IGRPEN0_EL1.
use super::{FIRST_SPI, PRIORITY, forget, gic, length, ready, settle};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};
use runtime::gic::{Gic, SPECIAL, register};
use runtime::sync::wait_for;
use runtime::{check, check_eq, mmio, read_sysreg, trap, write_sysreg};

const A: u32 = FIRST_SPI;
const B: u32 = FIRST_SPI + 1;
/// GICD_CTLR: EnableGrp0, EnableGrp1, ARE.
const GROUP_0: u32 = 1;
const GROUP_1: u32 = 1 << 1;
const ARE: u32 = 1 << 4;

static FIQS: AtomicU32 = AtomicU32::new(0);
static LAST: AtomicU32 = AtomicU32::new(0);

pub(crate) fn all() {
    let Gic::V3 { gicd, .. } = gic() else { return };
    trap::on_fiq(on_fiq);
    ready(A);
    ready(B);
    check!(
        gic().bit(register::IGROUPR, A),
        "the group of an SPI that was put into 1"
    );
    set_group(A, 0);
    check!(
        !gic().bit(register::IGROUPR, A),
        "the group of an SPI that was put into 0"
    );
    check!(
        gic().bit(register::IGROUPR, B),
        "the group of its neighbour"
    );
    forget();
    unmask_fiq();
    // Held back by the distributor, by the CPU interface, and by neither.
    gic().pend(A);
    settle();
    check_eq!(fiqs(), 0, "FIQs with group 0 disabled at the distributor");
    mmio::write32(gicd + register::CTLR, ARE | GROUP_1 | GROUP_0);
    settle();
    check_eq!(fiqs(), 0, "FIQs with group 0 disabled at the CPU interface");
    // ICC_IGRPEN0_EL1.
    write_sysreg!("S3_0_C12_C12_6", 1);
    wait_for("a FIQ", || fiqs() == 1);
    check_eq!(LAST.load(Ordering::Acquire), A, "what came as a FIQ");
    for n in 2..=4 {
        gic().pend(A);
        wait_for("another FIQ", || fiqs() == n);
    }
    settle();
    check_eq!(fiqs(), 4, "FIQs");
    check_eq!(length(), 0, "IRQs");
    others_go_on(gicd);
    mask_fiq();
    write_sysreg!("S3_0_C12_C12_6", 0);
    mmio::write32(gicd + register::CTLR, ARE | GROUP_1);
    set_group(A, 1);
}

/// Both groups pending: each comes its own way, and ICC_IAR1_EL1 does not answer what is of group 0.
fn others_go_on(gicd: u64) {
    mask_fiq();
    gic().set_priority(A, 0x40);
    gic().pend(A);
    settle();
    check_eq!(
        gic().acknowledge(),
        1023,
        "ICC_IAR1_EL1 while group 0 is more urgent"
    );
    gic().pend(B);
    settle();
    check_eq!(length(), 0, "IRQs while group 0 is more urgent");
    unmask_fiq();
    wait_for("a FIQ, then an IRQ", || (fiqs(), length()) == (5, 1));
    gic().set_priority(A, PRIORITY);
    // Group 1 off at the distributor: group 0 goes on.
    mmio::write32(gicd + register::CTLR, ARE | GROUP_0);
    gic().pend(B);
    gic().pend(A);
    wait_for("a FIQ with group 1 off", || fiqs() == 6);
    settle();
    check_eq!(length(), 1, "IRQs with group 1 off");
    mmio::write32(gicd + register::CTLR, ARE | GROUP_0 | GROUP_1);
    wait_for("the IRQ that was held back", || length() == 2);
}

fn fiqs() -> u32 {
    FIQS.load(Ordering::Acquire)
}

fn on_fiq() {
    // ICC_IAR0_EL1, ICC_EOIR0_EL1.
    let intid = read_sysreg!("S3_0_C12_C8_0") as u32;
    if intid >= SPECIAL {
        return;
    }
    LAST.store(intid, Ordering::Release);
    write_sysreg!("S3_0_C12_C8_1", u64::from(intid));
    FIQS.fetch_add(1, Ordering::Release);
}

fn set_group(intid: u32, group: u32) {
    let address = gic().word(register::IGROUPR, intid);
    let bit = 1 << (intid % 32);
    let value = mmio::read32(address) & !bit;
    mmio::write32(address, if group == 1 { value | bit } else { value });
}

fn unmask_fiq() {
    // SAFETY: the vectors are installed and have a handler.
    unsafe { asm!("msr daifclr, #1", "isb", options(nostack)) };
}

fn mask_fiq() {
    // SAFETY: masking has no effect on memory.
    unsafe { asm!("msr daifset, #1", options(nostack)) };
}
