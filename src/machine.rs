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

/// At which level the leaf lay that a TLBI is for (FEAT_TTL). A wrong hint may invalidate nothing: [`Ttl::ANY`] unless
/// certain, and always on CPUs without the feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ttl(u8);

impl Ttl {
    /// Leaves of every level.
    pub const ANY: Self = Self(0);

    /// Leaves of this level (1 to 3) only.
    #[must_use]
    pub const fn level(number: u8) -> Self {
        assert!(number >= 1 && number <= 3, "leaves lie at levels 1 to 3");
        Self(number)
    }

    /// The level, if one is meant.
    #[must_use]
    pub const fn only(self) -> Option<u8> {
        if self.0 == 0 { None } else { Some(self.0) }
    }
}

/// Which TLBI. All but [`Tlbi::Alle1Is`] act on the VMID in `VTTBR_EL2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tlbi {
    /// `TLBI IPAS2E1`: stage-2 entries of one IPA, this PE. Leaves combined stage-1-and-2 entries alone.
    Ipas2e1(Ipa, Ttl),
    /// `TLBI IPAS2E1IS`: the same, broadcast.
    Ipas2e1Is(Ipa, Ttl),
    /// `TLBI RIPAS2E1IS` (FEAT_TLBIRANGE): stage-2 entries of a range of IPAs, broadcast.
    Ripas2e1Is(TlbRange),
    /// `TLBI VMALLE1`: all stage-1 and combined entries of this VMID, this PE.
    Vmalle1,
    /// `TLBI VMALLE1IS`: the same, broadcast.
    Vmalle1Is,
    /// `TLBI VMALLS12E1IS`: everything of this VMID, both stages, broadcast.
    Vmalls12e1Is,
    /// `TLBI VMALLS12E1`: the same, this PE.
    Vmalls12e1,
    /// `TLBI ALLE1IS`: everything of every VMID, both stages, broadcast.
    Alle1Is,
    /// `TLBI VALE2IS, XZR`: harmless by itself; the repeat that CVE-2025-10263 asks for.
    RepeatVale2Is,
}

/// What one range TLBI covers: `(NUM + 1) << (5 * SCALE + 1)` pages of 4 KiB from `start` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbRange {
    /// The first page.
    pub start: Ipa,
    /// `SCALE`, 0 to 3.
    pub scale: u8,
    /// `NUM`, 0 to 31.
    pub num: u8,
    /// At which level the leaves lay.
    pub ttl: Ttl,
}

impl TlbRange {
    /// How many pages it covers.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        (self.num as u64 + 1) << (5 * self.scale + 1)
    }

    /// The instruction's operand: BaseADDR 36:0, TTL 38:37, NUM 43:39, SCALE 45:44, TG 47:46 (01: 4 KiB).
    #[must_use]
    pub const fn operand(&self) -> u64 {
        1 << 46
            | (self.scale as u64) << 44
            | (self.num as u64) << 39
            | (self.ttl.0 as u64) << 37
            | self.start.raw() >> 12
    }
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
    /// `IC IALLU`: all of this PE's, before another vCPU of the same VM runs on it.
    AllLocal,
    /// `IC IALLUIS`: all of it, on all PEs of the domain; a VIPT I-cache may hold a line under an index that our alias
    /// does not have.
    AllInnerShareable,
}

/// The EL1 registers of the current vCPU that taking or describing an exception, or carrying out an instruction, needs.
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
    /// `SP_EL0`
    SpEl0,
    /// `SP_EL1`
    SpEl1,
    /// `MAIR_EL1`
    Mair,
    /// `AMAIR_EL1`
    Amair,
    /// `AFSR0_EL1`
    Afsr0,
    /// `AFSR1_EL1`
    Afsr1,
    /// `CONTEXTIDR_EL1`
    Contextidr,
}

/// An `AT` instruction that itself took an abort at EL2 (its walk met an external abort) and was stepped over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtAborted;

/// pCPUs at most; a board's CPUs beyond are left asleep.
pub const MAX_CPUS: usize = 32;

/// What the logic may do to the machine, in the order in which it does it.
pub trait Machine {
    /// Which pCPU this is: 0 to [`MAX_CPUS`] - 1.
    fn cpu(&mut self) -> usize;

    /// Loads one descriptor: a single 64-bit copy, never torn.
    fn load(&mut self, table: Pa, index: usize) -> u64;

    /// Replaces descriptor `current` by `new` in one compare-and-swap with release order: what was written before is
    /// seen by whoever sees `new`.
    ///
    /// # Errors
    /// The descriptor that was found instead; nothing was stored.
    fn publish(&mut self, table: Pa, index: usize, current: u64, new: u64) -> Result<(), u64>;

    /// Fills a table that nothing refers to: descriptor `n` becomes `first + n * step`.
    fn fill_table(&mut self, table: Pa, first: u64, step: u64);

    /// Fills whole pages that nothing refers to with zeroes.
    fn zero(&mut self, pages: PaRange);

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

    /// Between two parts of what takes long: nothing is half done, and no lock is held. Physical interrupts that wait are taken
    /// here.
    fn interrupt_window(&mut self);
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::recorder;
