//! The interrupt controller's state: enable, pending, active, priority, targets, configuration; read back as written,
//! kept per CPU or shared as documented; and what it does to delivery: masks, preemption, the two ways of ending, more
//! pending than any list registers hold, edges and levels, an interrupt that moves.
//!
//! Oracle: IHI 0048 (GICv2) chapters 3 and 4, IHI 0069 (GICv3) chapters 4, 8 and 12.
#![no_std]
#![no_main]

mod delivery;
mod groups;
mod private;
mod registers;

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use runtime::gic::{Gic, PRIORITY, SPECIAL, register};
use runtime::sync::{PerCpu, wait_for};
use runtime::{mmio, mmu, println, smp, timer, trap, verdict};

runtime::guest!("gic_state", gic_state);

/// SPIs that no device here drives.
const SPIS: u32 = 12;
/// The first of them; the last ones lie in another word of the registers.
const FIRST_SPI: u32 = 84;

static GIC: PerCpu<Option<Gic>> = PerCpu::new(None);
/// What was taken, in the order it came: INTIDs, from the start.
static LOG: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];
/// On which CPU.
static LOG_CPU: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];
static LENGTH: AtomicUsize = AtomicUsize::new(0);
/// What the handler does between acknowledge and end, by kind of test.
static MANNER: AtomicU32 = AtomicU32::new(PLAIN);
const PLAIN: u32 = 0;
/// Lets IRQs in before the end.
const NESTED: u32 = 1;
/// Does not end it: the test does.
const LEFT: u32 = 2;
/// Makes it pending again while it is active, the first time.
const AGAIN: u32 = 3;

fn gic_state() {
    mmu::Tables::identity().enable();
    trap::on_irq(on_irq);
    setup();
    if smp::count() > 1 {
        smp::start_others(smp::count(), smp::serve);
        for cpu in 1..smp::count() {
            smp::on(cpu, setup);
        }
    }
    println!("GICv{}, {} CPUs", gic().version(), smp::count());
    registers::all();
    delivery::all();
    private::all();
    groups::all();
}

fn gic() -> Gic {
    GIC.get()
        .unwrap_or_else(|| verdict::fail(format_args!("no interrupt controller")))
}

fn setup() {
    GIC.set(Gic::from_tree());
    gic().enable();
    gic().set_binary_point(0);
    trap::unmask_irq();
}

/// The SPIs of these tests.
fn spis() -> core::ops::Range<u32> {
    FIRST_SPI..FIRST_SPI + SPIS
}

/// An SPI as most tests want it: edge triggered, to CPU 0, enabled, nothing pending or active.
fn ready(intid: u32) {
    gic().disable_interrupt(intid);
    set_edge(intid, true);
    gic().set_bit(register::ICPENDR, intid);
    gic().set_bit(register::ICACTIVER, intid);
    gic().enable_interrupt(intid);
    gic().set_priority(intid, PRIORITY);
    gic().route(intid, 0);
}

/// GICD_ICFGR: two bits each, the upper one says edge.
fn set_edge(intid: u32, edge: bool) {
    let address = gic().frame(intid) + register::ICFGR + u64::from(intid / 16) * 4;
    let bit = 2 << (intid % 16 * 2);
    let value = mmio::read32(address);
    mmio::write32(address, if edge { value | bit } else { value & !bit });
}

fn forget() {
    LENGTH.store(0, Ordering::Release);
}

/// How many interrupts came.
fn length() -> usize {
    LENGTH.load(Ordering::Acquire)
}

fn logged(n: usize) -> u32 {
    LOG[n].load(Ordering::Acquire)
}

fn wait_for_length(what: &str, expected: usize) {
    wait_for(what, || length() >= expected);
    settle();
}

/// Nothing more comes: what could is given time.
fn settle() {
    timer::spin_ms(1);
}

fn on_irq() {
    let raw = gic().acknowledge_raw();
    let intid = raw & 0x3ff;
    if intid >= SPECIAL {
        return;
    }
    let n = LENGTH.load(Ordering::Relaxed);
    LOG[n % 64].store(intid, Ordering::Relaxed);
    LOG_CPU[n % 64].store(smp::index() as u32, Ordering::Relaxed);
    match MANNER.load(Ordering::Relaxed) {
        LEFT => {}
        NESTED => {
            LENGTH.store(n + 1, Ordering::Release);
            delivery::within(intid);
            gic().end(raw);
            return;
        }
        AGAIN => {
            if n == 0 {
                gic().pend(intid);
            }
            gic().end(raw);
        }
        _ => gic().end(raw),
    }
    LENGTH.store(n + 1, Ordering::Release);
}
