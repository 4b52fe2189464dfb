//! What a fault is met with, and what may be answered.

use alloc::vec::Vec;
use core::ops::Deref;

use crate::addr::{IpaRange, PaRange};
use crate::content::Content;
use crate::exit::Transfer;
use crate::fault::inject::Exception;
use crate::fault::progress::Progress;
use crate::fault::{Emulation, GranulePolicy, RightsPolicy, Stop};
use crate::page_pool::PagePool;
use crate::registers::Registers;
use crate::slot::Slots;
use crate::stage2::Stage2;
use crate::stats::Counters;

/// The memory of a VM.
pub struct VmMemory {
    /// What lies where.
    pub slots: Slots,
    /// What is mapped.
    pub stage2: Stage2,
    /// What pages hold at first.
    pub contents: Contents,
    /// How fast rights grow.
    pub rights: RightsPolicy,
    /// How much one fault brings.
    pub granule: GranulePolicy,
    /// The CPUs have erratum 834220.
    pub erratum_834220: bool,
    /// `HCR_EL2.TEA`: external aborts of the guest's own accesses and walks come to EL2.
    pub guest_errors_trap: bool,
}

impl VmMemory {
    /// The contents that have a part in `leaf`.
    #[inline(always)]
    pub(super) fn contents_of(&self, leaf: IpaRange) -> impl Iterator<Item = &Content> {
        let contents = self.contents.iter();
        contents.filter(move |content| content.range().overlaps(&leaf))
    }

    /// The memory that holds all of `leaf` as it is, and can be lent.
    pub(super) fn in_place(&self, leaf: IpaRange) -> Option<PaRange> {
        let mut contents = self.contents_of(leaf);
        contents.find_map(|content| content.in_place(leaf))
    }
}

/// The memory of a VM, as a fault sees it.
#[derive(Clone, Copy)]
pub struct GuestMemory<'a> {
    /// What is the VM's own.
    pub vm: &'a VmMemory,
    /// Where pages come from.
    pub pool: &'a PagePool,
}

impl Deref for GuestMemory<'_> {
    type Target = VmMemory;

    fn deref(&self) -> &VmMemory {
        self.vm
    }
}

/// The vCPU's part in it.
pub struct FaultingVcpu<'a> {
    /// Its registers: PC is that of the access.
    pub registers: &'a Registers,
    /// Its progress detector.
    pub progress: &'a mut Progress,
    /// Its counters.
    pub counters: &'a Counters,
}

/// What is to be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Enter the guest at the same PC: the cause was removed.
    Retry,
    /// A device must answer the access.
    Mmio(Mmio),
    /// The same, for an instruction that does more than move one register.
    Emulate(Emulation),
    /// Step over the instruction: cache maintenance of nothing.
    Skip,
    /// The guest takes this exception.
    Inject(Exception),
    /// The VM cannot go on.
    Stop(Stop),
}

/// One access for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mmio {
    /// Which, by the VM's number.
    pub device: u8,
    /// Offset from the start of its slot.
    pub offset: u64,
    /// Store, not load.
    pub is_write: bool,
    /// How the value moves.
    pub transfer: Transfer,
}

/// Contents are kept in a plain list: a VM has a handful.
pub type Contents = Vec<Content>;
