//! What guests are shown, against the manual's numbers.

use super::*;
use std::format;
use std::string::String;
use std::vec::Vec;

/// A CPU that claims everything in every field.
fn greedy() -> RawIds {
    RawIds([0x6666_6666_6666_6666; COUNT])
}

#[test]
fn hidden_features_read_as_absent_whatever_the_cpu_has() {
    let table = IdTable::new(&greedy(), true, 40);
    for (crm, op2, shift, name) in [
        (4, 0, 32, "SVE"),
        (4, 0, 44, "AMU"),
        (4, 0, 40, "MPAM"),
        (4, 0, 8, "EL2"),
        (4, 0, 12, "EL3"),
        (4, 1, 8, "MTE"),
        (4, 1, 24, "SME"),
        (5, 0, 4, "TraceVer"),
        (5, 0, 32, "PMSVer"),
        (4, 1, 36, "NMI"),
        (4, 1, 44, "GCS"),
        (6, 0, 24, "TME"),
        (6, 1, 60, "LS64"),
        (6, 2, 16, "MOPS"),
        (7, 0, 56, "FGT"),
        (7, 1, 8, "VH"),
        (7, 2, 16, "VARange"),
    ] {
        let value = table.read(encoding(3, 0, 0, crm, op2)).unwrap();
        assert_eq!(value >> shift & 0xf, 0, "{name}");
    }
    for (crm, op2) in [(4, 4), (4, 5), (7, 3), (7, 4), (5, 1), (3, 7)] {
        assert_eq!(table.read(encoding(3, 0, 0, crm, op2)), Some(0));
    }
}

/// A version that is not known yet is shown as the last that is, and one that is not the architecture's as it is.
#[test]
fn performance_monitors_are_shown_as_far_as_they_are_switched() {
    for (has, shown) in [(0, 0), (1, 1), (8, 8), (9, 8), (0xf, 0xf)] {
        let mut raw = RawIds::default();
        raw.0[index(5, 0)] = has << 8;
        let table = IdTable::new(&raw, true, 40);
        let value = table.read(encoding(3, 0, 0, 5, 0)).unwrap();
        assert_eq!(value >> 8 & 0xf, shown);
    }
}

#[test]
fn what_a_guest_has_is_shown() {
    let mut raw = RawIds::default();
    raw.0[index(6, 0)] = 0x1022_1120_2112_1120;
    raw.0[index(7, 0)] = 0x0000_0000_0000_1125;
    let table = IdTable::new(&raw, true, 36);
    // AES, SHA1, SHA2, CRC32, Atomic and so on stay; TME goes.
    assert_eq!(
        table.read(encoding(3, 0, 0, 6, 0)),
        Some(0x1022_1120_2012_1120)
    );
    assert_eq!(
        table.read(encoding(3, 0, 0, 7, 0)).unwrap() & 0xff,
        0x21,
        "PARange is the IPA size"
    );
    assert_eq!(
        table.read(encoding(3, 0, 0, 4, 0)),
        Some(0x0100_0010),
        "EL1 AArch64 only, GIC system registers"
    );
}

#[test]
fn absent_floating_point_and_granules_stay_absent() {
    let mut raw = RawIds::default();
    raw.0[index(4, 0)] = 0x00ff_0011;
    raw.0[index(7, 0)] = 0xf000_0000;
    let table = IdTable::new(&raw, false, 36);
    assert_eq!(table.read(encoding(3, 0, 0, 4, 0)), Some(0x00ff_0011));
    assert_eq!(table.read(encoding(3, 0, 0, 7, 0)).unwrap() >> 28, 0xf);
}

#[test]
fn only_id_registers_are_read_here() {
    let table = IdTable::new(&greedy(), true, 40);
    // MIDR_EL1 (CRm 0) is VPIDR_EL2's; SCTLR_EL1 is no ID register.
    assert_eq!(table.read(encoding(3, 0, 0, 0, 0)), None);
    assert_eq!(table.read(encoding(3, 0, 1, 0, 0)), None);
    assert_eq!(table.read(encoding(3, 1, 0, 4, 0)), None);
}

/// The table of `docs/id-registers.md`, as it has to be.
fn document() -> String {
    let mut text = String::new();
    for (crm, op2, name, fields) in FIELDS {
        if fields.iter().all(|(_, field, ..)| field.is_empty()) {
            text += &format!(
                "### `{name}` (S3_0_C0_C{crm}_{op2})\n\nAs the CPU has it, if EL0 can use AArch32.\n\n"
            );
            continue;
        }
        text += &format!(
            "### `{name}` (S3_0_C0_C{crm}_{op2})\n\n| bits | field | a guest sees | why |\n|---|---|---|---|\n"
        );
        for (shift, field, rule, why) in *fields {
            let shown = match rule {
                Rule::Keep => String::from("as the CPU has it"),
                Rule::AtMost(most) => format!("at most {most}"),
                Rule::SignedAtMost(most) => format!("at most {most}, or 0xf"),
                Rule::Fixed(value) => format!("{value}"),
                Rule::Gic => String::from("1 with a GICv3, 0 with a GICv2"),
                Rule::PaRange => String::from("computed"),
            };
            text += &format!("| {}:{shift} | {field} | {shown} | {why} |\n", shift + 3);
        }
        text += "\n";
    }
    text
}

/// Whoever changes the table gets the new text for the document from here.
#[test]
fn the_document_shows_this_table() {
    let table = document();
    assert!(
        include_str!("../../../docs/id-registers.md").contains(table.trim_end()),
        "docs/id-registers.md has another table; it has to be\n{table}"
    );
}

#[test]
fn every_field_is_named_once_and_lies_in_its_register() {
    let mut registers = Vec::new();
    for (crm, op2, name, fields) in FIELDS {
        assert!(CRM.contains(crm) && *op2 < 8, "{name}");
        registers.push((crm, op2));
        let shifts: Vec<u32> = fields.iter().map(|(shift, ..)| *shift).collect();
        assert!(
            shifts.is_sorted_by(|a, b| a < b)
                && shifts.iter().all(|shift| shift % 4 == 0 && *shift < 64),
            "{name}: {shifts:?}"
        );
        assert!(
            *crm >= AARCH64_CRM || shifts.iter().all(|shift| *shift < 32),
            "{name} has 32 bits"
        );
        assert!(fields.iter().all(|(.., why)| !why.is_empty()), "{name}");
    }
    assert!(registers.is_sorted_by(|a, b| a < b));
}

#[test]
fn aarch32_registers_are_zero_where_el0_cannot_use_it() {
    let mut raw = greedy();
    for (el0, shown) in [(1, false), (2, true)] {
        raw.0[index(4, 0)] = 0x10 | el0;
        let table = IdTable::new(&raw, true, 40);
        for crm in 1..4 {
            for op2 in 0..7 {
                let value = table.read(encoding(3, 0, 0, crm, op2)).unwrap();
                assert!(shown || value == 0, "CRm {crm}, op2 {op2}: {value:#x}");
            }
        }
        assert_eq!(table.read(encoding(3, 0, 0, 2, 0)).unwrap() != 0, shown);
    }
}

#[test]
fn a_guest_sees_who_the_boot_cpu_is() {
    let mut raw = RawIds::default();
    raw.0[RawIds::MIDR] = 0x410f_d083;
    raw.0[RawIds::REVIDR] = 0x21;
    raw.0[RawIds::AIDR] = 0x7;
    let table = IdTable::new(&raw, true, 40);
    assert_eq!(table.midr(), 0x410f_d083);
    assert_eq!(
        table.read(encoding(3, 0, 0, 0, 6)),
        Some(0x21),
        "REVIDR_EL1"
    );
    assert_eq!(table.read(encoding(3, 1, 0, 0, 7)), Some(7), "AIDR_EL1");
    assert_eq!(table.read(encoding(3, 1, 0, 0, 6)), None, "SMIDR_EL1");
    assert_eq!(table.read(encoding(3, 1, 0, 0, 4)), None, "GMID_EL1");
    assert_eq!(table.ctr(), None, "the CPU's own");
}
