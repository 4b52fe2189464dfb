//! The machine below all CPUs: what is shared, what each has outstanding, and what may happen at any moment.

use std::collections::BTreeMap;
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

use super::bits::{self, Kind};
use super::memory::{Owner, Ram};
use super::rng::Rng;
use super::setup::Setup;
use super::tlb::Tlb;
use super::weak::Weak;
use crate::addr::{PAGE_SIZE, Pa, PaRange};
use crate::machine::{Dc, Dsb, Ic, Tlbi};
use crate::page_pool::PagePool;

/// Where the pool's RAM lies.
pub(super) const POOL_START: u64 = 0x8_4000_0000;
/// Three chunks of 2 MiB, and a few pages beyond.
pub(super) const POOL_PAGES: u64 = 3 * 512 + 64;
/// Where a module lies that is lent to guests, and its pages.
pub(super) const MODULE_START: u64 = POOL_START + 4 * 512 * PAGE_SIZE;
pub(super) const MODULE_PAGES: u64 = 512;

/// Maintenance that was issued and is not known to be complete: each PE carries it out when it likes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Tlbi(Tlbi, u16),
    Ic(Ic),
    Dc(Dc, PaRange),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) work: Work,
    /// PEs that have not carried it out, as bits.
    pub(super) left: u32,
}

/// A store to a descriptor that walks may still miss.
#[derive(Clone, Copy)]
pub(super) struct Unseen {
    by: usize,
    table: u64,
    index: usize,
    old: u64,
    /// The storing PE's own walks see it.
    is_seen_here: bool,
    /// How often it was missed: in the end every store is seen.
    missed: u32,
}

/// A guest's store that has left the CPU and not reached memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    pub(super) tree: usize,
    pub(super) ipa: u64,
    pub(super) pa: u64,
    pub(super) line: usize,
    pub(super) value: u64,
    pub(super) is_cached: bool,
    /// A broadcast of stage 1 was complete since (with CVE-2025-10263, that is not enough).
    was_waited_for: bool,
}

impl Late {
    pub(super) const fn new(tree: usize, ipa: u64, pa: u64, line: usize, is_cached: bool) -> Self {
        Self {
            tree,
            ipa,
            pa,
            line,
            value: 0,
            is_cached,
            was_waited_for: false,
        }
    }
}

/// A line in an I-cache: whose it was when it was fetched.
#[derive(Clone, Copy)]
pub(super) struct Fetched {
    pub(super) value: u64,
    pub(super) tenancy: u32,
}

/// Which line an I-cache keeps where: the page, the line, and, where virtual addresses index it, under which alias.
pub(super) type IcacheKey = (u64, usize, u64);

/// One CPU.
#[derive(Default)]
pub(super) struct Pe {
    pub(super) tlb: Tlb,
    pub(super) icache: BTreeMap<IcacheKey, Fetched>,
    pub(super) pending: Vec<Pending>,
    pub(super) late: Vec<Late>,
    pub(super) vttbr: u64,
    pub(super) effective_vttbr: u64,
    pub(super) par: u64,
    pub(super) par_answer: Option<u64>,
    /// The last operation was a TLBI of stage 2, of anything.
    pub(super) after_stage2_tlbi: bool,
    pub(super) after_tlbi: bool,
    pub(super) after_clean: bool,
    /// What a deliberate bug cleans only when it is too late.
    pub(super) late_cleans: Vec<PaRange>,
    pub(super) walks_ended: bool,
    /// The guest that ran here last runs with its caches off: so are its instruction fetches.
    pub(super) caches_off: bool,
    /// AT found no translation since this was looked at last.
    pub(super) stage1_changed: bool,
}

/// A tree that the hardware may walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct TreeView {
    pub(super) vttbr: u64,
    pub(super) start_level: u8,
    pub(super) hardware: (bool, bool),
    /// Verbs of the host that are changing it.
    pub(super) verbs: u32,
    pub(super) is_dying: bool,
}

impl TreeView {
    pub(super) const fn vmid(&self) -> u16 {
        (self.vttbr >> 48) as u16
    }

    pub(super) const fn root(&self) -> u64 {
        self.vttbr & 0x0000_ffff_ffff_fffe
    }
}

pub(super) struct Hardware {
    pub(super) setup: Setup,
    pub(super) weak: Weak,
    pub(super) rng: Rng,
    pub(super) ram: Ram,
    pub(super) pool: Arc<PagePool>,
    pub(super) pes: Vec<Pe>,
    unseen: Vec<Unseen>,
    /// How often a walk missed a store.
    misses: u64,
    pub(super) trees: Vec<TreeView>,
    /// Pages and tables that were taken out of a tree and are not known to be free.
    pub(super) leaving: Vec<u64>,
    /// Leaves that are broken at the moment, by where they were.
    pub(super) broken: BTreeMap<(u64, usize), u64>,
    /// Pages (tree, IPA) that something happened to lately.
    hot: Vec<(usize, u64)>,
    /// Changes to descriptors, by the PE that made them.
    pub(super) changes: Vec<u64>,
    /// Operations of each PE.
    pub(super) operations: Vec<u64>,
    pub(super) tokens: u64,
    pub(super) trace: Option<Vec<String>>,
    // The baton.
    pub(super) turn: usize,
    pub(super) alive: Vec<bool>,
    pub(super) spins: u32,
    pub(super) failure: Option<String>,
}

impl Hardware {
    pub(super) fn new(setup: Setup, seed: u64, weak: Weak) -> Self {
        let pool = PagePool::new();
        pool.add(PaRange::new(Pa::new(POOL_START), POOL_PAGES * PAGE_SIZE).unwrap());
        let pe = |n| Pe {
            par: 0x0123_4567_89ab_c802 + n as u64 * PAGE_SIZE,
            ..Pe::default()
        };
        Self {
            setup,
            weak,
            rng: Rng::new(seed),
            ram: Ram::new(POOL_START, 4 * 512, MODULE_PAGES),
            pool: Arc::new(pool),
            pes: (0..setup.cpus).map(pe).collect(),
            unseen: Vec::new(),
            misses: 0,
            trees: Vec::new(),
            leaving: Vec::new(),
            broken: BTreeMap::new(),
            hot: Vec::new(),
            changes: std::vec![0; setup.cpus],
            operations: std::vec![0; setup.cpus],
            tokens: 0x1000,
            trace: None,
            turn: 0,
            alive: std::vec![false; setup.cpus],
            spins: 0,
            failure: None,
        }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub(super) fn warm(&mut self, tree: usize, ipa: u64) {
        if self.hot.len() == 8 {
            self.hot.remove(0);
        }
        self.hot.push((tree, ipa & !(PAGE_SIZE - 1)));
    }

    pub(super) fn tree_of(&self, vttbr: u64) -> Option<usize> {
        self.trees
            .iter()
            .rposition(|tree| tree.vttbr == vttbr && !tree.is_dying)
    }

    /// What hardware and caches may do by themselves between two operations.
    pub(super) fn disturb(&mut self) {
        if !self.rng.one_in(3) {
            return;
        }
        let pe = self.rng.below(self.pes.len());
        match self.rng.below(8) {
            0..=2 => self.speculate(pe),
            3 => {
                let by = self.rng.below(self.pes.len());
                if !self.pes[by].pending.is_empty() {
                    let n = self.rng.below(self.pes[by].pending.len());
                    self.carry_out(by, n, pe);
                }
            }
            4 => {
                let choice = self.rng.below(1 << 16);
                self.pes[pe].tlb.evict(choice);
            }
            5 | 6 => self.disturb_line(),
            _ => {
                if !self.pes[pe].late.is_empty() {
                    let late = self.pes[pe].late.remove(0);
                    self.land(late);
                }
            }
        }
    }

    fn disturb_line(&mut self) {
        if self.hot.is_empty() {
            return;
        }
        let (tree, ipa) = self.rng.pick(&self.hot);
        let (line, how) = (self.rng.below(2), self.rng.below(4));
        if let Some((leaf, level)) = self.live_leaf(tree, ipa) {
            let pa = bits::address(leaf) + ipa % bits::span(level);
            if self.ram.holds(pa) {
                self.ram.frame_mut(pa).lines[line].disturb(how);
            }
        }
    }

    /// PE `pe` fetches a translation that nobody asked for, and perhaps instructions through it.
    pub(super) fn speculate(&mut self, pe: usize) {
        if self.hot.is_empty() {
            return;
        }
        let (tree, ipa) = self.rng.pick(&self.hot);
        if self.tree_of(self.pes[pe].effective_vttbr) != Some(tree) {
            return;
        }
        let vmid = self.trees[tree].vmid();
        let entry = self.pes[pe].tlb.stage2(vmid, ipa);
        let Some(entry) = entry.or_else(|| self.walk(pe, tree, ipa).ok()) else {
            return;
        };
        if self.pes[pe].tlb.combined(vmid, ipa).is_none() && self.rng.one_in(2) {
            self.pes[pe].tlb.combine(entry, ipa);
        }
        let pa = entry.output(ipa);
        if bits::rights(entry.leaf)[2] && self.ram.holds(pa) && self.rng.one_in(2) {
            let (line, is_cached) = (self.rng.below(2), !self.pes[pe].caches_off);
            self.fetch_line(pe, pa, ipa, line, is_cached);
        }
    }

    /// Under which index an I-cache keeps what is fetched at `ipa`. Our own alias of a page has number 0.
    pub(super) const fn colour(&self, ipa: u64) -> u64 {
        if self.setup.pipt {
            0
        } else {
            1 + (ipa / PAGE_SIZE) % 2
        }
    }

    /// The line at `pa` as PE `pe` fetches it for `ipa`, from its I-cache or into it.
    pub(super) fn fetch_line(
        &mut self,
        pe: usize,
        pa: u64,
        ipa: u64,
        line: usize,
        is_cached: bool,
    ) -> u64 {
        let key = (pa & !(PAGE_SIZE - 1), line, self.colour(ipa));
        let frame = self.ram.frame(pa);
        let value = if is_cached {
            frame.lines[line].at_unification(self.setup.idc)
        } else {
            frame.lines[line].at_coherency()
        };
        let fresh = Fetched {
            value,
            tenancy: frame.tenancy,
        };
        if self.setup.dic {
            return fresh.value;
        }
        self.pes[pe].icache.entry(key).or_insert(fresh).value
    }

    /// A guest's store reaches memory.
    pub(super) fn land(&mut self, late: Late) {
        let Late {
            tree,
            ipa,
            pa,
            line,
            value,
            is_cached,
            ..
        } = late;
        let page = ipa & !(PAGE_SIZE - 1);
        let frame = self.ram.frame_mut(pa);
        let is_still_its = matches!(frame.owner,
            Owner::Guest { tree: now, ipa: at } | Owner::Leaving { tree: now, ipa: at } if (now, at) == (tree, page));
        assert!(
            is_still_its,
            "I8, a guest's store through a dead translation lands in {pa:#x}, which is {:x?}",
            frame.owner
        );
        if is_cached {
            frame.lines[line].store(value);
        } else {
            frame.lines[line].store_uncached(value);
        }
        frame.histories[line].wrote(value);
    }

    pub(super) fn drain(&mut self, pe: usize) {
        for late in std::mem::take(&mut self.pes[pe].late) {
            self.land(late);
        }
    }

    pub(super) fn issue(&mut self, pe: usize, work: Work, is_local: bool) {
        let left = if is_local {
            1 << pe
        } else {
            (1u32 << self.pes.len()) - 1
        };
        self.pes[pe].pending.push(Pending { work, left });
        // It may be carried out at once, which is too early where something has to come before it.
        for target in 0..self.pes.len() {
            if self.rng.one_in(3) {
                let last = self.pes[pe].pending.len() - 1;
                self.carry_out(pe, last, target);
            }
        }
    }

    /// PE `target` carries out the `n`th operation outstanding of PE `by`.
    fn carry_out(&mut self, by: usize, n: usize, target: usize) {
        let pending = &mut self.pes[by].pending[n];
        if pending.left >> target & 1 == 0 {
            return;
        }
        pending.left &= !(1 << target);
        match pending.work {
            Work::Tlbi(op, vmid) => self.pes[target].tlb.invalidate(op, vmid),
            Work::Ic(op) => self.invalidate_icache(op, target),
            Work::Dc(op, range) => {
                for (page, line) in Ram::lines_of(range.start.raw(), range.size) {
                    let line = &mut self.ram.frame_mut(page).lines[line];
                    match op {
                        Dc::CleanToPou => line.clean_to_unification(),
                        Dc::CleanInvalidateToPoc => line.clean_and_invalidate(),
                    }
                }
            }
        }
    }

    fn invalidate_icache(&mut self, op: Ic, target: usize) {
        let icache = &mut self.pes[target].icache;
        match op {
            Ic::AllLocal | Ic::AllInnerShareable => icache.clear(),
            Ic::Range(range) => {
                let reached: Vec<_> = Ram::lines_of(range.start.raw(), range.size).collect();
                icache.retain(|(page, line, colour), _| {
                    *colour != 0 || !reached.contains(&(*page, *line))
                });
            }
        }
    }

    /// A DSB of `kind` by `pe`: what it waits for is complete when it returns.
    pub(super) fn complete(&mut self, pe: usize, kind: Dsb) {
        let waits = |work: &Work| match (work, kind) {
            (_, Dsb::IshSt | Dsb::NshSt) => false,
            (Work::Tlbi(op, _), Dsb::Nsh) => is_local(*op),
            (Work::Ic(op), Dsb::Nsh) => *op == Ic::AllLocal,
            (Work::Dc(Dc::CleanInvalidateToPoc, _), kind) => kind == Dsb::Sy,
            (Work::Dc(Dc::CleanToPou, _), Dsb::Nsh) => false,
            (_, Dsb::Ish | Dsb::Sy) => true,
        };
        // In the order that hurts: the I-cache before the data it is filled from, stage 1 before stage 2, and in between
        // whatever is fetched then.
        for round in 0..4 {
            for n in 0..self.pes[pe].pending.len() {
                let work = self.pes[pe].pending[n].work;
                if !waits(&work) || rank(&work) != round {
                    continue;
                }
                for target in 0..self.pes.len() {
                    self.carry_out(pe, n, target);
                    self.speculate(target);
                }
            }
        }
        let done = self.pes[pe]
            .pending
            .extract_if(.., |pending| waits(&pending.work));
        let done: Vec<Work> = done.map(|pending| pending.work).collect();
        self.wait_for_stores(&done);
        match kind {
            Dsb::NshSt | Dsb::Nsh => {
                for store in self.unseen.iter_mut().filter(|store| store.by == pe) {
                    store.is_seen_here = true;
                }
            }
            Dsb::IshSt | Dsb::Ish | Dsb::Sy => self.show_stores(pe),
        }
    }

    /// All PEs see the stores of PE `pe`, and with each those that it replaced.
    fn show_stores(&mut self, pe: usize) {
        let mut shown = Vec::new();
        for store in std::mem::take(&mut self.unseen).into_iter().rev() {
            let place = (store.table, store.index);
            if store.by == pe || shown.contains(&place) {
                shown.push(place);
            } else {
                self.unseen.insert(0, store);
            }
        }
    }

    /// Stores through entries that a complete TLBI removed have reached memory; with CVE-2025-10263, only when one more
    /// broadcast is complete.
    fn wait_for_stores(&mut self, done: &[Work]) {
        let is_broadcast = |work: &Work| matches!(work, Work::Tlbi(op, _) if !is_local(*op));
        let is_stage1 = |work: &Work| {
            matches!(
                work,
                Work::Tlbi(Tlbi::Vmalle1Is | Tlbi::Vmalls12e1Is | Tlbi::Alle1Is, _)
            )
        };
        let (any, stage1) = (done.iter().any(is_broadcast), done.iter().any(is_stage1));
        for pe in 0..self.pes.len() {
            for mut late in std::mem::take(&mut self.pes[pe].late) {
                let is_over = if self.setup.stores_linger {
                    any && late.was_waited_for
                } else {
                    stage1
                };
                late.was_waited_for |= stage1;
                if is_over {
                    self.land(late);
                } else {
                    self.pes[pe].late.push(late);
                }
            }
        }
    }

    /// Stores `new`; walks may miss it until the right DSB.
    pub(super) fn store(&mut self, pe: usize, table: u64, index: usize, new: u64) {
        let old = self.ram.frame(table).descriptor(index);
        self.ram.frame_mut(table).set_descriptor(index, new);
        self.changes[pe] += 1;
        self.unseen.push(Unseen {
            by: pe,
            table,
            index,
            old,
            is_seen_here: false,
            missed: 0,
        });
    }

    /// A descriptor as a walk of PE `pe` reads it.
    pub(super) fn read_by_walk(&mut self, pe: usize, table: u64, index: usize) -> u64 {
        // In the order in which they were stored. From the last one that this PE sees for certain it sees all that follow, or
        // misses all from some store on.
        let is_it = |store: &Unseen| (store.table, store.index) == (table, index);
        let is_seen = |store: &Unseen| is_it(store) && store.by == pe && store.is_seen_here;
        let from = self.unseen.iter().rposition(is_seen).map_or(0, |n| n + 1);
        for n in from..self.unseen.len() {
            let store = self.unseen[n];
            if is_it(&store) && store.missed < 4 && self.rng.one_in(2) {
                self.unseen[n].missed += 1;
                self.misses += 1;
                return store.old;
            }
        }
        self.ram.frame(table).descriptor(index)
    }

    /// A change by the hardware itself: seen at once, lost never.
    pub(super) fn update(&mut self, table: u64, index: usize, old: u64, new: u64) -> bool {
        let frame = self.ram.frame_mut(table);
        if frame.descriptor(index) != old {
            return false;
        }
        frame.set_descriptor(index, new);
        true
    }

    /// The hardware changed the descriptor: whoever reads it sees that.
    pub(super) fn forget_unseen(&mut self, table: u64, index: usize) {
        self.unseen
            .retain(|store| (store.table, store.index) != (table, index));
    }

    pub(super) const fn misses(&self) -> u64 {
        self.misses
    }

    pub(super) fn has_unseen(&self, pe: usize) -> bool {
        let is_open = |store: &Unseen| store.by == pe && !store.is_seen_here;
        self.unseen.iter().any(is_open)
    }

    /// The leaf at `ipa` as memory has it now, and its level.
    pub(super) fn live_leaf(&self, tree: usize, ipa: u64) -> Option<(u64, u8)> {
        let (table, index, level) = self.live_place(tree, ipa);
        let descriptor = self.ram.frame(table).descriptor(index);
        (bits::kind(descriptor, level) == Kind::Leaf).then_some((descriptor, level))
    }

    /// Where the walk for `ipa` ends as memory has it now.
    pub(super) fn live_place(&self, tree: usize, ipa: u64) -> (u64, usize, u8) {
        let view = self.trees[tree];
        let mut level = view.start_level;
        let mut table = view.root() + ipa / (512 * bits::span(level)) * PAGE_SIZE;
        loop {
            let index = bits::index(ipa, level);
            match bits::kind(self.ram.frame(table).descriptor(index), level) {
                Kind::Table(next) => (table, level) = (next, level + 1),
                Kind::Invalid | Kind::Leaf => return (table, index, level),
            }
        }
    }
}

pub(super) const fn is_local(op: Tlbi) -> bool {
    matches!(op, Tlbi::Ipas2e1(..) | Tlbi::Vmalle1 | Tlbi::Vmalls12e1)
}

const fn rank(work: &Work) -> u32 {
    match work {
        Work::Ic(_) => 0,
        Work::Tlbi(Tlbi::Vmalle1 | Tlbi::Vmalle1Is, _) => 1,
        Work::Tlbi(..) => 2,
        Work::Dc(..) => 3,
    }
}
