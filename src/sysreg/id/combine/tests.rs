//! Two CPUs' registers and what holds on both, against values worked out by hand from the manual.

use proptest::prelude::*;

use super::*;

/// One CPU with `value` in register (CRm, op2).
fn cpu(crm: u16, op2: u16, value: u64) -> RawIds {
    let mut ids = RawIds::default();
    ids.0[index(crm, op2)] = value;
    ids
}

fn both(crm: u16, op2: u16, one: u64, other: u64) -> u64 {
    cpu(crm, op2, one).and(&cpu(crm, op2, other)).0[index(crm, op2)]
}

#[test]
fn of_most_fields_the_lower_holds_on_both() {
    // ID_AA64ISAR0_EL1: Cortex-A72 (AES 2, SHA1 1, SHA2 1, CRC32 1) and Neoverse-N1 (also Atomic 2, RDM 1, DP 1).
    assert_eq!(both(6, 0, 0x1_1120, 0x1000_1021_1120), 0x1_1120);
    // ID_AA64MMFR0_EL1.PARange 4 and 5, ASIDBits 2 and 0.
    assert_eq!(both(7, 0, 0x24, 0x05), 0x04);
    // ID_AA64MMFR1_EL1.HAFDBS 2 and 1, PAN 3 and 2.
    assert_eq!(both(7, 1, 0x30_0002, 0x20_0001), 0x20_0001);
    // ID_AA64DFR0_EL1: 6 breakpoints and 4, 4 watchpoints and 2.
    assert_eq!(both(5, 0, 0x30_5006, 0x10_3006), 0x10_3006);
}

#[test]
fn absent_is_lower_than_zero_where_0xf_says_absent() {
    // ID_AA64PFR0_EL1: FP and AdvSIMD, one CPU with half precision, one without floating point.
    assert_eq!(both(4, 0, 0x11_0000, 0xff_0000), 0xff_0000);
    assert_eq!(both(4, 0, 0x11_0000, 0x00_0000), 0x00_0000);
    // ID_AA64MMFR0_EL1.TGran4 and TGran64.
    assert_eq!(both(7, 0, 0x0f00_0000, 0xf000_0000), 0xff00_0000);
    assert_eq!(both(7, 0, 0x1000_0000, 0x0000_0000), 0x0000_0000);
    // ID_AA64DFR0_EL1.DoubleLock: 0xf is without.
    assert_eq!(both(5, 0, 0xf0_0000_0000, 0), 0xf0_0000_0000);
}

#[test]
fn two_algorithms_are_none() {
    // ID_AA64ISAR1_EL1: QARMA5 with and without combined faults; an algorithm of the maker's own on one CPU.
    assert_eq!(both(6, 1, 0x0100_0050, 0x0100_0010), 0x0100_0000);
    assert_eq!(both(6, 1, 0x0100_0010, 0x1000_0100), 0);
    assert_eq!(both(6, 1, 0x0100_0050, 0x0100_0050), 0x0100_0050);
    // ID_AA64MMFR2_EL1.CCIDX: two formats of CCSIDR_EL1.
    assert_eq!(both(7, 2, 0x10_0000, 0), 0);
}

/// The line sizes of a Cortex-A53 (0x8444_8004: VIPT) beside those of a CPU with 32-byte lines, 128-byte granules, PIPT,
/// IDC and DIC.
#[test]
fn ctr_has_the_smallest_lines_and_the_largest_granules() {
    let with = |ctr| {
        let mut ids = RawIds::default();
        ids.0[RawIds::CTR] = ctr;
        ids
    };
    let (a53, other) = (with(0x8444_8004), with(0xb553_c003));
    let merged = a53.and(&other);
    assert_eq!(merged.0[RawIds::CTR], 0x8553_8003);
    assert_eq!(other.and(&a53).0, merged.0);
    // "Not known" stays not known; what both have is kept.
    assert_eq!(
        with(0xb004_c004).and(&with(0xb444_c004)).0[RawIds::CTR],
        0xb004_c004
    );
    // Two policies of the I-cache, neither VIPT.
    assert_eq!(
        with(0x8444_0004).and(&with(0x8444_c004)).0[RawIds::CTR],
        0x8444_8004
    );
}

#[test]
fn a_guest_may_read_ctr_itself_only_where_it_is_the_same_everywhere() {
    use crate::sysreg::id::IdTable;
    let with = |ctr| {
        let mut ids = RawIds::default();
        ids.0[RawIds::CTR] = ctr;
        ids
    };
    let shown = |ids: &RawIds| IdTable::new(ids, true, 40).ctr();
    let same = with(0x8444_c004).and(&with(0x8444_c004));
    assert_eq!(shown(&same), None);
    let differs = same.and(&with(0x8444_8004));
    assert_eq!(shown(&differs), Some(0x8444_8004));
    assert_eq!(
        shown(&differs.and(&with(0x8444_8004))),
        Some(0x8444_8004),
        "it stays so"
    );
    assert_eq!(shown(&with(0x8444_8004).and(&differs)), Some(0x8444_8004));
}

#[test]
fn who_it_is_is_the_first() {
    let with = |midr, revidr| {
        let mut ids = RawIds::default();
        ids.0[RawIds::MIDR] = midr;
        ids.0[RawIds::REVIDR] = revidr;
        ids
    };
    let same = with(0x410f_d083, 0b0110).and(&with(0x410f_d083, 0b1100));
    assert_eq!(same.0[RawIds::REVIDR], 0b0100, "repairs that both have");
    let mixed = with(0x410f_d083, 0b0110).and(&with(0x410f_d034, 0));
    assert_eq!(
        (mixed.0[RawIds::MIDR], mixed.0[RawIds::REVIDR]),
        (0x410f_d083, 0b0110)
    );
}

proptest! {
    /// Whatever order CPUs come in, and however often: the same.
    #[test]
    fn it_is_a_meet(seed in any::<[u64; 3]>(), crm in 1u16..8, op2 in 0u16..8) {
        let [a, b, c] = seed.map(|value| cpu(crm, op2, value));
        let value = |ids: &RawIds| ids.0[index(crm, op2)];
        prop_assert_eq!(value(&a.and(&b)), value(&b.and(&a)));
        prop_assert_eq!(value(&a.and(&a)), value(&a));
        prop_assert_eq!(value(&a.and(&b).and(&b)), value(&a.and(&b)));
        prop_assert_eq!(value(&a.and(&b).and(&c)), value(&a.and(&b.and(&c))));
    }
}
