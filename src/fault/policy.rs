//! What a VM's owner chooses: how fast rights grow, and how much memory one fault brings.

use core::fmt;

use crate::exit::Need;
use crate::stage2::Rights;

/// How fast RAM gets its rights: `faultline,rights`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RightsPolicy {
    /// R and W on any first touch; X at once where the CPU has DIC = 1, else on the first fetch.
    #[default]
    Eager,
    /// R, then W, then X, each when it is first wanted.
    Lazy,
}

impl RightsPolicy {
    /// The rights a touch that wants `need` brings, X aside.
    #[must_use]
    pub const fn data_rights(self, need: Need) -> Rights {
        match (self, need) {
            (Self::Eager, _) | (Self::Lazy, Need::Write) => Rights::READ.with(Rights::WRITE),
            (Self::Lazy, Need::Read | Need::Execute) => Rights::READ,
        }
    }
}

/// How much one translation fault brings at most: `faultline,granule`.
///
/// Whatever does not fit (the slot, what is mapped there already, the pool) is answered with the next smaller size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GranulePolicy {
    /// `4k`: the page that was touched.
    Page,
    /// `64k`: it and its neighbours, 16 pages of their own.
    Neighbours,
    /// `contiguous`: it and its neighbours, in one piece and with the contiguous hint.
    Group,
    /// `2m`: a block of 2 MiB.
    Block2M,
    /// `1g`: a block of 1 GiB.
    Block1G,
    /// `auto`: a block of 2 MiB as long as the pool could still give the VM all of its memory; else the page.
    ///
    /// The default: Linux boots with 47 faults where pages take 15,800, and with half of the instructions at EL2
    /// (docs/stage2.md).
    #[default]
    Auto,
}

impl fmt::Display for GranulePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Page => "4k",
            Self::Neighbours => "64k",
            Self::Group => "contiguous",
            Self::Block2M => "2m",
            Self::Block1G => "1g",
            Self::Auto => "auto",
        })
    }
}
