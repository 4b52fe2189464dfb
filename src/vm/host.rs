//! What a VM asks of the machine beneath it.

use core::fmt;

use crate::addr::{Ipa, Pa};
use crate::machine::Machine;
use crate::vgic::{self, ListRegister};
#[cfg(doc)]
use crate::vm::{Devices, Vm};

/// What a VM asks of the machine besides [`Machine`].
pub trait Host: Machine {
    /// A byte the guest sent.
    fn put_console(&mut self, byte: u8);

    /// The guest reads its console and has room for more.
    fn guest_listens(&mut self);

    /// The physical counter, in ticks.
    fn counter(&mut self) -> u64;

    /// Ticks of the counter per second; not 0.
    fn counter_hz(&mut self) -> u64;

    /// How many list registers this CPU has.
    fn list_registers(&mut self) -> usize;

    /// The state in its list register `n`.
    fn list_state(&mut self, n: usize) -> vgic::State;

    /// Writes its list register `n`.
    fn set_list_register(&mut self, n: usize, register: ListRegister);

    /// Has it interrupt us, and trap, as a plan wants it.
    fn set_list_control(&mut self, plan: vgic::Plan);

    /// Ends of interrupts that were in no list register, since [`Host::set_list_control`].
    fn ended_outside(&mut self) -> u32;

    /// What the CPU interface of the vCPU that is here holds now.
    fn cpu_interface(&mut self) -> vgic::CpuInterface;

    /// What the hardware says of CPU interfaces (GICv3).
    fn interface_type(&mut self) -> vgic::InterfaceType;

    /// Writes ICH_VMCR_EL2 of the vCPU that is here, whose writes to it go on trapping or not.
    fn set_interface_control(&mut self, vmcr: u32, goes_on_trapping: bool);

    /// Deactivates a physical interrupt that was left active for the guest.
    fn deactivate(&mut self, intid: u32);

    /// Has [`Devices::alarm`] called when the counter reaches this, in ticks; `None`: not at all.
    fn set_alarm(&mut self, at: Option<u64>);

    /// Whether the line of PPI `intid` is asserted, one of those of the guest's own hardware: a timer of EL1's, or the PMU.
    fn line(&mut self, intid: vgic::IntId) -> bool;

    /// Has vCPU `vcpu` of this VM, which is off, start at `entry` with `context` in x0, out of reset: see [`Vm::vcpu`].
    /// Whoever carried it to its `CPU_OFF` may not have put it away yet.
    fn start_vcpu(&mut self, vcpu: usize, entry: Ipa, context: u64);

    /// Has these vCPUs of this VM, a bit each, look at their interrupts: those that run leave the guest, and call
    /// [`Vm::attend`] before they enter it again; those that wait wake. Others do it anyway before they enter.
    fn kick(&mut self, vcpus: u64);

    /// A random number from the CPU (FEAT_RNG); `None`: it has none now. Asked only if every CPU has the feature.
    fn entropy(&mut self) -> Option<u64>;

    /// Stores 64 bits at a multiple of 8 in memory that a guest may read, in one access.
    fn store(&mut self, at: Pa, value: u64);

    /// One line for the log.
    fn warn(&mut self, text: fmt::Arguments<'_>);
}
