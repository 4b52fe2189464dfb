//! A machine with sparse memory, for trees with blocks, that watches one thing: no page is free while it may be reached.

use alloc::rc::Rc;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use crate::addr::{Gva, PAGE_SIZE, Pa, PaRange};
use crate::features::{Coherence, Features, IdRegisters};
use crate::machine::{AtAborted, Dc, Dsb, El1, Ic, Machine, Tlbi};
use crate::page_pool::PagePool;
use crate::stage2::{Config, ResizePolicy, Stage2, Vmid};

/// Where its RAM begins: at a multiple of 1 GiB.
const RAM: u64 = 0x8_4000_0000;

pub(super) struct Plain {
    pub(super) pool: Rc<PagePool>,
    memory: BTreeMap<u64, Box<[u64; 512]>>,
    vttbr: u64,
    /// What a descriptor pointed to that was taken out, until all PEs have forgotten it.
    unlinked: Vec<Pa>,
    /// How far the broadcast has come.
    broadcast: Broadcast,
    /// How often one was over.
    pub(super) broadcasts: usize,
    pub(super) tlbis: Vec<Tlbi>,
    pub(super) vttbrs: Vec<u64>,
    /// How often something that was mapped was not any more.
    pub(super) breaks: usize,
    /// What was done since interrupts were taken last,
    now: Stretch,
    /// and the most of each at a time.
    pub(super) longest: Stretch,
}

/// Work without a window for interrupts.
#[derive(Clone, Copy, Default)]
pub(super) struct Stretch {
    /// Descriptors loaded.
    pub(super) loads: u64,
    /// Bytes zeroed.
    pub(super) zeroed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broadcast {
    None,
    /// Stage 2 was asked to go, and has gone.
    Stage2Asked,
    Stage2Gone,
    /// Everything was asked to go.
    AllAsked,
}

/// A run of pages that lie side by side in both spaces with the same bits: IPA, size, PA, bits.
pub(super) type Run = (u64, u64, u64, u64);

impl Plain {
    pub(super) fn new(bytes: u64) -> Self {
        let pool = PagePool::new();
        pool.add(PaRange::new(Pa::new(RAM), bytes).unwrap());
        Self {
            pool: Rc::new(pool),
            memory: BTreeMap::new(),
            vttbr: 0,
            unlinked: Vec::new(),
            broadcast: Broadcast::None,
            broadcasts: 0,
            tlbis: Vec::new(),
            vttbrs: Vec::new(),
            breaks: 0,
            now: Stretch::default(),
            longest: Stretch::default(),
        }
    }

    /// A tree with these features of the MMU: `ID_AA64MMFR1_EL1.HAFDBS`, `ID_AA64MMFR2_EL1.TTL`, `ID_AA64ISAR0_EL1.TLB`.
    pub(super) fn tree(&mut self, bits: u32, hafdbs: u64, ttl: u64, tlb: u64) -> Stage2 {
        let features = Features::new(&IdRegisters {
            mmfr0: 5,
            mmfr1: hafdbs,
            mmfr2: ttl << 48,
            isar0: tlb << 56,
            ..IdRegisters::default()
        });
        self.tree_of(Config::with_bits(bits, 0, &features).unwrap())
    }

    /// A tree of 48 bits with blocks and tables that take each other's place in one store: FEAT_BBM level 2, FWB and DIC.
    pub(super) fn tree_resized_in_place(&mut self) -> Stage2 {
        let features = Features::new(&IdRegisters {
            mmfr0: 5,
            mmfr2: 2 << 52 | 1 << 40,
            ctr: 1 << 29,
            ..IdRegisters::default()
        });
        let config = Config::with_bits(48, 0, &features).unwrap();
        self.tree_of(config.with_resize(ResizePolicy::InPlace))
    }

    fn tree_of(&mut self, config: Config) -> Stage2 {
        let pool = self.pool.clone();
        let rules = Coherence {
            fwb: true,
            idc: true,
            dic: true,
            pipt: true,
        };
        let tree = Stage2::new(self, &pool, config, Vmid(7), rules).unwrap();
        self.vttbr = tree.vttbr();
        tree
    }

    fn table(&mut self, at: Pa) -> &mut [u64; 512] {
        let empty = || Box::new([0; 512]);
        self.memory.entry(at.page().raw()).or_insert_with(empty)
    }

    fn watch(&self) {
        for page in &self.unlinked {
            assert!(
                self.pool.is_taken(*page),
                "{page} was freed before the broadcast was over"
            );
        }
    }

    /// Everything that is mapped, read from the tables by the manual's figures. What lies side by side is one run, however
    /// the tree is shaped. Of the bits, those that say what the guest has: rights, type, owner.
    pub(super) fn mapped(&self, tree: &Stage2) -> Vec<Run> {
        let mut runs = Vec::new();
        let start = u32::from(tree.config().start_level.number());
        for table in 0..tree.config().root_tables as u64 {
            let root = tree.root().raw() + table * PAGE_SIZE;
            self.collect(root, start, table << (12 + 9 * (4 - start)), &mut runs);
        }
        runs
    }

    fn collect(&self, table: u64, level: u32, base: u64, runs: &mut Vec<Run>) {
        let shift = 12 + 9 * (3 - level);
        let Some(entries) = self.memory.get(&table) else {
            return;
        };
        for (n, raw) in entries.iter().enumerate() {
            let ipa = base + ((n as u64) << shift);
            let oa = raw & 0x0000_ffff_ffff_f000;
            match raw & 3 {
                3 if level < 3 => self.collect(oa, level + 1, ipa, runs),
                3 | 1 if level > 0 && (raw & 2 != 0) == (level == 3) => {
                    // All but valid, type, AF and the address.
                    let bits = raw & !0x0000_ffff_ffff_f403;
                    match runs.last_mut() {
                        Some((at, size, pa, same))
                            if *at + *size == ipa && *pa + *size == oa && *same == bits =>
                        {
                            *size += 1 << shift;
                        }
                        _ => runs.push((ipa, 1 << shift, oa, bits)),
                    }
                }
                _ => assert!(raw & 1 == 0, "{raw:#x} at level {level}"),
            }
        }
    }
}

impl Plain {
    /// The hardware notes a store (FEAT_HAFDBS): if the leaf asks for it, S2AP write is set. Whether the store went through.
    pub(super) fn hardware_store(&mut self, tree: &Stage2, ipa: u64) -> bool {
        const DBM: u64 = 1 << 51;
        const S2AP_WRITE: u64 = 1 << 7;
        let (place, leaf) = tree.find(self, crate::addr::Ipa::new(ipa));
        let raw = leaf.raw();
        if raw & 1 == 1 && raw & DBM != 0 {
            self.table(place.table)[place.index] = raw | S2AP_WRITE;
        }
        raw & 1 == 1 && raw & (DBM | S2AP_WRITE) != 0
    }
}

impl Machine for Plain {
    fn cpu(&mut self) -> usize {
        0
    }

    fn load(&mut self, table: Pa, index: usize) -> u64 {
        self.watch();
        self.now.loads += 1;
        self.longest.loads = self.longest.loads.max(self.now.loads);
        assert!(self.pool.is_taken(table), "a walk through a free page");
        self.table(table)[index]
    }

    fn publish(&mut self, table: Pa, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.watch();
        assert!(self.pool.is_taken(table), "a store to a free page");
        let slot = &mut self.table(table)[index];
        if *slot != current {
            return Err(*slot);
        }
        *slot = new;
        self.breaks += usize::from(current & 1 == 1 && new & 1 == 0);
        let address = |raw: u64| raw & 0x0000_ffff_ffff_f000;
        if current & 1 == 1 && (new & 1 == 0 || address(current) != address(new)) {
            self.unlinked.push(Pa::new(address(current)));
            self.broadcast = Broadcast::None;
        }
        Ok(())
    }

    fn fill_table(&mut self, table: Pa, first: u64, step: u64) {
        for (n, slot) in self.table(table).iter_mut().enumerate() {
            *slot = first.wrapping_add(step.wrapping_mul(n as u64));
        }
    }

    fn zero(&mut self, pages: PaRange) {
        self.watch();
        self.now.zeroed += pages.size;
        self.longest.zeroed = self.longest.zeroed.max(self.now.zeroed);
        let range = pages.start.raw()..pages.end().raw();
        let held: Vec<u64> = self.memory.range(range).map(|(at, _)| *at).collect();
        held.iter().for_each(|at| {
            self.memory.remove(at);
        });
    }

    fn read(&mut self, _: Pa, _: &mut [u8]) {}

    fn write(&mut self, _: Pa, _: &[u8]) {}

    fn copy(&mut self, _: PaRange, _: Pa) {}

    fn dsb(&mut self, kind: Dsb) {
        self.watch();
        if kind != Dsb::Ish {
            return;
        }
        match self.broadcast {
            Broadcast::Stage2Asked => self.broadcast = Broadcast::Stage2Gone,
            Broadcast::AllAsked => {
                self.broadcast = Broadcast::None;
                self.broadcasts += 1;
                self.unlinked.clear();
            }
            Broadcast::None | Broadcast::Stage2Gone => {}
        }
    }

    fn isb(&mut self) {}

    fn tlbi(&mut self, op: Tlbi) {
        self.tlbis.push(op);
        match op {
            Tlbi::Ipas2e1Is(..) | Tlbi::Ripas2e1Is(_) => self.broadcast = Broadcast::Stage2Asked,
            Tlbi::Vmalle1Is if self.broadcast == Broadcast::Stage2Gone => {
                self.broadcast = Broadcast::AllAsked;
            }
            Tlbi::Vmalls12e1Is | Tlbi::Alle1Is => self.broadcast = Broadcast::AllAsked,
            _ => {}
        }
    }

    fn dc(&mut self, _: Dc, _: PaRange) {}

    fn ic(&mut self, _: Ic) {}

    fn vttbr(&mut self) -> u64 {
        self.vttbr
    }

    fn set_vttbr(&mut self, value: u64) {
        self.vttbrs.push(value);
        self.vttbr = value;
    }

    fn at_s1e1r(&mut self, _: Gva) -> Result<(), AtAborted> {
        Err(AtAborted)
    }

    fn par(&mut self) -> u64 {
        0
    }

    fn set_par(&mut self, _: u64) {}

    fn el1(&mut self, _: El1) -> u64 {
        0
    }

    fn set_el1(&mut self, _: El1, _: u64) {}

    fn interrupt_window(&mut self) {
        self.now = Stretch::default();
    }
}
