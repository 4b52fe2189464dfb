//! The error records of FEAT_RAS, of which a guest has none: `ERRIDR_EL1` reads 0, and what a record would be at reads 0 and
//! ignores writes.
//!
//! Source: DDI 0487 "ERRIDR_EL1" and following.

use crate::exit::{SysRegAccess, encoding};
use crate::sysreg::Answer;
use crate::sysreg::id::IdTable;

/// `ERRIDR_EL1` and `ERXFR_EL1`, which can only be read.
const READ_ONLY: [u16; 2] = [encoding(3, 0, 5, 3, 0), encoding(3, 0, 5, 4, 0)];

/// `ERRSELR_EL1`, `ERXCTLR_EL1`, `ERXSTATUS_EL1`, `ERXADDR_EL1`, `ERXMISC0_EL1`, `ERXMISC1_EL1`: version 1 of the feature has no
/// others.
const WRITABLE: [u16; 6] = [
    encoding(3, 0, 5, 3, 1),
    encoding(3, 0, 5, 4, 1),
    encoding(3, 0, 5, 4, 2),
    encoding(3, 0, 5, 4, 3),
    encoding(3, 0, 5, 5, 0),
    encoding(3, 0, 5, 5, 1),
];

pub(super) fn is_one(encoding: u16) -> bool {
    READ_ONLY.contains(&encoding) || WRITABLE.contains(&encoding)
}

/// What an access to one of them comes to.
pub(super) fn answer(ids: &IdTable, access: &SysRegAccess) -> Answer {
    if !ids.has_ras() {
        Answer::Undefined
    } else if access.is_read {
        Answer::Value(0)
    } else if WRITABLE.contains(&access.encoding) {
        Answer::Ignored
    } else {
        Answer::Undefined
    }
}
