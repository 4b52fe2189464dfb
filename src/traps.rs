//! What a guest may do by itself and what comes to EL2: every control register of the trap machinery, bit by bit, with the
//! reason. One table, so that one place answers "why does this trap?".
//!
//! Sources: DDI 0487 "HCR_EL2", "CPTR_EL2", "MDCR_EL2", "CNTHCTL_EL2", "HSTR_EL2", "HCRX_EL2", "HFGRTR_EL2"; IHI 0069
//! "ICC_SRE_EL2".

use crate::features::Features;

/// One bit (or, with `value`, one field) that is not 0, and why.
pub struct Setting {
    /// Its name in the manual.
    pub name: &'static str,
    /// Its lowest bit.
    pub shift: u32,
    /// What is written there.
    pub value: u64,
    /// On which CPUs it exists and is wanted.
    pub when: fn(&Features) -> bool,
    /// Why.
    pub why: &'static str,
}

const fn set(name: &'static str, shift: u32, why: &'static str) -> Setting {
    field(name, shift, 1, why)
}

const fn field(name: &'static str, shift: u32, value: u64, why: &'static str) -> Setting {
    Setting {
        name,
        shift,
        value,
        when: |_| true,
        why,
    }
}

const fn only(
    when: fn(&Features) -> bool,
    name: &'static str,
    shift: u32,
    why: &'static str,
) -> Setting {
    Setting {
        name,
        shift,
        value: 1,
        when,
        why,
    }
}

/// `HCR_EL2`
pub const HCR_EL2: &[Setting] = &[
    set("VM", 0, "stage 2 is on"),
    set(
        "SWIO",
        1,
        "the guest's invalidate by set/way cleans as well: it cannot drop our dirty lines",
    ),
    set(
        "PTW",
        2,
        "a stage-1 walk into a device window faults and does not read the device",
    ),
    set(
        "FMO",
        3,
        "physical FIQs come to EL2; the guest has virtual ones",
    ),
    set(
        "IMO",
        4,
        "physical IRQs come to EL2; the guest has virtual ones",
    ),
    set(
        "AMO",
        5,
        "physical SErrors come to EL2: an error of the machine is not the guest's",
    ),
    set(
        "FB",
        9,
        "the guest's local TLB and I-cache maintenance is broadcast, wherever its vCPU runs next",
    ),
    field("BSU", 10, 1, "and its barriers reach as far"),
    set(
        "TID1",
        16,
        "REVIDR_EL1 and AIDR_EL1 are the boot CPU's, as MIDR_EL1 is",
    ),
    set(
        "TID3",
        18,
        "feature registers show what the guest really has",
    ),
    set(
        "TSC",
        19,
        "SMCs are answered here; there may be no firmware to ask",
    ),
    set(
        "TIDCP",
        20,
        "implementation defined registers are the machine's",
    ),
    set("TACR", 21, "ACTLR_EL1 is the machine's"),
    only(
        |f| !f.coherence.fwb,
        "TSW",
        22,
        "cache maintenance by set/way cannot do here what the guest means by it",
    ),
    set("RW", 31, "EL1 is AArch64"),
    set("TLOR", 35, "LORegions describe physical memory"),
    only(|f| f.ras, "TERR", 36, "error records are the machine's"),
    only(
        |f| f.guest_errors_trap,
        "TEA",
        37,
        "synchronous external aborts come to EL2: the guest never sees an error of ours as its own",
    ),
    set("APK", 40, "pointer authentication keys are the guest's own"),
    set("API", 41, "and so are its instructions"),
    only(
        |f| f.coherence.fwb,
        "FWB",
        46,
        "guest memory is Write-Back whatever its stage 1 says: nothing to clean",
    ),
];

/// `HCR_EL2.TVM`: writes of EL1's memory registers trap.
pub const HCR_EL2_TVM: u64 = 1 << 26;

/// `HCR_EL2.TID2`: CTR_EL0 and the registers that describe caches trap.
pub const HCR_EL2_TID2: u64 = 1 << 17;

/// What `HCR_EL2` has besides for a vCPU out of reset: [`HCR_EL2_TVM`], so that we learn when it switches its caches on, but
/// not where stage 2 forces Write-Back; and [`HCR_EL2_TID2`] where the CPUs differ in their caches.
#[must_use]
pub const fn at_reset(features: &Features, caches_differ: bool) -> u64 {
    let tvm = if features.coherence.fwb {
        0
    } else {
        HCR_EL2_TVM
    };
    let tid2 = if caches_differ { HCR_EL2_TID2 } else { 0 };
    tvm | tid2
}

/// `CPTR_EL2` with `HCR_EL2.E2H` = 0
pub const CPTR_EL2: &[Setting] = &[
    field("RES1", 0, 0xff, "as the manual says"),
    set(
        "TZ",
        8,
        "no SVE: the guest is told that there is none (RES1 without it)",
    ),
    set("RES1", 9, "as the manual says"),
    set("TSM", 12, "no SME (RES1 without it)"),
    set("RES1", 13, "as the manual says"),
    set("TTA", 20, "no trace registers"),
    set("TAM", 30, "no activity monitors"),
];

/// `MDCR_EL2`, its `HPMN` aside, while a vCPU counts nothing. Breakpoints, watchpoints and single step are the guest's.
pub const MDCR_EL2: &[Setting] = &[
    set("TPM", 6, "the PMU, until a vCPU uses it"),
    set("TPMS", 14, "no statistical profiling"),
    set("HPMD", 17, "nothing is counted at EL2"),
    set("TTRF", 19, "no trace filter"),
    set("HCCD", 23, "no cycles are counted at EL2"),
];

/// `CNTHCTL_EL2` with `HCR_EL2.E2H` = 0
pub const CNTHCTL_EL2: &[Setting] = &[
    set("EL1PCTEN", 0, "the physical counter is read without a trap"),
    set(
        "EL1PCEN",
        1,
        "the physical timer is the guest's: EL2 has its own",
    ),
];

/// `HSTR_EL2`: nothing traps; EL0's AArch32 sees what EL1 lets it see.
pub const HSTR_EL2: &[Setting] = &[];

/// `HCRX_EL2` (FEAT_HCX): what it would let the guest use, the guest is told it does not have.
pub const HCRX_EL2: &[Setting] = &[];

/// All of `HFGRTR_EL2`, `HFGWTR_EL2`, `HFGITR_EL2`, `HDFGRTR_EL2`, `HDFGWTR_EL2` (FEAT_FGT): reset leaves them UNKNOWN. 0
/// traps nothing that the guest has, and by their inverted bits all that it has not.
pub const FINE_GRAINED: &[Setting] = &[];

/// `ICC_SRE_EL2` on a GICv3
pub const ICC_SRE_EL2: &[Setting] = &[
    set("SRE", 0, "the CPU interface is system registers"),
    set("DFB", 1, "no FIQ bypass"),
    set("DIB", 2, "no IRQ bypass"),
    set("Enable", 3, "the guest's ICC_SRE_EL1 does not trap"),
];

/// The value of a register for a CPU.
#[must_use]
pub fn value(settings: &[Setting], features: &Features) -> u64 {
    let wanted = settings.iter().filter(|setting| (setting.when)(features));
    wanted.fold(0, |value, setting| value | setting.value << setting.shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::IdRegisters;

    fn cpu(mmfr2: u64, pfr0: u64) -> Features {
        Features::new(&IdRegisters {
            mmfr2,
            pfr0,
            ..IdRegisters::default()
        })
    }

    #[test]
    fn registers_are_the_literals_of_the_manual() {
        let plain = cpu(0, 0);
        assert_eq!(value(HCR_EL2, &plain), 0x0308_807d_063f);
        assert_eq!(value(HCR_EL2, &cpu(1 << 40, 1 << 28)), 0x4338_803d_063f);
        assert_eq!(value(CPTR_EL2, &plain), 0x4010_33ff);
        assert_eq!(value(MDCR_EL2, &plain), 0x008a_4040);
        assert_eq!(value(CNTHCTL_EL2, &plain), 3);
        assert_eq!(value(ICC_SRE_EL2, &plain), 0xf);
    }

    /// A big CPU that booted, with everything, and a little one with nothing; and the other way round.
    #[test]
    fn each_of_mixed_cpus_traps_what_it_has_and_promises_what_all_have() {
        const FWB: u64 = 1 << 46;
        const TERR: u64 = 1 << 36;
        const TEA: u64 = 1 << 37;
        let big = Features::new(&IdRegisters {
            mmfr0: 1 << 56,
            mmfr1: 1 << 40,
            mmfr2: 1 << 40,
            pfr0: 1 << 28 | 1 << 32,
            dfr0: 1 << 8,
            ..IdRegisters::default()
        });
        let little = cpu(0, 0);
        for all in [big.and(&little), little.and(&big)] {
            let (on_big, on_little) = (all.trapping_on(&big), all.trapping_on(&little));
            assert!(on_big.fgt && on_big.hcx && on_big.sve && on_big.pmu);
            assert!(!on_little.fgt && !on_little.hcx && !on_little.sve && !on_little.pmu);
            let (on_big, on_little) = (value(HCR_EL2, &on_big), value(HCR_EL2, &on_little));
            assert_eq!(on_big & (FWB | TERR | TEA), TERR, "its error records alone");
            assert_eq!(on_little & (FWB | TERR | TEA), 0);
            assert!(!all.guest_errors_trap);
            assert!(!all.pmu && all.pmu_counters == 0);
        }
        let alone = value(HCR_EL2, &big.and(&big).trapping_on(&big));
        assert_eq!(alone & (FWB | TERR | TEA), FWB | TERR | TEA);
    }

    #[test]
    fn caches_are_asked_for_here_only_where_the_cpus_differ() {
        let (plain, fwb) = (cpu(0, 0), cpu(1 << 40, 0));
        assert_eq!(at_reset(&plain, false), 1 << 26, "TVM");
        assert_eq!(at_reset(&plain, true), 1 << 26 | 1 << 17, "and TID2");
        assert_eq!(at_reset(&fwb, false), 0);
        assert_eq!(at_reset(&fwb, true), 1 << 17);
    }

    #[test]
    fn no_two_settings_share_a_bit_and_each_has_a_reason() {
        for table in [HCR_EL2, CPTR_EL2, MDCR_EL2, CNTHCTL_EL2, ICC_SRE_EL2] {
            let mut seen = 0;
            for setting in table {
                let bits = setting.value << setting.shift;
                assert_eq!(seen & bits, 0, "{}", setting.name);
                assert!(!setting.why.is_empty());
                seen |= bits;
            }
        }
    }

    #[test]
    fn floating_point_and_debug_never_trap() {
        let all = cpu(u64::MAX, u64::MAX);
        assert_eq!(value(CPTR_EL2, &all) >> 10 & 1, 0, "TFP");
        assert_eq!(value(MDCR_EL2, &all) >> 8 & 0xf, 0, "TDE, TDA, TDOSA, TDRA");
        assert_eq!(value(HCR_EL2, &all) >> 13 & 3, 0, "TWI, TWE");
        assert_eq!(value(HCR_EL2, &all) >> 34 & 1, 0, "E2H");
    }
}
