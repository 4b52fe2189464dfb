//! `ESR_EL2` and its companions, read once and never again.

use tock_registers::LocalRegisterCopy;

/// Bit positions, named as in the manual.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the names are the manual's"
)]
mod bits {
    use tock_registers::register_bitfields;

    register_bitfields! { u64,
        pub ESR [
            ISS OFFSET(0) NUMBITS(25) [],
            IL OFFSET(25) NUMBITS(1) [],
            EC OFFSET(26) NUMBITS(6) [],
            // ISS of a trapped WFI or WFE.
            TI OFFSET(0) NUMBITS(2) [],
            // ISS of a data abort; an instruction abort has IFSC, S1PTW, EA, FnV and SET only.
            FSC OFFSET(0) NUMBITS(6) [],
            FSC_CLASS OFFSET(2) NUMBITS(4) [AccessFlag = 0b0010, Permission = 0b0011],
            WNR OFFSET(6) NUMBITS(1) [],
            S1PTW OFFSET(7) NUMBITS(1) [],
            CM OFFSET(8) NUMBITS(1) [],
            FNV OFFSET(10) NUMBITS(1) [],
            LST OFFSET(11) NUMBITS(2) [],
            AR OFFSET(14) NUMBITS(1) [],
            SF OFFSET(15) NUMBITS(1) [],
            SRT OFFSET(16) NUMBITS(5) [],
            SSE OFFSET(21) NUMBITS(1) [],
            SAS OFFSET(22) NUMBITS(2) [],
            ISV OFFSET(24) NUMBITS(1) [],
            // ISS of an SError.
            AET OFFSET(10) NUMBITS(3) [],
            IDS OFFSET(24) NUMBITS(1) []
        ],
        pub SYSREG [
            DIRECTION OFFSET(0) NUMBITS(1) [Write = 0, Read = 1],
            CRM OFFSET(1) NUMBITS(4) [],
            RT OFFSET(5) NUMBITS(5) [],
            CRN OFFSET(10) NUMBITS(4) [],
            OP1 OFFSET(14) NUMBITS(3) [],
            OP2 OFFSET(17) NUMBITS(3) [],
            OP0 OFFSET(20) NUMBITS(2) []
        ],
        pub HPFAR [
            FIPA OFFSET(4) NUMBITS(40) []
        ]
    }
}
use bits::SYSREG;
pub(super) use bits::{ESR, HPFAR};

pub(super) type Esr = LocalRegisterCopy<u64, ESR::Register>;

/// `ESR_EL2.EC`: the exception classes Faultline tells apart.
#[allow(non_snake_case, reason = "reads as EC::HVC64 where it is used")]
pub(super) mod EC {
    pub(in crate::exit) const WFX: u64 = 0x01;
    pub(in crate::exit) const CP15_32: u64 = 0x03;
    pub(in crate::exit) const CP14_LDC: u64 = 0x06;
    pub(in crate::exit) const FP_SIMD: u64 = 0x07;
    pub(in crate::exit) const PAUTH: u64 = 0x09;
    pub(in crate::exit) const LS64: u64 = 0x0a;
    pub(in crate::exit) const CP14_64: u64 = 0x0c;
    pub(in crate::exit) const HVC64: u64 = 0x16;
    pub(in crate::exit) const SMC64: u64 = 0x17;
    pub(in crate::exit) const SYSREG: u64 = 0x18;
    pub(in crate::exit) const SVE: u64 = 0x19;
    pub(in crate::exit) const SME: u64 = 0x1d;
    pub(in crate::exit) const INSTRUCTION_ABORT_LOWER: u64 = 0x20;
    pub(in crate::exit) const DATA_ABORT_LOWER: u64 = 0x24;
}

/// The three registers that say why the guest left, as they were on the exit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Syndrome {
    /// `ESR_EL2`
    pub esr: u64,
    /// `FAR_EL2`
    pub far: u64,
    /// `HPFAR_EL2`: UNKNOWN for most permission faults, see [`crate::exit::Abort::ipa_from_hpfar`].
    pub hpfar: u64,
}

/// A trapped system register or system instruction access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SysRegAccess {
    /// op0, op1, CRn, CRm, op2 packed as `encoding(..)` does.
    pub encoding: u16,
    /// The general-purpose register; 31 is XZR.
    pub rt: u8,
    /// `MRS`, not `MSR`.
    pub is_read: bool,
}

/// op0, op1, CRn, CRm, op2 as one number that sorts like the manual's tables.
#[must_use]
pub const fn encoding(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> u16 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

impl SysRegAccess {
    /// Whether it is one of the debug registers (op0 2; op1 0, or 3 for the channel that EL0 has).
    #[must_use]
    pub const fn is_debug(&self) -> bool {
        self.encoding >> 14 == 2 && matches!(self.encoding >> 11 & 7, 0 | 3)
    }

    /// Whether it is one of the performance monitors: op0 3; CRn 9, op1 3 with CRm 12 to 14 or op1 0 with CRm 14; and CRn 14, op1 3
    /// with CRm 8 on.
    #[must_use]
    pub const fn is_pmu(&self) -> bool {
        let e = self.encoding;
        matches!(
            (e >> 14, e >> 11 & 7, e >> 7 & 15, e >> 3 & 15),
            (3, 3, 9, 12..=14) | (3, 0, 9, 14) | (3, 3, 14, 8..=15)
        )
    }

    /// From `ESR_EL2` of a trapped access.
    #[inline]
    pub(crate) fn decode(iss: u64) -> Self {
        let iss = LocalRegisterCopy::<u64, SYSREG::Register>::new(iss);
        let part = |field| iss.read(field) as u16;
        Self {
            encoding: encoding(
                part(SYSREG::OP0),
                part(SYSREG::OP1),
                part(SYSREG::CRN),
                part(SYSREG::CRM),
                part(SYSREG::OP2),
            ),
            rt: iss.read(SYSREG::RT) as u8,
            is_read: iss.matches_all(SYSREG::DIRECTION::Read),
        }
    }
}

impl core::fmt::Display for SysRegAccess {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let e = self.encoding;
        let name = (e >> 14, e >> 11 & 7, e >> 7 & 15, e >> 3 & 15, e & 7);
        let verb = if self.is_read { "MRS" } else { "MSR" };
        write!(
            f,
            "{verb} S{}_{}_C{}_C{}_{}",
            name.0, name.1, name.2, name.3, name.4
        )
    }
}
