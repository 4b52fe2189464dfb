//! Reads what is to run: from a VM bundle, or from the board's own tree.

use alloc::vec::Vec;

use faultline::addr::PaRange;
use faultline::board::Board;
use faultline::board::tree::Tree;
use faultline::config::{self, DomainConfig, Origin};
use faultline::vm::{Bytes, Modules};

use super::mapped;
use super::ram::is_ram;
use super::tree::bytes;
use crate::el2::console::log;
use crate::el2::hyp_map::{self, Use};
use crate::el2::power::refuse;

/// The initrd, if there is one: a VM bundle.
pub(super) fn bundle(board: &Board) -> Option<PaRange> {
    let range = board.chosen.initrd?;
    map_module(board, range, "the initrd");
    Some(range)
}

fn map_module(board: &Board, range: PaRange, what: &str) {
    if !is_ram(board, range) {
        refuse(format_args!("{what} at {range} does not lie in RAM"));
    }
    if range.overlaps(&hyp_map::image()) {
        refuse(format_args!(
            "{what} at {range} overlaps the hypervisor at {}",
            hyp_map::image()
        ));
    }
    if let Some(theirs) = board
        .reserved
        .iter()
        .find(|reserved| reserved.no_map && reserved.range.overlaps(&range))
    {
        refuse(format_args!(
            "{what} at {range} lies in reserved memory, {}",
            theirs.range
        ));
    }
    mapped(hyp_map::map(range, Use::ReadOnly));
}

/// The VM to run, with its modules' bytes and where they lie.
pub(super) fn domain(
    board: &Board,
    host: &Tree<'static>,
    host_range: PaRange,
    initrd: Option<PaRange>,
) -> (DomainConfig, Modules<'static>, Vec<PaRange>) {
    let own = initrd.filter(|range| config::is_bundle(bytes(*range)));
    if initrd.is_some() && own.is_none() {
        log!(
            "warning",
            "the initrd is no VM bundle (a .dtb) and is ignored"
        );
    }
    let parsed = match own {
        Some(range) => match Tree::parse(bytes(range)) {
            Ok(tree) => config::parse(&tree, Origin::Bundle),
            Err(error) => refuse(format_args!("VM bundle: {error}")),
        },
        None => config::parse(host, Origin::HostTree),
    };
    let config = parsed.unwrap_or_else(|error| refuse(format_args!("{error}")));
    config
        .warnings
        .iter()
        .for_each(|warning| log!("warning", "{warning}"));
    let Some(domain) = config.domains.into_iter().next() else {
        refuse(format_args!("no VM is described"))
    };
    let base = own.unwrap_or(host_range).start;
    let range_of = |module: &config::Module| {
        module
            .range(base)
            .unwrap_or_else(|| refuse(format_args!("a module ends past the address space")))
    };
    let kernel = range_of(&domain.kernel);
    let ramdisk = domain.ramdisk.as_ref().map(range_of);
    let ranges: Vec<PaRange> = [Some(kernel), ramdisk].into_iter().flatten().collect();
    ranges
        .iter()
        .for_each(|range| map_module(board, *range, "a module"));
    let held = |range: PaRange| Bytes {
        bytes: bytes(range),
        at: range.start,
    };
    (
        domain,
        Modules {
            kernel: held(kernel),
            ramdisk: ramdisk.map(held),
        },
        ranges,
    )
}
