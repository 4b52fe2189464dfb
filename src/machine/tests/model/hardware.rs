//! The machine below all CPUs: what is shared, what each has outstanding, and what may happen at any moment.

use std::collections::BTreeMap;
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

use super::bits::{self, Kind};
use super::maintenance::Pending;
use super::ram::Ram;
use super::rng::Rng;
use super::setup::Setup;
use super::stores::{Late, Unseen};
use super::tlb::Tlb;
use super::weak::Weak;
use crate::addr::{PAGE_SIZE, Pa, PaRange};
use crate::page_pool::PagePool;

/// Where the pool's RAM lies.
pub(super) const POOL_START: u64 = 0x8_4000_0000;
/// Three chunks of 2 MiB, and a few pages beyond.
const POOL_PAGES: u64 = 3 * 512 + 64;
/// What comes before them on a machine that has more: 1 GiB.
const GIGABYTE_PAGES: u64 = 512 * 512;
/// All that is RAM, in chunks of 2 MiB.
const RAM_CHUNKS: u64 = 512 + 4;
/// Where a module lies that is lent to guests, and its pages.
pub(super) const MODULE_START: u64 = POOL_START + RAM_CHUNKS * 512 * PAGE_SIZE;
pub(super) const MODULE_PAGES: u64 = 512;

/// A line in an I-cache: where it is from, and whose it was when it was fetched.
#[derive(Clone, Copy)]
pub(super) struct Fetched {
    pub(super) value: u64,
    pub(super) page: u64,
    pub(super) tenancy: u32,
}

/// Which line an I-cache keeps where: the page, the line, and, where virtual addresses index it, under which alias. Where they
/// tag it too, the virtual page and what is to be told apart besides.
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
    /// The stage 1 of the vCPU that is here: what its virtual addresses differ in from IPAs. None: it walks nothing.
    pub(super) stage1: Option<u64>,
    /// AT found no translation since this was looked at last.
    pub(super) stage1_changed: bool,
    /// `TCR_EL1` lets it walk nothing.
    pub(super) stage1_is_closed: bool,
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
    pub(super) unseen: Vec<Unseen>,
    /// How often a walk missed a store.
    pub(super) misses: u64,
    pub(super) trees: Vec<TreeView>,
    /// Pages and tables that were taken out of a tree and are not known to be free: where they lie, and their size.
    pub(super) leaving: Vec<(u64, u64)>,
    /// Leaves that are broken at the moment, by where they were.
    pub(super) broken: BTreeMap<(u64, usize), u64>,
    /// Changes of size in one store that are not over: by which PE, in which tree.
    pub(super) resizing: Vec<(usize, usize)>,
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
        let more = if setup.gigabyte { GIGABYTE_PAGES } else { 0 };
        let memory = PaRange::new(Pa::new(POOL_START), (more + POOL_PAGES) * PAGE_SIZE);
        pool.add(memory.unwrap());
        let pe = |n| Pe {
            par: 0x0123_4567_89ab_c802 + n as u64 * PAGE_SIZE,
            ..Pe::default()
        };
        Self {
            setup,
            weak,
            rng: Rng::new(seed),
            ram: Ram::new(POOL_START, RAM_CHUNKS),
            pool: Arc::new(pool),
            pes: (0..setup.cpus).map(pe).collect(),
            unseen: Vec::new(),
            misses: 0,
            trees: Vec::new(),
            leaving: Vec::new(),
            broken: BTreeMap::new(),
            resizing: Vec::new(),
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
        if !self.resizing.is_empty() {
            let pe = self.rng.below(self.pes.len());
            self.speculate(pe);
        }
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
                self.ram.any_mut(pa).lines[line].disturb(how);
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
        // A walk may be on its way already when the entry it would miss is made.
        let is_late = self.is_resizing(tree) && self.rng.one_in(2);
        let entry = self.pes[pe].tlb.stage2(vmid, ipa).filter(|_| !is_late);
        let Some(entry) = entry.or_else(|| self.walk(pe, tree, ipa).ok()) else {
            return;
        };
        if let Some(stage1) = self.pes[pe].stage1
            && !self.pes[pe].stage1_is_closed
            && self.pes[pe].tlb.combined(vmid, ipa ^ stage1).is_none()
            && self.rng.one_in(2)
        {
            self.pes[pe].tlb.combine(entry, ipa ^ stage1, ipa);
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
        let page = pa & !(PAGE_SIZE - 1);
        let key = if self.setup.vivt {
            let virtual_page = |stage1| (ipa ^ stage1) & !(PAGE_SIZE - 1);
            let tag = self.pes[pe].stage1.map(virtual_page);
            tag.map(|tag| (tag, line, self.tag_of(pe)))
        } else {
            Some((page, line, self.colour(ipa)))
        };
        let frame = self.ram.frame(pa);
        let value = if is_cached {
            frame.lines[line].at_unification(self.setup.idc)
        } else {
            frame.lines[line].at_coherency()
        };
        let fresh = Fetched {
            value,
            page,
            tenancy: frame.tenancy,
        };
        match key {
            Some(key) if !self.setup.dic => self.pes[pe].icache.entry(key).or_insert(fresh).value,
            _ => fresh.value,
        }
    }

    /// What tells the lines of the VM on PE `pe` from others' where virtual addresses tag them: its VMID. No colour is so large.
    pub(super) fn tag_of(&self, pe: usize) -> u64 {
        1 << 16 | self.pes[pe].effective_vttbr >> 48
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
