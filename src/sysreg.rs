//! Trapped system registers: what a guest reads of its CPU's features, and the few others that come here.
//!
//! Feature registers are an allow-list: a field that is not in [`id::FIELDS`] reads as "absent". Where the CPUs' caches
//! differ, `caches` answers for them. Every other encoding that traps is UNDEFINED to the guest.
//!
//! Source: DDI 0487 "AArch64 System register descriptions", `ID_*_EL1`.

mod caches;
mod errors;
pub mod id;

use crate::exit::{SysRegAccess, encoding};
use crate::machine::El1;
use crate::vgic::CommonRegister;
use id::IdTable;

/// `ACTLR_EL1`
const ACTLR_EL1: u16 = encoding(3, 0, 1, 0, 1);
/// `ICC_SGI1R_EL1`
const ICC_SGI1R_EL1: u16 = encoding(3, 0, 12, 11, 5);
/// `ICC_ASGI1R_EL1`
const ICC_ASGI1R_EL1: u16 = encoding(3, 0, 12, 11, 6);
/// `ICC_SGI0R_EL1`
const ICC_SGI0R_EL1: u16 = encoding(3, 0, 12, 11, 7);

/// `DC ISW`, `DC CSW`, `DC CISW`
const SET_WAY: [u16; 3] = [
    encoding(1, 0, 7, 6, 2),
    encoding(1, 0, 7, 10, 2),
    encoding(1, 0, 7, 14, 2),
];

/// What `HCR_EL2.TVM` traps writes of.
const MEMORY_REGISTERS: [(u16, El1); 11] = [
    (encoding(3, 0, 1, 0, 0), El1::Sctlr),
    (encoding(3, 0, 2, 0, 0), El1::Ttbr0),
    (encoding(3, 0, 2, 0, 1), El1::Ttbr1),
    (encoding(3, 0, 2, 0, 2), El1::Tcr),
    (encoding(3, 0, 5, 1, 0), El1::Afsr0),
    (encoding(3, 0, 5, 1, 1), El1::Afsr1),
    (encoding(3, 0, 5, 2, 0), El1::Esr),
    (encoding(3, 0, 6, 0, 0), El1::Far),
    (encoding(3, 0, 10, 2, 0), El1::Mair),
    (encoding(3, 0, 10, 3, 0), El1::Amair),
    (encoding(3, 0, 13, 0, 1), El1::Contextidr),
];
/// `ICC_DIR_EL1`
const ICC_DIR_EL1: u16 = encoding(3, 0, 12, 11, 1);
/// `ICC_CTLR_EL1`
const ICC_CTLR_EL1: u16 = encoding(3, 0, 12, 12, 4);
/// `ICC_PMR_EL1`
const ICC_PMR_EL1: u16 = encoding(3, 0, 4, 6, 0);
/// `ICC_RPR_EL1`
const ICC_RPR_EL1: u16 = encoding(3, 0, 12, 11, 3);

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
    /// Data cache maintenance by set and way.
    SetWay,
    /// A write to one of EL1's memory registers.
    MemoryRegister(El1),
    /// A write that deactivates an interrupt.
    Deactivate,
    /// A register of the CPU interface, read or written, that traps with the one before on some hardware.
    Common(CommonRegister),
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
        // First what is read most.
        id if access.is_read && is_identification(id) => {
            identification(ids, access).map_or(Answer::Undefined, Answer::Value)
        }
        ICC_SGI1R_EL1 => sgi(SgiRegister::Sgi1r),
        ICC_ASGI1R_EL1 => sgi(SgiRegister::Asgi1r),
        ICC_SGI0R_EL1 => sgi(SgiRegister::Sgi0r),
        set_way if SET_WAY.contains(&set_way) => Answer::SetWay,
        ICC_DIR_EL1 if gic_v3 && !access.is_read => Answer::Deactivate,
        ICC_CTLR_EL1 if gic_v3 => Answer::Common(CommonRegister::Control),
        ICC_PMR_EL1 if gic_v3 => Answer::Common(CommonRegister::PriorityMask),
        ICC_RPR_EL1 if gic_v3 && access.is_read => Answer::Common(CommonRegister::RunningPriority),
        error if errors::is_one(error) => errors::answer(ids, access),
        cache if caches::is_one(cache) => caches::answer(ids, access),
        ACTLR_EL1 if access.is_read => Answer::Value(0),
        ACTLR_EL1 => Answer::Ignored,
        id if access.is_read => ids.read(id).map_or(Answer::Undefined, Answer::Value),
        written => MEMORY_REGISTERS
            .iter()
            .find(|(encoding, _)| *encoding == written)
            .map_or(Answer::Undefined, |(_, register)| {
                Answer::MemoryRegister(*register)
            }),
    }
}

/// What a read of an identification register answers; `None` for anything else.
#[must_use]
#[inline]
pub fn identification(ids: &IdTable, access: &SysRegAccess) -> Option<u64> {
    if access.is_read && is_identification(access.encoding) {
        ids.read(access.encoding)
    } else {
        None
    }
}

/// op0 3, op1 0, CRn 0: the identification registers.
const fn is_identification(register: u16) -> bool {
    register >> 7 == encoding(3, 0, 0, 0, 0) >> 7
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

    /// On CPUs that differ in `CTR_EL0`, as 0x8444_8004 and 0xb444_c004 do.
    fn on_different_cpus() -> IdTable {
        let with = |ctr| {
            let mut ids = RawIds::default();
            ids.0[RawIds::CTR] = ctr;
            ids
        };
        IdTable::new(&with(0x8444_8004).and(&with(0xb444_c004)), true, 40)
    }

    #[test]
    fn caches_are_described_where_the_cpus_differ() {
        let ids = on_different_cpus();
        let read = |encoding| answer(&ids, true, &access(encoding, true));
        let [ctr, ccsidr, clidr, csselr] = [
            encoding(3, 3, 0, 0, 1),
            encoding(3, 1, 0, 0, 0),
            encoding(3, 1, 0, 0, 1),
            encoding(3, 2, 0, 0, 0),
        ];
        assert_eq!(read(ctr), Answer::Value(0x8444_8004));
        // LoUU 1, LoC 1, LoUIS 1, Ctype1 unified; 64-byte lines (LineSize 2), one set, one way.
        assert_eq!(read(clidr), Answer::Value(0x0920_0004));
        assert_eq!(read(ccsidr), Answer::Value(2));
        assert_eq!(read(csselr), Answer::Value(0));
        assert_eq!(answer(&ids, true, &access(csselr, false)), Answer::Ignored);
        for read_only in [ctr, ccsidr, clidr] {
            assert_eq!(
                answer(&ids, true, &access(read_only, false)),
                Answer::Undefined
            );
        }
    }

    /// `ERRIDR_EL1` and the rest, where the CPU has FEAT_RAS; with version 1.1's own registers it has nothing to do.
    #[test]
    fn there_are_no_error_records() {
        let mut raw = RawIds::default();
        for (ras, is_there) in [(0u64, false), (1, true), (2, true)] {
            raw.0[id::index(4, 0)] = ras << 28;
            let ids = IdTable::new(&raw, true, 40);
            let at = |crm, op2, is_read| {
                answer(&ids, true, &access(encoding(3, 0, 5, crm, op2), is_read))
            };
            let expected = |answer| if is_there { answer } else { Answer::Undefined };
            for (crm, op2) in [
                (3, 0),
                (3, 1),
                (4, 0),
                (4, 1),
                (4, 2),
                (4, 3),
                (5, 0),
                (5, 1),
            ] {
                assert_eq!(at(crm, op2, true), expected(Answer::Value(0)));
                let is_read_only = op2 == 0 && crm < 5;
                let written = if is_read_only {
                    Answer::Undefined
                } else {
                    Answer::Ignored
                };
                assert_eq!(at(crm, op2, false), expected(written), "{crm} {op2}");
            }
            for (crm, op2) in [(4, 4), (4, 5), (4, 6), (5, 2), (5, 3), (3, 2)] {
                assert_eq!(at(crm, op2, true), Answer::Undefined, "{crm} {op2}");
            }
        }
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
