//! The decoder against an assembler: each row is an encoding and what the assembler (LLVM's) was given to make it. The text is
//! read here by a parser that knows nothing of bit fields.

use super::{Extend, LoadStore, Mode};
use crate::device::Width;
use crate::exit::Transfer;
use proptest::prelude::*;

/// Forms that are emulated.
const EMULATED: [(u32, &str); 63] = [
    (0x2940_10a3, "ldp w3, w4, [x5]"),
    (0x295f_fbe0, "ldp w0, w30, [sp, #252]"),
    (0xa960_0440, "ldp x0, x1, [x2, #-512]"),
    (0xa8df_a127, "ldp x7, x8, [x9], #504"),
    (0x29e0_2127, "ldp w7, w8, [x9, #-256]!"),
    (0xa8c1_7bfd, "ldp x29, x30, [sp], #16"),
    (0x6940_8861, "ldpsw x1, x2, [x3, #4]"),
    (0x68ff_8861, "ldpsw x1, x2, [x3], #-4"),
    (0x69c1_0861, "ldpsw x1, x2, [x3, #8]!"),
    (0xa841_2d8a, "ldnp x10, x11, [x12, #16]"),
    (0x2840_2d8a, "ldnp w10, w11, [x12]"),
    (0x2900_8ca3, "stp w3, w3, [x5, #4]"),
    (0xa900_7cdf, "stp xzr, xzr, [x6]"),
    (0xa9bf_7bfd, "stp x29, x30, [sp, #-16]!"),
    (0x2881_7c41, "stp w1, wzr, [x2], #8"),
    (0xa83f_8861, "stnp x1, x2, [x3, #-8]"),
    (0xb840_4420, "ldr w0, [x1], #4"),
    (0xf850_0420, "ldr x0, [x1], #-256"),
    (0xf84f_fc20, "ldr x0, [x1, #255]!"),
    (0xb841_07e0, "ldr w0, [sp], #16"),
    (0xf840_843f, "ldr xzr, [x1], #8"),
    (0x3840_1462, "ldrb w2, [x3], #1"),
    (0x385f_fc62, "ldrb w2, [x3, #-1]!"),
    (0x7840_2462, "ldrh w2, [x3], #2"),
    (0x7840_2c62, "ldrh w2, [x3, #2]!"),
    (0x38c0_1462, "ldrsb w2, [x3], #1"),
    (0x3880_1462, "ldrsb x2, [x3], #1"),
    (0x78c0_2c62, "ldrsh w2, [x3, #2]!"),
    (0x789f_ec62, "ldrsh x2, [x3, #-2]!"),
    (0xb880_4462, "ldrsw x2, [x3], #4"),
    (0xb880_4c62, "ldrsw x2, [x3, #4]!"),
    (0xb800_4420, "str w0, [x1], #4"),
    (0xf81f_8c20, "str x0, [x1, #-8]!"),
    (0xf800_87df, "str xzr, [x30], #8"),
    (0x3800_1462, "strb w2, [x3], #1"),
    (0x7800_2c62, "strh w2, [x3, #2]!"),
    (0x381f_f47f, "strb wzr, [x3], #-1"),
    (0xb81f_0fe5, "str w5, [sp, #-16]!"),
    (0xb97f_fca4, "ldr w4, [x5, #16380]"),
    (0xf97f_fca4, "ldr x4, [x5, #32760]"),
    (0x397f_fca4, "ldrb w4, [x5, #4095]"),
    (0xb9bf_fca4, "ldrsw x4, [x5, #16380]"),
    (0xf900_07e4, "str x4, [sp, #8]"),
    (0xb85f_d0a4, "ldur w4, [x5, #-3]"),
    (0xf84f_f0a4, "ldur x4, [x5, #255]"),
    (0x38df_f0a4, "ldursb w4, [x5, #-1]"),
    (0x789f_e0a4, "ldursh x4, [x5, #-2]"),
    (0xb89f_c0a4, "ldursw x4, [x5, #-4]"),
    (0x381f_f0a4, "sturb w4, [x5, #-1]"),
    (0xf800_10a4, "stur x4, [x5, #1]"),
    (0xb866_68a4, "ldr w4, [x5, x6]"),
    (0xf866_78a4, "ldr x4, [x5, x6, lsl #3]"),
    (0xb866_48a4, "ldr w4, [x5, w6, uxtw]"),
    (0xb866_58a4, "ldr w4, [x5, w6, uxtw #2]"),
    (0xf866_d8a4, "ldr x4, [x5, w6, sxtw #3]"),
    (0x3866_c8a4, "ldrb w4, [x5, w6, sxtw]"),
    (0x3866_78a4, "ldrb w4, [x5, x6, lsl #0]"),
    (0x7866_f8a4, "ldrh w4, [x5, x6, sxtx #1]"),
    (0x38bf_6be4, "ldrsb x4, [sp, xzr]"),
    (0x78e6_58a4, "ldrsh w4, [x5, w6, uxtw #1]"),
    (0xb8a6_78a4, "ldrsw x4, [x5, x6, lsl #2]"),
    (0xf83f_58a4, "str x4, [x5, wzr, uxtw #3]"),
    (0x7826_e8a4, "strh w4, [x5, x6, sxtx]"),
];

/// Forms that are not: other accesses, no accesses, and what the manual leaves open.
const REFUSED: [(u32, &str); 49] = [
    (0xad40_0440, "ldp q0, q1, [x2]"),
    (0x6cc1_0440, "ldp d0, d1, [x2], #16"),
    (0x3dc0_0020, "ldr q0, [x1]"),
    (0xbc40_4420, "ldr s0, [x1], #4"),
    (0x3c00_1c20, "str b0, [x1, #1]!"),
    (0x885f_7c20, "ldxr w0, [x1]"),
    (0x8802_7c20, "stxr w2, w0, [x1]"),
    (0xc87f_8440, "ldaxp x0, x1, [x2]"),
    (0x88df_fc20, "ldar w0, [x1]"),
    (0xc89f_fc20, "stlr x0, [x1]"),
    (0xb8bf_c020, "ldapr w0, [x1]"),
    (0x9940_4020, "ldapur w0, [x1, #4]"),
    (0x9900_4020, "stlur w0, [x1, #4]"),
    (0xb820_0041, "ldadd w0, w1, [x2]"),
    (0xf820_8041, "swp x0, x1, [x2]"),
    (0xc8a0_7c41, "cas x0, x1, [x2]"),
    (0x4820_7c82, "casp x0, x1, x2, x3, [x4]"),
    (0xb840_0820, "ldtr w0, [x1]"),
    (0xf800_8820, "sttr x0, [x1, #8]"),
    (0xb880_0820, "ldtrsw x0, [x1]"),
    (0x1800_0200, "ldr w0, #64"),
    (0x9800_0200, "ldrsw x0, #64"),
    (0xf820_0420, "ldraa x0, [x1]"),
    (0xf8a0_1c20, "ldrab x0, [x1, #8]!"),
    (0xf980_0000, "prfm pldl1keep, [x0]"),
    (0xf880_1000, "prfum pldl1keep, [x0, #1]"),
    (0xf8a1_6800, "prfm pldl1keep, [x0, x1]"),
    (0xf83f_d100, "ld64b x0, [x8]"),
    (0xf83f_9100, "st64b x0, [x8]"),
    (0xd920_1420, "stg x0, [x1], #16"),
    (0x6900_0440, "stgp x0, x1, [x2]"),
    (0xd960_0020, "ldg x0, [x1]"),
    (0x4c40_7000, "ld1 { v0.16b }, [x0]"),
    (0xd50b_7420, "dc zva, x0"),
    (0xd50b_7e20, "dc civac, x0"),
    (0xd503_201f, "nop"),
    (0x8b02_0020, "add x0, x1, x2"),
    (0xd65f_03c0, "ret"),
    (
        0xa940_0441,
        "ldp x1, x1, [x2] (both halves into one register)",
    ),
    (
        0xf840_8421,
        "ldr x1, [x1], #8 (write-back over what was loaded)",
    ),
    (
        0xf800_8c21,
        "str x1, [x1, #8]! (write-back over what is stored)",
    ),
    (
        0xa8c1_0843,
        "ldp x3, x2, [x2], #16 (write-back over the second half)",
    ),
    (0xe940_0440, "opc = 11 of a pair"),
    (0x6840_0440, "non-temporal LDPSW"),
    (0xf9c0_0020, "size 11, opc 11"),
    (0xb9c0_0020, "size 10, opc 11: LDRSW of 32 bits"),
    (0xb862_0820, "register offset, option 000"),
    (0xb862_a820, "register offset, option 101"),
    (0xb861_0c20, "bit 21 = 1, bits 11 to 10 = 11"),
];

/// What a line of assembly means, from its text alone.
fn meaning(text: &str) -> LoadStore {
    let (mnemonic, operands) = text.split_once(' ').unwrap();
    let (registers, address) = operands.split_once(", [").unwrap();
    let is_pair = registers.contains(',');
    let is_write = mnemonic.starts_with("st");
    let mut transfers = registers
        .split(", ")
        .map(|name| transfer(mnemonic, name, is_pair));
    let first = transfers.next().unwrap();
    let (inside, after) = address.split_once(']').unwrap();
    let mut parts = inside.split(", ");
    let base = number(parts.next().unwrap());
    let rest: Vec<&str> = parts.collect();
    let mode = match (rest.as_slice(), after) {
        ([], "") => Mode::Offset(0),
        ([], after) => Mode::PostIndex(immediate(after.strip_prefix(", ").unwrap())),
        ([offset], "!") => Mode::PreIndex(immediate(offset)),
        ([offset], "") if offset.starts_with('#') => Mode::Offset(immediate(offset)),
        ([index, how @ ..], "") => indexed(index, how.first().copied()),
        _ => panic!("{text}"),
    };
    LoadStore {
        is_write,
        first,
        second: transfers.next(),
        base,
        mode,
    }
}

fn transfer(mnemonic: &str, name: &str, is_pair: bool) -> Transfer {
    let is_64_bit = name.starts_with('x');
    let width = match mnemonic.chars().last().unwrap() {
        'b' => Width::Byte,
        'h' => Width::Half,
        'w' => Width::Word,
        _ if is_64_bit => Width::Double,
        _ => Width::Word,
    };
    // LDRS*, LDURS*, LDPSW.
    let sign_extend = mnemonic.starts_with("ld") && mnemonic.contains('s');
    assert!(!is_pair || matches!(width, Width::Word | Width::Double));
    Transfer {
        width,
        sign_extend,
        register: number(name),
        is_64_bit: is_64_bit && (mnemonic.starts_with("ld") || width == Width::Double),
        is_ordered: false,
    }
}

fn number(name: &str) -> u8 {
    match name {
        "sp" | "xzr" | "wzr" => 31,
        name => name[1..].parse().unwrap(),
    }
}

fn immediate(text: &str) -> i64 {
    text.strip_prefix('#').unwrap().parse().unwrap()
}

fn indexed(index: &str, how: Option<&str>) -> Mode {
    let (word, shift) = match how {
        None => ("lsl", 0),
        Some(how) => match how.split_once(" #") {
            Some((word, shift)) => (word, shift.parse().unwrap()),
            None => (how, 0),
        },
    };
    Mode::Register {
        index: number(index),
        extend: match word {
            "uxtw" => Extend::Unsigned32,
            "sxtw" => Extend::Signed32,
            _ => Extend::All,
        },
        shift,
    }
}

#[test]
fn every_form_means_what_its_assembly_says() {
    for (word, text) in EMULATED {
        assert_eq!(LoadStore::decode(word), Some(meaning(text)), "{text}");
    }
}

#[test]
fn what_is_not_a_plain_load_or_store_is_not_taken_for_one() {
    for (word, text) in REFUSED {
        assert_eq!(LoadStore::decode(word), None, "{text}");
    }
}

#[test]
fn addresses_wrap_and_write_back_is_the_sum() {
    let none = |_| panic!("no index register");
    for (mode, base, expected) in [
        (Mode::Offset(-8), 4, (u64::MAX - 3, None)),
        (Mode::PreIndex(16), 0x1000, (0x1010, Some(0x1010))),
        (Mode::PostIndex(-16), 0x1000, (0x1000, Some(0xff0))),
        (Mode::PostIndex(8), u64::MAX - 7, (u64::MAX - 7, Some(0))),
    ] {
        assert_eq!(mode.address(base, none), expected, "{mode:?}");
    }
    for (extend, shift, expected) in [
        (
            Extend::All,
            3,
            0x1000u64.wrapping_add(0xffff_ffff_8000_0004 << 3),
        ),
        (Extend::Unsigned32, 2, 0x1000 + (0x8000_0004 << 2)),
        (
            Extend::Signed32,
            0,
            0x1000u64.wrapping_add(0xffff_ffff_8000_0004),
        ),
    ] {
        let mode = Mode::Register {
            index: 9,
            extend,
            shift,
        };
        let value = |number| {
            assert_eq!(number, 9);
            0xffff_ffff_8000_0004
        };
        assert_eq!(mode.address(0x1000, value), (expected, None), "{extend:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Total, and only ever of the two groups of the manual's table: bits 29 to 27 are 101 or 111, bit 26 (V) is 0.
    #[test]
    fn any_word_is_decoded_or_refused(word: u32) {
        for word in [word, word & !(0xf << 26) | 0b1010 << 26, word & !(0xf << 26) | 0b1110 << 26] {
            if let Some(decoded) = LoadStore::decode(word) {
                prop_assert!(matches!(word >> 26 & 0xf, 0b1010 | 0b1110), "{:#x}", word);
                prop_assert!(decoded.base < 32 && decoded.first.register < 32);
                prop_assert_eq!(decoded.is_write && decoded.first.sign_extend, false);
            }
        }
    }
}
