//! Identifiers and answers of DEN 0028, written down again; UIDs against the one that KVM documents.

use std::format;

use proptest::prelude::*;

use super::*;
use crate::addr::IpaRange;

const MINUS_ONE: [u64; 4] = [u64::MAX, 0, 0, 0];

/// What is done about a call by the only vCPU of a VM.
fn action(call: Call, mitigations: Mitigations) -> Action {
    let caller = psci::Caller {
        vcpu: 0,
        power: &psci::Power::new(1),
        ram: IpaRange {
            start: Ipa::new(0x4000_0000),
            size: 0x1000_0000,
        },
    };
    call.action(&Context {
        caller,
        mitigations,
        has_entropy: false,
    })
}

fn call(x0: u64, x1: u64) -> Action {
    call_with(Mitigations::default(), x0, x1)
}

fn call_with(mitigations: Mitigations, x0: u64, x1: u64) -> Action {
    action(Call::decode([x0, x1, 0x1111, 0x2222]), mitigations)
}

fn returns(x0: u64) -> Action {
    Action::Return([x0, 0, 0, 0])
}

#[test]
fn the_convention_is_version_1_1() {
    assert_eq!(call(0x8000_0000, 0), returns(0x1_0001));
    assert_eq!(call(0x8000_0001, 0x8000_0000), returns(0));
    assert_eq!(call(0x8000_0001, 0x8000_0001), returns(0));
    assert_eq!(
        call(0x8000_0001, 0x8000_0002),
        Action::Return(MINUS_ONE),
        "no SOC_ID"
    );
    assert_eq!(
        call(0x8000_0001, 0xdead_0000_8000_0000),
        returns(0),
        "32-bit arguments are cut"
    );
}

#[test]
fn workarounds_are_claimed_only_where_the_cpu_proves_it() {
    let [one, two, three] = [0x8000_8000, 0x8000_7fff, 0x8000_3fff];
    for function in [one, two, three] {
        assert_eq!(call(0x8000_0001, function), Action::Return(MINUS_ONE));
        assert_eq!(call(function, 0), Action::Return(MINUS_ONE));
    }
    let newer = Mitigations::new(0, 0x1300_0000_1111_2222);
    let newest = Mitigations::new(0, 0x1100_0000_1111_2222 | 3 << 56);
    let older = Mitigations::new(0, 0x1000_0000_1111_2222);
    assert_eq!(older, Mitigations::default());
    assert_eq!(newer, newest, "CSV2 is 3 in both");
    let middle = Mitigations::new(0, 0x0200_0000_0000_0000);
    assert_eq!(call_with(middle, 0x8000_0001, one), returns(1));
    assert_eq!(
        call_with(middle, 0x8000_0001, three),
        Action::Return(MINUS_ONE)
    );
    assert_eq!(call_with(newest, 0x8000_0001, three), returns(1));
    assert_eq!(
        call_with(newest, three, 0),
        returns(0),
        "called all the same, it does nothing"
    );
    let known = Mitigations {
        speculative_store: Mitigation::NotRequired,
        ..newest
    };
    assert_eq!(call_with(known, 0x8000_0001, two), returns(-2_i64 as u64));
}

#[test]
fn cores_that_execute_in_order_are_unaffected_whatever_csv2_says() {
    let [one, two, three] = [0x8000_8000, 0x8000_7fff, 0x8000_3fff];
    // Cortex-A53, A35, A55; A57, A72, A73 and the A53's number of another implementer.
    for midr in [0x410f_d034, 0x411f_d040, 0x412f_d050] {
        let known = Mitigations::new(midr, 0);
        assert_eq!(call_with(known, 0x8000_0001, one), returns(1), "{midr:#x}");
        assert_eq!(call_with(known, 0x8000_0001, two), returns(-2_i64 as u64));
        assert_eq!(call_with(known, 0x8000_0001, three), returns(1));
    }
    for midr in [0x411f_d070, 0x410f_d083, 0x410f_d090, 0x510f_d034, 0] {
        assert_eq!(
            Mitigations::new(midr, 0),
            Mitigations::default(),
            "{midr:#x}"
        );
    }
}

#[test]
fn a_guest_that_may_run_on_either_of_two_cpus_is_promised_what_both_have() {
    let a53 = Mitigations::new(0x410f_d034, 0);
    let a72 = Mitigations::new(0x410f_d083, 0);
    let a76 = Mitigations::new(0x411f_d0b1, 1 << 56);
    assert_eq!(a53.and(a72), a72);
    assert_eq!(a72.and(a53), a72);
    assert_eq!(a53.and(a76), a76);
    assert_eq!(a76.and(a76), a76);
}

/// DEN 0057: found by SMCCC_ARCH_FEATURES, then by itself.
#[test]
fn paravirtual_time_is_found() {
    assert_eq!(call(0x8000_0001, 0xc500_0020), returns(0));
    assert_eq!(call(0xc500_0020, 0xc500_0020), returns(0));
    assert_eq!(call(0xc500_0020, 0xc500_0021), returns(0));
    for absent in [0, 0xc500_0022, 0x8500_0021] {
        assert_eq!(call(0xc500_0020, absent), Action::Return(MINUS_ONE));
    }
    assert_eq!(call(0xc500_0021, 0), Action::StolenTime);
}

#[test]
fn entropy_is_there_where_its_source_is() {
    for x0 in 0x8400_0050..0x8400_0060 {
        assert_eq!(call(x0, 0x8400_0050), Action::Return(MINUS_ONE), "{x0:#x}");
        assert_eq!(call(x0 | 1 << 30, 8), Action::Return(MINUS_ONE), "{x0:#x}");
    }
    assert_eq!(trng::Call::Version.action(), returns(0x1_0000));
}

/// Bytes in written order to registers, checked with the pair that KVM's documentation and headers give.
fn words(uuid: &str) -> [u64; 4] {
    let digits: std::string::String = uuid.chars().filter(|digit| *digit != '-').collect();
    let byte = |index: usize| u64::from_str_radix(&digits[2 * index..2 * index + 2], 16).unwrap();
    [0, 4, 8, 12].map(|at| byte(at) | byte(at + 1) << 8 | byte(at + 2) << 16 | byte(at + 3) << 24)
}

#[test]
fn the_uid_is_ours_in_the_order_of_kvms() {
    assert_eq!(
        words("28b46fb6-2ec5-11e9-a9ca-4b564d003a74"),
        [0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d]
    );
    assert_eq!(
        call(0x8600_ff01, 0),
        Action::Return(words("d9c5e6a4-5a8f-4f0e-9a57-0f4c1e2b7a10"))
    );
    assert!(
        include_str!("../../docs/guest-abi.md").contains("d9c5e6a4-5a8f-4f0e-9a57-0f4c1e2b7a10")
    );
}

#[test]
fn our_own_calls_keep_all_64_bits_of_their_argument() {
    assert_eq!(call(0xc600_0000, u64::MAX), Action::Exit { code: u64::MAX });
    assert_eq!(call(0xdead_beef_c600_0001, 7), Action::Counter { id: 7 });
    assert_eq!(counter(Some(42)), [0, 42, 0, 0]);
    assert_eq!(counter(None), MINUS_ONE);
}

#[test]
fn psci_is_reached() {
    assert_eq!(call(0x8400_0000, 0), returns(0x1_0001));
    assert_eq!(call(0x8400_0008, 0), Action::SystemOff);
}

#[test]
fn what_we_do_not_have_is_minus_one() {
    let calls = [
        0,
        1,
        0x8400_0050,
        0xc400_0053,
        0xc400_0053,
        0x8500_0020,
        0xc500_0022,
        0x8600_0000,
        0x8600_ff03,
        0xc600_0002,
        0x4600_0000,
        u64::MAX,
    ];
    for x0 in calls {
        assert_eq!(call(x0, 0), Action::Return(MINUS_ONE), "{x0:#x}");
    }
}

#[test]
fn the_document_for_guests_names_the_same_numbers() {
    let document = include_str!("../../docs/guest-abi.md");
    for (name, function) in [("CALL_UID", CALL_UID), ("EXIT", EXIT), ("COUNTER", COUNTER)] {
        let line = format!(
            "| `{name}` | `0x{:04X}_{:04X}` |",
            function >> 16,
            function & 0xffff
        );
        assert!(
            document.contains(&line),
            "docs/guest-abi.md has no line\n{line}"
        );
    }
}

proptest! {
    #[test]
    fn only_a_few_calls_do_not_return(x in any::<[u64; 4]>(), pfr0 in any::<u64>()) {
        let call = Call::decode(x);
        if let Call::Unknown { function } = call {
            prop_assert_eq!(u64::from(function), x[0] & 0xffff_ffff);
            let action = action(call, Mitigations::new(0, pfr0));
            prop_assert_eq!(action, Action::Return(MINUS_ONE));
        }
    }
}
