//! The sequences of maintenance: which operation in which order.

use super::*;

/// Handbook 4.1: "Relax (local)".
#[test]
fn relax_ends_with_stage_2_dropped_and_complete_before_stage_1() {
    assert_eq!(
        done_by(|m| mt::after_relax(m, SOME_IPA, Ttl::ANY)),
        [
            Op::Dsb(Dsb::NshSt),
            Op::Tlbi(Tlbi::Ipas2e1(SOME_IPA, Ttl::ANY)),
            Op::Dsb(Dsb::Nsh),
            Op::Tlbi(Tlbi::Vmalle1),
            Op::Dsb(Dsb::Nsh),
            Op::Isb,
        ]
    );
}

/// Handbook 9 (23): vCPUs of one VM on one pCPU.
#[test]
fn between_two_vcpus_stage_1_and_the_instruction_cache_are_dropped_here() {
    assert_eq!(
        done_by(mt::change_vcpu),
        [
            Op::Ic(Ic::AllLocal),
            Op::Dsb(Dsb::NshSt),
            Op::Tlbi(Tlbi::Vmalle1),
            Op::Dsb(Dsb::Nsh),
            Op::Isb,
        ]
    );
}

/// Handbook 4.1: "Revoke one leaf (broadcast)", with the repeat of CVE-2025-10263.
#[test]
fn a_break_is_broadcast_and_repeated() {
    assert_eq!(
        done_by(|m| mt::after_break(m, SOME_IPA, Ttl::ANY)),
        [
            Op::Dsb(Dsb::IshSt),
            Op::Tlbi(Tlbi::Ipas2e1Is(SOME_IPA, Ttl::ANY)),
            Op::Dsb(Dsb::Ish),
            Op::Tlbi(Tlbi::Vmalle1Is),
            Op::Dsb(Dsb::Ish),
            Op::Tlbi(Tlbi::RepeatVale2Is),
            Op::Dsb(Dsb::Ish),
            Op::Isb,
        ]
    );
}

const WHOLE_VMID: [Op; 6] = [
    Op::Dsb(Dsb::IshSt),
    Op::Tlbi(Tlbi::Vmalls12e1Is),
    Op::Dsb(Dsb::Ish),
    Op::Tlbi(Tlbi::RepeatVale2Is),
    Op::Dsb(Dsb::Ish),
    Op::Isb,
];

#[test]
fn a_whole_vmid_is_dropped_by_broadcast_and_repeated() {
    assert_eq!(done_by(mt::invalidate_vmid), WHOLE_VMID);
}

#[test]
fn a_new_mapping_needs_a_barrier_and_no_tlbi() {
    assert_eq!(done_by(mt::after_map), [Op::Dsb(Dsb::IshSt)]);
}

#[test]
fn another_vmid_is_current_between_two_isbs_and_never_while_walks_go_on() {
    let under = done_by(|m| mt::under_vttbr(m, 7 << 48, mt::invalidate_vmid));
    // EPD0 and EPD1; M.
    let mut expected = std::vec![
        Op::SetEl1(El1::Tcr, 0x80_0080),
        Op::SetEl1(El1::Sctlr, 1),
        Op::Isb,
        Op::Dsb(Dsb::Nsh),
        Op::SetVttbr(7 << 48),
        Op::Isb
    ];
    expected.extend(WHOLE_VMID);
    expected.extend([
        Op::Dsb(Dsb::Nsh),
        Op::SetVttbr(0),
        Op::Isb,
        Op::SetEl1(El1::Tcr, 0),
        Op::SetEl1(El1::Sctlr, 0),
    ]);
    assert_eq!(under, expected);
}

#[test]
fn a_page_is_cleaned_to_the_point_of_coherency_unless_stage_2_forces_write_back() {
    let clean = [Op::Dc(Dc::CleanInvalidateToPoc, PAGE), Op::Dsb(Dsb::Sy)];
    for bits in 0..16 {
        let log = done_by(|m| mt::make_visible(m, PAGE, &coherence(bits)));
        assert_eq!(
            log,
            if bits & 1 == 0 { &clean[..] } else { &[] },
            "{:?}",
            coherence(bits)
        );
    }
}

/// DDI 0487 "Cache maintenance by VA to the PoC and PoU": clean, DSB, invalidate, DSB, less what IDC and DIC spare.
#[test]
fn execution_costs_what_idc_dic_and_the_index_demand() {
    let clean = Op::Dc(Dc::CleanToPou, PAGE);
    let barrier = Op::Dsb(Dsb::Ish);
    let lines = Op::Ic(Ic::Range(PAGE));
    let all = Op::Ic(Ic::AllInnerShareable);
    for (idc, dic, pipt, expected) in [
        (false, false, false, &[clean, barrier, all, barrier][..]),
        (false, false, true, &[clean, barrier, lines, barrier]),
        (false, true, false, &[clean, barrier]),
        (false, true, true, &[clean, barrier]),
        (true, false, false, &[barrier, all, barrier]),
        (true, false, true, &[barrier, lines, barrier]),
        (true, true, true, &[]),
    ] {
        let rules = Coherence {
            fwb: true,
            idc,
            dic,
            pipt,
        };
        let mut ready = None;
        let log = done_by(|m| ready = Some(mt::make_executable(m, PAGE, &rules)));
        assert_eq!(log, expected, "{rules:?}");
        let ready = ready.unwrap();
        assert_eq!((ready.range(), ready.was_maintained()), (PAGE, !dic));
    }
}

#[test]
fn a_page_cleaned_to_coherency_is_not_cleaned_to_unification_again() {
    for bits in 0..16 {
        let rules = coherence(bits);
        let mut m = Recorder::new(1, rules);
        let page = m.pool.clone().take().unwrap().zeroed(&mut m, &rules);
        let _ready = page.make_executable(&mut m, &rules);
        let cleans = m.log.iter().filter(|op| matches!(op, Op::Dc(..))).count();
        let needed = if rules.fwb {
            usize::from(!rules.idc)
        } else {
            1
        };
        assert_eq!(cleans, needed, "{rules:?}");
    }
}
