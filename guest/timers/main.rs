//! Both timers of every CPU at once: compare values, timer values, status and mask as documented; each tick once, never
//! early, in time, without drift, whether its CPU sleeps or computes and whoever else wants the physical one.
//!
//! Oracle: DDI 0487 "The Generic Timer in AArch64 state". `strict` on the command line (for runs in virtual time) bounds
//! lateness tightly.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use runtime::gic::register::ISPENDR;
use runtime::gic::{Gic, SPECIAL};
use runtime::platform::{PTIMER_INTID, VTIMER_INTID};
use runtime::sync::{Barrier, PerCpu, wait_for};
use runtime::trap::{catch, class};
use runtime::{
    check, check_eq, el0, fdt, mmu, pages, println, read_sysreg, smp, timer, trap, verdict,
    write_sysreg,
};

runtime::guest!("timers", timers);

/// Ticks of each timer of each CPU.
const TICKS: u64 = 50;
/// A moment that does not come. Not the last one: with an offset on it QEMU before 8 counts it as past, again and again.
const END_OF_TIME: u64 = u64::MAX >> 2;
const ENABLE: u64 = timer::ENABLE;
const IMASK: u64 = timer::IMASK;
const ISTATUS: u64 = timer::ISTATUS;

static GIC: PerCpu<Option<Gic>> = PerCpu::new(None);
static GATE: Barrier = Barrier::new();
/// By CPU and kind: what was taken, when the next is due, the worst lateness, and how many came early.
static STATES: [[State; 2]; smp::MAX] = [const { [const { State::new() }; 2] }; smp::MAX];
static LAST_COUNT: AtomicU64 = AtomicU64::new(0);

struct State {
    taken: AtomicU64,
    due: AtomicU64,
    latest: AtomicU64,
    early: AtomicU64,
    /// Whether the handler re-arms.
    goes_on: AtomicU64,
}

impl State {
    const fn new() -> Self {
        Self {
            taken: AtomicU64::new(0),
            due: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            early: AtomicU64::new(0),
            goes_on: AtomicU64::new(0),
        }
    }
}

/// A timer of EL1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Virtual,
    Physical,
}
use Kind::{Physical, Virtual};

impl Kind {
    fn count(self) -> u64 {
        // SAFETY: a barrier, so that the count is not read early.
        unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) };
        match self {
            Virtual => read_sysreg!("CNTVCT_EL0"),
            Physical => read_sysreg!("CNTPCT_EL0"),
        }
    }

    fn control(self) -> u64 {
        match self {
            Virtual => read_sysreg!("CNTV_CTL_EL0"),
            Physical => read_sysreg!("CNTP_CTL_EL0"),
        }
    }

    fn set_control(self, value: u64) {
        match self {
            Virtual => write_sysreg!("CNTV_CTL_EL0", value),
            Physical => write_sysreg!("CNTP_CTL_EL0", value),
        }
    }

    fn compare(self) -> u64 {
        match self {
            Virtual => read_sysreg!("CNTV_CVAL_EL0"),
            Physical => read_sysreg!("CNTP_CVAL_EL0"),
        }
    }

    fn set_compare(self, value: u64) {
        match self {
            Virtual => write_sysreg!("CNTV_CVAL_EL0", value),
            Physical => write_sysreg!("CNTP_CVAL_EL0", value),
        }
    }

    fn value(self) -> u64 {
        match self {
            Virtual => read_sysreg!("CNTV_TVAL_EL0"),
            Physical => read_sysreg!("CNTP_TVAL_EL0"),
        }
    }

    fn set_value(self, value: u64) {
        match self {
            Virtual => write_sysreg!("CNTV_TVAL_EL0", value),
            Physical => write_sysreg!("CNTP_TVAL_EL0", value),
        }
    }

    fn state(self, cpu: usize) -> &'static State {
        &STATES[cpu][self as usize]
    }
}

fn timers() {
    mmu::Tables::identity().enable();
    trap::on_irq(on_irq);
    setup();
    if smp::count() > 1 {
        smp::start_others(smp::count(), smp::serve);
    }
    for cpu in 1..smp::count() {
        smp::on(cpu, setup);
    }
    println!("{} CPUs, {} Hz", smp::count(), timer::frequency());
    for cpu in 0..smp::count() {
        smp::on(cpu, registers);
    }
    for cpu in 0..smp::count() {
        smp::on(cpu, edges);
    }
    one_count();
    smp::on_all(smp::count(), ticks);
    report("sleeping");
    if smp::count() > 1 {
        smp::on_all(smp::count(), ticks_beside_work);
        report("some computing");
    }
    el0_access();
}

fn gic() -> Gic {
    GIC.get()
        .unwrap_or_else(|| verdict::fail(format_args!("no interrupt controller")))
}

fn setup() {
    for kind in [Virtual, Physical] {
        kind.set_control(0);
    }
    GIC.set(Gic::from_tree());
    gic().enable();
    gic().enable_interrupt(VTIMER_INTID);
    gic().enable_interrupt(PTIMER_INTID);
    trap::unmask_irq();
}

fn on_irq() {
    let intid = gic().acknowledge();
    let kind = match intid {
        VTIMER_INTID => Virtual,
        PTIMER_INTID => Physical,
        SPECIAL.. => return,
        intid => verdict::fail(format_args!("interrupt {intid}")),
    };
    let state = kind.state(smp::index());
    let (now, due) = (kind.count(), state.due.load(Ordering::Relaxed));
    if now < due {
        state.early.fetch_add(1, Ordering::Relaxed);
    }
    let late = now.saturating_sub(due);
    state.latest.fetch_max(late, Ordering::Relaxed);
    let taken = state.taken.load(Ordering::Relaxed) + 1;
    if taken < state.goes_on.load(Ordering::Relaxed) {
        // From the last one's time, so that the count of ticks is the count of milliseconds.
        state.due.store(due + millisecond(), Ordering::Relaxed);
        kind.set_compare(due + millisecond());
    } else {
        kind.set_control(0);
    }
    state.taken.store(taken, Ordering::Release);
    gic().end(intid);
}

fn millisecond() -> u64 {
    timer::frequency() / 1000
}

/// Without interrupts: what the registers say of each other.
fn registers() {
    trap::mask_irq();
    for kind in [Virtual, Physical] {
        kind.set_control(0);
        check_eq!(kind.control() & 0b11, 0, "{kind:?} CTL, off");
        let before = kind.count();
        kind.set_value(1_000_000_000);
        let after = kind.count();
        let compare = kind.compare();
        check!(
            (before + 1_000_000_000..=after + 1_000_000_000).contains(&compare),
            "{kind:?} CVAL {compare:#x} after TVAL, counts {before:#x} to {after:#x}"
        );
        let before = kind.count();
        let value = kind.value();
        let after = kind.count();
        // 32 bits, and below zero already if the host was busy.
        let least = compare.wrapping_sub(after);
        check!(
            value.wrapping_sub(least) as u32 as u64 <= after - before,
            "{kind:?} TVAL {value:#x}, counts {before:#x} to {after:#x}, CVAL {compare:#x}"
        );
        kind.set_compare(END_OF_TIME);
        kind.set_control(ENABLE | IMASK);
        check_eq!(kind.control(), ENABLE | IMASK, "{kind:?} CTL, not expired");
        kind.set_compare(kind.count());
        check_eq!(
            kind.control(),
            ENABLE | IMASK | ISTATUS,
            "{kind:?} CTL, expired and masked"
        );
        // TVAL goes on below zero: 32 bits, the upper half zero.
        let value = kind.value();
        check!(
            value == 0 || value >> 31 == 1,
            "{kind:?} TVAL {value:#x} after expiry"
        );
        // A negative TVAL is in the past.
        kind.set_value(u64::from(-1000i32 as u32));
        let ahead = kind.count().wrapping_sub(kind.compare());
        check!(
            ahead as i64 >= 1000,
            "{kind:?} CVAL after a negative TVAL is {ahead} ticks ago"
        );
        check_eq!(
            kind.control(),
            ENABLE | IMASK | ISTATUS,
            "{kind:?} CTL after a negative TVAL"
        );
        kind.set_compare(END_OF_TIME);
        check_eq!(
            kind.control(),
            ENABLE | IMASK,
            "{kind:?} CTL at the end of time"
        );
        check_eq!(
            kind.compare(),
            END_OF_TIME,
            "{kind:?} CVAL at the end of time"
        );
        kind.set_control(0);
    }
    trap::unmask_irq();
}

/// One tick at the least: at once, from the distant past; and none of a timer that is masked, off, or far away.
fn edges() {
    let cpu = smp::index();
    for kind in [Virtual, Physical] {
        let state = kind.state(cpu);
        for (what, compare) in [("now", kind.count()), ("the distant past", 0)] {
            let before = state.taken.load(Ordering::Acquire);
            state.due.store(compare, Ordering::Relaxed);
            kind.set_compare(compare);
            kind.set_control(ENABLE);
            wait_for("a tick", || state.taken.load(Ordering::Acquire) > before);
            timer::spin_ms(1);
            check_eq!(
                state.taken.load(Ordering::Acquire),
                before + 1,
                "{kind:?} ticks of {what} on CPU {cpu}"
            );
        }
        let before = state.taken.load(Ordering::Acquire);
        kind.set_compare(END_OF_TIME);
        kind.set_control(ENABLE);
        timer::spin_ms(1);
        kind.set_control(ENABLE | IMASK);
        kind.set_compare(0);
        timer::spin_ms(1);
        kind.set_control(0);
        timer::spin_ms(1);
        check_eq!(
            state.taken.load(Ordering::Acquire),
            before,
            "{kind:?} ticks of a timer that may not, on CPU {cpu}"
        );
        // A tick that goes away before it is taken does not come, once the machine beneath has been asked for it: the
        // list register of a hypervisor's GIC keeps it until then.
        trap::mask_irq();
        kind.set_control(ENABLE);
        timer::spin_ms(1);
        kind.set_control(0);
        let intid = [VTIMER_INTID, PTIMER_INTID][kind as usize];
        check!(!gic().bit(ISPENDR, intid), "{kind:?} pending while off");
        trap::unmask_irq();
        timer::spin_ms(1);
        check_eq!(
            state.taken.load(Ordering::Acquire),
            before,
            "{kind:?} ticks that went away, on CPU {cpu}"
        );
        state.taken.store(0, Ordering::Relaxed);
        state.latest.store(0, Ordering::Relaxed);
    }
}

/// The count of one CPU goes on where another's was.
fn note_count() {
    let before = LAST_COUNT.load(Ordering::Acquire);
    let now = Virtual.count();
    check!(
        now >= before,
        "CNTVCT_EL0 of CPU {} is {now}, after {before} on another",
        smp::index()
    );
    LAST_COUNT.store(now, Ordering::Release);
}

fn one_count() {
    for _ in 0..=smp::rounds(20) {
        for cpu in 0..smp::count() {
            smp::on(cpu, note_count);
        }
    }
}

fn arm(first: u64) {
    for kind in [Virtual, Physical] {
        let state = kind.state(smp::index());
        state.taken.store(0, Ordering::Relaxed);
        state.latest.store(0, Ordering::Relaxed);
        state.goes_on.store(TICKS, Ordering::Relaxed);
        let due = kind.count() + millisecond() + first;
        state.due.store(due, Ordering::Relaxed);
        kind.set_compare(due);
        kind.set_control(ENABLE);
    }
}

fn are_done(cpu: usize) -> bool {
    [Virtual, Physical]
        .iter()
        .all(|kind| kind.state(cpu).taken.load(Ordering::Acquire) >= TICKS)
}

/// Asleep but for the ticks.
fn ticks() {
    let cpu = smp::index();
    GATE.wait(smp::count());
    let begin = timer::now();
    arm(0);
    trap::mask_irq();
    while !are_done(cpu) {
        // SAFETY: waits for an interrupt, which wakes even when masked.
        unsafe { core::arch::asm!("wfi", options(nostack)) };
        trap::unmask_irq();
        trap::mask_irq();
    }
    trap::unmask_irq();
    check!(
        timer::now() - begin >= TICKS * millisecond(),
        "CPU {cpu}: {TICKS} ms took less"
    );
    GATE.wait(smp::count());
}

/// The odd CPUs compute all the time; the even ones sleep, but for the ticks.
fn ticks_beside_work() {
    let cpu = smp::index();
    if cpu.is_multiple_of(2) {
        return ticks();
    }
    GATE.wait(smp::count());
    arm(millisecond() / 2);
    while !are_done(cpu) {
        core::hint::black_box(cpu);
    }
    GATE.wait(smp::count());
}

fn report(what: &str) {
    // In milliseconds. In virtual time what counts is ours, but for QEMU's one thread, which gives a CPU that spins on a
    // lock 100 ms; else the host has other work too.
    let most = if fdt::has_word("strict") { 250 } else { 5000 };
    for cpu in 0..smp::count() {
        for kind in [Virtual, Physical] {
            let state = kind.state(cpu);
            let latest = state.latest.load(Ordering::Acquire);
            println!(
                "{what}: CPU {cpu}, {kind:?}: {TICKS} ticks, latest {} us late",
                latest * 1000 / millisecond()
            );
            check_eq!(
                state.early.load(Ordering::Acquire),
                0,
                "{kind:?} ticks that came early on CPU {cpu}"
            );
            check_eq!(
                state.taken.load(Ordering::Acquire),
                TICKS,
                "{kind:?} ticks of CPU {cpu}"
            );
            check!(
                latest < most * millisecond(),
                "a {kind:?} tick of CPU {cpu} came {} ms late",
                latest / millisecond()
            );
        }
    }
}

/// `MRS X0, CNTVCT_EL0; SVC #0xfa7e`, and the same for others.
const READS: [(&str, u32, u64); 4] = [
    ("CNTVCT_EL0", 0xd53b_e040, 1 << 1),
    ("CNTPCT_EL0", 0xd53b_e020, 1 << 0),
    ("CNTV_CTL_EL0", 0xd53b_e320, 1 << 8),
    ("CNTP_CTL_EL0", 0xd53b_e220, 1 << 9),
];
const FAREWELL: u32 = 0xd400_0001 | (el0::FAREWELL as u32) << 5;

/// CNTKCTL_EL1 says what EL0 may read; what it may not is EL1's to know.
fn el0_access() {
    let [code, stack] = [pages::fresh(), pages::fresh()];
    // EL0's own 1 GiB: the first of RAM, seen by EL0 at another address.
    let tables = mmu::Tables::identity();
    let window = mmu::elsewhere(0);
    tables.set_root(
        mmu::index(window, 1),
        runtime::platform::RAM_BASE | mmu::BLOCK | mmu::NORMAL | mmu::EL0,
    );
    tables.enable();
    let seen = window + (code - runtime::platform::RAM_BASE);
    pages::set_el0_code(seen & !(pages::PAGE - 1));
    for (name, instruction, bit) in READS {
        for allowed in [true, false] {
            runtime::mmio::write32(code, instruction);
            runtime::mmio::write32(code + 4, FAREWELL);
            runtime::cache::publish_code(code, 8);
            let others = 0b11 << 8 | 0b11;
            write_sysreg!("CNTKCTL_EL1", if allowed { bit } else { others & !bit });
            let stack = window + (stack - runtime::platform::RAM_BASE) + pages::PAGE;
            // SAFETY: the code is what was written above.
            let (_, caught) = catch(|| unsafe { el0::run(seen, 0, stack) });
            check_eq!(
                caught.count,
                u64::from(!allowed),
                "exceptions on {name} at EL0, allowed: {allowed}"
            );
            if let Some(frame) = caught.last {
                check_eq!(frame.class(), class::SYSTEM, "class of {name} at EL0");
            }
        }
    }
}
