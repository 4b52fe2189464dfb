//! Why a VM was stopped by the hypervisor, in sentences that name what was broken.

use core::fmt;

use crate::addr::{Ipa, PAGE_SIZE, Size};
use crate::exit::FaultStatus;
use crate::fault::progress::Attempt;
use crate::stage2::{Descriptor, Level, View};

/// Why a VM cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The pool is dry.
    OutOfPages {
        /// Pages the pool has in all.
        total: u64,
        /// Pages this VM has mapped.
        mapped: u64,
    },
    /// The same fault again and again, and nothing changes.
    NoProgress {
        /// The fault.
        attempt: Attempt,
        /// How often it came back.
        repeats: u32,
    },
    /// Exceptions lead only to the next exception.
    NoVectors {
        /// `VBAR_EL1`
        vbar: u64,
        /// The vector that does not work.
        vector: u64,
        /// PC of the first exception in the chain.
        first_pc: u64,
        /// What it touched, if it was an abort.
        first_ipa: Option<Ipa>,
    },
    /// Two TLB entries for one address: a break-before-make was missing.
    TlbConflict {
        /// PC of the access.
        pc: u64,
        /// `ESR_EL2`
        esr: u64,
    },
    /// The memory of this VM's stage-2 tables answered a walk with an error.
    TableMemory {
        /// PC of the access.
        pc: u64,
        /// `ESR_EL2`
        esr: u64,
    },
    /// An address in this VM's stage-2 tables is wider than `VTCR_EL2.PS`.
    OutputSize {
        /// PC of the access.
        pc: u64,
        /// The page it hit.
        ipa: Ipa,
        /// `ESR_EL2`
        esr: u64,
    },
    /// The hardware reported an error on the guest's access.
    Hardware {
        /// PC of the access.
        pc: u64,
        /// `ESR_EL2`
        esr: u64,
    },
    /// An exit that nothing we enable produces.
    UnknownExit {
        /// PC of the guest.
        pc: u64,
        /// `ESR_EL2`
        esr: u64,
    },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfPages { total, mapped } => write!(
                f,
                "out of memory: the pool's {} are used up, {} of them as this VM's memory; give the machine more (MEM=) or \
                 the guest less (GUEST_MEM=)",
                Size(total * PAGE_SIZE),
                Size(mapped * PAGE_SIZE)
            ),
            Self::NoProgress { attempt, repeats } => no_progress(f, attempt, *repeats),
            Self::NoVectors {
                vbar,
                vector,
                first_pc,
                first_ipa,
            } => {
                write!(
                    f,
                    "no exception vectors: VBAR_EL1 = {vbar:#x}, and the vector at {vector:#x} cannot run; first "
                )?;
                match first_ipa {
                    Some(ipa) => write!(f, "abort at PC {first_pc:#x} on IPA {ipa}"),
                    None => write!(f, "exception at PC {first_pc:#x}"),
                }
            }
            Self::TlbConflict { pc, esr } => {
                write!(
                    f,
                    "TLB conflict at PC {pc:#x} (ESR_EL2 {esr:#x}) again and again: a break-before-make or its TLBI is missing"
                )
            }
            Self::TableMemory { pc, esr } => {
                write!(
                    f,
                    "the memory of its stage-2 tables is bad: the walk for an access at PC {pc:#x} was answered with an error \
                     (ESR_EL2 {esr:#x})"
                )
            }
            Self::OutputSize { pc, ipa, esr } => {
                write!(
                    f,
                    "an address in its stage-2 tables for IPA {ipa} is wider than VTCR_EL2.PS; access at PC {pc:#x}, ESR_EL2 \
                     {esr:#x}. Broken rule: what is mapped lies in the CPUs' physical address space"
                )
            }
            Self::Hardware { pc, esr } => {
                write!(
                    f,
                    "the hardware answered an access at PC {pc:#x} with an error (ESR_EL2 {esr:#x})"
                )
            }
            Self::UnknownExit { pc, esr } => {
                write!(
                    f,
                    "an exit nobody asked for at PC {pc:#x} (ESR_EL2 {esr:#x}, class {:#x})",
                    esr >> 26 & 0x3f
                )
            }
        }
    }
}

fn no_progress(f: &mut fmt::Formatter<'_>, attempt: &Attempt, repeats: u32) -> fmt::Result {
    let Attempt { pc, far, need, .. } = attempt;
    write!(
        f,
        "no progress: {repeats} times the same {need:?} fault at PC {pc:#x}, VA {far}"
    )?;
    let Some(ipa) = attempt.ipa else {
        return write!(
            f,
            "; the guest's stage 1 does not say where the CPU's walk went"
        );
    };
    let descriptor = Descriptor::from_raw(attempt.descriptor);
    write!(f, ", IPA {ipa}, ")?;
    let leaf = match descriptor.view(Level::LAST) {
        // Valid, and no page: a block.
        View::Invalid => descriptor.view(Level::new(2)),
        page => page,
    };
    match (leaf, FaultStatus::of_code(attempt.code)) {
        (View::Leaf(_, rights), FaultStatus::Permission(_)) if !rights.allows(need.rights()) => {
            write!(
                f,
                "a permission fault on a leaf that stays {rights}. Broken rule: a permission fault relaxes the leaf in place; \
             mapping over it answers \"already there\" and changes nothing (map-on-permission)"
            )
        }
        (View::Leaf(_, rights), _) if rights.allows(need.rights()) => write!(
            f,
            "on a leaf that is {rights} already. Broken rule: after a change, and after a spurious fault, this CPU's stale \
             TLB entry is invalidated"
        ),
        (View::Leaf(_, rights), status) => write!(f, "{status:?} on a leaf that stays {rights}"),
        (View::Invalid | View::Table(_), status) => write!(
            f,
            "{status:?} where nothing gets mapped. Broken rule: a translation fault takes a page and maps it"
        ),
    }
}
