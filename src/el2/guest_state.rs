//! What traps, and the shape of stage 2: the control registers that are EL2's own. And the state of a pCPU without a vCPU.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTHCTL_EL2, CNTVOFF_EL2, HCR_EL2, VTCR_EL2, VTTBR_EL2};
use faultline::features::Features;
use faultline::stage2::Stage2;
use faultline::traps;
use faultline::vm::Vcpu;
use tock_registers::interfaces::Writeable;

use super::ids;
use super::machine::Cpu;
use super::sysreg::{
    CPTR_EL2, HCRX_EL2, HDFGRTR_EL2, HDFGWTR_EL2, HFGITR_EL2, HFGRTR_EL2, HFGWTR_EL2, HSTR_EL2,
    MDCR_EL2, VPIDR_EL2,
};
use super::{breakpoints, context, pmu};

/// Sets what traps on this pCPU whichever vCPU runs. Once, before any does. `all`: what all CPUs can do.
pub(super) fn set_traps(all: &Features, cpu: &mut Cpu) {
    let features = &all.trapping_on(&ids::features());
    CPTR_EL2.set(traps::value(traps::CPTR_EL2, features));
    HSTR_EL2.set(traps::value(traps::HSTR_EL2, features));
    CNTHCTL_EL2.set(traps::value(traps::CNTHCTL_EL2, features));
    // HPMN: the event counters that all CPUs have are EL1's; or all of this one's, where EL1 cannot reach them.
    let counters = u64::from(if all.pmu {
        all.pmu_counters
    } else {
        features.pmu_counters
    });
    MDCR_EL2.set(traps::value(traps::MDCR_EL2, features) | counters);
    if features.hcx {
        HCRX_EL2.set(traps::value(traps::HCRX_EL2, features));
    }
    if features.fgt {
        let value = traps::value(traps::FINE_GRAINED, features);
        HFGRTR_EL2.set(value);
        HFGWTR_EL2.set(value);
        HFGITR_EL2.set(value);
        HDFGRTR_EL2.set(value);
        HDFGWTR_EL2.set(value);
    }
    VPIDR_EL2.set(all.midr);
    cpu.hcr = traps::value(traps::HCR_EL2, features);
    HCR_EL2.set(cpu.hcr);
    barrier::isb(barrier::SY);
}

/// What is the VM's: its stage 2, while EL1's stage 1 walks nothing, and its virtual time. The shape of stage 2 may be cached
/// in TLBs together with entries of the VM, so a VMID keeps one for life.
pub(super) fn set_vm(tree: &Stage2, counter_offset: u64) {
    CNTVOFF_EL2.set(counter_offset);
    VTCR_EL2.set(tree.config().vtcr);
    VTTBR_EL2.set(tree.vttbr());
    barrier::isb(barrier::SY);
}

/// `HCR_EL2.TWI` and `TWE`.
const TRAP_WAITS: u64 = 1 << 13 | 1 << 14;

/// Has WFI and WFE trap, or not: they do only while another vCPU waits for this pCPU.
pub(super) fn trap_waits(cpu: &mut Cpu, on: bool) {
    set_hcr(cpu, TRAP_WAITS, if on { TRAP_WAITS } else { 0 });
}

/// Sets what traps for this vCPU alone.
pub(super) fn set_own_traps(cpu: &mut Cpu, vcpu: &Vcpu) {
    set_hcr(cpu, traps::HCR_EL2_TVM, vcpu.traps);
}

/// Has these bits of `MDCR_EL2` trap, of those that depend on the vCPU. The ERET is the context synchronization event.
pub(super) fn set_mdcr_traps(traps: u64) {
    const ALL: u64 = breakpoints::TDA | pmu::TPM;
    let now = MDCR_EL2.get();
    let wanted = now & !ALL | traps;
    if wanted != now {
        MDCR_EL2.set(wanted);
    }
}

/// Has what `bit` of `MDCR_EL2` is for not trap any more.
pub(super) fn untrap_mdcr(bit: u64) {
    MDCR_EL2.set(MDCR_EL2.get() & !bit);
}

/// Changes bits of `HCR_EL2`. The ERET is the context synchronization event.
fn set_hcr(cpu: &mut Cpu, bits: u64, value: u64) {
    let wanted = cpu.hcr & !bits | value;
    if cpu.hcr != wanted {
        cpu.hcr = wanted;
        HCR_EL2.set(wanted);
    }
}

/// Zeroes for 16 root tables side by side: a stage 2 in which nothing is mapped.
#[repr(align(65536))]
struct EmptyRoot([u8; 65536]);

#[unsafe(link_section = ".bss.empty_root")]
static EMPTY_ROOT: EmptyRoot = EmptyRoot([0; 65536]);

/// No VM: EL1's stage 1 walks nothing, and stage 2 is empty, so that no speculative walk reads what is no table.
pub(super) fn park() {
    context::close_stage1();
    VTTBR_EL2.set(EMPTY_ROOT.0.as_ptr() as u64);
    barrier::isb(barrier::SY);
}
