//! Software generated interrupts: from every CPU to every CPU, in every form that the interrupt controller has; none
//! lost, none twice, the most urgent first.
//!
//! Oracle: IHI 0048 GICD_SGIR and section 3.2.3 (an SGI is pending once per source CPU); IHI 0069 ICC_SGI1R_EL1 (an SGI
//! is pending once).
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use runtime::gic::register::ISENABLER;
use runtime::gic::{Gic, SPECIAL};
use runtime::smp;
use runtime::sync::{PerCpu, wait_for};
use runtime::{check, check_eq, mmio, mmu, println, timer, trap, verdict};

runtime::guest!("sgi", sgi);

/// SGIs per pair of CPUs.
const MOST_ROUNDS: u64 = 10;
/// How many kinds of SGI there are.
const SGIS: u32 = 16;

static GIC: PerCpu<Option<Gic>> = PerCpu::new(None);
/// SGIs taken, by CPU and INTID.
static TAKEN: [[AtomicU32; SGIS as usize]; smp::MAX] =
    [const { [const { AtomicU32::new(0) }; SGIS as usize] }; smp::MAX];
/// The senders that a GICv2 named, one bit each, by taker.
static SENDERS: [AtomicU32; smp::MAX] = [const { AtomicU32::new(0) }; smp::MAX];
/// The last INTIDs a CPU took, the latest in the low nibble.
static ORDER: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];

/// What a CPU that is asked to send sends.
static INTID: AtomicU32 = AtomicU32::new(0);
static TARGET: AtomicUsize = AtomicUsize::new(0);

fn sgi() {
    smp::require(2);
    mmu::Tables::identity().enable();
    trap::on_irq(on_irq);
    setup();
    smp::start_others(smp::count(), smp::serve);
    for n in 1..smp::count() {
        smp::on(n, setup);
    }
    println!("GICv{}, {} CPUs", gic().version(), smp::count());
    pairs();
    others();
    one_write_to_many();
    nobody();
    once_or_once_per_source();
    most_urgent_first();
    disabled_is_kept();
    wakes();
}

fn rounds() -> u32 {
    smp::rounds(MOST_ROUNDS) as u32 + 2
}

fn gic() -> Gic {
    GIC.get()
        .unwrap_or_else(|| verdict::fail(format_args!("no interrupt controller")))
}

fn setup() {
    GIC.set(Gic::from_tree());
    gic().enable();
    for intid in 0..SGIS {
        gic().enable_interrupt(intid);
    }
    trap::unmask_irq();
}

fn on_irq() {
    let raw = gic().acknowledge_raw();
    let (intid, sender) = match gic() {
        Gic::V2 { .. } => (raw & 0x3ff, raw >> 10 & 7),
        Gic::V3 { .. } => (raw, 0),
    };
    if intid >= SPECIAL {
        return;
    }
    check!(intid < SGIS, "CPU {} took interrupt {intid}", smp::index());
    let cpu = smp::index();
    SENDERS[cpu].fetch_or(1 << sender, Ordering::Relaxed);
    let order = ORDER[cpu].load(Ordering::Relaxed);
    ORDER[cpu].store(order << 4 | u64::from(intid), Ordering::Relaxed);
    // Ended before it is counted: who sees the count may send the next.
    gic().end(raw);
    TAKEN[cpu][intid as usize].fetch_add(1, Ordering::Release);
}

fn taken(cpu: usize, intid: u32) -> u32 {
    TAKEN[cpu][intid as usize].load(Ordering::Acquire)
}

/// All that any CPU has taken.
fn all_taken() -> u32 {
    let all = TAKEN.iter().flatten();
    all.map(|count| count.load(Ordering::Acquire)).sum()
}

fn forget() {
    for count in TAKEN.iter().flatten() {
        count.store(0, Ordering::Relaxed);
    }
    for sender in &SENDERS {
        sender.store(0, Ordering::Relaxed);
    }
}

fn send_one() {
    gic().send(
        INTID.load(Ordering::Acquire),
        TARGET.load(Ordering::Acquire),
    );
}

fn send_from(sender: usize, intid: u32, target: usize) {
    INTID.store(intid, Ordering::Release);
    TARGET.store(target, Ordering::Release);
    smp::on(sender, send_one);
}

/// Nothing more comes: what could is given time.
fn settle() {
    timer::spin_ms(2);
}

fn pairs() {
    for sender in 0..smp::count() {
        for target in 0..smp::count() {
            forget();
            let intid = (sender * 5 + target) as u32 % SGIS;
            for round in 1..=rounds() {
                send_from(sender, intid, target);
                wait_for("an SGI", || taken(target, intid) >= round);
            }
            check_eq!(
                all_taken(),
                rounds(),
                "SGIs taken of those from CPU {sender} to CPU {target}"
            );
            if gic().version() == 2 {
                check_eq!(
                    SENDERS[target].load(Ordering::Acquire),
                    1 << sender,
                    "GICC_IAR.CPUID at CPU {target}"
                );
            }
        }
    }
    forget();
    for round in 1..=rounds() {
        gic().send_to_self(9);
        wait_for("an SGI of my own", || taken(0, 9) >= round);
    }
    check_eq!(all_taken(), rounds(), "SGIs taken of those to myself");
}

fn send_to_others() {
    gic().send_to_others(7);
}

fn others() {
    for sender in 0..smp::count() {
        forget();
        smp::on(sender, send_to_others);
        wait_for("SGIs to all others", || {
            all_taken() >= smp::count() as u32 - 1
        });
        settle();
        for cpu in 0..smp::count() {
            check_eq!(
                taken(cpu, 7),
                u32::from(cpu != sender),
                "SGIs to all others of CPU {sender}, taken by CPU {cpu}"
            );
        }
    }
}

/// One write with every target's bit, the sender's own among them.
fn one_write_to_many() {
    forget();
    let all = (1u32 << smp::count()) - 1;
    match gic() {
        Gic::V2 { gicd, .. } => mmio::write32(gicd + 0xf00, all << 16 | 3),
        // All our CPUs are in one cluster.
        Gic::V3 { .. } => gic().write_sgi1r(3 << 24 | u64::from(all)),
    }
    wait_for("SGIs of one write", || all_taken() >= smp::count() as u32);
    settle();
    for cpu in 0..smp::count() {
        check_eq!(taken(cpu, 3), 1, "SGIs of one write at CPU {cpu}");
    }
}

/// Writes that reach nobody.
fn nobody() {
    forget();
    match gic() {
        // An empty list, and the reserved filter.
        Gic::V2 { gicd, .. } => {
            mmio::write32(gicd + 0xf00, 3);
        }
        Gic::V3 { .. } => {
            for target in [0, 0x8000, 1 << 16 | 1, 1 << 32 | 1, 1 << 48 | 1] {
                gic().write_sgi1r(3 << 24 | target);
            }
        }
    }
    settle();
    check_eq!(all_taken(), 0, "SGIs taken that were sent to nobody");
}

/// To a CPU that has IRQs masked: twice from one sender is once; from two it is twice on a GICv2, once on a GICv3.
fn once_or_once_per_source() {
    let last = smp::count() - 1;
    forget();
    trap::mask_irq();
    for sender in [1, 1, last, last] {
        send_from(sender, 6, 0);
    }
    settle();
    check_eq!(taken(0, 6), 0, "SGIs taken with IRQs masked");
    trap::unmask_irq();
    let sources = if last == 1 || gic().version() == 3 {
        1
    } else {
        2
    };
    wait_for("SGIs that were held back", || taken(0, 6) >= sources);
    settle();
    check_eq!(taken(0, 6), sources, "SGIs taken of four from two CPUs");
    if gic().version() == 2 {
        check_eq!(
            SENDERS[0].load(Ordering::Acquire),
            1 << 1 | 1 << last,
            "GICC_IAR.CPUID of SGIs that were held back"
        );
    }
}

/// All sixteen pending at once, more than any list registers hold: they come by priority.
fn most_urgent_first() {
    forget();
    trap::mask_irq();
    for intid in 0..SGIS {
        // The last is the most urgent.
        gic().set_priority(intid, ((SGIS - 1 - intid) << 4) as u8);
        send_from(intid as usize % smp::count(), intid, 0);
    }
    trap::unmask_irq();
    wait_for("sixteen SGIs", || all_taken() >= SGIS);
    settle();
    check_eq!(all_taken(), SGIS, "SGIs taken of sixteen");
    check_eq!(
        ORDER[0].load(Ordering::Acquire),
        0xfedc_ba98_7654_3210,
        "the order of sixteen SGIs"
    );
    for intid in 0..SGIS {
        gic().set_priority(intid, runtime::gic::PRIORITY);
    }
}

/// A disabled SGI stays pending, and comes when it is enabled.
fn disabled_is_kept() {
    forget();
    gic().disable_interrupt(11);
    // A GICv2 may have SGIs that are always enabled (IHI 0048 GICD_ISENABLERn).
    if gic().version() == 2 && gic().bit(ISENABLER, 11) {
        println!("SGIs cannot be disabled here");
        return;
    }
    send_from(1, 11, 0);
    settle();
    check_eq!(taken(0, 11), 0, "disabled SGIs taken");
    gic().enable_interrupt(11);
    wait_for("an SGI that was disabled", || taken(0, 11) >= 1);
    settle();
    check_eq!(taken(0, 11), 1, "SGIs taken after they were enabled");
}

static SLEPT: AtomicU32 = AtomicU32::new(0);

/// Sleeps until the SGI that it waits for has come.
fn sleep() {
    let cpu = smp::index();
    let before = taken(cpu, 2);
    SLEPT.fetch_add(1, Ordering::Release);
    trap::mask_irq();
    while taken(cpu, 2) == before {
        // SAFETY: waits for an interrupt, which wakes even when masked.
        unsafe { core::arch::asm!("wfi", options(nostack)) };
        trap::unmask_irq();
        trap::mask_irq();
    }
    trap::unmask_irq();
}

/// A CPU in WFI is woken.
fn wakes() {
    forget();
    for round in 1..=rounds() {
        for cpu in 1..smp::count() {
            smp::post(cpu, sleep);
        }
        let asleep = round * (smp::count() as u32 - 1);
        wait_for("sleepers", || SLEPT.load(Ordering::Acquire) == asleep);
        if round.is_multiple_of(2) {
            // Certainly asleep by now; in the other rounds perhaps not yet.
            timer::spin_ms(1);
        }
        gic().send_to_others(2);
        for cpu in 1..smp::count() {
            smp::wait_until_idle(cpu);
        }
    }
    for cpu in 1..smp::count() {
        check_eq!(taken(cpu, 2), rounds(), "wake-ups of CPU {cpu}");
    }
}
