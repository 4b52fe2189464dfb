//! The moments at which something must be done, of one pCPU: a small set with its own room, for one hardware timer.

use alloc::vec::Vec;

/// Deadlines by key, in ticks of the physical counter.
pub struct Deadlines<K> {
    entries: Vec<(K, u64)>,
    earliest: Option<u64>,
}

impl<K: PartialEq + Clone> Deadlines<K> {
    /// None yet, with room for `count`: no more is ever kept.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            entries: Vec::with_capacity(count),
            earliest: None,
        }
    }

    /// Sets the moment for `key`, or forgets it. Without room nothing is kept and the answer is `false`.
    pub fn set(&mut self, key: &K, at: Option<u64>) -> bool {
        let known = self.entries.iter().position(|(other, _)| other == key);
        match (known, at) {
            (Some(index), Some(at)) => self.entries[index].1 = at,
            (Some(index), None) => {
                self.entries.swap_remove(index);
            }
            (None, Some(at)) if self.entries.len() < self.entries.capacity() => {
                self.entries.push((key.clone(), at));
            }
            (None, Some(_)) => return false,
            (None, None) => return true,
        }
        self.earliest = self.entries.iter().map(|(_, at)| *at).min();
        true
    }

    /// The first moment of all: what the hardware timer is set to.
    #[must_use]
    pub const fn earliest(&self) -> Option<u64> {
        self.earliest
    }

    /// Takes one key whose moment has come by `now`.
    pub fn take_due(&mut self, now: u64) -> Option<K> {
        let index = self.entries.iter().position(|(_, at)| *at <= now)?;
        let (key, _) = self.entries.swap_remove(index);
        self.earliest = self.entries.iter().map(|(_, at)| *at).min();
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_beyond_the_room_there_is() {
        let mut deadlines = Deadlines::new(1);
        let room = deadlines.entries.capacity();
        (0..room).for_each(|key| assert!(deadlines.set(&key, Some(1))));
        assert!(!deadlines.set(&room, Some(1)));
        assert_eq!(deadlines.entries.capacity(), room);
    }
}
