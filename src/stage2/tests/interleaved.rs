//! Every interleaving of two pCPUs that change the same descriptors: each mapping is there once, and no right is lost.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use crate::addr::{Gva, Ipa, PAGE_SIZE, Pa, PaRange};
use crate::features::{Coherence, Features, IdRegisters};
use crate::machine::{AtAborted, Dc, Dsb, El1, Ic, Machine, Tlbi};
use crate::page_pool::PagePool;
use crate::stage2::{Config, Grant, Leaf, Mapped, Relaxed, Rights, Stage2, Tables, Vmid};

const START: u64 = 0x8_4000_0000;
/// Root, tables of two levels for each pCPU, a page for each, and one to spare.
const PAGES: u64 = 8;
const IPA: Ipa = Ipa::new(0x4020_1000);
const RW: Rights = Rights::READ.with(Rights::WRITE);
/// Everything is coherent: what is explored is the tables.
const COHERENT: Coherence = Coherence {
    fwb: true,
    idc: true,
    dic: true,
    pipt: true,
};

/// Of each page one descriptor, if it is a table: the one that is on the way to [`IPA`], whose index is 1 at every level.
/// All others are zero.
struct Memory([AtomicU64; PAGES as usize]);

const ON_THE_WAY: usize = 1;

impl Memory {
    fn descriptor(&self, table: Pa) -> &AtomicU64 {
        &self.0[((table.raw() - START) / PAGE_SIZE) as usize]
    }
}

/// One pCPU. What it is told of TLBs and caches is the hardware model's concern.
struct Cpu {
    number: usize,
    memory: Arc<Memory>,
}

impl Machine for Cpu {
    fn cpu(&mut self) -> usize {
        self.number
    }

    fn load(&mut self, table: Pa, index: usize) -> u64 {
        match index {
            ON_THE_WAY => self.memory.descriptor(table).load(Ordering::Acquire),
            _ => 0,
        }
    }

    fn publish(&mut self, table: Pa, index: usize, current: u64, new: u64) -> Result<(), u64> {
        assert_eq!(index, ON_THE_WAY);
        self.memory
            .descriptor(table)
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
    }

    /// All tables of these tests begin with zeroes, and none is used a second time.
    fn fill_table(&mut self, _table: Pa, first: u64, step: u64) {
        assert_eq!((first, step), (0, 0));
    }

    fn zero(&mut self, _pages: PaRange) {}
    fn read(&mut self, _at: Pa, _bytes: &mut [u8]) {}
    fn write(&mut self, _at: Pa, _bytes: &[u8]) {}
    fn copy(&mut self, _from: PaRange, _to: Pa) {}
    fn dsb(&mut self, _kind: Dsb) {}
    fn isb(&mut self) {}
    fn tlbi(&mut self, _op: Tlbi) {}
    fn dc(&mut self, _op: Dc, _range: PaRange) {}
    fn ic(&mut self, _op: Ic) {}

    fn vttbr(&mut self) -> u64 {
        0
    }

    fn set_vttbr(&mut self, _value: u64) {}

    fn at_s1e1r(&mut self, _va: Gva) -> Result<(), AtAborted> {
        Err(AtAborted)
    }

    fn par(&mut self) -> u64 {
        0
    }

    fn set_par(&mut self, _value: u64) {}

    fn el1(&mut self, _register: El1) -> u64 {
        0
    }

    fn set_el1(&mut self, _register: El1, _value: u64) {}
    fn interrupt_window(&mut self) {}
}

struct World {
    memory: Arc<Memory>,
    pool: PagePool,
    stage2: Stage2,
}

impl World {
    fn new() -> Arc<Self> {
        let pool = PagePool::new();
        pool.add(PaRange::new(Pa::new(START), PAGES * PAGE_SIZE).unwrap());
        let memory = Arc::new(Memory(core::array::from_fn(|_| AtomicU64::new(0))));
        let mut m = Cpu {
            number: 0,
            memory: memory.clone(),
        };
        let features = Features::new(&IdRegisters {
            mmfr0: 5,
            ..IdRegisters::default()
        });
        let config = Config::for_highest(u32::MAX.into(), &features).unwrap();
        let stage2 = Stage2::new(&mut m, &pool, config, Vmid(7), COHERENT).unwrap();
        Arc::new(Self {
            memory,
            pool,
            stage2,
        })
    }

    fn cpu(&self, number: usize) -> Cpu {
        Cpu {
            number,
            memory: self.memory.clone(),
        }
    }

    /// Maps a page, as translation faults do until one is there; answers whether it was this pCPU's.
    fn map(&self, m: &mut Cpu, rights: Rights) -> bool {
        while let Leaf::Absent(absent) = self.stage2.walk().leaf(m, IPA) {
            let mut tables = Tables::prepare(m, &self.pool, absent.tables_needed()).unwrap();
            let page = self.pool.take().unwrap().zeroed(m, &COHERENT);
            let mapped = absent.map(m, page, Grant::data(rights), &mut tables);
            tables.give_back(&self.pool);
            match mapped {
                Mapped::Installed => return true,
                Mapped::Raced { page, .. } => self.pool.give(page.into_owned()),
            }
        }
        false
    }

    /// Adds W or X, as a permission fault does; answers whether the leaf has it now.
    fn relax(&self, m: &mut Cpu, executes: bool) -> bool {
        let Leaf::Present(present) = self.stage2.walk().leaf(m, IPA) else {
            return false;
        };
        let grant = match executes {
            true => {
                let page = present.output();
                let ready = super::mt::make_executable(m, page, &COHERENT);
                Grant::data(Rights::READ).and_execute(ready)
            }
            false => Grant::data(RW),
        };
        !matches!(present.relax(m, grant), Relaxed::Raced { .. })
    }

    fn rights(&self, m: &mut Cpu) -> Option<Rights> {
        match self.stage2.walk().leaf(m, IPA) {
            Leaf::Present(present) => Some(present.rights()),
            Leaf::Absent(_) => None,
        }
    }

    /// What is out of the pool is in the tree.
    fn check_account(&self) {
        let tree = self.stage2.page_count() + self.stage2.table_count();
        assert_eq!(self.pool.account().taken, tree, "pages were lost");
    }
}

/// Runs `own` on pCPU 0 and `other` on pCPU 1, in every order with so many preemptions, after `before`; then `after`.
fn explore(
    preemptions: usize,
    before: fn(&World, &mut Cpu),
    own: fn(&World, &mut Cpu) -> bool,
    other: fn(&World, &mut Cpu) -> bool,
    after: fn(&World, &mut Cpu, [bool; 2]),
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 20_000;
    model.check(move || {
        let world = World::new();
        before(&world, &mut world.cpu(0));
        let theirs = {
            let world = world.clone();
            thread::spawn(move || other(&world, &mut world.cpu(1)))
        };
        let mine = own(&world, &mut world.cpu(0));
        let theirs = theirs.join().unwrap();
        after(&world, &mut world.cpu(0), [mine, theirs]);
        world.check_account();
    });
}

/// Both miss the tables, too, and each brings its own.
#[test]
fn loom_two_pcpus_map_one_page_and_one_does() {
    explore(
        3,
        |_, _| {},
        |world, m| world.map(m, RW),
        |world, m| world.map(m, RW),
        |world, m, mapped| {
            assert_eq!(mapped.iter().filter(|did| **did).count(), 1);
            assert_eq!(world.rights(m), Some(RW));
            assert_eq!(world.stage2.page_count(), 1);
        },
    );
}

/// Two rights at once, one each: both stay.
#[test]
fn loom_no_right_is_lost_that_two_pcpus_give_at_once() {
    explore(
        5,
        |world, m| assert!(world.map(m, Rights::READ)),
        |world, m| world.relax(m, false),
        |world, m| world.relax(m, true),
        |world, m, relaxed| {
            assert_eq!(relaxed, [true; 2]);
            assert_eq!(world.rights(m), Some(Rights::ALL));
        },
    );
}

/// One takes the page away while the other gives it a right: it is gone, and no half of it is left.
#[test]
fn loom_what_is_unmapped_is_not_relaxed() {
    // A changer looks at every pCPU's place at the gate.
    explore(
        2,
        |world, m| assert!(world.map(m, Rights::READ)),
        |world, m| {
            let page = crate::addr::IpaRange::new(IPA, PAGE_SIZE).unwrap();
            world.stage2.unmap(m, page, &world.pool).is_ok()
        },
        |world, m| world.relax(m, false),
        |world, m, [unmapped, _]| {
            assert!(unmapped);
            assert_eq!(world.rights(m), None);
            assert_eq!(world.stage2.page_count(), 0);
        },
    );
}
