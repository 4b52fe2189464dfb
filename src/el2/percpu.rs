//! What a pCPU finds through TPIDR_EL2, and the way into a guest.
//!
//! Blocks are static, one per pCPU: the exit path saves registers through them, and a debugger looks into them
//! (docs/debugging.md).

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{ESR_EL2, FAR_EL2, TPIDR_EL2};
use faultline::exit::Syndrome;
use faultline::machine::MAX_CPUS;
use faultline::registers::Registers;
use tock_registers::interfaces::{Readable, Writeable};

use super::hpfar;

/// A pCPU's block. Its first word is read by vectors.S, all of it by gdb/faultline/record.py.
#[repr(C, align(64))]
pub(super) struct Block {
    /// Where the exit path saves the current vCPU's registers (x0 to x30, PC, PSTATE); 0 when there is none.
    registers: AtomicU64,
    /// The pCPU's number.
    number: AtomicU64,
    /// Of the last exit: PC, `ESR_EL2`, `FAR_EL2`, `HPFAR_EL2`, vector (0 synchronous, 1 IRQ, 2 FIQ, 3 SError).
    last_exit: [AtomicU64; 5],
}

static BLOCKS: [Block; MAX_CPUS] = [const {
    Block {
        registers: AtomicU64::new(0),
        number: AtomicU64::new(0),
        last_exit: [const { AtomicU64::new(0) }; 5],
    }
}; MAX_CPUS];

unsafe extern "C" {
    /// vectors.S: runs the guest until it exits; answers the vector.
    fn enter_guest(registers: *mut Registers) -> u64;
}

/// This CPU is pCPU `number`; answers its block. Before its first guest.
pub(super) fn init(number: usize) -> &'static Block {
    let block = &BLOCKS[number];
    put(&block.number, number as u64);
    TPIDR_EL2.set(&raw const *block as u64);
    block
}

impl Block {
    /// The guest with these registers comes to this pCPU, or none does.
    pub(super) fn set_registers(&self, registers: Option<&mut Registers>) {
        let address = registers.map_or(0, |registers| &raw mut *registers as u64);
        put(&self.registers, address);
    }

    /// Runs the guest, which has come to this pCPU with these registers, until it exits. Answers the number of the vector, and
    /// the syndrome, read once.
    #[inline]
    pub(super) fn enter(&self, registers: &mut Registers) -> (u64, Syndrome) {
        // SAFETY: stage 2, the traps and EL1's registers are set up for this vCPU (vcpu_run.rs), which is ours alone, and
        // `set_registers` named these registers.
        let vector = unsafe { enter_guest(registers) };
        let esr = ESR_EL2.get();
        let (far, hpfar) = (FAR_EL2.get(), hpfar::after(esr));
        let values = [registers.pc, esr, far, hpfar, vector];
        for (place, value) in self.last_exit.iter().zip(values) {
            put(place, value);
        }
        (vector, Syndrome { esr, far, hpfar })
    }
}

/// PC, `ESR_EL2`, `FAR_EL2`, `HPFAR_EL2` and vector of this CPU's last exit.
pub(super) fn last_exit() -> [u64; 5] {
    let own = BLOCKS
        .iter()
        .find(|block| &raw const **block as u64 == TPIDR_EL2.get());
    own.map_or([0; 5], |block| {
        block
            .last_exit
            .each_ref()
            .map(|place| place.load(Ordering::Relaxed))
    })
}

fn put(place: &AtomicU64, value: u64) {
    place.store(value, Ordering::Relaxed);
}
