//! What a VM asks of this pCPU besides single instructions.

use core::fmt;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0};
use faultline::addr::Ipa;
use faultline::vgic::{ListRegister, MAX_LIST_REGISTERS};
use faultline::vm::Host;
use tock_registers::interfaces::Readable;

use alloc::sync::Arc;

use super::console::{self, log};
use super::dispatch::Due;
use super::interrupts;
use super::machine::Cpu;
use super::shared::Shared;

impl Host for Cpu {
    fn put_console(&mut self, byte: u8) {
        console::put_guest_byte(byte);
    }

    fn guest_listens(&mut self) {
        self.guest_listens = true;
    }

    fn counter(&mut self) -> u64 {
        CNTPCT_EL0.get()
    }

    fn counter_hz(&mut self) -> u64 {
        CNTFRQ_EL0.get()
    }

    fn read_list(&mut self, registers: &mut [ListRegister; MAX_LIST_REGISTERS], count: usize) {
        self.gic.read_list(registers, count);
    }

    fn ended_outside(&mut self) -> u32 {
        self.gic.ended_outside()
    }

    fn deactivate(&mut self, intid: u32) {
        self.gic.deactivate_intid(intid);
    }

    fn set_alarm(&mut self, at: Option<u64>) {
        if let Some(vm) = &self.vm {
            let alarm = Due::Alarm(Arc::downgrade(vm));
            self.due(&alarm, at);
        }
    }

    fn timer_lines(&mut self) -> (bool, bool) {
        interrupts::timer_lines()
    }

    fn start_vcpu(&mut self, vcpu: usize, entry: Ipa, context: u64) {
        let Some(vm) = self.vm.take() else { return };
        if let Some(shared) = Shared::get() {
            vm.turn_on(vcpu, shared, self, |vcpu| {
                vcpu.enter_at(entry.raw(), context);
            });
        }
        self.vm = Some(vm);
    }

    fn kick(&mut self, vcpus: u64) {
        // Out of its place meanwhile: whom it wakes may belong to this pCPU.
        let Some(vm) = self.vm.take() else { return };
        if let Some(shared) = Shared::get() {
            vm.wake(vcpus, shared, self);
        }
        self.vm = Some(vm);
    }

    fn warn(&mut self, text: fmt::Arguments<'_>) {
        log!("guest", "{text}");
    }
}
