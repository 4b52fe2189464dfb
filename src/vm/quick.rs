//! Exits whose answer is plain, given from the syndrome as it stands: most exits of a guest that prints, probes, or asks its
//! interrupt controller.
//!
//! Shortcuts and nothing else. What they answer, they answer as [`Vm::handle_exit`] does; whatever is unusual in any way they
//! leave to that. After those that are called quick there is nothing to look at before the guest goes on: see
//! [`Next::Resume`](super::Next::Resume).
//!
//! Source: DDI 0487 "ISS encoding for an exception from a Data Abort", "HPFAR_EL2".

use super::devices::{self, GICD, UART, may_be_big_endian};
use crate::addr::{Ipa, IpaRange};
use crate::device::{Width, pl011};
use crate::exit::{Abort, Syndrome, SysRegAccess, Transfer};
use crate::fault::{self, Mmio, Resolution};
use crate::page_pool::PagePool;
use crate::platform;
use crate::slot::{Kind, Slot};
use crate::smccc::Call;
use crate::sysreg;
use crate::vgic::{self, Version};
use crate::vm::{Host, Vcpu, Vm};

/// What must be as in [`PLAIN`]: EC, ISV, AR, VNCR, LST, FnV, EA, CM, S1PTW and the fault's kind, its level aside.
const DECISIVE: u64 = 0x3f << 26 | 1 << 24 | 0xff << 7 | 0x3c;
/// A data abort from below EL2, a translation fault, by an unordered load or store of one register that ISV describes.
const PLAIN: u64 = 0x24 << 26 | 1 << 24 | 0x04;

/// The fault's kind, its level aside.
const FSC_CLASS: u64 = 0x3c;
const TRANSLATION: u64 = 0x04;

const IL: u64 = 1 << 25;
const SSE: u64 = 1 << 21;
const SF: u64 = 1 << 15;
const WNR: u64 = 1 << 6;
/// `SAS`: log2 of the bytes.
const SAS: u64 = 0b11 << 22;
const BYTE: u64 = 0b00 << 22;
const HALF: u64 = 0b01 << 22;
const WORD: u64 = 0b10 << 22;
/// `imm16` of an HVC.
const IMMEDIATE: u64 = 0xffff;
/// `HPFAR_EL2.FIPA`, which is IPA\[51:12\].
const FIPA: u64 = 0xff_ffff_ffff << 4;

/// Where a guest with a GICv2 finds GICD_SGIR.
const SGIR: u64 = platform::GICD.start.raw() + vgic::SGIR;

/// The page of the PL011, the one device whose every access counts, if the VM has one and `HPFAR_EL2` can be believed on these
/// CPUs; else no page.
pub(super) const fn uart_page(has_console: bool, erratum_834220: bool) -> u64 {
    if has_console && !erratum_834220 {
        platform::UART.start.raw()
    } else {
        u64::MAX
    }
}

impl Vm {
    /// Answers a data abort that is a plain access to a device, if nobody but the vCPU is concerned; false: nothing was done.
    #[inline]
    pub fn quick_access<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        syndrome: &Syndrome,
        host: &mut H,
    ) -> bool {
        let esr = syndrome.esr;
        if esr & DECISIVE != PLAIN {
            return false;
        }
        let ipa = ipa(syndrome);
        let is_answered = if ipa & !0xfff == self.quick_uart_page {
            self.quick_uart(vcpu, esr, ipa, host)
        } else if ipa >= platform::RAM_BASE.raw() {
            false
        } else if platform::GICD.contains(Ipa::new(ipa)) {
            self.quick_distributor(vcpu, esr, ipa, host)
        } else {
            self.quick_stateless(vcpu, esr, ipa, host)
        };
        if is_answered {
            vcpu.retire_access(esr);
        }
        is_answered
    }

    /// Answers a plain access to any device; false: nothing was done.
    #[inline]
    pub fn device_access<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        syndrome: &Syndrome,
        host: &mut H,
    ) -> bool {
        let esr = syndrome.esr;
        if esr & DECISIVE != PLAIN || self.guest.erratum_834220 {
            return false;
        }
        let ipa = ipa(syndrome);
        if self.sends_sgi(vcpu, syndrome, host) {
            return true;
        }
        let Some(&Slot {
            kind: Kind::Device(device),
            range,
        }) = self.guest.slots.find(Ipa::new(ipa))
        else {
            return false;
        };
        let Some(mmio) = plain_access(esr, ipa, device, range) else {
            return false;
        };
        self.access(vcpu, &mmio, host);
        vcpu.retire_access(esr);
        true
    }

    /// GICD_SGIR written, which asks nothing of the list registers; false: it is another access, and nothing was done.
    #[inline]
    fn sends_sgi<H: Host>(&self, vcpu: &mut Vcpu, syndrome: &Syndrome, host: &mut H) -> bool {
        let esr = syndrome.esr;
        if ipa(syndrome) != SGIR
            || esr & (SAS | WNR) != WORD | WNR
            || self.gic != Version::V2
            || may_be_big_endian(vcpu.registers.pstate, host)
        {
            return false;
        }
        let value = vcpu.registers.read(register(esr)) as u32;
        self.on_devices(vcpu.index, host, |devices, _| {
            devices.send_sgi_v2(vcpu.index, value);
        });
        vcpu.counters.mmio[usize::from(GICD)].add(1);
        vcpu.retire_access(esr);
        true
    }

    /// Answers a fault on RAM by what is mapped there, if that is all there is to it; false: it must be looked at.
    #[inline]
    pub fn quick_fault<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        syndrome: &Syndrome,
        pool: &PagePool,
        host: &mut H,
    ) -> bool {
        // Where nothing is mapped, HPFAR_EL2 says whether it is RAM.
        if syndrome.esr & FSC_CLASS == TRANSLATION && ipa(syndrome) < platform::RAM_BASE.raw() {
            return false;
        }
        let (memory, abort) = (self.memory_on(pool), Abort::of(syndrome));
        let answer = fault::resolve_in_ram(memory, &mut vcpu.faulting(), &abort, host);
        let is_answered = matches!(answer, Some(Resolution::Retry));
        if is_answered {
            vcpu.counters.exits.aborts.add(1);
        }
        is_answered
    }

    /// Answers an HVC whose answer is always the same; false: nothing was done.
    #[inline(never)] // apart from the console's, which are most
    pub fn quick_call(&self, vcpu: &mut Vcpu, esr: u64) -> bool {
        let [x0, x1, x2, x3, ..] = vcpu.registers.x;
        if esr & IMMEDIATE != 0 {
            return false;
        }
        let Some(answer) = Call::decode([x0, x1, x2, x3]).constant() else {
            return false;
        };
        vcpu.registers.x[..4].copy_from_slice(&[answer, 0, 0, 0]);
        vcpu.counters.exits.calls.add(1);
        vcpu.progress.retired();
        true
    }

    /// Answers a read of an identification register; false: nothing was done.
    #[inline(never)]
    pub fn quick_register(&self, vcpu: &mut Vcpu, esr: u64) -> bool {
        let access = SysRegAccess::decode(esr);
        let Some(value) = sysreg::identification(&self.ids, &access) else {
            return false;
        };
        vcpu.registers.write(access.rt, value);
        vcpu.counters.exits.sysreg.add(1);
        vcpu.retire(false);
        true
    }

    /// The PL011's flags read, or a byte sent.
    #[inline]
    fn quick_uart<H: Host>(&self, vcpu: &mut Vcpu, esr: u64, ipa: u64, host: &mut H) -> bool {
        if may_be_big_endian(vcpu.registers.pstate, host) {
            return false;
        }
        let (register, is_write) = (register(esr), esr & WNR != 0);
        let moves_all = match esr & (SAS | SSE) {
            HALF | WORD => true,
            BYTE => is_write,
            _ => false,
        };
        if !moves_all {
            return false;
        }
        let is_answered = match (ipa & 0xfff, is_write) {
            (pl011::UARTDR, true) => {
                let value = vcpu.registers.read(register);
                self.devices.lock().quick_send(value as u8, host)
            }
            (pl011::UARTFR, false) => {
                let flags = self.devices.lock().quick_flags();
                if let Some(flags) = flags {
                    vcpu.registers.write(register, u64::from(flags));
                }
                flags.is_some()
            }
            _ => false,
        };
        if is_answered {
            vcpu.counters.mmio[usize::from(UART)].add(1);
        }
        is_answered
    }

    /// A word of the interrupt controller's distributor read, if nobody else is needed for it.
    #[inline(never)] // apart from the console's, which are most
    fn quick_distributor<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        esr: u64,
        ipa: u64,
        host: &mut H,
    ) -> bool {
        let offset = ipa - platform::GICD.start.raw();
        if esr & (SAS | SSE | WNR) != WORD
            || self.guest.erratum_834220
            || may_be_big_endian(vcpu.registers.pstate, host)
        {
            return false;
        }
        let answer = self.devices.lock().quick_distributor(vcpu.index, offset);
        let Some(value) = answer else { return false };
        vcpu.registers.write(register(esr), value);
        vcpu.counters.mmio[usize::from(GICD)].add(1);
        true
    }

    /// A device without state, where every VM has one.
    #[inline(never)]
    fn quick_stateless<H: Host>(&self, vcpu: &mut Vcpu, esr: u64, ipa: u64, host: &mut H) -> bool {
        let Some((device, window)) = devices::stateless_at(Ipa::new(ipa)) else {
            return false;
        };
        let Some(mmio) = plain_access(esr, ipa, device, window) else {
            return false;
        };
        let is_answered = !self.guest.erratum_834220;
        if is_answered {
            devices::access_stateless(vcpu, &mmio, host);
        }
        is_answered
    }
}

impl Vcpu {
    /// Counts an abort that was a device's to answer, and goes past it.
    #[inline]
    fn retire_access(&mut self, esr: u64) {
        self.counters.exits.aborts.add(1);
        self.retire(esr & IL == 0);
    }
}

/// The access at `ipa`, which is in `window`. It is aligned, so it neither leaves its page nor reports another one than it hit.
fn plain_access(esr: u64, ipa: u64, device: u8, window: IpaRange) -> Option<Mmio> {
    let width = Width::from_sas(esr >> 22);
    (ipa & (width.bytes() - 1) == 0).then(|| Mmio {
        device,
        offset: ipa - window.start.raw(),
        is_write: esr & WNR != 0,
        transfer: Transfer {
            width,
            sign_extend: esr & SSE != 0,
            register: register(esr),
            is_64_bit: esr & SF != 0,
            is_ordered: false,
        },
    })
}

fn ipa(syndrome: &Syndrome) -> u64 {
    (syndrome.hpfar & FIPA) << 8 | syndrome.far & 0xfff
}

/// `ISS.SRT`.
const fn register(esr: u64) -> u8 {
    (esr >> 16 & 0x1f) as u8
}
