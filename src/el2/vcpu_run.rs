//! A vCPU with all its registers, and how it comes to a pCPU and leaves it.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, VTTBR_EL2};
use faultline::features::Features;
use faultline::machine::{Dsb, Ic, Machine as _, Tlbi};
use faultline::platform;
use faultline::vgic::CpuInterface;
use faultline::vm::Vcpu;
use tock_registers::interfaces::{Readable, Writeable};

use super::breakpoints::Breakpoints;
use super::context::Context;
use super::fp::FpState;
use super::guest_state;
use super::machine::Cpu;
use super::vm_run::VmRun;

/// A vCPU. Whoever has the box owns it.
pub(super) struct VcpuRun {
    pub(super) vcpu: Vcpu,
    pub(super) fp: FpState,
    pub(super) breakpoints: Breakpoints,
    context: Context,
    pub(super) interface: CpuInterface,
    /// When it became ready to run, in ticks.
    ready_since: u64,
    /// Its VM. The VM has the box while the vCPU is off or waits, hence weak.
    vm: Weak<VmRun>,
    pub(super) last_cpu: usize,
    /// The pCPUs it may run on, bit n for pCPU n.
    pub(super) allowed: u64,
}

impl VcpuRun {
    /// As at reset, off, for a VM to come.
    pub(super) fn new(vcpu: Vcpu, features: &Features) -> Box<Self> {
        let affinity = platform::affinity(vcpu.index);
        Box::new(Self {
            // vCPU n begins on pCPU n, if there is one: see `Scheduler::ready`.
            last_cpu: vcpu.index,
            vcpu,
            fp: FpState::at_reset(),
            breakpoints: Breakpoints::default(),
            context: Context::at_reset(affinity, features),
            interface: CpuInterface::default(),
            ready_since: 0,
            vm: Weak::new(),
            allowed: u64::MAX,
        })
    }

    /// All registers as at reset.
    pub(super) fn reset(&mut self, vcpu: Vcpu, features: &Features) {
        self.vcpu = vcpu;
        self.fp = FpState::at_reset();
        self.breakpoints = Breakpoints::default();
        self.context = Context::at_reset(platform::affinity(self.vcpu.index), features);
        self.interface = CpuInterface::default();
    }

    /// Says whose it is.
    pub(super) fn belongs_to(&mut self, vm: &Arc<VmRun>) {
        self.vm = Arc::downgrade(vm);
    }

    /// Its VM, unless that is gone.
    pub(super) fn vm(&self) -> Option<Arc<VmRun>> {
        self.vm.upgrade()
    }

    /// Comes to this pCPU, which has no vCPU: everything of it goes into the hardware.
    pub(super) fn load(&mut self, vm: &Arc<VmRun>, cpu: &mut Cpu) {
        let tree = vm.vm.stage2();
        guest_state::set_shape(tree);
        VTTBR_EL2.set(tree.vttbr());
        barrier::isb(barrier::SY);
        if vm.replaces_another(self.vcpu.index, cpu.number) {
            // Stage 1 of two vCPUs is tagged alike: same VMID, same ASIDs, other tables. And what one fetched with its MMU off
            // is no good for another.
            cpu.tlbi(Tlbi::Vmalle1);
            cpu.ic(Ic::AllLocal);
            cpu.dsb(Dsb::Nsh);
            cpu.isb();
        }
        self.last_cpu = cpu.number;
        self.context.load(vm.counter_offset);
        self.breakpoints.load();
        cpu.fp.begin(&self.fp, cpu.number);
        cpu.gic.load_virtual(&self.interface);
        guest_state::set_own_traps(cpu, &self.vcpu);
        cpu.vm = Some(vm.clone());
        let waited = now().saturating_sub(self.ready_since);
        vm.vm
            .stolen()
            .add(self.vcpu.index, nanoseconds(waited), cpu);
    }

    /// It is ready to run: what passes until it does is stolen from it.
    pub(super) fn note_ready(&mut self) {
        self.ready_since = now();
    }

    /// Leaves this pCPU, which then has no vCPU: its stage 1 walks nothing and its stage 2 is empty, so that no walk, not
    /// even a speculative one, reads this VM's tables.
    pub(super) fn leave(&mut self, vm: &VmRun, cpu: &mut Cpu) {
        let index = self.vcpu.index;
        vm.vm
            .on_devices(index, cpu, |devices, cpu| devices.leave(index, cpu));
        self.interface = cpu.gic.unload_virtual();
        cpu.fp.end(&mut self.fp, cpu.number);
        self.breakpoints.save();
        self.context.save();
        guest_state::park();
        cpu.vm = None;
    }

    /// When it has to be woken by its timers, in ticks of the physical counter.
    pub(super) fn deadline(&self, vm: &VmRun) -> Option<u64> {
        self.context.deadline(vm.counter_offset)
    }
}

impl VcpuRun {
    /// Which of its timers assert their lines: virtual, physical.
    pub(super) const fn timers_fired(&self) -> (bool, bool) {
        self.context.timers_fired()
    }
}

fn nanoseconds(ticks: u64) -> u64 {
    const PER_SECOND: u64 = 1_000_000_000;
    let hz = CNTFRQ_EL0.get().max(1);
    (ticks / hz)
        .saturating_mul(PER_SECOND)
        .saturating_add((ticks % hz).saturating_mul(PER_SECOND) / hz)
}

/// Now, in ticks of the physical counter.
pub(super) fn now() -> u64 {
    barrier::isb(barrier::SY);
    CNTPCT_EL0.get()
}

/// Readies a pCPU for its first vCPU: what traps is set, and nothing is loaded.
pub(super) fn begin(features: &Features, cpu: &mut Cpu) {
    guest_state::park();
    guest_state::set_traps(features, cpu);
    super::breakpoints::switch_off();
}
