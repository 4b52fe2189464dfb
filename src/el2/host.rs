//! What a VM asks of this pCPU besides single instructions.

use core::fmt;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0};
use faultline::addr::Ipa;
use faultline::vgic::{ListRegister, MAX_LIST_REGISTERS};
use faultline::vm::Host;
use tock_registers::interfaces::Readable;

use super::console::{self, log};
use super::interrupts;
use super::machine::Cpu;

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
        interrupts::set_hyp_timer(at);
    }

    fn timer_lines(&mut self) -> (bool, bool) {
        interrupts::timer_lines()
    }

    fn start_vcpu(&mut self, vcpu: usize, entry: Ipa, context: u64) {
        // A VM has one vCPU here, and that one is on.
        debug_assert!(false, "vCPU {vcpu} at {entry} with {context:#x}");
    }

    fn kick(&mut self, vcpus: u64) {
        let _ = vcpus;
    }

    fn recall(&mut self, vcpus: u64) {
        let _ = vcpus;
    }

    fn warn(&mut self, text: fmt::Arguments<'_>) {
        log!("guest", "{text}");
    }
}
