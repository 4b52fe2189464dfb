//! What goes into the list registers.
//!
//! Every plan starts from scratch: what is in the list registers returns into the model, and the most urgent interrupts
//! are loaded. An edge or a software-pended interrupt is *moved* into its list register, so an edge that comes while it is
//! there is a new one; a level-sensitive interrupt's pending state is its line, of which the list register has a copy.
//! Where a guest could end an interrupt that is pending again without EL2 noticing, hardware is asked for a maintenance
//! interrupt; where there are more interrupts than list registers, for one when it runs short.
//!
//! Source: IHI 0048B "Completion of virtual interrupts", "Hypervisor Control Register, GICH_HCR"; IHI 0069 "ICH_HCR_EL2",
//! "Maintenance interrupts".

mod selection;

use super::bank::Bank;
use super::{
    BankId, Group, IntId, ListRegister, MAX_LIST_REGISTERS, Place, SGIS, State, Version, Vgic, bits,
};
use selection::{Candidate, Selection};

/// What a list register holds, and what it was seen to hold last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) seen: State,
    /// It has the HW bit: the guest's deactivation deactivates the physical interrupt.
    pub(super) is_linked: bool,
    /// It is pending because of a physical interrupt: acknowledging it takes the link.
    pub(super) carries_link: bool,
    pub(super) eoi_maintenance: bool,
}

impl Slot {
    pub(super) const FREE: Self = Self {
        place: Place {
            bank: BankId::Private(0),
            bit: 0,
        },
        seen: State::Invalid,
        is_linked: false,
        carries_link: false,
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
    /// Fills `registers`, as many as are to be written ([`Plan::write`]), with what `vcpu`'s list registers shall hold, of
    /// which the hardware has `count`.
    ///
    /// [`Vgic::sync_from`] must have been called since the guest last ran. Afterwards [`Vgic::needs_plan`] is false.
    pub fn plan(
        &mut self,
        vcpu: usize,
        registers: &mut [ListRegister; MAX_LIST_REGISTERS],
        count: usize,
    ) -> Plan {
        if vcpu >= self.vcpus.len() {
            return Plan::default();
        }
        let before = self.vcpus[vcpu].slot_count;
        self.take_back(vcpu);
        let selection = self.select(vcpu, count.min(MAX_LIST_REGISTERS));
        let used = selection.chosen().len();
        for (index, candidate) in selection.chosen().iter().enumerate() {
            if let Some(place) = self.place(vcpu, candidate.intid()) {
                registers[index] = self.load(vcpu, index, place);
            }
        }
        let write = used.max(before);
        registers[used..write].fill(ListRegister::default());
        let has_leftovers = selection.left_pending > 0 || selection.left_active;
        let interface = &mut self.vcpus[vcpu];
        interface.slot_count = used;
        interface.has_leftovers = has_leftovers;
        interface.left_active = selection.left_active;
        interface.retired = 0;
        self.dirty &= !(1 << vcpu);
        Plan {
            used,
            write,
            // With fewer than two in use it would be raised at once.
            underflow: selection.left_active && used >= 2,
            no_pending: selection.left_pending > 0,
            entry_not_present: selection.left_active,
            // Any vCPU may deactivate an SPI, and hardware knows this vCPU's list registers only.
            traps_deactivation: selection.left_active || self.vcpus.len() > 1,
        }
    }

    /// `vcpu` leaves its physical CPU, or ends: after [`Vgic::sync_from`] and [`Vgic::retire`] what its list registers hold
    /// returns into the model, and no physical interrupt stays linked ([`Vgic::unlink`]). Where it goes on it needs a plan,
    /// for list registers that are free and an EOIcount of zero.
    pub fn unload(&mut self, vcpu: usize) {
        if vcpu >= self.vcpus.len() {
            return;
        }
        self.unlink(vcpu);
        self.take_back(vcpu);
        let interface = &mut self.vcpus[vcpu];
        interface.slot_count = 0;
        interface.has_leftovers = false;
        interface.left_active = false;
        interface.retired = 0;
        self.mark(vcpu);
    }

    /// The list registers' content returns into the model, as if none were in use.
    fn take_back(&mut self, vcpu: usize) {
        for index in 0..self.vcpus[vcpu].slot_count {
            let Slot { place, seen, .. } = self.vcpus[vcpu].slots[index];
            // What has ended here may be in another vCPU's list register by now.
            if seen == State::Invalid {
                continue;
            }
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
            .filter(|link| self.links_in_hardware && link.taken == is_active && !is_again_pending)
            .map(|link| link.pintid);
        // A pending interrupt that waits for the end of the active one rather than share a list register with it.
        let goes_elsewhere = self.target(place) != Some(vcpu);
        let must_wait = is_active
            && (link.is_some()
                || self.is_unseen(place)
                || self.is_sgi_with_source(place)
                || goes_elsewhere);
        let state = State::new(is_pending && !must_wait, is_active);

        let bank = self.bank_mut(place.bank);
        bank.resident |= mask;
        if state.is_pending() && latched {
            bank.latch &= !mask;
            bank.loaded_latch |= mask;
        }
        let source = self.load_source(place, state);
        let still_latched = self.bank(place.bank).latch & mask != 0;
        let eoi_maintenance =
            pintid.is_none() && (line_asserted || (is_pending && still_latched) || link.is_some());
        if let BankId::Shared(row) = place.bank {
            self.shared[row].owner[place.bit as usize] = vcpu as u8;
        }
        self.vcpus[vcpu].slots[index] = Slot {
            place,
            seen: state,
            is_linked: pintid.is_some(),
            carries_link: state.is_pending() && link.is_some_and(|link| !link.taken),
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

    fn is_unseen(&self, place: Place) -> bool {
        matches!(place.bank, BankId::Private(_)) && self.unseen & place.mask() != 0
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
