//! Whose list registers no longer show what they should, and why.
//!
//! Mostly it is one interrupt: then that one is loaded, or taken out, and the others stay as they are ([`super::plan`]).

use super::bank::{Bank, GroupEnables};
use super::{BankId, IntId, MAX_VCPUS, Place, VcpuInterface, Vgic, bits, every};

/// What happened to a vCPU since its list registers were planned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Nothing that goes into a list register.
    Nothing,
    /// This interrupt became its concern, or changed.
    One(IntId),
    /// More than that.
    Much,
}

impl Change {
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, one) | (one, Self::Nothing) => one,
            (Self::One(a), Self::One(b)) if a.raw() == b.raw() => self,
            _ => Self::Much,
        }
    }
}

impl Vgic {
    /// Whether `vcpu`'s list registers must be planned anew before it enters its guest.
    #[must_use]
    pub const fn needs_plan(&self, vcpu: usize) -> bool {
        vcpu < MAX_VCPUS && self.dirty & 1 << vcpu != 0
    }

    /// The vCPUs for which [`Vgic::needs_plan`] holds, bit `n` for vCPU `n`.
    #[must_use]
    pub const fn vcpus_to_plan(&self) -> u64 {
        self.dirty
    }

    /// Those of them that something has happened to since the last call.
    pub const fn take_news(&mut self) -> u64 {
        let news = self.news & self.dirty;
        self.news = 0;
        news
    }

    /// After a change to interrupts `mask` of `bank`: whoever they are with must plan anew, if they are any concern now.
    #[inline]
    pub(super) fn reconsider(&mut self, bank: BankId, mask: u32) {
        match bank {
            BankId::Private(vcpu) => {
                let concerned = self.vcpus[vcpu].bank.concerned(mask, self.groups);
                if concerned != 0 {
                    self.note(vcpu, change(concerned));
                }
            }
            BankId::Shared(row) => self.reconsider_row(row, mask),
        }
    }

    fn reconsider_row(&mut self, row: usize, mask: u32) {
        let id = BankId::Shared(row);
        let bank = &self.shared[row].bank;
        let concerned = bank.concerned(mask, self.groups);
        self.busy = self.busy & !(1 << row) | u32::from(!bank.is_idle()) << row;
        for bit in bits(concerned) {
            let place = Place { bank: id, bit };
            if let Some(vcpu) = self.holder(place) {
                self.note(vcpu, Change::One(place.intid()));
            }
        }
    }

    /// Something happened to `vcpu`.
    #[inline]
    pub(super) fn note(&mut self, vcpu: usize, change: Change) {
        let interface = &mut self.vcpus[vcpu];
        interface.change = interface.change.and(change);
        let bit = 1u64.wrapping_shl(vcpu as u32);
        self.dirty |= bit;
        self.news |= bit;
    }

    /// `vcpu` must plan anew from scratch.
    pub(super) fn mark(&mut self, vcpu: usize) {
        self.note(vcpu, Change::Much);
    }

    pub(super) fn mark_all(&mut self) {
        self.dirty = every(self.vcpus.len());
        self.news = self.dirty;
        let much = |interface: &mut VcpuInterface| interface.change = Change::Much;
        self.vcpus.iter_mut().for_each(much);
    }
}

/// What it means for a vCPU that its private interrupts `mask`, at least one, changed.
const fn change(mask: u32) -> Change {
    if mask.is_power_of_two() {
        Change::One(IntId::new(mask.trailing_zeros()))
    } else {
        Change::Much
    }
}

impl Bank {
    /// Those of `mask` that are somebody's concern: deliverable, active, or in a list register.
    pub(super) const fn concerned(&self, mask: u32, groups: GroupEnables) -> u32 {
        mask & (self.deliverable(groups) | self.active | self.resident)
    }
}
