//! TLBs that keep every entry they may, one pair per CPU: stage-2 entries, and entries that combine both stages.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::rules::Cached;
use super::{AF, page_of};
use crate::machine::{Dsb, Tlbi};

/// Leaves by IPA page. Stage 1 is an offset in these tests, so the IPA names a combined entry as well.
type Entries = BTreeMap<u64, Cached>;

#[derive(Default)]
pub(super) struct Tlbs {
    cpus: [Tlb; 2],
}

#[derive(Default)]
struct Tlb {
    stage2: Entries,
    combined: Entries,
    /// Invalidations issued by this CPU and not complete.
    pending: Vec<Pending>,
}

#[derive(Clone, Copy)]
struct Pending {
    op: Tlbi,
    /// The descriptor's store could still be missed by a walk when the TLBI was issued, so the old entry comes back.
    too_early: bool,
}

impl Tlbs {
    pub(super) fn fill(&mut self, cpu: usize, ipa: u64, leaf: Cached) {
        // Without its access flag an entry is not kept.
        if leaf.leaf & AF == 0 {
            return;
        }
        let tlb = &mut self.cpus[cpu];
        let stage2 = *tlb.stage2.entry(ipa).or_insert(leaf);
        tlb.combined.entry(ipa).or_insert(stage2);
    }

    pub(super) fn lookup(&self, cpu: usize, ipa: u64) -> Option<Cached> {
        self.cpus[cpu].combined.get(&ipa).copied()
    }

    pub(super) fn all_leaves(&self) -> Vec<u64> {
        let both = |tlb: &Tlb| {
            let leaves: Vec<u64> = tlb
                .stage2
                .values()
                .chain(tlb.combined.values())
                .map(|cached| cached.leaf)
                .collect();
            leaves
        };
        self.cpus.iter().flat_map(both).collect()
    }

    pub(super) fn tlbi(&mut self, cpu: usize, op: Tlbi, too_early: bool) {
        self.cpus[cpu].pending.push(Pending { op, too_early });
    }

    pub(super) fn has_pending(&self, cpu: usize) -> bool {
        !self.cpus[cpu].pending.is_empty()
    }

    pub(super) fn check_entry(&self, cpu: usize) {
        assert!(!self.has_pending(cpu), "a TLBI was never waited for");
    }

    /// Completes what `kind` waits for. Two operations without a DSB between them complete in the order that hurts: stage
    /// 1 first, and its entries come back from stage-2 entries that are still there.
    pub(super) fn dsb(&mut self, cpu: usize, kind: Dsb) {
        let is_local =
            |op: Tlbi| matches!(op, Tlbi::Ipas2e1(..) | Tlbi::Vmalle1 | Tlbi::Vmalls12e1);
        let waits_for = |pending: &Pending| match kind {
            Dsb::IshSt | Dsb::NshSt => false,
            Dsb::Nsh => is_local(pending.op),
            Dsb::Ish | Dsb::Sy => true,
        };
        let mut done: Vec<Pending> = self.cpus[cpu]
            .pending
            .iter()
            .filter(|p| waits_for(p))
            .copied()
            .collect();
        self.cpus[cpu].pending.retain(|pending| !waits_for(pending));
        done.sort_by_key(|pending| {
            matches!(
                pending.op,
                Tlbi::Ipas2e1(..) | Tlbi::Ipas2e1Is(..) | Tlbi::Ripas2e1Is(_)
            )
        });
        for Pending { op, too_early } in done {
            let mine = cpu..cpu + 1;
            for tlb in &mut self.cpus[if is_local(op) { mine } else { 0..2 }] {
                tlb.invalidate(op, too_early);
            }
        }
    }
}

impl Tlb {
    fn invalidate(&mut self, op: Tlbi, too_early: bool) {
        match op {
            _ if too_early => {}
            Tlbi::Ripas2e1Is(range) => {
                let (first, end) = (range.start.raw(), range.start.raw() + (range.pages() << 12));
                self.stage2.retain(|ipa, _| !(first..end).contains(ipa));
            }
            Tlbi::Ipas2e1(ipa, _) | Tlbi::Ipas2e1Is(ipa, _) => {
                // All that comes from one descriptor goes together, whatever address of it is named.
                if let Some(Cached { size, .. }) = self.stage2.get(&page_of(ipa)).copied() {
                    let start = ipa.raw() & !(size - 1);
                    self.stage2
                        .retain(|ipa, _| !(start..start + size).contains(ipa));
                }
            }
            Tlbi::Vmalle1 | Tlbi::Vmalle1Is => self.combined = self.stage2.clone(),
            Tlbi::Vmalls12e1 | Tlbi::Vmalls12e1Is | Tlbi::Alle1Is => {
                self.stage2.clear();
                self.combined.clear();
            }
            Tlbi::RepeatVale2Is => {}
        }
    }
}
