//! Numbers here are those of DEN 0022, written down again.

use proptest::prelude::*;

use super::*;

const NOT_SUPPORTED: u64 = 0xffff_ffff_ffff_ffff;
const INVALID_PARAMETERS: u64 = 0xffff_ffff_ffff_fffe;
const ALREADY_ON: u64 = 0xffff_ffff_ffff_fffc;
const INVALID_ADDRESS: u64 = 0xffff_ffff_ffff_fff7;
const ON: u64 = 0;
const OFF: u64 = 1;

/// RAM of the VMs here: 64 MiB.
const RAM: IpaRange = IpaRange {
    start: Ipa::new(0x4000_0000),
    size: 0x400_0000,
};
/// Somewhere in it.
const ENTRY: u64 = 0x4020_0000;

/// A call by vCPU 0 of a VM with these.
fn call_with(power: &Power, x: [u64; 4]) -> Action {
    let caller = Caller {
        vcpu: 0,
        power,
        ram: RAM,
    };
    Call::decode(x).expect("a PSCI function").action(&caller)
}

/// A call by the only vCPU of a VM.
fn call(x0: u64, x1: u64, x2: u64, x3: u64) -> Action {
    call_with(&Power::new(1), [x0, x1, x2, x3])
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
fn a_vcpu_that_is_off_is_switched_on_once() {
    for function in [0x8400_0003, 0xc400_0003] {
        let power = Power::new(4);
        let on = |target, entry, context| call_with(&power, [function, target, entry, context]);
        assert_eq!(
            on(3, ENTRY, 7),
            Action::CpuOn {
                vcpu: 3,
                entry: Ipa::new(ENTRY),
                context: 7
            }
        );
        assert_eq!(x0(on(3, ENTRY, 7)), ALREADY_ON, "{function:#x}: again");
        assert_eq!(x0(on(0, ENTRY, 7)), ALREADY_ON, "{function:#x}: the caller");
        assert!(power.switch_off(3));
        assert!(matches!(on(3, ENTRY, 8), Action::CpuOn { context: 8, .. }));
        assert!(!power.is_on(1) && !power.is_on(2), "nobody else");
    }
}

#[test]
fn there_is_nobody_with_another_affinity() {
    let power = Power::new(4);
    for function in [0x8400_0003, 0xc400_0003] {
        for target in [4, 0x100, 0x1_0000, 0x00ff_ffff, 0x8000_0000, 0x8000_0001] {
            assert_eq!(
                x0(call_with(&power, [function, target, ENTRY, 0])),
                INVALID_PARAMETERS,
                "{target:#x}"
            );
        }
    }
    for target in [1 << 32, 0xff_00ff_ffff, 1 << 40, u64::MAX] {
        assert_eq!(
            x0(call_with(&power, [0xc400_0003, target, ENTRY, 0])),
            INVALID_PARAMETERS,
            "{target:#x}"
        );
    }
    assert_eq!(
        x0(call(0xc400_0003, 1, ENTRY, 0)),
        INVALID_PARAMETERS,
        "a VM with one vCPU has no second"
    );
}

#[test]
fn a_vcpu_starts_in_ram_or_not_at_all() {
    let power = Power::new(2);
    let beyond = RAM.end().raw();
    for entry in [
        0,
        0x3fff_fffc,
        beyond,
        u64::MAX,
        0x0900_0000,
        0x0400_0000,
        ENTRY + 1,
        ENTRY + 2,
        1 << 63 | ENTRY,
    ] {
        assert_eq!(
            x0(call_with(&power, [0xc400_0003, 1, entry, 0])),
            INVALID_ADDRESS,
            "{entry:#x}"
        );
        assert!(!power.is_on(1), "{entry:#x}: it stays off");
        assert_eq!(
            x0(call_with(&power, [0xc400_0003, 0, entry, 0])),
            ALREADY_ON,
            "of a vCPU that is on nobody asks where it would start"
        );
    }
    for entry in [0x4000_0000, beyond - 4] {
        let power = Power::new(2);
        assert!(matches!(
            call_with(&power, [0xc400_0003, 1, entry, 0]),
            Action::CpuOn { .. }
        ));
    }
}

#[test]
fn affinity_info_of_a_vcpu_is_its_own() {
    let power = Power::new(3);
    assert!(power.switch_on(2));
    for function in [0x8400_0004, 0xc400_0004] {
        let info = |target, level| x0(call_with(&power, [function, target, level, 0]));
        assert_eq!([info(0, 0), info(1, 0), info(2, 0)], [ON, OFF, ON]);
        assert_eq!(info(3, 0), INVALID_PARAMETERS);
    }
}

/// vCPUs 0 to 15 are cluster 0, 16 to 19 cluster 1: nobody is in a cluster 2, or has another Aff2 or Aff3.
#[test]
fn affinity_info_of_a_cluster_is_that_of_any_in_it() {
    let power = Power::new(20);
    let info = |target, level| x0(call_with(&power, [0xc400_0004, target, level, 0]));
    assert_eq!(info(0x100, 1), OFF);
    assert_eq!(info(0x1ff, 1), OFF, "lower fields do not count");
    assert_eq!(info(0x00f, 1), ON, "0 is on");
    assert!(power.switch_on(17));
    assert_eq!(info(0x100, 1), ON);
    assert_eq!(info(0x100, 0), OFF);
    assert_eq!(info(0x200, 1), INVALID_PARAMETERS);
    assert!(power.switch_off(0));
    assert_eq!(info(0x000, 1), OFF);
    assert_eq!(info(0x000, 2), ON, "17 is on");
    assert_eq!(info(0x0000_ffff, 2), ON);
    assert_eq!(info(0x0001_0000, 2), INVALID_PARAMETERS);
    assert_eq!(info(0x00ff_ffff, 3), ON);
    assert_eq!(info(0x1_0000_0000, 3), INVALID_PARAMETERS);
    assert_eq!(info(0, 4), INVALID_PARAMETERS);
    assert_eq!(
        x0(call_with(&power, [0x8400_0004, 0, 3, 0])),
        INVALID_PARAMETERS,
        "32 bits have no Aff3"
    );
}

#[test]
fn a_suspend_waits_unless_it_is_malformed() {
    for state in [0, 1, 0x0001_0000, 0x0301_ffff] {
        assert_eq!(call(0x8400_0001, state, ENTRY, 0), Action::Wait);
        assert_eq!(call(0xc400_0001, state, ENTRY, 1), Action::Wait);
    }
    for state in [0x0400_0000, 0x0002_0000, 0x8000_0000] {
        assert_eq!(x0(call(0xc400_0001, state, ENTRY, 0)), INVALID_PARAMETERS);
    }
}

#[test]
fn only_a_state_that_goes_on_elsewhere_has_an_entry_point() {
    for entry in [0, 0x0900_0000, ENTRY + 2, RAM.end().raw()] {
        assert_eq!(call(0xc400_0001, 0, entry, 0), Action::Wait);
        assert_eq!(x0(call(0xc400_0001, 1 << 16, entry, 0)), INVALID_ADDRESS);
        assert_eq!(x0(call(0x8400_0001, 1 << 16, entry, 0)), INVALID_ADDRESS);
    }
    let high = 0xdead_0000_0000_0000 | ENTRY;
    assert_eq!(call(0x8400_0001, 1 << 16, high, 0), Action::Wait);
    assert_eq!(x0(call(0xc400_0001, 1 << 16, high, 0)), INVALID_ADDRESS);
}

#[test]
fn calls_of_the_32_bit_convention_have_32_bit_arguments() {
    assert_eq!(
        x0(call(0xdead_0000_8400_0003, 0xdead_0000_0000_0000, 0, 0)),
        ALREADY_ON
    );
    let power = Power::new(2);
    let high = 0xdead_0000_0000_0000;
    assert_eq!(
        call_with(&power, [0x8400_0003, high | 1, high | ENTRY, u64::MAX]),
        Action::CpuOn {
            vcpu: 1,
            entry: Ipa::new(ENTRY),
            context: 0xffff_ffff
        }
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
                Call::decode(valid(function)).map(|_| call_with(&Power::new(1), valid(function)));
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
    fn every_call_has_an_answer(
        function in 0u64..0x20, wide in any::<bool>(), x in any::<[u64; 3]>(), vcpus in 1usize..9, on in any::<u8>(),
    ) {
        let power = Power::new(vcpus);
        for vcpu in (0..vcpus).filter(|vcpu| on >> vcpu & 1 != 0) {
            let _ = power.switch_on(vcpu);
        }
        let before: std::vec::Vec<bool> = (0..vcpus).map(|vcpu| power.is_on(vcpu)).collect();
        let x0 = function + if wide { 0xc400_0000 } else { 0x8400_0000 };
        // Small numbers are targets that exist.
        for x1 in [x[0], x[0] & 0xf] {
            let registers = [x0, x1, x[1] & 0x43ff_ffff, x[2]];
            if Call::decode(registers).is_none() {
                continue;
            }
            match call_with(&power, registers) {
                Action::Return([x0, 0, 0, 0]) => prop_assert!(x0 <= 0x1_0001 || (x0 as i64) < 0),
                Action::Wait | Action::CpuOff | Action::SystemOff | Action::SystemReset => {}
                Action::CpuOn { vcpu, entry, .. } => {
                    prop_assert!(!before[vcpu] && power.is_on(vcpu) && RAM.contains(entry));
                    let _ = power.switch_off(vcpu);
                }
                other => prop_assert!(false, "{:?} is not PSCI's", other),
            }
        }
        let after: std::vec::Vec<bool> = (0..vcpus).map(|vcpu| power.is_on(vcpu)).collect();
        prop_assert_eq!(before, after, "nothing else changes who is on");
    }
}
