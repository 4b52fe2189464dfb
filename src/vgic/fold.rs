//! What comes back out of the list registers.
//!
//! What the guest did to a list register is found by comparing it with what was last seen there: a pending state that is
//! gone was acknowledged, an active one that is gone was deactivated. So folding back is idempotent, and a change that a
//! register access made to the model meanwhile is not undone by it.

use super::bank::Bank;
use super::news::Change;
use super::plan::Slot;
use super::{BankId, CpuInterface, IntId, Place, State, VcpuInterface, Vgic, bits};

impl Vgic {
    /// Whether `vcpu`'s last plan left active interrupts outside the list registers: then [`Vgic::retire`] wants to know of
    /// ends there.
    #[must_use]
    pub fn has_active_outside(&self, vcpu: usize) -> bool {
        self.vcpus
            .get(vcpu)
            .is_some_and(|interface| interface.left_active)
    }

    /// Folds in what the guest did to its list registers: `state_of` says what one of them holds now. Asked of those only
    /// that are in use.
    ///
    /// To be called before any other operation for `vcpu` after it left its guest; calling it again changes nothing.
    #[inline]
    pub fn sync_from(&mut self, vcpu: usize, mut state_of: impl FnMut(usize) -> State) {
        let Some(interface) = self.vcpus.get(vcpu) else {
            return;
        };
        for index in bits(interface.used) {
            let index = index as usize;
            let now = state_of(index);
            if now != self.vcpus[vcpu].slots[index].seen {
                self.fold(vcpu, index, now);
            }
        }
    }

    /// The guest ended interrupts that were in no list register: `count` is EOIcount of GICH_HCR or ICH_HCR_EL2, which
    /// counts from the write of [`Plan::hcr`](super::Plan::hcr) on. Which ones, `interface` tells, the vCPU's as it is now:
    /// those that it acknowledged and does not handle any more. An end may have been that of none of them, but of an interrupt
    /// whose active state the guest had cleared by a register.
    ///
    /// To be called with [`Vgic::sync_from`]; calling it again with the same count changes nothing.
    pub fn retire(&mut self, vcpu: usize, count: u32, interface: &CpuInterface) {
        let Some(known) = self.vcpus.get_mut(vcpu) else {
            return;
        };
        let new = count.saturating_sub(known.retired);
        known.retired = count;
        for _ in 0..new {
            let ended = self.active_outside(vcpu).filter(|place| {
                let bank = self.bank(place.bank);
                let is_handled =
                    interface.handles(bank.priority(place.bit), bank.group_of(place.bit));
                !is_handled && bank.forced & place.mask() == 0
            });
            let Some(place) = ended.min_by_key(|place| self.priority(*place)) else {
                break;
            };
            self.end_active(vcpu, place);
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
            if self.end_active(holder, place) {
                self.mark(holder);
            }
            self.reconsider(place.bank, place.mask());
        }
    }

    /// List register `index` went from what it was seen to hold to `now`, by the guest's acknowledgements and deactivations.
    fn fold(&mut self, vcpu: usize, index: usize, now: State) {
        let interface = &mut self.vcpus[vcpu];
        if now == State::Invalid && interface.fold_plain(index) {
            return;
        }
        let slot = &mut interface.slots[index];
        let change = Folded { slot: *slot, now };
        slot.seen = now;
        let is_free = now == State::Invalid;
        if is_free {
            interface.used &= !(1 << index);
        }
        let place = Place::of(vcpu, change.slot.intid);
        let owes = match place.bank {
            BankId::Private(_) => interface.fold(place, change),
            BankId::Shared(row) => {
                self.shared[row].bank.fold(place.mask(), change);
                false
            }
        };
        let has_leftovers = self.vcpus[vcpu].has_leftovers;
        if is_free {
            if change.slot.eoi_maintenance {
                // It asks for maintenance until it is written.
                self.vcpus[vcpu].stale |= 1 << index;
                self.note(vcpu, Change::Nothing);
            }
            self.reconsider(place.bank, place.mask());
        }
        if has_leftovers || owes && !is_free {
            self.mark(vcpu);
        }
    }

    /// `place` is active no longer. Answers whether EL2 is to deactivate a physical interrupt.
    fn end_active(&mut self, vcpu: usize, place: Place) -> bool {
        let bank = self.bank_mut(place.bank);
        bank.active &= !place.mask();
        bank.forced &= !place.mask();
        match place.bank {
            BankId::Private(_) => self.vcpus[vcpu].end_link(place.mask(), false),
            BankId::Shared(_) => false,
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

/// What a guest did to a list register.
#[derive(Clone, Copy)]
struct Folded {
    /// As it was seen last.
    slot: Slot,
    now: State,
}

impl Folded {
    /// It acknowledged what was pending.
    const fn is_acknowledged(self) -> bool {
        self.slot.seen.is_pending() && !self.now.is_pending()
    }

    /// It deactivated what was active, before it acknowledged if it did that too.
    const fn is_ended_before(self) -> bool {
        self.slot.seen.is_active() && (self.is_acknowledged() || !self.now.is_active())
    }

    /// It deactivated what it acknowledged.
    const fn is_ended_after(self) -> bool {
        self.is_acknowledged() && !self.now.is_active()
    }
}

impl Bank {
    fn fold(&mut self, mask: u32, folded: Folded) {
        if folded.is_acknowledged() {
            self.loaded_latch &= !mask;
        }
        if folded.is_acknowledged() || folded.is_ended_before() {
            self.active &= !mask;
            self.forced &= !mask;
            if folded.now.is_active() {
                self.active |= mask;
            }
        }
        if folded.now == State::Invalid {
            self.resident &= !mask;
        }
    }
}

impl VcpuInterface {
    /// The same, of a private interrupt. Answers whether EL2 is to deactivate a physical one.
    fn fold(&mut self, place: Place, folded: Folded) -> bool {
        let mask = place.mask();
        self.bank.fold(mask, folded);
        let mut owes = false;
        if folded.is_ended_before() {
            owes |= self.end_link(mask, folded.slot.is_linked);
        }
        if folded.is_acknowledged() {
            self.sgi.acknowledge(place.bit);
            if folded.slot.carries_link {
                self.take_links(mask);
            }
        }
        if folded.is_ended_after() {
            owes |= self.end_link(mask, folded.slot.is_linked);
        }
        owes
    }

    /// The interrupt in `mask` is active no longer; `in_hardware`: and its physical interrupt, if it has one, neither. Answers
    /// whether EL2 is to deactivate that.
    fn end_link(&mut self, mask: u32, in_hardware: bool) -> bool {
        if in_hardware {
            self.end_links(mask);
            return false;
        }
        self.give_up_links(mask & self.bank.taken)
    }

    /// List register `index` is free: does the work of [`Vgic::fold`], if what was pending there is private, has no physical
    /// interrupt, and is nobody's concern any more.
    #[inline(always)] // on the way from one vCPU to another
    pub(super) fn fold_plain(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        let mask = 1u32.wrapping_shl(slot.intid.raw());
        let bank = &mut self.bank;
        let others = bank.latch | bank.line & !bank.edge | bank.linked | bank.active;
        let is_plain =
            slot.intid.is_private() && slot.is_plain() && !self.has_leftovers && others & mask == 0;
        if is_plain {
            slot.seen = State::Invalid;
            self.used &= !(1 << index);
            bank.loaded_latch &= !mask;
            bank.resident &= !mask;
        }
        is_plain
    }
}
