//! The CPU a guest sees: what the hypervisor hides reads as absent, and using it is UNDEFINED.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::hypercall::counter;
use runtime::trap::{Frame, catch, class};
use runtime::{
    cache, check, check_eq, mmio, mmu, pages, println, read_sysreg, smp, verdict, write_sysreg,
};

runtime::guest!("id_registers", id_registers);

fn id_registers() {
    println!("CTR_EL0 = {:#018x}", read_sysreg!("CTR_EL0"));
    every_encoding_answers();
    if smp::count() > 1 {
        the_same_on_each_cpu();
    }
    if counter(0).is_none() {
        verdict::pass_without("nothing beneath hides anything");
    }
    let pfr0 = read_sysreg!("ID_AA64PFR0_EL1");
    absent("SVE", pfr0, 32);
    absent("MPAM", pfr0, 40);
    absent("AMU", pfr0, 44);
    // EL1 and EL0 exist; whatever is said of EL2 and EL3, this program is at EL1.
    check!(
        pfr0 & 0xf != 0 && pfr0 >> 4 & 0xf != 0,
        "ID_AA64PFR0_EL1 {pfr0:#x} has no EL0 or EL1"
    );
    let pfr1 = read_sysreg!("ID_AA64PFR1_EL1");
    absent("MTE", pfr1, 8);
    absent("SME", pfr1, 24);
    let dfr0 = read_sysreg!("ID_AA64DFR0_EL1");
    absent("trace", dfr0, 4);
    absent("SPE", dfr0, 32);
    absent("trace filter", dfr0, 40);
    absent("trace buffer", dfr0, 44);
    check_eq!(read_sysreg!("S3_0_C0_C4_4"), 0, "ID_AA64ZFR0_EL1");
    check_eq!(read_sysreg!("S3_0_C0_C4_5"), 0, "ID_AA64SMFR0_EL1");
    hidden_features_are_undefined();
}

/// By the address of its code each CPU reads the whole space and sums it up; MPIDR_EL1 apart.
static SUMS: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static CODE: AtomicU64 = AtomicU64::new(0);

fn sum_up() {
    let mut sum = 0u64;
    let mut add = |value: u64| sum = sum.rotate_left(7) ^ value;
    for crm in 1..8 {
        for op2 in 0..8 {
            let code = CODE.load(Ordering::Acquire);
            mmio::write32(code, 0xd538_0000 | crm << 8 | op2 << 5);
            cache::publish_code(code, 8);
            add(pages::call(code));
        }
    }
    add(read_sysreg!("MIDR_EL1"));
    add(read_sysreg!("REVIDR_EL1"));
    add(read_sysreg!("CTR_EL0"));
    add(read_sysreg!("DCZID_EL0"));
    add(read_sysreg!("CLIDR_EL1"));
    add(read_sysreg!("CNTFRQ_EL0"));
    SUMS[smp::index()].store(sum, Ordering::Release);
    let mpidr = read_sysreg!("MPIDR_EL1");
    check_eq!(
        mpidr & smp::AFFINITY,
        smp::affinity(smp::index()),
        "MPIDR_EL1 of CPU {}",
        smp::index()
    );
}

fn the_same_on_each_cpu() {
    mmu::Tables::identity().enable();
    let code = pages::fresh();
    mmio::write32(code + 4, 0xd65f_03c0);
    CODE.store(code, Ordering::Release);
    sum_up();
    let sum_of = |cpu: usize| SUMS[cpu].load(Ordering::Acquire);
    for cpu in 1..smp::count() {
        smp::start(cpu, sum_up);
        smp::wait_until_off(cpu);
        check_eq!(
            sum_of(cpu),
            sum_of(0),
            "the ID registers of CPU {cpu}, summed up"
        );
    }
    println!("{} CPUs are alike", smp::count());
}

fn absent(what: &str, register: u64, shift: u32) {
    check_eq!(register >> shift & 0xf, 0, "{what} in {register:#x}");
}

/// op0 = 3, op1 = 0, CRn = 0, CRm = 1 to 7: the whole space of ID registers; what is not allocated reads as zero.
fn every_encoding_answers() {
    let code = pages::fresh();
    mmio::write32(code + 4, 0xd65f_03c0);
    for crm in 1..8 {
        for op2 in 0..8 {
            mmio::write32(code, 0xd538_0000 | crm << 8 | op2 << 5);
            cache::publish_code(code, 8);
            let (value, caught) = catch(|| pages::call(code));
            check_eq!(caught.count, 0, "exceptions on MRS S3_0_C0_C{crm}_{op2}");
            if crm >= 4 && value != 0 {
                println!("S3_0_C0_C{crm}_{op2} = {value:#018x}");
            }
        }
    }
}

/// CPACR_EL1.FPEN, ZEN and SMEN: nothing of floating point, SVE and SME is trapped to EL1, so that EL2 is asked.
const ALLOW_ALL: u64 = 0b11 << 20 | 0b11 << 16 | 0b11 << 24;

fn hidden_features_are_undefined() {
    write_sysreg!("CPACR_EL1", ALLOW_ALL);
    macro_rules! undefined {
        ($what:literal, $instruction:literal) => {
            let ((), caught) = catch(|| {
                // SAFETY: reads a register that should not be there into one declared as clobbered.
                unsafe { asm!($instruction, out("x0") _, options(nostack)) };
            });
            check_eq!(caught.count, 1, concat!("exceptions on ", $what));
            let frame: Frame = caught.last.unwrap_or_else(|| unreachable!());
            check_eq!(frame.class(), class::UNKNOWN, concat!("class of ", $what));
            check!(frame.il(), concat!("ESR_EL1.IL of ", $what, " is 0"));
            check_eq!(frame.iss(), 0, concat!("ESR_EL1.ISS of ", $what));
            check_eq!(frame.vector, 0x200, concat!("vector of ", $what));
        };
    }
    undefined!("PMSCR_EL1", "mrs x0, s3_0_c9_c9_0");
    undefined!("ZCR_EL1", "mrs x0, s3_0_c1_c2_0");
    undefined!("SMCR_EL1", "mrs x0, s3_0_c1_c2_6");
    undefined!("AMCR_EL0", "mrs x0, s3_3_c13_c2_0");
    undefined!("TRCVICTLR", "mrs x0, s2_1_c0_c0_2");
    undefined!("a register of EL2", "mrs x0, s3_4_c1_c1_0");
    undefined!(
        "an IMPLEMENTATION DEFINED register",
        "mrs x0, s3_1_c15_c7_7"
    );
    // RDVL X0, #1.
    undefined!("SVE", ".inst 0x04bf5020");
}
