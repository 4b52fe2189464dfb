//! The registers that describe caches, where the CPUs differ in `CTR_EL0` and a vCPU may run on any of them (`HCR_EL2.TID2`):
//! what holds on all, and one unified cache of one line, because maintenance by set and way is no business of a guest's.
//!
//! Source: DDI 0487 "CTR_EL0", "CLIDR_EL1", "CCSIDR_EL1", "CSSELR_EL1".

use crate::exit::{SysRegAccess, encoding};
use crate::sysreg::Answer;
use crate::sysreg::id::IdTable;

/// `CTR_EL0`
const CTR_EL0: u16 = encoding(3, 3, 0, 0, 1);
/// `CCSIDR_EL1`
const CCSIDR_EL1: u16 = encoding(3, 1, 0, 0, 0);
/// `CLIDR_EL1`
const CLIDR_EL1: u16 = encoding(3, 1, 0, 0, 1);
/// `CSSELR_EL1`
const CSSELR_EL1: u16 = encoding(3, 2, 0, 0, 0);

/// `CTR_EL0.IDC`
const IDC: u64 = 1 << 28;
/// Where `CTR_EL0.DminLine` stands.
const DMINLINE: u32 = 16;

pub(super) const fn is_one(encoding: u16) -> bool {
    matches!(encoding, CTR_EL0 | CCSIDR_EL1 | CLIDR_EL1 | CSSELR_EL1)
}

/// What an access to one of them comes to.
pub(super) fn answer(ids: &IdTable, access: &SysRegAccess) -> Answer {
    let Some(ctr) = ids.ctr() else {
        // They do not trap.
        return Answer::Undefined;
    };
    match (access.encoding, access.is_read) {
        (CTR_EL0, true) => Answer::Value(ctr),
        (CLIDR_EL1, true) => Answer::Value(clidr(ctr)),
        // One set, one way.
        (CCSIDR_EL1, true) => Answer::Value((ctr >> DMINLINE & 0xf).saturating_sub(2)),
        // There is one cache to select.
        (CSSELR_EL1, true) => Answer::Value(0),
        (CSSELR_EL1, false) => Answer::Ignored,
        _ => Answer::Undefined,
    }
}

/// One level, unified, which is cleaned to the point of unification unless `IDC` says that this is not needed.
const fn clidr(ctr: u64) -> u64 {
    const CTYPE1_UNIFIED: u64 = 0b100;
    const LOUIS: u64 = 1 << 21;
    const LOC: u64 = 1 << 24;
    const LOUU: u64 = 1 << 27;
    let unification = if ctr & IDC == 0 { LOUIS | LOUU } else { 0 };
    CTYPE1_UNIFIED | LOC | unification
}
