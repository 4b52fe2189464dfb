//! The life of a VM, as the boot CPU sees to it: made, run ([`dispatch`]), summed up, taken apart, and made again when it
//! resets.

use alloc::sync::Arc;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0};
use faultline::addr::{PAGE_SIZE, Size};
use faultline::config::{DomainConfig, RebootPolicy};
use faultline::fault::RightsPolicy;
use faultline::guest_tree::{self, GicVersion, GuestTree};
use faultline::options::Crash;
use faultline::page_pool::Account;
use faultline::stage2::maintenance;
use faultline::sysreg::id::index;
use faultline::vgic::Version;
use faultline::vm::{Devices, End, Ground, Loaded, Summary, Vm};
use faultline::{platform, sync, vm};
use tock_registers::interfaces::Readable;

use super::boot::Machine;
use super::console::{self, log};
use super::machine::Cpu;
use super::power::{self, Verdict, refuse};
use super::shared::Shared;
use super::vcpu_run::{self, VcpuRun};
use super::vm_run::VmRun;
use super::{debug, dispatch, interrupts, watch};

/// Resets within a second of the VM's own time, without a word on its console, after which it is stopped.
const SILENT_RESETS: u32 = 3;

/// Runs the machine's VM to its end, and ends the machine.
pub(super) fn run(mut machine: Machine) -> ! {
    let loaded = vm::load(
        &machine.domain,
        &machine.modules,
        machine.ids.0[index(7, 0)],
        &machine.shared.pool,
        &mut machine.cpu,
    );
    let mut loaded = loaded
        .unwrap_or_else(|error| refuse(format_args!("VM '{}': {error}", machine.domain.name)));
    place(&machine);
    vcpu_run::begin(&machine.shared.features, &mut machine.cpu);
    let before = machine.shared.pool.settled_account();
    let mut resets = Resets::default();
    let verdict = loop {
        let life = one_life(&mut machine, loaded, resets.boots);
        loaded = life.loaded;
        audit(before, machine.shared.pool.settled_account());
        if let Some(crash) = machine.crash {
            crash_on_purpose(crash);
        }
        match life.end {
            End::Reset if machine.domain.reboot == RebootPolicy::Restart => {
                if resets.are_a_loop(life.milliseconds, life.spoke) {
                    log!(
                        "vm",
                        "'{}' stopped: it reset {SILENT_RESETS} times within a second without a word on its console",
                        machine.domain.name
                    );
                    break Verdict::Stopped;
                }
                log!("vm", "'{}' resets", machine.domain.name);
            }
            End::Off | End::Reset | End::Exit(0) => break Verdict::Ok,
            End::Exit(_) => break Verdict::Failed,
            End::Stopped(_) => break Verdict::Stopped,
        }
    };
    power::end(verdict)
}

/// Says where vCPUs may not run everywhere; refuses where one could run nowhere.
fn place(machine: &Machine) {
    for placement in machine.domain.placements(machine.shared.cpus.len()) {
        if !placement.is_possible() {
            refuse(format_args!("VM '{}': {placement}", machine.domain.name));
        }
        if placement.misses_some() {
            log!("warning", "'{}': {placement}", machine.domain.name);
        } else {
            log!("vm", "'{}': {placement}", machine.domain.name);
        }
    }
}

/// A VM's resets, watched for a loop that nobody would see.
#[derive(Default)]
struct Resets {
    boots: u32,
    silent: u32,
    milliseconds: u64,
}

impl Resets {
    /// Notes a reset after a life of so many milliseconds in which the guest printed something, or did not.
    fn are_a_loop(&mut self, milliseconds: u64, spoke: bool) -> bool {
        self.boots += 1;
        self.milliseconds += milliseconds;
        self.silent += 1;
        if spoke || self.milliseconds >= 1000 {
            (self.silent, self.milliseconds) = (0, 0);
        }
        self.silent == SILENT_RESETS
    }
}

/// How one life of a VM went.
struct Life {
    end: End,
    loaded: Loaded,
    milliseconds: u64,
    /// The guest printed something.
    spoke: bool,
}

fn one_life(machine: &mut Machine, mut loaded: Loaded, boot_number: u32) -> Life {
    let name = machine.domain.name.clone();
    loaded.set_tree(tree(machine, &loaded, boot_number));
    let gic = machine.cpu.gic.version();
    let devices = Devices::new(
        gic,
        machine.domain.vcpus as usize,
        machine.cpu.gic.links_in_hardware(),
        machine.clock,
    )
    .unwrap_or_else(|error| refuse(format_args!("VM '{name}': {error:?}")));
    announce(machine, &loaded);
    let shared = machine.shared;
    let ground = Ground {
        pool: &shared.pool,
        vmids: &machine.vmids,
        features: &shared.features,
        ids: &machine.ids,
        gic,
        vcpu_interface: machine.vcpu_interface,
        mitigations: machine.mitigations,
        clock: machine.clock,
    };
    let vm = Vm::new(&machine.domain, &ground, loaded, devices, &mut machine.cpu)
        .unwrap_or_else(|error| refuse(format_args!("VM '{name}': {error}")));
    warn_of_resize(&machine.domain, &vm);
    debug::note_vm(&vm);
    let start = CNTPCT_EL0.get();
    let affinities = &machine.domain.affinities;
    let allowed = |index: usize| affinities.get(index).copied().unwrap_or(u64::MAX);
    // The first life's time is the board's, as without us. A later one's begins with it.
    let counter_offset = if boot_number == 0 { 0 } else { start };
    let running = VmRun::new(vm, counter_offset, |vm, index| {
        VcpuRun::new(vm.vcpu(index), allowed(index), &shared.features)
    });
    let end = to_its_end(&running, shared, &mut machine.cpu);
    let milliseconds = (CNTPCT_EL0.get() - start) * 1000 / CNTFRQ_EL0.get();
    console::interrupt_on_input(false);
    let vm = alone(running).vm;
    report(&vm, end, milliseconds);
    let spoke = vm.devices().spoke();
    debug::note_no_vm();
    Life {
        end,
        loaded: vm.destroy(&shared.pool, &mut machine.cpu),
        milliseconds,
        spoke,
    }
}

/// Turns the boot vCPU on, and works until the VM is over.
fn to_its_end(running: &Arc<VmRun>, shared: &'static Shared, cpu: &mut Cpu) -> End {
    // Control bits may be cached in TLBs, and an earlier VM had this VMID.
    maintenance::under_vttbr(
        cpu,
        running.vm.stage2().vttbr(),
        maintenance::invalidate_vmid,
    );
    shared.connect_console(running);
    running.turn_on(0, shared, cpu, |vcpu| running.vm.boot(vcpu));
    watch::begin(running, cpu);
    interrupts::console_input(running, interrupts::NOBODY, shared, cpu);
    dispatch::dispatch(shared, cpu, &|| running.is_over());
    running.end().unwrap_or(End::Off)
}

/// The VM, which nobody else has any more but for an instant: its vCPUs are gone, and others hold it only while they look
/// whether it is still there.
fn alone(mut running: Arc<VmRun>) -> VmRun {
    loop {
        match Arc::try_unwrap(running) {
            Ok(alone) => return alone,
            Err(shared) => running = shared,
        }
        sync::spin_loop();
    }
}

/// Another pCPU, from when it has come up to the end of the machine.
pub(super) fn secondary(mut cpu: Cpu) -> ! {
    let shared = Shared::wait();
    vcpu_run::begin(&shared.features, &mut cpu);
    loop {
        dispatch::dispatch(shared, &mut cpu, &|| false);
    }
}

/// The VM's device tree, with new seeds at each of its starts.
fn tree(machine: &Machine, loaded: &Loaded, boot_number: u32) -> alloc::vec::Vec<u8> {
    let seed = machine
        .seed
        .as_ref()
        .map(|seed| seed.for_boot(0, boot_number));
    let reserved = machine.domain.reserved();
    let tree = GuestTree {
        reserved: &reserved,
        memory: faultline::addr::IpaRange {
            start: platform::RAM_BASE,
            size: machine.domain.memory,
        },
        vcpus: machine.domain.vcpus,
        gic: match machine.cpu.gic.version() {
            Version::V2 => GicVersion::V2,
            Version::V3 => GicVersion::V3,
        },
        console: machine.domain.console,
        pmu: machine.shared.features.pmu && machine.shared.sources.has_pmu(),
        rtc: machine.clock.is_some(),
        bootargs: &machine.domain.bootargs,
        ramdisk: loaded.ramdisk(),
        seed: seed.as_ref(),
    };
    guest_tree::build(&tree)
        .unwrap_or_else(|error| refuse(format_args!("VM '{}': {error}", machine.domain.name)))
}

fn announce(machine: &Machine, loaded: &Loaded) {
    let domain = &machine.domain;
    log!(
        "vm",
        "'{}': {}, {} vCPU, {} rights, {} granule; no page is mapped yet",
        domain.name,
        Size(domain.memory),
        domain.vcpus,
        match domain.rights {
            RightsPolicy::Eager => "eager",
            RightsPolicy::Lazy => "lazy",
        },
        domain.granule,
    );
    log!("", "{}, entered at {}", loaded.format(), loaded.entry());
}

/// What was asked for and cannot be had is said, and what is done instead.
fn warn_of_resize(domain: &DomainConfig, vm: &Vm) {
    if vm.stage2().config().resize != domain.resize {
        log!(
            "warning",
            "'{}': `faultline,resize` is \"in-place\" and a CPU lacks FEAT_BBM level 2, FWB or DIC: break-before-make",
            domain.name
        );
    }
}

fn report(vm: &Vm, end: End, milliseconds: u64) {
    match end {
        End::Off => log!("vm", "'{}' is off", vm.name()),
        End::Reset => log!("vm", "'{}' asks for a reset", vm.name()),
        End::Exit(0) => log!("vm", "'{}' is done and content", vm.name()),
        End::Exit(code) => log!("vm", "'{}' reports failure: code {code}", vm.name()),
        // Said when it happened, its vCPU still there.
        End::Stopped(_) => {}
    }
    console::print(format_args!("{}", Summary { vm, milliseconds }));
}

/// Every page the VM took came back.
fn audit(before: Account, after: Account) {
    let leaked = after.taken.saturating_sub(before.taken);
    log!(
        "memory",
        "{leaked} pages leaked; {} of {} in use, {} at most",
        Size(after.taken * PAGE_SIZE),
        Size(after.total * PAGE_SIZE),
        Size(after.peak * PAGE_SIZE)
    );
    assert_eq!(after.taken, before.taken, "the VM's pages all came back");
}

/// `faultline.crash=`: shows what a crash of EL2 looks like.
fn crash_on_purpose(crash: Crash) {
    match crash {
        Crash::Panic => panic!("on purpose: faultline.crash=panic"),
        Crash::Abort => {
            // SAFETY: nothing is mapped at the top of the address space, which is the point.
            unsafe { core::ptr::read_volatile(0x0000_ffff_ffff_f000 as *const u64) };
        }
        Crash::Stack => {
            run_over(0);
        }
    }
}

/// Calls itself until the stack is used up.
#[allow(
    unconditional_recursion,
    reason = "it is what a stack overflow is made of"
)]
#[inline(never)]
fn run_over(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 32]);
    run_over(depth + 1) + frame[0]
}
