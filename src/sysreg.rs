//! Trapped system registers: what a guest reads of its CPU's features, and the few others that come here.
//!
//! Feature registers are an allow-list: a field that is not in [`id::FIELDS`] reads as "absent". Every other encoding that
//! traps is UNDEFINED to the guest.
//!
//! Source: DDI 0487 "AArch64 System register descriptions", `ID_*_EL1`.

pub mod id;

use crate::exit::{SysRegAccess, encoding};
use id::IdTable;

/// `ACTLR_EL1`
const ACTLR_EL1: u16 = encoding(3, 0, 1, 0, 1);
/// `ICC_SGI1R_EL1`
const ICC_SGI1R_EL1: u16 = encoding(3, 0, 12, 11, 5);
/// `ICC_ASGI1R_EL1`
const ICC_ASGI1R_EL1: u16 = encoding(3, 0, 12, 11, 6);
/// `ICC_SGI0R_EL1`
const ICC_SGI0R_EL1: u16 = encoding(3, 0, 12, 11, 7);

/// `ICC_DIR_EL1`
const ICC_DIR_EL1: u16 = encoding(3, 0, 12, 11, 1);

/// Which register generates an SGI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiRegister {
    /// `ICC_SGI0R_EL1`: group 0.
    Sgi0r,
    /// `ICC_SGI1R_EL1`: group 1 of our security state.
    Sgi1r,
    /// `ICC_ASGI1R_EL1`: group 1 of the other security state.
    Asgi1r,
}

/// What a trapped access comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A read of this.
    Value(u64),
    /// A write that has no effect.
    Ignored,
    /// A write that generates an SGI.
    Sgi(SgiRegister),
    /// A write that deactivates an interrupt.
    Deactivate,
    /// An undefined instruction.
    Undefined,
}

/// What `access` comes to for a guest with these features; `gic_v3` if its CPU interface is system registers.
#[must_use]
pub fn answer(ids: &IdTable, gic_v3: bool, access: &SysRegAccess) -> Answer {
    let sgi = |register| {
        if gic_v3 && !access.is_read {
            Answer::Sgi(register)
        } else {
            Answer::Undefined
        }
    };
    match access.encoding {
        ICC_SGI1R_EL1 => sgi(SgiRegister::Sgi1r),
        ICC_ASGI1R_EL1 => sgi(SgiRegister::Asgi1r),
        ICC_SGI0R_EL1 => sgi(SgiRegister::Sgi0r),
        ICC_DIR_EL1 if gic_v3 && !access.is_read => Answer::Deactivate,
        ACTLR_EL1 if access.is_read => Answer::Value(0),
        ACTLR_EL1 => Answer::Ignored,
        id if access.is_read => ids.read(id).map_or(Answer::Undefined, Answer::Value),
        _ => Answer::Undefined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use id::RawIds;

    fn access(encoding: u16, is_read: bool) -> SysRegAccess {
        SysRegAccess {
            encoding,
            rt: 0,
            is_read,
        }
    }

    #[test]
    fn sgis_are_written_and_only_with_a_gicv3() {
        let ids = IdTable::new(&RawIds::default(), true, 40);
        assert_eq!(
            answer(&ids, true, &access(ICC_SGI1R_EL1, false)),
            Answer::Sgi(SgiRegister::Sgi1r)
        );
        assert_eq!(
            answer(&ids, true, &access(ICC_SGI1R_EL1, true)),
            Answer::Undefined
        );
        assert_eq!(
            answer(&ids, false, &access(ICC_SGI1R_EL1, false)),
            Answer::Undefined
        );
    }

    #[test]
    fn what_is_not_listed_is_undefined() {
        let ids = IdTable::new(&RawIds::default(), true, 40);
        let pmcr = encoding(3, 3, 9, 12, 0);
        let zcr = encoding(3, 0, 1, 2, 0);
        for unlisted in [pmcr, zcr, 0, u16::MAX] {
            assert_eq!(
                answer(&ids, true, &access(unlisted, true)),
                Answer::Undefined
            );
            assert_eq!(
                answer(&ids, true, &access(unlisted, false)),
                Answer::Undefined
            );
        }
        // ID registers cannot be written.
        assert_eq!(
            answer(&ids, true, &access(encoding(3, 0, 0, 4, 0), false)),
            Answer::Undefined
        );
        assert_eq!(
            answer(&ids, true, &access(encoding(3, 0, 0, 4, 0), true)),
            Answer::Value(1 << 24 | 1 << 4)
        );
    }
}
