//! Numbers of DEN 0098, written down again.

use std::format;
use std::string::String;

use proptest::prelude::*;

use super::*;

fn action(function: u32, x1: u64) -> Action {
    Call::decode(function, x1).expect("one of them").action()
}

/// What a call for entropy returns when the source yields these words, one after the other.
fn entropy(function: u32, bits: u64, words: &[u64]) -> [u64; 4] {
    let mut words = words.iter().copied();
    match action(function, bits) {
        Action::Random(request) => request.answer(|| words.next()),
        Action::Return(x) => x,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_says_what_it_is() {
    assert_eq!(action(0x8400_0050, 0), Action::Return([0x1_0000, 0, 0, 0]));
    for there in [
        0x8400_0050,
        0x8400_0051,
        0x8400_0052,
        0x8400_0053,
        0xc400_0053,
    ] {
        assert_eq!(
            action(0x8400_0051, there),
            Action::Return([0; 4]),
            "{there:#x}"
        );
        assert_eq!(
            action(0x8400_0051, there | 0xdead_0000_0000_0000),
            Action::Return([0; 4]),
            "32-bit arguments are cut"
        );
    }
    for absent in [0, 0x8400_0054, 0xc400_0050, 0xc400_0052, 0x8400_0000] {
        assert_eq!(
            action(0x8400_0051, absent),
            Action::NOT_SUPPORTED,
            "{absent:#x}"
        );
    }
}

#[test]
fn the_uuid_is_the_documents() {
    let Action::Return(x) = action(0x8400_0052, 0) else {
        panic!("no UUID");
    };
    let digits: String = x
        .iter()
        .flat_map(|word| (*word as u32).to_le_bytes())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(digits, "6e0f3d5291c44b7a8a352f7d60c9e41b");
    assert!(
        include_str!("../../../docs/guest-abi.md").contains("6e0f3d52-91c4-4b7a-8a35-2f7d60c9e41b")
    );
    assert_ne!(x[0], u64::from(u32::MAX), "that would be NOT_SUPPORTED");
}

#[test]
fn bits_come_lowest_first_from_x3_down() {
    let ones = [u64::MAX; 3];
    assert_eq!(entropy(0xc400_0053, 1, &ones), [0, 0, 0, 1]);
    assert_eq!(entropy(0xc400_0053, 64, &ones), [0, 0, 0, u64::MAX]);
    assert_eq!(entropy(0xc400_0053, 65, &ones), [0, 0, 1, u64::MAX]);
    assert_eq!(
        entropy(0xc400_0053, 192, &ones),
        [0, u64::MAX, u64::MAX, u64::MAX]
    );
    assert_eq!(entropy(0x8400_0053, 32, &ones), [0, 0, 0, 0xffff_ffff]);
    assert_eq!(entropy(0x8400_0053, 33, &ones), [0, 0, 1, 0xffff_ffff]);
    assert_eq!(
        entropy(0x8400_0053, 96, &ones),
        [0, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff]
    );
    assert_eq!(
        entropy(0xc400_0053, 192, &[1, 2, 3]),
        [0, 3, 2, 1],
        "each from a word of its own"
    );
}

#[test]
fn no_bits_and_too_many_are_refused() {
    for (function, bits) in [
        (0xc400_0053, 0),
        (0xc400_0053, 193),
        (0xc400_0053, u64::MAX),
        (0xc400_0053, 1 << 32),
        (0x8400_0053, 0),
        (0x8400_0053, 97),
        (0x8400_0053, 1 << 32),
    ] {
        assert_eq!(
            entropy(function, bits, &[7; 3]),
            [-2_i64 as u64, 0, 0, 0],
            "{bits}"
        );
    }
}

#[test]
fn a_source_that_runs_dry_leaves_nothing_behind() {
    for had in 0..3 {
        assert_eq!(
            entropy(0xc400_0053, 192, &[7; 3][..had]),
            [-3_i64 as u64, 0, 0, 0]
        );
    }
}

proptest! {
    #[test]
    fn never_more_bits_than_asked_for(bits in 1u64..=192, words in any::<[u64; 3]>()) {
        let [x0, x1, x2, x3] = entropy(0xc400_0053, bits, &words);
        prop_assert_eq!(x0, 0);
        let highest = match (x1, x2, x3) {
            (0, 0, x3) => 64 - x3.leading_zeros(),
            (0, x2, _) => 128 - x2.leading_zeros(),
            (x1, ..) => 192 - x1.leading_zeros(),
        };
        prop_assert!(u64::from(highest) <= bits);
    }
}
