//! State without atomics (the MMU may be off): of the one CPU a guest has, or written before it has more.
use core::cell::UnsafeCell;

/// A value in a `static`, reached by copying in and out.
pub struct Global<T: Copy>(UnsafeCell<T>);

// SAFETY: one CPU writes it, before the others start or while they only read it after a barrier; and every access copies the whole value: an exception handler that interrupts a copy
// runs to its end before the copy goes on, and handlers and mainline agree on who writes which value.
unsafe impl<T: Copy> Sync for Global<T> {}

impl<T: Copy> Global<T> {
    /// A global that starts as `value`.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Its value now.
    pub fn get(&self) -> T {
        // SAFETY: the cell is live and initialised; see `Sync`.
        unsafe { self.0.get().read_volatile() }
    }

    /// Gives it a new value.
    pub fn set(&self, value: T) {
        // SAFETY: as in `get`.
        unsafe { self.0.get().write_volatile(value) }
    }
}
