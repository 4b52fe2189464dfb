//! A vCPU's CPU interface, besides its list registers: what belongs to the vCPU and lives in the hardware while it runs.
//!
//! Whoever takes a vCPU off its physical CPU saves the registers named here, and restores them where it goes on; the list
//! registers are no part of it ([`Vgic::unload`] and [`Vgic::plan`]), nor what GICH_HCR or ICH_HCR_EL2 asks for, which a plan gives:
//! nothing is asked for while nothing is loaded.
//!
//! Source: IHI 0048B "Virtual Machine Control Register, GICH_VMCR", "Active Priorities Register, GICH_APR"; IHI 0069
//! "ICH_VMCR_EL2", "`ICH_AP0R<n>_EL2`", "`ICH_AP1R<n>_EL2`", "Interrupt prioritization".

use super::{Group, Vgic};

/// Active priorities registers of a group there may be.
pub const ACTIVE_PRIORITIES: usize = 4;

/// What a vCPU's CPU interface holds. The default is its state out of reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuInterface {
    /// GICH_VMCR, ICH_VMCR_EL2: what the guest set up.
    pub vmcr: u32,
    /// GICH_APR (the first of them, alone), `ICH_AP0R<n>_EL2`: active priorities of Group 0. As many as the hardware has.
    pub group_0: [u32; ACTIVE_PRIORITIES],
    /// `ICH_AP1R<n>_EL2`: active priorities of Group 1.
    pub group_1: [u32; ACTIVE_PRIORITIES],
    /// A GICv3's ICC_DIR_EL1 need not trap, as the last plan has it ([`Plan::traps_deactivation`](super::Plan)). That it does
    /// is never wrong.
    pub may_deactivate: bool,
    /// The active priorities count in steps of this many priorities: 8 with five preemption bits, as a GICv2 has (and
    /// ICH_VTR_EL2.PREbits says of a GICv3), 4 with six, 2 with seven. 0 is taken for 8.
    pub step: u8,
}

/// Fields of GICH_VMCR and ICH_VMCR_EL2, which are alike as far as they matter here: a GICv2 has five bits of VMPriMask at
/// the top of where a GICv3 has eight.
pub(super) mod vmcr {
    pub(in crate::vgic) const ENABLE_GROUP_0: u32 = 1 << 0;
    pub(in crate::vgic) const ENABLE_GROUP_1: u32 = 1 << 1;
    /// Both groups go by the binary point of Group 0.
    pub(in crate::vgic) const COMMON_BINARY_POINT: u32 = 1 << 4;
    /// An end drops the priority and no more.
    pub(in crate::vgic) const EOI_MODE: u32 = 1 << 9;
    pub(in crate::vgic) const BINARY_POINT_1_SHIFT: u32 = 18;
    pub(in crate::vgic) const BINARY_POINT_0_SHIFT: u32 = 21;
    pub(in crate::vgic) const MASK_SHIFT: u32 = 24;
}

/// Running priority of an idle interface.
const IDLE: u8 = 0xff;

impl CpuInterface {
    /// Whether a pending interrupt of this priority and group would be signalled to the vCPU: its group is enabled, the
    /// mask lets it through, and it is more urgent than what is being handled.
    ///
    /// The binary point is taken for the finest: an interrupt that would have to wait for one of its own priority group
    /// passes for signalled.
    #[must_use]
    pub fn signals(&self, priority: u8, group: Group) -> bool {
        let enable = match group {
            Group::Zero => vmcr::ENABLE_GROUP_0,
            Group::One => vmcr::ENABLE_GROUP_1,
        };
        let mask = (self.vmcr >> vmcr::MASK_SHIFT) as u8;
        self.vmcr & enable != 0 && priority < mask && priority < self.running()
    }

    /// Whether an interrupt of this priority and group was acknowledged here whose priority was not dropped yet: the active
    /// priority is that of its priority group, of which one interrupt at a time is handled.
    #[must_use]
    pub fn handles(&self, priority: u8, group: Group) -> bool {
        let point = |shift: u32| self.vmcr >> shift & 7;
        // The bits below the group's priority: one more for Group 0 than the binary point says.
        let below = if group == Group::Zero || self.vmcr & vmcr::COMMON_BINARY_POINT != 0 {
            point(vmcr::BINARY_POINT_0_SHIFT) + 1
        } else {
            point(vmcr::BINARY_POINT_1_SHIFT)
        };
        let level = (u32::from(priority) >> below << below) / self.step();
        let (word, bit) = ((level / u32::BITS) as usize, level % u32::BITS);
        let words = self.group_0.get(word).zip(self.group_1.get(word));
        words.is_some_and(|(zero, one)| (zero | one) & 1 << bit != 0)
    }

    fn step(&self) -> u32 {
        u32::from(if self.step == 0 { 8 } else { self.step })
    }

    /// The priority of the most urgent interrupt that is being handled.
    pub(super) fn running(&self) -> u8 {
        let step = self.step();
        for (n, word) in (0..).zip(self.group_0.iter().zip(&self.group_1)) {
            let active = word.0 | word.1;
            if active != 0 {
                let level: u32 = n * u32::BITS + active.trailing_zeros();
                return u8::try_from(level * step).unwrap_or(IDLE);
            }
        }
        IDLE
    }
}

impl Vgic {
    /// Whether an interrupt waits for `vcpu` that its CPU interface would signal to it: what ends a WFI.
    #[must_use]
    pub fn is_signalled(&self, vcpu: usize, interface: &CpuInterface) -> bool {
        // What is anybody's concern is in a list register or marks its vCPU.
        let has_nothing = !self.needs_plan(vcpu) && self.loaded(vcpu) == 0;
        debug_assert!(!(has_nothing && self.is_pending(vcpu)));
        !has_nothing
            && self.waiting(vcpu).any(|place| {
                let is_group_1 = self.bank(place.bank).group & place.mask() != 0;
                let group = if is_group_1 { Group::One } else { Group::Zero };
                interface.signals(self.priority(place), group)
            })
    }

    /// The list registers that are in use for all that is known, a bit each.
    fn loaded(&self, vcpu: usize) -> u32 {
        self.vcpus.get(vcpu).map_or(0, |interface| interface.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups enabled, mask 0xf0.
    const OPEN: CpuInterface = CpuInterface {
        vmcr: 0xf000_0003,
        group_0: [0; 4],
        group_1: [0; 4],
        may_deactivate: false,
        step: 8,
    };

    #[test]
    fn what_is_masked_is_not_signalled() {
        assert!(OPEN.signals(0xe8, Group::Zero) && OPEN.signals(0xe8, Group::One));
        assert!(!OPEN.signals(0xf0, Group::One), "not less than the mask");
        let only_0 = CpuInterface {
            vmcr: 0xf000_0001,
            ..OPEN
        };
        assert!(only_0.signals(0, Group::Zero) && !only_0.signals(0, Group::One));
        assert!(!CpuInterface::default().signals(0, Group::Zero), "reset");
    }

    #[test]
    fn what_is_handled_is_told_by_its_priority_group() {
        // Binary point 3 of Group 1: groups of 8 priorities. 5 of Group 0: of 64.
        let busy = CpuInterface {
            vmcr: OPEN.vmcr | 3 << 18 | 5 << 21,
            group_0: [1 << 8, 0, 0, 0],
            group_1: [1 << 20, 0, 0, 0],
            ..OPEN
        };
        assert!(busy.handles(0xa0, Group::One) && !busy.handles(0x98, Group::One));
        assert!(busy.handles(0x40, Group::Zero) && busy.handles(0x78, Group::Zero));
        assert!(!busy.handles(0x80, Group::Zero) && !busy.handles(0x38, Group::Zero));
        let common = CpuInterface {
            vmcr: busy.vmcr | 1 << 4,
            ..busy
        };
        assert!(common.handles(0x50, Group::One) && !common.handles(0x90, Group::One));
        let fine = CpuInterface {
            group_1: [0, 1 << 3, 0, 0],
            step: 4,
            ..OPEN
        };
        assert!(fine.handles(0x8c, Group::One) && !fine.handles(0x88, Group::One));
    }

    #[test]
    fn what_is_handled_is_interrupted_by_what_is_more_urgent_only() {
        // Priority 0x50 is bit 10 of 32 levels, 8 apart; 0x80 is bit 0 of the second word, 4 apart.
        for (group_1, step, running) in [
            ([1 << 10 | 1 << 20, 0, 0, 0], 8, 0x50),
            ([1 << 10, 0, 0, 0], 0, 0x50),
            ([0, 1 << 0, 0, 0], 4, 0x80),
            ([0, 0, 0, 1 << 31], 2, 0xfe),
        ] {
            let busy = CpuInterface {
                vmcr: 0xff00_0003,
                group_1,
                step,
                ..OPEN
            };
            assert!(busy.signals(running - 1, Group::Zero));
            assert!(!busy.signals(running, Group::Zero));
        }
        let nested = CpuInterface {
            group_0: [1 << 4, 0, 0, 0],
            group_1: [1 << 10, 0, 0, 0],
            ..OPEN
        };
        assert!(nested.signals(0x18, Group::One) && !nested.signals(0x20, Group::One));
    }
}
