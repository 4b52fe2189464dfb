//! Plain loads and stores that hit a device, answered from the syndrome as it stands: most exits of a guest that prints or
//! asks its interrupt controller.
//!
//! A shortcut and nothing else. What [`Vm::quick`] answers, it answers as [`Vm::handle_exit`] does; whatever is
//! unusual in any way it leaves to that.
//!
//! Source: DDI 0487 "ISS encoding for an exception from a Data Abort", "HPFAR_EL2".

use super::devices::{self, UART, may_be_big_endian};
use crate::addr::Ipa;
use crate::device::Width;
use crate::exit::{Syndrome, Transfer};
use crate::fault::Mmio;
use crate::platform;
use crate::slot::{Kind, Slot};
use crate::vm::{Host, Next, Vcpu, Vm};

/// What must be as in [`PLAIN`]: EC, ISV, AR, VNCR, LST, FnV, EA, CM, S1PTW and the fault's kind, its level aside.
const DECISIVE: u64 = 0x3f << 26 | 1 << 24 | 0xff << 7 | 0x3c;
/// A data abort from below EL2, a translation fault, by an unordered load or store of one register that ISV describes.
const PLAIN: u64 = 0x24 << 26 | 1 << 24 | 0x04;

const IL: u64 = 1 << 25;
const SSE: u64 = 1 << 21;
const SF: u64 = 1 << 15;
const WNR: u64 = 1 << 6;
/// `SAS`: log2 of the bytes.
const SAS: u64 = 0b11 << 22;
const BYTE: u64 = 0b00 << 22;
const HALF: u64 = 0b01 << 22;
const WORD: u64 = 0b10 << 22;
/// `HPFAR_EL2.FIPA`, which is IPA\[51:12\].
const FIPA: u64 = 0xff_ffff_ffff << 4;

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
    /// Answers the exit if it is of the plain and frequent kind; `None`: nothing was done.
    #[inline]
    pub fn quick<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        syndrome: &Syndrome,
        host: &mut H,
    ) -> Option<Next> {
        let Syndrome { esr, far, hpfar } = *syndrome;
        if esr & DECISIVE != PLAIN {
            return None;
        }
        let ipa = (hpfar & FIPA) << 8 | far & 0xfff;
        let next = if ipa & !0xfff == self.quick_uart_page && self.quick_uart(vcpu, esr, ipa, host)
        {
            Next::Resume
        } else {
            self.quick_device(vcpu, esr, ipa, host)?
        };
        vcpu.counters.exits.aborts.add(1);
        vcpu.retire(esr & IL == 0);
        Some(next)
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
        let written = is_write.then(|| vcpu.registers.read(register));
        let answer =
            self.devices
                .lock()
                .quick_uart(ipa - platform::UART.start.raw(), written, host);
        let Some(value) = answer else { return false };
        if !is_write {
            vcpu.registers.write(register, u64::from(value));
        }
        vcpu.counters.mmio[usize::from(UART)].add(1);
        true
    }

    /// Any device; answers what is to be done next.
    fn quick_device<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        esr: u64,
        ipa: u64,
        host: &mut H,
    ) -> Option<Next> {
        let width = Width::from_sas(esr >> 22);
        // Aligned, so it neither leaves its page nor reports another one than the one it hit.
        if ipa & (width.bytes() - 1) != 0 || self.guest.erratum_834220 {
            return None;
        }
        let &Slot {
            kind: Kind::Device(device),
            range,
        } = self.guest.slots.find(Ipa::new(ipa))?
        else {
            return None;
        };
        let mmio = Mmio {
            device,
            offset: ipa - range.start.raw(),
            is_write: esr & WNR != 0,
            transfer: Transfer {
                width,
                sign_extend: esr & SSE != 0,
                register: register(esr),
                is_64_bit: esr & SF != 0,
                is_ordered: false,
            },
        };
        if devices::is_stateless(device) {
            devices::access_stateless(vcpu, &mmio, host);
            return Some(Next::Resume);
        }
        self.access(vcpu, &mmio, host);
        Some(Next::Look)
    }
}

/// `ISS.SRT`.
const fn register(esr: u64) -> u8 {
    (esr >> 16 & 0x1f) as u8
}
