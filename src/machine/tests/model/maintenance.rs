//! TLB and cache maintenance: issued by one PE, carried out by each when it likes, complete when a DSB says so.

use std::vec::Vec;

use super::hardware::Hardware;
use super::memory::LINES;
use super::ram::is_inside;
use crate::addr::PaRange;
use crate::machine::{Dc, Dsb, Ic, Tlbi};

/// Maintenance that was issued and is not known to be complete: each PE carries it out when it likes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Tlbi(Tlbi, u16),
    Ic(Ic),
    Dc(Dc, PaRange),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) work: Work,
    /// PEs that have not carried it out, as bits.
    pub(super) left: u32,
}

impl Hardware {
    pub(super) fn issue(&mut self, pe: usize, work: Work, is_local: bool) {
        let left = if is_local {
            1 << pe
        } else {
            (1u32 << self.pes.len()) - 1
        };
        self.pes[pe].pending.push(Pending { work, left });
        // It may be carried out at once, which is too early where something has to come before it.
        for target in 0..self.pes.len() {
            if self.rng.one_in(3) {
                let last = self.pes[pe].pending.len() - 1;
                self.carry_out(pe, last, target);
            }
        }
    }

    /// PE `target` carries out the `n`th operation outstanding of PE `by`.
    pub(super) fn carry_out(&mut self, by: usize, n: usize, target: usize) {
        let pending = &mut self.pes[by].pending[n];
        if pending.left >> target & 1 == 0 {
            return;
        }
        pending.left &= !(1 << target);
        match pending.work {
            Work::Tlbi(op, vmid) => self.pes[target].tlb.invalidate(op, vmid),
            Work::Ic(op) => self.invalidate_icache(op, target),
            Work::Dc(op, range) => {
                let (start, size) = (range.start.raw(), range.size);
                self.ram.change_lines(start, size, |line| match op {
                    Dc::CleanToPou => line.clean_to_unification(),
                    Dc::CleanInvalidateToPoc => line.clean_and_invalidate(),
                });
            }
        }
    }

    fn invalidate_icache(&mut self, op: Ic, target: usize) {
        let icache = &mut self.pes[target].icache;
        match op {
            Ic::AllLocal | Ic::AllInnerShareable => icache.clear(),
            Ic::Range(range) => {
                icache.retain(|(page, line, colour), _| {
                    let at = page + LINES[*line];
                    *colour != 0 || !is_inside(at, range.start.raw(), range.size)
                });
            }
        }
    }

    /// A DSB of `kind` by `pe`: what it waits for is complete when it returns.
    pub(super) fn complete(&mut self, pe: usize, kind: Dsb) {
        let waits = |work: &Work| match (work, kind) {
            (_, Dsb::IshSt | Dsb::NshSt) => false,
            (Work::Tlbi(op, _), Dsb::Nsh) => is_local(*op),
            (Work::Ic(op), Dsb::Nsh) => *op == Ic::AllLocal,
            (Work::Dc(Dc::CleanInvalidateToPoc, _), kind) => kind == Dsb::Sy,
            (Work::Dc(Dc::CleanToPou, _), Dsb::Nsh) => false,
            (_, Dsb::Ish | Dsb::Sy) => true,
        };
        // In the order that hurts: the I-cache before the data it is filled from, stage 1 before stage 2, and in between
        // whatever is fetched then.
        for round in 0..4 {
            for n in 0..self.pes[pe].pending.len() {
                let work = self.pes[pe].pending[n].work;
                if !waits(&work) || rank(&work) != round {
                    continue;
                }
                for target in 0..self.pes.len() {
                    self.carry_out(pe, n, target);
                    self.speculate(target);
                }
            }
        }
        let done = self.pes[pe]
            .pending
            .extract_if(.., |pending| waits(&pending.work));
        let done: Vec<Work> = done.map(|pending| pending.work).collect();
        self.wait_for_stores(&done);
        match kind {
            Dsb::NshSt | Dsb::Nsh => self.show_own_stores(pe),
            Dsb::IshSt | Dsb::Ish | Dsb::Sy => self.show_stores(pe),
        }
    }
}

pub(super) const fn is_local(op: Tlbi) -> bool {
    matches!(op, Tlbi::Ipas2e1(..) | Tlbi::Vmalle1 | Tlbi::Vmalls12e1)
}

const fn rank(work: &Work) -> u32 {
    match work {
        Work::Ic(_) => 0,
        Work::Tlbi(Tlbi::Vmalle1 | Tlbi::Vmalle1Is, _) => 1,
        Work::Tlbi(..) => 2,
        Work::Dc(..) => 3,
    }
}
