//! A pCPU's own stock of pages in front of the pool: raw ones, taken in batches, and ready ones, zeroed ahead of time.
//!
//! Only its owner puts pages in; anybody may take one out, by an exchange that leaves the slot empty. So a page is taken
//! once, the owner takes no lock, and a page that lies here is never lost to a pCPU that runs dry. A page that its owner is
//! zeroing meanwhile is marked: who looks for the last page waits for it.
//!
//! Memory order: what was done to a page (zeroed, cleaned) happens before its store into a slot, with release; who
//! takes it out acquires.

use crate::addr::Pa;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, spin_loop};

/// Pages of a batch; two in loom's small world.
pub(super) const BATCH: usize = if cfg!(loom) { 2 } else { 16 };
/// Pages that are kept zeroed.
const READY: usize = if cfg!(loom) { 1 } else { 32 };

/// A slot without a page.
const EMPTY: u64 = 0;
/// In a slot with a page's address: there is one.
const PAGE: u64 = 1 << 0;
/// And it is clean to the point of coherency.
const CLEAN: u64 = 1 << 1;
/// A slot whose page is being zeroed by the owner.
const BUSY: u64 = 1 << 2;
/// The address in a slot.
const ADDRESS: u64 = !0xfff;

/// One pCPU's pages, on cache lines of their own.
#[repr(align(64))]
pub(super) struct Stock {
    raw: Shelf<BATCH>,
    ready: Shelf<READY>,
}

/// A stack with holes: the owner works at `top`, others take from anywhere below it.
struct Shelf<const N: usize> {
    /// The owner's: slots from here on are empty.
    top: AtomicUsize,
    slots: [AtomicU64; N],
}

/// A page out of a stock: its address, and whether it is clean to the point of coherency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ready {
    pub(super) pa: Pa,
    pub(super) is_clean: bool,
}

impl Stock {
    pub(super) fn new() -> Self {
        Self {
            raw: Shelf::new(),
            ready: Shelf::new(),
        }
    }

    /// The owner takes a page that is zeroed.
    #[inline]
    pub(super) fn take_ready(&self) -> Option<Ready> {
        self.ready.pop().map(|value| Ready {
            pa: Pa::new(value & ADDRESS),
            is_clean: value & CLEAN != 0,
        })
    }

    /// The owner takes a page that may hold anything.
    #[inline]
    pub(super) fn take_raw(&self) -> Option<Pa> {
        self.raw.pop().map(|value| Pa::new(value & ADDRESS))
    }

    /// The owner puts a zeroed page in; `false` if there is no room.
    pub(super) fn put_ready(&self, page: Ready) -> bool {
        let clean = if page.is_clean { CLEAN } else { 0 };
        self.ready.push(page.pa.raw() | PAGE | clean)
    }

    /// The owner puts a page in that may hold anything; `false` if there is no room. The caller has the pool's lock, so that
    /// nobody looks for a page while it is in neither.
    pub(super) fn put_raw(&self, pa: Pa) -> bool {
        self.raw.push(pa.raw() | PAGE)
    }

    /// Whether the owner has no raw page, as far as it knows.
    pub(super) fn is_out_of_raw(&self) -> bool {
        self.raw.count() == 0
    }

    pub(super) fn has_room_for_ready(&self) -> bool {
        self.ready.top.load(Ordering::Relaxed) < READY
    }

    /// The owner has `zero` make one of its raw pages ready. `false` if it has none, or no room.
    pub(super) fn prepare(&self, zero: impl FnOnce(Pa) -> Ready) -> bool {
        if !self.has_room_for_ready() {
            return false;
        }
        let Some((slot, value)) = self.raw.mark_busy() else {
            return false;
        };
        let ready = zero(Pa::new(value & ADDRESS));
        let is_kept = self.put_ready(ready);
        debug_assert!(is_kept, "only the owner fills the shelf");
        // Only now: it is in one of the two at any moment.
        slot.store(EMPTY, Ordering::Release);
        true
    }

    /// Anybody takes any page. The caller has the pool's lock: no batch is on its way. `None` is certain: pages that are
    /// being zeroed are waited for.
    pub(super) fn steal(&self) -> Option<Pa> {
        // Raw ones first: that is the way a page moves.
        let value = self.raw.steal().or_else(|| self.ready.steal())?;
        Some(Pa::new(value & ADDRESS))
    }

    /// Pages in it; exact when its owner rests.
    pub(super) fn count(&self) -> u64 {
        self.raw.count() + self.ready.count()
    }

    /// Pages in it; `None` while one of them is on its way from one shelf to the other.
    pub(super) fn settled_count(&self) -> Option<u64> {
        let slots = || self.raw.slots.iter().chain(&self.ready.slots);
        let is_settled = slots().all(|slot| slot.load(Ordering::Acquire) != BUSY);
        is_settled.then(|| self.count())
    }

    /// Whether the page lies in it.
    #[cfg(test)]
    pub(super) fn holds(&self, pa: Pa) -> bool {
        self.pages().any(|page| page == pa)
    }

    /// The pages that lie in it.
    #[cfg(test)]
    pub(super) fn pages(&self) -> impl Iterator<Item = Pa> {
        let slots = self.raw.slots.iter().chain(&self.ready.slots);
        let values = slots.map(|slot| slot.load(Ordering::Relaxed));
        let taken = values.filter(|value| value & PAGE != 0);
        taken.map(|value| Pa::new(value & ADDRESS))
    }
}

impl<const N: usize> Shelf<N> {
    fn new() -> Self {
        Self {
            top: AtomicUsize::new(0),
            slots: core::array::from_fn(|_| AtomicU64::new(EMPTY)),
        }
    }

    #[inline(always)]
    fn pop(&self) -> Option<u64> {
        let last = self.top.load(Ordering::Relaxed).checked_sub(1)?;
        match self.slots.get(last)?.swap(EMPTY, Ordering::AcqRel) {
            EMPTY => self.pop_below(last),
            found => {
                self.top.store(last, Ordering::Relaxed);
                Some(found)
            }
        }
    }

    /// Others have taken from the top.
    #[cold]
    fn pop_below(&self, end: usize) -> Option<u64> {
        let mut top = end;
        let mut found = EMPTY;
        while top != 0 && found == EMPTY {
            top -= 1;
            found = self.slots.get(top)?.swap(EMPTY, Ordering::AcqRel);
        }
        self.top.store(top, Ordering::Relaxed);
        (found != EMPTY).then_some(found)
    }

    fn push(&self, value: u64) -> bool {
        let top = self.top.load(Ordering::Relaxed);
        let Some(slot) = self.slots.get(top) else {
            return false;
        };
        self.top.store(top + 1, Ordering::Relaxed);
        slot.store(value, Ordering::Release);
        true
    }

    /// The owner takes its topmost page but leaves word that it will be back.
    fn mark_busy(&self) -> Option<(&AtomicU64, u64)> {
        let mut top = self.top.load(Ordering::Relaxed);
        let mut found = None;
        while top != 0 && found.is_none() {
            top -= 1;
            let slot = self.slots.get(top)?;
            let value = slot.load(Ordering::Relaxed);
            let is_ours = value != EMPTY
                && slot
                    .compare_exchange(value, BUSY, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok();
            found = is_ours.then_some((slot, value));
        }
        self.top.store(top, Ordering::Relaxed);
        found
    }

    fn steal(&self) -> Option<u64> {
        self.slots.iter().find_map(|slot| {
            loop {
                match slot.load(Ordering::Acquire) {
                    EMPTY => return None,
                    BUSY => spin_loop(),
                    value => {
                        let taken = slot.compare_exchange(
                            value,
                            EMPTY,
                            Ordering::Acquire,
                            Ordering::Relaxed,
                        );
                        if taken.is_ok() {
                            return Some(value);
                        }
                    }
                }
            }
        })
    }

    fn count(&self) -> u64 {
        let top = self.top.load(Ordering::Relaxed).min(N);
        let used = self.slots[..top].iter();
        used.filter(|slot| slot.load(Ordering::Relaxed) != EMPTY)
            .count() as u64
    }
}
