//! The heart: enter the guest, read the syndrome once, decode, let the library handle it. And around it the life of a VM:
//! made, run, summed up, taken apart, and made again when it resets.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, ESR_EL2, FAR_EL2, VTTBR_EL2};
use faultline::addr::{PAGE_SIZE, Size};
use faultline::config::RebootPolicy;
use faultline::exit::{Exit, Syndrome, Vector};
use faultline::fault::RightsPolicy;
use faultline::fault::Stop;
use faultline::guest_tree::{self, GicVersion, GuestTree};
use faultline::options::Crash;
use faultline::page_pool::Account;
use faultline::stage2::maintenance;
use faultline::sysreg::id::index;
use faultline::vgic::Version;
use faultline::vm::{Devices, End, Ground, Loaded, Next, Summary, Vcpu, Vm};
use faultline::{platform, vm};
use tock_registers::interfaces::{Readable, Writeable};

use super::boot::Machine;
use super::console::{self, log};
use super::interrupts::{self, Sources};
use super::machine::Cpu;
use super::power::{self, Verdict, refuse};
use super::{debug, guest_state, hpfar, percpu};

/// Resets within a second of the VM's own time, without a word on its console, after which it is stopped.
const SILENT_RESETS: u32 = 3;

/// Runs the machine's VM to its end, and ends the machine.
pub(super) fn run(mut machine: Machine) -> ! {
    let loaded = vm::load(
        &machine.domain,
        &machine.modules,
        machine.ids.0[index(7, 0)],
        &machine.pool,
        &mut machine.cpu,
    );
    let mut loaded = loaded
        .unwrap_or_else(|error| refuse(format_args!("VM '{}': {error}", machine.domain.name)));
    let before = machine.pool.account();
    let mut resets = Resets::default();
    let verdict = loop {
        let life = one_life(&mut machine, loaded, resets.boots);
        loaded = life.loaded;
        audit(before, machine.pool.account());
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
    let links_in_hardware = machine.cpu.gic.links_in_hardware();
    let vcpus = machine.domain.vcpus as usize;
    let devices = Devices::new(gic, vcpus, links_in_hardware, machine.clock)
        .unwrap_or_else(|error| refuse(format_args!("VM '{name}': {error:?}")));
    announce(machine, &loaded);
    let ground = Ground {
        pool: &machine.pool,
        features: &machine.features,
        ids: &machine.ids,
        gic,
        vcpu_interface: machine.vcpu_interface,
        mitigations: machine.mitigations,
        clock: machine.clock,
    };
    let vm = Vm::new(&machine.domain, &ground, loaded, devices, &mut machine.cpu)
        .unwrap_or_else(|error| refuse(format_args!("VM '{name}': {error}")));
    let mut vcpu = vm.boot_vcpu();
    prepare(&vm, &vcpu, machine);
    debug::note_vcpu(&vm, &vcpu);
    let start = CNTPCT_EL0.get();
    let end = run_vcpu(
        &vm,
        &mut vcpu,
        &machine.pool,
        &machine.sources,
        &mut machine.cpu,
    );
    let milliseconds = (CNTPCT_EL0.get() - start) * 1000 / CNTFRQ_EL0.get();
    console::interrupt_on_input(false);
    report(&vm, end, milliseconds);
    let spoke = vm.devices().spoke();
    park();
    debug::note_no_vm();
    Life {
        end,
        loaded: vm.destroy(&machine.pool, &mut machine.cpu),
        milliseconds,
        spoke,
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

/// Puts the vCPU's state into this pCPU.
fn prepare(vm: &Vm, vcpu: &Vcpu, machine: &mut Machine) {
    guest_state::reset_el1(&machine.features);
    park();
    guest_state::set_traps(&machine.features, vm.stage2());
    machine.cpu.gic.reset_virtual();
    machine.sources.quieten(&machine.cpu.gic);
    VTTBR_EL2.set(vm.stage2().vttbr());
    barrier::isb(barrier::SY);
    // Control bits may be cached in TLBs, and an earlier VM had this VMID.
    maintenance::invalidate_vmid(&mut machine.cpu);
    guest_state::open_stage1();
    interrupts::console_input(vm, vcpu, &mut machine.cpu);
}

/// Zeroes for 16 root tables side by side: a stage 2 in which nothing is mapped.
#[repr(align(65536))]
struct EmptyRoot([u8; 65536]);

#[unsafe(link_section = ".bss.empty_root")]
static EMPTY_ROOT: EmptyRoot = EmptyRoot([0; 65536]);

/// No VM: EL1's stage 1 is off and walks nothing, and stage 2 is empty, so that no speculative walk reads what is no table.
fn park() {
    guest_state::close_stage1();
    interrupts::set_hyp_timer(None);
    // The walker may still be at work for the VM that ended.
    barrier::dsb(barrier::NSH);
    VTTBR_EL2.set(EMPTY_ROOT.0.as_ptr() as u64);
    barrier::isb(barrier::SY);
}

/// Runs a vCPU until its VM ends.
fn run_vcpu(
    vm: &Vm,
    vcpu: &mut Vcpu,
    pool: &faultline::page_pool::PagePool,
    sources: &Sources,
    cpu: &mut Cpu,
) -> End {
    loop {
        interrupts::write_list(vm, vcpu, cpu);
        let vector = percpu::enter(&mut vcpu.registers);
        let esr = ESR_EL2.get();
        let syndrome = Syndrome {
            esr,
            far: FAR_EL2.get(),
            hpfar: hpfar::after(esr),
        };
        debug::note_exit(vector, &vcpu.registers, &syndrome);
        let next = if vector == 0 && vm.quick_access(vcpu, &syndrome, cpu) {
            Next::Resume
        } else {
            let exit = Exit::decode(vector_of(vector), &syndrome);
            vm.handle_exit(vcpu, &exit, pool, cpu)
        };
        match next {
            Next::Resume => {}
            Next::Interrupt => interrupts::handle(vm, vcpu, sources, cpu),
            Next::Wait => {
                let is_pending = vm.on_devices(vcpu.index, cpu, |devices, cpu| {
                    devices.fold_in(vcpu.index, cpu);
                    devices.is_pending(vcpu.index)
                });
                if !is_pending {
                    cpu.wait();
                }
                interrupts::handle(vm, vcpu, sources, cpu);
            }
            // There is no other vCPU that could be on.
            Next::Off => return End::Off,
            Next::End(end) => return end,
        }
        if cpu.take_guest_listens() {
            interrupts::console_input(vm, vcpu, cpu);
        }
    }
}

fn vector_of(number: u64) -> Vector {
    match number {
        0 => Vector::Synchronous,
        1 => Vector::Irq,
        2 => Vector::Fiq,
        _ => Vector::SError,
    }
}

fn report(vm: &Vm, end: End, milliseconds: u64) {
    match end {
        End::Off => log!("vm", "'{}' is off", vm.name()),
        End::Reset => log!("vm", "'{}' asks for a reset", vm.name()),
        End::Exit(0) => log!("vm", "'{}' is done and content", vm.name()),
        End::Exit(code) => log!("vm", "'{}' reports failure: code {code}", vm.name()),
        End::Stopped(why) => report_stop(vm, why),
    }
    console::print(format_args!("{}", Summary { vm, milliseconds }));
}

/// A function of its own, for `faultline break stop` (gdb).
#[inline(never)]
fn report_stop(vm: &Vm, why: Stop) {
    log!("vm", "'{}' stopped: {why}", vm.name());
}

/// Every page the VM took came back.
fn audit(before: Account, after: Account) {
    let leaked = after.taken - before.taken;
    log!(
        "memory",
        "{leaked} pages leaked; {} of {} in use, {} at most",
        Size(after.taken * PAGE_SIZE),
        Size(after.total * PAGE_SIZE),
        Size(after.peak * PAGE_SIZE)
    );
    assert_eq!(leaked, 0, "the VM's pages all came back");
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
