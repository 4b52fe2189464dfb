//! Where lock-free code takes its atomics and its spinning from: `core`, or loom's stand-ins under `--cfg loom`.
//!
//! loom runs a test once for every order in which the threads' accesses can happen and every old value that a load may
//! still see. It sees only what goes through here, so code that is built on atomics, or spins on one, names this module.
//! `RUSTFLAGS="--cfg loom" cargo test --lib loom_` runs those tests; other builds know nothing of loom.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
#[cfg(loom)]
pub use loom::hint::spin_loop;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Lets others get on while this CPU waits for one of them.
///
/// Where QEMU has one thread for all CPUs a WFE lets the next one run, and `core`'s ISB does not: it would spin on for as long
/// as it may, some 100 ms of everybody's time under `-icount`. A CPU of metal does not sleep: SEVL has set its event register.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn spin_loop() {
    aarch64_cpu::asm::sevl();
    aarch64_cpu::asm::wfe();
}
#[cfg(all(not(loom), not(test), not(target_os = "none")))]
pub use core::hint::spin_loop;

/// Stands between a `SeqCst` store and a `SeqCst` load of something else. The two are ordered by themselves (on arm64 `STLR`,
/// `LDAR`: DDI 0487 "Load-Acquire, Store-Release"), so this is no instruction; loom takes `SeqCst` accesses for
/// acquire and release and orders only fences.
#[inline(always)]
pub(crate) fn seq_cst_accesses_are_ordered() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// A lock for a few instructions that waits by [`spin_loop`]: EL2 masks interrupts, so who has it is never held up.
#[cfg(not(loom))]
pub type SpinMutex<T> = spin::mutex::SpinMutex<T, Relax>;

/// How a [`SpinMutex`] waits.
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    #[inline(always)]
    fn relax() {
        spin_loop();
    }
}

/// A lock that loom sees; it is never poisoned, as a panic ends the test.
#[cfg(loom)]
#[derive(Default)]
pub(crate) struct SpinMutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> SpinMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) use spinning::{set_spin, spin_loop, unset_spin};

/// Tests in which one thread at a time runs are told when a thread waits for another.
#[cfg(all(test, not(loom)))]
mod spinning {
    use std::boxed::Box;
    use std::cell::RefCell;

    thread_local! {
        static SPIN: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
    }

    /// From now on this thread calls `instead` where it would spin.
    pub(crate) fn set_spin(instead: Box<dyn Fn()>) {
        SPIN.set(Some(instead));
    }

    pub(crate) fn unset_spin() {
        SPIN.set(None);
    }

    pub(crate) fn spin_loop() {
        SPIN.with_borrow(|spin| match spin {
            Some(instead) => instead(),
            None => core::hint::spin_loop(),
        });
    }
}
