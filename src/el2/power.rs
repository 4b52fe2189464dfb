//! The end of the machine, and what is said last.

use core::fmt;

use aarch64_cpu::asm;
use faultline::addr::PaRange;
use faultline::board::Conduit;
use faultline::options::Nonce;
use spin::Once;

use super::console;
use super::driver::watchdog;

/// How it went, as `make` reads it from the last line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All VMs are off and content.
    Ok,
    /// A guest reported failure.
    Failed,
    /// The hypervisor stopped a VM.
    Stopped,
    /// EL2 crashed.
    Crashed,
    /// It did not start.
    Refused,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
            Self::Refused => "refused",
        })
    }
}

/// What the end needs to know.
struct Means {
    psci: Option<Conduit>,
    watchdog: Option<PaRange>,
}

static MEANS: Once<Means> = Once::new();

static NONCE: Once<Nonce> = Once::new();

/// The nonce of the verdict. Once, as soon as it is known.
pub(super) fn note_nonce(nonce: Option<Nonce>) {
    if let Some(nonce) = nonce {
        NONCE.call_once(|| nonce);
    }
}

/// How this board is switched off. Once.
pub(super) fn prepare(psci: Option<Conduit>, watchdog: Option<PaRange>) {
    MEANS.call_once(|| Means { psci, watchdog });
}

/// Ends the machine.
pub(super) fn end(verdict: Verdict) -> ! {
    let means = MEANS.get();
    let psci = means.is_some_and(|means| means.psci == Some(Conduit::Smc));
    let watchdog = means.and_then(|means| means.watchdog);
    if !psci && watchdog.is_none() {
        console::print_in_panic(format_args!("faultline: halted"));
    }
    match NONCE.get() {
        Some(nonce) => {
            console::print_in_panic(format_args!("faultline: verdict={verdict} nonce={nonce}"))
        }
        None => console::print_in_panic(format_args!("faultline: verdict={verdict} nonce=none")),
    }
    console::drain();
    if psci {
        // Comes back only if firmware cannot.
        let _ = smccc::psci::system_off::<smccc::Smc>();
    }
    if let Some(registers) = watchdog {
        watchdog::halt(registers);
    }
    wait_for_ever(0)
}

/// Refuses to start, in one line.
pub(super) fn refuse(why: fmt::Arguments<'_>) -> ! {
    console::print_in_panic(format_args!("faultline: cannot start: {why}"));
    end(Verdict::Refused)
}

/// Stops this PE with a code in x0 for a debugger: 0 after a verdict, else see `docs/boot.md`.
pub(super) fn wait_for_ever(code: u64) -> ! {
    loop {
        // SAFETY: waits; x0 carries the code for whoever looks.
        unsafe { core::arch::asm!("wfe", in("x0") code, options(nomem, nostack)) };
        asm::nop();
    }
}
