//! PPIs that stand for a physical interrupt EL2 has acknowledged: the timers.
//!
//! EL2 takes a timer's physical interrupt, drops its priority and leaves it active; the guest's own deactivation of the
//! virtual one then deactivates the physical one in hardware, through the list register's HW bit. Where that is not
//! possible (the guest clears the state by a register, or the list register had to be a software one), the model says
//! that EL2 must deactivate the physical interrupt: then it is taken again if its line is still asserted, so nothing is
//! lost by it.
//!
//! Source: IHI 0048B "Virtual interrupts in the GIC"; IHI 0069 "Physical interrupts mapped to virtual ones".

use super::{BankId, FIRST_PPI, FIRST_SPI, IntId, Vgic, bits};

/// Links of one vCPU's PPIs to physical interrupts.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    /// The physical interrupt is active, waiting for the virtual one's end.
    pub(super) linked: u32,
    /// Of those, the virtual interrupt is active *because* of the link (and not for a reason of software's).
    pub(super) taken: u32,
    /// EL2 is to deactivate the physical interrupt.
    pub(super) to_deactivate: u32,
    pub(super) pintid: [IntId; 32],
}

impl Links {
    /// The links in `mask` end without hardware's help.
    pub(super) fn give_up(&mut self, mask: u32) {
        let ended = mask & self.linked;
        self.linked &= !ended;
        self.taken &= !ended;
        self.to_deactivate |= ended;
    }

    /// The links in `mask` end, hardware having deactivated the physical interrupt.
    pub(super) fn end(&mut self, mask: u32) {
        self.linked &= !mask;
        self.taken &= !mask;
        self.to_deactivate &= !mask;
    }

    /// The guest acknowledged a linked list register.
    pub(super) fn take(&mut self, mask: u32) {
        self.linked |= mask;
        self.taken |= mask;
        // Someone may have withdrawn it while it was being acknowledged: the acknowledgement came first.
        self.to_deactivate &= !mask;
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
        let mask = 1 << intid.raw();
        interface.links.linked |= mask;
        interface.links.to_deactivate &= !mask;
        interface.links.pintid[intid.raw() as usize] = pintid;
        interface.bank.latch |= mask;
        self.reconsider(BankId::Private(vcpu), mask);
        true
    }

    /// The next physical interrupt EL2 must deactivate on the CPU that runs `vcpu`, before it enters the guest.
    pub fn take_deactivation(&mut self, vcpu: usize) -> Option<IntId> {
        let links = &mut self.vcpus.get_mut(vcpu)?.links;
        let bit = bits(links.to_deactivate).next()?;
        links.to_deactivate &= !(1 << bit);
        Some(links.pintid[bit as usize])
    }

    /// PPIs of `vcpu` that are pending by a link and not acknowledged, bit `n` for INTID `n`.
    ///
    /// Their lines may have fallen since; EL2 looks and says so with [`Vgic::set_private_line`] before a guest reads
    /// pending state, and before it decides that a guest in WFI has something to do.
    #[must_use]
    pub fn linked_pending(&self, vcpu: usize) -> u32 {
        self.vcpus.get(vcpu).map_or(0, |interface| {
            interface.links.linked & !interface.links.taken
        })
    }

    /// Pending links in `mask` end, and the pending state with them.
    pub(super) fn withdraw_link(&mut self, vcpu: usize, mask: u32) {
        let withdrawn = mask & self.linked_pending(vcpu);
        if withdrawn == 0 {
            return;
        }
        let interface = &mut self.vcpus[vcpu];
        interface.links.give_up(withdrawn);
        interface.bank.latch &= !withdrawn;
        interface.bank.loaded_latch &= !withdrawn;
        self.mark(vcpu);
    }
}
