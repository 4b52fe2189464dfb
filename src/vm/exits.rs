//! What happens on each exit: the one match on [`Exit`], and what its arms come to.

use core::iter;

use super::{End, Host, Next, Vcpu, Vm};
use crate::exit::{self, Exit, Syndrome, SysRegAccess};
use crate::fault::inject::Exception;
use crate::fault::{self, Emulation, GuestMemory, Resolution, Stop};
use crate::page_pool::PagePool;
use crate::sysreg::{self, Answer};
use crate::vgic::Version;

/// What [`Vcpu::warn_once`] knows system errors by: no encoding of a register, no exception class.
const SERROR_WARNING: u16 = u16::MAX;

/// The guest waits, for an event (WFE) or an interrupt.
#[inline]
fn wait(vcpu: &mut Vcpu, event: bool) -> Next {
    vcpu.counters.exits.waits.add(1);
    vcpu.retire(false);
    if event { Next::Yield } else { Next::Wait }
}

impl Vm {
    /// Handles one exit of `vcpu`.
    pub fn handle_exit<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        exit: &Exit,
        pool: &PagePool,
        host: &mut H,
    ) -> Next {
        let exits = &vcpu.counters.exits;
        match exit {
            Exit::Abort(abort) => {
                exits.aborts.add(1);
                let memory = self.memory_on(pool);
                let resolution = fault::resolve(memory, &mut vcpu.faulting(), abort, host);
                self.act(vcpu, resolution, abort.is_16_bit(), host)
            }
            Exit::Hvc(imm) => {
                exits.calls.add(1);
                vcpu.progress.retired();
                self.call(vcpu, *imm, pool, host)
            }
            Exit::Smc(imm) => {
                exits.calls.add(1);
                vcpu.retire(false);
                self.call(vcpu, *imm, pool, host)
            }
            Exit::SysReg(access) => {
                exits.sysreg.add(1);
                self.system_register(vcpu, access, host)
            }
            Exit::Wait { event } => wait(vcpu, *event),
            Exit::Interrupt => {
                exits.interrupts.add(1);
                Next::Interrupt
            }
            Exit::Hidden { class } => {
                exits.other.add(1);
                let pc = vcpu.registers.pc;
                vcpu.warn_once(
                    *class as u16,
                    host,
                    format_args!(
                        "a hidden feature (class {class:#x}) was used at PC {pc:#x}: undefined"
                    ),
                );
                self.inject(vcpu, Exception::undefined(), host)
            }
            Exit::SError { esr } => {
                exits.other.add(1);
                self.system_error(vcpu, *esr, host)
            }
            Exit::Unknown { esr } => {
                exits.other.add(1);
                Next::End(End::Stopped(Stop::UnknownExit {
                    pc: vcpu.registers.pc,
                    esr: *esr,
                }))
            }
        }
    }

    /// Does the work of [`Vm::handle_exit`] on a WFI or WFE; `None` for any other synchronous exit.
    #[inline]
    pub fn wait(&self, vcpu: &mut Vcpu, syndrome: &Syndrome) -> Option<Next> {
        exit::waits(syndrome).map(|event| wait(vcpu, event))
    }

    /// Its memory, with pages from `pool`.
    #[inline]
    pub(super) const fn memory_on<'a>(&'a self, pool: &'a PagePool) -> GuestMemory<'a> {
        GuestMemory {
            vm: &self.guest,
            pool,
        }
    }

    /// An asynchronous error of the machine, taken while the guest ran.
    fn system_error<H: Host>(&self, vcpu: &mut Vcpu, esr: u64, host: &mut H) -> Next {
        let pc = vcpu.registers.pc;
        if self.guest.guest_errors_trap && exit::is_survivable(esr) {
            vcpu.counters.survived_errors.add(1);
            vcpu.warn_once(
                SERROR_WARNING,
                host,
                format_args!(
                    "the machine reports an error at PC {pc:#x} and goes on (ESR_EL2 {esr:#x})"
                ),
            );
            return Next::Resume;
        }
        Next::End(End::Stopped(Stop::Hardware { pc, esr }))
    }

    fn act<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        resolution: Resolution,
        is_16_bit: bool,
        host: &mut H,
    ) -> Next {
        match resolution {
            Resolution::Retry => Next::Resume,
            Resolution::Mmio(mmio) => {
                self.access(vcpu, &mmio, host);
                vcpu.retire(is_16_bit);
                Next::Look
            }
            Resolution::Emulate(emulation) => {
                self.emulate(vcpu, &emulation, host);
                Next::Look
            }
            Resolution::Skip => {
                vcpu.retire(is_16_bit);
                Next::Resume
            }
            Resolution::Inject(exception) => self.inject(vcpu, exception, host),
            Resolution::Stop(stop) => Next::End(End::Stopped(stop)),
        }
    }

    /// Carries out a device access that takes more than the syndrome tells: one or two registers, then the base, then PC.
    fn emulate<H: Host>(&self, vcpu: &mut Vcpu, emulation: &Emulation, host: &mut H) {
        for mmio in iter::once(&emulation.first).chain(&emulation.second) {
            self.access(vcpu, mmio, host);
        }
        if let Some(write_back) = emulation.write_back {
            write_back.apply(&mut vcpu.registers, host);
        }
        vcpu.retire(false);
    }

    #[inline(never)] // `faultline break` of gdb stops here
    fn inject<H: Host>(&self, vcpu: &mut Vcpu, exception: Exception, host: &mut H) -> Next {
        let is_abort = exception.is_abort();
        match exception.take(
            &mut vcpu.registers,
            vcpu.pstate_features,
            &mut vcpu.progress,
            host,
        ) {
            Ok(()) => {
                let counters = &vcpu.counters;
                let count = if is_abort {
                    &counters.injected
                } else {
                    &counters.undefined
                };
                count.add(1);
                Next::Resume
            }
            Err(stop) => Next::End(End::Stopped(stop)),
        }
    }

    fn system_register<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        access: &SysRegAccess,
        host: &mut H,
    ) -> Next {
        match sysreg::answer(&self.ids, self.gic == Version::V3, access) {
            Answer::Value(value) => {
                vcpu.registers.write(access.rt, value);
                vcpu.retire(false);
                return Next::Resume;
            }
            Answer::Ignored => {}
            Answer::SetWay => return self.set_way(vcpu, host),
            Answer::MemoryRegister(register) => {
                let value = vcpu.registers.read(access.rt);
                return self.write_memory_register(vcpu, register, value, host);
            }
            Answer::Sgi(register) => {
                let value = vcpu.registers.read(access.rt);
                self.on_devices(vcpu.index, host, |devices, _| {
                    devices.send_sgi(vcpu.index, register, value);
                });
            }
            Answer::Deactivate => {
                let value = vcpu.registers.read(access.rt);
                self.with_recalls(vcpu.index, host, |devices, has_recalled, host| {
                    devices.deactivate(vcpu.index, value, has_recalled, host)
                });
            }
            Answer::Common(register) => {
                let (interface, of) = (host.cpu_interface(), host.interface_type());
                if access.is_read {
                    let value = interface.read_common(register, of);
                    vcpu.registers.write(access.rt, value);
                } else if let Some(vmcr) =
                    interface.write_common(register, vcpu.registers.read(access.rt), of)
                {
                    let is_too_dear = vcpu.masking.is_too_dear(vmcr);
                    host.set_interface_control(vmcr, !is_too_dear);
                }
            }
            Answer::Undefined => {
                let pc = vcpu.registers.pc;
                vcpu.warn_once(
                    access.encoding,
                    host,
                    format_args!("{access} at PC {pc:#x}: undefined"),
                );
                return self.inject(vcpu, Exception::undefined(), host);
            }
        }
        vcpu.retire(false);
        Next::Look
    }
}
