//! The sequences: which barrier, TLBI and cache operation in which order. Nobody else composes them.
//!
//! Sources: DDI 0487 "TLB maintenance requirements and the TLB maintenance instructions", "Using break-before-make when
//! updating translation table entries", "Cache maintenance by VA to the PoC and PoU"; CVE-2025-10263 for the repeat.

use crate::addr::{Ipa, IpaRange, PAGE_SHIFT, PAGE_SIZE, Pa, PaRange};
use crate::features::{Coherence, Mmu};
use crate::machine::{Dc, Dsb, El1, Ic, Machine, TlbRange, Tlbi, Ttl};

/// Makes bytes we wrote visible to a guest whatever memory type it uses: a guest with its stage-1 MMU off reads past the
/// caches. With FWB it cannot, and nothing is done. Before the page is published, never after.
pub fn make_visible<M: Machine>(m: &mut M, range: PaRange, coherence: &Coherence) {
    if !coherence.fwb {
        m.dc(Dc::CleanInvalidateToPoc, range);
        m.dsb(Dsb::Sy);
    }
}

/// The proof that instruction fetches from a page see what was last written to it, so that X may be granted.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "it was costly to make: grant X with it"]
pub struct ExecReady {
    range: PaRange,
    maintained: bool,
}

impl ExecReady {
    /// The bytes that may be executed.
    #[must_use]
    pub const fn range(&self) -> PaRange {
        self.range
    }

    /// Whether the CPU needed an instruction cache operation for it (DIC = 0).
    #[must_use]
    pub const fn was_maintained(&self) -> bool {
        self.maintained
    }
}

/// Bytes up to which the I-cache is invalidated line by line.
const LINE_BY_LINE: u64 = 16 * PAGE_SIZE;

/// Makes instruction fetches from `range` coherent with its data. To be done before X is published: a fetch that gets
/// through earlier may execute a stale line.
#[inline(always)]
pub fn make_executable<M: Machine>(m: &mut M, range: PaRange, coherence: &Coherence) -> ExecReady {
    if !coherence.idc {
        m.dc(Dc::CleanToPou, range);
    }
    if !coherence.idc || !coherence.dic {
        m.dsb(Dsb::Ish);
    }
    if !coherence.dic {
        // A VIPT I-cache may hold the line under an index that our alias of the page does not have; and line by line, much
        // memory costs more than to refill what all of it held.
        m.ic(if coherence.pipt && range.size <= LINE_BY_LINE {
            Ic::Range(range)
        } else {
            Ic::AllInnerShareable
        });
        m.dsb(Dsb::Ish);
    }
    // The ISB of the fetching PE is the ERET.
    ExecReady {
        range,
        maintained: !coherence.dic,
    }
}

/// After an invalid descriptor became valid: faulting entries are never cached, so no TLBI, but a walk must see the store.
pub fn after_map<M: Machine>(m: &mut M) {
    m.dsb(Dsb::IshSt);
}

/// After rights grew, or were found sufficient: this PE drops what it holds of `ipa`. Other PEs with the old entry take
/// one fault each and come here themselves. `ttl` says where the leaf lies, [`Ttl::ANY`] unless that is certain.
///
/// Stage 2 first, and complete, then stage 1: otherwise a combined entry could be refilled from the stale stage-2 entry.
pub fn after_relax<M: Machine>(m: &mut M, ipa: Ipa, ttl: Ttl) {
    m.dsb(Dsb::NshSt);
    m.tlbi(Tlbi::Ipas2e1(ipa, ttl));
    m.dsb(Dsb::Nsh);
    m.tlbi(Tlbi::Vmalle1);
    m.dsb(Dsb::Nsh);
    m.isb();
}

/// After the guest's stage 1 would not say where an access went: this PE drops what it holds of stage 1, alone and
/// combined with stage 2, so that the access is walked by the guest's tables as they are now.
pub fn forget_stage1<M: Machine>(m: &mut M) {
    m.dsb(Dsb::NshSt);
    m.tlbi(Tlbi::Vmalle1);
    m.dsb(Dsb::Nsh);
    m.isb();
}

/// Between two vCPUs of the VM in `VTTBR_EL2` on this PE: it drops what it holds of the first one's stage 1. The two are
/// tagged alike, with the same VMID and perhaps the same ASIDs, and have other tables; and what one fetched with its MMU
/// off is no good for another. Stage 1 walks nothing meanwhile.
pub fn change_vcpu<M: Machine>(m: &mut M) {
    m.ic(Ic::AllLocal);
    forget_stage1(m);
}

/// After a TLB conflict: this PE drops everything of the VMID in `VTTBR_EL2`, whichever of two entries it is.
pub fn forget_vmid<M: Machine>(m: &mut M) {
    m.dsb(Dsb::NshSt);
    m.tlbi(Tlbi::Vmalls12e1);
    m.dsb(Dsb::Nsh);
    m.isb();
}

/// After one descriptor was broken, or lost rights: all PEs drop `ipa`. When it returns no PE uses the old entry, and no
/// store through it is outstanding.
pub fn after_break<M: Machine>(m: &mut M, ipa: Ipa, ttl: Ttl) {
    m.dsb(Dsb::IshSt);
    m.tlbi(Tlbi::Ipas2e1Is(ipa, ttl));
    end_broadcast(m);
}

/// The same after many descriptors of `range` changed: by range where the CPUs can, else everything of the VMID, which
/// costs one instruction here and refills later.
pub fn after_breaks<M: Machine>(m: &mut M, range: IpaRange, mmu: &Mmu) {
    if !mmu.tlbi_range {
        return invalidate_vmid(m);
    }
    m.dsb(Dsb::IshSt);
    tlb_ranges(range).for_each(|part| m.tlbi(Tlbi::Ripas2e1Is(part)));
    end_broadcast(m);
}

/// Stage 2 was invalidated by broadcast: waits for it, then lets stage 1 and what combines the two follow. There is no
/// instruction for "combined, by IPA", so all of stage 1 goes.
fn end_broadcast<M: Machine>(m: &mut M) {
    m.dsb(Dsb::Ish);
    m.tlbi(Tlbi::Vmalle1Is);
    m.dsb(Dsb::Ish);
    repeat(m);
    m.isb();
}

/// Pages that the largest range TLBI covers.
const MOST_PAGES: u64 = 32 << 16;

/// `range` as operands of range TLBIs: no page of it is missed; the last may reach up to a unit beyond.
fn tlb_ranges(range: IpaRange) -> impl Iterator<Item = TlbRange> {
    let (mut page, end) = (
        range.start.raw() >> PAGE_SHIFT,
        range.end().raw().div_ceil(PAGE_SIZE),
    );
    core::iter::from_fn(move || {
        let left = end.checked_sub(page).filter(|left| *left != 0)?;
        // The smallest unit of which 32 suffice; at the largest, whatever is left comes in the next round.
        let scale = (0..3u8)
            .find(|scale| left <= 32 << (5 * scale + 1))
            .unwrap_or(3);
        let unit = 1 << (5 * scale + 1);
        let num = left.min(MOST_PAGES).div_ceil(unit).min(32) as u8 - 1;
        let part = TlbRange {
            start: Ipa::new(page << PAGE_SHIFT),
            scale,
            num,
            ttl: Ttl::ANY,
        };
        page += part.pages();
        Some(part)
    })
}

/// All PEs drop everything of the VMID in `VTTBR_EL2`.
pub fn invalidate_vmid<M: Machine>(m: &mut M) {
    m.dsb(Dsb::IshSt);
    m.tlbi(Tlbi::Vmalls12e1Is);
    m.dsb(Dsb::Ish);
    repeat(m);
    m.isb();
}

/// All PEs drop everything of every VMID: before VMIDs are used a second time. An I-cache that is not physically tagged may
/// be tagged with the VMID.
pub fn invalidate_all<M: Machine>(m: &mut M) {
    m.dsb(Dsb::IshSt);
    m.tlbi(Tlbi::Alle1Is);
    m.ic(Ic::AllInnerShareable);
    m.dsb(Dsb::Ish);
    repeat(m);
    m.isb();
}

/// On the CPUs of CVE-2025-10263 a TLBI and DSB may complete before another PE's store through the old entry is observed;
/// one more broadcast TLBI and DSB waits for it. It is cheap enough to do on all.
fn repeat<M: Machine>(m: &mut M) {
    m.tlbi(Tlbi::RepeatVale2Is);
    m.dsb(Dsb::Ish);
}

/// Cleans and invalidates to the point of coherency what a guest may have written past the caches or under them, before
/// somebody else reads it. Nothing with FWB. After the guest can reach it no more.
pub fn take_back<M: Machine>(m: &mut M, range: PaRange, coherence: &Coherence) {
    make_visible(m, range, coherence);
}

/// `TCR_EL1.EPD0` and `EPD1`: a miss in a TLB walks nothing.
pub const TCR_NO_WALKS: u64 = 1 << 7 | 1 << 23;
/// `SCTLR_EL1.M`.
pub const SCTLR_MMU_ON: u64 = 1 << 0;

/// Runs `body` with another `VTTBR_EL2`, so that TLB maintenance acts on that VMID, and puts the old one back. EL1's stage 1 is on
/// and walks nothing meanwhile: what it would find, if only speculatively, a TLB would keep as the other VM's (errata 1165522,
/// 1319367, 1530923 and their like).
pub fn under_vttbr<M: Machine, R>(m: &mut M, vttbr: u64, body: impl FnOnce(&mut M) -> R) -> R {
    let before = m.vttbr();
    let (tcr, sctlr) = (m.el1(El1::Tcr), m.el1(El1::Sctlr));
    m.set_el1(El1::Tcr, TCR_NO_WALKS);
    m.set_el1(El1::Sctlr, sctlr | SCTLR_MMU_ON);
    m.isb();
    // The walker may still be at work for the old one.
    m.dsb(Dsb::Nsh);
    m.set_vttbr(vttbr);
    m.isb();
    let answer = body(m);
    m.dsb(Dsb::Nsh);
    m.set_vttbr(before);
    m.isb();
    m.set_el1(El1::Tcr, tcr);
    m.set_el1(El1::Sctlr, sctlr);
    answer
}

/// The 4 KiB page at `pa`.
#[must_use]
pub const fn page_at(pa: Pa) -> PaRange {
    PaRange {
        start: pa,
        size: PAGE_SIZE,
    }
}
