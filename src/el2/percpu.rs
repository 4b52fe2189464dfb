//! What a pCPU finds through TPIDR_EL2.
//!
//! Blocks are static, one per pCPU, for what must be found without anything else: a debugger looks into them
//! (docs/debugging.md), and so does a crash.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::TPIDR_EL2;
use faultline::exit::Syndrome;
use faultline::machine::MAX_CPUS;
use faultline::registers::Registers;
use tock_registers::interfaces::{Readable, Writeable};

/// A pCPU's block, which gdb/faultline/record.py reads.
#[repr(C, align(64))]
pub(super) struct Block {
    /// Where the current vCPU's registers (x0 to x30, PC, PSTATE) are while it is out of its guest; 0 when there is none.
    registers: AtomicU64,
    /// The pCPU's number.
    number: AtomicU64,
    /// Of the last exit that was a fault or that the run loop saw: PC, `ESR_EL2`, `FAR_EL2`, `HPFAR_EL2`, vector (0 synchronous, 1 IRQ, 2 FIQ, 3 SError).
    last_exit: [AtomicU64; 5],
}

static BLOCKS: [Block; MAX_CPUS] = [const {
    Block {
        registers: AtomicU64::new(0),
        number: AtomicU64::new(0),
        last_exit: [const { AtomicU64::new(0) }; 5],
    }
}; MAX_CPUS];

/// This CPU is pCPU `number`; answers its block. Before its first guest.
pub(super) fn init(number: usize) -> &'static Block {
    let block = &BLOCKS[number];
    put(&block.number, number as u64);
    TPIDR_EL2.set(&raw const *block as u64);
    block
}

impl Block {
    /// The guest with these registers comes to this pCPU, or its VM leaves.
    pub(super) fn set_registers(&self, registers: Option<&mut Registers>) {
        let address = registers.map_or(0, |registers| &raw mut *registers as u64);
        put(&self.registers, address);
    }

    /// Notes an exit that is a fault, or that the run loop sees.
    #[inline]
    pub(super) fn note_exit(&self, pc: u64, syndrome: &Syndrome, vector: u64) {
        let Syndrome { esr, far, hpfar } = *syndrome;
        let values = [pc, esr, far, hpfar, vector];
        for (place, value) in self.last_exit.iter().zip(values) {
            put(place, value);
        }
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
