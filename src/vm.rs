//! A virtual machine: its memory, its devices, its vCPU, and what happens on each of its exits.
//!
//! [`Vm::handle_exit`] is the one match on [`Exit`]; each arm is a call. Everything the machine beneath must do besides
//! stage 2 is in [`Host`]. State that a vCPU owns is in [`Vcpu`] and has one owner; what others may touch is behind the
//! lock of the devices.
//!
//! Lock order: devices, then page pool, then heap. None is held while a guest runs.

mod caches;
mod calls;
mod devices;
mod input;
mod load;
mod quick;
mod recall;
mod stolen;
mod summary;
mod vcpu;

pub use devices::{Clock, Devices, PHYSICAL_TIMER, VIRTUAL_TIMER, device_name};
pub use input::{HOTKEY, Input, Typed};
pub use load::{Bytes, LoadError, Loaded, Modules, load};
pub use stolen::StolenTime;
pub use summary::Summary;
pub use vcpu::Vcpu;

use devices::Outcome;
use recall::Recalls;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use core::{fmt, iter, mem};
use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::addr::{Ipa, Pa};
use crate::config::{DomainConfig, RebootPolicy};
use crate::exit::{self, Exit, SysRegAccess};
use crate::fault::inject::Exception;
use crate::fault::{self, Emulation, FaultingVcpu, GuestMemory, Mmio, Resolution, Stop, VmMemory};
use crate::features::Features;
use crate::machine::Machine;
use crate::page_pool::PagePool;
use crate::platform;
use crate::psci::Power;
use crate::slot::{Kind, Slot, SlotError, Slots};
use crate::smccc::Mitigations;
use crate::stage2::{Config, ConfigError, OutOfPages, Rights, Stage2, Vmids};
use crate::stats::Counters;
use crate::sync::Relax;
use crate::sysreg::id::{IdTable, RawIds};
use crate::sysreg::{self, Answer};
use crate::traps;
use crate::vgic::{self, ListRegister, MAX_VCPUS, Version};

/// What [`Vcpu::warn_once`] knows system errors by: no encoding of a register, no exception class.
const SERROR_WARNING: u16 = u16::MAX;

type Guard<'a> = SpinMutexGuard<'a, Devices, Relax>;

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

    /// Deactivates a physical interrupt that was left active for the guest.
    fn deactivate(&mut self, intid: u32);

    /// Has [`Devices::alarm`] called when the counter reaches this, in ticks; `None`: not at all.
    fn set_alarm(&mut self, at: Option<u64>);

    /// Whether a timer of the guest asserts its line: virtual, physical.
    fn timer_lines(&mut self) -> (bool, bool);

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
        let slots = slots(config, ground).map_err(VmError::Slot)?;
        let shape = match config.ipa_bits {
            Some(bits) => Config::with_bits(bits, slots.highest(), ground.features),
            None => Config::for_highest(slots.highest(), ground.features),
        };
        let shape = shape.map_err(VmError::Config)?;
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

    /// Has `act` work on the devices, where what it changes concerns no vCPU but those that do this.
    pub fn with_devices<T>(&self, act: impl FnOnce(&mut Devices) -> T) -> T {
        let mut devices = self.devices.lock();
        let result = act(&mut devices);
        self.to_plan
            .store(devices.vcpus_to_plan(), Ordering::Relaxed);
        result
    }

    /// Its devices, locked. Who changes them takes [`Vm::on_devices`] or [`Vm::with_devices`].
    pub fn devices(&self) -> Guard<'_> {
        self.devices.lock()
    }

    /// Which of its vCPUs are on.
    #[must_use]
    pub const fn power(&self) -> &Power {
        &self.power
    }

    /// Has `act` work on the devices for vCPU `own`, and kicks the others whom the change concerns.
    pub fn on_devices<H: Host, T>(
        &self,
        own: usize,
        host: &mut H,
        act: impl FnOnce(&mut Devices, &mut H) -> T,
    ) -> T {
        let mut devices = self.devices.lock();
        let result = act(&mut devices, host);
        self.conclude(devices, own, host);
        result
    }

    /// Publishes what an operation on the devices changed, frees them, and kicks whom it concerns.
    #[inline]
    fn conclude<H: Host>(&self, mut devices: Guard<'_>, own: usize, host: &mut H) {
        let kicks = self.publish(&mut devices, own);
        drop(devices);
        if kicks != 0 {
            // `to_plan` before the look at who runs: [`Vm::needs_plan`] has them the other way round.
            fence(Ordering::SeqCst);
            host.kick(kicks);
        }
    }

    /// Whom to kick, a bit each.
    #[inline]
    fn publish(&self, devices: &mut Devices, own: usize) -> u64 {
        let folded = devices.take_folded();
        if folded != 0 {
            self.recalls.note_folded(folded);
        }
        self.to_plan
            .store(devices.vcpus_to_plan(), Ordering::Relaxed);
        devices.take_kicks(own)
    }

    /// The same, and waits until `others`, a bit each, have been out of their guests and folded in. `own` is.
    #[cold]
    fn recall<H: Host>(&self, mut devices: Guard<'_>, own: usize, others: u64, host: &mut H) {
        let kicks = self.publish(&mut devices, own);
        let recall = self.recalls.ask(others);
        drop(devices);
        fence(Ordering::SeqCst);
        if kicks & !others != 0 {
            host.kick(kicks & !others);
        }
        self.recalls.wait(own, &recall, |vcpus| host.kick(vcpus));
    }

    /// vCPU `index` was kicked and is out of its guest: if another asked for what it did there, that is folded in.
    pub fn attend<H: Host>(&self, index: usize, host: &mut H) {
        if self.recalls.is_asked(index) {
            self.on_devices(index, host, |devices, host| devices.fold_in(index, host));
        }
    }

    /// Whether vCPU `index` must have its list registers planned before it enters its guest. Without a lock: to be asked
    /// after others can see that it runs. Who changes something later than this answer sees that, and kicks it.
    #[must_use]
    #[inline]
    pub fn needs_plan(&self, index: usize) -> bool {
        fence(Ordering::SeqCst);
        self.to_plan.load(Ordering::Relaxed) & 1 << (index % MAX_VCPUS) != 0
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

    /// Handles one exit of `vcpu`.
    pub fn handle_exit<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        exit: &Exit,
        pool: &PagePool,
        host: &mut H,
    ) -> Next {
        let exits = &vcpu.counters.exits;
        match exit {
            Exit::Abort(abort) => {
                exits.aborts.add(1);
                let memory = GuestMemory {
                    vm: &self.guest,
                    pool,
                };
                let mut faulting = FaultingVcpu {
                    registers: &vcpu.registers,
                    progress: &mut vcpu.progress,
                    counters: &vcpu.counters,
                };
                let resolution = fault::resolve(memory, &mut faulting, abort, host);
                self.act(vcpu, resolution, abort.is_16_bit(), host)
            }
            Exit::Hvc(imm) => {
                exits.calls.add(1);
                vcpu.progress.retired();
                self.call(vcpu, *imm, pool, host)
            }
            Exit::Smc(imm) => {
                exits.calls.add(1);
                vcpu.retire(false);
                self.call(vcpu, *imm, pool, host)
            }
            Exit::SysReg(access) => {
                exits.sysreg.add(1);
                self.system_register(vcpu, access, host)
            }
            Exit::Wait { event } => {
                exits.waits.add(1);
                vcpu.retire(false);
                if *event { Next::Yield } else { Next::Wait }
            }
            Exit::Interrupt => {
                exits.interrupts.add(1);
                Next::Interrupt
            }
            Exit::Hidden { class } => {
                exits.other.add(1);
                let pc = vcpu.registers.pc;
                vcpu.warn_once(
                    *class as u16,
                    host,
                    format_args!(
                        "a hidden feature (class {class:#x}) was used at PC {pc:#x}: undefined"
                    ),
                );
                self.inject(vcpu, Exception::undefined(), host)
            }
            Exit::SError { esr } => {
                exits.other.add(1);
                self.system_error(vcpu, *esr, host)
            }
            Exit::Unknown { esr } => {
                exits.other.add(1);
                Next::End(End::Stopped(Stop::UnknownExit {
                    pc: vcpu.registers.pc,
                    esr: *esr,
                }))
            }
        }
    }

    /// An asynchronous error of the machine, taken while the guest ran.
    fn system_error<H: Host>(&self, vcpu: &mut Vcpu, esr: u64, host: &mut H) -> Next {
        let pc = vcpu.registers.pc;
        if self.guest.guest_errors_trap && exit::is_survivable(esr) {
            vcpu.counters.survived_errors.add(1);
            vcpu.warn_once(
                SERROR_WARNING,
                host,
                format_args!(
                    "the machine reports an error at PC {pc:#x} and goes on (ESR_EL2 {esr:#x})"
                ),
            );
            return Next::Resume;
        }
        Next::End(End::Stopped(Stop::Hardware { pc, esr }))
    }

    fn act<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        resolution: Resolution,
        is_16_bit: bool,
        host: &mut H,
    ) -> Next {
        match resolution {
            Resolution::Retry => Next::Resume,
            Resolution::Mmio(mmio) => {
                self.access(vcpu, &mmio, host);
                vcpu.retire(is_16_bit);
                Next::Look
            }
            Resolution::Emulate(emulation) => {
                self.emulate(vcpu, &emulation, host);
                Next::Look
            }
            Resolution::Skip => {
                vcpu.retire(is_16_bit);
                Next::Resume
            }
            Resolution::Inject(exception) => self.inject(vcpu, exception, host),
            Resolution::Stop(stop) => Next::End(End::Stopped(stop)),
        }
    }

    /// Carries out a device access.
    fn access<H: Host>(&self, vcpu: &mut Vcpu, mmio: &Mmio, host: &mut H) {
        self.with_recalls(vcpu.index, host, |devices, has_recalled, host| {
            devices.access(vcpu, mmio, has_recalled, host)
        });
    }

    /// Has `act` do something for vCPU `own`, first of all or when those whom it depends on were recalled, and waits for
    /// those who must have left their guests before it is complete.
    fn with_recalls<H: Host>(
        &self,
        own: usize,
        host: &mut H,
        mut act: impl FnMut(&mut Devices, bool, &mut H) -> Outcome,
    ) {
        for has_recalled in [false, true] {
            let mut devices = self.devices.lock();
            let outcome = act(&mut devices, has_recalled, host);
            match outcome {
                Outcome::Done(0) => return self.conclude(devices, own, host),
                Outcome::Done(others) => return self.recall(devices, own, others, host),
                Outcome::Recall(others) => self.recall(devices, own, others, host),
            }
        }
    }

    /// Carries out a device access that takes more than the syndrome tells: one or two registers, then the base, then PC.
    fn emulate<H: Host>(&self, vcpu: &mut Vcpu, emulation: &Emulation, host: &mut H) {
        for mmio in iter::once(&emulation.first).chain(&emulation.second) {
            self.access(vcpu, mmio, host);
        }
        if let Some(write_back) = emulation.write_back {
            write_back.apply(&mut vcpu.registers, host);
        }
        vcpu.retire(false);
    }

    #[inline(never)] // `faultline break` of gdb stops here
    fn inject<H: Host>(&self, vcpu: &mut Vcpu, exception: Exception, host: &mut H) -> Next {
        let is_abort = exception.is_abort();
        match exception.take(
            &mut vcpu.registers,
            vcpu.pstate_features,
            &mut vcpu.progress,
            host,
        ) {
            Ok(()) => {
                let counters = &vcpu.counters;
                let count = if is_abort {
                    &counters.injected
                } else {
                    &counters.undefined
                };
                count.add(1);
                Next::Resume
            }
            Err(stop) => Next::End(End::Stopped(stop)),
        }
    }

    fn system_register<H: Host>(
        &self,
        vcpu: &mut Vcpu,
        access: &SysRegAccess,
        host: &mut H,
    ) -> Next {
        match sysreg::answer(&self.ids, self.gic == Version::V3, access) {
            Answer::Value(value) => {
                vcpu.registers.write(access.rt, value);
                vcpu.retire(false);
                return Next::Resume;
            }
            Answer::Ignored => {}
            Answer::SetWay => return self.set_way(vcpu, host),
            Answer::MemoryRegister(register) => {
                let value = vcpu.registers.read(access.rt);
                return self.write_memory_register(vcpu, register, value, host);
            }
            Answer::Sgi(register) => {
                let value = vcpu.registers.read(access.rt);
                self.on_devices(vcpu.index, host, |devices, _| {
                    devices.send_sgi(vcpu.index, register, value);
                });
            }
            Answer::Deactivate => {
                let value = vcpu.registers.read(access.rt);
                self.with_recalls(vcpu.index, host, |devices, has_recalled, host| {
                    devices.deactivate(vcpu.index, value, has_recalled, host)
                });
            }
            Answer::Undefined => {
                let pc = vcpu.registers.pc;
                vcpu.warn_once(
                    access.encoding,
                    host,
                    format_args!("{access} at PC {pc:#x}: undefined"),
                );
                return self.inject(vcpu, Exception::undefined(), host);
            }
        }
        vcpu.retire(false);
        Next::Look
    }
}

/// The windows of a VM on this ground.
fn slots(config: &DomainConfig, ground: &Ground<'_>) -> Result<Slots, SlotError> {
    let mut slots = Slots::default();
    slots.add_ram(config.ram(), &config.rom, &config.xn)?;
    slots.add(Slot {
        range: platform::STOLEN_TIME,
        kind: Kind::Ram(Rights::READ),
    })?;
    slots.add(Slot {
        range: platform::FLASH,
        kind: Kind::Device(devices::FLASH),
    })?;
    slots.add(Slot {
        range: platform::VIRTIO,
        kind: Kind::Device(devices::VIRTIO),
    })?;
    slots.add(Slot {
        range: platform::GICD,
        kind: Kind::Device(devices::GICD),
    })?;
    match ground.vcpu_interface {
        Some(gicv) => {
            slots.add(Slot {
                range: platform::GICC_WINDOW,
                kind: Kind::Window(gicv),
            })?;
            slots.add(Slot {
                range: platform::GICC_DIR,
                kind: Kind::Device(devices::GICC_DIR),
            })?;
        }
        None => slots.add(Slot {
            range: platform::redistributors(config.vcpus as usize),
            kind: Kind::Device(devices::GICR),
        })?,
    }
    if config.console {
        slots.add(Slot {
            range: platform::UART,
            kind: Kind::Device(devices::UART),
        })?;
    }
    if ground.clock.is_some() {
        slots.add(Slot {
            range: platform::RTC,
            kind: Kind::Device(devices::RTC),
        })?;
    }
    Ok(slots)
}

#[cfg(test)]
mod tests;
