//! Which vCPUs of a VM are on: one bit each in one word, so that every race has one winner.
//!
//! A vCPU is on from the moment its `CPU_ON` is accepted: it then only waits for its turn, as one that is on may. So nobody
//! ever sees `ON_PENDING`, and of two that switch on the same vCPU one gets SUCCESS and the other `ALREADY_ON`. It is off
//! from the moment its `CPU_OFF` is accepted: it executes nothing of the guest any more.

use core::fmt;

use crate::platform;
use crate::sync::{AtomicU64, Ordering};

/// Which vCPUs are on.
pub struct Power {
    /// Bit n: vCPU n.
    on: AtomicU64,
    count: usize,
}

/// Most vCPUs: the bits of the word.
const MAX_VCPUS: usize = u64::BITS as usize;

impl Power {
    /// Of a VM out of reset with so many vCPUs: the first is on.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            on: AtomicU64::new(1),
            count: count.clamp(1, MAX_VCPUS),
        }
    }

    /// How many vCPUs there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether `vcpu` is on.
    #[must_use]
    pub fn is_on(&self, vcpu: usize) -> bool {
        self.on.load(Ordering::Acquire) & bit(vcpu) != 0
    }

    /// Switches `vcpu` on. Whether that was this caller's doing: it must start it then, and nobody else will.
    #[must_use]
    pub fn switch_on(&self, vcpu: usize) -> bool {
        vcpu < self.count && self.on.fetch_or(bit(vcpu), Ordering::AcqRel) & bit(vcpu) == 0
    }

    /// Switches `vcpu` off. Whether another is on: if not, nobody is left who could switch one on again.
    #[must_use]
    pub fn switch_off(&self, vcpu: usize) -> bool {
        self.on.fetch_and(!bit(vcpu), Ordering::AcqRel) & !bit(vcpu) != 0
    }

    /// The vCPU with this affinity.
    #[must_use]
    pub fn find(&self, affinity: u64) -> Option<usize> {
        (0..self.count).find(|vcpu| platform::affinity(*vcpu) == affinity)
    }

    /// Whether any vCPU is on of those whose affinity is `affinity` in the fields that `compared` selects; `None` if there
    /// is no such vCPU.
    #[must_use]
    pub fn any_on(&self, affinity: u64, compared: u64) -> Option<bool> {
        let on = self.on.load(Ordering::Acquire);
        (0..self.count)
            .filter(|vcpu| (platform::affinity(*vcpu) ^ affinity) & compared == 0)
            .map(|vcpu| on & bit(vcpu) != 0)
            .reduce(|one, other| one || other)
    }
}

/// Where `vcpu` is in the word; nowhere if it has no place there.
const fn bit(vcpu: usize) -> u64 {
    if vcpu < MAX_VCPUS { 1 << vcpu } else { 0 }
}

impl fmt::Debug for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = self.on.load(Ordering::Relaxed);
        write!(f, "vCPUs on: {on:#b} of {}", self.count)
    }
}

#[cfg(test)]
mod tests;
