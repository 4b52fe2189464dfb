//! A pCPU at work: takes a ready vCPU, runs it until its slice ends, and puts it where it belongs; waits when there is none.
//!
//! A vCPU that has its pCPU to itself runs without a tick, and its WFI is the hardware's. While others wait for the pCPU, WFI
//! and WFE trap, and its time is a [`Slice`].

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use aarch64_cpu::registers::CNTFRQ_EL0;
use faultline::exit::{Exit, Vector};
use faultline::fault::{self, Stop};
use faultline::sched::{Slice, Whereabouts};
use faultline::stage2::clean;
use faultline::vm::{End, Next, Vm};
use tock_registers::interfaces::Readable;

use super::console::log;
use super::guest::{self, Running};
use super::interrupts::{self, Current};
use super::machine::Cpu;
use super::shared::Shared;
use super::vcpu_run::{VcpuRun, now};
use super::vm_run::VmRun;
use super::{guest_state, vcpu_run, watch};

/// Pages that are zeroed ahead of time each time a vCPU waits.
const PREPARED_PER_WAIT: usize = 4;

/// What a pCPU is to be woken for, besides the end of a slice.
#[derive(Clone)]
pub(super) struct Due {
    pub(super) vm: Weak<VmRun>,
    pub(super) what: Moment,
}

/// What has come when it is due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// That of a timer of this vCPU, which waits.
    Timer(usize),
    /// The VM's alarm.
    Alarm,
    /// The next look whether the VM sleeps for good.
    Watch,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.what == other.what && self.vm.ptr_eq(&other.vm)
    }
}

/// Why a vCPU left its pCPU.
enum Left {
    /// Others want it too.
    Yielded,
    /// It waits for an interrupt.
    Waits,
    /// It is off, by PSCI.
    Off,
    /// Its VM ends.
    Gone,
}

/// Runs what is ready until there is nothing and `is_done`.
pub(super) fn dispatch(shared: &'static Shared, cpu: &mut Cpu, is_done: &dyn Fn() -> bool) {
    // The VM whose stage 2 is in the hardware: it is not taken apart while it is here.
    let mut here: Option<Arc<VmRun>> = None;
    loop {
        let Some(run) = shared.scheduler.next(cpu.number) else {
            vacate(&mut here, cpu);
            if is_done() {
                return;
            }
            // A fault after the wait finds its page prepared. A few at a time: an interrupt may be waiting.
            for _ in 0..PREPARED_PER_WAIT {
                clean::prepare(cpu, &shared.pool, &shared.features.coherence);
            }
            cpu.wait();
            interrupts::handle(None, shared, cpu);
            continue;
        };
        if !here.as_ref().is_some_and(|vm| run.is_of(vm)) {
            vacate(&mut here, cpu);
            here = run.vm();
            if let Some(vm) = &here {
                vcpu_run::occupy(vm, cpu);
            }
        }
        if let Some(vm) = &here {
            slice(run, vm, shared, cpu);
        }
    }
}

/// Takes the VM that is here, if one is, out of this pCPU.
fn vacate(here: &mut Option<Arc<VmRun>>, cpu: &mut Cpu) {
    if here.is_some() {
        vcpu_run::vacate(cpu);
        *here = None;
    }
}

/// One slice of a vCPU of the VM that is here.
#[inline(always)] // the one place that begins one
fn slice(mut run: Box<VcpuRun>, vm: &Arc<VmRun>, shared: &'static Shared, cpu: &mut Cpu) {
    let index = run.vcpu.index;
    let Some(place) = vm.whereabouts(index) else {
        return;
    };
    place.note_running(cpu.number);
    if vm.ends() {
        return vm.note_gone(run, shared, cpu);
    }
    run.load(vm, cpu);
    cpu.shares = None;
    let left = run_on(vm, &mut run, shared, cpu);
    run.save(cpu);
    match left {
        Left::Waits => wait(vm, place, run, shared, cpu),
        Left::Yielded => {
            run.leave(vm, cpu);
            place.note_ready();
            shared.make_ready_again(run, cpu);
        }
        Left::Off => {
            run.leave(vm, cpu);
            place.turn_off(run);
            // The VM may have ended meanwhile, and who ended it did not find the vCPU here.
            if vm.ends()
                && let Some(run) = place.give_up()
            {
                vm.note_gone(run, shared, cpu);
            }
        }
        Left::Gone => {
            run.leave(vm, cpu);
            vm.note_gone(run, shared, cpu);
        }
    }
}

/// Lets a vCPU wait until there is something for it to do. Whoever makes an interrupt pending does so under the devices' lock
/// and looks for the vCPU after: under that lock it is looked at, and put where it is found.
fn wait(
    vm: &VmRun,
    place: &Whereabouts<Box<VcpuRun>>,
    mut run: Box<VcpuRun>,
    shared: &'static Shared,
    cpu: &mut Cpu,
) {
    let index = run.vcpu.index;
    run.set_due(vm, cpu);
    let awake = vm.vm.on_devices(index, cpu, |devices, cpu| {
        run.take_interrupts(devices, cpu);
        if devices.is_signalled(index, &run.interface) {
            return Some(run);
        }
        place.wait(run, || vm.needs_attention(index))
    });
    match awake {
        Some(run) => {
            place.note_ready();
            shared.make_ready_again(run, cpu);
        }
        None if vm.watch.is_on() => watch::look(vm),
        None => {}
    }
}

/// Whether others wait for this pCPU decides whether its vCPU's waits trap and its slice ends: looked at on every way into the
/// guest, as its own vCPU may have made another ready.
#[inline]
fn share(shared: &Shared, cpu: &mut Cpu) {
    let shares = shared.scheduler.has_waiting(cpu.number);
    if cpu.shares != Some(shares) {
        begin_slice(shares, cpu);
    }
}

/// The slice of the vCPU that is here begins; it ends if others wait.
pub(super) fn begin_slice(shares: bool, cpu: &mut Cpu) {
    cpu.shares = Some(shares);
    cpu.slice_is_over = false;
    guest_state::trap_waits(cpu, shares);
    cpu.set_slice(if shares {
        Slice::new(now(), CNTFRQ_EL0.get())
    } else {
        Slice::ENDLESS
    });
}

/// The moment to look at the slice has come. It is over for a vCPU that waits in vain for another of its VM, which may wait for
/// this pCPU.
pub(super) fn look_at_slice(current: Option<&Current<'_>>, shared: &Shared, cpu: &mut Cpu) {
    if !shared.scheduler.has_waiting(cpu.number) {
        return begin_slice(false, cpu);
    }
    let mut slice = cpu.slice;
    let is_over = slice.is_over(|| {
        current.is_none_or(|Current { vm, run }| {
            fault::spins(vm.vm.stage2(), &run.vcpu.registers, cpu)
        })
    });
    cpu.slice_is_over = is_over;
    cpu.set_slice(if is_over { Slice::ENDLESS } else { slice });
}

/// Runs a vCPU on this pCPU until it leaves it.
#[inline(always)] // the one place that runs a vCPU
fn run_on(vm: &Arc<VmRun>, run: &mut VcpuRun, shared: &'static Shared, cpu: &mut Cpu) -> Left {
    let index = run.vcpu.index;
    loop {
        if let Some(left) = look(vm, run, shared, cpu) {
            return left;
        }
        loop {
            match one_exit(&vm.vm, run, shared, cpu) {
                Next::Resume => continue,
                Next::Look => {
                    guest_state::set_own_traps(cpu, &run.vcpu);
                    if cpu.take_guest_listens() {
                        interrupts::console_input(vm, index, shared, cpu);
                    }
                }
                Next::Interrupt => interrupts::handle(Some(Current { vm, run }), shared, cpu),
                // What waits in the list registers is looked at on the way off.
                Next::Wait if !vm.vm.needs_plan(index) => return Left::Waits,
                Next::Wait => {}
                Next::Yield if shared.scheduler.has_waiting(cpu.number) => return Left::Yielded,
                Next::Yield => {}
                Next::Off => return Left::Off,
                Next::End(end) => return end_vm(vm, end, shared, cpu),
            }
            break;
        }
    }
}

/// What there is to see to before a vCPU enters its guest; answers if it does not.
#[inline]
fn look(vm: &VmRun, run: &VcpuRun, shared: &Shared, cpu: &mut Cpu) -> Option<Left> {
    // Nobody kicks a pCPU that made a vCPU ready for itself.
    share(shared, cpu);
    if vm.needs_attention(run.vcpu.index) {
        if vm.ends() {
            return Some(Left::Gone);
        }
        attend(vm, run, cpu);
    }
    if cpu.slice_is_over {
        return Some(Left::Yielded);
    }
    interrupts::write_list(&vm.vm, &run.vcpu, cpu);
    None
}

/// Does what the vCPU was asked for.
#[cold]
fn attend(vm: &VmRun, run: &VcpuRun, cpu: &mut Cpu) {
    let asked = vm.take_asked(run.vcpu.index);
    if asked.place {
        tell_where(vm, run, cpu);
    }
    if asked.waits {
        guest_state::trap_waits(cpu, true);
    }
}

/// The heart: enter the guest, read the syndrome once, decode, let the library handle it.
#[inline(always)] // a `Next` is large, and most are looked at once
fn one_exit(vm: &Vm, run: &mut VcpuRun, shared: &Shared, cpu: &mut Cpu) -> Next {
    let (vector, syndrome) = guest::enter(&mut Running {
        vm,
        vcpu: &mut run.vcpu,
        cpu,
        pool: &shared.pool,
    });
    let vector = guest::vector(vector);
    if vector == Vector::Synchronous {
        if let Some(next) = vm.wait(&mut run.vcpu, &syndrome) {
            return next;
        }
        if vm.device_access(&mut run.vcpu, &syndrome, cpu) {
            return Next::Look;
        }
    }
    let exit = Exit::decode(vector, &syndrome);
    if gives_lazily(&exit, run, cpu) {
        return Next::Resume;
    }
    vm.handle_exit(&mut run.vcpu, &exit, &shared.pool, cpu)
}

#[cold]
fn end_vm(vm: &VmRun, end: End, shared: &Shared, cpu: &Cpu) -> Left {
    if let End::Stopped(why) = end
        && !vm.ends()
    {
        report_stop(&vm.vm, why);
    }
    vm.end_with(end, shared, cpu);
    Left::Gone
}

/// Registers that a vCPU gets when it first uses them in its slice. Answers whether that is what it left the guest for: then
/// it tries again.
fn gives_lazily(exit: &Exit, run: &mut VcpuRun, cpu: &mut Cpu) -> bool {
    /// `ESR_EL2.EC` of an access to floating-point or SIMD registers.
    const FP_SIMD: u64 = 0x07;
    match exit {
        Exit::Hidden { class } if *class == FP_SIMD => cpu.fp.open(&run.fp),
        Exit::SysReg(access) if access.is_debug() => run.breakpoints.open(),
        Exit::SysReg(access) if access.is_pmu() => run.pmu.open(),
        _ => false,
    }
}

/// Answers the hot key for a vCPU that runs here.
fn tell_where(vm: &VmRun, run: &VcpuRun, cpu: &Cpu) {
    let registers = &run.vcpu.registers;
    log!(
        "where",
        "'{}' vCPU {} on CPU {}: PC {:#x} at {}, interrupts {}, x30 {:#x}, {} exits",
        vm.vm.name(),
        run.vcpu.index,
        cpu.number,
        registers.pc,
        registers.level(),
        if registers.masks_irqs() {
            "masked"
        } else {
            "on"
        },
        registers.x[30],
        run.vcpu.counters.exits.total()
    );
}

/// A function of its own, for `faultline break stop` (gdb).
#[inline(never)]
fn report_stop(vm: &Vm, why: Stop) {
    log!("vm", "'{}' stopped: {why}", vm.name());
}
