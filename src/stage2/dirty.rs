//! The dirty log: which pages of a range were written since they were last asked for.
//!
//! While a log is kept, leaves of its range have no W: the first store to a page faults, gets W for that page alone and is
//! noted, in the same passage through the gate in which W is published. Where the hardware keeps dirty state
//! (FEAT_HAFDBS), leaves are marked instead (DBM) and a store costs no fault: the hardware's note is S2AP write itself.
//! A harvest takes W away again, waits for the broadcast, and only then reads the notes (write-protect, TLBI, harvest: in
//! any other order a store between them is lost).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{Ipa, IpaRange, PAGE_SIZE};
use crate::machine::Machine;
use crate::stage2::Stage2;
use crate::stage2::descriptor::{Descriptor, Level, Rights};

/// Words of notes that are taken at once: those of 2 MiB.
const NOTES: usize = 8;

/// One bit per page of a range.
pub(super) struct DirtyLog {
    range: IpaRange,
    words: Vec<AtomicU64>,
}

/// Why no log can be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogError {
    /// A log is kept already.
    Kept,
    /// The range is not whole pages inside the IPA space, or empty.
    NotPages,
    /// The byte heap has no room for a bit per page.
    OutOfMemory,
}

impl DirtyLog {
    fn new(range: IpaRange) -> Result<Self, LogError> {
        let count = (range.size / PAGE_SIZE).div_ceil(64);
        let count = usize::try_from(count).map_err(|_| LogError::OutOfMemory)?;
        let mut words = Vec::new();
        words
            .try_reserve_exact(count)
            .map_err(|_| LogError::OutOfMemory)?;
        words.resize_with(count, AtomicU64::default);
        Ok(Self { range, words })
    }

    /// Notes the pages of `written` that the log covers.
    fn note(&self, written: &IpaRange) {
        let Some(part) = self.range.intersect(written) else {
            return;
        };
        let first = (part.start.raw() - self.range.start.raw()) / PAGE_SIZE;
        for page in first..first + part.size.div_ceil(PAGE_SIZE) {
            if let Some(word) = self.words.get((page / 64) as usize) {
                word.fetch_or(1 << (page % 64), Ordering::Relaxed);
            }
        }
    }
}

impl Stage2 {
    /// Notes that the guest may have written to `range`, if it has W there and a log is kept. Inside the gate, in the same
    /// passage in which W was published.
    #[inline]
    pub(super) fn note_written(&self, range: IpaRange, rights: Rights) {
        if rights.allows(Rights::WRITE) && self.is_logged_at_all() {
            self.note_in_log(range);
        }
    }

    #[cold]
    fn note_in_log(&self, range: IpaRange) {
        if let Some(log) = self.log.read().as_ref() {
            log.note(&range);
        }
    }

    /// Whether stores to `ipa` are being logged: W is then given page by page, and only when it is wanted.
    #[must_use]
    #[inline]
    pub fn is_logged(&self, ipa: Ipa) -> bool {
        self.is_logged_at_all() && self.is_in_log(ipa)
    }

    #[cold]
    fn is_in_log(&self, ipa: Ipa) -> bool {
        let log = self.log.read();
        log.as_ref().is_some_and(|log| log.range.contains(ipa))
    }

    #[inline]
    pub(super) fn is_logged_at_all(&self) -> bool {
        self.logging.load(Ordering::Relaxed)
    }

    /// Keeps a log of `range` from now on. Blocks stay whole until they are written.
    ///
    /// # Errors
    /// [`LogError`]; nothing has changed then.
    pub fn start_log<M: Machine>(&self, m: &mut M, range: IpaRange) -> Result<(), LogError> {
        if !self.holds_pages(range) {
            return Err(LogError::NotPages);
        }
        let new = DirtyLog::new(range)?;
        {
            let _changing = self.gate.close(m.cpu());
            let mut log = self.log.write();
            if log.is_some() {
                return Err(LogError::Kept);
            }
            *log = Some(new);
            self.logging.store(true, Ordering::Relaxed);
        }
        self.write_protect(m, range);
        Ok(())
    }

    /// Ends the log. Leaves keep what rights they have; W comes back by fault.
    pub fn stop_log<M: Machine>(&self, m: &mut M) {
        let _changing = self.gate.close(m.cpu());
        self.logging.store(false, Ordering::Relaxed);
        *self.log.write() = None;
    }

    /// Takes W from every leaf in `range`, so that the next store to each is noticed: by fault, or by the hardware where it
    /// keeps dirty state. A block that reaches out of the range loses W as a whole. Answers how many leaves changed.
    pub fn write_protect<M: Machine>(&self, m: &mut M, range: IpaRange) -> u64 {
        self.change(m, range, self.write_protection())
    }

    fn write_protection(&self) -> impl Fn(Descriptor, Level) -> Descriptor + use<> {
        let by_hardware = self.config().mmu.dirty_state;
        move |leaf, level| {
            // What the guest may not write now, the hardware must not let it write.
            let is_writable = leaf.rights().allows(Rights::WRITE) || leaf.tracks_writes();
            leaf.with_at_most(Rights::ALL.without(Rights::WRITE))
                // The hardware would mark a block dirty as a whole: blocks fault once and are split.
                .with_tracking(by_hardware && level.is_last() && is_writable)
        }
    }

    /// Hands every page of the log's range that was written since the last harvest to `each`, in order, and starts over.
    /// Answers how many there were; 0 without a log.
    ///
    /// Chunk by chunk: W and the notes are taken in one closing of the gate, so that no store falls in between; then the
    /// broadcast; and only then the notes are handed on.
    pub fn harvest<M: Machine>(&self, m: &mut M, mut each: impl FnMut(Ipa)) -> u64 {
        let Some(range) = self.log.read().as_ref().map(|log| log.range) else {
            return 0;
        };
        let mut count = 0;
        for first in (0..range.size / PAGE_SIZE).step_by(NOTES * 64) {
            let part = IpaRange {
                start: range.start.add(first * PAGE_SIZE),
                size: (NOTES as u64 * 64 * PAGE_SIZE).min(range.size - first * PAGE_SIZE),
            };
            for (n, mut bits) in self.take_notes(m, part, first).into_iter().enumerate() {
                while bits != 0 {
                    let page = n as u64 * 64 + u64::from(bits.trailing_zeros());
                    bits &= bits - 1;
                    count += 1;
                    each(part.start.add(page * PAGE_SIZE));
                }
            }
            m.interrupt_window();
        }
        count
    }

    /// Write-protects a part of the log's range that begins with its page number `first`, and takes its notes.
    fn take_notes<M: Machine>(&self, m: &mut M, part: IpaRange, first: u64) -> [u64; NOTES] {
        let _changing = self.gate.close(m.cpu());
        self.change_all(m, part, &self.write_protection());
        let log = self.log.read();
        let words = log.as_ref().map_or(&[][..], |log| &log.words);
        let word = |n: usize| words.get(first as usize / 64 + n);
        core::array::from_fn(|n| word(n).map_or(0, |word| word.swap(0, Ordering::Relaxed)))
    }

    /// Before a leaf loses what it says of stores: what the hardware noted in it goes to the log.
    pub(super) fn keep_dirty_state(&self, leaf: Descriptor, range: IpaRange) {
        if leaf.tracks_writes() {
            self.note_written(range, leaf.rights());
        }
    }
}
