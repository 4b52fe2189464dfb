//! Where a fault hit: `HPFAR_EL2` where it can be believed, else the guest's own stage 1 asked by `AT S1E1R`.

use crate::addr::{Gva, Ipa};
use crate::exit::Abort;
use crate::machine::Machine;
use crate::stats::Counters;

/// `PAR_EL1.F`: the translation failed.
const PAR_F: u64 = 1;
/// `PAR_EL1.PA`, bits 51 to 12.
const PAR_PA: u64 = 0x000f_ffff_ffff_f000;

/// Finds the page of `abort`; `None` if the guest's stage 1 does not translate the address any more.
///
/// AT for EL1 is right for an access from EL0 as well: the access passed stage 1, so only the output address is asked.
#[inline]
pub(super) fn locate<M: Machine>(
    abort: &Abort,
    far: Gva,
    erratum_834220: bool,
    counters: &Counters,
    m: &mut M,
) -> Option<Ipa> {
    let by_hpfar = abort.ipa_from_hpfar(erratum_834220);
    if by_hpfar.is_some() {
        return by_hpfar;
    }
    let kept = m.par();
    let asked = m.at_s1e1r(far);
    m.isb();
    let par = m.par();
    m.set_par(kept);
    if asked.is_err() || par & PAR_F != 0 {
        return None;
    }
    counters.translated_by_at.add(1);
    Some(Ipa::new(par & PAR_PA))
}
