//! Physical memory with an owner for every page, and what the caches hold of it.
//!
//! Of a page's data two lines are kept, the first and the last: enough to see a page that was maintained in part. Each
//! line has three places: the data cache, the point of unification (from where the I-cache is filled), and memory, the
//! point of coherency, which is all that an access with its caches off sees. Lines are written back, evicted and fetched
//! at any moment. Data caches are coherent with each other, as the architecture has them in one shareability domain.

use std::boxed::Box;
use std::vec::Vec;

use crate::addr::PAGE_SIZE;

/// Where the lines that are kept begin.
pub(super) const LINES: [u64; 2] = [0, PAGE_SIZE - 64];
/// What RAM holds before anybody wrote to it: nobody is entitled to see it.
const GARBAGE: u64 = 0xdead_dead;
#[derive(Clone, Copy)]
struct Copy {
    value: u64,
    is_dirty: bool,
}

/// One line of memory.
#[derive(Clone, Copy)]
pub(super) struct Line {
    data: Option<Copy>,
    unified: Option<Copy>,
    memory: u64,
}

impl Line {
    /// What a cacheable load sees. The line is in the cache then.
    pub(super) fn load(&mut self) -> u64 {
        let value = self.current();
        self.data.get_or_insert(Copy {
            value,
            is_dirty: false,
        });
        value
    }

    /// What a cacheable load would see.
    pub(super) fn current(&self) -> u64 {
        let cached = self.data.or(self.unified);
        cached.map_or(self.memory, |copy| copy.value)
    }

    /// What is at the point of coherency.
    pub(super) const fn at_coherency(&self) -> u64 {
        self.memory
    }

    /// What an instruction fetch sees that misses its cache.
    pub(super) fn at_unification(&self, idc: bool) -> u64 {
        if idc {
            return self.current();
        }
        self.unified.map_or(self.memory, |copy| copy.value)
    }

    pub(super) const fn store(&mut self, value: u64) {
        self.data = Some(Copy {
            value,
            is_dirty: true,
        });
    }

    /// A store past the caches: what they hold stays.
    pub(super) const fn store_uncached(&mut self, value: u64) {
        self.memory = value;
    }

    pub(super) const fn clean_to_unification(&mut self) {
        if let Some(Copy { value, is_dirty }) = self.data
            && is_dirty
        {
            self.unified = Some(Copy { value, is_dirty });
            self.data = Some(Copy {
                value,
                is_dirty: false,
            });
        }
    }

    pub(super) const fn clean_and_invalidate(&mut self) {
        self.clean_to_unification();
        if let Some(Copy {
            value,
            is_dirty: true,
        }) = self.unified
        {
            self.memory = value;
        }
        (self.data, self.unified) = (None, None);
    }

    /// What a cache may do by itself at any moment.
    pub(super) fn disturb(&mut self, how: usize) {
        match how {
            0 => self.clean_to_unification(),
            1 => self.clean_and_invalidate(),
            2 => {
                if !self.data.is_some_and(|copy| copy.is_dirty) {
                    self.data = None;
                }
            }
            _ => {
                self.load();
            }
        }
    }
}

/// Whose a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// The pool's, or in the hypervisor's hands.
    Hypervisor,
    /// A boot loader's module: guests may look at it, and nobody writes it.
    Module,
    /// A table of a tree, for what starts at `ipa`, its descriptors of `level`.
    Table { tree: usize, level: u8, ipa: u64 },
    /// A table that was unlinked.
    Unlinked { tree: usize, level: u8, ipa: u64 },
    /// Mapped: what lies at `pa` is at the IPA `pa + shift`.
    Guest { tree: usize, shift: u64 },
    /// It was mapped so; TLBs may still hold it.
    Leaving { tree: usize, shift: u64 },
}

impl Owner {
    /// The guest's of `tree`, which has at `ipa` what lies at `pa`.
    pub(super) const fn guest(tree: usize, ipa: u64, pa: u64) -> Self {
        let shift = ipa.wrapping_sub(pa);
        Self::Guest { tree, shift }
    }

    /// It was taken out of a tree, and may be free.
    pub(super) const fn is_gone(self) -> bool {
        matches!(self, Self::Leaving { .. } | Self::Unlinked { .. })
    }

    /// Whether it is what `tree` has, or had, at `ipa`, for the page at `pa`.
    pub(super) fn is_behind(self, tree: usize, ipa: u64, pa: u64) -> bool {
        let was = ipa.wrapping_sub(pa);
        matches!(self, Self::Guest { tree: of, shift } | Self::Leaving { tree: of, shift } if (of, shift) == (tree, was))
    }
}

/// What a guest may see of a line: everything that was written to it since the page became the guest's.
#[derive(Clone, Default, Debug)]
pub(super) struct History {
    values: Vec<u64>,
    /// Instruction fetches see this one or a later one: the guest did its own maintenance after it was written.
    fetch_from: usize,
    /// Accessed with caches on, with caches off.
    modes: [bool; 2],
}

impl History {
    fn begin(value: u64) -> Self {
        Self {
            values: std::vec![value],
            ..Self::default()
        }
    }

    pub(super) fn note_mode(&mut self, is_cached: bool) {
        self.modes[usize::from(is_cached)] = true;
    }

    fn is_mixed(&self) -> bool {
        self.modes == [true, true]
    }

    pub(super) fn wrote(&mut self, value: u64) {
        self.values.push(value);
    }

    /// The guest cleaned to the point of unification and invalidated the I-cache.
    pub(super) fn maintained(&mut self) {
        if !self.is_mixed() {
            self.fetch_from = self.values.len() - 1;
        }
    }

    /// Whether a load may see `value`. A guest that mixes cached and uncached accesses may see whatever it wrote.
    pub(super) fn may_load(&self, value: u64) -> bool {
        if self.is_mixed() {
            self.values.contains(&value)
        } else {
            self.values.last() == Some(&value)
        }
    }

    /// Whether `value` is this owner's at all.
    pub(super) fn holds(&self, value: u64) -> bool {
        self.values.contains(&value)
    }

    pub(super) fn may_fetch(&self, value: u64) -> bool {
        let from = if self.is_mixed() { 0 } else { self.fetch_from };
        self.values[from..].contains(&value)
    }
}

/// A page, or one for all pages of a chunk that are alike.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) owner: Owner,
    pub(super) table: Option<Box<[u64; 512]>>,
    pub(super) lines: [Line; 2],
    /// Zeroed since it was a guest's last.
    pub(super) is_prepared: bool,
    /// How often it became a guest's.
    pub(super) tenancy: u32,
    pub(super) histories: [History; 2],
}

impl Frame {
    pub(super) fn new() -> Self {
        let garbage = Line {
            data: None,
            unified: None,
            memory: GARBAGE,
        };
        Self {
            owner: Owner::Hypervisor,
            table: None,
            lines: [garbage; 2],
            is_prepared: false,
            tenancy: 0,
            histories: Default::default(),
        }
    }

    /// A module's, which is in the caches and nowhere else.
    pub(super) fn lend(&mut self, value: u64) {
        self.owner = Owner::Module;
        for (line, history) in self.lines.iter_mut().zip(&mut self.histories) {
            line.store(value);
            *history = History::begin(value);
        }
    }

    /// From here on a guest owns it, and is entitled to what is in it now.
    pub(super) fn begin_tenancy(&mut self, owner: Owner) {
        self.owner = owner;
        self.tenancy += 1;
        self.is_prepared = false;
        for (history, line) in self.histories.iter_mut().zip(&self.lines) {
            *history = History::begin(line.current());
        }
    }

    /// Nobody's any more.
    pub(super) fn release(&mut self) {
        (self.owner, self.is_prepared, self.table) = (Owner::Hypervisor, false, None);
    }

    pub(super) fn descriptor(&self, index: usize) -> u64 {
        self.table.as_ref().map_or(0, |table| table[index])
    }

    pub(super) fn set_descriptor(&mut self, index: usize, value: u64) {
        self.table.get_or_insert_with(|| Box::new([0; 512]))[index] = value;
    }
}
