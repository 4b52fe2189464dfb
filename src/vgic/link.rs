//! PPIs that stand for a physical interrupt EL2 has acknowledged: the timers and the PMU.
//!
//! EL2 takes their physical interrupt, drops its priority and leaves it active; the guest's own deactivation of the
//! virtual one then deactivates the physical one in hardware, through the list register's HW bit. Where that is not
//! possible (the guest clears the state by a register, or the list register had to be a software one), the model says
//! that EL2 must deactivate the physical interrupt: then it is taken again if its line is still asserted, so nothing is
//! lost by it.
//!
//! Source: IHI 0048B "Virtual interrupts in the GIC"; IHI 0069 "Physical interrupts mapped to virtual ones".

use super::{BankId, FIRST_PPI, FIRST_SPI, IntId, VcpuInterface, Vgic, bits};

/// The physical interrupts of one vCPU's PPIs.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    pintid: [IntId; FIRST_SPI as usize],
    /// EL2 is to deactivate the physical interrupt.
    pub(super) to_deactivate: u32,
}

impl Links {
    /// Physical interrupt of PPI `bit`, if it is or was linked.
    pub(super) fn pintid(&self, bit: u32) -> IntId {
        self.pintid.get(bit as usize).copied().unwrap_or_default()
    }
}

impl VcpuInterface {
    /// The links in `mask` end, hardware having deactivated the physical interrupt. If its line is still asserted it is
    /// taken anew; until then the line is not known to be.
    pub(super) fn end_links(&mut self, mask: u32) {
        let ended = mask & self.bank.linked;
        self.bank.linked &= !ended;
        self.bank.taken &= !ended;
        self.bank.line &= !ended;
        self.links.to_deactivate &= !mask;
    }

    /// The links in `mask` end without hardware's help: EL2 is to deactivate the physical interrupts. Answers whether there
    /// are any.
    pub(super) fn give_up_links(&mut self, mask: u32) -> bool {
        let ended = mask & self.bank.linked;
        self.end_links(ended);
        self.links.to_deactivate |= ended;
        ended != 0
    }

    /// PPI `intid` is pending, and physical interrupt `pintid` stands for it.
    pub(super) fn link(&mut self, intid: IntId, pintid: IntId) {
        let mask = 1 << intid.raw();
        self.bank.linked |= mask;
        self.bank.line |= mask;
        self.links.to_deactivate &= !mask;
        self.links.pintid[intid.raw() as usize] = pintid;
    }

    /// The guest acknowledged linked list registers.
    pub(super) fn take_links(&mut self, mask: u32) {
        self.bank.linked |= mask;
        self.bank.taken |= mask;
        // Someone may have withdrawn it while it was being acknowledged: the acknowledgement came first.
        self.links.to_deactivate &= !mask;
    }
}

impl Vgic {
    /// `vcpu`'s PPI `intid` is pending because EL2 took physical interrupt `pintid`, whose priority it dropped and which
    /// stays active until the guest has deactivated `intid`.
    ///
    /// False if it was refused (no such vCPU, not a PPI): then the caller deactivates `pintid` itself.
    #[must_use]
    pub fn hardware_interrupt(&mut self, vcpu: usize, intid: IntId, pintid: IntId) -> bool {
        let Some(interface) = self.vcpus.get_mut(vcpu) else {
            return false;
        };
        if !(FIRST_PPI..FIRST_SPI).contains(&intid.raw()) {
            return false;
        }
        interface.link(intid, pintid);
        self.reconsider(BankId::Private(vcpu), 1 << intid.raw());
        true
    }

    /// The next physical interrupt EL2 must deactivate on the CPU that runs `vcpu`, before it enters the guest.
    pub fn take_deactivation(&mut self, vcpu: usize) -> Option<IntId> {
        let links = &mut self.vcpus.get_mut(vcpu)?.links;
        let bit = bits(links.to_deactivate).next()?;
        links.to_deactivate &= !(1 << bit);
        Some(links.pintid(bit))
    }

    /// PPIs of `vcpu` that stand for a physical interrupt now, or whose lines are asserted for all that is known; bit `n`
    /// for INTID `n`.
    ///
    /// Timers' lines may have changed since: a guest reprograms its timer without an exit. EL2 looks, and says what it sees
    /// with [`Vgic::set_private_line`], before it lets a guest read pending state and before it decides that a guest in WFI
    /// has something to do.
    #[must_use]
    pub fn raised(&self, vcpu: usize) -> u32 {
        let interface = self.vcpus.get(vcpu);
        interface.map_or(0, |interface| interface.bank.linked | interface.bank.line)
    }

    /// `vcpu` leaves its physical CPU, or ends: nothing of it may stay linked there. What is pending is withdrawn (its line
    /// will raise it where the vCPU goes), what is active stays so as an interrupt of software's;
    /// [`Vgic::take_deactivation`] then gives what EL2 must deactivate.
    pub fn unlink(&mut self, vcpu: usize) {
        if vcpu < self.vcpus.len() {
            self.give_up_links(vcpu, u32::MAX);
        }
    }

    /// Links in `mask` that were not taken end, and the pending state with them.
    pub(super) fn withdraw_links(&mut self, vcpu: usize, mask: u32) {
        self.give_up_links(vcpu, mask & !self.vcpus[vcpu].bank.taken);
    }

    /// The links in `mask` end without hardware's help.
    pub(super) fn give_up_links(&mut self, vcpu: usize, mask: u32) {
        if self.vcpus[vcpu].give_up_links(mask) {
            self.mark(vcpu);
        }
    }
}
