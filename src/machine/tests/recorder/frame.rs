//! Pages of RAM with what the caches do to them.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::addr::{PAGE_SIZE, Pa, PaRange};
use crate::features::Coherence;
use crate::machine::{Dc, Dsb, Ic};

/// How far maintenance has come since the last write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing was done.
    Dirty,
    /// The operations were issued, and no DSB waited for them.
    Issued,
    /// Done.
    Clean,
}

/// A page.
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    /// Zeroed, or copied to as a whole, since it was mapped last.
    pub(super) is_prepared: bool,
    /// Lent to a guest, or a boot loader's: nobody writes it.
    pub(super) is_lent: bool,
    /// In a guest's tree: the hypervisor keeps its hands off.
    pub(super) is_guests: bool,
    /// Data, at the point of coherency.
    pub(super) poc: State,
    /// Data, at the point of unification.
    pub(super) pou: State,
    /// The instruction cache.
    pub(super) icache: State,
}

impl Frame {
    fn new() -> Self {
        Self {
            bytes: vec![0xa5; PAGE_SIZE as usize],
            is_prepared: false,
            is_lent: false,
            is_guests: false,
            poc: State::Dirty,
            pou: State::Dirty,
            icache: State::Dirty,
        }
    }

    pub(super) fn load(&self, index: usize) -> u64 {
        let at = index * 8;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    pub(super) fn store(&mut self, index: usize, value: u64) {
        let at = index * 8;
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn written(&mut self) {
        (self.poc, self.pou, self.icache) = (State::Dirty, State::Dirty, State::Dirty);
    }
}

/// All addresses there are.
const EVERYTHING: PaRange = PaRange {
    start: Pa::new(0),
    size: 1 << 48,
};

/// All of RAM, and what a boot loader left beside it.
pub(super) struct Frames {
    ram: PaRange,
    frames: BTreeMap<u64, Frame>,
    modules: Vec<(Pa, Vec<u8>)>,
    coherence: Coherence,
}

impl Frames {
    pub(super) fn new(ram: PaRange, coherence: Coherence) -> Self {
        let pages = (ram.start.raw()..ram.end().raw()).step_by(PAGE_SIZE as usize);
        Self {
            ram,
            frames: pages.map(|pa| (pa, Frame::new())).collect(),
            modules: Vec::new(),
            coherence,
        }
    }

    pub(super) fn is_ram(&self, at: Pa) -> bool {
        self.ram.contains(at)
    }

    /// Memory that a boot loader filled. Whole pages of it can be lent.
    pub(super) fn add_module(&mut self, at: Pa, bytes: Vec<u8>) {
        let first = at.align_up(PAGE_SIZE).unwrap();
        let end = at.add(bytes.len() as u64).page();
        for page in (first.raw()..end.raw()).step_by(PAGE_SIZE as usize) {
            let from = (page - at.raw()) as usize;
            let frame = Frame {
                bytes: bytes[from..from + PAGE_SIZE as usize].to_vec(),
                is_lent: true,
                ..Frame::new()
            };
            self.frames.insert(page, frame);
        }
        self.modules.push((at, bytes));
    }

    /// Whether a page that is lent, or of a module, lies here.
    pub(super) fn is_lent(&self, at: Pa) -> bool {
        let frame = self.frames.get(&at.page().raw());
        frame.is_some_and(|frame| frame.is_lent)
    }

    pub(super) fn get(&self, pa: Pa) -> &Frame {
        self.frames
            .get(&pa.page().raw())
            .unwrap_or_else(|| panic!("{pa} is not in RAM"))
    }

    pub(super) fn get_mut(&mut self, pa: Pa) -> &mut Frame {
        self.frames
            .get_mut(&pa.page().raw())
            .unwrap_or_else(|| panic!("{pa} is not in RAM"))
    }

    pub(super) fn read(&self, at: Pa, bytes: &mut [u8]) {
        if self.is_ram(at) {
            let offset = at.page_offset() as usize;
            let end = offset + bytes.len();
            assert!(end <= PAGE_SIZE as usize, "a read leaves the page at {at}");
            bytes.copy_from_slice(&self.get(at).bytes[offset..end]);
            return;
        }
        let module = self.modules.iter().find_map(|(start, module)| {
            let from = at.offset_from(*start)? as usize;
            module.get(from..from + bytes.len())
        });
        bytes.copy_from_slice(module.unwrap_or_else(|| panic!("nothing to read at {at}")));
    }

    pub(super) fn write(&mut self, at: Pa, bytes: &[u8]) {
        let (mut at, mut bytes) = (at, bytes);
        while !bytes.is_empty() {
            let offset = at.page_offset() as usize;
            let size = bytes.len().min(PAGE_SIZE as usize - offset);
            let frame = self.get_mut(at);
            assert!(!frame.is_guests, "the page at {at} is a guest's already");
            assert!(!frame.is_lent, "the page at {at} is lent");
            frame.bytes[offset..offset + size].copy_from_slice(&bytes[..size]);
            frame.is_prepared |= size == PAGE_SIZE as usize;
            frame.written();
            (at, bytes) = (at.add(size as u64), &bytes[size..]);
        }
    }

    /// A word that a guest reads in a page of its own.
    pub(super) fn tell(&mut self, at: Pa, value: u64) {
        let offset = at.page_offset() as usize;
        assert!(at.is_aligned(8), "a word at {at} is stored in two parts");
        let frame = self.get_mut(at);
        assert!(frame.is_guests, "the page at {at} is nobody's");
        frame.bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn dc(&mut self, op: Dc, range: PaRange) {
        // Maintenance of a part of a page cleans that part, which is not enough for any rule here.
        for (_, frame) in self.whole_pages(range) {
            if op == Dc::CleanInvalidateToPoc {
                frame.poc = State::Issued;
            }
            frame.pou = State::Issued;
        }
    }

    pub(super) fn ic(&mut self, op: Ic) {
        let Coherence { pipt, idc, .. } = self.coherence;
        let range = match op {
            // This PE's alone: no rule here is met by that.
            Ic::AllLocal => return,
            Ic::AllInnerShareable => EVERYTHING,
            // Under VIPT the guest's alias has another index than ours: nothing it may hold is reached.
            Ic::Range(_) if !pipt => return,
            Ic::Range(range) => range,
        };
        for (_, frame) in self.whole_pages(range) {
            // A line invalidated before its data is at the point of unification may be fetched stale again at once.
            if idc || frame.pou == State::Clean {
                frame.icache = State::Issued;
            }
        }
    }

    pub(super) fn dsb(&mut self, kind: Dsb) {
        if !matches!(kind, Dsb::Ish | Dsb::Sy) {
            return;
        }
        let done = |state: &mut State| {
            if *state == State::Issued {
                *state = State::Clean;
            }
        };
        for frame in self.frames.values_mut() {
            if kind == Dsb::Sy {
                done(&mut frame.poc);
            }
            done(&mut frame.pou);
            done(&mut frame.icache);
        }
    }

    pub(super) fn check_entry(&self) {
        for (pa, frame) in &self.frames {
            assert!(
                [frame.poc, frame.pou, frame.icache]
                    .iter()
                    .all(|state| *state != State::Issued),
                "cache maintenance of {pa:#x} was never waited for"
            );
        }
    }

    fn whole_pages(&mut self, range: PaRange) -> impl Iterator<Item = (&u64, &mut Frame)> {
        let start = range.start.align_up(PAGE_SIZE).unwrap().raw();
        let end = range.end().page().raw().max(start);
        self.frames.range_mut(start..end)
    }
}
