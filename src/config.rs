//! VMs as a device tree describes them: one parser for the host's `/chosen` and for a VM bundle.
//!
//! The schema is Xen's dom0less binding with our policies under `faultline,` names; `docs/vm-bundle.md` shows it. A flat
//! `/chosen/module@…` kernel, as QEMU's `guest-loader` writes it, is one guest with a console. Total: whatever is wrong is
//! one line that names the node, nothing is guessed, and what is not understood is a warning. Does not look into modules:
//! that is [`crate::image`].
//!
//! Sources: Xen's `docs/misc/arm/device-tree/booting.txt`, sections "Creating Multiple Domains directly from Xen" and
//! "Multiboot Module"; QEMU's "Guest Loader".

mod domain;
mod flat;
mod module;
#[cfg(test)]
mod tests;
mod vcpu;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use module::Module;
pub use vcpu::Placement;

use crate::addr::{IpaRange, Size};
use crate::board::tree::{self, Node, Tree};
use crate::fault::{GranulePolicy, RightsPolicy};
use crate::machine::MAX_CPUS;
use crate::platform;
use crate::slot::{Kind, Slots};
use crate::stage2::{ResizePolicy, Rights};

/// RAM of a guest whose description does not say: 256 MiB.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

/// Where a description stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The board's own tree.
    HostTree,
    /// A tree passed as initrd.
    Bundle,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostTree => "host tree",
            Self::Bundle => "VM bundle",
        })
    }
}

/// Whether an initrd is a VM bundle (a device tree) rather than a ramdisk.
#[must_use]
pub fn is_bundle(initrd: &[u8]) -> bool {
    initrd.starts_with(&tree::MAGIC)
}

/// What a reset does: `faultline,reboot`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RebootPolicy {
    /// The VM starts again.
    #[default]
    Restart,
    /// The VM ends.
    Stop,
}

/// A VM, as described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainConfig {
    /// The node's name.
    pub name: String,
    /// RAM in bytes: whole pages, at most [`platform::RAM_MAX`].
    pub memory: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// The pCPUs that each vCPU may run on, bit n for pCPU n.
    pub affinities: Vec<u64>,
    /// Whether it has an emulated PL011.
    pub console: bool,
    /// The kernel.
    pub kernel: Module,
    /// The ramdisk, if it has one.
    pub ramdisk: Option<Module>,
    /// The guest's command line.
    pub bootargs: String,
    /// When pages get which rights.
    pub rights: RightsPolicy,
    /// How much one fault brings.
    pub granule: GranulePolicy,
    /// How blocks and tables take each other's place.
    pub resize: ResizePolicy,
    /// RAM that it cannot write.
    pub rom: Vec<IpaRange>,
    /// RAM that it cannot execute.
    pub xn: Vec<IpaRange>,
    /// What a reset does.
    pub reboot: RebootPolicy,
    /// Bits of its IPA space; `None`: the smallest that fits.
    pub ipa_bits: Option<u32>,
}

impl DomainConfig {
    /// All of its RAM.
    #[must_use]
    pub const fn ram(&self) -> IpaRange {
        IpaRange {
            start: platform::RAM_BASE,
            size: self.memory,
        }
    }

    /// The vCPUs that may not run on every CPU, on a machine of `cpus` CPUs.
    pub fn placements(&self, cpus: usize) -> impl Iterator<Item = Placement> {
        Placement::all(&self.affinities, cpus)
    }

    /// The pieces of its RAM that it cannot use in every way.
    #[must_use]
    pub fn reserved(&self) -> Vec<IpaRange> {
        let mut slots = Slots::default();
        // Nothing is there yet that a piece could overlap.
        let _ = slots.add_ram(self.ram(), &self.rom, &self.xn);
        let pieces = slots.iter();
        pieces
            .filter(|slot| slot.kind != Kind::Ram(Rights::ALL))
            .map(|slot| slot.range)
            .collect()
    }
}

/// What a tree describes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// The VMs: exactly one in this version.
    pub domains: Vec<DomainConfig>,
    /// One line each, none of them a reason to stop.
    pub warnings: Vec<String>,
}

/// Number of VMs this version runs at once.
const MAX_DOMAINS: usize = 1;

/// Number of vCPUs a VM may have.
pub const MAX_VCPUS: u32 = 8;

/// Reads all VMs of a tree.
///
/// # Errors
/// The first thing that cannot be done as described.
pub fn parse(tree: &Tree<'_>, origin: Origin) -> Result<Config, ConfigError> {
    let mut parser = Parser {
        tree,
        origin,
        warnings: Vec::new(),
    };
    let Some(chosen) = tree.find("/chosen") else {
        return Err(parser.error("/chosen", Problem::NoDomain));
    };
    let nodes: Vec<Node<'_>> = chosen
        .children()
        .filter(|node| node.is_compatible(&["xen,domain"]) && node.is_enabled())
        .collect();
    let mut domains = flat::domains(&mut parser, &chosen)?;
    let count = domains.len() + nodes.len();
    match count {
        0 => return Err(parser.error("/chosen", Problem::NoDomain)),
        1..=MAX_DOMAINS => {}
        _ => return Err(parser.error("/chosen", Problem::SeveralDomains(count))),
    }
    for node in &nodes {
        domains.push(domain::domain(&mut parser, node)?);
    }
    Ok(Config {
        domains,
        warnings: parser.warnings,
    })
}

/// What the parts of the parser share.
struct Parser<'t, 'a> {
    tree: &'t Tree<'a>,
    origin: Origin,
    warnings: Vec<String>,
}

impl Parser<'_, '_> {
    fn error(&self, node: &str, problem: Problem) -> ConfigError {
        ConfigError {
            origin: self.origin,
            node: String::from(node),
            problem,
        }
    }

    fn warn(&mut self, node: &Node<'_>, what: &str) {
        self.warnings
            .push(format!("{}: {}: {what}", self.origin, node.name()));
    }
}

/// Why a description cannot be followed. One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Where the description stands.
    pub origin: Origin,
    /// The node it is about.
    pub node: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// Neither a domain nor a flat kernel.
    NoDomain,
    /// More VMs than this version runs.
    SeveralDomains(usize),
    /// A property that has to be there is not.
    Missing(&'static str),
    /// A property whose value has the wrong shape.
    Unreadable(&'static str),
    /// No vCPU, or more than [`MAX_VCPUS`].
    Vcpus(u32),
    /// An `xen,vcpu` node for a vCPU that the domain does not have.
    NoSuchVcpu {
        /// Its number.
        id: u32,
        /// How many there are.
        count: u32,
    },
    /// A `hard-affinity` that is no list of CPUs.
    CpuList(String),
    /// RAM that is no whole number of pages, none, or more than the platform has room for: bytes.
    Memory(u64),
    /// A part of RAM with fewer rights that is no whole pages in RAM.
    Part {
        /// The property.
        property: &'static str,
        /// Where it starts.
        start: u64,
        /// Its size.
        size: u64,
    },
    /// A domain without a kernel, or with two, or two ramdisks.
    ModuleCount {
        /// What there should be one of.
        kind: &'static str,
        /// How many there are.
        count: usize,
    },
    /// A flat ramdisk below every kernel.
    RamdiskWithoutKernel,
    /// A passthrough fragment.
    Passthrough,
    /// A module whose bytes are neither given nor pointed at, or both.
    ModulePlace,
    /// A policy with a value that this version does not have.
    Policy {
        /// The property.
        property: &'static str,
        /// Its value.
        value: String,
        /// The values there are.
        allowed: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name is whatever bytes the tree has: on the log it stays on its line.
        let node = self.node.escape_debug();
        write!(f, "{}: {node}: {}", self.origin, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDomain => {
                f.write_str("no VM here: no `xen,domain` node and no `multiboot,kernel` module")
            }
            Self::SeveralDomains(count) => write!(f, "{count} VMs; this version runs one"),
            Self::Missing(property) => write!(f, "`{property}` is missing"),
            Self::Unreadable(property) => write!(f, "`{property}` cannot be read"),
            Self::Vcpus(count) => write!(f, "{count} vCPUs; a VM has 1 to {MAX_VCPUS}"),
            Self::NoSuchVcpu { id, count } => {
                write!(f, "vCPU {id} of {count}: they are counted from 0")
            }
            Self::CpuList(list) => {
                let list = list.escape_debug();
                write!(
                    f,
                    "`hard-affinity` is \"{list}\"; it can be CPUs from 0 to {}, as in \"0-2,5\"",
                    MAX_CPUS - 1
                )
            }
            Self::Memory(bytes) => {
                write!(
                    f,
                    "{} of RAM; it has to be whole pages, at least one, at most {}",
                    Size(*bytes),
                    Size(platform::RAM_MAX)
                )
            }
            Self::Part {
                property,
                start,
                size,
            } => write!(
                f,
                "`{property}`: {size:#x} bytes at {start:#x}; it has to be whole pages of the guest's RAM"
            ),
            Self::ModuleCount { kind, count: 0 } => write!(f, "no `multiboot,{kind}` module"),
            Self::ModuleCount { kind, count } => {
                write!(f, "{count} `multiboot,{kind}` modules; there can be one")
            }
            Self::RamdiskWithoutKernel => {
                f.write_str("a ramdisk belongs to the kernel below it, and there is none")
            }
            Self::Passthrough => f.write_str(
                "`multiboot,device-tree` describes passthrough, which this version does not have",
            ),
            Self::ModulePlace => f.write_str(
                "a module has either its bytes in `faultline,data` or their address in `reg`",
            ),
            Self::Policy {
                property,
                value,
                allowed,
            } => {
                let value = value.escape_debug();
                write!(f, "`{property}` is \"{value}\"; it can be {allowed}")
            }
        }
    }
}
