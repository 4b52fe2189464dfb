//! Counters: one set per vCPU, summed when somebody asks.
//!
//! Only its vCPU adds to a set, so that adding is a load, an addition and a store, on a cache line of its own; anybody may
//! read, and sees every addition that happened before what else he knows of that vCPU.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::exit::Need;

/// A number that one vCPU adds to and all may read.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. By the one vCPU that it belongs to.
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<u64> for Count {
    fn from(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }
}

impl PartialEq<u64> for Count {
    fn eq(&self, other: &u64) -> bool {
        self.get() == *other
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// How often each edge was taken.
#[derive(Default, Debug)]
#[repr(align(64))] // no vCPU waits for another's line
pub struct Counters {
    /// Translation faults answered with a page, by what was wanted: read, write, execute.
    pub translation: [Count; 3],
    /// Permission faults answered by relaxing, by what was wanted.
    pub permission: [Count; 3],
    /// Faults whose leaf was sufficient: a stale TLB entry, invalidated.
    pub sufficient: Count,
    /// Faults on a stage-1 walk (also counted by class).
    pub stage1_walk: Count,
    /// Faults whose status did not agree with the live leaf.
    pub cross_check: Count,
    /// Faults that another vCPU, or the hardware, answered in between.
    pub raced: Count,
    /// Faults whose IPA came from AT because HPFAR_EL2 was not to be believed.
    pub translated_by_at: Count,
    /// Pages mapped, those of blocks and those that are lent among them.
    pub mapped: Count,
    /// Blocks of the pool mapped.
    pub blocks: Count,
    /// Contiguous groups of 64 KiB mapped.
    pub groups: Count,
    /// Pages of modules mapped in place, those of blocks among them.
    pub lent: Count,
    /// Pages of modules copied because the guest wrote them, those of blocks among them.
    pub copied: Count,
    /// Blocks split because a page of them needed to be alone.
    pub split: Count,
    /// Access flags set for a guest whose CPU does not set them.
    pub aged: Count,
    /// Hardware window pages mapped.
    pub windows: Count,
    /// Leaves relaxed by R, W, X.
    pub relaxed: [Count; 3],
    /// Pages made coherent for instruction fetches by I-cache maintenance.
    pub icache: Count,
    /// Pages cleaned to the point of coherency.
    pub dcache: Count,
    /// TLB invalidation sequences.
    pub tlbi: Count,
    /// Aborts injected.
    pub injected: Count,
    /// Undefined instruction exceptions injected.
    pub undefined: Count,
    /// Cache maintenance of nothing, skipped.
    pub skipped: Count,
    /// Device accesses emulated, by the VM's device number.
    pub mmio: [Count; DEVICE_COUNT],
    /// Device accesses that only the instruction itself explained.
    pub decoded: Count,
    /// TLB conflicts, each answered with an invalidation.
    pub tlb_conflicts: Count,
    /// Errors of the machine that it had corrected, or that the guest can go on after.
    pub survived_errors: Count,
    /// Times all of the memory was cleaned, for a guest that switched its caches or cleaned by set and way.
    pub flushes: Count,
    /// Exits by class.
    pub exits: Exits,
}

/// Device numbers a VM uses are below this.
pub const DEVICE_COUNT: usize = 8;

/// Exits by class.
#[derive(Default, Debug)]
pub struct Exits {
    /// Aborts.
    pub aborts: Count,
    /// HVC and SMC.
    pub calls: Count,
    /// System registers.
    pub sysreg: Count,
    /// Physical interrupts.
    pub interrupts: Count,
    /// WFI and WFE.
    pub waits: Count,
    /// All else.
    pub other: Count,
}

impl Exits {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            aborts,
            calls,
            sysreg,
            interrupts,
            waits,
            other,
        } = self;
        let all = [aborts, calls, sysreg, interrupts, waits, other];
        all.into_iter().map(Count::get).sum()
    }
}

impl Counters {
    /// Notes a translation fault answered with a page.
    pub fn note_translation(&self, need: Need) {
        self.translation[need as usize].add(1);
    }

    /// Notes how the place of a fault was found, and whether it is on a stage-1 walk.
    #[inline]
    pub fn note_place(&self, by_at: bool, on_walk: bool) {
        if by_at {
            self.translated_by_at.add(1);
        }
        if on_walk {
            self.stage1_walk.add(1);
        }
    }

    /// Notes a permission fault answered by relaxing.
    pub fn note_permission(&self, need: Need) {
        self.permission[need as usize].add(1);
    }

    /// The counter a guest reads by number (`docs/guest-abi.md`); `None` for a number without one.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<u64> {
        let count = match id {
            0..=2 => &self.translation[id as usize],
            3..=5 => &self.permission[id as usize - 3],
            6 => &self.sufficient,
            7 => &self.stage1_walk,
            8 => &self.mapped,
            9 => &self.relaxed[Need::Write as usize],
            10 => &self.relaxed[Need::Execute as usize],
            11 => &self.icache,
            12 => &self.dcache,
            13 => &self.tlbi,
            14 => &self.injected,
            15 => return Some(self.mmio.iter().map(Count::get).sum()),
            16 => return Some(self.exits.total()),
            _ => return None,
        };
        Some(count.get())
    }

    /// The counters of several vCPUs as one set.
    #[must_use]
    pub fn sum<'a>(vcpus: impl IntoIterator<Item = &'a Self>) -> Self {
        let all = Self::default();
        for vcpu in vcpus {
            for (sum, count) in all.fields().zip(vcpu.fields()) {
                sum.add(count.get());
            }
        }
        all
    }

    /// Every count, in one order.
    fn fields(&self) -> impl Iterator<Item = &Count> {
        let Self {
            translation,
            permission,
            sufficient,
            stage1_walk,
            cross_check,
            raced,
            translated_by_at,
            mapped,
            blocks,
            groups,
            lent,
            copied,
            split,
            aged,
            windows,
            relaxed,
            icache,
            dcache,
            tlbi,
            injected,
            undefined,
            skipped,
            mmio,
            decoded,
            tlb_conflicts,
            survived_errors,
            flushes,
            exits,
        } = self;
        let Exits {
            aborts,
            calls,
            sysreg,
            interrupts,
            waits,
            other,
        } = exits;
        let single = [
            sufficient,
            stage1_walk,
            cross_check,
            raced,
            translated_by_at,
            mapped,
            blocks,
            groups,
            lent,
            copied,
            split,
            aged,
            windows,
            icache,
            dcache,
            tlbi,
            injected,
            undefined,
            skipped,
            decoded,
            tlb_conflicts,
            survived_errors,
            flushes,
            aborts,
            calls,
            sysreg,
            interrupts,
            waits,
            other,
        ];
        let rows = translation.iter().chain(permission).chain(relaxed);
        single.into_iter().chain(rows).chain(mmio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_reads_the_numbers_its_manual_names() {
        let mut counters = Counters::default();
        counters.note_translation(Need::Write);
        counters.note_permission(Need::Execute);
        counters.relaxed[Need::Execute as usize].add(7);
        counters.mmio[3].add(5);
        counters.exits = Exits {
            aborts: 2.into(),
            calls: 3.into(),
            ..Exits::default()
        };
        for (id, value) in [(0, 0), (1, 1), (5, 1), (10, 7), (15, 5), (16, 5)] {
            assert_eq!(counters.by_id(id), Some(value), "counter {id}");
        }
        assert_eq!(counters.by_id(17), None);
        assert_eq!(counters.by_id(u64::MAX), None);
    }

    #[test]
    fn a_sum_has_every_count_of_every_vcpu() {
        let vcpu = Counters::default();
        for (n, count) in vcpu.fields().enumerate() {
            count.add(n as u64 + 1);
        }
        let sum = Counters::sum([&vcpu, &Counters::default(), &vcpu]);
        assert!(sum.fields().zip(1..).all(|(count, n)| *count == 2 * n));
        for id in 0..=16 {
            assert_eq!(sum.by_id(id), vcpu.by_id(id).map(|count| 2 * count));
        }
    }
}
