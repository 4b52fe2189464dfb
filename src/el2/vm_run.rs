//! A VM that runs: its vCPUs' whereabouts, and its end.
//!
//! A vCPU belongs to one owner at a time ([`faultline::sched`]). The VM ends once: the first to say so says how, every vCPU is
//! fetched from where it is or told to leave its guest, and the last one to be given up leaves nothing of the VM in any
//! pCPU. Only then is it taken apart.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use faultline::machine::MAX_CPUS;
use faultline::sched::{Place, Task, Wake, Whereabouts};
use faultline::sync::{self, SpinMutex};
use faultline::vm::{End, Input, Vcpu, Vm};
use spin::Once;

use super::machine::Cpu;
use super::shared::Shared;
use super::vcpu_run::VcpuRun;
use super::watch::Watch;

/// A VM and its vCPUs.
pub(super) struct VmRun {
    pub(super) vm: Vm,
    /// `CNTVOFF_EL2`: the VM's virtual time began at this count of the physical counter.
    pub(super) counter_offset: u64,
    /// What was typed and the guest has not taken yet.
    pub(super) input: SpinMutex<Input>,
    vcpus: Vec<Whereabouts<Box<VcpuRun>>>,
    /// vCPUs not given up.
    left: AtomicUsize,
    ends: AtomicBool,
    end: Once<End>,
    /// The vCPU that each pCPU ran last, plus 1: another one may have left entries in its TLB and I-cache.
    last_on: [AtomicUsize; MAX_CPUS],
    /// Bit per vCPU: something is wanted of it before it enters its guest again. The only word that is looked at each time.
    attention: AtomicU64,
    /// Bit per vCPU: it is to say where it is.
    asked_where: AtomicU64,
    /// Bit per vCPU: its next wait is to trap.
    asked_for_waits: AtomicU64,
    pub(super) watch: Watch,
}

impl VmRun {
    /// A VM whose vCPUs are all off.
    pub(super) fn new(
        vm: Vm,
        counter_offset: u64,
        vcpu: impl Fn(&Vm, usize) -> Box<VcpuRun>,
    ) -> Arc<Self> {
        let count = vm.vcpu_count();
        let vcpus = (0..count)
            .map(|index| Whereabouts::off(vcpu(&vm, index)))
            .collect();
        Arc::new(Self {
            vm,
            counter_offset,
            input: SpinMutex::default(),
            vcpus,
            left: AtomicUsize::new(count),
            ends: AtomicBool::new(false),
            end: Once::new(),
            last_on: [const { AtomicUsize::new(0) }; MAX_CPUS],
            attention: AtomicU64::new(0),
            asked_where: AtomicU64::new(0),
            asked_for_waits: AtomicU64::new(0),
            watch: Watch::default(),
        })
    }

    /// Where vCPU `index` is.
    pub(super) fn whereabouts(&self, index: usize) -> Option<&Whereabouts<Box<VcpuRun>>> {
        self.vcpus.get(index)
    }

    /// Turns vCPU `index` on, which is off or about to be, with what `prepare` makes of it. Not if the VM ends.
    pub(super) fn turn_on(
        self: &Arc<Self>,
        index: usize,
        shared: &Shared,
        cpu: &Cpu,
        prepare: impl Fn(&mut Vcpu),
    ) {
        let Some(vcpu) = self.vcpus.get(index) else {
            return;
        };
        let prepare = |run: &mut Box<VcpuRun>| {
            run.reset(self.vm.vcpu(index), &shared.features);
            run.belongs_to(self);
            prepare(&mut run.vcpu);
        };
        // PSCI says that it is off from the moment it asks for that; whose pCPU it leaves is on its way and waits for nobody.
        while !self.ends() {
            if let Some(run) = vcpu.turn_on(prepare) {
                shared.make_ready(run, cpu);
                return;
            }
            sync::spin_loop();
        }
    }

    /// There is something to do for the vCPUs in `mask`.
    pub(super) fn wake(&self, mask: u64, shared: &Shared, cpu: &Cpu) {
        let mut rest = mask;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let Some(vcpu) = self.vcpus.get(index) else {
                return;
            };
            match vcpu.wake() {
                Wake::Ready(run) => shared.make_ready(run, cpu),
                Wake::Kick(other) => shared.kick(other, cpu),
                Wake::Nothing => {}
            }
        }
    }

    /// Every vCPU of it.
    const fn all(&self) -> u64 {
        let count = self.vcpus.len() as u32;
        if count >= u64::BITS {
            u64::MAX
        } else {
            (1 << count) - 1
        }
    }

    /// The VM ends; how, the first one says. Every vCPU is given up, or told to be.
    pub(super) fn end_with(&self, end: End, shared: &Shared, cpu: &Cpu) {
        self.end.call_once(|| end);
        self.ends.store(true, Ordering::SeqCst);
        self.attention.store(u64::MAX, Ordering::SeqCst);
        for vcpu in &self.vcpus {
            if let Some(run) = vcpu.give_up() {
                self.note_gone(run, shared, cpu);
            }
        }
        self.wake(self.all(), shared, cpu);
    }

    /// Whether its vCPUs are to leave.
    pub(super) fn ends(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }

    /// How it ended.
    pub(super) fn end(&self) -> Option<End> {
        self.end.get().copied()
    }

    /// Whether all vCPUs are given up.
    pub(super) fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// A vCPU is given up. Nothing of it is left in a pCPU.
    pub(super) fn note_gone(&self, run: Box<VcpuRun>, shared: &Shared, cpu: &Cpu) {
        if let Some(place) = self.vcpus.get(run.vcpu.index) {
            place.note_gone();
        }
        drop(run);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The boot CPU takes the VM apart.
            shared.kick(0, cpu);
        }
    }

    /// Notes that `vcpu` runs on pCPU `cpu`; answers whether another vCPU of this VM ran there in between.
    pub(super) fn replaces_another(&self, vcpu: usize, cpu: usize) -> bool {
        let Some(last) = self.last_on.get(cpu) else {
            return true;
        };
        let before = last.swap(vcpu + 1, Ordering::Relaxed);
        before != 0 && before != vcpu + 1
    }

    /// Whether something is wanted of vCPU `index`: asked each time before it enters its guest, after others can see that
    /// it runs.
    #[inline]
    pub(super) fn needs_attention(&self, index: usize) -> bool {
        self.attention.load(Ordering::Relaxed) & 1 << index != 0
    }

    /// What vCPU `index` is asked for; once.
    pub(super) fn take_asked(&self, index: usize) -> Asked {
        let bit = 1 << index;
        self.attention.fetch_and(!bit, Ordering::SeqCst);
        if self.ends() {
            // Whatever else: it does not enter its guest any more.
            self.attention.fetch_or(bit, Ordering::SeqCst);
        }
        let take = |from: &AtomicU64| from.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
        Asked {
            place: take(&self.asked_where),
            waits: take(&self.asked_for_waits),
        }
    }

    /// Every vCPU that runs is to say where it is; answers the others.
    pub(super) fn ask_where(&self, shared: &Shared, cpu: &Cpu) -> u64 {
        self.ask_running(&self.asked_where, shared, cpu)
    }

    /// The next wait of every vCPU that runs is to trap.
    pub(super) fn ask_for_waits(&self, shared: &Shared, cpu: &Cpu) {
        self.ask_running(&self.asked_for_waits, shared, cpu);
    }

    fn ask_running(&self, what: &AtomicU64, shared: &Shared, cpu: &Cpu) -> u64 {
        let mut others = 0;
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            let bit = 1 << index;
            if let Place::Running(running) = vcpu.place() {
                what.fetch_or(bit, Ordering::SeqCst);
                self.attention.fetch_or(bit, Ordering::SeqCst);
                shared.kick(running, cpu);
            } else {
                others |= bit;
            }
        }
        others
    }

    /// Whether every vCPU is off, or waits and `has_moment` knows of none at which it is woken.
    pub(super) fn all_sleep(&self, has_moment: impl Fn(&VcpuRun) -> bool) -> bool {
        self.vcpus
            .iter()
            .all(|vcpu| vcpu.sleeps(|run| has_moment(run)))
    }
}

/// What a vCPU is to do before it enters its guest again.
pub(super) struct Asked {
    /// Say where it is.
    pub(super) place: bool,
    /// Have its next wait trap.
    pub(super) waits: bool,
}

impl Task for Box<VcpuRun> {
    fn last_cpu(&self) -> usize {
        self.last_cpu
    }

    fn allowed(&self) -> u64 {
        self.allowed
    }
}
