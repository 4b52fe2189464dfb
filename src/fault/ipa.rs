//! Where a fault hit: `HPFAR_EL2` where it can be believed, else the guest's own stage 1 asked by `AT S1E1R`.

use crate::addr::{Gva, Ipa};
use crate::exit::Abort;
use crate::machine::Machine;

/// `PAR_EL1.F`: the translation failed.
const PAR_F: u64 = 1;
/// `PAR_EL1.PA`, bits 51 to 12.
const PAR_PA: u64 = 0x000f_ffff_ffff_f000;

/// Finds the page of `abort`, and whether AT was asked; `None` if the guest's stage 1 does not translate the address any more.
///
/// AT for EL1 is right for an access from EL0 as well: the access passed stage 1, so only the output address is asked.
#[inline]
pub(super) fn locate<M: Machine>(
    abort: &Abort,
    far: Gva,
    erratum_834220: bool,
    m: &mut M,
) -> Option<(Ipa, bool)> {
    if let Some(ipa) = abort.ipa_from_hpfar(erratum_834220) {
        return Some((ipa, false));
    }
    let kept = m.par();
    let asked = m.at_s1e1r(far);
    m.isb();
    let par = m.par();
    m.set_par(kept);
    if asked.is_err() || par & PAR_F != 0 {
        return None;
    }
    Some((Ipa::new(par & PAR_PA), true))
}
