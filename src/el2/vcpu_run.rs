//! A vCPU with all its registers, and how it comes to a pCPU and leaves it.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::ptr;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::CNTPCT_EL0;
use faultline::features::Features;
use faultline::platform;
use faultline::sched::NEVER;
use faultline::stage2::maintenance;
use faultline::vgic::CpuInterface;
use faultline::vm::{Devices, Vcpu};
use tock_registers::interfaces::Readable;

use super::breakpoints::Breakpoints;
use super::context::{self, Context};
use super::dispatch::{Due, Moment};
use super::fp::FpState;
use super::guest_state;
use super::machine::Cpu;
use super::pmu::Pmu;
use super::vm_run::VmRun;

/// A vCPU. Whoever has the box owns it.
pub(super) struct VcpuRun {
    pub(super) vcpu: Vcpu,
    pub(super) fp: FpState,
    pub(super) breakpoints: Breakpoints,
    pub(super) pmu: Pmu,
    context: Context,
    pub(super) interface: CpuInterface,
    /// When it became ready to run, in ticks.
    ready_since: u64,
    /// What wakes it when it waits. The VM has the box while the vCPU is off or waits, hence weak.
    due: Due,
    /// A pCPU has been told when.
    is_due: bool,
    pub(super) last_cpu: usize,
    /// The pCPUs it may run on, bit n for pCPU n.
    pub(super) allowed: u64,
}

impl VcpuRun {
    /// As at reset, off, for a VM to come. `allowed`: the pCPUs it may run on, bit n for pCPU n.
    pub(super) fn new(vcpu: Vcpu, allowed: u64, features: &Features) -> Box<Self> {
        let affinity = platform::affinity(vcpu.index);
        let due = Due {
            vm: Weak::new(),
            what: Moment::Timer(vcpu.index),
        };
        Box::new(Self {
            // vCPU n begins on pCPU n, if there is one: see `Scheduler::ready`.
            last_cpu: vcpu.index,
            vcpu,
            fp: FpState::at_reset(),
            breakpoints: Breakpoints::default(),
            pmu: Pmu::at_reset(features.pmu),
            context: Context::at_reset(affinity, features),
            interface: CpuInterface::default(),
            ready_since: 0,
            due,
            is_due: false,
            allowed,
        })
    }

    /// All registers as at reset.
    pub(super) fn reset(&mut self, vcpu: Vcpu, features: &Features) {
        self.vcpu = vcpu;
        self.fp = FpState::at_reset();
        self.breakpoints = Breakpoints::default();
        self.pmu = Pmu::at_reset(features.pmu);
        self.context = Context::at_reset(platform::affinity(self.vcpu.index), features);
        self.interface = CpuInterface::default();
    }

    /// Says whose it is.
    pub(super) fn belongs_to(&mut self, vm: &Arc<VmRun>) {
        self.due.vm = Arc::downgrade(vm);
    }

    /// Its VM, unless that is gone.
    pub(super) fn vm(&self) -> Option<Arc<VmRun>> {
        self.due.vm.upgrade()
    }

    /// Whether it is one of this VM's.
    pub(super) fn is_of(&self, vm: &Arc<VmRun>) -> bool {
        ptr::eq(self.due.vm.as_ptr(), Arc::as_ptr(vm))
    }

    /// It is ready to run: what passes until it does is stolen from it.
    pub(super) fn note_ready(&mut self) {
        self.ready_since = now();
    }

    /// Comes to this pCPU, which its VM occupies and no vCPU has: everything of it goes into the hardware.
    pub(super) fn load(&mut self, vm: &VmRun, cpu: &mut Cpu) {
        cpu.block.set_registers(Some(&mut self.vcpu.registers));
        let index = self.vcpu.index;
        if vm.replaces_another(index, cpu.number) {
            maintenance::change_vcpu(cpu);
        }
        self.last_cpu = cpu.number;
        self.context.load();
        self.breakpoints.load();
        self.pmu.load();
        guest_state::set_mdcr_traps(self.breakpoints.traps() | self.pmu.traps());
        cpu.fp.begin(&self.fp, cpu.number);
        cpu.gic.load_virtual(&self.interface);
        guest_state::set_own_traps(cpu, &self.vcpu);
        let waited = CNTPCT_EL0.get().saturating_sub(self.ready_since);
        vm.vm.stolen().add(index, waited, cpu);
    }

    /// Leaves this pCPU, but for its interrupts: its stage 1 walks nothing after that, and its timers are off.
    pub(super) fn save(&mut self, cpu: &mut Cpu) {
        cpu.fp.end(&mut self.fp, cpu.number);
        self.breakpoints.save();
        self.pmu.save();
        self.context.save();
        context::close_stage1();
    }

    /// And its interrupts leave, which takes the lock of its VM's devices.
    pub(super) fn leave(&mut self, vm: &VmRun, cpu: &mut Cpu) {
        vm.vm.on_devices(self.vcpu.index, cpu, |devices, cpu| {
            self.take_interrupts(devices, cpu);
        });
    }

    /// The same under the lock.
    #[inline]
    pub(super) fn take_interrupts(&mut self, devices: &mut Devices, cpu: &mut Cpu) {
        devices.leave(self.vcpu.index, self.context.lines() | self.pmu.line(), cpu);
        cpu.gic.unload_virtual(&mut self.interface);
    }

    /// When it has to be woken by its timers, in ticks of the physical counter.
    pub(super) const fn deadline(&self, vm: &VmRun) -> u64 {
        self.context.deadline(vm.counter_offset)
    }

    /// This pCPU sees to that, if it ever has to.
    pub(super) fn set_due(&mut self, vm: &VmRun, cpu: &mut Cpu) {
        let at = self.deadline(vm);
        let is_due = at != NEVER;
        if is_due || self.is_due {
            cpu.due(&self.due, at);
        }
        self.is_due = is_due;
    }
}

/// A VM comes to this pCPU, which has none.
pub(super) fn occupy(vm: &Arc<VmRun>, cpu: &mut Cpu) {
    guest_state::set_vm(vm.vm.stage2(), vm.counter_offset);
    cpu.vm = Some(vm.clone());
}

/// It leaves, and no vCPU of it is here any more: stage 2 is empty after that, so that no walk, not even a speculative one,
/// reads the VM's tables.
pub(super) fn vacate(cpu: &mut Cpu) {
    cpu.block.set_registers(None);
    guest_state::park();
    cpu.vm = None;
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
    super::pmu::begin();
}
