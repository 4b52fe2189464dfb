//! What the boot loader chose for us: command line, initrd, seeds.
//!
//! Sources: Devicetree Specification 0.4, "`/chosen` Node"; the `chosen` schema for `linux,initrd-*`, `rng-seed` and
//! `kaslr-seed`; Xen's `xen,xen-bootargs`.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::BoardError;
use super::tree::Tree;
use crate::addr::{Pa, PaRange};

/// `/chosen`, as far as it concerns the host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chosen {
    /// Our command line: `xen,xen-bootargs`, else `bootargs`; empty if there is neither.
    pub bootargs: String,
    /// The initrd; for us a VM bundle or nothing.
    pub initrd: Option<PaRange>,
    /// Random bytes from the boot loader, `rng-seed` before `kaslr-seed`; empty without a source.
    pub seed: Vec<u8>,
    /// Where in the blob those bytes lie: to be wiped there once they are used.
    pub secrets: Vec<Range<usize>>,
}

impl Chosen {
    /// # Errors
    /// `Malformed` for an initrd that ends before it starts, or has only one end.
    pub(super) fn from_tree(tree: &Tree<'_>) -> Result<Self, BoardError> {
        let Some(node) = tree.find("/chosen") else {
            return Ok(Self::default());
        };
        let bootargs = node
            .property("xen,xen-bootargs")
            .or_else(|| node.property("bootargs"));
        let mut chosen = Self {
            bootargs: bootargs
                .and_then(|text| text.string())
                .map(String::from)
                .unwrap_or_default(),
            ..Self::default()
        };
        for name in ["rng-seed", "kaslr-seed"] {
            let Some(seed) = node.property(name) else {
                continue;
            };
            // All zero is what a seed looks like that somebody has wiped.
            if seed.bytes().iter().any(|byte| *byte != 0) {
                chosen.seed.extend_from_slice(seed.bytes());
                chosen.secrets.push(tree.place_of(&seed));
            }
        }
        let (start, end) = (
            node.property("linux,initrd-start"),
            node.property("linux,initrd-end"),
        );
        if start.is_some() || end.is_some() {
            let malformed = || BoardError::malformed(&node, "linux,initrd-end");
            let start = start.and_then(|start| start.u64()).ok_or_else(malformed)?;
            let end = end.and_then(|end| end.u64()).ok_or_else(malformed)?;
            let size = end.checked_sub(start).ok_or_else(malformed)?;
            chosen.initrd = (size != 0).then_some(PaRange {
                start: Pa::new(start),
                size,
            });
        }
        Ok(chosen)
    }
}
