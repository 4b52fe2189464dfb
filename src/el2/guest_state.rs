//! EL1's registers and the control of traps, as a vCPU finds them at its reset.
//!
//! With one vCPU on its pCPU they stay in the hardware from then on.
//!
//! Source: DDI 0487 "Reset and AArch64 state", Linux `Documentation/arch/arm64/booting.rst`.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    AFSR0_EL1, AFSR1_EL1, AMAIR_EL1, CNTHCTL_EL2, CNTKCTL_EL1, CNTP_CTL_EL0, CNTP_CVAL_EL0,
    CNTPCT_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVOFF_EL2, CONTEXTIDR_EL1, CPACR_EL1, CSSELR_EL1,
    ELR_EL1, ESR_EL1, FAR_EL1, HCR_EL2, ID_AA64DFR0_EL1, MAIR_EL1, MDSCR_EL1, MIDR_EL1, OSLAR_EL1,
    PAR_EL1, SCTLR_EL1, SP_EL0, SP_EL1, SPSR_EL1, TCR_EL1, TPIDR_EL0, TPIDR_EL1, TPIDRRO_EL0,
    TTBR0_EL1, TTBR1_EL1, VBAR_EL1, VMPIDR_EL2, VTCR_EL2,
};
use faultline::features::Features;
use faultline::stage2::Stage2;
use faultline::traps;
use faultline::vm::Vcpu;
use tock_registers::interfaces::{Readable, Writeable};

use super::sysreg::{
    CPTR_EL2, HCRX_EL2, HDFGRTR_EL2, HDFGWTR_EL2, HFGITR_EL2, HFGRTR_EL2, HFGWTR_EL2, HSTR_EL2,
    MDCCINT_EL1, MDCR_EL2, OSDLR_EL1, PMCR_EL0, VPIDR_EL2,
};

/// `SCTLR_EL1` at reset: RES1 bits (EOS, TSCXT, EIS, SPAN, nTLSMD, LSMAOE and the barrier controls), MMU and caches off.
const SCTLR_EL1_RESET: u64 = 0x30d0_0980;
/// `MPIDR_EL1.RES1`; affinity 0.
const MPIDR: u64 = 1 << 31;

/// Sets what traps, for a VM with this stage 2.
pub(super) fn set_traps(features: &Features, stage2: &Stage2) {
    VTCR_EL2.set(stage2.config().vtcr);
    CPTR_EL2.set(traps::value(traps::CPTR_EL2, features));
    HSTR_EL2.set(traps::value(traps::HSTR_EL2, features));
    CNTHCTL_EL2.set(traps::value(traps::CNTHCTL_EL2, features));
    // HPMN: all event counters there are belong to EL1, which cannot reach them.
    let counters = if features.pmu {
        PMCR_EL0.get() >> 11 & 0x1f
    } else {
        0
    };
    MDCR_EL2.set(traps::value(traps::MDCR_EL2, features) | counters);
    if features.hcx {
        HCRX_EL2.set(traps::value(traps::HCRX_EL2, features));
    }
    if features.fgt {
        let value = traps::value(traps::FINE_GRAINED, features);
        HFGRTR_EL2.set(value);
        HFGWTR_EL2.set(value);
        HFGITR_EL2.set(value);
        HDFGRTR_EL2.set(value);
        HDFGWTR_EL2.set(value);
    }
    VPIDR_EL2.set(MIDR_EL1.get());
    VMPIDR_EL2.set(MPIDR);
    HCR_EL2.set(traps::value(traps::HCR_EL2, features));
    barrier::isb(barrier::SY);
}

/// Sets what traps for this vCPU alone. The ERET is the context synchronization event.
pub(super) fn set_own_traps(vcpu: &Vcpu) {
    let now = HCR_EL2.get();
    let wanted = now & !traps::HCR_EL2_TVM | vcpu.traps;
    if wanted != now {
        HCR_EL2.set(wanted);
    }
}

/// `TCR_EL1.EPD0` and `EPD1`: a miss in a TLB walks nothing.
const TCR_NO_WALKS: u64 = 1 << 7 | 1 << 23;

/// EL1's stage 1 off, its walks too, and its timers.
pub(super) fn close_stage1() {
    TCR_EL1.set(TCR_NO_WALKS);
    SCTLR_EL1.set(SCTLR_EL1_RESET);
    CNTV_CTL_EL0.set(0);
    CNTP_CTL_EL0.set(0);
    barrier::isb(barrier::SY);
}

/// EL1's stage 1 as at reset: the guest's to set up.
pub(super) fn open_stage1() {
    TCR_EL1.set(0);
    barrier::isb(barrier::SY);
}

/// EL1's registers as at reset, floating-point registers and timers among them.
pub(super) fn reset_el1(features: &Features) {
    SCTLR_EL1.set(SCTLR_EL1_RESET);
    CPACR_EL1.set(0);
    TCR_EL1.set(0);
    TTBR0_EL1.set(0);
    TTBR1_EL1.set(0);
    MAIR_EL1.set(0);
    VBAR_EL1.set(0);
    CONTEXTIDR_EL1.set(0);
    ELR_EL1.set(0);
    SPSR_EL1.set(0);
    ESR_EL1.set(0);
    FAR_EL1.set(0);
    PAR_EL1.set(0);
    SP_EL0.set(0);
    SP_EL1.set(0);
    TPIDR_EL0.set(0);
    TPIDRRO_EL0.set(0);
    TPIDR_EL1.set(0);
    MDSCR_EL1.set(0);
    OSLAR_EL1.set(1);
    CNTKCTL_EL1.set(0);
    CNTV_CTL_EL0.set(0);
    CNTP_CTL_EL0.set(0);
    CNTV_CVAL_EL0.set(0);
    CNTP_CVAL_EL0.set(0);
    AMAIR_EL1.set(0);
    AFSR0_EL1.set(0);
    AFSR1_EL1.set(0);
    CSSELR_EL1.set(0);
    MDCCINT_EL1.set(0);
    OSDLR_EL1.set(0);
    reset_breakpoints();
    if features.pauth {
        reset_keys();
    }
    // The guest's time starts now.
    CNTVOFF_EL2.set(CNTPCT_EL0.get());
    reset_floating_point();
    barrier::isb(barrier::SY);
}

/// Breakpoints and watchpoints off: an earlier life's would fire in the next.
fn reset_breakpoints() {
    let dfr0 = ID_AA64DFR0_EL1.get();
    // Both fields hold the number less one.
    let (breakpoints, watchpoints) = (dfr0 >> 12 & 0xf, dfr0 >> 20 & 0xf);
    let is_there = |n: u64, last: u64| n <= last;
    macro_rules! zero {
        ($($n:literal)*) => {$(
            if is_there($n, breakpoints) {
                // SAFETY: debug registers of EL1's; the count keeps us off those there are not.
                unsafe {
                    core::arch::asm!(
                        concat!("msr dbgbcr", $n, "_el1, xzr"),
                        concat!("msr dbgbvr", $n, "_el1, xzr"),
                        options(nomem, nostack)
                    );
                }
            }
            if is_there($n, watchpoints) {
                // SAFETY: as above.
                unsafe {
                    core::arch::asm!(
                        concat!("msr dbgwcr", $n, "_el1, xzr"),
                        concat!("msr dbgwvr", $n, "_el1, xzr"),
                        options(nomem, nostack)
                    );
                }
            }
        )*};
    }
    zero!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// Pointer authentication keys are a guest's secrets.
fn reset_keys() {
    macro_rules! zero {
        ($($key:literal)*) => {$(
            // SAFETY: the CPU has FEAT_PAuth, and EL2 does not use the keys.
            unsafe { core::arch::asm!(concat!("msr ", $key, ", xzr"), options(nomem, nostack)) };
        )*};
    }
    zero!(
        "S3_0_C2_C1_0" "S3_0_C2_C1_1" "S3_0_C2_C1_2" "S3_0_C2_C1_3"
        "S3_0_C2_C2_0" "S3_0_C2_C2_1" "S3_0_C2_C2_2" "S3_0_C2_C2_3"
        "S3_0_C2_C3_0" "S3_0_C2_C3_1"
    );
}

/// Zeroes V0 to V31, FPCR and FPSR: nothing of an earlier life is left in them.
fn reset_floating_point() {
    // SAFETY: EL2 is built without floating point, so nobody's values are lost; CPTR_EL2.TFP is 0.
    unsafe {
        core::arch::asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "movi v\\n\\().2d, #0",
            ".endr",
            "msr fpcr, xzr",
            "msr fpsr, xzr",
            options(nomem, nostack)
        );
    }
}
