//! A VM that nothing can wake any more is said to be so, once.
//!
//! A vCPU that has its pCPU to itself sleeps in its guest, and EL2 does not see that. So where a VM has not left its guests for
//! [`PERIOD`], waits trap: a vCPU that sleeps leaves its pCPU then, and the last one to do so finds that all sleep. One that
//! computes is only interrupted.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aarch64_cpu::registers::CNTFRQ_EL0;
use faultline::sched::NEVER;
use tock_registers::interfaces::Readable;

use super::console::log;
use super::dispatch::{Due, Moment};
use super::machine::Cpu;
use super::shared::Shared;
use super::vcpu_run::now;
use super::vm_run::VmRun;

/// Seconds from one look to the next.
const PERIOD: u64 = 2;

/// What is known of a VM.
#[derive(Default)]
pub(super) struct Watch {
    /// Its exits at the last look.
    exits: AtomicU64,
    /// There were none before that, so that whoever goes to sleep looks for the others.
    is_on: AtomicBool,
    is_told: AtomicBool,
}

impl Watch {
    /// Whether who goes to sleep is to call [`look`].
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }
}

/// From now on this pCPU looks at the VM.
pub(super) fn begin(vm: &Arc<VmRun>, cpu: &mut Cpu) {
    let due = Due {
        vm: Arc::downgrade(vm),
        what: Moment::Watch,
    };
    cpu.due(&due, now() + PERIOD * CNTFRQ_EL0.get());
}

/// The moment to look has come.
pub(super) fn period_is_over(vm: &Arc<VmRun>, shared: &Shared, cpu: &mut Cpu) {
    /// The one by which this pCPU's vCPU came to be interrupted now.
    const OWN: u64 = 1;
    let watch = &vm.watch;
    let exits = vm.vm.counters().exits.total();
    let before = watch.exits.swap(exits, Ordering::Relaxed);
    let is_silent = exits.saturating_sub(before) <= OWN;
    watch.is_on.store(is_silent, Ordering::SeqCst);
    if is_silent {
        vm.ask_for_waits(shared, cpu);
        look(vm);
    }
    if !watch.is_told.load(Ordering::Relaxed) {
        begin(vm, cpu);
    }
}

/// Says so if all sleep and nothing can wake one.
pub(super) fn look(vm: &VmRun) {
    let sleeps = vm.all_sleep(|run| run.deadline(vm) != NEVER);
    if sleeps
        && !vm.ends()
        && !vm.vm.devices().may_interrupt()
        && !vm.watch.is_told.swap(true, Ordering::Relaxed)
    {
        log!(
            "vm",
            "'{}' sleeps for good: every vCPU is off or waits, no timer is set, and no device may interrupt",
            vm.vm.name()
        );
    }
}
