//! What all pCPUs share once the machine has booted.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use faultline::features::Features;
use faultline::page_pool::PagePool;
use faultline::sched::Scheduler;
use faultline::sync::SpinMutex;
use spin::Once;

use super::interrupts::Sources;
use super::machine::Cpu;
use super::smp::Arrival;
use super::vcpu_run::VcpuRun;
use super::vm_run::VmRun;

/// vCPUs there may be on this machine, of all VMs together.
pub(super) const MAX_VCPUS: usize = 64;

/// It.
pub(super) struct Shared {
    pub(super) pool: PagePool,
    /// What all CPUs have.
    pub(super) features: Features,
    pub(super) sources: Sources,
    pub(super) scheduler: Scheduler<Box<VcpuRun>>,
    /// By number.
    pub(super) cpus: Vec<&'static Arrival>,
    /// The VM that the console belongs to.
    console: SpinMutex<Weak<VmRun>>,
}

static SHARED: Once<Shared> = Once::new();

impl Shared {
    /// Makes it known to all pCPUs: those that wait for it go to work.
    pub(super) fn publish(
        pool: PagePool,
        features: Features,
        sources: Sources,
        cpus: Vec<&'static Arrival>,
    ) -> &'static Self {
        let shared = SHARED.call_once(|| Self {
            pool,
            features,
            sources,
            scheduler: Scheduler::new(cpus.len(), MAX_VCPUS),
            cpus,
            console: SpinMutex::new(Weak::new()),
        });
        aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::ISHST);
        aarch64_cpu::asm::sev();
        shared
    }

    /// It, when the machine has booted; until then the caller waits.
    pub(super) fn wait() -> &'static Self {
        loop {
            match SHARED.get() {
                Some(shared) => return shared,
                None => aarch64_cpu::asm::wfe(),
            }
        }
    }

    /// It, if the machine has booted.
    pub(super) fn get() -> Option<&'static Self> {
        SHARED.get()
    }

    /// Puts a vCPU into a queue, and tells the pCPU.
    pub(super) fn make_ready(&self, mut run: Box<VcpuRun>, cpu: &Cpu) {
        run.note_ready();
        let target = self.scheduler.ready(run);
        self.kick(target, cpu);
    }

    /// Puts a vCPU that could run on to the back of this pCPU's queue.
    pub(super) fn make_ready_again(&self, mut run: Box<VcpuRun>, cpu: &Cpu) {
        run.note_ready();
        self.scheduler.again(cpu.number, run);
    }

    /// Has pCPU `number` look at its queue and its vCPU's interrupts.
    pub(super) fn kick(&self, number: usize, cpu: &Cpu) {
        if number != cpu.number
            && let Some(other) = self.cpus.get(number)
        {
            cpu.gic.kick(other.gic_target);
        }
    }

    /// Gives the console to a VM.
    pub(super) fn connect_console(&self, vm: &Arc<VmRun>) {
        *self.console.lock() = Arc::downgrade(vm);
    }

    /// The VM that has the console, while it is there.
    pub(super) fn console_vm(&self) -> Option<Arc<VmRun>> {
        self.console.lock().upgrade()
    }
}
