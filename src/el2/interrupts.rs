//! Physical interrupts: who they are for, and what is done.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTHP_CTL_EL2, CNTP_CTL_EL0, CNTV_CTL_EL0};
use faultline::board::Board;
use faultline::registers::{Registers, pstate};
use faultline::vgic::{IntId, ListRegister, MAX_LIST_REGISTERS};
use faultline::vm::{Devices, PHYSICAL_TIMER, Typed, VIRTUAL_TIMER, Vcpu, Vm};
use tock_registers::interfaces::{Readable, Writeable};

use super::sysreg::CNTHP_CVAL_EL2;

use super::console::{self, log};
use super::driver::gic::Gic;
use super::machine::Cpu;

/// The numbers of the interrupts EL2 handles.
#[derive(Clone, Copy)]
pub(super) struct Sources {
    virtual_timer: u32,
    physical_timer: u32,
    hyp_timer: u32,
    maintenance: u32,
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
            console: board.console.interrupt.map(|id| id.raw()),
        }
    }

    /// Ends what an earlier guest left of its timers' interrupts.
    pub(super) fn quieten(&self, gic: &Gic) {
        gic.deactivate_intid(self.virtual_timer);
        gic.deactivate_intid(self.physical_timer);
    }

    /// Lets them all through.
    pub(super) fn enable(&self, gic: &Gic) {
        for intid in [
            Some(self.virtual_timer),
            Some(self.physical_timer),
            Some(self.hyp_timer),
            Some(self.maintenance),
            self.console,
        ] {
            intid.into_iter().for_each(|intid| gic.enable(intid));
        }
    }
}

/// Takes all interrupts that wait.
pub(super) fn handle(vm: &Vm, vcpu: &Vcpu, sources: &Sources, cpu: &mut Cpu) {
    while let Some(taken) = cpu.gic.acknowledge() {
        let intid = taken.intid();
        let guest_timer = match intid {
            id if id == sources.virtual_timer => Some(VIRTUAL_TIMER),
            id if id == sources.physical_timer => Some(PHYSICAL_TIMER),
            _ => None,
        };
        if let Some(timer) = guest_timer {
            // Left active: the guest's end of interrupt deactivates it.
            vm.on_devices(vcpu.index, cpu, |devices, cpu| {
                devices.timer_interrupt(vcpu.index, timer, IntId::new(intid), cpu);
            });
            continue;
        }
        if intid == sources.maintenance {
            vm.on_devices(vcpu.index, cpu, |devices, cpu| {
                devices.maintenance(vcpu.index, cpu);
            });
            // It asks until the list registers are written, which is done before the guest is entered.
            write_list(vm, vcpu, cpu);
        } else if intid == sources.hyp_timer {
            set_hyp_timer(None);
            vm.on_devices(vcpu.index, cpu, Devices::alarm);
        } else if Some(intid) == sources.console {
            console_input(vm, vcpu, cpu);
        }
        cpu.gic.deactivate(taken);
    }
}

/// Takes what was typed, and gives the guest as much of it as it has room for. When the queue is full the rest stays in the
/// UART until the guest has read.
pub(super) fn console_input(vm: &Vm, vcpu: &Vcpu, cpu: &mut Cpu) {
    while !cpu.input.is_full()
        && let Some(byte) = console::get()
    {
        if cpu.input.push(byte) == Typed::Where {
            tell_where(vm, vcpu);
        }
    }
    if vm.has_console() {
        vm.on_devices(vcpu.index, cpu, |devices, cpu| {
            while devices.has_room()
                && let Some(byte) = cpu.input.pop()
            {
                devices.receive(byte);
            }
        });
    }
    // Now that the guest has taken its share: the host hears of room only when there was none before.
    console::interrupt_on_input(!cpu.input.is_full());
}

/// Answers the hot key.
fn tell_where(vm: &Vm, vcpu: &Vcpu) {
    let Registers { x, pc, pstate } = &vcpu.registers;
    let level = if pstate & pstate::AARCH32 != 0 {
        "EL0, AArch32"
    } else {
        match pstate & pstate::MODE {
            pstate::EL0T => "EL0",
            pstate::EL1T => "EL1t",
            _ => "EL1h",
        }
    };
    let masked = if pstate & pstate::IRQ_MASKED != 0 {
        "masked"
    } else {
        "on"
    };
    log!(
        "where",
        "'{}' vCPU 0: PC {pc:#x} at {level}, interrupts {masked}, x30 {:#x}, {} pages mapped, {} exits",
        vm.name(),
        x[30],
        vm.stage2().page_count(),
        vcpu.counters.exits.total()
    );
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
    let mut registers = [ListRegister::default(); MAX_LIST_REGISTERS];
    let count = host.gic.list_register_count();
    let plan = vm.on_devices(vcpu.index, host, |devices, host| {
        devices.plan(vcpu.index, &mut registers, count, host)
    });
    if let Some(plan) = plan {
        host.gic.write_list(&registers, plan);
    }
}

/// Has EL2's own timer interrupt when the counter reaches this; `None`: not at all.
pub(super) fn set_hyp_timer(at: Option<u64>) {
    const ENABLE: u64 = 1;
    if let Some(at) = at {
        CNTHP_CVAL_EL2.set(at);
    }
    CNTHP_CTL_EL2.set(if at.is_some() { ENABLE } else { 0 });
    barrier::isb(barrier::SY);
}

/// Whether the guest's timers assert their lines: enabled, not masked, condition met. Virtual, physical.
pub(super) fn timer_lines() -> (bool, bool) {
    const ENABLE_AND_STATUS: u64 = 0b101;
    const MASK: u64 = 0b010;
    let asserts = |control: u64| control & (ENABLE_AND_STATUS | MASK) == ENABLE_AND_STATUS;
    (asserts(CNTV_CTL_EL0.get()), asserts(CNTP_CTL_EL0.get()))
}
