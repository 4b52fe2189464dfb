//! The moments at which something must be done, of one pCPU: a small set with its own room, for one hardware timer.

use alloc::vec::Vec;

/// A moment that does not come.
pub const NEVER: u64 = u64::MAX;

/// When a timer fires whose count is `offset` behind the physical counter (`CNTVOFF_EL2`), in ticks of that: a `compare` that the
/// guest never reaches is [`NEVER`].
#[must_use]
pub const fn deadline(compare: u64, offset: u64) -> u64 {
    compare.saturating_add(offset)
}

/// Deadlines by key, in ticks of the physical counter.
pub struct Deadlines<K> {
    entries: Vec<(K, u64)>,
    earliest: u64,
}

impl<K: PartialEq + Clone> Deadlines<K> {
    /// None yet, with room for `count`: no more is ever kept.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            entries: Vec::with_capacity(count),
            earliest: NEVER,
        }
    }

    /// Sets the moment for `key`; [`NEVER`] forgets it. Without room nothing is kept and the answer is `false`.
    #[inline]
    pub fn set(&mut self, key: &K, at: u64) -> bool {
        let known = self.entries.iter().position(|(other, _)| other == key);
        match known {
            Some(index) if at == NEVER => {
                self.entries.swap_remove(index);
                self.look();
            }
            Some(index) => {
                self.entries[index].1 = at;
                self.look();
            }
            None if at == NEVER => {}
            None if self.entries.len() < self.entries.capacity() => {
                self.entries.push((key.clone(), at));
                self.earliest = self.earliest.min(at);
            }
            None => return false,
        }
        true
    }

    /// The first moment of all: what the hardware timer is set to.
    #[must_use]
    pub const fn earliest(&self) -> u64 {
        self.earliest
    }

    /// Takes one key whose moment has come by `now`.
    pub fn take_due(&mut self, now: u64) -> Option<K> {
        if now < self.earliest {
            return None;
        }
        let index = self.entries.iter().position(|(_, at)| *at <= now)?;
        let (key, _) = self.entries.swap_remove(index);
        self.look();
        Some(key)
    }

    /// Forgets all keys but those that `is_wanted`.
    pub fn retain(&mut self, is_wanted: impl Fn(&K) -> bool) {
        self.entries.retain(|(key, _)| is_wanted(key));
        self.look();
    }

    fn look(&mut self) {
        self.earliest = self
            .entries
            .iter()
            .fold(NEVER, |first, (_, at)| first.min(*at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guests set a timer to the end of time to have none.
    #[test]
    fn a_comparator_at_the_end_of_time_never_fires_whatever_the_offset() {
        assert_eq!(deadline(1000, 0), 1000);
        assert_eq!(deadline(1000, 70), 1070);
        for offset in [0, 1, 1 << 40] {
            assert_eq!(deadline(u64::MAX, offset), NEVER);
        }
    }

    #[test]
    fn nothing_is_kept_beyond_the_room_there_is() {
        let mut deadlines = Deadlines::new(1);
        let room = deadlines.entries.capacity();
        (0..room).for_each(|key| assert!(deadlines.set(&key, 1)));
        assert!(!deadlines.set(&room, 1));
        assert_eq!(deadlines.entries.capacity(), room);
        deadlines.retain(|key| *key != 0);
        assert_eq!(deadlines.earliest(), if room == 1 { NEVER } else { 1 });
        assert!(deadlines.set(&room, 0));
        assert_eq!(deadlines.earliest(), 0);
    }
}
