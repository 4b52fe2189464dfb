//! Floating point and SIMD registers, switched when a vCPU first uses them in its slice.
//!
//! A vCPU starts a slice with its accesses trapped (`CPTR_EL2.TFP`), unless the registers still hold what it left there. The
//! first use loads them; the end of the slice saves them. So nobody sees another's, and who computes with integers pays
//! nothing.
//!
//! Source: DDI 0487 "CPTR_EL2, Architectural Feature Trap Register (EL2)", TFP.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::asm::barrier;

use super::sysreg::CPTR_EL2;

core::arch::global_asm!(include_str!("fp.S"));

/// `CPTR_EL2.TFP`.
const TFP: u64 = 1 << 10;
/// Nobody's registers.
const NOBODY: u64 = 0;

unsafe extern "C" {
    fn save_fp(state: *mut State);
    fn load_fp(state: *const State);
}

/// Q0 to Q31, FPSR, FPCR, as fp.S lays them out.
#[repr(C, align(16))]
struct State {
    q: [u128; 32],
    fpsr: u64,
    fpcr: u64,
}

/// The registers of one vCPU.
pub(super) struct FpState {
    state: State,
    /// A name no other vCPU's registers ever have.
    id: u64,
    /// The pCPU in whose registers they were left last.
    left_on: usize,
}

impl FpState {
    /// All zero, as at reset.
    pub(super) fn at_reset() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(NOBODY + 1);
        Self {
            state: State {
                q: [0; 32],
                fpsr: 0,
                fpcr: 0,
            },
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            left_on: usize::MAX,
        }
    }
}

/// Whose floating-point registers a pCPU holds, and whether its vCPU may use them.
#[derive(Default)]
pub(super) struct FpOwner {
    holds: u64,
    is_open: bool,
}

impl FpOwner {
    /// A slice begins: access traps, unless the registers hold this vCPU's.
    pub(super) fn begin(&mut self, fp: &FpState, cpu: usize) {
        self.is_open = self.holds == fp.id && fp.left_on == cpu;
        set_trap(!self.is_open);
    }

    /// The vCPU used a register: gives it its own. Answers whether that was what it wanted.
    pub(super) fn open(&mut self, fp: &FpState) -> bool {
        if self.is_open {
            return false;
        }
        set_trap(false);
        barrier::isb(barrier::SY);
        // SAFETY: EL2 is built without floating point; the registers' owner before saved them at the end of its slice.
        unsafe { load_fp(&raw const fp.state) };
        (self.holds, self.is_open) = (fp.id, true);
        true
    }

    /// A slice ends: what the vCPU may have changed is saved.
    pub(super) fn end(&mut self, fp: &mut FpState, cpu: usize) {
        if self.is_open {
            // SAFETY: EL2 is built without floating point, and `open` gave this vCPU the registers.
            unsafe { save_fp(&raw mut fp.state) };
            fp.left_on = cpu;
            self.is_open = false;
        }
    }
}

/// Takes effect for the guest with the ERET.
fn set_trap(on: bool) {
    let now = CPTR_EL2.get();
    let wanted = if on { now | TFP } else { now & !TFP };
    if wanted != now {
        CPTR_EL2.set(wanted);
    }
}
