//! Features held against the ID registers of known CPUs.

use super::*;

/// The ID registers of QEMU 10's CPU models, as its EL2 reads them.
fn cpu(ctr: u64, clidr: u64, mmfr0: u64, mmfr1: u64, mmfr2: u64) -> Features {
    Features::new(&IdRegisters {
        ctr,
        clidr,
        mmfr0,
        mmfr1,
        mmfr2,
        ..IdRegisters::default()
    })
}

#[test]
fn a_cortex_a53_needs_all_maintenance_and_has_a_vipt_icache() {
    let a53 = cpu(0x8444_8004, 0x0a20_0023, 0x0000_1122, 0, 0);
    assert_eq!(
        a53.coherence,
        Coherence {
            fwb: false,
            idc: false,
            dic: false,
            pipt: false
        }
    );
    assert_eq!((a53.pa_bits, a53.vmid_bits, a53.xnx), (40, 8, false));
    assert_eq!((a53.dcache_line, a53.icache_line), (64, 64));
}

#[test]
fn idc_is_also_said_by_a_clidr_without_levels_to_clean() {
    // Neoverse N1: CTR.IDC reads 0, but LoUIS and LoUU are 0.
    let n1 = cpu(0x8444_c004, 0x8200_0023, 0x5, 0x1021_2122, 0);
    assert!(n1.coherence.idc && !n1.coherence.dic && n1.coherence.pipt && n1.xnx);
    assert_eq!((n1.pa_bits, n1.vmid_bits, n1.hafdbs), (48, 16, 2));
}

#[test]
fn max_has_everything() {
    let max = cpu(
        0xb444_c004,
        0x8200_0023,
        0x1 << 56 | 0x3 << 40 | 0x6,
        0x1 << 40 | 0x1021_2122,
        0x0221_0100_0000_0000 | 1 << 40,
    );
    assert_eq!(
        max.coherence,
        Coherence {
            fwb: true,
            idc: true,
            dic: true,
            pipt: true
        }
    );
    assert_eq!((max.pa_bits, max.bbm), (52, 2));
    assert!(max.fgt && max.hcx && max.ttl && max.granule_4k);
}

#[test]
fn pa_range_never_claims_more_bits_than_there_are() {
    for bits in 32..=56 {
        assert!(pa_bits(pa_range(bits)) <= bits);
    }
    for field in 0..=6 {
        assert_eq!(pa_range(pa_bits(field)), field);
    }
}

#[test]
fn a_stage_2_granule_can_be_absent_although_stage_1_has_it() {
    assert!(!cpu(0, 0, 1 << 40, 0, 0).granule_4k);
    assert!(!cpu(0, 0, 0xf << 28, 0, 0).granule_4k);
    assert!(cpu(0, 0, 0, 0, 0).granule_4k);
    assert!(cpu(0, 0, 2 << 40 | 0xf << 28, 0, 0).granule_4k);
}

#[test]
fn erratum_834220_is_of_cortex_a57_up_to_r1p2() {
    let with = |midr| {
        Features::new(&IdRegisters {
            midr,
            ..IdRegisters::default()
        })
        .erratum_834220
    };
    assert!(with(0x410f_d070) && with(0x411f_d072));
    assert!(!with(0x411f_d073) && !with(0x410f_d083));
}

#[test]
fn cpus_have_names() {
    assert_eq!(std::format!("{}", Midr(0x410f_d083)), "Cortex-A72 r0p3");
    assert_eq!(std::format!("{}", Midr(0x410f_d034)), "Cortex-A53 r0p4");
    assert_eq!(
        std::format!("{}", Midr(0x610f_0000)),
        "CPU with MIDR 0x610f0000"
    );
}

/// A big.LITTLE machine: a Cortex-A53 beside a CPU that has everything.
#[test]
fn what_all_cpus_have_is_what_the_least_of_them_has() {
    let little = Features::new(&IdRegisters {
        ctr: 0x8444_8004,
        clidr: 0x0a20_0023,
        mmfr0: 2,
        midr: 0x410f_d034,
        ..IdRegisters::default()
    });
    let big = Features::new(&IdRegisters {
        // DIC, IDC, PIPT, lines of 64 bytes.
        ctr: 0xb444_c004,
        mmfr0: 6,
        mmfr1: 2 | 2 << 4 | 1 << 28,
        mmfr2: 1 << 40 | 1 << 48 | 2 << 52,
        isar0: 2 << 56,
        midr: 0x410f_d490,
        ..IdRegisters::default()
    });
    for both in [little.and(&big), big.and(&little)] {
        assert_eq!((both.pa_bits, both.vmid_bits), (40, 8));
        assert_eq!(both.coherence, little.coherence);
        assert_eq!(both.mmu(), Mmu::default());
        assert_eq!((both.xnx, both.bbm), (false, 0));
    }
    assert_eq!(big.and(&big), big);
    // Where one CPU sets access flags wrongly, none does.
    let ampere = Features {
        midr: 0xc00f_ac30,
        ..big
    };
    assert!(big.mmu().dirty_state);
    assert!(!big.and(&ampere).mmu().access_flag);
}
