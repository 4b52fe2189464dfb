//! Resets at once, without a word: after three times it must be stopped.
#![no_std]
#![no_main]

use runtime::hypercall;

runtime::guest!("reset_loop", reset_loop);

fn reset_loop() {
    hypercall::reset()
}
