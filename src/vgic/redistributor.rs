//! What only a redistributor has: which vCPU it is for, and whether that sleeps.
//!
//! Source: IHI 0069 "The GIC Redistributor register descriptions".

use super::Vgic;
use crate::device::Width;

/// Bytes from one vCPU's redistributor to the next: RD_base and SGI_base.
pub const REDISTRIBUTOR_STRIDE: u64 = 0x2_0000;

/// GICR_TYPER: the last redistributor of a contiguous row. No LPIs, no direct injection.
const LAST: u64 = 1 << 4;
const PROCESSOR_NUMBER_SHIFT: u32 = 8;
const AFFINITY_SHIFT: u32 = 32;

/// GICR_WAKER.
const PROCESSOR_SLEEP: u32 = 1 << 1;
const CHILDREN_ASLEEP: u32 = 1 << 2;

impl Vgic {
    pub(super) fn read_redistributor_type(&self, vcpu: usize, index: u64, width: Width) -> u64 {
        let mut value = u64::from(self.vcpus[vcpu].affinity.packed()) << AFFINITY_SHIFT;
        value |= (vcpu as u64) << PROCESSOR_NUMBER_SHIFT;
        if vcpu + 1 == self.vcpus.len() {
            value |= LAST;
        }
        (value >> (8 * index)) & width.mask()
    }

    /// ChildrenAsleep follows ProcessorSleep at once: there is nothing to wait for.
    pub(super) fn read_waker(&self, vcpu: usize) -> u32 {
        if self.vcpus[vcpu].is_asleep {
            PROCESSOR_SLEEP | CHILDREN_ASLEEP
        } else {
            0
        }
    }

    /// Interrupts reach a vCPU that sleeps all the same: whether it runs is decided elsewhere. Only the choice of
    /// 1-of-N depends on it.
    pub(super) fn write_waker(&mut self, vcpu: usize, value: u32) {
        let is_asleep = value & PROCESSOR_SLEEP != 0;
        if self.vcpus[vcpu].is_asleep != is_asleep {
            self.vcpus[vcpu].is_asleep = is_asleep;
            self.mark_all();
        }
    }
}
