//! The board's CPUs: who they are, and how they are started.
//!
//! Sources: Devicetree Specification 0.4, "`/cpus/cpu*` Node Properties"; the `arm/cpus` and `arm,psci` bindings; DDI 0487
//! "MPIDR_EL1".

use alloc::vec::Vec;
use core::fmt;

use super::BoardError;
use super::tree::{Node, Tree};
use crate::addr::Pa;

/// The affinity fields of `MPIDR_EL1`: what identifies a CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mpidr(u64);

impl Mpidr {
    /// Aff3 and Aff2 to Aff0; the rest of the register says other things.
    const AFFINITY: u64 = 0x00ff_00ff_ffff;

    /// The affinity of a CPU whose `MPIDR_EL1` reads `register`.
    #[must_use]
    pub const fn from_register(register: u64) -> Self {
        Self(register & Self::AFFINITY)
    }

    /// The affinity fields, at their places in the register.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Mpidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// How a CPU that waits in firmware is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    /// `CPU_ON` of PSCI.
    Psci,
    /// Its entry point is written to a word in memory, then `SEV`.
    SpinTable {
        /// The word.
        release: Pa,
    },
    /// The tree does not say, or says something else.
    Unknown,
}

/// A CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Its affinity.
    pub mpidr: Mpidr,
    /// How it is started.
    pub enable: EnableMethod,
}

/// All CPUs of the tree that have not failed.
///
/// # Errors
/// `NoCpus`, or `Malformed` for one without a readable `reg`.
pub(super) fn cpus(tree: &Tree<'_>) -> Result<Vec<Cpu>, BoardError> {
    let parent = tree.find("/cpus").ok_or(BoardError::NoCpus)?;
    let mut list = Vec::new();
    for node in parent
        .children()
        .filter(|node| is_cpu(node) && !has_failed(node))
    {
        let reg = node.untranslated_reg().and_then(|reg| reg.first().copied());
        let (affinity, _) = reg.ok_or_else(|| BoardError::malformed(&node, "reg"))?;
        list.push(Cpu {
            mpidr: Mpidr::from_register(affinity),
            enable: enable_method(&node)?,
        });
    }
    if list.is_empty() {
        Err(BoardError::NoCpus)
    } else {
        Ok(list)
    }
}

fn is_cpu(node: &Node<'_>) -> bool {
    match node.property("device_type") {
        Some(kind) => kind.string() == Some("cpu"),
        None => node.base_name() == "cpu",
    }
}

/// For a CPU, `disabled` means that it has not been started; only `fail` means that it never will be.
fn has_failed(node: &Node<'_>) -> bool {
    node.property("status").is_some_and(|status| {
        status
            .string()
            .is_none_or(|status| status.starts_with("fail"))
    })
}

fn enable_method(node: &Node<'_>) -> Result<EnableMethod, BoardError> {
    let methods = node.inherited("enable-method");
    for method in methods.iter().flat_map(|methods| methods.strings()) {
        match method {
            "psci" => return Ok(EnableMethod::Psci),
            "spin-table" => {
                let release = node
                    .property("cpu-release-addr")
                    .and_then(|address| address.u64());
                let release =
                    release.ok_or_else(|| BoardError::malformed(node, "cpu-release-addr"))?;
                return Ok(EnableMethod::SpinTable {
                    release: Pa::new(release),
                });
            }
            _ => {}
        }
    }
    Ok(EnableMethod::Unknown)
}

/// The instruction by which firmware is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `SMC`.
    Smc,
    /// `HVC`.
    Hvc,
}

impl Conduit {
    /// How PSCI is called, if the tree has it and it is enabled.
    #[must_use]
    pub fn from_tree(tree: &Tree<'_>) -> Option<Self> {
        let node = tree.compatible(&["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])?;
        match node.property("method")?.string()? {
            "smc" => Some(Self::Smc),
            "hvc" => Some(Self::Hvc),
            _ => None,
        }
    }
}
