//! A VM's memory, a vCPU that faults on it, and the machine beneath.

use std::ops::Deref;
use std::rc::Rc;
use std::vec::Vec;

use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa, PaRange};
use crate::content::Content;
use crate::exit::{Abort, Need};
use crate::fault::progress::Progress;
use crate::fault::{
    FaultingVcpu, GranulePolicy, GuestMemory, Resolution, RightsPolicy, VmMemory, resolve,
};
use crate::features::{Coherence, Features, IdRegisters};
use crate::machine::recorder::Recorder;
use crate::page_pool::PagePool;
use crate::registers::Registers;
use crate::slot::{Kind, Slot, Slots};
use crate::stage2::{Config, Rights, Stage2, Vmid};
use crate::stats::Counters;

pub(super) const RAM_START: u64 = 0x4000_0000;
pub(super) const RAM_SIZE: u64 = 0x0400_0000;
pub(super) const DEVICE: u64 = 0x0900_0000;
pub(super) const WINDOW: u64 = 0x0801_0000;
pub(super) const WINDOW_PA: u64 = 0x0804_0000;
pub(super) const PC: u64 = 0x4008_0000;

/// A CPU like the Cortex-A72: PIPT, and nothing is free.
pub(super) const A72: Coherence = Coherence {
    fwb: false,
    idc: false,
    dic: false,
    pipt: true,
};

pub(super) fn coherence(bits: u32) -> Coherence {
    Coherence {
        fwb: bits & 1 != 0,
        idc: bits & 2 != 0,
        dic: bits & 4 != 0,
        pipt: bits & 8 != 0,
    }
}

/// What all vCPUs of a VM share.
pub(super) struct Shared {
    pub(super) memory: VmMemory,
    pub(super) pool: Rc<PagePool>,
}

impl Deref for Shared {
    type Target = VmMemory;

    fn deref(&self) -> &VmMemory {
        &self.memory
    }
}

impl Shared {
    /// One exit of a vCPU.
    pub(super) fn resolve(
        &self,
        vcpu: &mut TestVcpu,
        abort: &Abort,
        m: &mut Recorder,
    ) -> Resolution {
        let mut faulting = FaultingVcpu {
            registers: &vcpu.registers,
            progress: &mut vcpu.progress,
            counters: &vcpu.counters,
        };
        let memory = GuestMemory {
            vm: &self.memory,
            pool: &self.pool,
        };
        resolve(memory, &mut faulting, abort, m)
    }

    /// Touches `ipa` until the access succeeds; answers how many faults it took.
    pub(super) fn touch(&self, vcpu: &mut TestVcpu, ipa: u64, need: Need, m: &mut Recorder) -> u32 {
        for faults in 0..8 {
            m.enter_guest();
            let Err(abort) = m.access(ipa, need) else {
                return faults;
            };
            assert_eq!(self.resolve(vcpu, &abort, m), Resolution::Retry);
        }
        panic!("{need:?} of {ipa:#x} gets nowhere");
    }
}

#[derive(Default)]
pub(super) struct TestVcpu {
    pub(super) registers: Registers,
    pub(super) progress: Progress,
    pub(super) counters: Counters,
}

impl TestVcpu {
    pub(super) fn at_pc() -> Self {
        Self {
            registers: Registers::entering(PC),
            ..Self::default()
        }
    }
}

pub(super) struct World {
    pub(super) m: Recorder,
    pub(super) shared: Rc<Shared>,
    pub(super) vcpu: TestVcpu,
}

/// How a world differs from the usual one.
pub(super) struct Setup {
    pub(super) coherence: Coherence,
    pub(super) rights: RightsPolicy,
    pub(super) granule: GranulePolicy,
    /// RAM: where, how much, and what a guest may do there.
    pub(super) ram: Vec<(u64, u64, Rights)>,
    pub(super) pages: u64,
    pub(super) highest: u64,
    pub(super) erratum_834220: bool,
    pub(super) guest_errors_trap: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            coherence: A72,
            rights: RightsPolicy::Lazy,
            granule: GranulePolicy::Page,
            ram: Vec::from([(RAM_START, RAM_SIZE, Rights::ALL)]),
            pages: 64,
            highest: RAM_START + RAM_SIZE - 1,
            erratum_834220: false,
            guest_errors_trap: true,
        }
    }
}

pub(super) fn config(highest: u64) -> Config {
    let features = Features::new(&IdRegisters {
        mmfr0: 5,
        ..IdRegisters::default()
    });
    Config::for_highest(highest, &features).unwrap()
}

impl Setup {
    pub(super) fn build(self) -> World {
        self.build_with(|_, _| Vec::new())
    }

    pub(super) fn build_with(
        self,
        contents: impl FnOnce(&mut Recorder, &PagePool) -> Vec<Content>,
    ) -> World {
        let mut m = Recorder::new(self.pages, self.coherence);
        let pool = m.pool.clone();
        let mut slots = Slots::default();
        let ram = self.ram.iter();
        let ram = ram.map(|(start, size, most)| (*start, *size, Kind::Ram(*most)));
        for (start, size, kind) in ram.chain([
            (DEVICE, PAGE_SIZE, Kind::Device(2)),
            (WINDOW, 2 * PAGE_SIZE, Kind::Window(Pa::new(WINDOW_PA))),
        ]) {
            let range = IpaRange::new(Ipa::new(start), size).unwrap();
            slots.add(Slot { range, kind }).unwrap();
        }
        m.add_window(PaRange::new(Pa::new(WINDOW_PA), 2 * PAGE_SIZE).unwrap());
        let stage2 =
            Stage2::new(&mut m, &pool, config(self.highest), Vmid(3), self.coherence).unwrap();
        m.watch(&stage2);
        let memory = VmMemory {
            slots,
            stage2,
            contents: contents(&mut m, &pool),
            rights: self.rights,
            granule: self.granule,
            erratum_834220: self.erratum_834220,
            guest_errors_trap: self.guest_errors_trap,
        };
        let shared = Shared { memory, pool };
        World {
            m,
            shared: Rc::new(shared),
            vcpu: TestVcpu::at_pc(),
        }
    }
}

impl World {
    pub(super) fn new() -> Self {
        Setup::default().build()
    }

    pub(super) fn resolve(&mut self, abort: &Abort) -> Resolution {
        self.shared.resolve(&mut self.vcpu, abort, &mut self.m)
    }

    pub(super) fn touch(&mut self, ipa: u64, need: Need) -> u32 {
        self.shared.touch(&mut self.vcpu, ipa, need, &mut self.m)
    }

    /// Every page that is out is in the tree.
    pub(super) fn nothing_leaked(&self) -> bool {
        let held: usize = self.shared.contents.iter().map(Content::page_count).sum();
        let tree = self.shared.stage2.page_count() + self.shared.stage2.table_count();
        self.shared.pool.account().taken == tree + held as u64
    }

    /// Ends the VM: its account must close.
    pub(super) fn end(mut self) {
        assert!(self.nothing_leaked());
        let shared = Rc::into_inner(self.shared).expect("nobody else holds the VM");
        self.m.park();
        let memory = shared.memory;
        memory.stage2.destroy(&mut self.m, &shared.pool);
        memory
            .contents
            .into_iter()
            .for_each(|content| content.give_back(&shared.pool));
        assert_eq!(shared.pool.account().taken, 0);
    }
}
