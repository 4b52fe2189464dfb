//! The end of a guest: one line and one hypercall.
use crate::global::Global;
use crate::{hypercall, println};
use core::fmt::Arguments;

static NAME: Global<&str> = Global::new("guest");

/// Names the guest for its verdict line; `guest!` does it.
pub fn set_name(name: &'static str) {
    NAME.set(name);
}

/// The guest did what it set out to do.
pub fn pass() -> ! {
    println!("PASS {}", NAME.get());
    hypercall::exit(0)
}

/// The guest saw something it must not see; `why` says what was expected and what came.
pub fn fail(why: Arguments) -> ! {
    println!("FAIL {}: {why}", NAME.get());
    hypercall::exit(1)
}

/// What cannot be shown here (`why`) is no failure: the verdict line says so, and the harness lists it.
pub fn pass_without(why: &str) -> ! {
    println!("left out: {}: {why}", NAME.get());
    pass()
}

/// Fails the guest unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            $crate::verdict::fail(format_args!($($why)+));
        }
    };
}

/// Fails the guest unless `got` equals `expected`.
#[macro_export]
macro_rules! check_eq {
    ($got:expr, $expected:expr, $($what:tt)+) => {{
        let (got, expected) = ($got, $expected);
        if got != expected {
            $crate::verdict::fail(format_args!("{}: {got:#x}, not {expected:#x}", format_args!($($what)+)));
        }
    }};
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    fail(format_args!("{info}"))
}
