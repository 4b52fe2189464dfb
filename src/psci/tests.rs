//! Numbers here are those of DEN 0022, written down again.

use proptest::prelude::*;

use super::*;

const NOT_SUPPORTED: u64 = 0xffff_ffff_ffff_ffff;
const INVALID_PARAMETERS: u64 = 0xffff_ffff_ffff_fffe;
const ALREADY_ON: u64 = 0xffff_ffff_ffff_fffc;

fn call_from(caller: u64, x: [u64; 4]) -> Action {
    Call::decode(x)
        .expect("a PSCI function")
        .action(Mpidr::from_register(caller))
}

fn call(x0: u64, x1: u64, x2: u64, x3: u64) -> Action {
    call_from(0x8000_0000, [x0, x1, x2, x3])
}

fn x0(action: Action) -> u64 {
    let Action::Return([x0, 0, 0, 0]) = action else {
        panic!("{action:?} returns nothing, or more than x0")
    };
    x0
}

#[test]
fn version_is_1_1_and_no_trusted_os_migrates() {
    assert_eq!(x0(call(0x8400_0000, 0, 0, 0)), 0x0001_0001);
    assert_eq!(x0(call(0x8400_0006, 0, 0, 0)), 2);
}

#[test]
fn off_and_reset_end_the_vm() {
    assert_eq!(call(0x8400_0008, 0, 0, 0), Action::SystemOff);
    assert_eq!(call(0x8400_0009, 0, 0, 0), Action::SystemReset);
    assert_eq!(
        call(0x8400_0012, 0, 9, 0),
        Action::SystemReset,
        "warm reset, 32-bit"
    );
    assert_eq!(
        call(0xc400_0012, 0, 9, 0),
        Action::SystemReset,
        "warm reset, 64-bit"
    );
    assert_eq!(
        x0(call(0xc400_0012, 1, 0, 0)),
        INVALID_PARAMETERS,
        "no such architectural reset"
    );
    assert_eq!(
        x0(call(0xc400_0012, 0x8000_0000, 0, 0)),
        INVALID_PARAMETERS,
        "no vendor-specific reset"
    );
    assert_eq!(call(0x8400_0002, 0, 0, 0), Action::CpuOff);
}

#[test]
fn the_only_vcpu_is_on_and_no_other_can_be() {
    for function in [0x8400_0003, 0xc400_0003] {
        assert_eq!(x0(call(function, 0, 0x4000_0000, 7)), ALREADY_ON);
        assert_eq!(x0(call(function, 1, 0x4000_0000, 7)), INVALID_PARAMETERS);
        assert_eq!(
            x0(call(function, 0x8000_0000, 0, 0)),
            INVALID_PARAMETERS,
            "bits of MPIDR that are no affinity"
        );
    }
    assert_eq!(
        x0(call_from(0x1_0000_0102, [0xc400_0003, 0x1_0000_0102, 0, 0])),
        ALREADY_ON
    );
    assert_eq!(
        x0(call_from(0x1_0000_0102, [0xc400_0003, 0x0102, 0, 0])),
        INVALID_PARAMETERS
    );
}

#[test]
fn affinity_info_looks_at_the_levels_it_is_asked_for() {
    let info = |target, level| x0(call_from(0x0001_0203, [0xc400_0004, target, level, 0]));
    assert_eq!(info(0x0001_0203, 0), 0);
    assert_eq!(info(0x0001_0204, 0), INVALID_PARAMETERS);
    assert_eq!(info(0x0001_0204, 1), 0);
    assert_eq!(info(0x0001_0304, 1), INVALID_PARAMETERS);
    assert_eq!(info(0x0001_0304, 2), 0);
    assert_eq!(info(0x0002_0304, 2), INVALID_PARAMETERS);
    assert_eq!(info(0x0002_0304, 3), 0);
    assert_eq!(info(0x1_0002_0304, 3), INVALID_PARAMETERS);
    assert_eq!(info(0x0001_0203, 4), INVALID_PARAMETERS);
}

#[test]
fn a_suspend_waits_unless_its_state_is_malformed() {
    for state in [0, 1, 0x0001_0000, 0x0301_ffff] {
        assert_eq!(call(0x8400_0001, state, 0, 0), Action::Wait);
        assert_eq!(call(0xc400_0001, state, 0x4000_0000, 1), Action::Wait);
    }
    assert_eq!(x0(call(0xc400_0001, 0x0400_0000, 0, 0)), INVALID_PARAMETERS);
    assert_eq!(x0(call(0xc400_0001, 0x0002_0000, 0, 0)), INVALID_PARAMETERS);
}

#[test]
fn calls_of_the_32_bit_convention_have_32_bit_arguments() {
    assert_eq!(
        x0(call(0xdead_0000_8400_0003, 0xdead_0000_0000_0000, 0, 0)),
        ALREADY_ON
    );
    assert_eq!(x0(call(0x8400_000a, 0xdead_0000_8400_0000, 0, 0)), 0);
    assert_eq!(
        x0(call(0xc400_0003, 0xdead_0000_0000_0000, 0, 0)),
        INVALID_PARAMETERS,
        "64-bit arguments are not cut"
    );
}

#[test]
fn features_is_honest_about_every_function_there_is() {
    let valid = |function: u64| match function & 0xffff {
        1 | 0xa => [
            function,
            if function & 0xffff == 1 {
                0
            } else {
                0x8400_0000
            },
            0,
            0,
        ],
        _ => [function, 0, 0, 0],
    };
    let mut supported = std::vec::Vec::new();
    for base in [0x8400_0000_u64, 0xc400_0000] {
        for function in (0..0x20).map(|number| base + number) {
            let claimed = x0(call(0x8400_000a, function, 0, 0));
            let answered =
                Call::decode(valid(function)).map(|call| call.action(Mpidr::from_register(0)));
            let is_there = answered.is_some_and(|action| action != Action::NOT_SUPPORTED);
            assert_eq!(
                claimed,
                if is_there { 0 } else { NOT_SUPPORTED },
                "{function:#x}"
            );
            if is_there {
                supported.push(function);
            }
        }
    }
    let expected = [
        0x8400_0000,
        0x8400_0001,
        0x8400_0002,
        0x8400_0003,
        0x8400_0004,
        0x8400_0006,
        0x8400_0008,
        0x8400_0009,
        0x8400_000a,
        0x8400_0012,
        0xc400_0001,
        0xc400_0003,
        0xc400_0004,
        0xc400_0012,
    ];
    assert_eq!(supported, expected);
    assert_eq!(
        x0(call(0x8400_000a, 0x8000_0000, 0, 0)),
        0,
        "SMCCC_VERSION is found through PSCI"
    );
    assert_eq!(
        x0(call(0x8400_000a, 0x8400_0050, 0, 0)),
        NOT_SUPPORTED,
        "TRNG is not PSCI's"
    );
}

proptest! {
    #[test]
    fn every_call_has_an_answer(function in 0u64..0x20, wide in any::<bool>(), x in any::<[u64; 3]>(), caller in any::<u64>()) {
        let x0 = function + if wide { 0xc400_0000 } else { 0x8400_0000 };
        if let Some(call) = Call::decode([x0, x[0], x[1], x[2]]) {
            match call.action(Mpidr::from_register(caller)) {
                Action::Return([x0, 0, 0, 0]) => prop_assert!(x0 <= 0x1_0001 || (x0 as i64) < 0),
                Action::Wait | Action::CpuOff | Action::SystemOff | Action::SystemReset => {}
                other => prop_assert!(false, "{:?} is not PSCI's", other),
            }
        }
    }
}
