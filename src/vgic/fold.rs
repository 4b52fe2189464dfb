//! What comes back out of the list registers.
//!
//! What the guest did to a list register is found by comparing it with what was last seen there: a pending state that is
//! gone was acknowledged, an active one that is gone was deactivated. So folding back is idempotent, and a change that a
//! register access made to the model meanwhile is not undone by it.

use core::borrow::Borrow;

use super::plan::Slot;
use super::{BankId, IntId, ListRegister, Place, State, Vgic, bits};

impl Vgic {
    /// List registers, from the first, that `vcpu`'s last plan used: as many as [`Vgic::sync_from`] wants to see.
    #[must_use]
    pub fn loaded(&self, vcpu: usize) -> usize {
        self.vcpus
            .get(vcpu)
            .map_or(0, |interface| interface.slot_count)
    }

    /// Whether `vcpu`'s last plan left active interrupts outside the list registers: then [`Vgic::retire`] wants to know of
    /// ends there.
    #[must_use]
    pub fn has_active_outside(&self, vcpu: usize) -> bool {
        self.vcpus
            .get(vcpu)
            .is_some_and(|interface| interface.left_active)
    }

    /// Folds in what the guest did to its list registers: `hardware` is what they hold now, in order.
    ///
    /// To be called before any other operation for `vcpu` after it left its guest; calling it again changes nothing.
    pub fn sync_from(
        &mut self,
        vcpu: usize,
        hardware: impl IntoIterator<Item: Borrow<ListRegister>>,
    ) {
        let loaded = self.loaded(vcpu);
        for (index, now) in hardware.into_iter().take(loaded).enumerate() {
            let now = now.borrow().state;
            let slot = &mut self.vcpus[vcpu].slots[index];
            if now != slot.seen {
                let before = *slot;
                slot.seen = now;
                self.fold(vcpu, before, now);
            }
        }
    }

    /// The guest ended interrupts that were in no list register: `count` is EOIcount of GICH_HCR or ICH_HCR_EL2, which
    /// counts from the write of [`Plan::hcr`](super::Plan::hcr) on. A guest ends its most urgent active interrupt first,
    /// so those are taken to have ended.
    ///
    /// To be called with [`Vgic::sync_from`]; calling it again with the same count changes nothing.
    pub fn retire(&mut self, vcpu: usize, count: u32) {
        let Some(interface) = self.vcpus.get_mut(vcpu) else {
            return;
        };
        let new = count.saturating_sub(interface.retired);
        interface.retired = count;
        for _ in 0..new {
            let outside = self.active_outside(vcpu);
            let Some(place) = outside.min_by_key(|place| self.priority(*place)) else {
                break;
            };
            self.end_active(vcpu, place, false);
            self.reconsider(place.bank, place.mask());
        }
        if new != 0 {
            // The maintenance interrupt is asserted until the count is written.
            self.mark(vcpu);
        }
    }

    /// `vcpu`'s guest deactivated `intid`, whoever acknowledged it.
    pub(super) fn deactivate(&mut self, vcpu: usize, intid: IntId) {
        if let Some(place) = self.place(vcpu, intid)
            && self.bank(place.bank).active & place.mask() != 0
        {
            let holder = self.holder(place).unwrap_or(vcpu);
            self.end_active(holder, place, false);
            self.reconsider(place.bank, place.mask());
        }
    }

    /// One list register went from `slot.seen` to `now` by the guest's acknowledgements and deactivations.
    fn fold(&mut self, vcpu: usize, slot: Slot, now: State) {
        let acknowledged = slot.seen.is_pending() && !now.is_pending();
        if now == State::Invalid {
            self.bank_mut(slot.place.bank).resident &= !slot.place.mask();
        }
        if slot.seen.is_active() && (!now.is_active() || acknowledged) {
            self.end_active(vcpu, slot.place, slot.is_linked);
        }
        if acknowledged {
            self.acknowledge(vcpu, slot);
            if !now.is_active() {
                self.end_active(vcpu, slot.place, slot.is_linked);
            }
        }
        if now == State::Invalid {
            self.reconsider(slot.place.bank, slot.place.mask());
            // The list register asks for maintenance until it is written.
            if slot.eoi_maintenance {
                self.mark(vcpu);
            }
        }
        if self.vcpus[vcpu].has_leftovers {
            self.mark(vcpu);
        }
    }

    fn acknowledge(&mut self, vcpu: usize, slot: Slot) {
        let mask = slot.place.mask();
        let bank = self.bank_mut(slot.place.bank);
        bank.loaded_latch &= !mask;
        bank.active |= mask;
        if let BankId::Private(_) = slot.place.bank {
            let interface = &mut self.vcpus[vcpu];
            interface.sgi.acknowledge(slot.place.bit);
            if slot.carries_link {
                interface.take_links(mask);
            }
        }
    }

    /// `place` is active no longer; `in_hardware`: and its physical interrupt, if it has one, neither.
    fn end_active(&mut self, vcpu: usize, place: Place, in_hardware: bool) {
        let mask = place.mask();
        self.bank_mut(place.bank).active &= !mask;
        if let BankId::Private(_) = place.bank {
            if in_hardware {
                self.vcpus[vcpu].end_links(mask);
            } else {
                self.give_up_links(vcpu, mask & self.vcpus[vcpu].bank.taken);
            }
        }
    }

    /// Active interrupts of `vcpu` that are in no list register.
    fn active_outside(&self, vcpu: usize) -> impl Iterator<Item = Place> {
        self.banks_of(vcpu).flat_map(move |bank| {
            let state = self.bank(bank);
            bits(state.active & !state.resident)
                .map(move |bit| Place { bank, bit })
                .filter(move |place| self.holder(*place) == Some(vcpu))
        })
    }
}
