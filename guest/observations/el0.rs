//! What EL0 may do, by the bits that let it.
use crate::see;
use runtime::platform::RAM_BASE;
use runtime::trap::{Caught, catch, class};
use runtime::{cache, el0, mmio, mmu, pages, println, read_sysreg, write_sysreg};

const FAREWELL: u32 = 0xd400_0001 | (el0::FAREWELL as u32) << 5;
/// SCTLR_EL1: WFI, WFE, DC ZVA, CTR_EL0, cache maintenance and interrupt masks for EL0; M, C and I.
const BITS: [(&str, u64); 6] = [
    ("nTWI", 1 << 16),
    ("nTWE", 1 << 18),
    ("DZE", 1 << 14),
    ("UCT", 1 << 15),
    ("UCI", 1 << 26),
    ("UMA", 1 << 9),
];

const CODE: [(&str, u32); 24] = [
    ("mrs x0, ctr_el0", 0xd53b_0020),
    ("mrs x0, dczid_el0", 0xd53b_00e0),
    ("mrs x0, midr_el1", 0xd538_0000),
    ("mrs x0, mpidr_el1", 0xd538_00a0),
    ("mrs x0, id_aa64isar0_el1", 0xd538_0600),
    ("mrs x0, sctlr_el1", 0xd538_1000),
    ("mrs x0, tpidrro_el0", 0xd53b_d060),
    ("mrs x0, cntvct_el0", 0xd53b_e040),
    ("mrs x0, cntpct_el0", 0xd53b_e020),
    ("mrs x0, cntfrq_el0", 0xd53b_e000),
    ("mrs x0, cntv_ctl_el0", 0xd53b_e320),
    ("mrs x0, cntp_cval_el0", 0xd53b_e240),
    ("msr daifset, #2", 0xd503_42df),
    ("dc cvau, x1", 0xd50b_7b21),
    ("dc civac, x1", 0xd50b_7e21),
    ("ic ivau, x1", 0xd50b_7521),
    ("dc zva, x1", 0xd50b_7421),
    ("wfi", 0xd503_207f),
    ("wfe", 0xd503_205f),
    ("hvc #0", 0xd400_0002),
    ("smc #0", 0xd400_0003),
    ("eret", 0xd69f_03e0),
    ("mrs x0, pmccntr_el0", 0xd53b_9d00),
    ("mrs x0, mdscr_el1", 0xd530_0240),
];

pub(crate) fn observe() {
    let tables = mmu::Tables::identity();
    tables.set_root(
        mmu::index(mmu::elsewhere(0), 1),
        RAM_BASE | mmu::BLOCK | mmu::NORMAL | mmu::EL0,
    );
    tables.enable();
    let (code, data) = (pages::fresh(), pages::fresh());
    let before = read_sysreg!("SCTLR_EL1");
    let all = BITS.iter().fold(0, |all, (_, bit)| all | bit);
    write_sysreg!("PMUSERENR_EL0", 0);
    for (set, sctlr) in [("nothing", before & !all), ("everything", before | all)] {
        for counters in [0u64, 0x303] {
            write_sysreg!("SCTLR_EL1", sctlr);
            write_sysreg!("CNTKCTL_EL1", counters);
            for (what, instruction) in CODE {
                one(what, set, counters, instruction, (code, data));
            }
        }
    }
    write_sysreg!("CNTKCTL_EL1", 0);
    write_sysreg!("SCTLR_EL1", before);
    mmu::disable();
}

fn one(what: &str, set: &str, counters: u64, instruction: u32, (code, data): (u64, u64)) {
    mmio::write32(code, instruction);
    mmio::write32(code + 4, FAREWELL);
    cache::publish_code(code, 8);
    pages::set_el0_code(seen(code));
    if matches!(what, "wfi" | "wfe") && set == "everything" {
        return;
    }
    let (_, Caught { count, last }) = catch(|| {
        // SAFETY: two instructions, the last of which comes back. x1 is still the argument: data of ours.
        unsafe { el0::run(seen(code), seen(data), 0) }
    });
    match last {
        Some(frame) if frame.class() != class::SVC64 => {
            println!(
                "= EL0 {what} with {set} {counters:#x}: {count} of {:#x}",
                frame.esr
            );
        }
        _ => see(
            format_args!("EL0 {what} with {set} {counters:#x}, done"),
            count,
        ),
    }
}

/// Where EL0 sees a page of the first GiB of RAM.
fn seen(page: u64) -> u64 {
    page - RAM_BASE + mmu::elsewhere(0)
}
