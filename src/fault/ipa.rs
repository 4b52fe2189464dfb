//! Where a fault hit: `HPFAR_EL2` where it can be believed, else the guest's own stage 1 asked by `AT S1E1R`.

use crate::addr::{Gva, Ipa};
use crate::exit::Abort;
use crate::machine::Machine;

/// `PAR_EL1.F`: the translation failed.
const PAR_F: u64 = 1;
/// `PAR_EL1.PA`, bits 51 to 12.
const PAR_PA: u64 = 0x000f_ffff_ffff_f000;

/// The page that faulted, and who said so.
pub(super) enum Located {
    /// `HPFAR_EL2`.
    ByHpfar(Ipa),
    /// `AT S1E1R`.
    ByAt(Ipa),
    /// The guest's stage 1 does not translate the address any more.
    Nowhere,
}

/// Finds the IPA of `abort`.
///
/// AT for EL1 is right for an access from EL0 as well: the access passed stage 1, so only the output address is asked.
pub(super) fn locate<M: Machine>(
    abort: &Abort,
    far: Gva,
    erratum_834220: bool,
    m: &mut M,
) -> Located {
    if let Some(ipa) = abort.ipa_from_hpfar(erratum_834220) {
        return Located::ByHpfar(ipa);
    }
    let kept = m.par();
    let asked = m.at_s1e1r(far);
    m.isb();
    let par = m.par();
    m.set_par(kept);
    match asked {
        Ok(()) if par & PAR_F == 0 => Located::ByAt(Ipa::new(par & PAR_PA)),
        Ok(()) | Err(_) => Located::Nowhere,
    }
}
