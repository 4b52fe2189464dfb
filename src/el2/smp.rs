//! The other CPUs: started one after the other by PSCI or a spin table, each with a guarded stack of its own. One that does
//! not come up is left out, with a line.
//!
//! A ticket tells who is wanted: the boot CPU issues one, the CPU that arrives takes it, and after a second the boot CPU
//! takes it back. One that arrives later finds another ticket, or none, and waits for ever on a stack that is nobody
//! else's.
//!
//! Sources: DEN 0022 "CPU_ON"; Linux `Documentation/arch/arm64/booting.rst` for spin tables.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, MPIDR_EL1, TCR_EL2, TTBR0_EL2};
use faultline::addr::{Pa, PaRange};
use faultline::board::{Board, Conduit, Cpu as BoardCpu, EnableMethod, Mpidr};
use faultline::features::Features;
use faultline::machine::{Dc, MAX_CPUS, Machine as _};
use faultline::sync;
use faultline::sysreg::id::RawIds;
use spin::Once;
use tock_registers::interfaces::Readable;

use super::console::log;
use super::driver::gic::Gic;
use super::hyp_map::{self, TooRagged, Use};
use super::interrupts::Sources;
use super::machine::{Cpu, identity};
use super::{el3, ids, run};

/// A stack fills the upper half of a slot of this size and alignment; the lower half is not mapped (vectors.S).
const STACK_SLOT: u64 = 0x2_0000;

/// What a CPU has, and how it is called.
pub(super) struct Arrival {
    /// What it can do.
    pub(super) features: Features,
    /// Its ID registers.
    pub(super) ids: RawIds,
    /// How the interrupt controller names it.
    pub(super) gic_target: u64,
}

impl Arrival {
    /// The CPU that calls this.
    pub(super) fn of_this_cpu(gic: &Gic) -> Self {
        Self {
            features: ids::features(),
            ids: ids::raw(),
            gic_target: gic.target(),
        }
    }
}

/// What entry.S tells a CPU that arrives with its MMU off. Cleaned to the point of coherency before each start.
#[repr(C, align(64))]
pub(super) struct Wanted {
    ttbr: u64,
    tcr: u64,
    mpidr: u64,
    stack_top: u64,
    ticket: u64,
}

/// Read by entry.S.
pub(super) static mut WANTED: Wanted = Wanted {
    ttbr: 0,
    tcr: 0,
    mpidr: 0,
    stack_top: 0,
    ticket: 0,
};

/// The ticket that is out, or one of these.
static TICKET: AtomicUsize = AtomicUsize::new(NOBODY);
/// Nobody is wanted.
const NOBODY: usize = usize::MAX;
/// The CPU that was wanted has come.
const TAKEN: usize = usize::MAX - 1;

/// What those who come need.
struct Reception {
    gic: Gic,
    description: faultline::board::Gic,
    sources: Sources,
}

static RECEPTION: Once<Reception> = Once::new();
static STACKS: Once<Vec<PaRange>> = Once::new();
/// By pCPU number.
static ARRIVALS: [Once<Arrival>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
/// The number of the next pCPU.
static NEXT: AtomicUsize = AtomicUsize::new(1);
/// The ticket of a CPU that came and cannot be used.
static USELESS: AtomicUsize = AtomicUsize::new(NOBODY);

unsafe extern "C" {
    /// entry.S.
    static secondary_entry: u8;
}

/// Finds room for the other CPUs' stacks in free RAM, before anything else of it is used, and maps the stacks. The slots
/// are to be kept from the pool, lower halves and all.
pub(super) fn stacks(board: &Board, taken: &[PaRange]) -> Result<Vec<PaRange>, TooRagged> {
    let count = board.cpus.len().min(MAX_CPUS).saturating_sub(1);
    let mut slots = Vec::with_capacity(count);
    for range in board.free_ram(taken) {
        let mut next = range.start.align_up(STACK_SLOT);
        while slots.len() < count
            && let Some(start) = next
            && let Some(slot) = PaRange::new(start, STACK_SLOT)
            && range.intersect(&slot) == Some(slot)
        {
            let upper = PaRange {
                start: start.add(STACK_SLOT / 2),
                size: STACK_SLOT / 2,
            };
            hyp_map::map(upper, Use::Data)?;
            slots.push(slot);
            next = Some(start.add(STACK_SLOT));
        }
    }
    Ok(slots)
}

/// Starts the board's other CPUs. Answers all that are there, by number; the one that calls this is the first.
pub(super) fn start_all(
    board: &Board,
    slots: &[PaRange],
    gic: &Gic,
    sources: Sources,
    cpu: &mut Cpu,
) -> Vec<&'static Arrival> {
    RECEPTION.call_once(|| Reception {
        gic: gic.clone(),
        description: board.gic.clone(),
        sources,
    });
    STACKS.call_once(|| slots.to_vec());
    let mut all = Vec::from([ARRIVALS[0].call_once(|| Arrival::of_this_cpu(gic))]);
    let this = Mpidr::from_register(MPIDR_EL1.get());
    let others = board.cpus.iter().filter(|other| other.mpidr != this);
    let mut left_out = board.cpus.len().saturating_sub(1 + slots.len());
    for (ticket, (other, slot)) in others.zip(slots).enumerate() {
        match start(board, other, slot.end(), ticket, cpu) {
            Ok(arrival) => all.push(arrival),
            Err(why) => {
                left_out += 1;
                log!("warning", "CPU {} is left out: {why}", other.mpidr);
            }
        }
    }
    log!(
        "cpus",
        "{} of {} up{}",
        all.len(),
        board.cpus.len(),
        if left_out == 0 {
            ""
        } else {
            "; the others are left out"
        }
    );
    all
}

fn start(
    board: &Board,
    other: &BoardCpu,
    stack_top: Pa,
    ticket: usize,
    cpu: &mut Cpu,
) -> Result<&'static Arrival, &'static str> {
    want(other, stack_top, ticket, cpu);
    let number = NEXT.load(Ordering::Relaxed);
    call(board, other, cpu)?;
    if !arrives(ticket) {
        return Err("it did not come up within a second");
    }
    loop {
        if let Some(arrival) = ARRIVALS[number].get() {
            return Ok(arrival);
        }
        if USELESS.load(Ordering::Acquire) == ticket {
            return Err("the interrupt controller does not know it");
        }
        sync::spin_loop();
    }
}

/// Says who is wanted, for entry.S and [`secondary`].
fn want(other: &BoardCpu, stack_top: Pa, ticket: usize, cpu: &mut Cpu) {
    let wanted = Wanted {
        ttbr: TTBR0_EL2.get(),
        tcr: TCR_EL2.get(),
        mpidr: other.mpidr.raw(),
        stack_top: stack_top.raw(),
        ticket: ticket as u64,
    };
    let place = &raw mut WANTED;
    // SAFETY: written by the boot CPU alone, one start at a time; who reads it meanwhile is entry.S, which copes with either
    // content: a CPU finds itself in it or waits for ever.
    unsafe { place.write_volatile(wanted) };
    let table = PaRange {
        start: Pa::new(place as u64),
        size: size_of::<Wanted>() as u64,
    };
    cpu.dc(Dc::CleanInvalidateToPoc, table);
    barrier::dsb(barrier::SY);
    TICKET.store(ticket, Ordering::Release);
}

/// Has firmware, or the spin table, let the CPU go.
fn call(board: &Board, other: &BoardCpu, cpu: &mut Cpu) -> Result<(), &'static str> {
    let entry = &raw const secondary_entry as u64;
    match other.enable {
        EnableMethod::Psci if board.psci == Some(Conduit::Smc) && !el3::is_ours() => {
            smccc::psci::cpu_on::<smccc::Smc>(other.mpidr.raw(), entry, 0)
                .map_err(|_| "firmware refuses to start it (PSCI CPU_ON)")
        }
        EnableMethod::SpinTable { release } => {
            if hyp_map::map(super::boot::page_of(release), Use::Data).is_err() {
                return Err("the map of EL2 has no room for its release address");
            }
            // SAFETY: the word at which the CPU looks, mapped; its page is reserved (board.rs), so nobody else's.
            unsafe { identity::<u64>(release).write_volatile(entry) };
            cpu.dc(
                Dc::CleanInvalidateToPoc,
                PaRange {
                    start: release,
                    size: 8,
                },
            );
            barrier::dsb(barrier::SY);
            aarch64_cpu::asm::sev();
            Ok(())
        }
        EnableMethod::Psci => Err("there is no firmware to start it (PSCI by SMC)"),
        EnableMethod::Unknown => Err("the device tree does not say how it is started"),
    }
}

/// Waits until the ticket is taken; takes it back after a second.
fn arrives(ticket: usize) -> bool {
    let end = CNTPCT_EL0.get() + CNTFRQ_EL0.get();
    while TICKET.load(Ordering::Acquire) == ticket && CNTPCT_EL0.get() < end {
        sync::spin_loop();
    }
    let took_back = TICKET.compare_exchange(ticket, NOBODY, Ordering::AcqRel, Ordering::Acquire);
    took_back.is_err()
}

/// A CPU that was started, on its own stack, MMU and caches on. Called from entry.S.
pub(super) extern "C" fn secondary(ticket: usize) -> ! {
    let is_wanted = TICKET.compare_exchange(ticket, TAKEN, Ordering::AcqRel, Ordering::Acquire);
    let Some(reception) = RECEPTION.get().filter(|_| is_wanted.is_ok()) else {
        wait_for_ever();
    };
    let number = NEXT.load(Ordering::Relaxed);
    let Some(gic) = reception.gic.join(&reception.description) else {
        USELESS.store(ticket, Ordering::Release);
        wait_for_ever();
    };
    reception.sources.enable_private(&gic);
    let arrival = Arrival::of_this_cpu(&gic);
    let cpu = Cpu::new(number, &arrival.features, gic);
    NEXT.store(number + 1, Ordering::Relaxed);
    ARRIVALS[number].call_once(|| arrival);
    run::secondary(cpu)
}

/// Whether this is in the stack of one of the other CPUs.
pub(super) fn is_stack(at: Pa) -> bool {
    STACKS.get().is_some_and(|slots| {
        slots
            .iter()
            .any(|slot| slot.contains(at) && at.raw() & (STACK_SLOT / 2) != 0)
    })
}

fn wait_for_ever() -> ! {
    loop {
        aarch64_cpu::asm::wfe();
    }
}
