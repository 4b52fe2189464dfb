//! What kind of machine a case runs on.

use super::rng::Rng;
use crate::addr::PAGE_SIZE;
use crate::fault::{GranulePolicy, RightsPolicy};
use crate::features::{Coherence, Features, IdRegisters};
use crate::stage2::{Config, ResizePolicy};

/// Guest RAM: its start, and the pages that are looked at.
pub(super) const RAM_START: u64 = 0x4000_0000;
pub(super) const RAM_PAGES: u64 = 1024;
/// What lies in guest RAM from the start, as a boot loader left it: 2 MiB that may be lent as a block.
pub(super) const MODULE_PAGE: u64 = 512;
/// From here on guest RAM is read-only, as a ROM is.
pub(super) const ROM_PAGE: u64 = 1016;
/// Pages of guest RAM that may be one block of 1 GiB: half of those that are looked at are its first 2 MiB, half its last.
const GIGABYTE_PAGES: u64 = 512 * 512;

/// Where guests see a device of the hardware's, its pages, and where it is.
pub(super) const WINDOW_START: u64 = 0x0801_0000;
pub(super) const WINDOW_PAGES: u64 = 2;
pub(super) const WINDOW_MEMORY: u64 = 0x0804_0000;

/// A machine, as it is printed with a failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) cpus: usize,
    /// IPA bits: what start level and how many root tables.
    pub(super) ipa_bits: u32,
    pub(super) fwb: bool,
    pub(super) idc: bool,
    pub(super) dic: bool,
    pub(super) pipt: bool,
    /// Virtual addresses and VMIDs tag instruction caches.
    pub(super) vivt: bool,
    /// 0, 1 (access flag), 2 (and dirty state).
    pub(super) hafdbs: u64,
    pub(super) ttl: bool,
    pub(super) ranges: bool,
    /// CVE-2025-10263: a store may outlive the TLBI and DSB of the entry it went through.
    pub(super) stores_linger: bool,
    /// The guests run with their stage-1 MMU and caches off: 0 never, 1 always, 2 at times.
    pub(super) caches_off: u8,
    /// Guest RAM is 1 GiB and trees have a level for such blocks; all of it is writable, nothing is in it from
    /// the start, and the pool has as much and a little more.
    pub(super) gigabyte: bool,
    /// What a fault brings: 0 a page, 1 its neighbours too, 2 a block, 3 whatever the pool allows, 4 a block of 1 GiB, 5 a
    /// contiguous group.
    pub(super) granule: u8,
    /// Rights are given one by one.
    pub(super) lazy: bool,
    /// FEAT_BBM level. All VMs are to have their blocks and tables resized in place.
    pub(super) bbm: u64,
    /// A CPU goes on for so many machine operations on average before another gets its turn.
    pub(super) patience: usize,
}

impl Setup {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let setup = Self {
            cpus: rng.pick(&[1, 2, 2, 3, 4]),
            ipa_bits: rng.pick(&[32, 32, 40, 48]),
            fwb: rng.one_in(4),
            idc: rng.one_in(3),
            dic: rng.one_in(5),
            pipt: rng.one_in(2),
            hafdbs: rng.pick(&[0, 0, 1, 2, 2]),
            ttl: rng.one_in(2),
            ranges: rng.one_in(2),
            stores_linger: rng.one_in(2),
            caches_off: rng.pick(&[0, 0, 1, 2]),
            gigabyte: false,
            granule: rng.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
            lazy: rng.one_in(2),
            patience: rng.pick(&[3, 8, 24]),
            vivt: false,
            bbm: rng.pick(&[0, 1, 2]),
        };
        let setup = Self {
            vivt: !setup.pipt && rng.one_in(3),
            ..setup
        };
        let setup = Self {
            gigabyte: setup.granule == 4 && setup.ipa_bits > 32,
            ..setup
        };
        // All that resizing in place takes is seldom found by chance.
        if rng.one_in(5) {
            return Self {
                fwb: true,
                dic: true,
                bbm: rng.pick(&[1, 2, 2]),
                ..setup
            };
        }
        setup
    }

    /// Pages of guest RAM, those that nobody looks at included.
    pub(super) const fn all_pages(&self) -> u64 {
        if self.gigabyte {
            GIGABYTE_PAGES
        } else {
            RAM_PAGES
        }
    }

    /// Where in guest RAM page `number` of those lies that are looked at, in pages.
    pub(super) const fn place(&self, number: u64) -> u64 {
        if number < RAM_PAGES / 2 {
            number
        } else {
            number + self.all_pages() - RAM_PAGES
        }
    }

    /// What is looked at: where it begins and ends.
    pub(super) fn looked_at(&self) -> [(u64, u64); 2] {
        let half = RAM_PAGES / 2;
        [0, half].map(|first| {
            let start = RAM_START + self.place(first) * PAGE_SIZE;
            (start, start + half * PAGE_SIZE)
        })
    }

    /// Whether page `number` of those that are looked at is read-only.
    pub(super) const fn is_rom(&self, number: u64) -> bool {
        number >= ROM_PAGE && !self.gigabyte
    }

    /// Whether the hardware bears two sizes for one address.
    pub(super) const fn resizes(&self) -> bool {
        self.bbm >= 2 && self.fwb && self.dic
    }

    pub(super) const fn coherence(&self) -> Coherence {
        Coherence {
            fwb: self.fwb,
            idc: self.idc,
            dic: self.dic,
            pipt: self.pipt,
        }
    }

    pub(super) const fn rights(&self) -> RightsPolicy {
        if self.lazy {
            RightsPolicy::Lazy
        } else {
            RightsPolicy::Eager
        }
    }

    pub(super) const fn granule(&self) -> GranulePolicy {
        match self.granule {
            0 => GranulePolicy::Page,
            1 => GranulePolicy::Neighbours,
            2 => GranulePolicy::Block2M,
            4 => GranulePolicy::Block1G,
            5 => GranulePolicy::Group,
            _ => GranulePolicy::Auto,
        }
    }

    pub(super) fn config(&self) -> Config {
        let features = Features::new(&IdRegisters {
            mmfr0: 5,
            mmfr1: self.hafdbs,
            mmfr2: u64::from(self.ttl) << 48 | u64::from(self.fwb) << 40 | self.bbm << 52,
            ctr: u64::from(self.dic) << 29,
            isar0: if self.ranges { 2 << 56 } else { 0 },
            ..IdRegisters::default()
        });
        let shape = Config::for_highest((1 << self.ipa_bits) - 1, &features).unwrap();
        shape.with_resize(ResizePolicy::InPlace)
    }
}
