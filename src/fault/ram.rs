//! A fault on RAM, with all that its answer depends on.

use crate::addr::{Ipa, IpaRange, PaRange};
use crate::exit::Need;
use crate::fault::{Fault, FaultingVcpu, GranulePolicy, GuestMemory, Resolution, RightsPolicy};
use crate::fault::{Stop, page_of};
use crate::machine::Machine;
use crate::slot::Kind;
use crate::stage2::maintenance::ExecReady;
use crate::stage2::{CleanPage, Grant, Level, Rights};
use crate::stats::Counters;

/// A fault on RAM that the slot permits.
#[derive(Clone, Copy)]
pub(super) struct RamFault<'a> {
    pub(super) memory: &'a GuestMemory<'a>,
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
    pub(super) fn new(
        memory: &'a GuestMemory<'a>,
        vcpu: &FaultingVcpu<'a>,
        fault: &Fault<'_>,
        slot: IpaRange,
        most: Rights,
    ) -> Self {
        let is_logged = memory.stage2.is_logged(fault.ipa);
        let wants_write = matches!(fault.need, Need::Write);
        Self {
            memory,
            counters: vcpu.counters,
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

    /// The same fault with these rights out of reach.
    pub(super) fn without(&self, rights: Rights) -> Self {
        Self {
            most: self.most.without(rights),
            ..*self
        }
    }

    /// The blocks that the policy permits here, the largest first.
    pub(super) fn blocks(&self) -> &'static [Level] {
        match self.memory.granule {
            _ if self.is_logged => &[],
            GranulePolicy::Page | GranulePolicy::Neighbours => &[],
            GranulePolicy::Block1G => &UP_TO_1G,
            GranulePolicy::Block2M => &UP_TO_1G[1..],
            GranulePolicy::Auto if self.is_plenty() => &UP_TO_1G[1..],
            GranulePolicy::Auto => &[],
        }
    }

    /// Whether the page brings its neighbours.
    pub(super) fn has_neighbours(&self) -> bool {
        self.memory.granule == GranulePolicy::Neighbours && !self.is_logged
    }

    /// Whether the pool could give the VM all of its memory, so that what a block takes too much is missed by nobody.
    fn is_plenty(&self) -> bool {
        let is_ram = |kind: &Kind| matches!(kind, Kind::Ram(_));
        let slots = self.memory.slots.iter().filter(|slot| is_ram(&slot.kind));
        let pages: u64 = slots.map(|slot| slot.range.size / Level::LAST.size()).sum();
        let account = self.memory.pool.account();
        let missing = pages.saturating_sub(self.memory.stage2.page_count());
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
    pub(super) fn holds(&self, range: IpaRange) -> bool {
        self.slot.intersect(&range) == Some(range)
    }

    /// The memory that holds all of `leaf` as it is, and can be lent.
    pub(super) fn in_place(&self, leaf: IpaRange) -> Option<PaRange> {
        let mut contents = self.memory.contents_of(leaf);
        contents.find_map(|content| content.in_place(leaf))
    }

    /// The memory to lend for a page, if it is to be lent: what the guest wants to write is copied at once.
    pub(super) fn page_to_lend(&self, page: IpaRange, need: Need) -> Option<PaRange> {
        let is_eager = self.memory.rights == RightsPolicy::Eager;
        if need == Need::Write || (is_eager && self.most.allows(Rights::WRITE)) {
            return None;
        }
        self.in_place(page)
    }

    /// A page of the pool with the contents of the page at `ipa`; `None` when the pool is dry.
    pub(super) fn take_page<M: Machine>(&self, ipa: Ipa, m: &mut M) -> Option<CleanPage> {
        let GuestMemory { pool, stage2, .. } = self.memory;
        let coherence = stage2.coherence();
        let leaf = page_of(ipa);
        self.counters.dcache.add(u64::from(!coherence.fwb));
        // Most pages have no content, or one that is in place.
        let mut contents = self.memory.contents_of(leaf);
        let Some(first) = contents.next() else {
            // Zeroes, which this pCPU has at hand most of the time.
            return CleanPage::take(m, pool, coherence);
        };
        let page = pool.take_raw(m.cpu())?;
        Some(match first.in_place(leaf) {
            Some(from) => page.copied(m, coherence, from),
            None => page.filled(m, coherence, |m, pa| {
                first.fill(m, leaf, pa);
                contents.for_each(|content| content.fill(m, leaf, pa));
            }),
        })
    }

    /// The rights that fresh memory starts with, for a touch that wants `need`.
    pub(super) fn first_grant<M: Machine>(
        &self,
        need: Need,
        make_executable: impl FnOnce(&mut M) -> ExecReady,
        m: &mut M,
    ) -> Grant {
        let GuestMemory { rights, stage2, .. } = self.memory;
        let grant = Grant::data(rights.data_rights(need).intersection(self.most));
        let at_once = *rights == RightsPolicy::Eager && stage2.coherence().dic;
        // With DIC = 0 memory starts without X, so that the first fetch is the hook for I-cache maintenance.
        if self.most.allows(Rights::EXECUTE) && (need == Need::Execute || at_once) {
            self.and_execute(grant, make_executable, m)
        } else {
            grant
        }
    }

    /// `grant` and X.
    pub(super) fn and_execute<M: Machine>(
        &self,
        grant: Grant,
        make_executable: impl FnOnce(&mut M) -> ExecReady,
        m: &mut M,
    ) -> Grant {
        let ready = make_executable(m);
        self.counters.icache.add(u64::from(ready.was_maintained()));
        grant.and_execute(ready)
    }

    /// What the guest needs of data rights, and what its policy gives with it.
    pub(super) fn data_grant(&self) -> Grant {
        let rights = self.memory.rights.data_rights(self.need);
        Grant::data(rights.intersection(self.most))
    }

    /// Notes a translation fault that was answered with `pages`.
    pub(super) fn note_mapped(&self, pages: u64) {
        self.counters.mapped.add(pages);
        self.counters.note_translation(self.need);
    }

    /// Another vCPU was faster. The guest tries again with what is there now.
    pub(super) fn note_raced(&self) {
        self.counters.raced.add(1);
    }

    pub(super) fn out_of_pages(&self) -> Resolution {
        out_of_pages(self.memory)
    }
}

/// The pool is dry: the VM cannot go on.
pub(super) fn out_of_pages(memory: &GuestMemory<'_>) -> Resolution {
    let account = memory.pool.account();
    Resolution::Stop(Stop::OutOfPages {
        total: account.total,
        mapped: memory.stage2.page_count(),
    })
}
