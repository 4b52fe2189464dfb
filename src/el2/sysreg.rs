//! System registers that `aarch64-cpu` lacks, in the style of those it has: a name, `get`, `set`.
//!
//! As there, the accessors do not order memory: around shared memory a barrier stands between.

/// Defines readable and writable registers by the name the assembler knows.
macro_rules! system_registers {
    ($($(#[$doc:meta])* $name:ident = $asm:literal;)*) => {$(
        $(#[$doc])*
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "the manual's spelling")]
        pub(super) struct $name;

        #[allow(dead_code, reason = "every register has both, whichever is needed")]
        impl $name {
            /// Reads it.
            pub(super) fn get(&self) -> u64 {
                let value: u64;
                // SAFETY: reading this register has no side effect on memory.
                unsafe { core::arch::asm!(concat!("mrs {}, ", $asm), out(reg) value, options(nomem, nostack)) };
                value
            }

            /// Writes it.
            pub(super) fn set(&self, value: u64) {
                // SAFETY: it configures the guest's regime or the interrupt interface, never EL2's own memory.
                unsafe { core::arch::asm!(concat!("msr ", $asm, ", {}"), in(reg) value, options(nomem, nostack)) };
            }
        }
    )*};
}

system_registers! {
    /// Virtualization Processor ID: what the guest reads as MIDR_EL1.
    VPIDR_EL2 = "vpidr_el2";
    /// EL2's physical timer: the counter value it fires at.
    CNTHP_CVAL_EL2 = "cnthp_cval_el2";
    /// Hypervisor System Trap.
    HSTR_EL2 = "hstr_el2";
    /// Architectural Feature Trap (the crate has one field of it).
    CPTR_EL2 = "cptr_el2";
    /// Monitor Debug Configuration.
    MDCR_EL2 = "mdcr_el2";
    /// Extended Hypervisor Configuration (FEAT_HCX).
    HCRX_EL2 = "S3_4_C1_C2_2";
    /// Fine-grained read traps (FEAT_FGT).
    HFGRTR_EL2 = "S3_4_C1_C1_4";
    /// Fine-grained write traps.
    HFGWTR_EL2 = "S3_4_C1_C1_5";
    /// Fine-grained instruction traps.
    HFGITR_EL2 = "S3_4_C1_C1_6";
    /// Fine-grained debug read traps.
    HDFGRTR_EL2 = "S3_4_C3_C1_4";
    /// Fine-grained debug write traps.
    HDFGWTR_EL2 = "S3_4_C3_C1_5";
    /// Debug communications channel interrupts.
    MDCCINT_EL1 = "mdccint_el1";
    /// OS Lock status.
    OSLSR_EL1 = "oslsr_el1";
    /// OS double lock.
    OSDLR_EL1 = "osdlr_el1";
    /// Cache Type.
    CTR_EL0 = "ctr_el0";
    /// Data Cache Zero ID.
    DCZID_EL0 = "dczid_el0";
    /// Revision ID.
    REVIDR_EL1 = "revidr_el1";
    /// Auxiliary ID.
    AIDR_EL1 = "aidr_el1";
    /// Instruction Set Attributes 2.
    ID_AA64ISAR2_EL1 = "S3_0_C0_C6_2";
    /// Random number (FEAT_RNG).
    RNDR = "S3_3_C2_C4_0";
    /// Performance Monitors Control.
    PMCR_EL0 = "pmcr_el0";
    /// Which counters count; writing 1 has them do.
    PMCNTENSET_EL0 = "pmcntenset_el0";
    /// The same; writing 1 stops them.
    PMCNTENCLR_EL0 = "pmcntenclr_el0";
    /// Which counters interrupt when they overflow; writing 1 has them do.
    PMINTENSET_EL1 = "pmintenset_el1";
    /// The same; writing 1 has them not.
    PMINTENCLR_EL1 = "pmintenclr_el1";
    /// Which counters have overflowed; writing 1 says so.
    PMOVSSET_EL0 = "pmovsset_el0";
    /// The same; writing 1 clears it.
    PMOVSCLR_EL0 = "pmovsclr_el0";
    /// The counter that PMXEVTYPER_EL0 and PMXEVCNTR_EL0 are.
    PMSELR_EL0 = "pmselr_el0";
    /// What EL0 may do.
    PMUSERENR_EL0 = "pmuserenr_el0";
    /// The cycle counter.
    PMCCNTR_EL0 = "pmccntr_el0";
    /// Where it counts.
    PMCCFILTR_EL0 = "pmccfiltr_el0";
    /// Floating-point Control.
    FPCR = "fpcr";
    /// Floating-point Status.
    FPSR = "fpsr";

    /// Pointer authentication: instruction key A, low half.
    APIA = "S3_0_C2_C1_0";
    /// High half.
    APIA_HI = "S3_0_C2_C1_1";
    /// Instruction key B, low half.
    APIB = "S3_0_C2_C1_2";
    /// High half.
    APIB_HI = "S3_0_C2_C1_3";
    /// Data key A, low half.
    APDA = "S3_0_C2_C2_0";
    /// High half.
    APDA_HI = "S3_0_C2_C2_1";
    /// Data key B, low half.
    APDB = "S3_0_C2_C2_2";
    /// High half.
    APDB_HI = "S3_0_C2_C2_3";
    /// Generic key, low half.
    APGA = "S3_0_C2_C3_0";
    /// High half.
    APGA_HI = "S3_0_C2_C3_1";

    /// GICv3 CPU interface: priority mask.
    ICC_PMR_EL1 = "S3_0_C4_C6_0";
    /// Acknowledge, group 1.
    ICC_IAR1_EL1 = "S3_0_C12_C12_0";
    /// End of interrupt, group 1: priority drop.
    ICC_EOIR1_EL1 = "S3_0_C12_C12_1";
    /// Deactivate.
    ICC_DIR_EL1 = "S3_0_C12_C11_1";
    /// Active priorities, group 1.
    ICC_AP1R0_EL1 = "S3_0_C12_C9_0";
    /// Binary point, group 1.
    ICC_BPR1_EL1 = "S3_0_C12_C12_3";
    /// Control (the crate's is read-only).
    ICC_CTLR_EL1 = "S3_0_C12_C12_4";
    /// SGI generation, group 1.
    ICC_SGI1R_EL1 = "S3_0_C12_C11_5";
    /// System register enable, EL1.
    ICC_SRE_EL1 = "S3_0_C12_C12_5";
    /// Group 1 enable.
    ICC_IGRPEN1_EL1 = "S3_0_C12_C12_7";

    /// Hypervisor control.
    ICH_HCR_EL2 = "S3_4_C12_C11_0";
    /// VGIC type.
    ICH_VTR_EL2 = "S3_4_C12_C11_1";
    /// Virtual machine control.
    ICH_VMCR_EL2 = "S3_4_C12_C11_7";
    /// List register 0.
    ICH_LR0_EL2 = "S3_4_C12_C12_0";
    /// Active priorities, group 0, register 0.
    ICH_AP0R0_EL2 = "S3_4_C12_C8_0";
    /// Active priorities, group 0, register 1.
    ICH_AP0R1_EL2 = "S3_4_C12_C8_1";
    /// Active priorities, group 0, register 2.
    ICH_AP0R2_EL2 = "S3_4_C12_C8_2";
    /// Active priorities, group 0, register 3.
    ICH_AP0R3_EL2 = "S3_4_C12_C8_3";
    /// Active priorities, group 1, register 0.
    ICH_AP1R0_EL2 = "S3_4_C12_C9_0";
    /// Active priorities, group 1, register 1.
    ICH_AP1R1_EL2 = "S3_4_C12_C9_1";
    /// Active priorities, group 1, register 2.
    ICH_AP1R2_EL2 = "S3_4_C12_C9_2";
    /// Active priorities, group 1, register 3.
    ICH_AP1R3_EL2 = "S3_4_C12_C9_3";
}

/// Reads ICH_LR<n>_EL2; 0 past the last.
pub(super) fn list_register(n: usize) -> u64 {
    macro_rules! read {
        ($($n:literal $asm:literal)*) => {
            match n {
                $($n => {
                    let value: u64;
                    // SAFETY: reading a list register has no side effect.
                    unsafe { core::arch::asm!(concat!("mrs {}, ", $asm), out(reg) value, options(nomem, nostack)) };
                    value
                })*
                _ => 0,
            }
        };
    }
    read! {
        0 "S3_4_C12_C12_0" 1 "S3_4_C12_C12_1" 2 "S3_4_C12_C12_2" 3 "S3_4_C12_C12_3"
        4 "S3_4_C12_C12_4" 5 "S3_4_C12_C12_5" 6 "S3_4_C12_C12_6" 7 "S3_4_C12_C12_7"
        8 "S3_4_C12_C13_0" 9 "S3_4_C12_C13_1" 10 "S3_4_C12_C13_2" 11 "S3_4_C12_C13_3"
        12 "S3_4_C12_C13_4" 13 "S3_4_C12_C13_5" 14 "S3_4_C12_C13_6" 15 "S3_4_C12_C13_7"
    }
}

/// Writes ICH_LR<n>_EL2; nothing past the last.
#[inline(always)] // mostly there is one interrupt at a time
pub(super) fn set_list_register(n: usize, value: u64) {
    if n == 0 {
        ICH_LR0_EL2.set(value);
    } else {
        set_other_list_register(n, value);
    }
}

#[inline(never)]
fn set_other_list_register(n: usize, value: u64) {
    macro_rules! write {
        ($($n:literal $asm:literal)*) => {
            match n {
                // SAFETY: a list register is read by the virtual CPU interface only.
                $($n => unsafe { core::arch::asm!(concat!("msr ", $asm, ", {}"), in(reg) value, options(nomem, nostack)) },)*
                _ => {}
            }
        };
    }
    write! {
        1 "S3_4_C12_C12_1" 2 "S3_4_C12_C12_2" 3 "S3_4_C12_C12_3"
        4 "S3_4_C12_C12_4" 5 "S3_4_C12_C12_5" 6 "S3_4_C12_C12_6" 7 "S3_4_C12_C12_7"
        8 "S3_4_C12_C13_0" 9 "S3_4_C12_C13_1" 10 "S3_4_C12_C13_2" 11 "S3_4_C12_C13_3"
        12 "S3_4_C12_C13_4" 13 "S3_4_C12_C13_5" 14 "S3_4_C12_C13_6" 15 "S3_4_C12_C13_7"
    }
}
