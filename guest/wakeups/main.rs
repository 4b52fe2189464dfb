//! Two CPUs wake each other, ten thousand times in each way: by an SGI out of WFI, by SEV out of WFE, by the timer. A
//! wake-up that is missed once leaves both asleep; each CPU's timer is the watchdog that says so.
//!
//! The moment between a CPU's last look and its WFI is where a hypervisor that puts vCPUs to sleep loses wake-ups.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::gic::{Gic, SPECIAL};
use runtime::platform::VTIMER_INTID;
use runtime::sync::{PerCpu, send_event, wait_for};
use runtime::{check_eq, fdt, mmu, println, smp, timer, trap, verdict, write_sysreg};

runtime::guest!("wakeups", wakeups);

/// Wake-ups of each kind; `rounds=` on the command line.
const ROUNDS: u64 = 10_000;
/// Rounds by timer: these take time.
const TIMED: u64 = 100;
/// No wait takes so many seconds.
const WATCHDOG: u64 = 60;
const SGI: u32 = 4;

static GIC: PerCpu<Option<Gic>> = PerCpu::new(None);
/// What each CPU has been sent, and what its handler has seen.
static SENT: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// Whether the timer is the watchdog, or what is waited for.
static IS_WATCHDOG: [AtomicU64; 2] = [const { AtomicU64::new(1) }; 2];
static TICKS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn wakeups() {
    smp::require(2);
    mmu::Tables::identity().enable();
    trap::on_irq(on_irq);
    setup();
    smp::start(1, smp::serve);
    smp::on(1, setup);
    for (what, each) in [
        ("SGI out of WFI", by_sgi as fn()),
        ("SEV out of WFE", by_event),
        ("timer out of WFI", by_timer),
    ] {
        for cell in SENT.iter().chain(&SEEN) {
            cell.store(0, Ordering::Relaxed);
        }
        let begin = timer::now();
        smp::on_all(2, each);
        let took = (timer::now() - begin) * 1000 / timer::frequency();
        println!("{what}: {took} ms");
    }
    for cpu in 0..2 {
        check_eq!(
            TICKS[cpu].load(Ordering::Acquire),
            TIMED,
            "ticks of CPU {cpu}"
        );
    }
}

fn rounds() -> u64 {
    let all = fdt::number("rounds").unwrap_or(ROUNDS);
    if fdt::has_word("crowded") {
        all / 4
    } else {
        all
    }
}

fn gic() -> Gic {
    GIC.get()
        .unwrap_or_else(|| verdict::fail(format_args!("no interrupt controller")))
}

fn setup() {
    GIC.set(Gic::from_tree());
    gic().enable();
    gic().enable_interrupt(SGI);
    gic().enable_interrupt(VTIMER_INTID);
    trap::unmask_irq();
}

fn on_irq() {
    let cpu = smp::index();
    let raw = gic().acknowledge_raw();
    match raw & 0x3ff {
        SGI => {
            // Whoever sees the count may send again, so the end comes first.
            gic().end(raw);
            SEEN[cpu].fetch_add(1, Ordering::Release);
        }
        VTIMER_INTID => {
            timer::stop();
            if IS_WATCHDOG[cpu].load(Ordering::Relaxed) == 1 {
                verdict::fail(format_args!(
                    "CPU {cpu} slept through wake-up {} of {}",
                    SEEN[cpu].load(Ordering::Relaxed) + 1,
                    SENT[cpu].load(Ordering::Relaxed)
                ));
            }
            TICKS[cpu].fetch_add(1, Ordering::Release);
            gic().end(raw);
        }
        SPECIAL.. => {}
        intid => verdict::fail(format_args!("interrupt {intid}")),
    }
}

fn watch() {
    timer::set(timer::now() + WATCHDOG * timer::frequency());
}

/// Sleeps in WFI until `done`, whose change comes with an interrupt.
fn sleep_until(done: impl Fn() -> bool) {
    trap::mask_irq();
    while !done() {
        // SAFETY: waits for an interrupt, which wakes even when masked.
        unsafe { asm!("wfi", options(nostack)) };
        trap::unmask_irq();
        trap::mask_irq();
    }
    trap::unmask_irq();
}

/// Ping from 0, pong from 1.
fn by_sgi() {
    let cpu = smp::index();
    let other = 1 - cpu;
    for round in 1..=rounds() {
        if round % 64 == 1 {
            watch();
        }
        if cpu == 1 {
            sleep_until(|| SEEN[1].load(Ordering::Acquire) == round);
        }
        SENT[other].store(round, Ordering::Relaxed);
        gic().send(SGI, other);
        if cpu == 0 {
            sleep_until(|| SEEN[0].load(Ordering::Acquire) == round);
        }
    }
    timer::stop();
    check_eq!(
        SEEN[cpu].load(Ordering::Acquire),
        rounds(),
        "SGIs of CPU {cpu}"
    );
}

/// The same without interrupts: a number, and an event that says it changed.
fn by_event() {
    let cpu = smp::index();
    let other = 1 - cpu;
    // No event stream: only the other's SEV ends a WFE (and whatever else may, which does no harm).
    write_sysreg!("CNTKCTL_EL1", 0b11);
    for round in 1..=smp::rounds(smp::rounds(rounds())) {
        if round % 64 == 1 {
            watch();
        }
        let wait = |cell: &AtomicU64| {
            while cell.load(Ordering::Acquire) < round {
                // SAFETY: waiting touches nothing.
                unsafe { asm!("wfe", options(nostack)) };
            }
        };
        if cpu == 1 {
            wait(&SENT[1]);
        }
        SENT[other].store(round, Ordering::Release);
        send_event();
        if cpu == 0 {
            wait(&SENT[0]);
        }
    }
    timer::stop();
    runtime::sync::start_event_stream();
}

/// Each CPU sleeps for moments of its own, while the other sleeps, wakes or computes.
fn by_timer() {
    let cpu = smp::index();
    IS_WATCHDOG[cpu].store(0, Ordering::Relaxed);
    for round in 1..=TIMED {
        let moment = timer::frequency() / 10_000 * (1 + (round * 7 + cpu as u64 * 3) % 5);
        let due = timer::now() + moment;
        timer::set(due);
        sleep_until(|| TICKS[cpu].load(Ordering::Acquire) == round);
        if timer::now() < due {
            verdict::fail(format_args!("CPU {cpu} was woken early, round {round}"));
        }
    }
    wait_for("the other's timer", || {
        TICKS[1 - cpu].load(Ordering::Acquire) == TIMED
    });
}
