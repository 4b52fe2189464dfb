//! Data and instruction aborts from a guest.
//!
//! Source: DDI 0487 "ISS encoding for an exception from a Data Abort", "… from an Instruction Abort",
//! "HPFAR_EL2, Hypervisor IPA Fault Address Register".

use crate::addr::{Gva, Ipa};
use crate::device::Width;
use crate::exit::syndrome::{EC, ESR, Esr, HPFAR, Syndrome};
use crate::stage2::Rights;
use tock_registers::LocalRegisterCopy;

/// The fault status code (DFSC, IFSC), its class and level. The level is that of stage 2's walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultStatus {
    /// An address beyond the sizes the tables were set up for.
    AddressSize(i8),
    /// Nothing is mapped.
    Translation(i8),
    /// Mapped, access flag clear.
    AccessFlag(i8),
    /// Mapped, with too few rights.
    Permission(i8),
    /// Synchronous external abort, not on a walk.
    External,
    /// Synchronous external abort on a walk.
    ExternalOnWalk(i8),
    /// Parity or ECC error, not on a walk.
    Parity,
    /// Parity or ECC error on a walk.
    ParityOnWalk(i8),
    /// Alignment fault.
    Alignment,
    /// Two entries for one address in a TLB.
    TlbConflict,
    /// The hardware could not update a descriptor: table memory of the wrong type.
    UnsupportedUpdate,
    /// An exclusive or atomic access to memory that cannot do it.
    UnsupportedExclusive,
    /// A granule protection fault (FEAT_RME), on a walk or not: the page is another world's.
    GranuleProtection,
    /// Anything else: tag check, implementation defined, or not allocated.
    Other(u8),
}

impl FaultStatus {
    /// What a fault status code says.
    #[must_use]
    #[inline]
    pub const fn of_code(code: u8) -> Self {
        let level = (code & 3) as i8;
        match code {
            0x00..=0x03 => Self::AddressSize(level),
            0x04..=0x07 => Self::Translation(level),
            0x08..=0x0b => Self::AccessFlag(level),
            0x0c..=0x0f => Self::Permission(level),
            0x10 => Self::External,
            0x12 => Self::ExternalOnWalk(-2),
            0x13 => Self::ExternalOnWalk(-1),
            0x14..=0x17 => Self::ExternalOnWalk(level),
            0x18 => Self::Parity,
            0x1b => Self::ParityOnWalk(-1),
            0x1c..=0x1f => Self::ParityOnWalk(level),
            0x21 => Self::Alignment,
            0x22..=0x28 => Self::GranuleProtection,
            // Not of the form base + level: masking with 0x3c would take them for something else.
            0x29 => Self::AddressSize(-1),
            0x2a => Self::Translation(-2),
            0x2b => Self::Translation(-1),
            0x2c => Self::AddressSize(-2),
            0x30 => Self::TlbConflict,
            0x31 => Self::UnsupportedUpdate,
            0x35 => Self::UnsupportedExclusive,
            _ => Self::Other(code),
        }
    }
}

/// What the access that faulted wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// A load, or a walk's read of a stage-1 descriptor.
    Read = 0,
    /// A store, or a walk's update of a stage-1 descriptor.
    Write = 1,
    /// An instruction fetch.
    Execute = 2,
}

impl Need {
    /// As rights of a leaf.
    #[must_use]
    #[inline]
    pub const fn rights(self) -> Rights {
        Rights::single(self as u8)
    }
}

/// How a single load or store moves its value: the ISS of a data abort with `ISV` = 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// `SAS`
    pub width: Width,
    /// `SSE`: loads sign-extend.
    pub sign_extend: bool,
    /// `SRT`: the general-purpose register; 31 is the zero register, never SP.
    pub register: u8,
    /// `SF`: the register is 64 bits wide.
    pub is_64_bit: bool,
    /// `AR`: acquire or release.
    pub is_ordered: bool,
}

impl Transfer {
    /// What a load of `value` leaves in the register.
    #[must_use]
    pub const fn extend(&self, value: u64) -> u64 {
        let value = value & self.width.mask();
        let unused = 64 - 8 * self.width.bytes() as u32;
        let value = if self.sign_extend {
            ((value << unused) as i64 >> unused) as u64
        } else {
            value
        };
        if self.is_64_bit {
            value
        } else {
            value & 0xffff_ffff
        }
    }
}

/// An abort from a guest. What the syndrome says of it is decoded when it is asked for: most of it never is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abort {
    syndrome: Syndrome,
}

impl Abort {
    pub(super) const fn of(syndrome: &Syndrome) -> Self {
        Self {
            syndrome: *syndrome,
        }
    }

    const fn bits(&self) -> Esr {
        Esr::new(self.syndrome.esr)
    }

    /// `ESR_EL2`, for the log.
    #[must_use]
    pub const fn esr(&self) -> u64 {
        self.syndrome.esr
    }

    /// Whether it is an instruction abort.
    #[must_use]
    #[inline]
    pub fn is_fetch(&self) -> bool {
        self.bits().read(ESR::EC) == EC::INSTRUCTION_ABORT_LOWER
    }

    /// The fault status code, DFSC or IFSC.
    #[must_use]
    #[inline]
    pub fn code(&self) -> u8 {
        self.bits().read(ESR::FSC) as u8
    }

    /// Class and level.
    #[must_use]
    #[inline]
    pub fn status(&self) -> FaultStatus {
        FaultStatus::of_code(self.code())
    }

    /// Whether a right was wanting.
    #[must_use]
    #[inline]
    pub fn is_permission(&self) -> bool {
        self.bits().matches_all(ESR::FSC_CLASS::Permission)
    }

    /// Whether the access flag was clear.
    #[must_use]
    #[inline]
    pub fn is_access_flag(&self) -> bool {
        self.bits().matches_all(ESR::FSC_CLASS::AccessFlag)
    }

    /// `S1PTW`: the fault is on a stage-1 walk's access to its tables, not on the access itself.
    #[must_use]
    #[inline]
    pub fn s1ptw(&self) -> bool {
        self.bits().is_set(ESR::S1PTW)
    }

    /// `CM`: a cache maintenance or address translation instruction.
    #[must_use]
    #[inline]
    pub fn is_maintenance(&self) -> bool {
        // RES0 in an instruction abort, but RES0 is not a promise.
        !self.is_fetch() && self.bits().is_set(ESR::CM)
    }

    /// `WnR` of a data abort; see [`Self::need`] before using it.
    #[must_use]
    #[inline]
    pub fn wnr(&self) -> bool {
        !self.is_fetch() && self.bits().is_set(ESR::WNR)
    }

    /// `FAR_EL2`, where `FnV` says it is valid.
    #[must_use]
    #[inline]
    pub fn far(&self) -> Option<Gva> {
        let is_unknown = self.bits().is_set(ESR::FNV) && self.status() == FaultStatus::External;
        (!is_unknown).then_some(self.far_as_is())
    }

    /// `FAR_EL2` as it was found: valid for everything but external aborts.
    #[must_use]
    #[inline]
    pub const fn far_as_is(&self) -> Gva {
        Gva::new(self.syndrome.far)
    }

    /// What to move, where `ISV` says it is known.
    #[must_use]
    pub fn transfer(&self) -> Option<Transfer> {
        let esr = self.bits();
        // LST tells the 64-byte accesses of FEAT_LS64, which set ISV but move eight registers.
        let is_single = esr.is_set(ESR::ISV) && esr.read(ESR::LST) == 0;
        (!self.is_fetch() && !self.s1ptw() && is_single).then(|| Transfer {
            width: Width::from_sas(esr.read(ESR::SAS)),
            sign_extend: esr.is_set(ESR::SSE),
            register: esr.read(ESR::SRT) as u8,
            is_64_bit: esr.is_set(ESR::SF),
            is_ordered: esr.is_set(ESR::AR),
        })
    }

    /// Whether the instruction is a short one of T32: `IL` = 0, believed with `ISV` only, as without it `IL` is always 1.
    #[must_use]
    pub fn is_16_bit(&self) -> bool {
        !self.bits().is_set(ESR::IL) && self.transfer().is_some()
    }

    /// What the guest, or the walk on its behalf, wanted.
    ///
    /// S1PTW before WnR: the syndrome tells of the original access, not of the walk's. A walk that faults for want of a
    /// right wanted to write (a hardware update of the access flag or dirty state); any other read a descriptor. Cache
    /// maintenance always reports WnR; it, too, needs no more than to read where nothing is mapped yet.
    #[must_use]
    #[inline]
    pub fn need(&self) -> Need {
        let by_permission = self.is_permission();
        match (self.s1ptw(), self.is_fetch(), self.is_maintenance()) {
            (true, _, _) | (false, false, true) => {
                if by_permission {
                    Need::Write
                } else {
                    Need::Read
                }
            }
            (false, true, _) => Need::Execute,
            (false, false, false) => {
                if self.wnr() {
                    Need::Write
                } else {
                    Need::Read
                }
            }
        }
    }

    /// The page of the IPA that faulted, from `HPFAR_EL2`, where the architecture says that it was written: translation,
    /// access flag and address size faults, and permission faults on a stage-1 walk. For any other permission fault the
    /// register is UNKNOWN. On CPUs with erratum 834220 a translation fault may not be one, so it is not believed either.
    #[must_use]
    #[inline]
    pub fn ipa_from_hpfar(&self, erratum_834220: bool) -> Option<Ipa> {
        let is_written = match self.status() {
            FaultStatus::Translation(_) => self.s1ptw() || !erratum_834220,
            FaultStatus::AccessFlag(_) | FaultStatus::AddressSize(_) => true,
            FaultStatus::Permission(_) => self.s1ptw(),
            _ => false,
        };
        let hpfar = LocalRegisterCopy::<u64, HPFAR::Register>::new(self.syndrome.hpfar);
        is_written.then(|| Ipa::new(hpfar.read(HPFAR::FIPA) << 12))
    }
}
