//! All of RAM, in chunks of 2 MiB.
//!
//! As long as nobody has looked at a page of a chunk alone, whatever became of one of its pages became of all, and one frame
//! stands for them. So a block of 1 GiB costs 512 frames and not 262,144.

use std::boxed::Box;
use std::vec::Vec;

use super::memory::{Frame, LINES, Line};
use crate::addr::PAGE_SIZE;

/// What a module holds, and the number of the page.
const MODULE: u64 = 0x0d00_0000;
const CHUNK_PAGES: u64 = 512;
const CHUNK: u64 = CHUNK_PAGES * PAGE_SIZE;

enum Chunk {
    /// All pages of it.
    Alike(Box<Frame>),
    /// Each of its pages.
    Apart(Vec<Frame>),
}

impl Chunk {
    /// Each page for itself.
    fn apart(&mut self) -> &mut Vec<Frame> {
        if let Self::Alike(all) = self {
            *self = Self::Apart(std::vec![(**all).clone(); CHUNK_PAGES as usize]);
        }
        match self {
            Self::Apart(frames) => frames,
            Self::Alike(_) => unreachable!("it was taken apart"),
        }
    }
}

/// All of RAM.
pub(super) struct Ram {
    pub(super) start: u64,
    chunks: Vec<Chunk>,
}

/// A part of memory that is treated as one: where it lies, and its size.
type Part = (u64, u64);

impl Ram {
    /// `chunks` of memory from `start` on, then a module of one chunk whose bytes are in the caches and nowhere else.
    pub(super) fn new(start: u64, chunks: u64) -> Self {
        let chunk = |_| Chunk::Alike(Box::new(Frame::new()));
        let mut module = Chunk::Alike(Box::new(Frame::new()));
        for (n, frame) in module.apart().iter_mut().enumerate() {
            frame.lend(MODULE + n as u64);
        }
        let chunks = (0..chunks).map(chunk).chain([module]).collect();
        Self { start, chunks }
    }

    /// Its size, the module's included.
    pub(super) const fn size(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK
    }

    pub(super) const fn holds(&self, pa: u64) -> bool {
        pa >= self.start && pa - self.start < self.size()
    }

    /// The chunk that `pa` lies in, and the page's number in it.
    fn place(&self, pa: u64) -> (usize, usize) {
        assert!(self.holds(pa), "{pa:#x} is not RAM");
        let page = (pa - self.start) / PAGE_SIZE;
        ((page / CHUNK_PAGES) as usize, (page % CHUNK_PAGES) as usize)
    }

    /// The page at `pa`, or what stands for it.
    pub(super) fn frame(&self, pa: u64) -> &Frame {
        let (chunk, page) = self.place(pa);
        match &self.chunks[chunk] {
            Chunk::Alike(all) => all,
            Chunk::Apart(frames) => &frames[page],
        }
    }

    /// The page at `pa`, which is like no other from now on.
    pub(super) fn frame_mut(&mut self, pa: u64) -> &mut Frame {
        let (chunk, page) = self.place(pa);
        &mut self.chunks[chunk].apart()[page]
    }

    /// The page at `pa`, or all pages that are like it: for what may happen to all of them as well.
    pub(super) fn any_mut(&mut self, pa: u64) -> &mut Frame {
        let (chunk, page) = self.place(pa);
        match &mut self.chunks[chunk] {
            Chunk::Alike(all) => all,
            Chunk::Apart(frames) => &mut frames[page],
        }
    }

    /// Hands each page that `[start, start + size)` lies in to `change`, with its address and how much of it that is; all pages
    /// of a chunk at once where they are alike.
    pub(super) fn change(
        &mut self,
        start: u64,
        size: u64,
        mut change: impl FnMut(&mut Frame, Part),
    ) {
        let end = start + size;
        let mut at = start & !(PAGE_SIZE - 1);
        while at < end {
            let (chunk, page) = self.place(at);
            let is_whole = page == 0 && at + CHUNK <= end;
            let part = match &mut self.chunks[chunk] {
                Chunk::Alike(all) if is_whole => {
                    change(all, (at, CHUNK));
                    CHUNK
                }
                chunk => {
                    change(&mut chunk.apart()[page], (at, PAGE_SIZE));
                    PAGE_SIZE
                }
            };
            at += part;
        }
    }

    /// The parts of `[start, start + size)` that are alike, or pages.
    pub(super) fn parts(&self, start: u64, size: u64) -> impl Iterator<Item = (Part, &Frame)> {
        let end = start + size;
        let mut at = start & !(PAGE_SIZE - 1);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (chunk, page) = self.place(at);
            let here = at;
            Some(match &self.chunks[chunk] {
                Chunk::Alike(all) => {
                    at = (at - page as u64 * PAGE_SIZE + CHUNK).min(end);
                    ((here, at - here), &**all)
                }
                Chunk::Apart(frames) => {
                    at += PAGE_SIZE;
                    ((here, PAGE_SIZE), &frames[page])
                }
            })
        })
    }

    /// Hands the lines that lie in `[start, start + size)` as a whole to `change`.
    pub(super) fn change_lines(
        &mut self,
        start: u64,
        size: u64,
        mut change: impl FnMut(&mut Line),
    ) {
        self.change(start, size, |frame, (page, _)| {
            for (line, offset) in frame.lines.iter_mut().zip(LINES) {
                if is_inside(page + offset, start, size) {
                    change(line);
                }
            }
        });
    }
}

/// Whether the line at `line` lies in `[start, start + size)` as a whole.
pub(super) const fn is_inside(line: u64, start: u64, size: u64) -> bool {
    line >= start && line + 64 <= start + size
}
