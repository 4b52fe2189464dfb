//! VMs on the model's hardware, as a hypervisor keeps them.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use super::baton::Lab;
use super::bits::{self, Kind};
use super::cpu::Cpu;
use super::hardware::{Hardware, MODULE_PAGES, MODULE_START, TreeView};
use super::memory::Owner;
use super::setup::{
    MODULE_PAGE, RAM_PAGES, RAM_START, ROM_PAGE, Setup, WINDOW_MEMORY, WINDOW_PAGES, WINDOW_START,
};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa};
use crate::content::{Content, Source};
use crate::exit::Abort;
use crate::fault::progress::Progress;
use crate::fault::{FaultingVcpu, GuestMemory, Resolution, VmMemory, resolve};
use crate::machine::{Dsb, Machine};
use crate::page_pool::{PagePool, RawBlock, RawPage};
use crate::registers::Registers;
use crate::slot::{Kind as SlotKind, Slot, Slots};
use crate::stage2::{Rights, Stage2, Vmid, Vmids, maintenance};
use crate::stats::Counters;

/// VMs in a world.
pub(super) const VMS: usize = 2;

/// One VM.
pub(super) struct Vm {
    /// Its number for the hardware.
    pub(super) tree: usize,
    pub(super) vmid: u16,
    memory: VmMemory,
    /// What the dirty log has to tell.
    pub(super) truth: Mutex<Truth>,
}

impl Deref for Vm {
    type Target = VmMemory;

    fn deref(&self) -> &VmMemory {
        &self.memory
    }
}

/// Which pages were written since the last harvest, and when.
#[derive(Default)]
pub(super) struct Truth {
    /// A log is kept, and was when the last store to it began.
    pub(super) is_logging: bool,
    /// Somebody starts, ends or harvests the log at the moment.
    pub(super) is_busy: bool,
    pub(super) written: BTreeMap<u64, u64>,
}

/// A vCPU: each CPU has two of each VM.
#[derive(Default)]
pub(super) struct Vcpu {
    pub(super) registers: Registers,
    pub(super) progress: Progress,
    pub(super) counters: Counters,
    pub(super) caches_off: bool,
}

/// What the stage 1 of a CPU's second vCPU changes in addresses: the page is another, its colour in a cache is the same.
const OTHER_STAGE1: u64 = 2 * PAGE_SIZE;

/// A CPU's place for a VM: one of two vCPUs has it, and the stage 1 of each is its own.
#[derive(Default)]
pub(super) struct Seat {
    vcpus: [Vcpu; 2],
    taken_by: usize,
}

impl Seat {
    /// Who has it.
    pub(super) const fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.vcpus[self.taken_by]
    }

    const fn stage1(&self) -> u64 {
        self.taken_by as u64 * OTHER_STAGE1
    }
}

/// Memory that was taken out of the pool.
#[derive(Default)]
pub(super) struct Starved {
    pub(super) blocks: Vec<RawBlock>,
    pub(super) pages: Vec<RawPage>,
}

impl Starved {
    fn count(&self) -> u64 {
        let in_blocks = self
            .blocks
            .iter()
            .map(|block| block.range().size / PAGE_SIZE);
        in_blocks.sum::<u64>() + self.pages.len() as u64
    }
}

/// Where a VM is kept.
#[derive(Clone)]
pub(super) enum Place {
    /// Somebody makes or ends it at the moment.
    Busy,
    Empty,
    Runs(Arc<Vm>),
}

/// Everything that all CPUs share.
pub(super) struct World {
    pub(super) lab: Arc<Lab>,
    pub(super) setup: Setup,
    pub(super) pool: Arc<PagePool>,
    /// So few that they are used up again and again.
    vmids: Vmids,
    pub(super) vms: [Mutex<Place>; VMS],
    /// Memory that somebody else has: the pool is dry.
    pub(super) starved: Mutex<Starved>,
    /// The empty tree of CPUs that run no VM.
    parked: Pa,
}

impl World {
    /// Made by CPU 0, before the others run.
    pub(super) fn new(hardware: Hardware) -> Self {
        let (setup, pool) = (hardware.setup, hardware.pool.clone());
        let lab = Lab::new(hardware);
        let mut m = Cpu::new(lab.clone(), 0);
        let parked = pool
            .take()
            .expect("a fresh pool has pages")
            .into_table(&mut m)
            .into_pa();
        let world = Self {
            lab,
            setup,
            pool,
            vmids: Vmids::with_bits(2),
            vms: [const { Mutex::new(Place::Busy) }; VMS],
            starved: Mutex::default(),
            parked,
        };
        for pe in &mut world.lab.hardware().pes {
            (pe.vttbr, pe.effective_vttbr) = (parked.raw(), parked.raw());
        }
        world
    }

    /// Makes VM `number`, whose place the caller has.
    pub(super) fn create(&self, number: usize, m: &mut Cpu) {
        let made = self.made(m);
        *self.vms[number].lock().unwrap() =
            made.map_or(Place::Empty, |vm| Place::Runs(Arc::new(vm)));
    }

    fn made(&self, m: &mut Cpu) -> Option<Vm> {
        let mut slots = Slots::default();
        let rom = Rights::READ.with(Rights::EXECUTE);
        let parts = [(0, ROM_PAGE, Rights::ALL), (ROM_PAGE, RAM_PAGES, rom)];
        let whole = [(0, self.setup.all_pages(), Rights::ALL)];
        let ram = if self.setup.gigabyte {
            &whole[..]
        } else {
            &parts[..]
        };
        for &(first, end, most) in ram {
            let start = Ipa::new(RAM_START + first * PAGE_SIZE);
            let range = IpaRange::new(start, (end - first) * PAGE_SIZE).unwrap();
            let kind = SlotKind::Ram(most);
            slots.add(Slot { range, kind }).unwrap();
        }
        let module = IpaRange::new(
            Ipa::new(RAM_START + MODULE_PAGE * PAGE_SIZE),
            MODULE_PAGES * PAGE_SIZE,
        )
        .unwrap();
        let window = IpaRange::new(Ipa::new(WINDOW_START), WINDOW_PAGES * PAGE_SIZE).unwrap();
        slots
            .add(Slot {
                range: window,
                kind: SlotKind::Window(Pa::new(WINDOW_MEMORY)),
            })
            .unwrap();
        let vmid = self.vmids.take(m).expect("there are more VMIDs than VMs");
        let (config, coherence) = (self.setup.config(), self.setup.coherence());
        let Ok(stage2) = Stage2::new(m, &self.pool, config, vmid, coherence) else {
            self.vmids.give(vmid);
            return None;
        };
        let mut hardware = self.lab.hardware();
        hardware.check_unused(vmid.0);
        let tree = hardware.trees.len();
        for n in 0..config.root_tables as u64 {
            let root = stage2.root().add(n * PAGE_SIZE).raw();
            let level = config.start_level.number();
            let ipa = n * 512 * bits::span(level);
            hardware.ram.frame_mut(root).owner = Owner::Table { tree, level, ipa };
        }
        hardware.trees.push(TreeView {
            vttbr: stage2.vttbr(),
            start_level: config.start_level.number(),
            hardware: (config.vtcr >> 21 & 1 == 1, config.vtcr >> 22 & 1 == 1),
            verbs: 0,
            is_dying: false,
        });
        drop(hardware);
        Some(Vm {
            tree,
            vmid: vmid.0,
            memory: VmMemory {
                stage2,
                slots,
                contents: if self.setup.gigabyte {
                    Vec::new()
                } else {
                    std::vec![Content::new(module, Source::Memory(Pa::new(MODULE_START)))]
                },
                rights: self.setup.rights(),
                granule: self.setup.granule(),
                erratum_834220: false,
                guest_errors_trap: true,
            },
            truth: Mutex::default(),
        })
    }

    pub(super) fn vm(&self, number: usize) -> Option<Arc<Vm>> {
        match &*self.vms[number].lock().unwrap() {
            Place::Runs(vm) => Some(vm.clone()),
            Place::Busy | Place::Empty => None,
        }
    }

    /// Ends a VM that nobody is busy with, and keeps its place; answers whether that could be.
    pub(super) fn destroy(&self, number: usize, m: &mut Cpu) -> bool {
        let taken = {
            let mut place = self.vms[number].lock().unwrap();
            match std::mem::replace(&mut *place, Place::Busy) {
                Place::Busy => return false,
                Place::Empty => return true,
                Place::Runs(vm) => match Arc::try_unwrap(vm) {
                    Ok(vm) => vm,
                    Err(busy) => {
                        *place = Place::Runs(busy);
                        return false;
                    }
                },
            }
        };
        // No vCPU of it runs, and no CPU is on its tables: what the owner of the run loop sees to.
        {
            let mut hardware = self.lab.hardware();
            hardware.trees[taken.tree].is_dying = true;
            for n in 0..hardware.pes.len() {
                hardware.drain(n);
                let pe = &mut hardware.pes[n];
                if pe.vttbr == taken.stage2.vttbr() {
                    (pe.vttbr, pe.effective_vttbr) = (self.parked.raw(), self.parked.raw());
                }
            }
        }
        m.dsb(Dsb::Nsh);
        taken.memory.stage2.destroy(m, &self.pool);
        let hardware = self.lab.hardware();
        for (n, pe) in hardware.pes.iter().enumerate() {
            let left = pe.tlb.entries().find(|entry| entry.vmid == taken.vmid);
            assert!(
                left.is_none(),
                "I18, CPU {n} holds {left:x?} of a VM that is gone"
            );
            let way = pe.tlb.ways.iter().find(|way| way.vmid == taken.vmid);
            assert!(
                way.is_none(),
                "I18, CPU {n} holds {way:x?} of a VM that is gone"
            );
        }
        drop(hardware);
        self.vmids.give(Vmid(taken.vmid));
        true
    }

    /// Puts CPU `m` on the VM's tables, as the run loop does before it enters a vCPU.
    pub(super) fn run_on(&self, vm: &Vm, seat: &Seat, m: &Cpu) {
        let mut hardware = self.lab.hardware();
        let pe = &mut hardware.pes[m.index];
        (pe.vttbr, pe.effective_vttbr) = (vm.stage2.vttbr(), vm.stage2.vttbr());
        pe.stage1 = Some(seat.stage1());
        pe.walks_ended = false;
    }

    /// The other vCPU takes the place of the one that has it, as the run loop has it do.
    pub(super) fn switch(&self, vm: &Vm, seat: &mut Seat, m: &mut Cpu) {
        self.run_on(vm, seat, m);
        self.lab.hardware().pes[m.index].stage1 = None;
        maintenance::change_vcpu(m);
        seat.taken_by ^= 1;
    }

    /// One exit of a vCPU, through the real fault handler.
    pub(super) fn resolve(
        &self,
        vm: &Vm,
        vcpu: &mut Vcpu,
        abort: &Abort,
        m: &mut Cpu,
    ) -> Resolution {
        let memory = GuestMemory {
            vm: &vm.memory,
            pool: &self.pool,
        };
        let mut faulting = FaultingVcpu {
            registers: &vcpu.registers,
            progress: &mut vcpu.progress,
            counters: &vcpu.counters,
        };
        resolve(memory, &mut faulting, abort, m)
    }

    /// Whether so few pages are left that a verb may have to say so.
    pub(super) fn is_short_of_pages(&self) -> bool {
        let account = self.pool.account();
        account.total - account.taken < 16
    }

    pub(super) fn feed(&self) {
        let Starved { blocks, pages } = std::mem::take(&mut *self.starved.lock().unwrap());
        for block in blocks {
            self.pool.give_block(block.into_owned());
        }
        for page in pages {
            self.pool.give(page.into_owned());
        }
    }

    /// What is out of the pool is in a tree or in our hands.
    pub(super) fn check_account(&self) {
        let trees: u64 = (0..VMS)
            .filter_map(|n| self.vm(n))
            .map(|vm| vm.stage2.page_count() + vm.stage2.table_count())
            .sum();
        let held = self.starved.lock().unwrap().count();
        assert_eq!(
            self.pool.account().taken,
            trees + held + 1,
            "I10, pages were lost"
        );
        for vm in (0..VMS).filter_map(|n| self.vm(n)) {
            assert_eq!(
                self.lab.hardware().translation(vm.tree).own_pages,
                vm.stage2.page_count(),
                "I1, what is mapped is what is counted"
            );
        }
    }

    /// All VMs are gone: nothing is out but the page that CPUs are parked on.
    pub(super) fn check_end(&self) {
        assert_eq!(self.pool.account().taken, 1, "I10, pages were lost");
    }
}

/// Where a page of guest RAM goes: the output, the rights, the level.
pub(super) type Mapping = (u64, [bool; 3], u8);

/// What a tree says of guest RAM.
#[derive(PartialEq, Eq)]
pub(super) struct Translation {
    /// The pages that somebody looks at, by IPA.
    pub(super) pages: BTreeMap<u64, Mapping>,
    /// How many pages of the pool are mapped, seen or not.
    pub(super) own_pages: u64,
}

impl Hardware {
    /// I18: nobody lives under this VMID, and nobody's entries are left.
    fn check_unused(&self, vmid: u16) {
        let mut living = self.trees.iter().filter(|tree| !tree.is_dying);
        assert!(
            living.all(|tree| tree.vmid() != vmid),
            "I18, VMID {vmid} is given to two VMs"
        );
        for (n, pe) in self.pes.iter().enumerate() {
            let left = pe.tlb.entries().find(|entry| entry.vmid == vmid);
            assert!(
                left.is_none(),
                "I18, CPU {n} holds {left:x?} of whoever had VMID {vmid}"
            );
        }
    }

    /// All of guest RAM as an independent walk sees it.
    pub(super) fn translation(&self, tree: usize) -> Translation {
        let end = RAM_START + self.setup.all_pages() * PAGE_SIZE;
        let by_hardware = self.trees[tree].hardware.1;
        let (mut pages, mut own_pages) = (Vec::new(), 0);
        let mut ipa = RAM_START;
        while ipa < end {
            let (table, first, level) = self.live_place(tree, ipa);
            let (table, size) = (self.ram.frame(table), bits::span(level));
            for index in first..512 {
                let leaf = table.descriptor(index);
                if ipa >= end || matches!(bits::kind(leaf, level), Kind::Table(_)) {
                    break;
                }
                if bits::kind(leaf, level) == Kind::Leaf {
                    let (pa, mut rights) = (bits::address(leaf), bits::rights(leaf));
                    // What the hardware gives by itself is given.
                    rights[1] |= by_hardware && leaf & bits::DBM != 0;
                    own_pages += if pa < MODULE_START {
                        size / PAGE_SIZE
                    } else {
                        0
                    };
                    for (start, end) in self.setup.looked_at() {
                        let seen =
                            (ipa.max(start)..(ipa + size).min(end)).step_by(PAGE_SIZE as usize);
                        pages.extend(seen.map(|at| (at, (pa + (at - ipa), rights, level))));
                    }
                }
                ipa += size;
            }
        }
        Translation {
            pages: pages.into_iter().collect(),
            own_pages,
        }
    }
}
