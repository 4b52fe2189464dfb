//! The architecture, one record per interrupt.

use std::collections::{BTreeMap, BTreeSet};

use super::{PPIS, SGIS, SPIS, TIMER};

/// One interrupt as one vCPU sees it; SPIs are kept once, for all.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt {
    pub(super) enabled: bool,
    pub(super) edge: bool,
    pub(super) line: bool,
    pub(super) latch: bool,
    /// GICv2 SGIs: who asked.
    pub(super) sources: BTreeSet<u8>,
    pub(super) active: bool,
    pub(super) priority: u8,
    /// vCPUs it may go to.
    pub(super) targets: BTreeSet<usize>,
}

impl Interrupt {
    pub(super) fn is_pending(&self) -> bool {
        self.latch || !self.sources.is_empty() || (self.line && !self.edge)
    }

    /// Its line changes: an edge-triggered one becomes pending when it rises.
    pub(super) fn drive(&mut self, level: bool) {
        self.latch |= self.edge && level && !self.line;
        self.line = level;
    }
}

/// An interrupt's vCPU and number: SPIs are under vCPU 0.
pub(super) type Key = (usize, u32);

pub(super) const fn key(vcpu: usize, intid: u32) -> Key {
    if intid < 32 {
        (vcpu, intid)
    } else {
        (0, intid)
    }
}

/// All interrupts, as [`super::super::running`] leaves them.
pub(super) fn interrupts(vcpus: usize) -> BTreeMap<Key, Interrupt> {
    let fresh = |edge: bool| Interrupt {
        enabled: true,
        edge,
        priority: 0xa0,
        ..Interrupt::default()
    };
    let mut all = BTreeMap::new();
    for vcpu in 0..vcpus {
        all.extend(SGIS.map(|intid| ((vcpu, intid), fresh(true))));
        all.extend([PPIS[0], TIMER].map(|intid| ((vcpu, intid), fresh(false))));
    }
    for intid in SPIS {
        let spi = Interrupt {
            targets: [0].into(),
            ..fresh(false)
        };
        all.insert((0, intid), spi);
    }
    all
}
