//! Which interrupts get a list register when there are more than that.
//!
//! The most urgent, an active one before a pending one of the same priority; but at least one that is pending if there is
//! any, even when acknowledged ones could fill them all: a guest that splits priority drop from deactivation has many of
//! those and still wants its next interrupt.

use crate::vgic::{IntId, MAX_LIST_REGISTERS};

/// An interrupt that wants a list register, as its rank: priority, active before pending, INTID. Smaller is more urgent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Candidate(u32);

const PENDING: u32 = 1 << 16;

impl Candidate {
    pub(super) const fn new(intid: IntId, priority: u8, is_active: bool) -> Self {
        let pending = if is_active { 0 } else { PENDING };
        Self((priority as u32) << 24 | pending | intid.raw() & 0xffff)
    }

    pub(super) const fn intid(self) -> IntId {
        IntId::new(self.0 & 0xffff)
    }

    const fn is_active(self) -> bool {
        self.0 & PENDING == 0
    }
}

/// The most urgent candidates, as many as there are list registers, and what was left.
pub(super) struct Selection {
    chosen: [Candidate; MAX_LIST_REGISTERS],
    len: usize,
    capacity: usize,
    /// Pending interrupts that found no place.
    pub(super) left_pending: usize,
    best_left_pending: Option<Candidate>,
    /// Some active interrupt found no place.
    pub(super) left_active: bool,
}

impl Selection {
    /// For `capacity` list registers, at most [`MAX_LIST_REGISTERS`].
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            chosen: [Candidate(0); MAX_LIST_REGISTERS],
            len: 0,
            capacity,
            left_pending: 0,
            best_left_pending: None,
            left_active: false,
        }
    }

    /// The chosen, the most urgent first.
    pub(super) fn chosen(&self) -> &[Candidate] {
        &self.chosen[..self.len]
    }

    pub(super) fn offer(&mut self, candidate: Candidate) {
        let position = self
            .chosen()
            .iter()
            .position(|other| candidate < *other)
            .unwrap_or(self.len);
        if position >= self.capacity {
            self.leave(candidate);
            return;
        }
        if self.len == self.capacity {
            self.len -= 1;
            self.leave(self.chosen[self.len]);
        }
        self.chosen.copy_within(position..self.len, position + 1);
        self.chosen[position] = candidate;
        self.len += 1;
    }

    fn leave(&mut self, candidate: Candidate) {
        if candidate.is_active() {
            self.left_active = true;
            return;
        }
        self.left_pending += 1;
        if self.best_left_pending.is_none_or(|best| candidate < best) {
            self.best_left_pending = Some(candidate);
        }
    }

    /// Gives the last place to the most urgent pending interrupt when only active ones were chosen.
    pub(super) fn keep_one_pending(&mut self) {
        if let Some(best) = self.best_left_pending
            && self.chosen().iter().all(|candidate| candidate.is_active())
            && let Some(last) = self.len.checked_sub(1)
        {
            self.left_active = true;
            self.left_pending -= 1;
            self.chosen[last] = best;
        }
    }
}
