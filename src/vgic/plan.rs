//! What goes into the list registers.
//!
//! A plan starts from scratch: what is in the list registers returns into the model, and the most urgent interrupts are
//! loaded. But mostly there are list registers for all, and one interrupt came or changed: then that one alone is loaded, into
//! a free one or its own. A plan from scratch would show the guest the same, as each list register depends on its interrupt
//! only, and the CPU interface picks the most urgent whatever their order. An edge or a software-pended interrupt is *moved* into its list register, so an edge that comes while it is
//! there is a new one; a level-sensitive interrupt's pending state is its line, of which the list register has a copy.
//! Where a guest could end an interrupt that is pending again without EL2 noticing, hardware is asked for a maintenance
//! interrupt; where there are more interrupts than list registers, for one when it runs short.
//!
//! Source: IHI 0048B "Completion of virtual interrupts", "Hypervisor Control Register, GICH_HCR"; IHI 0069 "ICH_HCR_EL2",
//! "Maintenance interrupts".

mod selection;

use super::bank::{Bank, GroupEnables};
use super::news::Change;
use super::{
    BankId, IntId, ListRegister, MAX_LIST_REGISTERS, Place, SGIS, State, Version, Vgic, bits,
};
use selection::{Candidate, Selection};

/// What a list register holds, and what it was seen to hold last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) intid: IntId,
    pub(super) seen: State,
    /// It has the HW bit: the guest's deactivation deactivates the physical interrupt.
    pub(super) is_linked: bool,
    /// It is pending because of a physical interrupt: acknowledging it takes the link.
    pub(super) carries_link: bool,
    pub(super) eoi_maintenance: bool,
}

impl Slot {
    pub(super) const FREE: Self = Self {
        intid: IntId::new(0),
        seen: State::Invalid,
        is_linked: false,
        carries_link: false,
        eoi_maintenance: false,
    };

    /// It was pending, without a physical interrupt, and is over when the guest ends it.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.seen == State::Pending && !(self.is_linked | self.carries_link | self.eoi_maintenance)
    }
}

/// What is to interrupt EL2, and to trap, after a plan from scratch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Underflow: a maintenance interrupt when none or one is valid (UIE). Active interrupts are left outside, and should
    /// be back in before the guest ends them.
    pub underflow: bool,
    /// No pending: a maintenance interrupt when none is pending (NPIE). More interrupts are pending.
    pub no_pending: bool,
    /// Entry not present: a maintenance interrupt when the guest ended an interrupt that is in none (LRENPIE), to be
    /// folded in with [`Vgic::retire`]. Active interrupts are left outside.
    pub entry_not_present: bool,
    /// A GICv3's ICC_DIR_EL1 must trap (TDIR), and go to [`Vgic::deactivation`].
    pub traps_deactivation: bool,
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

impl Vgic {
    /// Has `write` put into `vcpu`'s list registers, of which the hardware has `count`, what they shall hold; those that are
    /// not named stay as they are. `None`: what is to interrupt EL2 stays as it is too.
    ///
    /// [`Vgic::sync_from`] must have been called since the guest last ran. Afterwards [`Vgic::needs_plan`] is false.
    #[inline]
    pub fn plan(
        &mut self,
        vcpu: usize,
        count: usize,
        mut write: impl FnMut(usize, ListRegister),
    ) -> Option<Plan> {
        let count = count.min(MAX_LIST_REGISTERS);
        if self.plan_one(vcpu, count, &mut write) {
            return None;
        }
        Some(self.plan_from_scratch(vcpu, count, &mut write))
    }

    /// Plans for the one interrupt that changed; false if it takes a plan from scratch.
    #[inline]
    fn plan_one(
        &mut self,
        vcpu: usize,
        count: usize,
        write: &mut impl FnMut(usize, ListRegister),
    ) -> bool {
        let Some(interface) = self.vcpus.get(vcpu) else {
            return true;
        };
        if interface.has_leftovers {
            return false;
        }
        match interface.change {
            Change::Nothing => {}
            Change::Much => return false,
            Change::One(intid) => {
                let place = Place::of(vcpu, intid);
                if self.bank(place.bank).resident & place.mask() != 0 {
                    self.take_one_back(vcpu, intid);
                }
                if self.wants_list_register(vcpu, place) {
                    let interface = &mut self.vcpus[vcpu];
                    let free = match interface.stale {
                        0 => !interface.used,
                        stale => stale,
                    };
                    let index = free.trailing_zeros();
                    if index as usize >= count {
                        return false;
                    }
                    interface.stale &= !1u32.wrapping_shl(index);
                    write(index as usize, self.load(vcpu, index as usize, place));
                }
            }
        }
        let stale = self.vcpus[vcpu].stale;
        bits(stale).for_each(|index| write(index as usize, ListRegister::default()));
        self.note_planned(vcpu);
        true
    }

    /// Whether `place` is `vcpu`'s concern, and in no list register.
    #[inline]
    fn wants_list_register(&self, vcpu: usize, place: Place) -> bool {
        let bank = self.bank(place.bank);
        bank.concerned(place.mask(), self.groups) != 0
            && bank.resident & place.mask() == 0
            && self.holder(place) == Some(vcpu)
    }

    #[inline]
    pub(super) fn note_planned(&mut self, vcpu: usize) {
        let interface = &mut self.vcpus[vcpu];
        interface.stale = 0;
        interface.change = Change::Nothing;
        self.dirty &= !(1 << vcpu);
    }

    #[inline(never)]
    fn plan_from_scratch(
        &mut self,
        vcpu: usize,
        count: usize,
        write: &mut impl FnMut(usize, ListRegister),
    ) -> Plan {
        let interface = &self.vcpus[vcpu];
        let before = interface.used | interface.stale;
        self.take_back(vcpu);
        let selection = self.select(vcpu, count);
        let used = selection.chosen().len();
        for (index, candidate) in selection.chosen().iter().enumerate() {
            if let Some(place) = self.place(vcpu, candidate.intid()) {
                write(index, self.load(vcpu, index, place));
            }
        }
        for index in bits(before).map(|index| index as usize) {
            if index >= used {
                write(index, ListRegister::default());
            }
        }
        let interface = &mut self.vcpus[vcpu];
        interface.has_leftovers = selection.left_pending > 0 || selection.left_active;
        interface.left_active = selection.left_active;
        interface.retired = 0;
        self.note_planned(vcpu);
        Plan {
            // With fewer than two in use it would be raised at once.
            underflow: selection.left_active && used >= 2,
            no_pending: selection.left_pending > 0,
            entry_not_present: selection.left_active,
            // Any vCPU may deactivate an SPI, and hardware knows this vCPU's list registers only.
            traps_deactivation: selection.left_active || self.vcpus.len() > 1,
        }
    }

    /// `vcpu` leaves its physical CPU, or ends: after [`Vgic::sync_from`] and [`Vgic::retire`] what its list registers hold
    /// returns into the model, and no physical interrupt stays linked ([`Vgic::take_deactivation`]). `free` clears list
    /// registers: after that they all are. Where the vCPU goes on, it needs a plan for what came back and what it left out.
    pub fn unload(&mut self, vcpu: usize, free: impl FnMut(usize)) {
        let Some(interface) = self.vcpus.get_mut(vcpu) else {
            return;
        };
        let loaded = interface.used | interface.stale;
        let has_leftovers = interface.has_leftovers;
        if (loaded | interface.bank.linked) == 0 && !has_leftovers {
            return;
        }
        interface.give_up_links(u32::MAX);
        self.take_back(vcpu);
        bits(loaded).map(|n| n as usize).for_each(free);
        if has_leftovers {
            self.mark(vcpu);
        }
        let interface = &mut self.vcpus[vcpu];
        interface.stale = 0;
        interface.has_leftovers = false;
        interface.left_active = false;
        interface.retired = 0;
    }

    /// The list registers' content returns into the model, as if none were in use.
    fn take_back(&mut self, vcpu: usize) {
        for index in bits(self.vcpus[vcpu].used) {
            self.take_slot_back(vcpu, index);
        }
    }

    /// The content of the list register that holds `intid` returns, if one does.
    fn take_one_back(&mut self, vcpu: usize, intid: IntId) {
        let interface = &mut self.vcpus[vcpu];
        let holds = |index: &u32| interface.slots[*index as usize].intid == intid;
        if let Some(index) = bits(interface.used).find(holds) {
            interface.stale |= 1 << index;
            self.take_slot_back(vcpu, index);
        }
    }

    fn take_slot_back(&mut self, vcpu: usize, index: u32) {
        let interface = &mut self.vcpus[vcpu];
        interface.used &= !(1 << index);
        let place = Place::of(vcpu, interface.slots[index as usize].intid);
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

    fn select(&self, vcpu: usize, capacity: usize) -> Selection {
        let mut selection = Selection::new(capacity);
        for bank in self.banks_of(vcpu) {
            let state = self.bank(bank);
            for bit in bits(state.deliverable(self.groups) | state.active) {
                let place = Place { bank, bit };
                if self.holder(place) == Some(vcpu) {
                    let is_active = state.active & place.mask() != 0;
                    selection.offer(Candidate::new(
                        place.intid(),
                        self.priority(place),
                        is_active,
                    ));
                }
            }
        }
        selection.keep_one_pending();
        selection
    }

    /// Moves an interrupt into list register `index`.
    #[inline]
    fn load(&mut self, vcpu: usize, index: usize, place: Place) -> ListRegister {
        let must_wait =
            self.bank(place.bank).active & place.mask() != 0 && self.must_wait(vcpu, place);
        let (groups, links_in_hardware) = (self.groups, self.links_in_hardware);
        let (mut slot, mut register) = match place.bank {
            BankId::Private(vcpu) => {
                let interface = &mut self.vcpus[vcpu];
                let bank = &mut interface.bank;
                let pintid = (bank.linked & place.mask() != 0 && links_in_hardware)
                    .then(|| interface.links.pintid(place.bit));
                bank.load(place, pintid, must_wait, groups)
            }
            BankId::Shared(row) => {
                let shared = &mut self.shared[row];
                shared.owner[place.bit as usize] = vcpu as u8;
                shared.bank.load(place, None, must_wait, groups)
            }
        };
        if self.is_sgi_with_source(place) {
            let (source, more_wait) = self.load_source(place, slot.seen);
            register.source = source;
            register.eoi_maintenance |= more_wait;
            slot.eoi_maintenance |= more_wait;
        }
        let interface = &mut self.vcpus[vcpu];
        interface.used |= 1 << index;
        interface.slots[index] = slot;
        register
    }

    /// Whether an active interrupt's pending state waits for its end rather than share a list register with it.
    fn must_wait(&self, vcpu: usize, place: Place) -> bool {
        match place.bank {
            BankId::Private(_) => {
                let bank = self.bank(place.bank);
                (bank.linked | self.unseen) & place.mask() != 0 || self.is_sgi_with_source(place)
            }
            BankId::Shared(_) => self.target(place) != Some(vcpu),
        }
    }

    /// A GICv2 SGI, which has a source and so cannot be pending from one vCPU and active from another in one register.
    fn is_sgi_with_source(&self, place: Place) -> bool {
        self.version == Version::V2
            && matches!(place.bank, BankId::Private(_))
            && SGIS & place.mask() != 0
    }

    /// The source that the list register of a GICv2's SGI names; one of those that wait moves in when it is `state` pending.
    /// Answers as well whether a pending one is followed by others.
    fn load_source(&mut self, place: Place, state: State) -> (u8, bool) {
        let BankId::Private(vcpu) = place.bank else {
            return (0, false);
        };
        let interface = &mut self.vcpus[vcpu];
        if !state.is_pending() {
            return (interface.sgi.active(place.bit), false);
        }
        let source = interface.sgi.load(place.bit);
        let others_wait = interface.sgi.has_waiting(place.bit);
        if others_wait {
            interface.bank.latch |= place.mask();
        }
        (source, others_wait)
    }
}

impl Bank {
    /// Moves an interrupt of this bank into a list register. `pintid`: its physical interrupt, if it has one and hardware may
    /// know of it; `must_wait`: it is active, and its pending state waits for the end of that.
    #[inline]
    pub(super) fn load(
        &mut self,
        place: Place,
        pintid: Option<IntId>,
        must_wait: bool,
        groups: GroupEnables,
    ) -> (Slot, ListRegister) {
        let mask = place.mask();
        let is = |property: u32| property & mask != 0;
        let is_active = is(self.active);
        let is_pending = is(self.deliverable(groups));
        let (is_linked, is_taken) = (is(self.linked), is(self.taken));
        let (line_asserted, latched) = (is(self.asserted()), is(self.latch));
        let is_again_pending = is_active && (latched || line_asserted);
        let pintid = pintid.filter(|_| is_taken == is_active && !is_again_pending);
        let state = State::new(is_pending && !must_wait, is_active);

        let takes_latch = state.is_pending() && latched;
        if takes_latch {
            self.latch &= !mask;
            self.loaded_latch |= mask;
        }
        self.resident |= mask;
        let waits = is_pending && latched && !takes_latch;
        let intid = place.intid();
        let slot = Slot {
            intid,
            seen: state,
            is_linked: pintid.is_some(),
            carries_link: state.is_pending() && is_linked && !is_taken,
            eoi_maintenance: pintid.is_none() && (line_asserted || waits || is_linked),
        };
        let register = ListRegister {
            vintid: intid,
            pintid,
            priority: self.priority(place.bit),
            group: self.group_of(place.bit),
            state,
            eoi_maintenance: slot.eoi_maintenance,
            source: 0,
        };
        (slot, register)
    }
}
