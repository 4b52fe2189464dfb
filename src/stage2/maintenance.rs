//! The sequences: which barrier, TLBI and cache operation in which order. Nobody else composes them.
//!
//! Sources: DDI 0487 "TLB maintenance requirements and the TLB maintenance instructions", "Using break-before-make when
//! updating translation table entries", "Cache maintenance by VA to the PoC and PoU"; CVE-2025-10263 for the repeat.

use crate::addr::{Ipa, Pa, PaRange};
use crate::features::Coherence;
use crate::machine::{Dc, Dsb, Ic, Machine, Tlbi, Ttl};

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

/// Makes instruction fetches from `range` coherent with its data. To be done before X is published: a fetch that gets
/// through earlier may execute a stale line.
pub fn make_executable<M: Machine>(m: &mut M, range: PaRange, coherence: &Coherence) -> ExecReady {
    if !coherence.idc {
        m.dc(Dc::CleanToPou, range);
    }
    if !coherence.idc || !coherence.dic {
        m.dsb(Dsb::Ish);
    }
    if !coherence.dic {
        // A VIPT I-cache may hold the line under an index that our alias of the page does not have.
        m.ic(if coherence.pipt {
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
/// one fault each and come here themselves.
///
/// Stage 2 first, and complete, then stage 1: otherwise a combined entry could be refilled from the stale stage-2 entry.
pub fn after_relax<M: Machine>(m: &mut M, ipa: Ipa) {
    m.dsb(Dsb::NshSt);
    m.tlbi(Tlbi::Ipas2e1(ipa, Ttl::ANY));
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

/// After a descriptor was broken, or lost rights: all PEs drop `ipa`. When it returns no PE uses the old entry, and no
/// store through it is outstanding.
pub fn after_break<M: Machine>(m: &mut M, ipa: Ipa) {
    m.dsb(Dsb::IshSt);
    m.tlbi(Tlbi::Ipas2e1Is(ipa, Ttl::ANY));
    m.dsb(Dsb::Ish);
    m.tlbi(Tlbi::Vmalle1Is);
    m.dsb(Dsb::Ish);
    repeat(m);
    m.isb();
}

/// All PEs drop everything of the VMID in `VTTBR_EL2`.
pub fn invalidate_vmid<M: Machine>(m: &mut M) {
    m.dsb(Dsb::IshSt);
    m.tlbi(Tlbi::Vmalls12e1Is);
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

/// Runs `body` with another `VTTBR_EL2`, so that TLB maintenance acts on that VMID, and puts the old one back.
pub fn under_vttbr<M: Machine, R>(m: &mut M, vttbr: u64, body: impl FnOnce(&mut M) -> R) -> R {
    let before = m.vttbr();
    // The walker may still be at work for the old one.
    m.dsb(Dsb::Nsh);
    m.set_vttbr(vttbr);
    m.isb();
    let answer = body(m);
    m.dsb(Dsb::Nsh);
    m.set_vttbr(before);
    m.isb();
    answer
}

/// The 4 KiB page at `pa`.
#[must_use]
pub const fn page_at(pa: Pa) -> PaRange {
    PaRange {
        start: pa,
        size: crate::addr::PAGE_SIZE,
    }
}
