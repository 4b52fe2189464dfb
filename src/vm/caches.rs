//! Guests that switch their caches, or clean them by set and way, on CPUs where stage 2 does not force memory to be
//! Write-Back (no FEAT_S2FWB).
//!
//! Set/way maintenance reaches one CPU's caches, and lines move: under a hypervisor it cannot do what the guest means by
//! it. Such a guest is about to look past the caches, or comes from there; so what is mapped of its memory is cleaned
//! by address instead, once: at the first set/way operation (`HCR_EL2.TSW`), and whenever a vCPU switches its caches on or
//! off, for which its writes of EL1's memory registers trap (`TVM`) while they are off. That is so from reset on, and again
//! after a set/way operation, until the caches are on.
//!
//! Much memory takes long. So a trapped instruction is carried out in parts: the guest comes back to it until all is
//! clean, and physical interrupts are taken in between.
//!
//! Source: DDI 0487 "HCR_EL2", "SCTLR_EL1", "Cache maintenance by set/way".

use crate::addr::Ipa;
use crate::machine::El1;
use crate::traps::HCR_EL2_TVM;
use crate::vm::{Host, Next, Vcpu, Vm};

/// `SCTLR_EL1.M` and `C`: with both, data accesses are cacheable.
const CACHES_ON: u64 = 1 << 0 | 1 << 2;

/// A cleaning that is not finished: for the instruction at `pc`, to go on at `next`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cleaning {
    pc: u64,
    next: Ipa,
}

const fn are_on(sctlr: u64) -> bool {
    sctlr & CACHES_ON == CACHES_ON
}

impl Vm {
    /// DC ISW, CSW or CISW.
    pub(super) fn set_way<H: Host>(&self, vcpu: &mut Vcpu, host: &mut H) -> Next {
        // While the VM's registers trap, its caches are off or it was here before: nothing is left to clean.
        if vcpu.traps & HCR_EL2_TVM == 0 {
            if !self.clean_some(vcpu, host) {
                return Next::Look;
            }
            vcpu.traps |= HCR_EL2_TVM;
        }
        vcpu.retire(false);
        Next::Look
    }

    /// A write to one of EL1's memory registers.
    pub(super) fn write_memory_register<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        register: El1,
        value: u64,
        host: &mut H,
    ) -> Next {
        if register == El1::Sctlr {
            return self.write_sctlr(vcpu, value, host);
        }
        host.set_el1(register, value);
        vcpu.retire(false);
        Next::Look
    }

    /// The cleaning is done while the caches are off: after they go off, before they go on.
    fn write_sctlr<H: Host>(&self, vcpu: &mut Vcpu, value: u64, host: &mut H) -> Next {
        let (were_on, will_be_on) = (are_on(host.el1(El1::Sctlr)), are_on(value));
        let goes_on = vcpu
            .cleaning
            .is_some_and(|cleaning| cleaning.pc == vcpu.registers.pc);
        if !will_be_on {
            host.set_el1(El1::Sctlr, value);
        }
        if (were_on != will_be_on || goes_on) && !self.clean_some(vcpu, host) {
            return Next::Look;
        }
        host.set_el1(El1::Sctlr, value);
        if will_be_on {
            vcpu.traps &= !HCR_EL2_TVM;
        }
        vcpu.retire(false);
        Next::Look
    }

    /// Cleans a part of what is mapped for the instruction at PC. Answers whether that was the last.
    fn clean_some<H: Host>(&self, vcpu: &mut Vcpu, host: &mut H) -> bool {
        let pc = vcpu.registers.pc;
        let begun = vcpu.cleaning.filter(|cleaning| cleaning.pc == pc);
        // Another instruction was interrupted: it begins anew when its turn comes, for what was cleaned may be dirty again.
        let from = begun.map_or(Ipa::new(0), |cleaning| cleaning.next);
        let next = self.guest.stage2.flush_some(host, from);
        vcpu.cleaning = next.map(|next| Cleaning { pc, next });
        if next.is_none() {
            vcpu.counters.flushes.add(1);
        }
        next.is_none()
    }
}
