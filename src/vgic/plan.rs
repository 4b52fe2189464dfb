//! What goes into the list registers, and what comes back out of them.
//!
//! Ownership of state: an edge or a software-pended interrupt is *moved* into its list register, so an edge that comes
//! while it is there is a new one; a level-sensitive interrupt's pending state is its line, of which the list register has
//! a copy. What the guest did to a list register is found by comparing it with what was last seen there, so that folding
//! back is idempotent and a change made by a register access meanwhile is not undone by it.
//!
//! Order: the most urgent interrupts get the list registers, an active one before a pending one of the same priority.
//! With fewer list registers than interrupts at least one holds a pending interrupt if there is any, even when
//! acknowledged ones fill all others (a guest that splits priority drop from deactivation does that), and hardware is asked
//! for a maintenance interrupt when it runs short.
//!
//! Source: IHI 0048B "Completion of virtual interrupts", "Hypervisor Control Register, GICH_HCR"; IHI 0069 "ICH_HCR_EL2",
//! "Maintenance interrupts".

use super::bank::Bank;
use super::{
    BankId, Group, IntId, ListRegister, MAX_LIST_REGISTERS, Place, SGIS, State, Version, Vgic, bits,
};

/// What a list register holds, and what it was seen to hold last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    place: Place,
    seen: State,
    /// It has the HW bit: the guest's deactivation deactivates the physical interrupt.
    is_linked: bool,
    eoi_maintenance: bool,
}

impl Slot {
    pub(super) const FREE: Self = Self {
        place: Place {
            bank: BankId::Private(0),
            bit: 0,
        },
        seen: State::Invalid,
        is_linked: false,
        eoi_maintenance: false,
    };
}

/// What EL2 does with the list registers before it enters the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// List registers in use, from the first.
    pub used: usize,
    /// List registers to write, from the first: those in use now or before. The others are free and stay so.
    pub write: usize,
    /// Underflow: a maintenance interrupt when none or one is valid (UIE). Active interrupts are left outside, and should
    /// be back in before the guest ends them.
    pub underflow: bool,
    /// No pending: a maintenance interrupt when none is pending (NPIE). More interrupts are pending.
    pub no_pending: bool,
    /// Entry not present: a maintenance interrupt when the guest ended an interrupt that is in none (LRENPIE), to be
    /// folded in with [`Vgic::retire`]. Active interrupts are left outside; a guest that deactivates by GICC_DIR or
    /// ICC_DIR_EL1 names them, so that register must be trapped ([`Vgic::deactivate`]).
    pub entry_not_present: bool,
}

impl Plan {
    /// The value of GICH_HCR, or of ICH_HCR_EL2 without its trap bits: the interface enabled, EOIcount zero.
    #[must_use]
    pub const fn hcr(self) -> u32 {
        const EN: u32 = 1 << 0;
        const UIE: u32 = 1 << 1;
        const LRENPIE: u32 = 1 << 2;
        const NPIE: u32 = 1 << 3;
        let mut hcr = EN;
        if self.underflow {
            hcr |= UIE;
        }
        if self.entry_not_present {
            hcr |= LRENPIE;
        }
        if self.no_pending {
            hcr |= NPIE;
        }
        hcr
    }
}

/// An interrupt that wants a list register.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    place: Place,
    priority: u8,
    is_active: bool,
}

impl Candidate {
    const NONE: Self = Self {
        place: Slot::FREE.place,
        priority: 0,
        is_active: false,
    };

    /// Smaller is more urgent.
    const fn rank(&self) -> (u8, bool, u32) {
        (self.priority, !self.is_active, self.place.intid().raw())
    }
}

/// The most urgent candidates, as many as there are list registers, and what was left.
struct Selection {
    chosen: [Candidate; MAX_LIST_REGISTERS],
    len: usize,
    capacity: usize,
    left_pending: usize,
    best_left_pending: Option<Candidate>,
    left_active: bool,
}

impl Selection {
    const fn new(capacity: usize) -> Self {
        Self {
            chosen: [Candidate::NONE; MAX_LIST_REGISTERS],
            len: 0,
            capacity,
            left_pending: 0,
            best_left_pending: None,
            left_active: false,
        }
    }

    fn offer(&mut self, candidate: Candidate) {
        let chosen = &self.chosen[..self.len];
        let position = chosen.partition_point(|other| other.rank() < candidate.rank());
        if position >= self.capacity {
            self.leave(candidate);
            return;
        }
        if self.len == self.capacity {
            self.len -= 1;
            self.leave(self.chosen[self.len]);
        }
        self.chosen.copy_within(position..self.len, position + 1);
        self.chosen[position] = candidate;
        self.len += 1;
    }

    fn leave(&mut self, candidate: Candidate) {
        if candidate.is_active {
            self.left_active = true;
            return;
        }
        self.left_pending += 1;
        if self
            .best_left_pending
            .is_none_or(|best| candidate.rank() < best.rank())
        {
            self.best_left_pending = Some(candidate);
        }
    }

    /// Gives the last place to the most urgent pending interrupt when only active ones were chosen.
    fn keep_one_pending(&mut self) {
        if let Some(best) = self.best_left_pending
            && self.chosen[..self.len]
                .iter()
                .all(|candidate| candidate.is_active)
            && let Some(last) = self.len.checked_sub(1)
        {
            self.left_active = true;
            self.left_pending -= 1;
            self.chosen[last] = best;
        }
    }
}

impl Vgic {
    /// List registers, from the first, that `vcpu`'s last plan used: as many as [`Vgic::sync_from`] wants to see.
    #[must_use]
    pub fn loaded(&self, vcpu: usize) -> usize {
        self.vcpus
            .get(vcpu)
            .map_or(0, |interface| interface.slot_count)
    }

    /// Folds in what the guest did to its list registers: `hardware` is what they hold now, in order.
    ///
    /// To be called before any other operation for `vcpu` after it left its guest; calling it again changes nothing.
    pub fn sync_from(&mut self, vcpu: usize, hardware: &[ListRegister]) {
        for (index, now) in hardware.iter().enumerate().take(self.loaded(vcpu)) {
            let slot = self.vcpus[vcpu].slots[index];
            if now.state != slot.seen {
                self.vcpus[vcpu].slots[index].seen = now.state;
                self.fold(vcpu, slot, now.state);
            }
        }
    }

    /// `count` ends of interrupts that were in no list register (GICH_HCR or ICH_HCR_EL2, EOIcount): a guest ends its most
    /// urgent active interrupt first, so those are taken to have ended.
    pub fn retire(&mut self, vcpu: usize, count: u32) {
        for _ in 0..count {
            let Some(place) = self
                .active_outside(vcpu)
                .min_by_key(|place| self.priority(*place))
            else {
                return;
            };
            self.end_active(vcpu, place, false);
            self.reconsider(place.bank, place.mask());
        }
    }

    /// The guest deactivated `intid` by a trapped write to GICC_DIR or ICC_DIR_EL1.
    pub fn deactivate(&mut self, vcpu: usize, intid: IntId) {
        if let Some(place) = self.place(vcpu, intid)
            && self.bank(place.bank).active & place.mask() != 0
        {
            let holder = self.holder(place).unwrap_or(vcpu);
            self.end_active(holder, place, false);
            self.mark(holder);
            self.reconsider(place.bank, place.mask());
        }
    }

    /// Fills `registers` with what `vcpu`'s list registers shall hold, of which the hardware has `count`.
    ///
    /// [`Vgic::sync_from`] must have been called since the guest last ran. Afterwards [`Vgic::needs_plan`] is false.
    pub fn plan(
        &mut self,
        vcpu: usize,
        registers: &mut [ListRegister; MAX_LIST_REGISTERS],
        count: usize,
    ) -> Plan {
        *registers = [ListRegister::default(); MAX_LIST_REGISTERS];
        if vcpu >= self.vcpus.len() {
            return Plan::default();
        }
        let before = self.vcpus[vcpu].slot_count;
        self.take_back(vcpu);
        let selection = self.select(vcpu, count.min(MAX_LIST_REGISTERS));
        for (index, candidate) in selection.chosen[..selection.len].iter().enumerate() {
            registers[index] = self.load(vcpu, index, candidate.place);
        }
        let has_leftovers = selection.left_pending > 0 || selection.left_active;
        let interface = &mut self.vcpus[vcpu];
        interface.slot_count = selection.len;
        interface.has_leftovers = has_leftovers;
        self.dirty &= !(1 << vcpu);
        Plan {
            used: selection.len,
            write: selection.len.max(before),
            // With fewer than two in use it would be raised at once.
            underflow: selection.left_active && selection.len >= 2,
            no_pending: selection.left_pending > 0,
            entry_not_present: selection.left_active,
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
            if slot.is_linked {
                interface.take_links(mask);
            }
        }
    }

    /// `place` is active no longer; `in_hardware`: and its physical interrupt, if it has one, neither.
    fn end_active(&mut self, vcpu: usize, place: Place, in_hardware: bool) {
        let mask = place.mask();
        self.bank_mut(place.bank).active &= !mask;
        if let BankId::Private(_) = place.bank {
            let interface = &mut self.vcpus[vcpu];
            if in_hardware {
                interface.end_links(mask);
            } else if interface.bank.taken & mask != 0 {
                interface.give_up_links(mask);
                self.mark(vcpu);
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

    /// The list registers' content returns into the model, as if none were in use.
    fn take_back(&mut self, vcpu: usize) {
        for index in 0..self.vcpus[vcpu].slot_count {
            let place = self.vcpus[vcpu].slots[index].place;
            let mask = place.mask();
            let bank = self.bank_mut(place.bank);
            let returns = bank.loaded_latch & mask != 0;
            bank.loaded_latch &= !mask;
            bank.resident &= !mask;
            if returns {
                bank.latch |= mask;
                if let BankId::Private(_) = place.bank {
                    self.vcpus[vcpu].sgi.take_back(place.bit);
                }
            }
            // It may have been routed elsewhere meanwhile.
            self.reconsider(place.bank, mask);
        }
    }

    fn select(&self, vcpu: usize, capacity: usize) -> Selection {
        let mut selection = Selection::new(capacity);
        for bank in self.banks_of(vcpu) {
            let state = self.bank(bank);
            for bit in bits(state.deliverable(self.groups) | state.active) {
                let place = Place { bank, bit };
                if self.holder(place) == Some(vcpu) {
                    selection.offer(Candidate {
                        place,
                        priority: self.priority(place),
                        is_active: state.active & place.mask() != 0,
                    });
                }
            }
        }
        selection.keep_one_pending();
        selection
    }

    /// Moves an interrupt into list register `index`.
    fn load(&mut self, vcpu: usize, index: usize, place: Place) -> ListRegister {
        let mask = place.mask();
        let groups = self.groups;
        let bank = self.bank(place.bank);
        let is_active = bank.active & mask != 0;
        let is_pending = bank.deliverable(groups) & mask != 0;
        let group = if bank.group & mask != 0 {
            Group::One
        } else {
            Group::Zero
        };
        let line_asserted = bank.asserted() & mask != 0;
        let latched = bank.latch & mask != 0;

        let link = self.link_of(place);
        let is_again_pending = is_active && (latched || line_asserted);
        let pintid = link
            .filter(|link| link.taken == is_active && !is_again_pending)
            .map(|link| link.pintid);
        // A pending interrupt that waits for the end of the active one rather than share a list register with it.
        let goes_elsewhere = self.target(place) != Some(vcpu);
        let must_wait =
            is_active && (link.is_some() || self.is_sgi_with_source(place) || goes_elsewhere);
        let state = State::new(is_pending && !must_wait, is_active);

        let bank = self.bank_mut(place.bank);
        bank.resident |= mask;
        if state.is_pending() && latched {
            bank.latch &= !mask;
            bank.loaded_latch |= mask;
        }
        let source = self.load_source(place, state);
        let still_latched = self.bank(place.bank).latch & mask != 0;
        let eoi_maintenance = pintid.is_none()
            && (line_asserted || (is_pending && still_latched) || (is_active && link.is_some()));
        if let BankId::Shared(row) = place.bank {
            self.shared[row].owner[place.bit as usize] = vcpu as u8;
        }
        self.vcpus[vcpu].slots[index] = Slot {
            place,
            seen: state,
            is_linked: pintid.is_some(),
            eoi_maintenance,
        };
        ListRegister {
            vintid: place.intid(),
            pintid,
            priority: self.priority(place),
            group,
            state,
            eoi_maintenance,
            source,
        }
    }

    fn link_of(&self, place: Place) -> Option<Link> {
        let BankId::Private(vcpu) = place.bank else {
            return None;
        };
        let interface = &self.vcpus[vcpu];
        (interface.bank.linked & place.mask() != 0).then(|| Link {
            pintid: interface.links.pintid(place.bit),
            taken: interface.bank.taken & place.mask() != 0,
        })
    }

    /// A GICv2 SGI, which has a source and so cannot be pending from one vCPU and active from another in one register.
    fn is_sgi_with_source(&self, place: Place) -> bool {
        self.version == Version::V2
            && matches!(place.bank, BankId::Private(_))
            && SGIS & place.mask() != 0
    }

    /// The source a GICv2 SGI's list register names; one of those that wait moves in when it is `state` pending.
    fn load_source(&mut self, place: Place, state: State) -> u8 {
        let BankId::Private(vcpu) = place.bank else {
            return 0;
        };
        if !self.is_sgi_with_source(place) {
            return 0;
        }
        let interface = &mut self.vcpus[vcpu];
        if !state.is_pending() {
            return interface.sgi.active(place.bit);
        }
        let source = interface.sgi.load(place.bit);
        set(
            &mut interface.bank,
            place,
            interface.sgi.has_waiting(place.bit),
        );
        source
    }
}

/// A PPI's physical interrupt.
#[derive(Clone, Copy)]
struct Link {
    pintid: IntId,
    taken: bool,
}

/// Sets or clears the latch of `place`.
fn set(bank: &mut Bank, place: Place, latched: bool) {
    if latched {
        bank.latch |= place.mask();
    } else {
        bank.latch &= !place.mask();
    }
}
