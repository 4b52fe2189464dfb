//! One chunk of 2 MiB cut into pages: a bitmap of the free ones.

/// log2 of a chunk's size in bytes: 2 MiB, the size of a level-2 block.
pub(super) const CHUNK_SHIFT: u32 = 21;
/// Pages in a chunk.
pub(super) const CHUNK_PAGES: usize = 512;

const WORDS: usize = CHUNK_PAGES / 64;

/// Which pages of a chunk are free.
pub(super) struct Chunk {
    free: [u64; WORDS],
    free_count: u16,
    /// Pages that are the pool's at all: 512, or fewer at the edge of RAM.
    own_count: u16,
    /// In the buddy allocator, not cut.
    is_closed: bool,
}

impl Chunk {
    /// All of a chunk, kept whole by the buddy allocator until it is opened.
    pub(super) const fn whole() -> Self {
        Self {
            free: [0; WORDS],
            free_count: 0,
            own_count: CHUNK_PAGES as u16,
            is_closed: true,
        }
    }

    /// `count` pages from page `first` on: the edge of RAM, cut from the start.
    pub(super) fn part(first: usize, count: usize) -> Self {
        let mut chunk = Self {
            free: [0; WORDS],
            free_count: 0,
            own_count: count as u16,
            is_closed: false,
        };
        (first..first + count).for_each(|page| chunk.set(page, true));
        chunk.free_count = count as u16;
        chunk
    }

    /// Takes in the pages of another part of the same chunk.
    pub(super) fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.free.iter_mut().zip(other.free) {
            assert!(*mine & theirs == 0, "RAM is added once");
            *mine |= theirs;
        }
        self.free_count += other.free_count;
        self.own_count += other.own_count;
    }

    pub(super) fn open(&mut self) {
        self.free = [u64::MAX; WORDS];
        self.free_count = CHUNK_PAGES as u16;
        self.is_closed = false;
    }

    /// All pages are taken at once: by a block.
    pub(super) fn take_whole(&mut self) {
        self.is_closed = false;
    }

    /// All pages come back at once.
    ///
    /// # Panics
    /// If one of them is free already.
    pub(super) fn give_whole(&mut self) {
        assert!(
            !self.is_closed && self.free_count == 0 && usize::from(self.own_count) == CHUNK_PAGES,
            "a block is given back once"
        );
        self.is_closed = true;
    }

    pub(super) fn close(&mut self) {
        self.free = [0; WORDS];
        self.free_count = 0;
        self.is_closed = true;
    }

    pub(super) fn is_partly_free(&self) -> bool {
        self.free_count != 0
    }

    /// Whether it could go back to the buddy allocator, which keeps whole chunks only.
    pub(super) fn is_whole_again(&self) -> bool {
        usize::from(self.own_count) == CHUNK_PAGES && self.free_count == self.own_count
    }

    pub(super) fn has_run(&self, count: usize) -> bool {
        self.find(count).is_some()
    }

    /// Takes an aligned run of `count` free pages and answers its first.
    pub(super) fn take(&mut self, count: usize) -> Option<usize> {
        let first = self.find(count)?;
        (first..first + count).for_each(|page| self.set(page, false));
        self.free_count -= count as u16;
        Some(first)
    }

    /// Takes free pages that lie near one another, at most so many, and hands them to `each` from the lowest on. Answers how
    /// many there were; 0 only if no page is free.
    pub(super) fn take_some(&mut self, most: usize, mut each: impl FnMut(usize)) -> usize {
        let mut words = self.free.iter_mut().enumerate();
        let Some((n, word)) = words.find(|(_, word)| **word != 0) else {
            return 0;
        };
        let mut taken = 0;
        while *word != 0 && taken < most {
            each(n * 64 + word.trailing_zeros() as usize);
            *word &= *word - 1;
            taken += 1;
        }
        self.free_count -= taken as u16;
        taken
    }

    /// # Panics
    /// If the page is free already.
    pub(super) fn give(&mut self, page: usize) {
        assert!(
            !self.is_closed && !self.is_free(page),
            "a page is given back once"
        );
        self.set(page, true);
        self.free_count += 1;
    }

    fn find(&self, count: usize) -> Option<usize> {
        if count == 1 {
            let word = self.free.iter().position(|word| *word != 0)?;
            return Some(word * 64 + self.free[word].trailing_zeros() as usize);
        }
        (0..CHUNK_PAGES)
            .step_by(count)
            .find(|first| (*first..first + count).all(|page| self.is_free(page)))
    }

    fn is_free(&self, page: usize) -> bool {
        self.free[page / 64] >> (page % 64) & 1 == 1
    }

    fn set(&mut self, page: usize, free: bool) {
        let bit = 1 << (page % 64);
        if free {
            self.free[page / 64] |= bit;
        } else {
            self.free[page / 64] &= !bit;
        }
    }
}

#[cfg(test)]
impl Chunk {
    /// Whether it is one of the chunk's pages that were taken; of an edge chunk, pages outside RAM count as taken.
    pub(super) fn is_taken(&self, page: usize) -> bool {
        !self.is_closed && !self.is_free(page)
    }
}
