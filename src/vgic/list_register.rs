//! One list register: a virtual interrupt as EL2 hands it to the CPU interface hardware.
//!
//! Guarantees: encoding and decoding are total and each other's inverse for the values [`crate::vgic`] plans. Does not
//! decide what goes into a list register, nor when.
//!
//! Source: IHI 0048B "List Registers, GICH_LRn"; IHI 0069 "`ICH_LR<n>_EL2`, Interrupt Controller List Registers".

use super::IntId;

/// Most list registers an implementation may have, and so the size of every buffer of them: ICH_LR0_EL2 to ICH_LR15_EL2.
/// (A GICv2 may have 64; no known one has more than 16, and what is beyond is not used.)
pub const MAX_LIST_REGISTERS: usize = 16;

/// Interrupt group, as the guest configured it in GICD_IGROUPR or GICR_IGROUPR0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Group {
    /// Group 0: a virtual FIQ, or a virtual IRQ where the guest's CPU interface says so.
    #[default]
    Zero,
    /// Group 1: a virtual IRQ.
    One,
}

/// State of a virtual interrupt in a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// The list register is free.
    #[default]
    Invalid,
    /// Waits for the guest to acknowledge it.
    Pending,
    /// The guest acknowledged it and has not deactivated it.
    Active,
    /// Both: once deactivated it is pending again.
    PendingAndActive,
}

impl State {
    /// The two-bit field both GIC versions use.
    const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Invalid,
            1 => Self::Pending,
            2 => Self::Active,
            _ => Self::PendingAndActive,
        }
    }

    const fn bits(self) -> u64 {
        match self {
            Self::Invalid => 0,
            Self::Pending => 1,
            Self::Active => 2,
            Self::PendingAndActive => 3,
        }
    }

    /// From its two halves.
    #[must_use]
    pub const fn new(pending: bool, active: bool) -> Self {
        match (pending, active) {
            (false, false) => Self::Invalid,
            (true, false) => Self::Pending,
            (false, true) => Self::Active,
            (true, true) => Self::PendingAndActive,
        }
    }

    /// Whether it is pending, active or not.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Pending | Self::PendingAndActive)
    }

    /// Whether it is active, pending or not.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Active | Self::PendingAndActive)
    }
}

/// A list register's content as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListRegister {
    /// INTID the guest sees.
    pub vintid: IntId,
    /// Physical INTID that the guest's deactivation deactivates as well; `None` for an interrupt of software's making.
    pub pintid: Option<IntId>,
    /// Priority, 0 highest. Five bits are implemented: the low three are zero.
    pub priority: u8,
    /// Group.
    pub group: Group,
    /// State.
    pub state: State,
    /// Ask for a maintenance interrupt when the guest has deactivated it. Not possible together with `pintid`.
    pub eoi_maintenance: bool,
    /// GICv2 SGIs: the requesting vCPU, 0 to 7. Not possible together with `pintid`.
    pub source: u8,
}

/// Fields of GICH_LRn.
mod gich {
    pub(super) const VIRTUAL_ID: u64 = 0x3ff;
    pub(super) const PHYSICAL_ID_SHIFT: u32 = 10;
    pub(super) const PHYSICAL_ID: u64 = 0x3ff;
    pub(super) const CPU_ID: u64 = 0x7;
    pub(super) const EOI: u64 = 1 << 19;
    pub(super) const PRIORITY_SHIFT: u32 = 23;
    /// The field holds the upper five bits of the priority.
    pub(super) const PRIORITY_DROPPED_BITS: u32 = 3;
    pub(super) const STATE_SHIFT: u32 = 28;
    pub(super) const GROUP_1: u64 = 1 << 30;
    pub(super) const HW: u64 = 1 << 31;
}

/// Fields of `ICH_LR<n>_EL2`.
mod ich {
    pub(super) const VINTID: u64 = 0xffff_ffff;
    pub(super) const PINTID_SHIFT: u32 = 32;
    pub(super) const PINTID: u64 = 0x1fff;
    pub(super) const EOI: u64 = 1 << 41;
    pub(super) const PRIORITY_SHIFT: u32 = 48;
    pub(super) const GROUP_1: u64 = 1 << 60;
    pub(super) const HW: u64 = 1 << 61;
    pub(super) const STATE_SHIFT: u32 = 62;
}

impl ListRegister {
    /// As GICH_LRn wants it.
    #[must_use]
    pub const fn to_gich(self) -> u32 {
        let mut raw = self.vintid.raw() as u64 & gich::VIRTUAL_ID
            | ((self.priority >> gich::PRIORITY_DROPPED_BITS) as u64) << gich::PRIORITY_SHIFT
            | self.state.bits() << gich::STATE_SHIFT;
        if let Group::One = self.group {
            raw |= gich::GROUP_1;
        }
        match self.pintid {
            Some(pintid) => {
                raw |=
                    gich::HW | (pintid.raw() as u64 & gich::PHYSICAL_ID) << gich::PHYSICAL_ID_SHIFT
            }
            None => {
                raw |= (self.source as u64 & gich::CPU_ID) << gich::PHYSICAL_ID_SHIFT;
                if self.eoi_maintenance {
                    raw |= gich::EOI;
                }
            }
        }
        raw as u32
    }

    /// From what GICH_LRn holds.
    #[must_use]
    pub const fn from_gich(raw: u32) -> Self {
        let raw = raw as u64;
        let is_linked = raw & gich::HW != 0;
        let physical = raw >> gich::PHYSICAL_ID_SHIFT & gich::PHYSICAL_ID;
        Self {
            vintid: IntId::new((raw & gich::VIRTUAL_ID) as u32),
            pintid: if is_linked {
                Some(IntId::new(physical as u32))
            } else {
                None
            },
            priority: (raw >> gich::PRIORITY_SHIFT << gich::PRIORITY_DROPPED_BITS) as u8,
            group: if raw & gich::GROUP_1 != 0 {
                Group::One
            } else {
                Group::Zero
            },
            state: State::from_bits(raw >> gich::STATE_SHIFT),
            eoi_maintenance: !is_linked && raw & gich::EOI != 0,
            source: if is_linked {
                0
            } else {
                (physical & gich::CPU_ID) as u8
            },
        }
    }

    /// As `ICH_LR<n>_EL2` wants it. [`ListRegister::source`] has no place there.
    #[must_use]
    pub const fn to_ich(self) -> u64 {
        let mut raw = self.vintid.raw() as u64
            | (self.priority as u64) << ich::PRIORITY_SHIFT
            | self.state.bits() << ich::STATE_SHIFT;
        if let Group::One = self.group {
            raw |= ich::GROUP_1;
        }
        match self.pintid {
            Some(pintid) => {
                raw |= ich::HW | (pintid.raw() as u64 & ich::PINTID) << ich::PINTID_SHIFT
            }
            None if self.eoi_maintenance => raw |= ich::EOI,
            None => {}
        }
        raw
    }

    /// From what `ICH_LR<n>_EL2` holds.
    #[must_use]
    pub const fn from_ich(raw: u64) -> Self {
        let is_linked = raw & ich::HW != 0;
        Self {
            vintid: IntId::new((raw & ich::VINTID) as u32),
            pintid: if is_linked {
                Some(IntId::new((raw >> ich::PINTID_SHIFT & ich::PINTID) as u32))
            } else {
                None
            },
            priority: (raw >> ich::PRIORITY_SHIFT) as u8,
            group: if raw & ich::GROUP_1 != 0 {
                Group::One
            } else {
                Group::Zero
            },
            state: State::from_bits(raw >> ich::STATE_SHIFT),
            eoi_maintenance: !is_linked && raw & ich::EOI != 0,
            source: 0,
        }
    }
}
