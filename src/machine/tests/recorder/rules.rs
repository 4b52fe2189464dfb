//! The rules for descriptors, spelled from DDI 0487 "VMSAv8-64 translation table format descriptors" and "Using
//! break-before-make when updating translation table entries".

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Op;
use super::frame::{Frame, Frames, State};
use crate::addr::{Ipa, PAGE_SIZE, Pa, PaRange};
use crate::features::Coherence;
use crate::machine::{Dsb, Tlbi, Ttl};
use crate::stage2::Config;

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 2;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const S2AP: u64 = 3 << 6;
const AF: u64 = 1 << 10;
const XN: u64 = 3 << 53;
const CONTIGUOUS: u64 = 1 << 52;
/// Bits a leaf may have set: attributes to AF, the address, Contiguous, XN and the four software bits.
const ALLOWED: u64 = 0x7ff | ADDRESS | CONTIGUOUS | XN | 0xf << 55;
const OWNED: u64 = 1 << 55;
const LOCKED: u64 = 1 << 56;

pub(super) const fn output_address(descriptor: u64) -> u64 {
    descriptor & ADDRESS
}

/// R, W, X of a leaf. XN = 0b10 is "nobody executes", 0b00 "everybody does".
pub(super) fn rights(leaf: u64) -> [bool; 3] {
    [leaf >> 6 & 1 == 1, leaf >> 7 & 1 == 1, leaf >> 53 & 3 == 0]
}

/// Whether `descriptor` is a page or a block at `level`.
const fn is_leaf(level: u32, descriptor: u64) -> bool {
    matches!((level, descriptor & 3), (3, 3) | (1 | 2, 1))
}

/// The memory of `descriptor` if it is a page or a block at `level`.
pub(super) fn leaf_memory(level: u32, descriptor: u64) -> Option<PaRange> {
    is_leaf(level, descriptor).then(|| PaRange {
        start: Pa::new(output_address(descriptor)),
        size: span(level),
    })
}

/// The page descriptor that translates `ipa` as the leaf `descriptor` at `level` does.
const fn as_page(level: u32, descriptor: u64, ipa: u64) -> u64 {
    (descriptor | TABLE_OR_PAGE) + (ipa & (span(level) - 1) & !(PAGE_SIZE - 1))
}

/// Whether a leaf maps a hardware window: MemAttr Device-nGnRE.
const fn is_window(leaf: u64) -> bool {
    leaf >> 2 & 0xf == 1
}

/// A leaf as the TLBs see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cached {
    /// As a page.
    pub(super) leaf: u64,
    /// How much the entry it comes from translates.
    pub(super) size: u64,
}

/// Where a descriptor stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) level: u32,
    pub(super) ipa: u64,
}

/// The tree as the machine sees it: which page is a table of which level, for which IPA.
pub(super) struct Tree {
    pub(super) vttbr: u64,
    root: u64,
    start: u32,
    limit: u64,
    tables: BTreeMap<u64, Place>,
    /// A host's verb is at work, which takes rights and access flags away.
    pub(super) is_taking: bool,
    /// Descriptors that were broken: the old one, and how long the log was.
    broken: BTreeMap<Place, (u64, usize)>,
}

const fn span(level: u32) -> u64 {
    1 << (12 + 9 * (3 - level))
}

impl Tree {
    pub(super) fn new(root: Pa, config: &Config, vttbr: u64) -> Self {
        let start = u32::from(config.start_level.number());
        let size = config.root_tables as u64 * PAGE_SIZE;
        assert!(
            root.is_aligned(size),
            "a root of {size} bytes is aligned to its size"
        );
        let tables = (0..config.root_tables as u64).map(|n| {
            let place = Place {
                level: start,
                ipa: n * 512 * span(start),
            };
            (root.raw() + n * PAGE_SIZE, place)
        });
        Self {
            vttbr,
            root: root.raw(),
            start,
            limit: 1 << config.ipa_bits,
            tables: tables.collect(),
            is_taking: false,
            broken: BTreeMap::new(),
        }
    }

    pub(super) fn is_table(&self, table: Pa) -> bool {
        self.tables.contains_key(&table.raw())
    }

    pub(super) fn place(&self, table: Pa, index: usize) -> Place {
        let table = self
            .tables
            .get(&table.raw())
            .expect("only tables of the tree are written");
        assert!(index < 512, "a table has 512 descriptors");
        Place {
            level: table.level,
            ipa: table.ipa + index as u64 * span(table.level),
        }
    }

    /// The leaf that a walk ends at, as a page.
    pub(super) fn walk(&self, frames: &Frames, ipa: u64) -> Option<Cached> {
        assert!(ipa < self.limit, "a walk beyond T0SZ");
        let mut table = self.root + ipa / (512 * span(self.start)) * PAGE_SIZE;
        let mut level = self.start;
        loop {
            let descriptor = frames
                .get(Pa::new(table))
                .load((ipa / span(level) % 512) as usize);
            if is_leaf(level, descriptor) {
                return Some(Cached {
                    leaf: as_page(level, descriptor, ipa),
                    size: span(level),
                });
            }
            if descriptor & 3 != 3 {
                return None;
            }
            (table, level) = (output_address(descriptor), level + 1);
        }
    }

    /// The level-3 table for `ipa` and the index in it.
    pub(super) fn locate(&self, ipa: u64) -> (Pa, usize) {
        let last =
            |(_, place): &(&u64, &Place)| place.level == 3 && place.ipa == ipa & !(span(2) - 1);
        let (table, _) = self.tables.iter().find(last).expect("the IPA has a table");
        (Pa::new(*table), (ipa / PAGE_SIZE % 512) as usize)
    }

    /// All that is mapped, page by page.
    pub(super) fn all(&self, frames: &Frames) -> BTreeMap<u64, Cached> {
        let mut all = BTreeMap::new();
        for (table, place) in &self.tables {
            let frame = frames.get(Pa::new(*table));
            let size = span(place.level);
            for n in 0..512 {
                let (ipa, descriptor) = (place.ipa + n as u64 * size, frame.load(n));
                if is_leaf(place.level, descriptor) {
                    let pages = (ipa..ipa + size).step_by(PAGE_SIZE as usize);
                    all.extend(pages.map(|ipa| {
                        let leaf = as_page(place.level, descriptor, ipa);
                        (ipa, Cached { leaf, size })
                    }));
                }
            }
        }
        all
    }

    /// Panics if the change from `old` to `new` breaks a rule.
    pub(super) fn check(
        &self,
        place: Place,
        old: u64,
        new: u64,
        frames: &mut Frames,
        coherence: &Coherence,
        log: &[Op],
    ) {
        match (old & VALID != 0, new & VALID != 0) {
            (false, true) => self.check_made(place, new, frames, coherence, log),
            (true, true) => {
                assert!(
                    is_leaf(place.level, old) && is_leaf(place.level, new),
                    "break-before-make: a table was replaced"
                );
                assert!(
                    (old ^ new) & !(S2AP | AF | XN) == 0,
                    "break-before-make: {old:#x} to {new:#x}"
                );
                if self.is_taking {
                    return;
                }
                let kept = rights(old)
                    .iter()
                    .zip(rights(new))
                    .all(|(old, new)| new || !*old);
                assert!(kept, "rights only grow: {old:#x} to {new:#x}");
                check_leaf(new, coherence);
                let memory = leaf_memory(place.level, new).expect("it is a leaf");
                if rights(new)[2] && !rights(old)[2] {
                    check_executable(frames, memory, coherence);
                }
                assert!(
                    !(rights(new)[1] && frames.is_lent(memory.start)),
                    "what is lent is never written"
                );
            }
            (true, false) => assert!(
                new == LOCKED && is_leaf(place.level, old),
                "a broken leaf is locked"
            ),
            (false, false) => assert!(
                matches!((old, new), (0, LOCKED) | (LOCKED, 0)),
                "an invalid descriptor is claimed or released"
            ),
        }
    }

    fn check_made(
        &self,
        place: Place,
        new: u64,
        frames: &mut Frames,
        coherence: &Coherence,
        log: &[Op],
    ) {
        let leaf = leaf_memory(place.level, new);
        if let Some((before, since)) = self.broken.get(&place) {
            check_broken(place, &log[*since + 1..]);
            match leaf {
                // A group of pages that was one may be made again as pages.
                Some(_) if *before & !CONTIGUOUS == new & !CONTIGUOUS => return,
                Some(_) => assert!(
                    before & OWNED == 0 && !is_window(*before),
                    "what the tree owns is made again as it was"
                ),
                None => return check_split(place, *before, new, frames),
            }
        }
        let Some(memory) = leaf else {
            let at = Pa::new(output_address(new));
            assert_eq!(new & !ADDRESS, 3, "a table descriptor carries nothing else");
            assert!(!self.is_table(at), "a table is linked once");
            assert!(
                frames.get(at).bytes.iter().all(|byte| *byte == 0),
                "a table is linked empty"
            );
            return;
        };
        check_leaf(new, coherence);
        assert_eq!(
            (output_address(new) | place.ipa) % span(place.level),
            0,
            "a leaf is aligned to its size on both sides"
        );
        if is_window(new) {
            assert!(
                new & OWNED == 0 && !rights(new)[2],
                "a window is not owned and never executed"
            );
            return;
        }
        if rights(new)[2] {
            check_executable(frames, memory, coherence);
        }
        let is_lent = new & OWNED == 0;
        assert!(
            !(is_lent && rights(new)[1]),
            "what is lent is never written"
        );
        for at in pages(memory) {
            let frame = frames.get_mut(at);
            assert!(
                is_lent || !frame.is_lent,
                "what is lent is not owned by its leaf"
            );
            frame.is_lent |= is_lent;
            check_page(frame, at, coherence);
        }
    }

    pub(super) fn note(&mut self, place: Place, old: u64, new: u64, at: usize) {
        match (old & VALID != 0, new & VALID != 0) {
            (true, false) => drop(self.broken.insert(place, (old, at))),
            (false, false) => {}
            (_, true) => drop(self.broken.remove(&place)),
        }
        if new & 3 == 3 && place.level < 3 {
            let below = Place {
                level: place.level + 1,
                ipa: place.ipa,
            };
            self.tables.insert(output_address(new), below);
        }
    }
}

fn check_leaf(leaf: u64, coherence: &Coherence) {
    assert_eq!(leaf & !ALLOWED, 0, "reserved bits in {leaf:#x}");
    assert!(leaf & AF != 0, "the access flag is set from the start");
    assert!(
        matches!(leaf >> 53 & 3, 0b00 | 0b10),
        "an XN that needs FEAT_XNX"
    );
    if leaf >> 2 & 0xf != 1 {
        assert_eq!(leaf >> 8 & 3, 3, "RAM is Inner Shareable");
        let write_back = if coherence.fwb { 0b0110 } else { 0b1111 };
        assert_eq!(leaf >> 2 & 0xf, write_back, "RAM is Write-Back");
    }
}

fn pages(memory: PaRange) -> impl Iterator<Item = Pa> {
    (memory.start.raw()..memory.end().raw())
        .step_by(PAGE_SIZE as usize)
        .map(Pa::new)
}

/// What a page must be before a guest sees it for the first time.
fn check_page(frame: &mut Frame, at: Pa, coherence: &Coherence) {
    assert!(
        coherence.fwb || frame.poc == State::Clean,
        "{at} is not clean to the point of coherency: {:?}",
        frame.poc
    );
    if frame.is_lent {
        return;
    }
    assert!(!frame.is_guests, "{at} is mapped twice");
    assert!(
        frame.is_prepared,
        "{at} was not zeroed or copied before a guest sees it"
    );
    (frame.is_guests, frame.is_prepared) = (true, false);
}

/// A block became a table: its parts translate as it did.
fn check_split(place: Place, block: u64, table: u64, frames: &Frames) {
    assert_eq!(
        table & !ADDRESS,
        3,
        "a table descriptor carries nothing else"
    );
    let frame = frames.get(Pa::new(output_address(table)));
    let below = place.level + 1;
    for n in 0..512 {
        let page = if below == 3 { TABLE_OR_PAGE } else { 0 };
        let part = (block | page) + n as u64 * span(below);
        assert_eq!(frame.load(n), part, "part {n} of a block that is split");
    }
}

fn check_executable(frames: &Frames, memory: PaRange, coherence: &Coherence) {
    for at in pages(memory) {
        let frame = frames.get(at);
        assert!(
            coherence.idc || frame.pou == State::Clean,
            "X before {at} is clean to the point of unification: {:?}",
            frame.pou
        );
        assert!(
            coherence.dic || frame.icache == State::Clean,
            "X before the I-cache is coherent with {at}: {:?}",
            frame.icache
        );
    }
}

/// Between a break and the make that follows: the whole broadcast sequence, and nothing weaker.
fn check_broken(place: Place, log: &[Op]) {
    let ipa = Ipa::new(place.ipa);
    let start = |ipa: &Ipa| Ipa::new(ipa.raw() & !(span(place.level) - 1));
    let sequence = [
        Op::Dsb(Dsb::IshSt),
        Op::Tlbi(Tlbi::Ipas2e1Is(ipa, Ttl::ANY)),
        Op::Dsb(Dsb::Ish),
        Op::Tlbi(Tlbi::Vmalle1Is),
        Op::Dsb(Dsb::Ish),
        Op::Tlbi(Tlbi::RepeatVale2Is),
        Op::Dsb(Dsb::Ish),
        Op::Isb,
    ];
    let is_ours = |op: &&Op| matches!(op, Op::Dsb(_) | Op::Isb | Op::Tlbi(_));
    let by_page = |op: &Op| match op {
        Op::Tlbi(Tlbi::Ipas2e1Is(ipa, _)) => Op::Tlbi(Tlbi::Ipas2e1Is(start(ipa), Ttl::ANY)),
        op => *op,
    };
    let done: Vec<Op> = log.iter().filter(is_ours).map(by_page).collect();
    // Where several are broken, everything of the VM may go instead.
    let everything = [
        Op::Dsb(Dsb::IshSt),
        Op::Tlbi(Tlbi::Vmalls12e1Is),
        Op::Dsb(Dsb::Ish),
        Op::Tlbi(Tlbi::RepeatVale2Is),
        Op::Dsb(Dsb::Ish),
        Op::Isb,
    ];
    assert!(
        done.starts_with(&sequence) || done.starts_with(&everything),
        "between break and make: {done:?}"
    );
}

/// Stores to tables that a walk may still miss.
#[derive(Default)]
pub(super) struct Writer {
    cpus: [Stores; 2],
}

#[derive(Default)]
struct Stores {
    /// Not seen by this CPU's own walks.
    unseen_here: bool,
    /// New descriptors that another CPU's walks may miss.
    unseen_elsewhere: bool,
}

impl Writer {
    pub(super) fn note(&mut self, cpu: usize, _ipa: u64, was_valid: bool, _is_valid: bool) {
        let stores = &mut self.cpus[cpu];
        stores.unseen_here = true;
        // More rights in place: others that miss them fault and look for themselves.
        stores.unseen_elsewhere |= !was_valid;
    }

    pub(super) fn dsb(&mut self, cpu: usize, kind: Dsb) {
        let stores = &mut self.cpus[cpu];
        stores.unseen_here = false;
        stores.unseen_elsewhere &= !matches!(kind, Dsb::IshSt | Dsb::Ish | Dsb::Sy);
    }

    pub(super) fn unseen_by_walkers(&self, cpu: usize) -> bool {
        self.cpus[cpu].unseen_here
    }

    pub(super) fn check_entry(&self, cpu: usize) {
        let stores = &self.cpus[cpu];
        assert!(
            !stores.unseen_here && !stores.unseen_elsewhere,
            "a DSB follows a store to a table before the guest runs"
        );
    }
}
