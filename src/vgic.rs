//! The guest's interrupt controller: the distributor and redistributors of a GICv2 or GICv3, and what goes into the list
//! registers of a CPU interface that the hardware provides.
//!
//! Pure logic for all vCPUs of one VM: guest accesses, lines and physical interrupts go in; list registers come out.
//!
//! How EL2 uses it, per vCPU:
//!
//! 1. While the guest runs, its interrupts live in the list registers. Before EL2 uses the vGIC for a reason of that guest,
//!    and before it plans, it reads those in use back, with EOIcount, and calls [`Vgic::sync_from`] and
//!    [`Vgic::retire`]. It may do so any number of times.
//! 2. It does what it came for: [`Vgic::set_line`], [`Vgic::hardware_interrupt`], a register access, an SGI.
//! 3. Before it enters a guest for which [`Vgic::needs_plan`] says so (after a sync), it calls [`Vgic::plan`], writes the
//!    list registers, the maintenance enables and the trap of ICC_DIR_EL1, then deactivates what
//!    [`Vgic::take_deactivation`] gives. Otherwise it touches no list register at all.
//!
//! [`Vgic::comes_again`] and [`Vgic::plan_latched`] do all three in one where an interrupt comes that came before.
//!
//! An operation may concern another vCPU than the one that does it: [`Vgic::take_news`] names it, and that vCPU must leave
//! its guest and do the three steps itself. An access to a register may depend on what another vCPU's guest did
//! ([`Vgic::depends_on`]): step 1 is then done for that one first; and it may be complete only when others have left their
//! guests ([`Vgic::holders`]). A vCPU that leaves its physical CPU takes all along ([`Vgic::unload`], [`CpuInterface`]).
//!
//! Guarantees: a pending interrupt is delivered once per edge and for as long as its level lasts, in priority order,
//! whatever the number of list registers; no access of any width at any offset fails; no argument panics: a vCPU or an
//! interrupt that does not exist is ignored.
//!
//! What it is not: no LPIs, no ITS, no NMIs, no extended ranges, one security state. GICv3 is affinity routing only.
//!
//! Source: IHI 0048B "ARM Generic Interrupt Controller Architecture Specification", version 2.0; IHI 0069 "Arm Generic
//! Interrupt Controller Architecture Specification", versions 3 and 4.

mod access;
mod again;
mod bank;
mod common;
mod distributor;
mod fold;
mod interface;
mod link;
pub mod list_register;
mod news;
mod plan;
mod redistributor;
mod register;
mod route;
mod sgi;
#[cfg(test)]
mod tests;

pub use access::Access;
pub use common::{CommonRegister, InterfaceType, Masking};
pub use interface::{ACTIVE_PRIORITIES, CpuInterface};
pub use list_register::{Group, ListRegister, MAX_LIST_REGISTERS, State};
pub use plan::Plan;
pub use redistributor::REDISTRIBUTOR_STRIDE;
pub use register::SGIR;

pub use crate::intid::IntId;

use alloc::vec::Vec;
use bank::{BANK, Bank, GroupEnables, bits};
use link::Links;
use news::Change;
use plan::Slot;
use sgi::SgiSources;

const FIRST_PPI: u32 = 16;
const FIRST_SPI: u32 = 32;
/// SPIs that INTIDs 32 to 1019 leave room for.
pub const MAX_SPIS: usize = 988;
/// vCPUs a GICv2 can serve.
pub const MAX_VCPUS_V2: usize = 8;
/// vCPUs served at most.
pub const MAX_VCPUS: usize = 64;

/// Version of the controller the guest sees; it is the version of the hardware's CPU interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// GICv2: GICD, and GICV in the place of GICC.
    V2,
    /// GICv3: GICD, GICR and system registers.
    V3,
}

/// A vCPU's affinity, packed as MPIDR_EL1 without its upper gap: Aff3.Aff2.Aff1.Aff0, a byte each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Affinity(u32);

impl Affinity {
    /// From MPIDR_EL1; its flag bits are ignored.
    #[must_use]
    pub const fn from_mpidr(mpidr: u64) -> Self {
        Self((mpidr & 0xff_ffff) as u32 | ((mpidr >> 32 & 0xff) as u32) << 24)
    }

    const fn new(aff3: u8, aff2: u8, aff1: u8, aff0: u8) -> Self {
        Self(u32::from_be_bytes([aff3, aff2, aff1, aff0]))
    }

    /// Aff3.Aff2.Aff1.Aff0.
    #[must_use]
    pub const fn packed(self) -> u32 {
        self.0
    }
}

/// Why a controller cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// No vCPU, or more than the version serves ([`MAX_VCPUS_V2`], [`MAX_VCPUS`]).
    VcpuCount(usize),
    /// More SPIs than there are INTIDs ([`MAX_SPIS`]).
    SpiCount(usize),
}

/// The interrupt controller of one VM.
#[derive(Clone, Debug)]
pub struct Vgic {
    version: Version,
    groups: GroupEnables,
    vcpus: Vec<VcpuInterface>,
    shared: Vec<SharedBank>,
    /// Bit per vCPU: its list registers no longer show what they should.
    dirty: u64,
    /// Bit per vCPU: it was made dirty, or once more, since [`Vgic::take_news`].
    news: u64,
    /// Bit per row of SPIs: some may be pending, active or in a list register. The others are not looked at.
    busy: u32,
    /// A guest's end of interrupt may deactivate the physical one by the HW bit.
    links_in_hardware: bool,
    /// Bit per PPI: its line may fall without an exit.
    unseen: u32,
}

/// What is private to a vCPU.
#[derive(Clone, Debug)]
struct VcpuInterface {
    affinity: Affinity,
    /// GICR_WAKER.ProcessorSleep.
    is_asleep: bool,
    bank: Bank,
    links: Links,
    sgi: SgiSources,
    /// What the list registers hold, in their order.
    slots: [Slot; MAX_LIST_REGISTERS],
    /// Bit per list register: it is in use, for all that is known.
    used: u32,
    /// Bit per list register: it is free, and must be written all the same.
    stale: u32,
    /// What happened since they were planned.
    change: Change,
    /// The last plan had more interrupts than list registers,
    has_leftovers: bool,
    /// and some of those were active.
    left_active: bool,
    /// Ends outside the list registers that were folded in since then.
    retired: u32,
}

/// Thirty-two SPIs and where they go.
#[derive(Clone, Debug)]
struct SharedBank {
    bank: Bank,
    /// vCPU whose list register holds the interrupt, or that has it active; meaningless for the others.
    owner: [u8; BANK as usize],
    /// GICv2: GICD_ITARGETSR.
    targets: [u8; BANK as usize],
    /// GICv3: GICD_IROUTER.
    route: [u64; BANK as usize],
}

/// Which bank: a vCPU's SGIs and PPIs, or a row of SPIs. Only made for banks that exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BankId {
    Private(usize),
    Shared(usize),
}

impl BankId {
    const fn of(vcpu: usize, intid: IntId) -> Self {
        match (intid.raw() / BANK).checked_sub(1) {
            None => Self::Private(vcpu),
            Some(row) => Self::Shared(row as usize),
        }
    }
}

/// One interrupt: its bank and its bit there. Only made for interrupts that exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    bank: BankId,
    bit: u32,
}

impl Place {
    /// Of an interrupt that exists, as `vcpu` names it.
    const fn of(vcpu: usize, intid: IntId) -> Self {
        Self {
            bank: BankId::of(vcpu, intid),
            bit: intid.raw() % BANK,
        }
    }

    const fn mask(self) -> u32 {
        1u32.wrapping_shl(self.bit)
    }

    const fn intid(self) -> IntId {
        match self.bank {
            BankId::Private(_) => IntId::new(self.bit),
            BankId::Shared(row) => IntId::new(FIRST_SPI + row as u32 * BANK + self.bit),
        }
    }
}

impl Vgic {
    /// A controller out of reset for as many vCPUs as `affinities` has, with `spi_count` SPIs.
    ///
    /// # Errors
    /// [`ConfigError`] when the version cannot serve that many.
    pub fn new(
        version: Version,
        affinities: &[Affinity],
        spi_count: usize,
    ) -> Result<Self, ConfigError> {
        let most = match version {
            Version::V2 => MAX_VCPUS_V2,
            Version::V3 => MAX_VCPUS,
        };
        if affinities.is_empty() || affinities.len() > most {
            return Err(ConfigError::VcpuCount(affinities.len()));
        }
        if spi_count > MAX_SPIS {
            return Err(ConfigError::SpiCount(spi_count));
        }
        let rows = spi_count.div_ceil(BANK as usize);
        Ok(Self {
            version,
            groups: GroupEnables::default(),
            vcpus: affinities
                .iter()
                .map(|affinity| VcpuInterface::new(version, *affinity))
                .collect(),
            shared: (0..rows)
                .map(|row| SharedBank::new(spi_count - row * BANK as usize, affinities.len()))
                .collect(),
            dirty: every(affinities.len()),
            news: 0,
            busy: 0,
            links_in_hardware: true,
            unseen: 0,
        })
    }

    /// The same, but no list register gets the HW bit: a guest's end of a linked interrupt raises a maintenance interrupt,
    /// and EL2 deactivates the physical one ([`Vgic::take_deactivation`]). For controllers whose hardware does not look at
    /// a line again after it has deactivated an interrupt by itself.
    #[must_use]
    pub fn without_hardware_links(self) -> Self {
        Self {
            links_in_hardware: false,
            ..self
        }
    }

    /// The same, with PPIs whose lines may change without an exit: those of the timers, which the guest sets by itself.
    /// While one is handled its line is not known; when it has ended EL2 looks at it ([`Vgic::raised`]).
    #[must_use]
    pub fn with_unseen_lines(self, ppis: &[IntId]) -> Self {
        let private = ppis.iter().filter(|intid| intid.is_private());
        Self {
            unseen: private.fold(0, |mask, intid| mask | 1 << intid.raw()),
            ..self
        }
    }

    /// The version the guest sees.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The input line of SPI `intid` takes `level` (true: asserted).
    ///
    /// A level-sensitive interrupt is pending for as long as its line is asserted, an edge-triggered one from each rise
    /// until it is acknowledged. Other interrupts than SPIs are ignored.
    pub fn set_line(&mut self, intid: IntId, level: bool) {
        if intid.raw() >= FIRST_SPI
            && let Some(place) = self.place(0, intid)
        {
            self.drive(place, level);
        }
    }

    /// The input line of `vcpu`'s PPI `intid` takes `level`. Other interrupts than PPIs are ignored.
    ///
    /// For a PPI that stands for a physical interrupt ([`Vgic::hardware_interrupt`]) a deasserted line withdraws it unless
    /// the guest has acknowledged it: the physical interrupt is then to be deactivated ([`Vgic::take_deactivation`]).
    pub fn set_private_line(&mut self, vcpu: usize, intid: IntId, level: bool) {
        if (FIRST_PPI..FIRST_SPI).contains(&intid.raw())
            && let Some(place) = self.place(vcpu, intid)
        {
            if !level {
                self.withdraw_links(vcpu, place.mask());
            }
            self.drive(place, level);
        }
    }

    /// Whether the distributor forwards `intid` (as `vcpu` sees it): enabled, and of a group that is.
    #[must_use]
    pub fn forwards(&self, vcpu: usize, intid: IntId) -> bool {
        self.place(vcpu, intid)
            .is_some_and(|place| self.bank(place.bank).forwarded(self.groups) & place.mask() != 0)
    }

    /// Whether an interrupt waits for `vcpu` that is not active: a reason to leave WFI.
    ///
    /// The guest's priority mask is not known here; see [`Vgic::highest_pending`].
    #[must_use]
    pub fn is_pending(&self, vcpu: usize) -> bool {
        self.waiting(vcpu).next().is_some()
    }

    /// Priority of the most urgent interrupt that waits for `vcpu`; 0 is the highest.
    ///
    /// It is signalled only if it is lower than the guest's priority mask (GICV_PMR, ICV_PMR_EL1) and the running one.
    #[must_use]
    pub fn highest_pending(&self, vcpu: usize) -> Option<u8> {
        self.waiting(vcpu).map(|place| self.priority(place)).min()
    }

    fn place(&self, vcpu: usize, intid: IntId) -> Option<Place> {
        let place = Place::of(vcpu, intid);
        let valid = match place.bank {
            BankId::Private(vcpu) => self.vcpus.get(vcpu)?.bank.valid,
            BankId::Shared(row) => self.shared.get(row)?.bank.valid,
        };
        (valid & place.mask() != 0).then_some(place)
    }

    fn bank(&self, id: BankId) -> &Bank {
        match id {
            BankId::Private(vcpu) => &self.vcpus[vcpu].bank,
            BankId::Shared(row) => &self.shared[row].bank,
        }
    }

    fn bank_mut(&mut self, id: BankId) -> &mut Bank {
        match id {
            BankId::Private(vcpu) => &mut self.vcpus[vcpu].bank,
            BankId::Shared(row) => &mut self.shared[row].bank,
        }
    }

    fn priority(&self, place: Place) -> u8 {
        self.bank(place.bank).priority(place.bit)
    }

    fn drive(&mut self, place: Place, level: bool) {
        let changed = self.bank_mut(place.bank).set_line(place.mask(), level);
        self.reconsider(place.bank, changed);
    }

    /// `vcpu`'s interrupts that are deliverable and not active.
    fn waiting(&self, vcpu: usize) -> impl Iterator<Item = Place> {
        self.banks_of(vcpu).flat_map(move |bank| {
            let state = self.bank(bank);
            bits(state.deliverable(self.groups) & !state.active)
                .map(move |bit| Place { bank, bit })
                .filter(move |place| self.holder(*place) == Some(vcpu))
        })
    }

    /// The banks in which `vcpu` can have interrupts that are not idle.
    fn banks_of(&self, vcpu: usize) -> impl Iterator<Item = BankId> + use<> {
        let private = (vcpu < self.vcpus.len()).then_some(BankId::Private(vcpu));
        private
            .into_iter()
            .chain(bits(self.busy).map(|row| BankId::Shared(row as usize)))
    }
}

/// A bit for each of `count` vCPUs, at least one.
const fn every(count: usize) -> u64 {
    u64::MAX >> (MAX_VCPUS - count)
}

impl VcpuInterface {
    fn new(version: Version, affinity: Affinity) -> Self {
        let mut bank = Bank::new(u32::MAX);
        bank.edge = SGIS;
        if version == Version::V2 {
            bank.enabled = SGIS;
        }
        Self {
            affinity,
            is_asleep: true,
            bank,
            links: Links::default(),
            sgi: SgiSources::default(),
            slots: [Slot::FREE; MAX_LIST_REGISTERS],
            used: 0,
            stale: 0,
            change: Change::Much,
            has_leftovers: false,
            left_active: false,
            retired: 0,
        }
    }
}

/// SGIs in a private bank: always edge-triggered, and with a GICv2 always enabled.
const SGIS: u32 = 0xffff;

impl SharedBank {
    fn new(spis: usize, vcpu_count: usize) -> Self {
        Self {
            bank: Bank::new(u32::MAX >> (BANK - (spis as u32).min(BANK))),
            owner: [0; BANK as usize],
            targets: [u8::from(vcpu_count == 1); BANK as usize],
            route: [0; BANK as usize],
        }
    }
}
