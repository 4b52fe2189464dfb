//! A fault on RAM, with all that its answer depends on.

use crate::addr::{Ipa, IpaRange, PaRange};
use crate::exit::Need;
use crate::fault::{Fault, GranulePolicy, GuestMemory, Resolution, RightsPolicy};
use crate::fault::{Stop, page_of};
use crate::machine::Machine;
use crate::slot::Kind;
use crate::stage2::maintenance::ExecReady;
use crate::stage2::{CleanPage, Grant, Level, Rights, Stage2};
use crate::stats::Counters;

/// A fault on RAM that the slot permits.
#[derive(Clone, Copy)]
pub(super) struct RamFault<'a> {
    pub(super) memory: GuestMemory<'a>,
    pub(super) counters: &'a Counters,
    pub(super) ipa: Ipa,
    pub(super) need: Need,
    /// The slot.
    slot: IpaRange,
    /// The rights the guest can have there at most.
    most: Rights,
    /// A dirty log is kept of the place: W comes page by page, and only when it is wanted.
    pub(super) is_logged: bool,
}

/// Blocks that are tried, the largest first.
const UP_TO_1G: [Level; 2] = [Level::new(1), Level::new(2)];

impl<'a> RamFault<'a> {
    #[inline(always)]
    pub(super) fn new(
        memory: GuestMemory<'a>,
        counters: &'a Counters,
        fault: &Fault<'_>,
        slot: IpaRange,
        most: Rights,
    ) -> Self {
        let is_logged = memory.stage2.is_logged(fault.ipa);
        let wants_write = matches!(fault.need, Need::Write);
        Self {
            memory,
            counters,
            ipa: fault.ipa,
            need: fault.need,
            slot,
            most: if is_logged && !wants_write {
                most.without(Rights::WRITE)
            } else {
                most
            },
            is_logged,
        }
    }

    /// The VM's tree.
    #[inline(always)]
    pub(super) const fn stage2(&self) -> &'a Stage2 {
        &self.memory.vm.stage2
    }

    /// The same fault with these rights out of reach.
    pub(super) fn without(&self, rights: Rights) -> Self {
        Self {
            most: self.most.without(rights),
            ..*self
        }
    }

    /// Whether the policy permits no more than the page.
    #[inline(always)]
    pub(super) fn is_for_page(&self) -> bool {
        self.is_logged || self.memory.granule == GranulePolicy::Page
    }

    /// The blocks that the policy permits here, the largest first.
    pub(super) fn blocks(&self) -> &'static [Level] {
        match self.memory.granule {
            _ if self.is_logged => &[],
            GranulePolicy::Page | GranulePolicy::Neighbours | GranulePolicy::Group => &[],
            GranulePolicy::Block1G => &UP_TO_1G,
            GranulePolicy::Block2M => &UP_TO_1G[1..],
            GranulePolicy::Auto if self.is_plenty() => &UP_TO_1G[1..],
            GranulePolicy::Auto => &[],
        }
    }

    /// Whether the page brings its neighbours.
    pub(super) fn has_neighbours(&self) -> bool {
        let has_some = matches!(
            self.memory.granule,
            GranulePolicy::Neighbours | GranulePolicy::Group
        );
        has_some && !self.is_logged
    }

    /// Whether they are to be a contiguous group.
    pub(super) fn are_grouped(&self) -> bool {
        self.memory.granule == GranulePolicy::Group && self.has_neighbours()
    }

    /// Whether the pool could give the VM all of its memory, so that what a block takes too much is missed by nobody.
    fn is_plenty(&self) -> bool {
        let is_ram = |kind: &Kind| matches!(kind, Kind::Ram(_));
        let slots = self.memory.slots.iter().filter(|slot| is_ram(&slot.kind));
        let pages: u64 = slots.map(|slot| slot.range.size / Level::LAST.size()).sum();
        let account = self.memory.pool.account();
        let missing = pages.saturating_sub(self.stage2().page_count());
        account.total.saturating_sub(account.taken) >= missing
    }

    /// The leaf of `level` that holds the place, if all of it lies in the slot.
    pub(super) fn leaf(&self, level: Level) -> Option<IpaRange> {
        let leaf = IpaRange {
            start: Ipa::new(self.ipa.raw() & !(level.size() - 1)),
            size: level.size(),
        };
        self.holds(leaf).then_some(leaf)
    }

    /// Whether all of `range` lies in the slot.
    #[inline(always)]
    pub(super) fn holds(&self, range: IpaRange) -> bool {
        self.slot.intersect(&range) == Some(range)
    }

    /// The memory that holds all of `leaf` as it is, and can be lent.
    #[inline(always)]
    pub(super) fn in_place(&self, leaf: IpaRange) -> Option<PaRange> {
        self.memory.vm.in_place(leaf)
    }

    /// The memory to lend for a page, if it is to be lent: what the guest wants to write is copied at once.
    #[inline(always)]
    pub(super) fn page_to_lend(&self, ipa: Ipa, need: Need) -> Option<PaRange> {
        let is_eager = self.memory.rights == RightsPolicy::Eager;
        if need == Need::Write || (is_eager && self.most.allows(Rights::WRITE)) {
            return None;
        }
        self.in_place(page_of(ipa))
    }

    /// A page of the pool with the contents of the page at `ipa`; `None` when the pool is dry.
    #[inline(always)]
    pub(super) fn take_page<M: Machine>(&self, ipa: Ipa, m: &mut M) -> Option<CleanPage> {
        let coherence = self.stage2().coherence();
        if !coherence.fwb {
            self.counters.dcache.add(1);
        }
        // Most pages have no content. Those are zeroes, which this pCPU has at hand most of the time.
        if self.memory.contents_of(page_of(ipa)).next().is_some() {
            return self.memory.take_filled(page_of(ipa), m);
        }
        CleanPage::take(m, self.memory.pool, coherence)
    }

    /// The rights that fresh memory starts with, for a touch that wants `need`.
    #[inline(always)]
    pub(super) fn first_grant<M: Machine>(
        &self,
        need: Need,
        make_executable: impl FnOnce(&mut M) -> ExecReady,
        m: &mut M,
    ) -> Grant {
        let rights = self.memory.rights;
        let grant = Grant::data(rights.data_rights(need).intersection(self.most));
        let at_once = rights == RightsPolicy::Eager && self.stage2().coherence().dic;
        // With DIC = 0 memory starts without X, so that the first fetch is the hook for I-cache maintenance.
        if self.most.allows(Rights::EXECUTE) && (need == Need::Execute || at_once) {
            self.and_execute(grant, make_executable(m))
        } else {
            grant
        }
    }

    /// `grant` and X.
    #[inline(always)]
    pub(super) fn and_execute(&self, grant: Grant, ready: ExecReady) -> Grant {
        if ready.was_maintained() {
            self.counters.icache.add(1);
        }
        grant.and_execute(ready)
    }

    /// What the guest needs of data rights, and what its policy gives with it.
    #[inline(always)]
    pub(super) fn data_grant(&self) -> Grant {
        let rights = self.memory.rights.data_rights(self.need);
        Grant::data(rights.intersection(self.most))
    }

    /// Notes a translation fault that was answered with `pages`.
    #[inline(always)]
    pub(super) fn note_mapped(&self, pages: u64) {
        self.counters.mapped.add(pages);
        self.counters.note_translation(self.need);
    }

    /// Another vCPU was faster. The guest tries again with what is there now.
    #[inline(always)]
    pub(super) fn note_raced(&self) {
        self.counters.raced.add(1);
    }

    #[inline(always)]
    pub(super) fn out_of_pages(&self) -> Resolution {
        out_of_pages(self.memory)
    }
}

impl GuestMemory<'_> {
    /// A page of the pool with the contents that `page` has.
    #[inline(never)]
    fn take_filled<M: Machine>(self, page: IpaRange, m: &mut M) -> Option<CleanPage> {
        let coherence = self.stage2.coherence();
        let raw = self.pool.take_raw(m.cpu())?;
        let mut contents = self.contents_of(page);
        let in_place = contents.next().and_then(|first| first.in_place(page));
        Some(match in_place {
            Some(from) => raw.copied(m, coherence, from),
            None => raw.filled(m, coherence, |m, pa| {
                let contents = self.contents_of(page);
                contents.for_each(|content| content.fill(m, page, pa));
            }),
        })
    }
}

/// The pool is dry: the VM cannot go on.
#[cold]
pub(super) fn out_of_pages(memory: GuestMemory<'_>) -> Resolution {
    let account = memory.pool.account();
    Resolution::Stop(Stop::OutOfPages {
        total: account.total,
        mapped: memory.stage2.page_count(),
    })
}
