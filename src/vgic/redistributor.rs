//! What only a redistributor has: which vCPU it is for, and whether that sleeps.
//!
//! Source: IHI 0069 "The GIC Redistributor register descriptions".

use super::distributor::View;
use super::register::{GICR, find};
use super::{Version, Vgic};
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
    /// A read of `width` at `offset` from the first redistributor; they follow each other every
    /// [`REDISTRIBUTOR_STRIDE`]. Any vCPU may access any of them.
    #[must_use]
    pub fn read_redistributor(&self, offset: u64, width: Width) -> u64 {
        match (
            self.redistributor_view(offset),
            find(GICR, offset % REDISTRIBUTOR_STRIDE, width),
        ) {
            (Some(view), Some((kind, index))) => self.read_register(view, kind, index, width),
            _ => 0,
        }
    }

    /// A write of `width` at `offset` from the first redistributor.
    pub fn write_redistributor(&mut self, offset: u64, width: Width, value: u64) {
        if let Some(view) = self.redistributor_view(offset)
            && let Some((kind, index)) = find(GICR, offset % REDISTRIBUTOR_STRIDE, width)
        {
            self.write_register(view, kind, index, width, value & width.mask());
        }
    }

    fn redistributor_view(&self, offset: u64) -> Option<View> {
        let vcpu = usize::try_from(offset / REDISTRIBUTOR_STRIDE).ok()?;
        (self.version == Version::V3 && vcpu < self.vcpus.len()).then_some(View {
            vcpu,
            has_private: true,
        })
    }

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
