//! A vCPU: what belongs to it alone.

use alloc::sync::Arc;
use core::fmt;

use crate::fault::FaultingVcpu;
use crate::fault::inject::PstateFeatures;
use crate::fault::progress::Progress;
use crate::registers::Registers;
use crate::stats::Counters;
use crate::sysreg::id::IdTable;
use crate::vgic::Masking;
use crate::vm::Host;
use crate::vm::caches::Cleaning;

/// Different refusals a vCPU is warned of before it goes on in silence.
const WARNINGS: usize = 8;

/// A vCPU that is out of its guest. Whoever has it owns it.
pub struct Vcpu {
    /// Which of its VM's vCPUs it is, from 0; its affinity is [`crate::platform::affinity`] of it.
    pub index: usize,
    /// Its general-purpose registers.
    pub registers: Registers,
    /// Is it getting anywhere?
    pub progress: Progress,
    /// What it did. Others may read it.
    pub counters: Arc<Counters>,
    /// What exception entry does to its PSTATE.
    pub pstate_features: PstateFeatures,
    /// Bits of `HCR_EL2` that are this vCPU's besides those of all ([`crate::traps`]): `TVM`.
    pub traps: u64,
    pub(super) cleaning: Option<Cleaning>,
    pub(super) masking: Masking,
    warned: [Option<u16>; WARNINGS],
}

impl Vcpu {
    /// Out of reset, at address 0.
    #[must_use]
    pub fn at_reset(index: usize, ids: &IdTable, counters: Arc<Counters>) -> Self {
        Self {
            index,
            registers: Registers::entering(0),
            progress: Progress::default(),
            counters,
            pstate_features: PstateFeatures {
                pan: ids.has_pan(),
                ssbs: ids.has_ssbs(),
            },
            traps: 0,
            cleaning: None,
            masking: Masking::default(),
            warned: [None; WARNINGS],
        }
    }

    /// Begins at `entry` with `x0`, all other registers zero, all exceptions masked.
    ///
    /// Sources: Linux `Documentation/arch/arm64/booting.rst`; DEN 0022 "CPU_ON" for a vCPU that another one turns on.
    pub fn enter_at(&mut self, entry: u64, x0: u64) {
        self.registers = Registers::entering(entry);
        self.registers.x[0] = x0;
        self.progress = Progress::default();
    }

    /// Its part in a fault.
    #[inline]
    pub(super) fn faulting(&mut self) -> FaultingVcpu<'_> {
        FaultingVcpu {
            registers: &self.registers,
            progress: &mut self.progress,
            counters: &self.counters,
        }
    }

    /// Completes the instruction at PC, which was carried out in software. `is_16_bit`: a short one of T32.
    #[inline]
    pub(super) fn retire(&mut self, is_16_bit: bool) {
        self.registers.advance(is_16_bit);
        self.progress.retired();
    }

    /// Logs `text` the first time for each `what`, and for the first few only.
    pub(super) fn warn_once<H: Host>(&mut self, what: u16, host: &mut H, text: fmt::Arguments<'_>) {
        if self.warned.contains(&Some(what)) {
            return;
        }
        if let Some(free) = self.warned.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(what);
            host.warn(text);
        }
    }
}
