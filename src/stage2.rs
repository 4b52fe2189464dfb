//! Stage 2: a VM's own translation from IPA to PA, and the only way to change it.
//!
//! The tree starts empty and grows by fault. It knows nothing of VMs, slots or faults; it is handed pages and told what to
//! do with them. [`walk`] has the verbs, [`maintenance`] the barrier, TLB and cache sequences, [`descriptor`] the bits,
//! [`config`] the shape, [`gate`] who may be in the tree at once.
//!
//! Guarantees: a verb does all of its work or none; a page in the tree is owned by its descriptor; rights only grow by
//! `relax`; X is granted only with the proof that fetches are coherent.
//!
//! Source: DDI 0487 "The AArch64 Virtual Memory System Architecture", stage 2.

pub mod absent;
pub mod clean;
pub mod config;
pub mod descriptor;
mod dirty;
mod flush;
pub mod gate;
mod grant;
mod group;
pub mod maintenance;
pub mod present;
mod range;
mod reshape;
mod tables;
mod unmap;
pub mod vmid;
pub mod walk;

pub use absent::{Absent, Claim, Mapped, Neighbours, Supply};
pub use clean::{CleanBlock, CleanPage, Lent};
pub use config::{Config, ConfigError, ResizePolicy};
pub use descriptor::{Descriptor, Level, Memory, Rights, View};
pub use dirty::LogError;
pub use gate::Gate;
pub use grant::Grant;
pub use present::{Present, Relaxed, Replaced};
pub use range::Ages;
pub use tables::Tables;
pub use vmid::{Vmid, Vmids};
pub use walk::{Leaf, Translation, Walk};

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::RwLock;

use crate::addr::{PAGE_SIZE, Pa};
use crate::features::Coherence;
use crate::machine::{MAX_CPUS, Machine};
use crate::page_pool::{OwnedPage, PagePool};
use dirty::DirtyLog;

/// `VTTBR_EL2.BADDR`.
const VTTBR_BADDR: u64 = 0x0000_ffff_ffff_fffe;

/// The value of `VTTBR_EL2`: root and VMID as one, never written by halves.
#[must_use]
pub const fn vttbr(root: Pa, vmid: Vmid) -> u64 {
    (vmid.0 as u64) << 48 | root.raw()
}

/// A VM's stage-2 tree.
pub struct Stage2 {
    root: Pa,
    config: Config,
    vmid: Vmid,
    coherence: Coherence,
    gate: Gate,
    pages: AtomicU64,
    tables: AtomicU64,
    /// Whether `log` is there, for those who pass by.
    logging: AtomicBool,
    log: RwLock<Option<DirtyLog>>,
}

/// The pool has not enough pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfPages;

impl Stage2 {
    /// An empty tree: root tables of invalid descriptors.
    ///
    /// # Errors
    /// [`OutOfPages`] if the pool has no aligned run for the root.
    pub fn new<M: Machine>(
        m: &mut M,
        pool: &PagePool,
        config: Config,
        vmid: Vmid,
        coherence: Coherence,
    ) -> Result<Self, OutOfPages> {
        let mut roots = pool
            .take_aligned(config.root_tables)
            .ok_or(OutOfPages)?
            .into_iter();
        let first = roots.next().ok_or(OutOfPages)?.into_table(m).into_pa();
        roots.for_each(|page| {
            page.into_table(m).into_pa();
        });
        maintenance::after_map(m);
        let tables = AtomicU64::new(config.root_tables as u64);
        Ok(Self {
            root: first,
            config,
            vmid,
            coherence,
            gate: Gate::new(MAX_CPUS),
            pages: AtomicU64::new(0),
            tables,
            logging: AtomicBool::new(false),
            log: RwLock::new(None),
        })
    }

    /// Its shape.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The first root table.
    #[must_use]
    pub const fn root(&self) -> Pa {
        self.root
    }

    /// `VTTBR_EL2` for a vCPU of this VM.
    #[must_use]
    pub const fn vttbr(&self) -> u64 {
        vttbr(self.root, self.vmid)
    }

    /// The tag of its TLB entries.
    #[must_use]
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }

    /// The cache rules of the CPUs that run it.
    #[must_use]
    pub const fn coherence(&self) -> &Coherence {
        &self.coherence
    }

    /// Pages of guest memory in the tree.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Table pages, the root's among them.
    #[must_use]
    pub fn table_count(&self) -> u64 {
        self.tables.load(Ordering::Relaxed)
    }

    const fn memory(&self) -> Memory {
        Memory::Normal {
            forced: self.coherence.fwb,
        }
    }

    fn note_pages(&self, pages: u64) {
        self.pages.fetch_add(pages, Ordering::Relaxed);
    }

    fn note_gone(&self, pages: u64, tables: u64) {
        self.pages.fetch_sub(pages, Ordering::Relaxed);
        self.tables.fetch_sub(tables, Ordering::Relaxed);
    }

    fn note_table(&self, table: OwnedPage) -> Pa {
        self.tables.fetch_add(1, Ordering::Relaxed);
        table.into_pa()
    }

    /// Takes the tree apart and gives every page back to `pool`: guest pages it owns and tables. No vCPU of the VM runs,
    /// none will, and this PE's `VTTBR_EL2` points elsewhere, so that no walk can start in it.
    ///
    /// # Panics
    /// If it finds another number of pages than it was given: the account must close.
    pub fn destroy<M: Machine>(self, m: &mut M, pool: &PagePool) {
        // Whatever empty tree this PE is parked on, under the VMID to be dropped.
        let parked = Pa::new(m.vttbr() & VTTBR_BADDR);
        maintenance::under_vttbr(m, vttbr(parked, self.vmid), maintenance::invalidate_vmid);
        let mut freed = Freed::default();
        for table in 0..self.config.root_tables as u64 {
            free_table(
                m,
                pool,
                self.root.add(table * PAGE_SIZE),
                self.config.start_level,
                &mut freed,
            );
        }
        assert_eq!(
            freed.pages,
            self.page_count(),
            "every page that was mapped came back"
        );
        assert_eq!(
            freed.tables,
            self.table_count(),
            "every table that was linked came back"
        );
    }
}

#[derive(Default)]
struct Freed {
    pages: u64,
    tables: u64,
}

/// Gives back a table and what hangs below it. Bounded: as deep as the levels, as wide as the tables.
fn free_table<M: Machine>(m: &mut M, pool: &PagePool, table: Pa, level: Level, freed: &mut Freed) {
    for index in 0..512 {
        let desc = Descriptor::from_raw(m.load(table, index));
        match desc.view(level) {
            View::Table(next) => free_table(m, pool, next, level.next(), freed),
            View::Leaf(oa, _) if desc.is_owned() => {
                freed.pages += level.pages();
                unmap::give(pool, oa, level);
            }
            View::Leaf(..) | View::Invalid => {}
        }
    }
    freed.tables += 1;
    pool.give(OwnedPage::from_descriptor(table));
    m.interrupt_window();
}

#[cfg(test)]
mod tests;
