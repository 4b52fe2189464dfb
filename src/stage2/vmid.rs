//! VMIDs: who has which, and when one may be used again.
//!
//! A VM has its VMID from its creation to its destruction, so that entering a guest asks nobody, and the maintenance of
//! another pCPU always finds the entries it is after. VMIDs are handed out in ascending order. When the last has been
//! handed out a new generation begins: one broadcast drops everything of every VMID, and the counting starts over. Until
//! then no VMID is used a second time, whoever had it; VMs that live across the boundary keep theirs.
//!
//! The broadcast is over before the lock is given up: no VM gets a VMID of the new generation while an entry of an
//! old one may be left. 0 belongs to no VM: a pCPU without one is parked on it.
//!
//! Sources: DDI 0487 "VMID", "VTCR_EL2.VS", "VPIPT instruction caches".

use alloc::vec::Vec;

use crate::features::Features;
use crate::machine::Machine;
use crate::stage2::maintenance;
use crate::sync::SpinMutex;

/// A Virtual Machine Identifier: the tag of a VM's TLB entries. 0 is reserved for "no VM".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vmid(pub u16);

/// The machine's VMIDs.
pub struct Vmids {
    /// How many there are, 0 among them.
    count: u32,
    state: SpinMutex<State>,
}

struct State {
    /// The first that was not handed out in this generation.
    next: u32,
    generation: u64,
    live: Vec<u16>,
    /// Given back in this generation, of an older one, and not reached by `next` yet: entries of their VMs may be left.
    stale: Vec<u16>,
}

impl Vmids {
    /// As many as the CPUs have bits for.
    #[must_use]
    pub fn new(features: &Features) -> Self {
        Self::with_bits(features.vmid_bits)
    }

    pub(crate) fn with_bits(bits: u32) -> Self {
        Self {
            count: 1 << bits,
            state: SpinMutex::new(State {
                next: 1,
                generation: 0,
                live: Vec::new(),
                stale: Vec::new(),
            }),
        }
    }

    /// A VMID that no VM has, and of which no TLB holds anything. `None` when as many VMs live as there are VMIDs.
    #[must_use]
    pub fn take<M: Machine>(&self, m: &mut M) -> Option<Vmid> {
        self.take_with(|| maintenance::invalidate_all(m))
    }

    /// Gives back the VMID of a VM that ended: no pCPU has it in `VTTBR_EL2`.
    ///
    /// # Panics
    /// If nobody has it: a bug of ours.
    pub fn give(&self, vmid: Vmid) {
        let mut state = self.state.lock();
        let place = state.live.iter().position(|live| *live == vmid.0);
        state
            .live
            .swap_remove(place.expect("a VMID is given back once"));
        if u32::from(vmid.0) >= state.next {
            state.stale.push(vmid.0);
        }
    }

    /// How often the VMIDs were used up.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// `drop_all` has all PEs forget all VMIDs.
    fn take_with(&self, drop_all: impl FnOnce()) -> Option<Vmid> {
        let mut state = self.state.lock();
        // All but 0.
        if state.live.len() as u32 >= self.count - 1 {
            return None;
        }
        let found = match state.unused(self.count) {
            Some(vmid) => vmid,
            None => {
                state.next = 1;
                state.generation += 1;
                state.stale.clear();
                drop_all();
                state.unused(self.count)?
            }
        };
        state.live.push(found);
        Some(Vmid(found))
    }
}

impl State {
    fn unused(&mut self, count: u32) -> Option<u16> {
        while self.next < count {
            let candidate = self.next as u16;
            self.next += 1;
            if !self.live.contains(&candidate) && !self.stale.contains(&candidate) {
                return Some(candidate);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
