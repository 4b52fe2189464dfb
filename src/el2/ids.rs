//! The ID registers of this CPU, read once.

use aarch64_cpu::registers::{
    CLIDR_EL1, ID_AA64DFR0_EL1, ID_AA64ISAR0_EL1, ID_AA64ISAR1_EL1, ID_AA64MMFR0_EL1,
    ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1, MIDR_EL1,
};
use faultline::features::{self, Features, IdRegisters};
use faultline::sysreg::id::{RawIds, index};
use tock_registers::interfaces::Readable;

use super::sysreg::{AIDR_EL1, CTR_EL0, ID_AA64ISAR2_EL1, PMCR_EL0, REVIDR_EL1};

/// What this CPU can do.
pub(super) fn features() -> Features {
    Features::new(&IdRegisters {
        ctr: CTR_EL0.get(),
        clidr: CLIDR_EL1.get(),
        mmfr0: ID_AA64MMFR0_EL1.get(),
        mmfr1: ID_AA64MMFR1_EL1.get(),
        mmfr2: ID_AA64MMFR2_EL1.get(),
        isar0: ID_AA64ISAR0_EL1.get(),
        pfr0: ID_AA64PFR0_EL1.get(),
        isar1: ID_AA64ISAR1_EL1.get(),
        isar2: ID_AA64ISAR2_EL1.get(),
        dfr0: ID_AA64DFR0_EL1.get(),
        pmcr: if has_pmu() { PMCR_EL0.get() } else { 0 },
        midr: MIDR_EL1.get(),
    })
}

/// Whether this CPU has performance monitors.
pub(super) fn has_pmu() -> bool {
    features::has_pmu(ID_AA64DFR0_EL1.get())
}

macro_rules! read {
    ($raw:ident: $($crm:literal $op2:literal)*) => {$(
        // SAFETY: the ID space reads as zero where no register is; reading it has no side effect.
        unsafe {
            core::arch::asm!(
                concat!("mrs {}, S3_0_C0_C", $crm, "_", $op2),
                out(reg) $raw.0[index($crm, $op2)],
                options(nomem, nostack)
            );
        }
    )*};
}

/// All ID registers that a guest's reads of trap.
pub(super) fn raw() -> RawIds {
    let mut raw = RawIds::default();
    read! { raw:
        1 0 1 1 1 2 1 4 1 5 1 6 1 7
        2 0 2 1 2 2 2 3 2 4 2 5 2 6 2 7
        3 0 3 1 3 2 3 4
        4 0 4 1 5 0 6 0 6 1 6 2 7 0 7 1 7 2
    }
    raw.0[RawIds::MIDR] = MIDR_EL1.get();
    raw.0[RawIds::REVIDR] = REVIDR_EL1.get();
    raw.0[RawIds::AIDR] = AIDR_EL1.get();
    raw.0[RawIds::CTR] = CTR_EL0.get();
    raw
}
