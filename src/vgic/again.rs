//! An interrupt that comes again, or alone, and one that is over when its vCPU leaves: most are.
//!
//! What is still thought to be pending in its list register was taken and ended there by the guest, without an exit, and is to
//! be pending once more. Then that register is written as it was, the model hardly changes, and no other list register is
//! looked at. Where none is in use, the first one it is. Of private interrupts only, and only while nothing else is to be
//! planned: whatever is unusual in any way is left to [`Vgic::sync_from`] and [`Vgic::plan`], which do the same.

use super::bank::{Bank, GroupEnables};
use super::news::Change;
use super::plan::Slot;
use super::{
    FIRST_PPI, FIRST_SPI, IntId, ListRegister, Place, State, VcpuInterface, Version, Vgic, bits,
};

impl Vgic {
    /// Does the work of [`Vgic::hardware_interrupt`] and [`Vgic::plan`], if the list register of `vcpu` that holds `intid`
    /// with its physical interrupt `pintid` turns out to be free, or if none is in use: a list register, and what goes into
    /// it. `state_of` is as for [`Vgic::sync_from`].
    #[inline]
    pub fn comes_again(
        &mut self,
        vcpu: usize,
        (intid, pintid): (IntId, IntId),
        state_of: impl FnOnce(usize) -> State,
    ) -> Option<(usize, ListRegister)> {
        if self.needs_plan(vcpu) {
            return None;
        }
        let (groups, links_in_hardware) = (self.groups, self.links_in_hardware);
        let interface = self.vcpus.get_mut(vcpu)?;
        if interface.used == 0 {
            let place = Place::of(vcpu, intid);
            return interface.link_only(place, pintid, links_in_hardware, groups);
        }
        let index = interface.pending_in(intid)?;
        let slot = interface.slots[index];
        if !slot.is_linked || !slot.carries_link || state_of(index) != State::Invalid {
            return None;
        }
        // Acknowledged, linked, ended, and linked again: the model says what it said, but that software pended it too.
        interface.bank.loaded_latch &= !1u32.wrapping_shl(intid.raw());
        let pintid = interface.links.pintid(intid.raw());
        Some((index, interface.pending(intid, Some(pintid), 0)))
    }

    /// Does the work of [`Vgic::plan`], if all that happened to `vcpu` is that an interrupt without a physical one was made
    /// pending, which is pending in its list register already, or is the only one there is: a list register, and what goes
    /// into it.
    #[inline]
    pub fn plan_latched(
        &mut self,
        vcpu: usize,
        state_of: impl FnOnce(usize) -> State,
    ) -> Option<(usize, ListRegister)> {
        let has_sources = self.version == Version::V2;
        let interface = self.vcpus.get_mut(vcpu)?;
        let Change::One(intid) = interface.change else {
            return None;
        };
        let is_plain = intid.is_private() && !interface.has_leftovers && interface.stale == 0;
        let mask = 1u32.wrapping_shl(intid.raw());
        if !is_plain || interface.bank.only_latched(self.groups) & mask == 0 {
            return None;
        }
        let planned = if interface.used == 0 {
            interface.load_only(intid, has_sources)?
        } else {
            interface.load_again(intid, has_sources, state_of)?
        };
        let bank = &mut interface.bank;
        bank.latch &= !mask;
        bank.loaded_latch |= mask;
        self.note_planned(vcpu);
        Some(planned)
    }

    /// Does the work of [`Vgic::sync_from`] and [`Vgic::unload`], if none of `vcpu`'s list registers is in use, or the first one
    /// alone, whose interrupt the guest took and ended, and no line of its PPIs is asserted, for all that is known. Answers
    /// whether `vcpu` has left. `state_of` is as for [`Vgic::sync_from`].
    #[inline(always)] // the number of the list register is in the instruction
    pub fn leaves_nothing(&mut self, vcpu: usize, state_of: impl FnOnce(usize) -> State) -> bool {
        const FIRST: usize = 0;
        const ONLY_FIRST: u32 = 1 << FIRST;
        let Some(interface) = self.vcpus.get_mut(vcpu) else {
            return true;
        };
        let bank = &interface.bank;
        let owed = interface.stale | interface.links.to_deactivate;
        if owed | bank.linked | bank.line != 0 || interface.has_leftovers {
            return false;
        }
        match interface.used {
            0 => true,
            ONLY_FIRST => state_of(FIRST) == State::Invalid && interface.fold_plain(FIRST),
            _ => false,
        }
    }
}

impl Bank {
    /// Pending by their latch alone, forwarded, and not active.
    #[inline]
    const fn only_latched(&self, groups: GroupEnables) -> u32 {
        self.latch & self.forwarded(groups) & !(self.asserted() | self.linked | self.active)
    }
}

impl VcpuInterface {
    /// Private interrupt `intid` goes into the first list register, where none is in use.
    #[inline(always)] // what it answers goes on in registers
    fn load_only(&mut self, intid: IntId, has_sources: bool) -> Option<(usize, ListRegister)> {
        const FIRST: usize = 0;
        let source = if has_sources {
            self.sgi.load_only(intid.raw())?
        } else {
            0
        };
        self.bank.resident |= 1u32.wrapping_shl(intid.raw());
        self.used = 1 << FIRST;
        self.slots[FIRST] = Slot {
            intid,
            seen: State::Pending,
            ..Slot::FREE
        };
        Some((FIRST, self.pending(intid, None, source)))
    }

    /// PPI `intid` goes into the first list register with its physical interrupt, where none is in use and no other physical
    /// interrupt stands for one.
    #[inline(never)] // rarer than one that comes again, where hardware ends it
    fn link_only(
        &mut self,
        place: Place,
        pintid: IntId,
        links_in_hardware: bool,
        groups: GroupEnables,
    ) -> Option<(usize, ListRegister)> {
        const FIRST: usize = 0;
        let (intid, mask) = (place.intid(), place.mask());
        let bank = &self.bank;
        let is_plain = (FIRST_PPI..FIRST_SPI).contains(&intid.raw())
            && bank.forwarded(groups) & mask != 0
            && (bank.latch | bank.active) & mask == 0
            && bank.linked | bank.line == 0;
        if !is_plain || self.has_leftovers || self.stale != 0 {
            return None;
        }
        self.link(intid, pintid);
        let pintid = Some(pintid).filter(|_| links_in_hardware);
        let (slot, register) = self.bank.load(place, pintid, false, groups);
        self.used = 1 << FIRST;
        self.slots[FIRST] = slot;
        Some((FIRST, register))
    }

    /// Private interrupt `intid` goes where it is pending for all that was known.
    #[inline(always)]
    fn load_again(
        &mut self,
        intid: IntId,
        has_sources: bool,
        state_of: impl FnOnce(usize) -> State,
    ) -> Option<(usize, ListRegister)> {
        let index = self.pending_in(intid)?;
        if self.slots[index].eoi_maintenance {
            return None;
        }
        let mut source = 0;
        match state_of(index) {
            State::Invalid if has_sources => source = self.sgi.take_next(intid.raw())?,
            State::Invalid => {}
            State::Pending if !has_sources => {}
            _ => return None,
        }
        Some((index, self.pending(intid, None, source)))
    }

    /// The list register in which private interrupt `intid` is pending, for all that is known, and which the next plan would
    /// leave alone.
    #[inline]
    fn pending_in(&self, intid: IntId) -> Option<usize> {
        if !intid.is_private() || self.has_leftovers {
            return None;
        }
        let holds = |index: &usize| self.slots[*index].intid == intid;
        let index = bits(self.used).map(|index| index as usize).find(holds)?;
        (self.slots[index].seen == State::Pending).then_some(index)
    }

    /// What its list register holds.
    #[inline(always)]
    fn pending(&self, intid: IntId, pintid: Option<IntId>, source: u8) -> ListRegister {
        let bit = intid.raw();
        ListRegister {
            vintid: intid,
            pintid,
            priority: self.bank.priority(bit),
            group: self.bank.group_of(bit),
            state: State::Pending,
            eoi_maintenance: false,
            source,
        }
    }
}
