//! A VM on a fake host: what each of its exits does to its registers, its devices and the log.

mod caches;
mod calls;
mod devices;
mod mmio;
mod quick;
mod registers;

use std::rc::Rc;
use std::sync::Arc;
use std::vec::Vec;

use super::{Bytes, Clock, Devices, Ground, Host, Modules, Next, Vcpu, Vm, load};
use crate::addr::{Ipa, Pa};
use crate::config::{DomainConfig, Module, RebootPolicy};
use crate::exit::{Exit, Syndrome, Vector};
use crate::fault::{GranulePolicy, RightsPolicy};
use crate::features::{Coherence, Features, IdRegisters};
use crate::machine::El1;
use crate::machine::recorder::{HostState, Recorder};
use crate::smccc::Mitigations;
use crate::stage2::ResizePolicy;
use crate::stage2::Vmids;
use crate::sysreg::id::{RawIds, index};
use crate::vgic::{
    CpuInterface, InterfaceType, ListRegister, MAX_LIST_REGISTERS, Plan, State, Version,
};
use core::fmt;

const RAM: u64 = 0x4000_0000;
const UART: u64 = 0x0900_0000;
const RTC: u64 = 0x0901_0000;
const GICD: u64 = 0x0800_0000;
const GICR: u64 = 0x080a_0000;
const KERNEL_AT: u64 = 0x7_0000_1000;
const ENTRY: u64 = RAM + 0x8_0000;
const EPOCH: u64 = 1_700_000_000;
const HZ: u64 = 1_000;

impl Host for Recorder {
    fn put_console(&mut self, byte: u8) {
        self.host.console.push(byte);
    }

    fn guest_listens(&mut self) {
        self.host.listens += 1;
    }

    fn counter(&mut self) -> u64 {
        self.host.counter
    }

    fn counter_hz(&mut self) -> u64 {
        HZ
    }

    fn list_registers(&mut self) -> usize {
        4
    }

    fn list_state(&mut self, n: usize) -> State {
        self.host.list[n].state
    }

    fn set_list_register(&mut self, n: usize, register: ListRegister) {
        self.host.list[n] = register;
        self.host.list_writes += 1;
    }

    fn set_list_control(&mut self, _: Plan) {
        self.host.list_writes += 1;
    }

    fn ended_outside(&mut self) -> u32 {
        self.host.ended_outside.pop_front().unwrap_or(0)
    }

    fn cpu_interface(&mut self) -> CpuInterface {
        CpuInterface {
            vmcr: self.host.vmcr,
            ..CpuInterface::default()
        }
    }

    fn interface_type(&mut self) -> InterfaceType {
        InterfaceType {
            vtr: 4 << 29 | 4 << 26 | 3,
            has_range_selector: false,
        }
    }

    fn set_interface_control(&mut self, vmcr: u32, _: bool) {
        self.host.vmcr = vmcr;
    }

    fn deactivate(&mut self, intid: u32) {
        self.host.deactivated.push(intid);
    }

    fn set_alarm(&mut self, at: Option<u64>) {
        self.host.alarm = at;
    }

    fn line(&mut self, intid: crate::vgic::IntId) -> bool {
        self.host.lines >> intid.raw() & 1 == 1
    }

    fn start_vcpu(&mut self, vcpu: usize, entry: Ipa, context: u64) {
        self.host.started.push((vcpu, entry.raw(), context));
    }

    fn kick(&mut self, vcpus: u64) {
        self.host.kicks.push(vcpus);
    }

    fn entropy(&mut self) -> Option<u64> {
        self.host.entropy.pop_front()
    }

    fn store(&mut self, at: Pa, value: u64) {
        self.tell(at, value);
    }

    fn warn(&mut self, text: fmt::Arguments<'_>) {
        self.host.warnings.push(format!("{text}"));
    }
}

/// A VM, its vCPU and its host.
pub(super) struct Run {
    pub(super) vm: Arc<Vm>,
    pub(super) vcpu: Vcpu,
    pub(super) m: Recorder,
    pub(super) pool: Rc<crate::page_pool::PagePool>,
}

impl Run {
    fn new() -> Self {
        Self::with(Version::V3)
    }

    fn with(gic: Version) -> Self {
        Self::with_vcpus(gic, 1)
    }

    pub(super) fn with_vcpus(gic: Version, vcpus: u32) -> Self {
        Self::with_memory(gic, vcpus, 64)
    }

    /// On a machine with so many pages, mapped one by one.
    fn with_memory(gic: Version, vcpus: u32, pages: u64) -> Self {
        let coherence = Coherence {
            fwb: false,
            idc: false,
            dic: false,
            pipt: true,
        };
        let mut m = Recorder::new(pages, coherence);
        let pool = m.pool.clone();
        let config = DomainConfig {
            name: "test".into(),
            memory: 64 << 20,
            vcpus,
            affinities: vec![u64::MAX; vcpus as usize],
            console: true,
            kernel: Module::Inside(0..0),
            ramdisk: None,
            bootargs: String::new(),
            rights: RightsPolicy::Lazy,
            granule: GranulePolicy::Page,
            resize: ResizePolicy::default(),
            rom: Vec::new(),
            xn: Vec::new(),
            reboot: RebootPolicy::default(),
            ipa_bits: None,
        };
        let kernel: Vec<u8> = (0..0x1800u32).map(|n| n as u8 | 1).collect();
        m.add_module(Pa::new(KERNEL_AT), kernel.clone());
        let modules = Modules {
            kernel: Bytes {
                bytes: &kernel,
                at: Pa::new(KERNEL_AT),
            },
            ramdisk: None,
        };
        let loaded = load(&config, &modules, 0, &pool, &mut m).unwrap();
        let features = Features {
            coherence,
            ..Features::new(&IdRegisters {
                mmfr0: 5,
                ..IdRegisters::default()
            })
        };
        let mut ids = RawIds::default();
        // ID_AA64MMFR1_EL1.PAN and ID_AA64PFR1_EL1.SSBS.
        ids.0[index(7, 1)] = 1 << 20;
        ids.0[index(4, 1)] = 1 << 4;
        let clock = Some(Clock { epoch: EPOCH });
        let ground = Ground {
            pool: &pool,
            vmids: &Arc::new(Vmids::new(&features)),
            features: &features,
            ids: &ids,
            gic,
            vcpu_interface: (gic == Version::V2).then_some(Pa::new(0x0804_0000)),
            mitigations: Mitigations::default(),
            clock,
        };
        let devices = Devices::new(gic, vcpus as usize, true, clock).unwrap();
        let vm = Vm::new(&config, &ground, loaded, devices, &mut m).unwrap();
        m.watch(vm.stage2());
        m.host = HostState {
            list: vec![ListRegister::default(); MAX_LIST_REGISTERS],
            ..HostState::default()
        };
        let mut vcpu = vm.vcpu(0);
        vm.boot(&mut vcpu);
        let vm = Arc::new(vm);
        Self { vm, vcpu, m, pool }
    }

    /// One synchronous exit with this ESR, FAR and HPFAR.
    pub(super) fn exit(&mut self, esr: u64, far: u64, ipa: u64) -> Next {
        let syndrome = Syndrome {
            esr,
            far,
            hpfar: ipa >> 12 << 4,
        };
        let exit = Exit::decode(Vector::Synchronous, &syndrome);
        let before = self.to_look_at();
        let next = self
            .vm
            .handle_exit(&mut self.vcpu, &exit, &self.pool, &mut self.m);
        self.m.enter_guest();
        if next == Next::Resume {
            assert_eq!(self.to_look_at(), before, "there is something to look at");
        }
        next
    }

    /// What must be looked at before the guest is entered, if an exit changes it.
    pub(super) fn to_look_at(&self) -> impl PartialEq + fmt::Debug + use<> {
        let host = &self.m.host;
        let to_plan = self.vm.devices().vcpus_to_plan();
        let others = (host.kicks.len(), host.started.len());
        (to_plan, self.vcpu.traps, others, host.listens)
    }

    /// A load or store to a device, as the hardware reports it.
    fn access(
        &mut self,
        at: u64,
        width: u64,
        register: u64,
        write: Option<u64>,
        more: u64,
    ) -> Next {
        if let Some(value) = write {
            self.vcpu.registers.write(register as u8, value);
        }
        let sas = u64::from(width.trailing_zeros());
        let iss =
            1 << 24 | sas << 22 | register << 16 | u64::from(write.is_some()) << 6 | 0x07 | more;
        self.exit(0x24 << 26 | 1 << 25 | iss, at & 0xfff | 0x7000_0000, at)
    }

    fn store(&mut self, at: u64, value: u64) {
        assert_eq!(self.access(at, 4, 1, Some(value), 0), Next::Look);
    }

    fn load(&mut self, at: u64) -> u64 {
        assert_eq!(self.access(at, 4, 2, None, 0), Next::Look);
        self.vcpu.registers.x[2]
    }

    fn el1(&self, register: El1) -> u64 {
        self.m.el1[register as usize]
    }
}

#[test]
fn a_vm_starts_empty_and_its_kernel_arrives_by_fault() {
    let mut run = Run::new();
    assert_eq!(run.vcpu.registers.pc, ENTRY);
    assert_eq!(run.vcpu.registers.x[0], RAM, "the device tree");
    assert_eq!(run.vcpu.registers.x[1..4], [0; 3]);
    assert_eq!(run.vcpu.registers.pstate, 0x3c5, "EL1h, all masked");
    assert!(run.m.mapped().is_empty());
    // The first fetch.
    assert_eq!(
        run.exit(0x20 << 26 | 1 << 25 | 0x06, ENTRY, ENTRY),
        Next::Resume
    );
    assert_eq!(run.vcpu.registers.pc, ENTRY, "the fetch is tried again");
    let (pa, rights) = run.m.translate(ENTRY).unwrap();
    assert_eq!(rights, [true, false, true]);
    let expected: Vec<u8> = (0..0x1000u32).map(|n| n as u8 | 1).collect();
    assert_eq!(run.m.page(pa), &expected[..]);
    assert_eq!(run.vcpu.counters.exits.aborts, 1);
}

#[test]
fn the_end_of_a_vm_gives_back_all_it_took() {
    let mut run = Run::new();
    for page in 0..5 {
        run.exit(
            0x24 << 26 | 1 << 25 | 0x47,
            RAM + page * 0x1000,
            RAM + page * 0x1000,
        );
    }
    assert_eq!(run.vm.stage2().page_count(), 5);
    run.m.park();
    let vm = Arc::into_inner(run.vm).expect("nobody else has it");
    let loaded = vm.destroy(&run.pool, &mut run.m);
    assert_eq!(run.pool.account().taken, loaded.page_count() as u64);
    assert_eq!(loaded.entry().raw(), ENTRY, "what was loaded outlives it");
}

#[test]
fn interrupts_and_errors_are_no_affair_of_the_guest() {
    let mut run = Run::new();
    for (vector, expect_interrupt) in [
        (Vector::Irq, true),
        (Vector::Fiq, true),
        (Vector::SError, false),
    ] {
        let exit = Exit::decode(
            vector,
            &Syndrome {
                esr: 0x24 << 26,
                ..Syndrome::default()
            },
        );
        let before = run.vcpu.registers.clone();
        let next = run
            .vm
            .handle_exit(&mut run.vcpu, &exit, &run.pool, &mut run.m);
        assert_eq!(next == Next::Interrupt, expect_interrupt);
        assert_eq!(
            matches!(next, Next::End(super::End::Stopped(_))),
            !expect_interrupt
        );
        assert_eq!(
            (run.vcpu.registers.pc, run.vcpu.registers.x),
            (before.pc, before.x)
        );
    }
}

/// With FEAT_RAS an SError says how bad it is: what was corrected, or can be gone on after, costs the guest nothing.
#[test]
fn an_error_the_machine_survived_is_logged_and_the_guest_goes_on() {
    const SERROR: u64 = 0x2f << 26 | 1 << 25 | 0x11;
    for (has_ras, aet, survives) in [
        (true, 0b110, true),
        (true, 0b010, true),
        (true, 0b000, false),
        (true, 0b011, false),
        (false, 0b110, false),
    ] {
        let mut run = Run::new();
        Arc::get_mut(&mut run.vm).unwrap().guest.guest_errors_trap = has_ras;
        let before = run.vcpu.registers.pc;
        for _ in 0..3 {
            let exit = Exit::SError {
                esr: SERROR | aet << 10,
            };
            let next = run
                .vm
                .handle_exit(&mut run.vcpu, &exit, &run.pool, &mut run.m);
            assert_eq!(next == Next::Resume, survives, "AET {aet:#b}");
            assert_eq!(run.vcpu.registers.pc, before);
        }
        assert_eq!(run.vcpu.counters.survived_errors, 3 * u64::from(survives));
        assert_eq!(run.m.host.warnings.len(), usize::from(survives));
    }
}
