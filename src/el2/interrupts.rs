//! Physical interrupts: who they are for, and what is done.

use alloc::sync::Arc;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTHP_CTL_EL2, CNTP_CTL_EL0, CNTV_CTL_EL0};
use faultline::board::Board;
use faultline::sched::{NEVER, Place};
use faultline::vgic::IntId;
use faultline::vm::{Devices, PHYSICAL_TIMER, PMU, Typed, VIRTUAL_TIMER, Vcpu, Vm};
use tock_registers::interfaces::{Readable, Writeable};

use super::console::{self, log};
use super::dispatch::{self, Due, Moment};
use super::driver::gic::{Gic, KICK};
use super::machine::Cpu;
use super::shared::Shared;
use super::sysreg::CNTHP_CVAL_EL2;
use super::vcpu_run::{VcpuRun, now};
use super::vm_run::VmRun;
use super::{pmu, watch};

/// Who works on a VM's devices without being one of its vCPUs.
pub(super) const NOBODY: usize = usize::MAX;

/// The numbers of the interrupts EL2 handles.
#[derive(Clone, Copy)]
pub(super) struct Sources {
    virtual_timer: u32,
    physical_timer: u32,
    hyp_timer: u32,
    maintenance: u32,
    pmu: Option<u32>,
    console: Option<u32>,
}

impl Sources {
    /// As the board has them.
    pub(super) fn of(board: &Board) -> Self {
        Self {
            virtual_timer: board.timer.virt.raw(),
            physical_timer: board.timer.physical.raw(),
            hyp_timer: board.timer.hyp.raw(),
            maintenance: board.gic.maintenance().raw(),
            pmu: board.pmu.map(|id| id.raw()),
            console: board.console.interrupt.map(|id| id.raw()),
        }
    }

    /// Lets those of this CPU through.
    pub(super) fn enable_private(&self, gic: &Gic) {
        for intid in [
            KICK,
            self.virtual_timer,
            self.physical_timer,
            self.hyp_timer,
            self.maintenance,
        ] {
            gic.enable(intid);
        }
        self.pmu.into_iter().for_each(|intid| gic.enable(intid));
    }

    /// Whether the PMU's interrupt is among them.
    pub(super) const fn has_pmu(&self) -> bool {
        self.pmu.is_some()
    }

    /// The guest's interrupt that physical interrupt `intid` stands for, that of hardware which the guest works by itself.
    fn own(&self, intid: u32) -> Option<IntId> {
        match intid {
            id if id == self.virtual_timer => Some(VIRTUAL_TIMER),
            id if id == self.physical_timer => Some(PHYSICAL_TIMER),
            id if Some(id) == self.pmu => Some(PMU),
            _ => None,
        }
    }

    /// Lets those through that the boot CPU takes for all.
    pub(super) fn enable_shared(&self, gic: &Gic) {
        self.console.into_iter().for_each(|intid| gic.enable(intid));
    }
}

/// The vCPU that this pCPU has.
pub(super) struct Current<'a> {
    pub(super) vm: &'a Arc<VmRun>,
    pub(super) run: &'a VcpuRun,
}

/// Takes all interrupts that wait.
pub(super) fn handle(current: Option<Current<'_>>, shared: &'static Shared, cpu: &mut Cpu) {
    let sources = &shared.sources;
    while let Some(taken) = cpu.gic.acknowledge() {
        let intid = taken.intid();
        if let Some(own) = sources.own(intid)
            && let Some(Current { vm, run }) = &current
        {
            // Left active: the guest's end of interrupt deactivates it.
            let index = run.vcpu.index;
            vm.vm.on_devices(index, cpu, |devices, cpu| {
                devices.own_interrupt(index, own, IntId::new(intid), cpu);
            });
            continue;
        }
        if intid == sources.maintenance {
            if let Some(Current { vm, run }) = &current {
                maintain(vm, run, cpu);
            }
        } else if intid == sources.hyp_timer {
            moments_have_come(current.as_ref(), shared, cpu);
        } else if Some(intid) == sources.console
            && let Some(vm) = shared.console_vm()
        {
            console_input(&vm, NOBODY, shared, cpu);
        } else if intid == KICK
            && let Some(Current { vm, run }) = &current
        {
            // Its queue, and its vCPU's interrupts, are looked at on the way back in.
            vm.vm.attend(run.vcpu.index, cpu);
        }
        cpu.gic.deactivate(taken);
    }
}

/// Takes the interrupts that wait in the middle of long work of EL2's own. With a VM here some are for its guest: long work for
/// a vCPU is done in parts, and its guest is entered in between (`vm/caches.rs`).
pub(super) fn window(cpu: &mut Cpu) {
    if let Some(shared) = Shared::get()
        && cpu.vm.is_none()
    {
        handle(None, shared, cpu);
    }
}

fn maintain(vm: &VmRun, run: &VcpuRun, cpu: &mut Cpu) {
    let index = run.vcpu.index;
    vm.vm.on_devices(index, cpu, |devices, cpu| {
        devices.maintenance(index, cpu);
    });
}

/// The pCPU's timer has fired.
fn moments_have_come(current: Option<&Current<'_>>, shared: &'static Shared, cpu: &mut Cpu) {
    if cpu.slice.next_look() <= now() {
        dispatch::look_at_slice(current, shared, cpu);
    }
    while let Some(Due { vm, what }) = cpu.take_due(now()) {
        let Some(vm) = vm.upgrade() else { continue };
        match what {
            Moment::Timer(index) => vm.wake(1 << index, shared, cpu),
            Moment::Watch => watch::period_is_over(&vm, shared, cpu),
            Moment::Alarm => for_vm(&vm, cpu, |vm, cpu| {
                vm.on_devices(NOBODY, cpu, Devices::alarm);
            }),
        }
    }
}

/// Does something for a VM that may have no vCPU here.
fn for_vm<T>(vm: &Arc<VmRun>, cpu: &mut Cpu, act: impl FnOnce(&Vm, &mut Cpu) -> T) -> T {
    let before = cpu.vm.replace(vm.clone());
    let answer = act(&vm.vm, cpu);
    cpu.vm = before;
    answer
}

/// Takes what was typed, and gives the guest as much of it as it has room for. When the queue is full the rest stays in the
/// UART until the guest has read. `own`: the vCPU on whose behalf that is.
pub(super) fn console_input(vm: &Arc<VmRun>, own: usize, shared: &'static Shared, cpu: &mut Cpu) {
    let mut input = vm.input.lock();
    let mut is_asked = false;
    while !input.is_full()
        && let Some(byte) = console::get()
    {
        is_asked |= input.push(byte) == Typed::Where;
    }
    if vm.vm.has_console() {
        for_vm(vm, cpu, |vm, cpu| {
            vm.on_devices(own, cpu, |devices, _| {
                while devices.has_room()
                    && let Some(byte) = input.pop()
                {
                    devices.receive(byte);
                }
            });
        });
    }
    // Now that the guest has taken its share: the host hears of room only when there was none before.
    console::interrupt_on_input(!input.is_full());
    drop(input);
    if is_asked {
        tell_all(vm, shared, cpu);
    }
}

/// Answers the hot key: the VM, and every vCPU that does not run. Those that do answer for themselves.
fn tell_all(vm: &Arc<VmRun>, shared: &Shared, cpu: &Cpu) {
    log!(
        "where",
        "'{}': {} pages mapped, {} tables",
        vm.vm.name(),
        vm.vm.stage2().page_count(),
        vm.vm.stage2().table_count()
    );
    let others = vm.ask_where(shared, cpu);
    for index in (0..vm.vm.vcpu_count()).filter(|index| others >> index & 1 == 1) {
        if let Some(vcpu) = vm.whereabouts(index) {
            log!(
                "where",
                "'{}' vCPU {index}: {}",
                vm.vm.name(),
                match vcpu.place() {
                    Place::Off => "off",
                    Place::Waiting => "waits for an interrupt (WFI)",
                    Place::Ready => "ready, waits for a CPU",
                    Place::Running(_) => "runs",
                    Place::Gone => "gone",
                }
            );
        }
    }
}

/// Writes the list registers, if what they shall hold has changed.
#[inline]
pub(super) fn write_list(vm: &Vm, vcpu: &Vcpu, host: &mut Cpu) {
    if vm.needs_plan(vcpu.index) {
        plan_list(vm, vcpu, host);
    }
}

#[inline(never)] // most exits change no interrupt
fn plan_list(vm: &Vm, vcpu: &Vcpu, host: &mut Cpu) {
    let index = vcpu.index;
    vm.on_devices(index, host, |devices, host| devices.plan(index, host));
}

/// Has EL2's own timer interrupt when the counter reaches this.
pub(super) fn set_hyp_timer(at: u64) {
    const ENABLE: u64 = 1;
    CNTHP_CVAL_EL2.set(at);
    CNTHP_CTL_EL2.set(if at == NEVER { 0 } else { ENABLE });
    barrier::isb(barrier::SY);
}

/// Whether the guest's own hardware asserts its line `intid`: a timer that is enabled, not masked, and whose condition is met; or
/// the PMU.
pub(super) fn line(intid: IntId) -> bool {
    match intid {
        VIRTUAL_TIMER => asserts(CNTV_CTL_EL0.get()),
        PHYSICAL_TIMER => asserts(CNTP_CTL_EL0.get()),
        _ => intid == PMU && pmu::asserts(),
    }
}

/// Whether a timer with this `CNTx_CTL` asserts its line.
pub(super) const fn asserts(control: u64) -> bool {
    const ENABLE_AND_STATUS: u64 = 0b101;
    const MASK: u64 = 0b010;
    control & (ENABLE_AND_STATUS | MASK) == ENABLE_AND_STATUS
}
