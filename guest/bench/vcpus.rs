//! Two vCPUs: an interrupt from one to the other, and the change from one to the other where they share a pCPU.
//!
//! Who waits for the other on another pCPU yields: QEMU's round robin then goes on to the other CPU at once, and no time
//! passes that nobody needs. Who shares a pCPU with the other sleeps.
use super::vectors;
use super::{ROUNDS, clock};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::gic::{Gic, SPECIAL};
use runtime::global::Global;
use runtime::platform::VTIMER_INTID;
use runtime::{smp, timer};

/// An SGI.
const SGI: u32 = 6;
/// The vCPU that is sent to.
const OTHER: usize = 1;
/// Rounds of what is not exact to the instruction.
const WARM_UP: u64 = 8;

static GIC: Global<Option<Gic>> = Global::new(None);
/// The round the other vCPU is ready for.
static READY: AtomicU64 = AtomicU64::new(0);
/// The round for which `MOMENT` is valid.
static CAME: AtomicU64 = AtomicU64::new(0);
/// When the other vCPU got there, in instructions.
static MOMENT: AtomicU64 = AtomicU64::new(0);
/// Whose turn it is.
static TURN: AtomicU64 = AtomicU64::new(0);

/// Lets the other vCPU go on.
type GiveWay = fn();

/// To the other pCPU.
fn spin() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// On this pCPU: by a WFI that a timer ends.
fn nap() {
    timer::set(timer::now() + timer::frequency() / 50_000);
    // SAFETY: waits for the timer, which stays masked.
    unsafe { asm!("wfi", options(nomem, nostack, preserves_flags)) };
    timer::stop();
    // Hardware may still have it pending, and a WFI would not wait then.
    if let Some(gic) = GIC.get() {
        let intid = gic.acknowledge();
        if intid < SPECIAL {
            gic.end(intid);
        }
    }
}

/// Starts the other vCPU with `body`, once for all rounds; false where there is none.
fn start(gic: Gic, body: fn()) -> bool {
    if smp::count() < 2 {
        return false;
    }
    READY.store(0, Ordering::Release);
    CAME.store(0, Ordering::Release);
    GIC.set(Some(gic));
    gic.enable_interrupt(SGI);
    gic.enable_interrupt(VTIMER_INTID);
    smp::start(OTHER, body);
    true
}

/// The mean over all rounds of what `round` says passed until [`MOMENT`].
fn mean(give_way: GiveWay, mut round: impl FnMut() -> u64) -> u64 {
    let mut total = 0;
    for n in 1..=WARM_UP + ROUNDS {
        while READY.load(Ordering::Acquire) != n {
            give_way();
        }
        // Now it gets to where it waits.
        give_way();
        let start = round();
        while CAME.load(Ordering::Acquire) != n {
            give_way();
        }
        if n > WARM_UP {
            total += MOMENT.load(Ordering::Acquire).saturating_sub(start);
        }
    }
    clock::rounded(total, ROUNDS)
}

/// The other vCPU's rounds: `wait` answers the moment it got there.
fn answer(wait: impl Fn() -> u64) {
    let Some(gic) = GIC.get().and_then(|_| Gic::from_tree()) else {
        return;
    };
    vectors::install();
    gic.enable();
    gic.enable_interrupt(SGI);
    for n in 1..=WARM_UP + ROUNDS {
        READY.store(n, Ordering::Release);
        // A WFI may end for no reason that shows.
        let (moment, intid) = loop {
            let moment = wait();
            let intid = gic.acknowledge();
            if intid < SPECIAL {
                break (moment, intid);
            }
        };
        MOMENT.store(moment, Ordering::Release);
        gic.end(intid);
        CAME.store(n, Ordering::Release);
    }
}

/// The receiver spins in its guest, on a pCPU of its own.
pub fn sgi(gic: Gic) -> Option<u64> {
    fn receive() {
        answer(vectors::take_interrupt_yielding);
    }
    start(gic, receive).then(|| {
        mean(spin, || {
            let start = clock::instructions(clock::edge());
            gic.send(SGI, OTHER);
            start
        })
    })
}

/// Sleeps until an interrupt is pending, which stays masked.
fn sleep() {
    // SAFETY: waits for an interrupt.
    unsafe { asm!("wfi", options(nomem, nostack, preserves_flags)) };
}

/// Sleeps, and answers when it goes on.
fn woken() -> u64 {
    sleep();
    clock::fine()
}

/// The same between two floating-point instructions.
fn woken_with_fp() -> u64 {
    use_fp();
    sleep();
    use_fp();
    clock::fine()
}

/// Ends the interrupt that ended a sleep; false: it ended for no reason that shows.
fn end_pending(gic: Gic) -> bool {
    let intid = gic.acknowledge();
    if intid < SPECIAL {
        gic.end(intid);
    }
    intid < SPECIAL
}

/// Both share a pCPU and send to each other in turn, the sender asleep as soon as it has sent and the receiver until then: no
/// timer is set, and nobody else is ready. The mean of what passes from what `send` answers until the receiver goes on.
fn in_turn(gic: Gic, receive: fn(), send: impl Fn() -> u64) -> Option<u64> {
    if !start(gic, receive) {
        return None;
    }
    while READY.load(Ordering::Acquire) == 0 {
        nap();
    }
    let mut total = 0;
    for n in 1..=WARM_UP + ROUNDS {
        let start = send();
        sleep();
        while !end_pending(gic) {
            sleep();
        }
        if n > WARM_UP {
            total += MOMENT.load(Ordering::Acquire).saturating_sub(start);
        }
    }
    Some(clock::rounded(total, ROUNDS))
}

/// The receiver's side of that; `wait` answers the moment it went on.
fn answer_in_turn(wait: impl Fn() -> u64) {
    let Some(gic) = GIC.get().and_then(|_| Gic::from_tree()) else {
        return;
    };
    gic.enable();
    gic.enable_interrupt(SGI);
    READY.store(1, Ordering::Release);
    for _ in 1..=WARM_UP + ROUNDS {
        let mut moment = wait();
        while !end_pending(gic) {
            moment = wait();
        }
        MOMENT.store(moment, Ordering::Release);
        gic.send(SGI, 0);
    }
}

/// Both share a pCPU: from the sending to the instruction after the receiver's WFI.
pub fn sgi_same_cpu(gic: Gic) -> Option<u64> {
    in_turn(
        gic,
        || answer_in_turn(woken),
        || {
            let start = clock::instructions(clock::edge());
            gic.send(SGI, OTHER);
            start
        },
    )
}

/// The same without the sending: from the WFI of the one to the instruction after the WFI of the other.
pub fn vcpu_switch(gic: Gic) -> Option<u64> {
    in_turn(
        gic,
        || answer_in_turn(woken),
        || {
            gic.send(SGI, OTHER);
            clock::instructions(clock::edge())
        },
    )
}

/// The same where both use floating point before and after.
pub fn vcpu_switch_fp(gic: Gic) -> Option<u64> {
    in_turn(
        gic,
        || answer_in_turn(woken_with_fp),
        || {
            use_fp();
            gic.send(SGI, OTHER);
            clock::instructions(clock::edge())
        },
    )
}

/// Spins until it is the turn of `vcpu`, as Linux waits for a lock.
fn wait_for_turn(vcpu: usize) {
    while TURN.load(Ordering::Acquire) != vcpu as u64 {
        // SAFETY: a hint.
        unsafe { asm!("wfe", options(nomem, nostack, preserves_flags)) };
    }
}

/// Both share a pCPU and hand each other a lock: the mean from one turn to the next. Each round has two.
pub fn lock_turn(gic: Gic) -> Option<u64> {
    const TURNS: u64 = WARM_UP + ROUNDS / 2;
    fn take_turns() {
        for _ in 0..TURNS {
            wait_for_turn(OTHER);
            TURN.store(0, Ordering::Release);
        }
    }
    TURN.store(0, Ordering::Release);
    if !start(gic, take_turns) {
        return None;
    }
    let mut begin = 0;
    for n in 0..TURNS {
        if n == WARM_UP {
            begin = clock::fine();
        }
        TURN.store(OTHER as u64, Ordering::Release);
        wait_for_turn(0);
    }
    Some(clock::rounded(clock::fine().saturating_sub(begin), ROUNDS))
}

/// One floating-point instruction.
fn use_fp() {
    // SAFETY: nothing here keeps values in these registers.
    unsafe {
        asm!(
            ".arch_extension fp",
            "fmov d0, xzr",
            options(nomem, nostack, preserves_flags)
        )
    };
}
