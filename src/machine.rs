//! The one seam between the logic and the machine: single instructions as methods.
//!
//! `el2` implements it with the instructions themselves, tests with a recorder, a model with caches and TLBs that fight
//! back. The *sequences* (store, DSB, TLBI, DSB, …) are the library's, in [`crate::stage2::maintenance`], so that whoever
//! stands behind this trait sees their order. One `&mut M` per pCPU, static dispatch, nothing allocated.
//!
//! Sources: DDI 0487 "TLB maintenance instructions", "A64 Cache maintenance instructions", "Address translation
//! instructions", "Barriers".

use crate::addr::{Gva, Ipa, Pa, PaRange};

/// Which DSB: the domain it covers and the accesses it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dsb {
    /// `DSB ISHST`: stores, Inner Shareable.
    IshSt,
    /// `DSB ISH`: all accesses and maintenance, Inner Shareable.
    Ish,
    /// `DSB NSHST`: stores, this PE only.
    NshSt,
    /// `DSB NSH`: all accesses and maintenance, this PE only.
    Nsh,
    /// `DSB SY`: everything, full system; needed after maintenance to the point of coherency.
    Sy,
}

/// Which TLBI. All act on the VMID in `VTTBR_EL2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tlbi {
    /// `TLBI IPAS2E1`: stage-2 entries of one IPA, this PE. Leaves combined stage-1-and-2 entries alone.
    Ipas2e1(Ipa),
    /// `TLBI IPAS2E1IS`: the same, broadcast.
    Ipas2e1Is(Ipa),
    /// `TLBI VMALLE1`: all stage-1 and combined entries of this VMID, this PE.
    Vmalle1,
    /// `TLBI VMALLE1IS`: the same, broadcast.
    Vmalle1Is,
    /// `TLBI VMALLS12E1IS`: everything of this VMID, both stages, broadcast.
    Vmalls12e1Is,
    /// `TLBI VALE2IS, XZR`: harmless by itself; the repeat that CVE-2025-10263 asks for.
    RepeatVale2Is,
}

/// Which data cache operation by virtual address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dc {
    /// `DC CIVAC`: clean and invalidate to the point of coherency.
    CleanInvalidateToPoc,
    /// `DC CVAU`: clean to the point of unification.
    CleanToPou,
}

/// Which instruction cache operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ic {
    /// `IC IVAU` for each line of the range: enough where the I-cache is physically tagged and indexed (PIPT).
    Range(PaRange),
    /// `IC IALLUIS`: all of it, on all PEs of the domain; a VIPT I-cache may hold a line under an index that our alias
    /// does not have.
    AllInnerShareable,
}

/// The EL1 registers of the current vCPU that taking or describing an exception needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum El1 {
    /// `VBAR_EL1`
    Vbar,
    /// `SCTLR_EL1`
    Sctlr,
    /// `ESR_EL1`
    Esr,
    /// `FAR_EL1`
    Far,
    /// `ELR_EL1`
    Elr,
    /// `SPSR_EL1`
    Spsr,
    /// `TTBR0_EL1`
    Ttbr0,
    /// `TTBR1_EL1`
    Ttbr1,
    /// `TCR_EL1`
    Tcr,
}

/// An `AT` instruction that itself took an abort at EL2 (its walk met an external abort) and was stepped over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtAborted;

/// What the logic may do to the machine, in the order in which it does it.
pub trait Machine {
    /// Loads one descriptor: a single 64-bit copy, never torn.
    fn load(&mut self, table: Pa, index: usize) -> u64;

    /// Replaces descriptor `current` by `new` in one compare-and-swap with release order: what was written before is
    /// seen by whoever sees `new`.
    ///
    /// # Errors
    /// The descriptor that was found instead; nothing was stored.
    fn publish(&mut self, table: Pa, index: usize, current: u64, new: u64) -> Result<(), u64>;

    /// Fills a page that nothing refers to with zeroes.
    fn zero(&mut self, page: Pa);

    /// Copies `bytes.len()` bytes at `at` out of memory.
    fn read(&mut self, at: Pa, bytes: &mut [u8]);

    /// Copies `bytes` into memory at `at`.
    fn write(&mut self, at: Pa, bytes: &[u8]);

    /// Copies `from` to `to`, ranges that do not overlap.
    fn copy(&mut self, from: PaRange, to: Pa);

    /// A data synchronization barrier.
    fn dsb(&mut self, kind: Dsb);

    /// An instruction synchronization barrier.
    fn isb(&mut self);

    /// A TLB invalidation; complete only after a DSB.
    fn tlbi(&mut self, op: Tlbi);

    /// A data cache operation on every line of `range`; complete only after a DSB.
    fn dc(&mut self, op: Dc, range: PaRange);

    /// An instruction cache operation; complete only after a DSB.
    fn ic(&mut self, op: Ic);

    /// The value in `VTTBR_EL2`: whose stage 2 maintenance and AT act on.
    fn vttbr(&mut self) -> u64;

    /// Writes `VTTBR_EL2`; takes effect after an ISB.
    fn set_vttbr(&mut self, value: u64);

    /// `AT S1E1R`: the current vCPU's stage 1 for a read of `va` at EL1, answered in `PAR_EL1` after an ISB.
    ///
    /// # Errors
    /// The instruction took an abort itself; `PAR_EL1` says nothing.
    fn at_s1e1r(&mut self, va: Gva) -> Result<(), AtAborted>;

    /// The value in `PAR_EL1`, which is guest state: who uses AT puts it back.
    fn par(&mut self) -> u64;

    /// Writes `PAR_EL1`.
    fn set_par(&mut self, value: u64);

    /// An EL1 register of the current vCPU.
    fn el1(&mut self, register: El1) -> u64;

    /// Writes an EL1 register of the current vCPU.
    fn set_el1(&mut self, register: El1, value: u64);
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::recorder;
