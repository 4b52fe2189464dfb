//! What a VM asks of this pCPU besides single instructions.

use core::fmt;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0};
use faultline::addr::{Ipa, Pa};
use faultline::sched::NEVER;
use faultline::vgic::{CpuInterface, IntId, InterfaceType, ListRegister, Plan, State};
use faultline::vm::Host;
use tock_registers::interfaces::Readable;

use alloc::sync::Arc;

use super::console::{self, log};
use super::dispatch::{Due, Moment};
use super::interrupts;
use super::machine::{Cpu, identity};
use super::shared::Shared;

/// Times a CPU that has no random number yet is asked again.
const ENTROPY_ATTEMPTS: u32 = 16;

/// RNDRRS: a number from a generator that was seeded for it, or none, which is what NZCV says then (FEAT_RNG).
fn random_reseeded() -> Option<u64> {
    let (value, is_there): (u64, u64);
    // SAFETY: a register that is only read; the flags are declared clobbered by default.
    unsafe {
        core::arch::asm!(
            "mrs {value}, S3_3_C2_C4_1",
            "cset {is_there}, ne",
            value = out(reg) value,
            is_there = out(reg) is_there,
            options(nomem, nostack)
        );
    }
    (is_there != 0).then_some(value)
}

impl Host for Cpu {
    #[inline(always)]
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

    fn list_registers(&mut self) -> usize {
        self.gic.list_register_count()
    }

    fn list_state(&mut self, n: usize) -> State {
        self.gic.list_state(n)
    }

    #[inline(always)] // a single interrupt goes from registers into the first one
    fn set_list_register(&mut self, n: usize, register: ListRegister) {
        self.gic.set_list_register(n, register);
    }

    fn set_list_control(&mut self, plan: Plan) {
        self.gic.set_list_control(plan);
    }

    fn ended_outside(&mut self) -> u32 {
        self.gic.ended_outside()
    }

    fn cpu_interface(&mut self) -> CpuInterface {
        self.gic.interface()
    }

    fn interface_type(&mut self) -> InterfaceType {
        self.gic.interface_type()
    }

    fn set_interface_control(&mut self, vmcr: u32, goes_on_trapping: bool) {
        self.gic.set_interface_control(vmcr, goes_on_trapping);
    }

    fn deactivate(&mut self, intid: u32) {
        self.gic.deactivate_intid(intid);
    }

    fn set_alarm(&mut self, at: Option<u64>) {
        if let Some(vm) = &self.vm {
            let alarm = Due {
                vm: Arc::downgrade(vm),
                what: Moment::Alarm,
            };
            self.due(&alarm, at.unwrap_or(NEVER));
        }
    }

    fn line(&mut self, intid: IntId) -> bool {
        interrupts::line(intid)
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

    fn entropy(&mut self) -> Option<u64> {
        (0..ENTROPY_ATTEMPTS).find_map(|_| random_reseeded())
    }

    fn store(&mut self, at: Pa, value: u64) {
        // SAFETY: an aligned word of a page that a guest may only read.
        unsafe { identity::<u64>(at).write_volatile(value) };
    }

    fn warn(&mut self, text: fmt::Arguments<'_>) {
        log!("guest", "{text}");
    }
}
