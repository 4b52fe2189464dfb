//! Every interleaving of two pCPUs at the pool and its stocks.

use crate::addr::{PAGE_SIZE, Pa, PaRange};
use crate::page_pool::{OwnedPage, PagePool, RawPage, ZeroedPage};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::vec::Vec;

/// Pages of RAM; loom's cell panics where one pCPU's zeroing and another's use are not ordered.
const PAGES: usize = 4;

struct World {
    pool: PagePool,
    memory: [UnsafeCell<()>; PAGES],
}

impl World {
    fn new(pages: usize) -> Arc<Self> {
        let pool = PagePool::new();
        pool.add(PaRange::new(Pa::new(0), pages as u64 * PAGE_SIZE).unwrap());
        let memory = core::array::from_fn(|_| UnsafeCell::new(()));
        Arc::new(Self { pool, memory })
    }

    fn write(&self, page: &OwnedPage) {
        let number = (page.pa().raw() / PAGE_SIZE) as usize;
        self.memory[number].with_mut(|_| ());
    }

    fn zero(&self, page: RawPage) -> ZeroedPage {
        let page = page.into_owned();
        self.write(&page);
        ZeroedPage::new(page, true)
    }

    /// Takes a page as a fault does, and uses it.
    fn fault(&self, cpu: usize) -> Option<OwnedPage> {
        let page = match self.pool.take_zeroed(cpu) {
            Some(page) => page.into_owned(),
            None => self.pool.take_raw(cpu)?.into_owned(),
        };
        self.write(&page);
        Some(page)
    }

    fn prepare(&self, cpu: usize) {
        self.pool.prepare(cpu, |page| self.zero(page));
    }
}

type Work = fn(&World, usize) -> Vec<OwnedPage>;

/// Runs `other` on pCPU 1 and `own` on pCPU 0 of a machine with `pages` pages, which all are taken at the end, once each.
fn explore(pages: usize, own: Work, other: Work, taken: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let world = World::new(pages);
        let theirs = {
            let world = world.clone();
            thread::spawn(move || other(&world, 1))
        };
        let mut held = own(&world, 0);
        held.extend(theirs.join().unwrap());
        assert_eq!(held.len(), taken, "nobody was refused a page that was free");
        assert_eq!(world.pool.account().taken, taken as u64);
        held.extend(core::iter::from_fn(|| world.fault(0)));
        let mut numbers: Vec<u64> = held.iter().map(|page| page.pa().raw()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!((numbers.len(), held.len()), (pages, pages));
    });
}

fn one(world: &World, cpu: usize) -> Vec<OwnedPage> {
    world.fault(cpu).into_iter().collect()
}

fn two(world: &World, cpu: usize) -> Vec<OwnedPage> {
    (0..2).filter_map(|_| world.fault(cpu)).collect()
}

fn prepare_only(world: &World, cpu: usize) -> Vec<OwnedPage> {
    world.prepare(cpu);
    Vec::new()
}

fn prepare_then_take(world: &World, cpu: usize) -> Vec<OwnedPage> {
    world.prepare(cpu);
    one(world, cpu)
}

fn take_and_keep(world: &World, cpu: usize) -> Vec<OwnedPage> {
    if let Some(page) = world.fault(cpu) {
        world.pool.keep_zeroed(cpu, ZeroedPage::new(page, true));
    }
    Vec::new()
}

/// The last page lies in somebody's stock.
#[test]
fn loom_two_pcpus_take_the_last_pages() {
    explore(3, one, two, 3);
}

/// The page that is being zeroed is waited for.
#[test]
fn loom_an_idle_pcpu_keeps_no_page_from_one_that_needs_it() {
    explore(2, two, prepare_only, 2);
}

#[test]
fn loom_preparing_and_taking_on_both_sides() {
    explore(3, prepare_then_take, prepare_then_take, 2);
}

#[test]
fn loom_a_page_put_back_is_taken_once() {
    explore(3, one, take_and_keep, 1);
}
