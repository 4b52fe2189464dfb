//! What a CPU of the model can be told to do. A history is a list of these; it is printed as Rust and read as it is.

use super::guest::Access;
use super::rng::Rng;
use super::setup::{RAM_PAGES, Setup, WINDOW_PAGES};
use super::world::VMS;

/// One thing to do: for a VM, on a page or on pages `first` to `first + count - 1` of its RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// A guest's access.
    Guest(usize, u64, Access),
    /// A guest writes code, maintains its caches, and runs it.
    WriteAndRun(usize, u64),
    /// The guest turns its caches off, or on again.
    Caches(usize),
    /// The CPU's other vCPU of the VM takes its place.
    Switch(usize),
    /// A guest's access to the device behind its window.
    Window(usize, u64, Access),
    Unmap(usize, u64, u64),
    /// With at most these rights left: R, W, X as bits 0 to 2.
    Protect(usize, u64, u64, u8),
    WriteProtect(usize, u64, u64),
    Age(usize, u64, u64),
    /// Down to pages.
    Split(usize, u64, u64),
    Coalesce(usize),
    /// Puts another page behind one.
    Replace(usize, u64),
    /// Maps the block of 2 MiB that holds the page, if nothing is there; with X or without.
    MapBlock(usize, u64, bool),
    /// The leaf that the page has must be of this level.
    Expect(usize, u64, u8),
    StartLog(usize),
    Harvest(usize),
    StopLog(usize),
    /// Leaves the pool so many pages.
    Starve(usize),
    Feed,
    /// The CPU has nothing to do and zeroes pages ahead.
    Idle,
    /// Ends the VM, if nobody is busy with it, and makes it anew.
    Recreate(usize),
}

/// Pages that are touched: neighbours, those at the same virtual address of two vCPUs, both sides of a table's end, and the
/// last.
const PAGES: [u64; 9] = [0, 1, 2, 3, 16, 511, 512, 513, 1023];
const RANGES: [(u64, u64); 7] = [
    (0, 1),
    (0, 3),
    (1, 1),
    (510, 4),
    (512, 512),
    (0, 512),
    (0, RAM_PAGES),
];

impl Action {
    pub(super) fn random(rng: &mut Rng, setup: &Setup) -> Self {
        let vm = if rng.one_in(5) { rng.below(VMS) } else { 0 };
        let page = if rng.one_in(8) {
            rng.next() % RAM_PAGES
        } else {
            rng.pick(&PAGES)
        };
        let (first, count) = rng.pick(&RANGES);
        match rng.below(68) {
            0..=8 => Self::Guest(vm, page, Access::Read),
            9..=18 => Self::Guest(vm, page, Access::Write),
            19..=28 => Self::Guest(vm, page, Access::Fetch),
            29..=31 => Self::Guest(vm, page, Access::Maintain),
            32..=33 => Self::Guest(vm, page, Access::WalkUpdate),
            34..=36 => Self::WriteAndRun(vm, page),
            37 if setup.caches_off == 2 => Self::Caches(vm),
            37..=41 => Self::Unmap(vm, first, count),
            42..=45 => Self::Protect(vm, first, count, rng.below(8) as u8),
            46 => Self::WriteProtect(vm, first, count),
            47..=48 => Self::Age(vm, first, count),
            49..=50 => Self::Split(vm, first, count),
            51..=52 => Self::Coalesce(vm),
            53 => Self::Idle,
            54 => Self::Replace(vm, page),
            55..=56 => Self::MapBlock(vm, page, rng.one_in(2)),
            57 => Self::StartLog(vm),
            58..=59 => Self::Harvest(vm),
            60 => Self::StopLog(vm),
            61 => Self::Starve(rng.below(5)),
            62 => Self::Feed,
            63 => Self::Recreate(vm),
            64..=66 => Self::Switch(vm),
            _ => Self::Window(
                vm,
                rng.next() % WINDOW_PAGES,
                rng.pick(&[Access::Read, Access::Write, Access::Fetch]),
            ),
        }
    }
}
