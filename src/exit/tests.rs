//! Decoding held against the Arm ARM: syndromes worked out by hand, and every other one at random.

use super::*;
use crate::addr::{Gva, Ipa};
use crate::device::Width;
use proptest::prelude::*;

fn syndrome(ec: u64, iss: u64) -> Syndrome {
    Syndrome {
        esr: ec << 26 | 1 << 25 | iss,
        far: 0xffff_0000_1234_5678,
        hpfar: 0x0000_0123_4567_8900,
    }
}

fn abort(ec: u64, iss: u64) -> Abort {
    match Exit::decode(Vector::Synchronous, &syndrome(ec, iss)) {
        Exit::Abort(abort) => abort,
        other => panic!("not an abort: {other:?}"),
    }
}

const DATA: u64 = 0x24;
const FETCH: u64 = 0x20;
const WNR: u64 = 1 << 6;
const S1PTW: u64 = 1 << 7;
const CM: u64 = 1 << 8;

/// Syndromes as QEMU and the Arm ARM's examples have them: `ldr w3, [x1]`, `strb w5, [x0]`, `ldrsh x7, [x2]`.
#[test]
fn isv_says_what_a_load_or_store_moves() {
    let ldr = abort(DATA, 0x0183_0007).transfer().unwrap();
    assert_eq!(
        (ldr.width, ldr.register, ldr.is_64_bit, ldr.sign_extend),
        (Width::Word, 3, false, false)
    );
    let strb = abort(DATA, 0x0105_0047).transfer().unwrap();
    assert_eq!((strb.width, strb.register), (Width::Byte, 5));
    let ldrsh = abort(DATA, 0x0167_8007).transfer().unwrap();
    assert_eq!(
        (
            ldrsh.width,
            ldrsh.register,
            ldrsh.is_64_bit,
            ldrsh.sign_extend
        ),
        (Width::Half, 7, true, true)
    );
    assert!(abort(DATA, 0x0003_0007).transfer().is_none(), "ISV = 0");
    assert!(
        abort(FETCH, 0x0183_0007).transfer().is_none(),
        "instruction aborts have no ISV"
    );
    assert!(
        abort(DATA, 0x0183_0007 | 2 << 11).transfer().is_none(),
        "LD64B moves eight registers"
    );
}

#[test]
fn loads_extend_as_the_destination_says() {
    let load = |sas, sign_extend, is_64_bit, value| {
        Transfer {
            width: Width::from_sas(sas),
            sign_extend,
            register: 0,
            is_64_bit,
            is_ordered: false,
        }
        .extend(value)
    };
    assert_eq!(load(0, false, false, 0xffff_ff80), 0x80);
    assert_eq!(
        load(0, true, false, 0x80),
        0xffff_ff80,
        "LDRSB Wt clears the upper half"
    );
    assert_eq!(load(0, true, true, 0x80), 0xffff_ffff_ffff_ff80);
    assert_eq!(load(1, true, true, 0x8000), 0xffff_ffff_ffff_8000);
    assert_eq!(load(2, true, true, 0x8000_0000), 0xffff_ffff_8000_0000);
    assert_eq!(load(2, false, true, u64::MAX), 0xffff_ffff);
    assert_eq!(load(3, false, true, u64::MAX), u64::MAX);
    assert_eq!(load(3, true, true, 1 << 63), 1 << 63);
}

#[test]
fn the_need_looks_at_s1ptw_before_wnr_and_cm() {
    assert_eq!(abort(DATA, 0x07).need(), Need::Read);
    assert_eq!(abort(DATA, 0x07 | WNR).need(), Need::Write);
    assert_eq!(abort(FETCH, 0x07).need(), Need::Execute);
    assert_eq!(
        abort(FETCH, 0x07 | WNR).need(),
        Need::Execute,
        "WnR is RES0 in an instruction abort"
    );
    // A walk reads its tables, whoever it walks for.
    assert_eq!(abort(FETCH, 0x07 | S1PTW).need(), Need::Read);
    assert_eq!(abort(DATA, 0x07 | S1PTW | WNR).need(), Need::Read);
    // A load whose walk sets the access flag in a read-only table: WnR = 0, and yet a write.
    assert_eq!(abort(DATA, 0x0f | S1PTW).need(), Need::Write);
    assert_eq!(abort(FETCH, 0x0f | S1PTW).need(), Need::Write);
    // A guest's AT whose walk faults reports CM and WnR besides S1PTW.
    assert_eq!(abort(DATA, 0x06 | S1PTW | CM | WNR).need(), Need::Read);
    assert_eq!(abort(DATA, 0x07 | CM | WNR).need(), Need::Read);
}

#[test]
fn hpfar_is_believed_only_where_the_architecture_wrote_it() {
    let page = Some(Ipa::new(0x1_2345_6789_0000));
    for (iss, expected) in [
        (0x04, page),
        (0x07, page),
        (0x0b, page),
        (0x03, page),
        (0x0f | S1PTW, page),
        (0x07 | S1PTW, page),
        (0x0f, None),
        (0x0d | WNR, None),
        (0x10, None),
        (0x16, None),
        (0x21, None),
        (0x35, None),
    ] {
        assert_eq!(
            abort(DATA, iss).ipa_from_hpfar(false),
            expected,
            "ISS {iss:#x}"
        );
    }
    assert_eq!(
        abort(FETCH, 0x0f).ipa_from_hpfar(false),
        None,
        "the founding bug's own fault"
    );
    assert_eq!(
        abort(DATA, 0x07).ipa_from_hpfar(true),
        None,
        "erratum 834220"
    );
    assert_eq!(abort(DATA, 0x07 | S1PTW).ipa_from_hpfar(true), page);
}

#[test]
fn hpfar_gives_ipa_bits_12_to_51() {
    let mut all = syndrome(DATA, 0x07);
    all.hpfar = u64::MAX;
    let Exit::Abort(abort) = Exit::decode(Vector::Synchronous, &all) else {
        panic!()
    };
    assert_eq!(
        abort.ipa_from_hpfar(false),
        Some(Ipa::new(0x000f_ffff_ffff_f000))
    );
}

#[test]
fn far_is_invalid_only_for_an_external_abort_with_fnv() {
    assert_eq!(abort(DATA, 0x10 | 1 << 10).far(), None);
    assert_eq!(
        abort(DATA, 0x10).far(),
        Some(Gva::new(0xffff_0000_1234_5678))
    );
    assert_eq!(
        abort(DATA, 0x07 | 1 << 10).far(),
        Some(Gva::new(0xffff_0000_1234_5678))
    );
}

#[test]
fn status_codes_off_the_pattern_are_not_masked_into_it() {
    for (code, status) in [
        (0x00, FaultStatus::AddressSize(0)),
        (0x07, FaultStatus::Translation(3)),
        (0x09, FaultStatus::AccessFlag(1)),
        (0x0e, FaultStatus::Permission(2)),
        (0x14, FaultStatus::ExternalOnWalk(0)),
        (0x13, FaultStatus::ExternalOnWalk(-1)),
        (0x18, FaultStatus::Parity),
        (0x29, FaultStatus::AddressSize(-1)),
        (0x2a, FaultStatus::Translation(-2)),
        (0x2b, FaultStatus::Translation(-1)),
        (0x2c, FaultStatus::AddressSize(-2)),
        (0x11, FaultStatus::Other(0x11)),
        (0x1b, FaultStatus::ParityOnWalk(-1)),
        (0x1f, FaultStatus::ParityOnWalk(3)),
        (0x22, FaultStatus::GranuleProtection),
        (0x28, FaultStatus::GranuleProtection),
    ] {
        assert_eq!(abort(DATA, code).status(), status);
    }
}

#[test]
fn system_register_traps_name_their_register() {
    // MRS x5, ID_AA64MMFR0_EL1: op0 3, op1 0, CRn 0, CRm 7, op2 0.
    let iss = 3 << 20 | 5 << 5 | 7 << 1 | 1;
    let Exit::SysReg(access) = Exit::decode(Vector::Synchronous, &syndrome(0x18, iss)) else {
        panic!()
    };
    assert_eq!(
        access,
        SysRegAccess {
            encoding: encoding(3, 0, 0, 7, 0),
            rt: 5,
            is_read: true
        }
    );
    assert_eq!(std::format!("{access}"), "MRS S3_0_C0_C7_0");
}

#[test]
fn registers_are_told_by_their_encoding() {
    let access = |op0, op1, crn, crm, op2| SysRegAccess {
        encoding: encoding(op0, op1, crn, crm, op2),
        rt: 0,
        is_read: true,
    };
    // PMCR_EL0, PMCCNTR_EL0, PMOVSSET_EL0, PMINTENSET_EL1, PMMIR_EL1, PMEVCNTR0_EL0, PMCCFILTR_EL0.
    for (op1, crn, crm, op2) in [
        (3, 9, 12, 0),
        (3, 9, 13, 0),
        (3, 9, 14, 3),
        (0, 9, 14, 1),
        (0, 9, 14, 6),
        (3, 14, 8, 0),
        (3, 14, 15, 7),
    ] {
        let access = access(3, op1, crn, crm, op2);
        assert!(access.is_pmu() && !access.is_debug(), "{access}");
    }
    // MDSCR_EL1, DBGBVR0_EL1, DBGDTR_EL0.
    for access in [
        access(2, 0, 0, 2, 2),
        access(2, 0, 0, 0, 4),
        access(2, 3, 0, 4, 0),
    ] {
        assert!(access.is_debug() && !access.is_pmu(), "{access}");
    }
    // PMSCR_EL1 (profiling), CNTV_CTL_EL0, AMCR_EL0, TRCOSLAR.
    for access in [
        access(3, 0, 9, 9, 0),
        access(3, 3, 14, 3, 1),
        access(3, 3, 13, 2, 0),
        access(2, 1, 1, 0, 4),
    ] {
        assert!(!access.is_debug() && !access.is_pmu(), "{access}");
    }
}

#[test]
fn calls_keep_their_immediate() {
    assert_eq!(
        Exit::decode(Vector::Synchronous, &syndrome(0x16, 0xbeef)),
        Exit::Hvc(0xbeef)
    );
    assert_eq!(
        Exit::decode(Vector::Synchronous, &syndrome(0x17, 0)),
        Exit::Smc(0)
    );
    // ISS.TI: WFI, WFE, WFIT, WFET.
    for (ti, event) in [(0, false), (1, true), (2, true), (3, true)] {
        assert_eq!(
            Exit::decode(Vector::Synchronous, &syndrome(0x01, ti)),
            Exit::Wait { event }
        );
    }
    assert_eq!(
        Exit::decode(Vector::Synchronous, &syndrome(0x19, 0)),
        Exit::Hidden { class: 0x19 }
    );
    assert!(matches!(
        Exit::decode(Vector::Synchronous, &syndrome(0x25, 0)),
        Exit::Unknown { .. }
    ));
    assert_eq!(
        Exit::decode(Vector::Irq, &syndrome(0x24, 0)),
        Exit::Interrupt
    );
}

proptest! {
    #[test]
    fn every_syndrome_decodes(esr: u64, far: u64, hpfar: u64, vector in 0usize..4) {
        let vector = [Vector::Synchronous, Vector::Irq, Vector::Fiq, Vector::SError][vector];
        if let Exit::Abort(abort) = Exit::decode(vector, &Syndrome { esr, far, hpfar }) {
            let _ = (abort.need(), abort.ipa_from_hpfar(false), abort.transfer().map(|t| t.extend(far)));
        }
    }
}

/// DDI 0487 "ISS encoding for an SError interrupt": AET 010 (UEO) and 110 (CE) of an architected error.
#[test]
fn only_corrected_and_restartable_errors_are_survived() {
    const SERROR: u64 = 0x2f << 26 | 1 << 25;
    for aet in 0..8u64 {
        let expected = aet == 0b010 || aet == 0b110;
        assert_eq!(is_survivable(SERROR | aet << 10 | 0x11), expected);
        assert!(!is_survivable(SERROR | aet << 10), "uncategorized");
        assert!(
            !is_survivable(SERROR | aet << 10 | 1 << 24 | 0x11),
            "implementation defined"
        );
    }
}
