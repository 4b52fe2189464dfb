//! HVC and SMC: the guest calls, and gets an answer or its wish.

use crate::addr::{Ipa, IpaRange};
use crate::page_pool::PagePool;
use crate::platform;
use crate::psci::Caller;
use crate::smccc::{self, Action, Call, Context};
use crate::vm::{End, Host, Next, Vcpu, Vm};

/// What a call with an immediate other than 0 gets: NOT_SUPPORTED.
const NOT_SUPPORTED: u64 = u64::MAX;
/// What PSCI calls return when they have done it.
const SUCCESS: [u64; 4] = [0; 4];

impl Vm {
    /// Handles a call; the PC is past it.
    #[inline]
    pub(super) fn call<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        imm: u16,
        pool: &PagePool,
        host: &mut H,
    ) -> Next {
        let x = &vcpu.registers.x;
        if imm != 0 {
            vcpu.registers.x[0] = NOT_SUPPORTED;
            return Next::Resume;
        }
        let call = Call::decode([x[0], x[1], x[2], x[3]]);
        if let Some(answer) = call.constant() {
            return vcpu.answer([answer, 0, 0, 0]);
        }
        match call.action(&self.context(vcpu.index)) {
            Action::Return(answer) => vcpu.answer(answer),
            action => self.carry_out(vcpu, action, pool, host),
        }
    }

    /// What a call asks for besides an answer.
    #[inline(never)] // most calls are questions
    fn carry_out<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        action: Action,
        pool: &PagePool,
        host: &mut H,
    ) -> Next {
        match action {
            Action::Return(answer) => vcpu.answer(answer),
            Action::Counter { id } => {
                let value = self.counters().by_id(id);
                vcpu.answer(smccc::counter(value))
            }
            Action::Random(request) => vcpu.answer(request.answer(|| host.entropy())),
            Action::StolenTime => {
                let structure = self
                    .stolen
                    .structure(vcpu.index, &self.guest.stage2, pool, host);
                vcpu.answer([structure.map_or(NOT_SUPPORTED, Ipa::raw), 0, 0, 0])
            }
            Action::Wait => {
                vcpu.answer(SUCCESS);
                Next::Wait
            }
            Action::CpuOn {
                vcpu: started,
                entry,
                context,
            } => {
                host.start_vcpu(started, entry, context);
                vcpu.answer(SUCCESS);
                // It may be this pCPU's turn to run it.
                Next::Look
            }
            Action::CpuOff => self.switch_off(vcpu, host),
            Action::SystemOff => Next::End(End::Off),
            Action::SystemReset => Next::End(End::Reset),
            Action::Exit { code } => Next::End(End::Exit(code)),
        }
    }

    /// What answers to a vCPU's calls depend on.
    const fn context(&self, vcpu: usize) -> Context<'_> {
        Context {
            caller: Caller {
                vcpu,
                power: &self.power,
                ram: IpaRange {
                    start: platform::RAM_BASE,
                    size: self.memory,
                },
            },
            mitigations: self.mitigations,
            has_entropy: self.has_entropy,
        }
    }

    /// The vCPU is off. When it was the last, nobody can switch one on again: the VM is off too.
    fn switch_off<H: Host>(&self, vcpu: &Vcpu, host: &mut H) -> Next {
        if self.power.switch_off(vcpu.index) {
            return Next::Off;
        }
        host.warn(format_args!(
            "vCPU {} switched itself off, and no other is on: the VM is off",
            vcpu.index
        ));
        Next::End(End::Off)
    }
}

impl Vcpu {
    #[inline]
    fn answer(&mut self, x: [u64; 4]) -> Next {
        self.registers.x[..4].copy_from_slice(&x);
        Next::Resume
    }
}
