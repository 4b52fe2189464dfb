//! The free RAM itself, behind the pool's lock: whole chunks lie with the buddy allocator, single pages and windows are cut from
//! an open one.

use alloc::vec::Vec;

use buddy_system_allocator::FrameAllocator;

use super::Account;
use super::chunk::{CHUNK_PAGES, CHUNK_SHIFT, Chunk};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pa, PaRange};

/// log2 of the largest run of chunks the buddy allocator keeps together: 2^19 chunks of 2 MiB are 1 TiB.
const CHUNK_ORDERS: usize = 20;

#[derive(Default)]
pub(super) struct Free {
    frames: FrameAllocator<CHUNK_ORDERS>,
    banks: Vec<Bank>,
    /// Chunk in use for single pages; `None` before the first and after it ran empty.
    open: Option<(usize, usize)>,
    pub(super) account: Account,
    /// Chunks that the buddy allocator has.
    pub(super) whole_chunks: u64,
}

/// The chunks that cover one range of RAM.
struct Bank {
    first_chunk: u64,
    chunks: Vec<Chunk>,
}

impl Free {
    /// Adds the whole pages inside `range`.
    pub(super) fn add(&mut self, range: PaRange) {
        let Some(first) = range.start.align_up(PAGE_SIZE) else {
            return;
        };
        let end = range.end().page();
        let Some(bytes) = end.offset_from(first).filter(|bytes| *bytes != 0) else {
            return;
        };
        let first_chunk = first.raw() >> CHUNK_SHIFT;
        let last_chunk = (end.raw() - 1) >> CHUNK_SHIFT;
        let mut bank = Bank {
            first_chunk,
            // Once, and no larger than it has to be: the heap it lies on is small.
            chunks: Vec::with_capacity((last_chunk - first_chunk + 1) as usize),
        };
        let mut whole: Option<(u64, u64)> = None;
        for number in first_chunk..=last_chunk {
            let start = (number << CHUNK_SHIFT).max(first.raw());
            let stop = ((number + 1) << CHUNK_SHIFT).min(end.raw());
            if stop - start == 1 << CHUNK_SHIFT {
                bank.chunks.push(Chunk::whole());
                whole = Some((whole.map_or(number, |(first, _)| first), number + 1));
            } else {
                let page = (start >> PAGE_SHIFT) as usize % CHUNK_PAGES;
                bank.chunks
                    .push(Chunk::part(page, ((stop - start) >> PAGE_SHIFT) as usize));
            }
        }
        if let Some((first, end)) = whole {
            // In one go: the allocator joins neighbours only when they come back, and 1 GiB is 512 of them.
            let frame = |number| usize::try_from(number).expect("chunk numbers fit a usize");
            self.frames.insert(frame(first)..frame(end));
            self.whole_chunks += end - first;
        }
        self.add_bank(bank);
        self.account.total += bytes / PAGE_SIZE;
    }

    fn add_bank(&mut self, bank: Bank) {
        // Two ranges may meet inside one chunk (a hole in RAM smaller than 2 MiB): then the chunk takes both parts.
        let mut bank = bank;
        for known in &mut self.banks {
            let last = known.first_chunk + known.chunks.len() as u64;
            if bank.first_chunk < last
                && known.first_chunk < bank.first_chunk + bank.chunks.len() as u64
            {
                assert!(
                    bank.first_chunk + 1 == last,
                    "RAM is added in ascending order and only once"
                );
                known
                    .chunks
                    .last_mut()
                    .expect("a bank has chunks")
                    .join(&bank.chunks.remove(0));
                bank.first_chunk += 1;
            }
        }
        if !bank.chunks.is_empty() {
            self.banks.push(bank);
        }
    }

    pub(super) fn take(&mut self, count: usize) -> Option<Pa> {
        let found = self.take_from_open(count).or_else(|| {
            self.open = self.open_chunk(count);
            self.take_from_open(count)
        })?;
        self.note_taken(count);
        Some(found)
    }

    fn take_from_open(&mut self, count: usize) -> Option<Pa> {
        let (bank, index) = self.open?;
        let bank = &mut self.banks[bank];
        let page = bank.chunks[index].take(count)?;
        let base = (bank.first_chunk + index as u64) << CHUNK_SHIFT;
        Some(Pa::new(base + page as u64 * PAGE_SIZE))
    }

    /// Takes `most` pages, or as many as there are, and hands them to `each` in the order in which they lie in their chunk.
    pub(super) fn take_some(&mut self, most: usize, mut each: impl FnMut(Pa)) {
        let mut left = most;
        while left != 0 {
            let Some((bank, index)) = self.open.or_else(|| self.open_chunk(1)) else {
                break;
            };
            let bank_chunks = &mut self.banks[bank];
            let base = Pa::new((bank_chunks.first_chunk + index as u64) << CHUNK_SHIFT);
            let page_at = |page: usize| base.add(page as u64 * PAGE_SIZE);
            let taken = bank_chunks.chunks[index].take_some(left, |page| each(page_at(page)));
            self.open = (taken != 0).then_some((bank, index));
            left -= taken;
        }
        self.note_taken(most - left);
    }

    /// A chunk that is in part free, else a whole one from the buddy allocator.
    fn open_chunk(&mut self, count: usize) -> Option<(usize, usize)> {
        for (b, bank) in self.banks.iter().enumerate() {
            for (c, chunk) in bank.chunks.iter().enumerate() {
                if chunk.is_partly_free() && chunk.has_run(count) {
                    return Some((b, c));
                }
            }
        }
        let number = self.frames.alloc(1)? as u64;
        self.whole_chunks -= 1;
        let place = self.place(number)?;
        self.banks[place.0].chunks[place.1].open();
        Some(place)
    }

    fn place(&self, chunk: u64) -> Option<(usize, usize)> {
        self.banks.iter().enumerate().find_map(|(b, bank)| {
            let index = usize::try_from(chunk.checked_sub(bank.first_chunk)?).ok()?;
            (index < bank.chunks.len()).then_some((b, index))
        })
    }

    pub(super) fn give(&mut self, pa: Pa) {
        let number = pa.raw() >> CHUNK_SHIFT;
        let place = self
            .place(number)
            .expect("a page given back lies in the pool's RAM");
        let chunk = &mut self.banks[place.0].chunks[place.1];
        chunk.give((pa.raw() >> PAGE_SHIFT) as usize % CHUNK_PAGES);
        self.account.taken -= 1;
        if chunk.is_whole_again() {
            chunk.close();
            if self.open == Some(place) {
                self.open = None;
            }
            self.put_chunks(number, 1);
        }
    }

    fn put_chunks(&mut self, number: u64, count: usize) {
        let first = usize::try_from(number).expect("chunk numbers fit a usize");
        self.frames.dealloc(first, count);
        self.whole_chunks += count as u64;
    }

    /// Takes a power of two of whole chunks in a row, aligned to their size together.
    pub(super) fn take_chunks(&mut self, count: usize) -> Option<Pa> {
        let first = self.frames.alloc(count)? as u64;
        self.whole_chunks -= count as u64;
        for number in first..first + count as u64 {
            let (bank, index) = self
                .place(number)
                .expect("the buddy allocator has chunks of the pool");
            self.banks[bank].chunks[index].take_whole();
        }
        self.note_taken(count * CHUNK_PAGES);
        Some(Pa::new(first << CHUNK_SHIFT))
    }

    pub(super) fn give_chunks(&mut self, range: PaRange) {
        let (first, count) = (range.start.raw() >> CHUNK_SHIFT, range.size >> CHUNK_SHIFT);
        for number in first..first + count {
            let (bank, index) = self
                .place(number)
                .expect("a block given back lies in the pool's RAM");
            self.banks[bank].chunks[index].give_whole();
        }
        self.account.taken -= count * CHUNK_PAGES as u64;
        self.put_chunks(first, count as usize);
    }

    /// Whether the page at `pa` is ours and out, or in a stock.
    #[cfg(test)]
    pub(super) fn is_out(&self, pa: Pa) -> bool {
        let place = self.place(pa.raw() >> CHUNK_SHIFT);
        let page = (pa.raw() >> PAGE_SHIFT) as usize % CHUNK_PAGES;
        place.is_some_and(|(bank, index)| self.banks[bank].chunks[index].is_taken(page))
    }

    fn note_taken(&mut self, pages: usize) {
        self.account.taken += pages as u64;
        self.account.peak = self.account.peak.max(self.account.taken);
    }
}
