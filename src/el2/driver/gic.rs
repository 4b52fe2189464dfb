//! The board's interrupt controller: its physical side, and the list registers that make a guest's interrupts.
//!
//! Priority drop and deactivation are split (EOImode 1): EL2 drops the priority of every interrupt at once, deactivates its
//! own itself, and leaves a guest's timer active until the guest's own end of interrupt deactivates it through the list
//! register.

mod v2;
mod v3;

use faultline::board::Gic as Description;
use faultline::vgic::{
    CpuInterface, InterfaceType, ListRegister, MAX_LIST_REGISTERS, Plan, State, Version,
};

use crate::el2::hyp_map::TooRagged;

/// INTIDs from here on mean "nothing to acknowledge".
const SPECIAL: u32 = 1020;
/// SGIs and PPIs lie below.
const FIRST_SPI: u32 = 32;
/// The SGI by which pCPUs of ours call each other.
pub(in crate::el2) const KICK: u32 = 0;
/// The priority of all of EL2's interrupts: none preempts another.
const PRIORITY: u8 = 0xa0;

/// An acknowledged interrupt: what to write to end it.
#[derive(Clone, Copy)]
pub(in crate::el2) struct Acknowledged(u32);

impl Acknowledged {
    /// Its number.
    pub(in crate::el2) const fn intid(self) -> u32 {
        // A GICv2 reports the source of an SGI above the number.
        self.0 & 0x3ff
    }
}

/// The controller.
#[derive(Clone)]
pub(in crate::el2) enum Gic {
    V2(v2::GicV2),
    V3(v3::GicV3),
}

impl Gic {
    /// Sets up distributor, this CPU's interface and the virtual interface, all interrupts disabled.
    pub(in crate::el2) fn new(description: &Description) -> Result<Self, TooRagged> {
        Ok(match description {
            Description::V2 {
                distributor,
                cpu_interface,
                hyp_interface,
                ..
            } => Self::V2(v2::GicV2::new(
                *distributor,
                *cpu_interface,
                *hyp_interface,
            )?),
            Description::V3 {
                distributor,
                redistributors,
                ..
            } => Self::V3(v3::GicV3::new(*distributor, redistributors)?),
        })
    }

    /// The controller as another CPU sees it, which calls this itself. `None` if the controller does not know that CPU.
    pub(in crate::el2) fn join(&self, description: &Description) -> Option<Self> {
        match (self, description) {
            (Self::V2(gic), _) => Some(Self::V2(gic.join())),
            (
                Self::V3(_),
                Description::V3 {
                    distributor,
                    redistributors,
                    ..
                },
            ) => v3::GicV3::join(*distributor, redistributors).map(Self::V3),
            (Self::V3(_), Description::V2 { .. }) => None,
        }
    }

    /// How this CPU is named as the target of an SGI.
    pub(in crate::el2) fn target(&self) -> u64 {
        match self {
            Self::V2(gic) => gic.target().into(),
            Self::V3(gic) => gic.target(),
        }
    }

    /// Interrupts the CPU that [`Self::target`] named, with [`KICK`].
    pub(in crate::el2) fn kick(&self, target: u64) {
        match self {
            Self::V2(gic) => gic.send_sgi(KICK, target as u8),
            Self::V3(gic) => gic.send_sgi(KICK, target),
        }
    }

    /// Its version, which is the guest's as well.
    pub(in crate::el2) const fn version(&self) -> Version {
        match self {
            Self::V2(_) => Version::V2,
            Self::V3(_) => Version::V3,
        }
    }

    /// Delivers `intid` to this CPU.
    pub(in crate::el2) fn enable(&self, intid: u32) {
        match self {
            Self::V2(gic) => gic.enable(intid),
            Self::V3(gic) => gic.enable(intid),
        }
    }

    /// Takes the most urgent interrupt and drops its priority; it stays active. `None` if there is none.
    pub(in crate::el2) fn acknowledge(&self) -> Option<Acknowledged> {
        let taken = Acknowledged(match self {
            Self::V2(gic) => gic.acknowledge(),
            Self::V3(gic) => gic.acknowledge(),
        });
        if taken.intid() >= SPECIAL {
            return None;
        }
        match self {
            Self::V2(gic) => gic.drop_priority(taken.0),
            Self::V3(gic) => gic.drop_priority(taken.0),
        }
        Some(taken)
    }

    /// Deactivates an interrupt that was acknowledged here.
    pub(in crate::el2) fn deactivate(&self, taken: Acknowledged) {
        match self {
            Self::V2(gic) => gic.deactivate(taken.0),
            Self::V3(gic) => gic.deactivate(taken.0),
        }
    }

    /// Deactivates an interrupt by its number.
    pub(in crate::el2) fn deactivate_intid(&self, intid: u32) {
        self.deactivate(Acknowledged(intid));
    }

    /// Whether a guest's end of interrupt may deactivate a physical interrupt by itself (the HW bit of list registers).
    pub(in crate::el2) fn links_in_hardware(&self) -> bool {
        match self {
            Self::V2(gic) => gic.resamples_after_link(),
            Self::V3(_) => true,
        }
    }

    /// List registers there are, of those we use.
    pub(in crate::el2) fn list_register_count(&self) -> usize {
        let count = match self {
            Self::V2(gic) => gic.list_register_count(),
            Self::V3(gic) => gic.list_register_count(),
        };
        count.min(MAX_LIST_REGISTERS)
    }

    /// The state in list register `n`.
    pub(in crate::el2) fn list_state(&self, n: usize) -> State {
        match self {
            Self::V2(gic) => ListRegister::from_gich(gic.list_register(n)).state,
            Self::V3(gic) => ListRegister::from_ich(gic.list_register(n)).state,
        }
    }

    /// Writes list register `n`.
    #[inline(always)]
    pub(in crate::el2) fn set_list_register(&self, n: usize, register: ListRegister) {
        match self {
            Self::V2(gic) => gic.set_list_register(n, register.to_gich()),
            Self::V3(gic) => gic.set_list_register(n, register.to_ich()),
        }
    }

    /// What is to interrupt us, and to trap.
    pub(in crate::el2) fn set_list_control(&self, plan: Plan) {
        match self {
            Self::V2(gic) => gic.set_control(plan.hcr()),
            Self::V3(gic) => gic.set_control(plan.hcr() | gic.traps(plan)),
        }
    }

    /// Ends of interrupts in no list register since the last plan (EOIcount).
    pub(in crate::el2) fn ended_outside(&self) -> u32 {
        const EOI_COUNT_SHIFT: u32 = 27;
        let control = match self {
            Self::V2(gic) => gic.control(),
            Self::V3(gic) => gic.control(),
        };
        control >> EOI_COUNT_SHIFT
    }

    /// The interface of the vCPU that is here.
    pub(in crate::el2) fn interface(&self) -> CpuInterface {
        let mut interface = CpuInterface::default();
        match self {
            Self::V2(gic) => gic.read_interface(&mut interface),
            Self::V3(gic) => gic.read_interface(&mut interface),
        }
        interface
    }

    /// What the hardware says of virtual CPU interfaces; a GICv2's registers never trap.
    pub(in crate::el2) fn interface_type(&self) -> InterfaceType {
        match self {
            Self::V2(_) => InterfaceType::default(),
            Self::V3(gic) => gic.interface_type(),
        }
    }

    /// Writes what the guest set up in its interface, whose writes to it go on trapping or not.
    pub(in crate::el2) fn set_interface_control(&self, vmcr: u32, goes_on_trapping: bool) {
        match self {
            Self::V2(_) => {}
            Self::V3(gic) => gic.set_interface_control(vmcr, goes_on_trapping),
        }
    }

    /// A vCPU comes: its interface goes into the hardware, with empty list registers.
    pub(in crate::el2) fn load_virtual(&self, interface: &CpuInterface) {
        match self {
            Self::V2(gic) => gic.load_virtual(interface),
            Self::V3(gic) => gic.load_virtual(interface),
        }
    }

    /// A vCPU leaves, its list registers read and free: takes its interface out of the hardware, and switches that off.
    pub(in crate::el2) fn unload_virtual(&self, interface: &mut CpuInterface) {
        match self {
            Self::V2(gic) => gic.unload_virtual(interface),
            Self::V3(gic) => gic.unload_virtual(interface),
        }
    }
}
