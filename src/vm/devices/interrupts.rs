//! Interrupts between the vGIC, the list registers of the pCPU at hand, and the other vCPUs.

use super::{Devices, OWN_LINES, Outcome};
use crate::sysreg::SgiRegister;
use crate::vgic::{Access, CpuInterface, IntId, ListRegister, Vgic};
use crate::vm::Host;
use crate::vm::recall::bit;

impl Devices {
    /// Folds in what an access of `own` to `register` depends on, or says which others must be recalled for it.
    ///
    /// # Errors
    /// Those others, a bit each. `own` is folded in then, so that nobody waits for it while it waits.
    pub(super) fn prepare<H: Host>(
        &mut self,
        own: usize,
        register: Access,
        written: Option<u64>,
        has_recalled: bool,
        host: &mut H,
    ) -> Result<(), u64> {
        let depends_on = self.vgic.depends_on(register, written);
        if depends_on == 0 {
            return Ok(());
        }
        self.fold_in(own, host);
        let others = depends_on & !bit(own);
        if others == 0 || has_recalled {
            Ok(())
        } else {
            Err(others)
        }
    }

    /// Carries out `own`'s write; the others that hold what it changed, a bit each.
    pub(super) fn write_gic<H: Host>(
        &mut self,
        own: usize,
        register: Access,
        value: u64,
        host: &mut H,
    ) -> u64 {
        self.vgic.write(register, value);
        self.deactivate_dropped(own, host);
        if Vgic::may_change_forwarding(register) {
            // Enabling the console's interrupt may be what makes the guest a listener.
            self.look_for_room(host);
        }
        match self.vgic.vcpus_to_plan() & !bit(own) {
            0 => 0,
            others => others & self.vgic.holders(register, value),
        }
    }

    /// `own` wrote ICC_DIR_EL1.
    pub(in crate::vm) fn deactivate<H: Host>(
        &mut self,
        own: usize,
        value: u64,
        has_recalled: bool,
        host: &mut H,
    ) -> Outcome {
        let Some(register) = self.vgic.deactivation(own) else {
            return Outcome::Done(0);
        };
        match self.prepare(own, register, Some(value), has_recalled, host) {
            Ok(()) => Outcome::Done(self.write_gic(own, register, value, host)),
            Err(others) => Outcome::Recall(others),
        }
    }

    /// `vcpu` wrote an SGI register.
    pub(in crate::vm) fn send_sgi(&mut self, vcpu: usize, register: SgiRegister, value: u64) {
        match register {
            SgiRegister::Sgi0r => self.vgic.write_sgi0r(vcpu, value),
            SgiRegister::Sgi1r => self.vgic.write_sgi1r(vcpu, value),
            SgiRegister::Asgi1r => self.vgic.write_asgi1r(vcpu, value),
        }
    }

    /// `vcpu` wrote GICD_SGIR (GICv2).
    #[inline]
    pub(in crate::vm) fn send_sgi_v2(&mut self, vcpu: usize, value: u32) {
        self.vgic.write_sgir(vcpu, value);
    }

    /// The physical interrupt of a timer or of the PMU of `vcpu`, which this pCPU runs, was taken and left active for the guest
    /// to end: it goes into a list register.
    pub fn own_interrupt<H: Host>(
        &mut self,
        vcpu: usize,
        guest: IntId,
        physical: IntId,
        host: &mut H,
    ) {
        let is_asserted = host.line(guest);
        if is_asserted
            && let Some((n, register)) = self
                .vgic
                .comes_again(vcpu, (guest, physical), |n| host.list_state(n))
        {
            return host.set_list_register(n, register);
        }
        self.look(vcpu, host);
        // A guest may have set its timer to later in the moment in which the interrupt was on its way.
        if !is_asserted || !self.vgic.hardware_interrupt(vcpu, guest, physical) {
            host.deactivate(physical.raw());
        }
        self.load_list(vcpu, host);
    }

    /// A maintenance interrupt was taken while `vcpu` ran. It is asserted until the list registers are written, so they are.
    pub fn maintenance<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        self.look(vcpu, host);
        self.load_list(vcpu, host);
    }

    /// What `vcpu`'s guest did to this pCPU's list registers, into the model; timers that have gone quiet, out of it.
    pub fn fold_in<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        self.look(vcpu, host);
        self.deactivate_dropped(vcpu, host);
    }

    /// The same; what is to be deactivated by it is not yet.
    #[inline]
    fn look<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        self.read_list(vcpu, host);
        self.look_at_lines(vcpu, host);
    }

    #[inline]
    fn read_list<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        self.folded |= bit(vcpu);
        self.vgic.sync_from(vcpu, |n| host.list_state(n));
        if self.vgic.has_active_outside(vcpu) {
            let (ended, interface) = (host.ended_outside(), host.cpu_interface());
            self.vgic.retire(vcpu, ended, &interface);
        }
    }

    /// The guest sets its timers without an exit: what their lines say now counts, not what they said when the physical
    /// interrupt was taken. So with the PMU.
    fn look_at_lines<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        let raised = self.vgic.raised(vcpu);
        if raised == 0 {
            return;
        }
        for intid in OWN_LINES {
            if raised >> intid.raw() & 1 == 1 {
                let line = host.line(intid);
                self.vgic.set_private_line(vcpu, intid, line);
            }
        }
    }

    fn deactivate_dropped<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        while let Some(intid) = self.vgic.take_deactivation(vcpu) {
            host.deactivate(intid.raw());
        }
    }

    /// `vcpu` leaves this pCPU, or ends: all that its list registers hold returns into the model, and nothing of it stays active
    /// here. Its timers and its PMU are off already; `lines` is what they asserted, a bit each by INTID. The list registers are
    /// free after that; what else belongs to its CPU interface is in [`CpuInterface`].
    #[inline(always)] // on the way from one vCPU to another
    pub fn leave<H: Host>(&mut self, vcpu: usize, lines: u32, host: &mut H) {
        self.folded |= bit(vcpu);
        if lines != 0 || !self.vgic.leaves_nothing(vcpu, |n| host.list_state(n)) {
            self.leave_with_all(vcpu, lines, host);
        }
    }

    #[inline(never)] // most that wait have taken and ended what they had
    fn leave_with_all<H: Host>(&mut self, vcpu: usize, lines: u32, host: &mut H) {
        self.read_list(vcpu, host);
        self.vgic.unload(vcpu, |n| {
            host.set_list_register(n, ListRegister::default());
        });
        let raised = self.vgic.raised(vcpu) | lines;
        for intid in OWN_LINES {
            if raised >> intid.raw() & 1 == 1 {
                let line = lines >> intid.raw() & 1 == 1;
                self.vgic.set_private_line(vcpu, intid, line);
            }
        }
        self.deactivate_dropped(vcpu, host);
    }

    /// Whether an interrupt waits for `vcpu`, whose list registers were folded in. From here on a change that concerns it
    /// is told again ([`Self::take_kicks`]): so a vCPU looks, and if there is nothing it waits, and no wake-up is lost.
    pub fn is_pending(&mut self, vcpu: usize) -> bool {
        self.has_looked(vcpu);
        self.vgic.is_pending(vcpu)
    }

    /// The same, of interrupts that this CPU interface would signal: what ends a WFI.
    pub fn is_signalled(&mut self, vcpu: usize, interface: &CpuInterface) -> bool {
        self.has_looked(vcpu);
        self.vgic.is_signalled(vcpu, interface)
    }

    /// The vCPUs whose list registers no longer show what they should, a bit each.
    pub(in crate::vm) const fn vcpus_to_plan(&self) -> u64 {
        self.vgic.vcpus_to_plan()
    }

    /// The vCPUs other than `own` that must look at their interrupts and have not been told so since they looked last, a
    /// bit each; they count as told from now on. To be asked after every operation, and passed to [`Host::kick`] when the
    /// lock is free again. `own` looks by itself, before it enters or waits.
    pub fn take_kicks(&mut self, own: usize) -> u64 {
        let kicks = self.vgic.take_news() & !self.told & !bit(own);
        self.told |= kicks;
        kicks
    }

    /// The vCPUs that were folded in since the last call, a bit each.
    pub(in crate::vm) const fn take_folded(&mut self) -> u64 {
        core::mem::replace(&mut self.folded, 0)
    }

    fn has_looked(&mut self, vcpu: usize) {
        self.told &= !bit(vcpu);
    }

    /// Has `vcpu`'s list registers, which are this pCPU's, hold what they shall, if anything changed since they were written.
    pub fn plan<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        if !self.vgic.needs_plan(vcpu) {
            return;
        }
        if let Some((n, register)) = self.vgic.plan_latched(vcpu, |n| host.list_state(n)) {
            self.has_looked(vcpu);
            return host.set_list_register(n, register);
        }
        self.look(vcpu, host);
        self.load_list(vcpu, host);
    }

    /// The same, of a vCPU that was folded in.
    #[inline]
    fn load_list<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        if self.vgic.needs_plan(vcpu) {
            self.has_looked(vcpu);
            let count = host.list_registers();
            let write = |n, register| host.set_list_register(n, register);
            if let Some(plan) = self.vgic.plan(vcpu, count, write) {
                host.set_list_control(plan);
            }
        }
        self.deactivate_dropped(vcpu, host);
    }
}
