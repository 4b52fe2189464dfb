//! A virtual machine: its memory, its devices, its vCPU, and what happens on each of its exits.
//!
//! [`Vm::handle_exit`] is the one match on [`Exit`](crate::exit::Exit); each arm is a call. The plainest exits are answered
//! before that (`quick`). Everything the machine beneath must do besides stage 2 is in [`Host`]. State that a vCPU owns is in
//! [`Vcpu`] and has one owner; what others may touch is behind the lock of the devices.
//!
//! Lock order: devices, then page pool, then heap. None is held while a guest runs.

mod caches;
mod calls;
mod devices;
mod exits;
mod host;
mod input;
mod load;
mod quick;
mod recall;
mod sharing;
mod stolen;
mod summary;
mod vcpu;
mod windows;

pub use devices::{Clock, Devices, PHYSICAL_TIMER, PMU, VIRTUAL_TIMER, device_name};
pub use host::Host;
pub use input::{HOTKEY, Input, Typed};
pub use load::{Bytes, LoadError, Loaded, Modules, load};
pub use stolen::StolenTime;
pub use summary::Summary;
pub use vcpu::Vcpu;

use recall::Recalls;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::{fmt, mem};
use spin::mutex::SpinMutex;

use crate::addr::Pa;
use crate::config::{DomainConfig, RebootPolicy};
use crate::fault::{Stop, VmMemory};
use crate::features::Features;
use crate::machine::Machine;
use crate::page_pool::PagePool;
use crate::psci::Power;
use crate::slot::{SlotError, Slots};
use crate::smccc::Mitigations;
use crate::stage2::{Config, ConfigError, OutOfPages, Stage2, Vmids};
use crate::stats::Counters;
use crate::sync::Relax;
use crate::sysreg::id::{IdTable, RawIds};
use crate::traps;
use crate::vgic::Version;

/// How a VM ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// PSCI SYSTEM_OFF.
    Off,
    /// PSCI SYSTEM_RESET.
    Reset,
    /// The guest said how it went: EXIT(code).
    Exit(u64),
    /// The hypervisor stopped it.
    Stopped(Stop),
}

/// What the run loop does next with a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Enter the guest at once: nothing has changed but what is the vCPU's own, and memory. What others do meanwhile they
    /// announce by an interrupt.
    Resume,
    /// Look at what there is to do for the vCPU before it enters the guest: its interrupts may have changed, or who shares
    /// its pCPU.
    Look,
    /// Wait until an interrupt is there, then enter it.
    Wait,
    /// Let others run first, if any want to: it waits for an event, which may have come already.
    Yield,
    /// Off, by PSCI: it does not come back by itself.
    Off,
    /// A physical interrupt must be seen to, then enter it.
    Interrupt,
    /// The VM has ended.
    End(End),
}

/// What a VM is made on.
pub struct Ground<'a> {
    /// All free RAM.
    pub pool: &'a PagePool,
    /// The machine's VMIDs.
    pub vmids: &'a Arc<Vmids>,
    /// What the CPUs that run it have.
    pub features: &'a Features,
    /// Their ID registers.
    pub ids: &'a RawIds,
    /// The GIC's version.
    pub gic: Version,
    /// The hardware's GICV, for a GICv2.
    pub vcpu_interface: Option<Pa>,
    /// What to tell guests of CPU vulnerabilities.
    pub mitigations: Mitigations,
    /// The time of day, if it is known.
    pub clock: Option<Clock>,
}

/// A virtual machine.
pub struct Vm {
    name: String,
    memory: u64,
    reboot: RebootPolicy,
    guest: VmMemory,
    /// Where its VMID is from.
    vmids: Arc<Vmids>,
    /// What traps at a vCPU's reset besides what always does.
    traps: u64,
    loaded: Loaded,
    ids: IdTable,
    gic: Version,
    mitigations: Mitigations,
    has_entropy: bool,
    /// Not a lock that serves in order: where the CPUs are threads of an emulator, or of a hypervisor beneath, the next in line
    /// may not be running, and everybody would wait for it.
    devices: SpinMutex<Devices, Relax>,
    /// A copy of [`Devices::vcpus_to_plan`], for a look without the lock.
    to_plan: AtomicU64,
    /// Who is asked to leave its guest for another's access.
    recalls: Recalls,
    has_console: bool,
    /// The page of a UART whose plain accesses take a shortcut; no page without one.
    quick_uart_page: u64,
    /// Which vCPUs are on.
    power: Power,
    stolen: StolenTime,
    /// What each vCPU did.
    counters: Vec<Arc<Counters>>,
}

/// Why a VM cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmError {
    /// Its addresses do not fit the CPUs.
    Config(ConfigError),
    /// Its windows overlap.
    Slot(SlotError),
    /// No memory for its tables.
    OutOfPages,
    /// As many VMs live as the CPUs can tell apart.
    OutOfVmids,
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(ConfigError::TooLarge { asked, limit }) => {
                write!(
                    f,
                    "its IPA space takes {asked} bits; this CPU has {limit}: give it less (GUEST_MEM=, faultline,ipa-bits)"
                )
            }
            Self::Config(ConfigError::NoSuchSize { asked }) => {
                write!(
                    f,
                    "faultline,ipa-bits is {asked}: a guest can be told of 32, 36, 40, 42, 44 or 48 bits"
                )
            }
            Self::Config(ConfigError::TooSmall { asked, needed }) => {
                write!(
                    f,
                    "faultline,ipa-bits is {asked}: its memory and devices take {needed} bits"
                )
            }
            Self::OutOfVmids => f.write_str("as many VMs run as this CPU can tell apart"),
            Self::Slot(error) => write!(f, "its windows do not fit: {error:?}"),
            Self::OutOfPages => f.write_str("no memory is left for its translation tables"),
        }
    }
}

impl Vm {
    /// A VM out of reset: no page mapped, devices as at power-on.
    ///
    /// # Errors
    /// [`VmError`]; nothing is kept then, `loaded` goes with it.
    pub fn new<M: Machine>(
        config: &DomainConfig,
        ground: &Ground<'_>,
        mut loaded: Loaded,
        devices: Devices,
        m: &mut M,
    ) -> Result<Self, VmError> {
        let slots = windows::slots(config, ground).map_err(VmError::Slot)?;
        let shape = match config.ipa_bits {
            Some(bits) => Config::with_bits(bits, slots.highest(), ground.features),
            None => Config::for_highest(slots.highest(), ground.features),
        };
        let shape = shape.map_err(VmError::Config)?.with_resize(config.resize);
        let vmid = ground.vmids.take(m).ok_or(VmError::OutOfVmids)?;
        let stage2 = Stage2::new(m, ground.pool, shape, vmid, ground.features.coherence)
            .inspect_err(|OutOfPages| ground.vmids.give(vmid))
            .map_err(|OutOfPages| VmError::OutOfPages)?;
        let ids = IdTable::new(ground.ids, ground.gic == Version::V3, shape.ipa_bits);
        Ok(Self {
            name: config.name.clone(),
            memory: config.memory,
            reboot: config.reboot,
            traps: traps::at_reset(ground.features, ids.ctr().is_some()),
            ids,
            guest: VmMemory {
                slots,
                stage2,
                contents: mem::take(&mut loaded.contents),
                rights: config.rights,
                granule: config.granule,
                erratum_834220: ground.features.erratum_834220,
                guest_errors_trap: ground.features.guest_errors_trap,
            },
            vmids: ground.vmids.clone(),
            loaded,
            gic: ground.gic,
            mitigations: ground.mitigations,
            has_entropy: ground.features.rng,
            to_plan: AtomicU64::new(devices.vcpus_to_plan()),
            devices: SpinMutex::new(devices),
            recalls: Recalls::new(config.vcpus as usize),
            has_console: config.console,
            quick_uart_page: quick::uart_page(config.console, ground.features.erratum_834220),
            power: Power::new(config.vcpus as usize),
            stolen: StolenTime::new(config.vcpus as usize),
            counters: (0..config.vcpus).map(|_| Arc::default()).collect(),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its stage 2.
    #[must_use]
    pub const fn stage2(&self) -> &Stage2 {
        &self.guest.stage2
    }

    /// What lies where in it.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.guest.slots
    }

    /// Whether it has a console.
    #[must_use]
    pub const fn has_console(&self) -> bool {
        self.has_console
    }

    /// What a reset does.
    #[must_use]
    pub const fn reboot(&self) -> RebootPolicy {
        self.reboot
    }

    /// Which of its vCPUs are on.
    #[must_use]
    pub const fn power(&self) -> &Power {
        &self.power
    }

    /// What was stolen from its vCPUs: who schedules them says so.
    #[must_use]
    pub const fn stolen(&self) -> &StolenTime {
        &self.stolen
    }

    /// How many vCPUs it has.
    #[must_use]
    pub fn vcpu_count(&self) -> usize {
        self.counters.len()
    }

    /// vCPU `index` out of reset, at address 0: whoever turns it on says where it begins.
    #[must_use]
    pub fn vcpu(&self, index: usize) -> Vcpu {
        let counters = self.counters.get(index).cloned().unwrap_or_default();
        let mut vcpu = Vcpu::at_reset(index, &self.ids, counters);
        vcpu.traps = self.traps;
        vcpu
    }

    /// Puts `vcpu` to the entry point, with the device tree's address in x0: the one that the VM starts with.
    pub fn boot(&self, vcpu: &mut Vcpu) {
        vcpu.enter_at(self.loaded.entry.raw(), self.loaded.tree.raw());
    }

    /// What all its vCPUs did.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::sum(self.counters.iter().map(Arc::as_ref))
    }

    /// Ends it: every page goes back to `pool`. What was loaded outlives it, for a restart.
    pub fn destroy<M: Machine>(mut self, pool: &PagePool, m: &mut M) -> Loaded {
        let vmid = self.guest.stage2.vmid();
        self.guest.stage2.destroy(m, pool);
        self.vmids.give(vmid);
        self.loaded.contents = self.guest.contents;
        self.loaded
    }
}

#[cfg(test)]
mod tests;
