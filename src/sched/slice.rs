//! A vCPU's time on a pCPU for which others wait.

use super::NEVER;

/// Slices per second.
const PER_SECOND: u64 = 1000;
/// The first look comes after this part of a slice.
const FIRST_LOOK: u64 = 8;

/// One slice: when it ends, and when it is looked before whether the vCPU only spins. A look comes when the time since the
/// slice began has doubled: often enough that eight CPUs of a guest that wait for each other take turns within a tick of Linux
/// (4 ms), and seldom enough to cost a vCPU that works next to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    begin: u64,
    /// From the beginning to the next look, and in all; in ticks.
    look: u64,
    length: u64,
}

impl Slice {
    /// None of the vCPU's time is counted.
    pub const ENDLESS: Self = Self {
        begin: 0,
        look: NEVER,
        length: NEVER,
    };

    /// A slice that begins at `now`, by a counter of so many ticks per second.
    #[must_use]
    pub const fn new(now: u64, ticks_per_second: u64) -> Self {
        let length = ticks_per_second / PER_SECOND;
        Self {
            begin: now,
            look: length / FIRST_LOOK,
            length,
        }
    }

    /// The moment of the next look, or of the end.
    #[must_use]
    pub const fn next_look(&self) -> u64 {
        self.begin.saturating_add(self.look)
    }

    /// That moment has come: whether the slice is over. `spins` is asked if it need not be.
    #[must_use]
    pub fn is_over(&mut self, spins: impl FnOnce() -> bool) -> bool {
        if self.look >= self.length || spins() {
            return true;
        }
        self.look = self.length.min(self.look.max(1) * 2);
        false
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_works_has_it_all_and_who_spins_is_found_at_each_look() {
        let whole = Slice::new(1000, 8_000_000);
        for spins_at in 0..=3 {
            let mut slice = whole;
            let mut looks = std::vec![slice.next_look()];
            while !slice.is_over(|| looks.len() - 1 == spins_at) {
                looks.push(slice.next_look());
            }
            let all = [2000, 3000, 5000, 9000];
            assert_eq!(looks, all[..=spins_at], "spins at look {spins_at}");
        }
    }

    #[test]
    fn a_slice_of_few_ticks_ends_too() {
        for ticks_per_second in [0, 1, 1000, 3000, 62_500] {
            let mut slice = Slice::new(5, ticks_per_second);
            let looks = (0..8).take_while(|_| !slice.is_over(|| false)).count();
            assert!(looks < 8, "{ticks_per_second}");
            assert_eq!(slice.next_look(), 5 + ticks_per_second / PER_SECOND);
        }
    }
}
