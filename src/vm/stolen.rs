//! Stolen time: how long each vCPU of a VM was ready to run and did not, told to the guest in its own memory.
//!
//! Each vCPU has a structure of 64 bytes in the page [`platform::STOLEN_TIME`], which the guest can read and not write. The page
//! is taken from the pool when a vCPU first asks where its structure is; who never asks costs nothing. A vCPU's total grows
//! with its owner only, and only its owner stores it: a single 64-bit store, so a guest reads the old total or the new one,
//! and never a smaller one than before.
//!
//! Source: DEN 0057 "Paravirtualized Time for Arm-based Systems", version 1.0, "Stolen time".

use alloc::boxed::Box;

use crate::addr::{Ipa, Pa};
use crate::page_pool::PagePool;
use crate::platform;
use crate::stage2::{Grant, Leaf, Mapped, Rights, Stage2, Tables};
use crate::sync::{AtomicU64, Ordering};
use crate::vm::Host;

/// Bytes from one vCPU's structure to the next.
const STRUCTURE: u64 = 64;
/// In a structure: the total, in ns. Before it stand the revision and the attributes, both 0.
const TOTAL_OFFSET: u64 = 8;
/// What [`StolenTime`] has for the page before there is one.
const NO_PAGE: u64 = 0;

/// What was stolen from each vCPU.
pub struct StolenTime {
    /// In ticks of the counter.
    totals: Box<[AtomicU64]>,
    /// Where the page is.
    page: AtomicU64,
}

impl StolenTime {
    /// Of a VM with so many vCPUs: nothing yet.
    pub(super) fn new(vcpus: usize) -> Self {
        Self {
            totals: (0..vcpus).map(|_| AtomicU64::new(0)).collect(),
            page: AtomicU64::new(NO_PAGE),
        }
    }

    /// So many ticks in all.
    #[must_use]
    pub fn total(&self, vcpu: usize) -> u64 {
        self.totals
            .get(vcpu)
            .map_or(0, |total| total.load(Ordering::Relaxed))
    }

    /// Another `ticks` of the counter were stolen from `vcpu`, says its owner.
    pub fn add<H: Host>(&self, vcpu: usize, ticks: u64, host: &mut H) {
        let Some(total) = self.totals.get(vcpu) else {
            return;
        };
        let sum = total.load(Ordering::Relaxed).wrapping_add(ticks);
        total.store(sum, Ordering::Relaxed);
        self.show(vcpu, host);
    }

    /// Where the guest finds what was stolen from `vcpu`, says its owner; `None`: there is no memory for it.
    pub(super) fn structure<H: Host>(
        &self,
        vcpu: usize,
        stage2: &Stage2,
        pool: &PagePool,
        host: &mut H,
    ) -> Option<Ipa> {
        let offset = self.offset(vcpu)?;
        if self.page.load(Ordering::Acquire) == NO_PAGE {
            let page = mapped_page(stage2, pool, host)?;
            self.page.store(page.raw(), Ordering::Release);
        }
        self.show(vcpu, host);
        Some(Ipa::new(platform::STOLEN_TIME.start.raw() + offset))
    }

    /// Stores the total of `vcpu` where the guest reads it.
    fn show<H: Host>(&self, vcpu: usize, host: &mut H) {
        let page = self.page.load(Ordering::Acquire);
        if page != NO_PAGE
            && let Some(offset) = self.offset(vcpu)
        {
            let total = nanoseconds(self.total(vcpu), host.counter_hz());
            host.store(Pa::new(page + offset + TOTAL_OFFSET), total);
        }
    }

    /// Where the structure of `vcpu` is in the page, if it has one.
    fn offset(&self, vcpu: usize) -> Option<u64> {
        let offset = vcpu as u64 * STRUCTURE;
        (vcpu < self.totals.len() && offset < platform::STOLEN_TIME.size).then_some(offset)
    }
}

/// So many ticks of a counter of `hz`, in ns.
fn nanoseconds(ticks: u64, hz: u64) -> u64 {
    const PER_SECOND: u64 = 1_000_000_000;
    let hz = hz.max(1);
    let of_rest = (ticks % hz).saturating_mul(PER_SECOND) / hz;
    (ticks / hz).wrapping_mul(PER_SECOND).wrapping_add(of_rest)
}

/// The page behind [`platform::STOLEN_TIME`]: mapped now, if the guest has not touched it yet. It stays for the VM's life.
fn mapped_page<H: Host>(stage2: &Stage2, pool: &PagePool, host: &mut H) -> Option<Pa> {
    let absent = match stage2.walk().leaf(host, platform::STOLEN_TIME.start) {
        Leaf::Present(present) => return Some(present.output_address()),
        Leaf::Absent(absent) => absent,
    };
    let mut tables = Tables::prepare(host, pool, absent.tables_needed()).ok()?;
    let Some(page) = pool.take() else {
        tables.give_back(pool);
        return None;
    };
    let page = page.filled(host, stage2.coherence(), |_, _| {});
    let pa = page.pa();
    let mapped = match absent.map(host, page, Grant::data(Rights::READ), &mut tables) {
        Mapped::Installed => Some(pa),
        Mapped::Raced { page, now } => {
            pool.give(page.into_owned());
            match now {
                Leaf::Present(present) => Some(present.output_address()),
                Leaf::Absent(_) => None,
            }
        }
    };
    tables.give_back(pool);
    mapped
}

#[cfg(test)]
mod tests;
