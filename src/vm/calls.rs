//! HVC and SMC: the guest calls, and gets an answer or its wish.

use crate::board::Mpidr;
use crate::smccc::{self, Action, Call};
use crate::vm::{End, Next, Vcpu, Vm};

/// What a call with an immediate other than 0 gets: NOT_SUPPORTED.
const NOT_SUPPORTED: u64 = u64::MAX;
/// The one vCPU's affinity.
const BOOT_VCPU: Mpidr = Mpidr::from_register(0);

impl Vm {
    /// Handles a call; the PC is past it.
    pub(super) fn call(&self, vcpu: &mut Vcpu, imm: u16) -> Next {
        let x = &vcpu.registers.x;
        if imm != 0 {
            vcpu.registers.x[0] = NOT_SUPPORTED;
            return Next::Resume;
        }
        let call = Call::decode([x[0], x[1], x[2], x[3]]);
        match call.action(BOOT_VCPU, self.mitigations) {
            Action::Return(answer) => vcpu.answer(answer),
            Action::Counter { id } => {
                let value = self.counters().by_id(id);
                vcpu.answer(smccc::counter(value))
            }
            Action::Wait => {
                vcpu.answer([0; 4]);
                Next::Wait
            }
            Action::CpuOff | Action::SystemOff => Next::End(End::Off),
            Action::SystemReset => Next::End(End::Reset),
            Action::Exit { code } => Next::End(End::Exit(code)),
        }
    }
}

impl Vcpu {
    fn answer(&mut self, x: [u64; 4]) -> Next {
        self.registers.x[..4].copy_from_slice(&x);
        Next::Resume
    }
}
