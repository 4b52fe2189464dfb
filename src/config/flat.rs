//! Kernels and ramdisks directly in `/chosen`, as QEMU's `guest-loader` and boot loaders for Xen's dom0 write them.
//!
//! Nodes come newest first there and nothing ties a ramdisk to its kernel, so the order of addresses decides: a ramdisk
//! belongs to the kernel below it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::module::{self, Module, ModuleKind};
use super::{
    ConfigError, DEFAULT_MEMORY, DomainConfig, GranulePolicy, Parser, Problem, RebootPolicy,
    ResizePolicy, RightsPolicy,
};
use crate::board::tree::Node;

/// One guest for every kernel module that is a child of `chosen`.
///
/// # Errors
/// The first thing that cannot be done as described.
pub(super) fn domains(
    parser: &mut Parser<'_, '_>,
    chosen: &Node<'_>,
) -> Result<Vec<DomainConfig>, ConfigError> {
    let mut modules: Vec<(Module, ModuleKind, Node<'_>)> = Vec::new();
    for node in chosen.children() {
        let Some(kind) = module::kind(parser, &node)? else {
            continue;
        };
        let mut ignored = Vec::new();
        modules.push((
            module::module(parser, &node, &mut ignored)?,
            kind,
            node.clone(),
        ));
        if !ignored.is_empty() {
            parser.warn(
                &node,
                &format!("not understood and ignored: {}", ignored.join(", ")),
            );
        }
    }
    modules.sort_by_key(|(module, ..)| module.start());
    let mut domains: Vec<DomainConfig> = Vec::new();
    for (module, kind, node) in modules {
        match kind {
            ModuleKind::Kernel => domains.push(guest(parser, chosen, &node, module)?),
            ModuleKind::Ramdisk => {
                let domain = domains.last_mut();
                let domain = domain
                    .ok_or_else(|| parser.error(node.name(), Problem::RamdiskWithoutKernel))?;
                if domain.ramdisk.replace(module).is_some() {
                    return Err(parser.error(
                        node.name(),
                        Problem::ModuleCount {
                            kind: "ramdisk",
                            count: 2,
                        },
                    ));
                }
            }
        }
    }
    Ok(domains)
}

/// A guest of which only the kernel is known.
fn guest(
    parser: &Parser<'_, '_>,
    chosen: &Node<'_>,
    node: &Node<'_>,
    kernel: Module,
) -> Result<DomainConfig, ConfigError> {
    let bootargs = match module::bootargs(parser, node, "bootargs")? {
        Some(bootargs) => bootargs,
        None => module::bootargs(parser, chosen, "xen,dom0-bootargs")?.unwrap_or_default(),
    };
    Ok(DomainConfig {
        name: String::from("guest"),
        memory: DEFAULT_MEMORY,
        vcpus: 1,
        affinities: alloc::vec![u64::MAX],
        console: true,
        kernel,
        ramdisk: None,
        bootargs,
        rights: RightsPolicy::default(),
        granule: GranulePolicy::default(),
        resize: ResizePolicy::default(),
        rom: Vec::new(),
        xn: Vec::new(),
        reboot: RebootPolicy::default(),
        ipa_bits: None,
    })
}
