//! The way into a guest and back, and the exits that are answered on that way.
//!
//! Most exits have an answer that concerns nobody else: faults on RAM, a console that is polled, the CPU's features, a call that
//! is tried. `vectors.S` asks [`quick_exit`] for it while x19 to x28 of the guest are still in the CPU's, and goes back.

use core::ffi::c_void;

use aarch64_cpu::registers::{ESR_EL2, FAR_EL2};
use faultline::exit::{Syndrome, Vector};
use faultline::page_pool::PagePool;
use faultline::registers::Registers;
use faultline::vm::{Vcpu, Vm};
use tock_registers::interfaces::Readable;

use super::hpfar;
use super::machine::Cpu;

/// Who runs here.
pub(super) struct Running<'a> {
    pub(super) vm: &'a Vm,
    pub(super) vcpu: &'a mut Vcpu,
    pub(super) cpu: &'a mut Cpu,
    /// Where the VM's pages come from.
    pub(super) pool: &'a PagePool,
}

unsafe extern "C" {
    /// vectors.S: runs the guest until it exits for something that `quick_exit` does not answer; answers the vector.
    fn enter_guest(registers: *mut Registers, running: *mut c_void) -> u64;
}

/// Runs the guest of `running` until it exits. Answers the number of the vector, and the syndrome, read once.
#[inline]
pub(super) fn enter(running: &mut Running<'_>) -> (u64, Syndrome) {
    let running: *mut Running<'_> = running;
    // SAFETY: stage 2, the traps and EL1's registers are set up for this vCPU (vcpu_run.rs), which is ours alone, and so is
    // all that `running` has: nobody but vectors.S and `quick_exit` touches it meanwhile, one after the other.
    let (vector, running) = unsafe {
        let registers = &raw mut (*running).vcpu.registers;
        (enter_guest(registers, running.cast()), &mut *running)
    };
    let syndrome = syndrome(ESR_EL2.get());
    let pc = running.vcpu.registers.pc;
    running.cpu.block.note_exit(pc, &syndrome, vector);
    (vector, syndrome)
}

fn syndrome(esr: u64) -> Syndrome {
    Syndrome {
        esr,
        far: FAR_EL2.get(),
        hpfar: hpfar::after(esr),
    }
}

/// Called from vectors.S on a synchronous exit, when x19 to x28 are not saved yet: answers it, or does nothing.
pub(super) extern "C" fn quick_exit(running: &mut Running<'_>, esr: u64) -> bool {
    // First what must be quickest: a console.
    if class(esr) == DATA_ABORT_LOWER {
        let Running { vm, vcpu, cpu, .. } = running;
        is_saved(esr >> 16) && vm.quick_access(vcpu, &syndrome(esr), *cpu)
            || quick_fault(running, esr)
    } else {
        quick_other(running, esr)
    }
}

/// `ESR_EL2.EC`.
const fn class(esr: u64) -> u64 {
    esr >> 26 & 0x3f
}

const HVC64: u64 = 0x16;
const SYSREG: u64 = 0x18;
const INSTRUCTION_ABORT_LOWER: u64 = 0x20;
const DATA_ABORT_LOWER: u64 = 0x24;

#[inline(never)]
fn quick_other(running: &mut Running<'_>, esr: u64) -> bool {
    match class(esr) {
        HVC64 => running.vm.quick_call(running.vcpu, esr),
        SYSREG if is_saved(esr >> 5) => running.vm.quick_register(running.vcpu, esr),
        INSTRUCTION_ABORT_LOWER => quick_fault(running, esr),
        _ => false,
    }
}

#[inline(never)]
fn quick_fault(running: &mut Running<'_>, esr: u64) -> bool {
    let Running {
        vm,
        vcpu,
        cpu,
        pool,
    } = running;
    let syndrome = syndrome(esr);
    // A guest that gets nowhere does so by faults: what is told of it begins here.
    cpu.block.note_exit(vcpu.registers.pc, &syndrome, 0);
    vm.quick_fault(vcpu, &syndrome, pool, *cpu)
}

/// Whether the register that a syndrome names, in the lowest five bits, is in memory already.
const fn is_saved(register: u64) -> bool {
    !matches!(register & 0x1f, 19..=28)
}

/// The vector that is a number.
pub(super) const fn vector(number: u64) -> Vector {
    match number {
        0 => Vector::Synchronous,
        1 => Vector::Irq,
        2 => Vector::Fiq,
        _ => Vector::SError,
    }
}
