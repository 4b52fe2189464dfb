//! PAR_EL1 is the guest's: what an address translation left there is there after every kind of fault that the
//! hypervisor handles in between, those above all for which it translates an address itself.
//!
//! A permission fault does not say which intermediate address it is about: HPFAR_EL2 is not valid then, and the
//! hypervisor asks by AT, whose answer goes to PAR_EL1.
#![no_std]
#![no_main]

use core::arch::asm;
use runtime::hypercall::{self, Counter, counted};
use runtime::pages::{self, PAGE};
use runtime::platform::{NOWHERE, PL031};
use runtime::trap::catch;
use runtime::{cache, check_eq, mmio, mmu, println, read_sysreg, smp, timer};

runtime::guest!("par_kept", par_kept);

const RET: u32 = 0xd65f_03c0;

fn par_kept() {
    pages::settle_image();
    mmu::Tables::identity().enable();
    let mut faults = 0;
    let mut each = |what: &str, action: &dyn Fn(u64)| {
        // A page that nothing has touched, and a translation that means something else.
        let (page, other) = (pages::fresh(), pages::fresh());
        for translated in [other, mmu::elsewhere(0)] {
            let par = translate(translated);
            let ((), cost) = counted(|| action(page));
            check_eq!(read_sysreg!("PAR_EL1"), par, "PAR_EL1 after {what}");
            faults += cost.map_or(0, |cost| {
                cost.get(Counter::PermissionWrite) + cost.get(Counter::PermissionFetch)
            });
        }
    };
    each("a read", &|page| {
        mmio::read32(page);
    });
    each("a write", &|page| mmio::write32(page, 1));
    each("a read and a write", &|page| {
        mmio::read32(page);
        mmio::write32(page, 1);
    });
    each("a fetch", &|page| {
        mmio::read32(page);
        catch(|| pages::call(page));
    });
    each("a write of code and a fetch", &|page| {
        mmio::write32(page, RET);
        cache::publish_code(page, 4);
        pages::call(page);
    });
    each("an access over a page's end", &|page| {
        mmio::read32(page);
        // SAFETY: fresh pages both; the next one is `other`.
        unsafe { asm!("str {0}, [{1}]", in(reg) 0u64, in(reg) page + PAGE - 4, options(nostack)) };
    });
    each("a device access", &|_| {
        mmio::read32(PL031);
    });
    each("an access to nothing", &|_| {
        catch(|| mmio::read32(NOWHERE));
    });
    each("a call", &|_| {
        hypercall::hvc(hypercall::PSCI_VERSION, 0);
    });
    each("an ID register", &|_| {
        read_sysreg!("ID_AA64PFR0_EL1");
    });
    each("some time", &|_| timer::spin_ms(2));
    println!("{faults} permission faults among them");
    if smp::count() > 1 {
        smp::start_others(smp::count(), smp::serve);
        smp::on_all(smp::count(), keep_one);
    }
}

/// Each CPU has its own.
fn keep_one() {
    let par = translate(0x4000_0000 + smp::index() as u64 * PAGE);
    for _ in 0..50 {
        runtime::sync::pause();
        check_eq!(
            read_sysreg!("PAR_EL1"),
            par,
            "PAR_EL1 of CPU {}",
            smp::index()
        );
    }
    timer::spin_ms(30);
    check_eq!(
        read_sysreg!("PAR_EL1"),
        par,
        "PAR_EL1 of CPU {} later",
        smp::index()
    );
}

fn translate(address: u64) -> u64 {
    // SAFETY: a question about an address; the answer is in PAR_EL1.
    unsafe { asm!("at s1e1r, {0}", "isb", in(reg) address, options(nostack)) };
    read_sysreg!("PAR_EL1")
}
