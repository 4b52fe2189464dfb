//! A vCPU as the vGIC meets it: list registers, a CPU interface that works on them as the hardware does, and the EL2 that
//! carries them to and fro.
//!
//! Source: IHI 0069 "`ICH_LR<n>_EL2`", "ICH_HCR_EL2", "Priority drop and deactivation", "Maintenance interrupts".

use crate::vgic::{
    CpuInterface, IntId, ListRegister, MAX_LIST_REGISTERS, Plan, State, Version, Vgic,
};
use std::collections::BTreeSet;

/// The virtual timer's PPI, virtual and physical.
const TIMER: IntId = IntId::ppi(11);

/// Priority of an idle CPU interface.
const IDLE: u8 = 0xff;

#[derive(Clone)]
pub(super) struct Guest {
    pub(super) vcpu: usize,
    pub(super) registers: [ListRegister; MAX_LIST_REGISTERS],
    pub(super) plan: Plan,
    count: usize,
    /// Active priorities, the most urgent last.
    running: Vec<u8>,
    end_count: u32,
    /// EOImode = 1: an end of interrupt only drops the priority.
    pub(super) splits_end: bool,
    /// Physical interrupts that are active.
    pub(super) physical: BTreeSet<IntId>,
    /// The line of the virtual timer, as EL2 finds it when it looks.
    pub(super) timer_asserted: bool,
    /// List registers written so far.
    pub(super) writes: usize,
    /// Plans from scratch so far.
    pub(super) from_scratch: usize,
    /// Interrupts so far that came again.
    pub(super) again: usize,
    /// Times so far that it left without anything to take along.
    pub(super) left_nothing: usize,
    /// Ends so far of interrupts that were in no list register.
    pub(super) ends_outside: usize,
}

impl Guest {
    /// vCPU `vcpu` with `count` list registers.
    pub(super) fn new(vcpu: usize, count: usize) -> Self {
        Self {
            vcpu,
            registers: [ListRegister::default(); MAX_LIST_REGISTERS],
            plan: Plan::default(),
            count,
            running: Vec::new(),
            end_count: 0,
            splits_end: false,
            physical: BTreeSet::new(),
            timer_asserted: true,
            writes: 0,
            from_scratch: 0,
            again: 0,
            left_nothing: 0,
            ends_outside: 0,
        }
    }

    /// EL2 takes the vCPU out of its guest: what the model does not know yet is folded in, the timer's line included.
    pub(super) fn exit(&mut self, vgic: &mut Vgic) {
        vgic.sync_from(self.vcpu, |n| {
            assert!(n < self.count, "there is no list register {n}");
            self.registers[n].state
        });
        if vgic.has_active_outside(self.vcpu) {
            vgic.retire(self.vcpu, self.end_count, &self.interface());
        }
        if vgic.raised(self.vcpu) & 1 << TIMER.raw() != 0 {
            vgic.set_private_line(self.vcpu, TIMER, self.timer_asserted);
        }
    }

    /// EL2 lets the vCPU into its guest.
    pub(super) fn enter(&mut self, vgic: &mut Vgic) {
        if vgic.needs_plan(self.vcpu) {
            let slow = self.planned_slowly(vgic, |_| ());
            if let Some((n, register)) = vgic.plan_latched(self.vcpu, |n| self.registers[n].state) {
                self.load(vgic, n, register);
                self.again += 1;
            } else {
                self.exit(vgic);
                self.plan(vgic);
            }
            self.check_registers();
            self.check_equals(vgic, &slow);
        }
        self.deactivate_owed(vgic);
    }

    fn plan(&mut self, vgic: &mut Vgic) {
        let version = vgic.version();
        let plan = vgic.plan(self.vcpu, self.count, |n, register| {
            assert!(n < self.count, "there is no list register {n}");
            self.registers[n] = through_hardware(version, register);
            self.writes += 1;
        });
        if let Some(plan) = plan {
            self.plan = plan;
            self.end_count = 0;
            self.from_scratch += 1;
        }
    }

    fn load(&mut self, vgic: &Vgic, n: usize, register: ListRegister) {
        self.registers[n] = through_hardware(vgic.version(), register);
        self.writes += 1;
    }

    /// The same vCPU and what becomes of its controller if all is folded in and planned from scratch, after `event`.
    fn planned_slowly(&self, vgic: &Vgic, event: impl FnOnce(&mut Vgic)) -> (Self, Vgic) {
        let (mut guest, mut vgic) = (self.clone(), vgic.clone());
        guest.exit(&mut vgic);
        event(&mut vgic);
        vgic.mark(self.vcpu);
        guest.plan(&mut vgic);
        (guest, vgic)
    }

    /// What is loaded, in whatever order and however it came there, is what a plan from scratch would load, and nothing else
    /// differs. What is active may have become pending again besides, if EL2 hears of its end.
    fn check_equals(&self, vgic: &Vgic, slow: &(Self, Vgic)) {
        assert_eq!(self.plan, slow.0.plan);
        let planned = slow.0.valid();
        let valid = self.valid();
        assert_eq!(valid.len(), planned.len(), "{valid:?} {planned:?}");
        for register in valid {
            let has_it = |other: &&ListRegister| other.vintid == register.vintid;
            let expected = planned.iter().find(has_it).expect("it is loaded");
            assert_eq!(
                (
                    register.priority,
                    register.group,
                    register.state.is_active()
                ),
                (
                    expected.priority,
                    expected.group,
                    expected.state.is_active()
                )
            );
            let is_active = register.state == State::Active && register.eoi_maintenance;
            assert!(
                register == *expected || is_active,
                "{register:?} {expected:?}"
            );
        }
        let mut known = vgic.clone();
        self.clone().exit(&mut known);
        assert_eq!(known.summary(), slow.1.summary());
    }

    fn valid(&self) -> Vec<ListRegister> {
        let registers = self.registers.iter().copied();
        registers
            .filter(|register| register.state != State::Invalid)
            .collect()
    }

    fn deactivate_owed(&mut self, vgic: &mut Vgic) {
        while let Some(pintid) = vgic.take_deactivation(self.vcpu) {
            assert!(
                self.physical.remove(&pintid),
                "physical {pintid} was not active"
            );
        }
    }

    /// The vCPU leaves its physical CPU: nothing of it stays there. Its CPU interface goes with it, and what it traps.
    pub(super) fn leave(&mut self, vgic: &mut Vgic) {
        let mut slow = (self.clone(), vgic.clone());
        slow.0.unload(&mut slow.1);
        let leaves_nothing =
            !self.timer_asserted && vgic.leaves_nothing(self.vcpu, |n| self.registers[n].state);
        if leaves_nothing {
            self.left_nothing += 1;
            self.note_left(vgic);
        } else {
            self.unload(vgic);
        }
        assert_eq!(vgic.summary(), slow.1.summary());
        assert_eq!(vgic.vcpus_to_plan(), slow.1.vcpus_to_plan());
    }

    fn unload(&mut self, vgic: &mut Vgic) {
        self.exit(vgic);
        vgic.unload(self.vcpu, |n| self.registers[n] = ListRegister::default());
        self.note_left(vgic);
    }

    fn note_left(&mut self, vgic: &mut Vgic) {
        assert_eq!(self.used(), 0, "list registers are left behind");
        self.registers = [ListRegister::default(); MAX_LIST_REGISTERS];
        self.plan = Plan {
            traps_deactivation: self.plan.traps_deactivation,
            ..Plan::default()
        };
        self.end_count = 0;
        vgic.set_private_line(self.vcpu, TIMER, self.timer_asserted);
        self.deactivate_owed(vgic);
        assert!(self.physical.is_empty(), "a link is left behind");
    }

    /// Out of the guest and in again until hardware asks for no more maintenance.
    pub(super) fn turn(&mut self, vgic: &mut Vgic) {
        for _ in 0..4 {
            self.exit(vgic);
            self.enter(vgic);
            if !self.wants_maintenance() {
                return;
            }
        }
        panic!(
            "maintenance does not end: {:?} {:?}",
            self.plan, self.registers
        );
    }

    /// A physical interrupt for this vCPU: EL2 acknowledges it and drops its priority.
    pub(super) fn physical_interrupt(&mut self, vgic: &mut Vgic, intid: IntId) {
        assert!(
            self.physical.insert(intid),
            "an active interrupt is not signalled"
        );
        let (vcpu, raise) = (self.vcpu, |vgic: &mut Vgic| {
            assert!(vgic.hardware_interrupt(self.vcpu, intid, intid));
        });
        let slow = self.planned_slowly(vgic, raise);
        let again = self
            .timer_asserted
            .then(|| vgic.comes_again(vcpu, (intid, intid), |n| self.registers[n].state));
        if let Some((n, register)) = again.flatten() {
            self.load(vgic, n, register);
            self.again += 1;
            self.check_registers();
            self.check_equals(vgic, &slow);
        } else {
            self.exit(vgic);
            assert!(vgic.hardware_interrupt(vcpu, intid, intid));
            self.enter(vgic);
        }
    }

    /// Binary points for 32 priority groups, and the priorities that are active.
    fn interface(&self) -> CpuInterface {
        let active = self
            .running
            .iter()
            .fold(0, |set, priority| set | 1 << (priority >> 3));
        CpuInterface {
            vmcr: 2 << 21 | 3 << 18,
            group_1: [active, 0, 0, 0],
            ..CpuInterface::default()
        }
    }

    /// The guest reads IAR: the most urgent pending interrupt becomes active, if it may preempt.
    pub(super) fn acknowledge(&mut self) -> Option<ListRegister> {
        let running = self.running.last().copied().unwrap_or(IDLE);
        let next = self
            .registers
            .iter_mut()
            .filter(|register| register.state == State::Pending && register.priority < running)
            .min_by_key(|register| (register.priority, register.vintid))?;
        next.state = State::Active;
        self.running.push(next.priority);
        Some(*next)
    }

    /// List registers that are not free.
    pub(super) fn used(&self) -> usize {
        self.valid().len()
    }

    /// What it could be given.
    pub(super) fn pending(&self) -> Vec<IntId> {
        self.registers
            .iter()
            .filter(|register| register.state == State::Pending)
            .map(|register| register.vintid)
            .collect()
    }

    /// The guest writes EOIR.
    pub(super) fn end(&mut self, intid: IntId) {
        self.running.pop().expect("something is active");
        if !self.splits_end {
            self.deactivate(intid);
        }
    }

    /// The guest writes DIR, or EOIR does it along.
    pub(super) fn deactivate(&mut self, intid: IntId) {
        let found = self
            .registers
            .iter_mut()
            .find(|register| register.vintid == intid && register.state.is_active());
        let Some(register) = found else {
            self.end_count += 1;
            self.ends_outside += 1;
            return;
        };
        register.state = State::new(register.state.is_pending(), false);
        if let Some(pintid) = register.pintid {
            assert!(
                self.physical.remove(&pintid),
                "physical {pintid} was not active"
            );
        }
    }

    /// The maintenance interrupt's level.
    pub(super) fn wants_maintenance(&self) -> bool {
        let used = &self.registers[..self.count];
        let valid = used
            .iter()
            .filter(|register| register.state != State::Invalid)
            .count();
        let any_pending = used.iter().any(|register| register.state == State::Pending);
        let any_ended = used.iter().any(|register| {
            register.state == State::Invalid
                && register.pintid.is_none()
                && register.eoi_maintenance
        });
        // GICH_HCR and ICH_HCR_EL2: En, UIE, LRENPIE, NPIE are bits 0 to 3.
        let enabled = |bit: u32| self.plan.hcr() & 1 << bit != 0;
        enabled(0)
            && (any_ended
                || enabled(1) && valid <= 1
                || enabled(2) && self.end_count > 0
                || enabled(3) && !any_pending)
    }

    /// What the architecture forbids in list registers.
    fn check_registers(&self) {
        let valid = self.valid();
        let names: BTreeSet<_> = valid.iter().map(|register| register.vintid).collect();
        assert_eq!(
            names.len(),
            valid.len(),
            "an interrupt is in two list registers: {valid:?}"
        );
        for register in valid {
            if register.pintid.is_some() {
                assert_ne!(
                    register.state,
                    State::PendingAndActive,
                    "forbidden with the HW bit"
                );
            }
        }
    }
}

/// What a list register holds after it was written in its version's format.
fn through_hardware(version: Version, register: ListRegister) -> ListRegister {
    match version {
        Version::V2 => ListRegister::from_gich(register.to_gich()),
        Version::V3 => ListRegister::from_ich(register.to_ich()),
    }
}
