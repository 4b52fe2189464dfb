//! What several CPUs share: a lock, a barrier, a bounded wait, a value per CPU. Exclusives need cacheable memory, so all
//! but [`PerCpu`] want stage 1 on.
use crate::{smp, timer, verdict};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Seconds [`wait_for`] waits before it fails the guest.
const PATIENCE: u64 = 60;

/// A spin lock. An IRQ handler may take it too: IRQs are masked while it is held.
pub struct Lock(AtomicBool);

impl Lock {
    /// Open.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Does `action` alone.
    pub fn with<T>(&self, action: impl FnOnce() -> T) -> T {
        let daif = crate::read_sysreg!("DAIF");
        crate::trap::mask_irq();
        while self
            .0
            .compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            pause();
        }
        let result = action();
        self.0.store(false, Ordering::Release);
        crate::write_sysreg!("DAIF", daif);
        result
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self::new()
    }
}

/// A place where `parties` CPUs wait for each other, as often as they like.
pub struct Barrier {
    arrived: AtomicU32,
    generation: AtomicU32,
}

impl Barrier {
    /// Nobody has arrived.
    pub const fn new() -> Self {
        Self {
            arrived: AtomicU32::new(0),
            generation: AtomicU32::new(0),
        }
    }

    /// Waits until `parties` CPUs have come here.
    pub fn wait(&self, parties: usize) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == parties as u32 {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.fetch_add(1, Ordering::Release);
        } else {
            wait_for("the others at a barrier", || {
                self.generation.load(Ordering::Acquire) != generation
            });
        }
    }
}

impl Default for Barrier {
    fn default() -> Self {
        Self::new()
    }
}

/// A moment's wait for another CPU: a WFE, which the event stream ends, so that who shares this CPU can run.
pub fn pause() {
    // SAFETY: waiting touches nothing.
    unsafe { core::arch::asm!("wfe", options(nomem, nostack, preserves_flags)) };
}

/// Ends the waits of others.
pub fn send_event() {
    // SAFETY: what was written is seen by those who wake.
    unsafe { core::arch::asm!("dsb ish", "sev", options(nostack, preserves_flags)) };
}

/// Has the virtual counter send an event every 8192 ticks: CNTKCTL_EL1.EVNTEN, EVNTI 12; EL0 may read the counters.
pub fn start_event_stream() {
    crate::write_sysreg!("CNTKCTL_EL1", 12 << 4 | 1 << 2 | 0b11);
}

/// Waits until `done`; fails the guest when that takes longer than anything here may.
pub fn wait_for(what: &str, done: impl Fn() -> bool) {
    let limit = timer::now() + PATIENCE * timer::frequency();
    while !done() {
        pause();
        if timer::now() > limit && !done() {
            verdict::fail(format_args!(
                "CPU {} waited {PATIENCE} s for {what}",
                smp::index()
            ));
        }
    }
}

/// A value that each CPU has for itself, in a `static`, reached by copying in and out.
pub struct PerCpu<T: Copy>(UnsafeCell<[T; smp::MAX]>);

// SAFETY: a CPU writes its own value only; an exception handler that interrupts a copy runs to its end first. `of` reads
// another's, and its callers wait until that CPU is done.
unsafe impl<T: Copy> Sync for PerCpu<T> {}

impl<T: Copy> PerCpu<T> {
    /// Each CPU's starts as `value`.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new([value; smp::MAX]))
    }

    fn slot(&self, cpu: usize) -> *mut T {
        self.0.get().cast::<T>().wrapping_add(cpu % smp::MAX)
    }

    /// This CPU's.
    pub fn get(&self) -> T {
        self.of(smp::index())
    }

    /// Another CPU's.
    pub fn of(&self, cpu: usize) -> T {
        // SAFETY: the slot is in bounds and initialised; see `Sync`.
        unsafe { self.slot(cpu).read_volatile() }
    }

    /// Gives this CPU's a new value.
    pub fn set(&self, value: T) {
        // SAFETY: as in `of`.
        unsafe { self.slot(smp::index()).write_volatile(value) }
    }
}

/// What was written is seen by a CPU that takes the interrupt sent next.
pub fn publish() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("dsb ish", options(nostack, preserves_flags)) };
}
