//! Cleaning what a guest may reach from the caches, for a guest that looks past them.

use crate::addr::{Ipa, PAGE_SIZE, PaRange};
use crate::machine::{Dc, Dsb, Machine};
use crate::stage2::Stage2;
use crate::stage2::descriptor::View;

/// Descriptors that are looked at before the gate is left for a moment.
const STEPS: usize = 512;
/// How often that happens in one call.
const CHUNKS: usize = 8;
/// Bytes that one call cleans: some 0.3 ms.
const BUDGET: u64 = 1 << 20;

impl Stage2 {
    /// Cleans and invalidates to the point of coherency what is mapped from `from` on, a bounded part of it. Answers where to
    /// go on, or `None` when the end of the IPA space is reached. Nothing to do with FWB.
    ///
    /// Complete for the calling PE when it returns; what other vCPUs write meanwhile is theirs to think of.
    pub fn flush_some<M: Machine>(&self, m: &mut M, from: Ipa) -> Option<Ipa> {
        if self.coherence().fwb {
            return None;
        }
        let (mut at, limit, mut left) = (from.page().raw(), self.config().limit(), BUDGET);
        for _ in 0..CHUNKS {
            // As a walker: a page that is being replaced meanwhile was the guest's, or is cleaned for nothing.
            let _walking = self.gate.enter(m.cpu());
            for _ in 0..STEPS {
                if at >= limit || left == 0 {
                    break;
                }
                let (place, leaf, start) = self.at(m, at);
                let (offset, end) = (at - start, start + place.level.size());
                // What is lent was clean when it came and nobody writes it; windows are no memory.
                if let View::Leaf(oa, _) = leaf.view(place.level)
                    && leaf.is_owned()
                {
                    let size = left.min(end - at);
                    let start = oa.add(offset);
                    m.dc(Dc::CleanInvalidateToPoc, PaRange { start, size });
                    left -= size;
                    at += size;
                } else {
                    at = end;
                }
            }
        }
        m.dsb(Dsb::Sy);
        (at < limit).then_some(Ipa::new(at))
    }
}

/// Bytes are cleaned by whole pages.
const _: () = assert!(BUDGET.is_multiple_of(PAGE_SIZE));
