//! A `xen,domain` node.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::module::{self, Module, ModuleKind};
use super::vcpu;
use super::{
    ConfigError, DomainConfig, GranulePolicy, MAX_VCPUS, Parser, Problem, RebootPolicy,
    ResizePolicy, RightsPolicy,
};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE};
use crate::board::tree::Node;
use crate::platform;

/// Properties a domain may have.
const KNOWN: &[&str] = &[
    "compatible",
    "#address-cells",
    "#size-cells",
    "memory",
    "cpus",
    "vpl011",
    "bootargs",
    "status",
    "phandle",
    "faultline,rights",
    "faultline,granule",
    "faultline,resize",
    "faultline,rom",
    "faultline,xn",
    "faultline,reboot",
    "faultline,ipa-bits",
];

/// Reads a domain; warns of what it has that is not understood.
///
/// # Errors
/// The first thing that cannot be done as described.
pub(super) fn domain(
    parser: &mut Parser<'_, '_>,
    node: &Node<'_>,
) -> Result<DomainConfig, ConfigError> {
    let mut ignored: Vec<String> = node
        .property_names()
        .filter(|name| !KNOWN.contains(&name.as_str()))
        .collect();
    let modules = modules(parser, node, &mut ignored)?;
    let vcpus = vcpus(parser, node)?;
    let affinities = vcpu::affinities(parser, node, vcpus, &mut ignored)?;
    let console = node.property("vpl011").is_some();
    if !console {
        parser.warn(node, "no `vpl011`: it has no console");
    }
    if !ignored.is_empty() {
        parser.warn(
            node,
            &format!("not understood and ignored: {}", ignored.join(", ")),
        );
    }
    let bootargs = match modules.bootargs {
        Some(bootargs) => bootargs,
        None => module::bootargs(parser, node, "bootargs")?.unwrap_or_default(),
    };
    let memory = memory(parser, node)?;
    Ok(DomainConfig {
        name: String::from(node.name()),
        memory,
        rom: parts(parser, node, "faultline,rom", memory)?,
        xn: parts(parser, node, "faultline,xn", memory)?,
        vcpus,
        affinities,
        console,
        kernel: modules.kernel,
        ramdisk: modules.ramdisk,
        bootargs,
        rights: policy(
            parser,
            node,
            "faultline,rights",
            &RIGHTS,
            "\"eager\" or \"lazy\"",
        )?,
        granule: policy(
            parser,
            node,
            "faultline,granule",
            &GRANULES,
            "\"4k\", \"64k\", \"contiguous\", \"2m\", \"1g\" or \"auto\"",
        )?,
        resize: policy(
            parser,
            node,
            "faultline,resize",
            &RESIZES,
            "\"break-before-make\" or \"in-place\"",
        )?,
        reboot: policy(
            parser,
            node,
            "faultline,reboot",
            &REBOOTS,
            "\"restart\" or \"stop\"",
        )?,
        ipa_bits: ipa_bits(parser, node)?,
    })
}

const RIGHTS: [(&str, RightsPolicy); 2] =
    [("eager", RightsPolicy::Eager), ("lazy", RightsPolicy::Lazy)];
const GRANULES: [(&str, GranulePolicy); 6] = [
    ("4k", GranulePolicy::Page),
    ("64k", GranulePolicy::Neighbours),
    ("contiguous", GranulePolicy::Group),
    ("2m", GranulePolicy::Block2M),
    ("1g", GranulePolicy::Block1G),
    ("auto", GranulePolicy::Auto),
];
const RESIZES: [(&str, ResizePolicy); 2] = [
    ("break-before-make", ResizePolicy::BreakBeforeMake),
    ("in-place", ResizePolicy::InPlace),
];
const REBOOTS: [(&str, RebootPolicy); 2] = [
    ("restart", RebootPolicy::Restart),
    ("stop", RebootPolicy::Stop),
];

struct Modules {
    kernel: Module,
    ramdisk: Option<Module>,
    bootargs: Option<String>,
}

fn modules(
    parser: &Parser<'_, '_>,
    node: &Node<'_>,
    ignored: &mut Vec<String>,
) -> Result<Modules, ConfigError> {
    let (mut kernels, mut ramdisks, mut bootargs) = (Vec::new(), Vec::new(), None);
    for child in node.children() {
        match module::kind(parser, &child)? {
            Some(ModuleKind::Kernel) => {
                kernels.push(module::module(parser, &child, ignored)?);
                bootargs = module::bootargs(parser, &child, "bootargs")?;
            }
            Some(ModuleKind::Ramdisk) => ramdisks.push(module::module(parser, &child, ignored)?),
            None if vcpu::is_vcpu(&child) => {}
            None => ignored.push(String::from(child.name())),
        }
    }
    let wrong = |kind, count| parser.error(node.name(), Problem::ModuleCount { kind, count });
    if ramdisks.len() > 1 {
        return Err(wrong("ramdisk", ramdisks.len()));
    }
    let count = kernels.len();
    let kernel = kernels
        .pop()
        .filter(|_| count == 1)
        .ok_or_else(|| wrong("kernel", count))?;
    Ok(Modules {
        kernel,
        ramdisk: ramdisks.pop().filter(|ramdisk| ramdisk.size() != 0),
        bootargs,
    })
}

/// `memory`, in KiB.
fn memory(parser: &Parser<'_, '_>, node: &Node<'_>) -> Result<u64, ConfigError> {
    let value = node
        .property("memory")
        .ok_or_else(|| parser.error(node.name(), Problem::Missing("memory")))?;
    let kib = value
        .u64()
        .ok_or_else(|| parser.error(node.name(), Problem::Unreadable("memory")))?;
    let bytes = kib.saturating_mul(1024);
    let sound = (PAGE_SIZE..=platform::RAM_MAX).contains(&bytes) && bytes.is_multiple_of(PAGE_SIZE);
    if sound {
        Ok(bytes)
    } else {
        Err(parser.error(node.name(), Problem::Memory(bytes)))
    }
}

fn vcpus(parser: &Parser<'_, '_>, node: &Node<'_>) -> Result<u32, ConfigError> {
    let Some(value) = node.property("cpus") else {
        return Ok(1);
    };
    let count = value
        .u32()
        .ok_or_else(|| parser.error(node.name(), Problem::Unreadable("cpus")))?;
    if (1..=MAX_VCPUS).contains(&count) {
        Ok(count)
    } else {
        Err(parser.error(node.name(), Problem::Vcpus(count)))
    }
}

/// Parts of RAM: guest addresses and sizes, two cells each.
fn parts(
    parser: &Parser<'_, '_>,
    node: &Node<'_>,
    property: &'static str,
    memory: u64,
) -> Result<Vec<IpaRange>, ConfigError> {
    let Some(value) = node.property(property) else {
        return Ok(Vec::new());
    };
    let entries = value
        .entries([2, 2])
        .ok_or_else(|| parser.error(node.name(), Problem::Unreadable(property)))?;
    let ram = IpaRange {
        start: platform::RAM_BASE,
        size: memory,
    };
    let part = |[start, size]: &[u64; 2]| {
        let is_pages = *size != 0 && (start | size).is_multiple_of(PAGE_SIZE);
        let range = IpaRange::new(Ipa::new(*start), *size).filter(|_| is_pages);
        range
            .filter(|range| ram.intersect(range) == Some(*range))
            .ok_or_else(|| {
                parser.error(
                    node.name(),
                    Problem::Part {
                        property,
                        start: *start,
                        size: *size,
                    },
                )
            })
    };
    entries.iter().map(part).collect()
}

/// The size of the IPA space; absent, the smallest that fits. Whether the CPUs have it is seen when the VM is made.
fn ipa_bits(parser: &Parser<'_, '_>, node: &Node<'_>) -> Result<Option<u32>, ConfigError> {
    const NAME: &str = "faultline,ipa-bits";
    node.property(NAME)
        .map(|value| {
            let bits = value.u32();
            bits.ok_or_else(|| parser.error(node.name(), Problem::Unreadable(NAME)))
        })
        .transpose()
}

/// The meaning of a policy's word; absent, its default.
fn policy<P: Copy + Default>(
    parser: &Parser<'_, '_>,
    node: &Node<'_>,
    property: &'static str,
    words: &[(&str, P)],
    allowed: &'static str,
) -> Result<P, ConfigError> {
    let Some(value) = node.property(property) else {
        return Ok(P::default());
    };
    let word = value
        .string()
        .ok_or_else(|| parser.error(node.name(), Problem::Unreadable(property)))?;
    let found = words.iter().find(|(name, _)| *name == word);
    found.map(|(_, policy)| *policy).ok_or_else(|| {
        parser.error(
            node.name(),
            Problem::Policy {
                property,
                value: String::from(word),
                allowed,
            },
        )
    })
}
