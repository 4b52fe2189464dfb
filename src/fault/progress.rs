//! Is the guest getting anywhere? The detector behind "never a silent loop".
//!
//! A fault that finds everything as the last one left it changed nothing. That may happen once or twice (a stale TLB
//! entry, another vCPU's race); then it is escalated, and in the end the VM is stopped with an explanation. The same goes
//! for exceptions that only lead to the next one, because the vector they go to cannot be executed.

use crate::addr::{Gva, Ipa};
use crate::exit::Need;
use crate::fault::stop::Stop;
use crate::machine::Machine;
use crate::stage2::{Descriptor, Leaf, Stage2, maintenance};
use crate::stats::Counters;

/// Repeats after which all of the VM's TLB entries are dropped.
const INVALIDATE_AT: u32 = 4;
/// Repeats after which the leaf is broken and made again.
const REMAKE_AT: u32 = 9;
/// Repeats after which the VM is stopped.
const STOP_AT: u32 = 64;
/// Repeats on a descriptor that another vCPU has locked after which the VM is stopped: to fill 1 GiB takes long, for ever
/// it does not.
const STOP_LOCKED_AT: u32 = 1 << 22;
/// Exceptions taken in a row without an instruction retired in between after which the VM is stopped.
const INJECTIONS: u32 = 16;

/// What a fault looked like, down to the descriptor it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// PC of the access.
    pub pc: u64,
    /// Its address.
    pub far: Gva,
    /// The page it hit; `None` if the guest's stage 1 would not say.
    pub ipa: Option<Ipa>,
    /// What it wanted.
    pub need: Need,
    /// What the CPU said: the fault status code.
    pub code: u8,
    /// The stage-2 descriptor it found.
    pub descriptor: u64,
}

/// What to do besides answering the fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Escalation {
    /// Nothing.
    None,
    /// Drop all TLB entries of the VM, everywhere.
    Invalidate,
    /// Break the leaf and make it again.
    Remake,
    /// Give up.
    Stop {
        /// Identical faults so far.
        repeats: u32,
    },
}

/// One vCPU's memory of its last faults and exceptions.
///
/// Two attempts, because one instruction may touch two pages in turn.
#[derive(Default, Debug)]
pub struct Progress {
    recent: [Noted; 2],
    /// Which of `recent` is the older.
    older: bool,
    injection: Option<Injection>,
}

/// An attempt, and how often it came again; `None`: forget it.
#[derive(Debug)]
struct Noted {
    attempt: Attempt,
    repeats: Option<u32>,
}

impl Default for Noted {
    fn default() -> Self {
        let attempt = Attempt {
            pc: 0,
            far: Gva::new(0),
            ipa: None,
            need: Need::Read,
            code: 0,
            descriptor: 0,
        };
        Self {
            attempt,
            repeats: None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Injection {
    vector: u64,
    first_pc: u64,
    first_ipa: Option<Ipa>,
    count: u32,
}

impl Progress {
    /// Takes note of a fault.
    #[inline(always)]
    pub fn note(&mut self, attempt: Attempt) -> Escalation {
        // Most faults are at another address than those before, and no more has to be compared.
        let is_elsewhere = |noted: &Noted| noted.attempt.far != attempt.far;
        if self.recent.iter().all(is_elsewhere) {
            self.remember(attempt);
            Escalation::None
        } else {
            self.note_nearby(attempt)
        }
    }

    #[inline(always)]
    fn remember(&mut self, attempt: Attempt) {
        self.recent[usize::from(self.older)] = Noted {
            attempt,
            repeats: Some(0),
        };
        self.older = !self.older;
    }

    fn repeats_of(&mut self, attempt: &Attempt) -> Option<&mut u32> {
        let mut recent = self.recent.iter_mut();
        let known = recent.find(|noted| noted.repeats.is_some() && noted.attempt == *attempt);
        known?.repeats.as_mut()
    }

    #[inline(never)]
    fn note_nearby(&mut self, attempt: Attempt) -> Escalation {
        let Some(repeats) = self.repeats_of(&attempt) else {
            self.remember(attempt);
            return Escalation::None;
        };
        *repeats += 1;
        let is_locked = Descriptor::from_raw(attempt.descriptor).is_locked();
        match *repeats {
            ..STOP_LOCKED_AT if is_locked => Escalation::None,
            INVALIDATE_AT => Escalation::Invalidate,
            REMAKE_AT => Escalation::Remake,
            repeats @ STOP_AT.. => Escalation::Stop { repeats },
            _ => Escalation::None,
        }
    }

    /// Whether a fault that will be answered with an exception was not seen just before: then it is noted, and may be tried
    /// again. If it was, nothing of it is kept: the exception leads on.
    pub fn is_first(&mut self, attempt: Attempt) -> bool {
        let is_first = self.repeats_of(&attempt).is_none();
        if is_first {
            self.remember(attempt);
        } else {
            self.retired();
        }
        is_first
    }

    /// Takes note that an instruction of the guest was completed. What was noted before has led somewhere: only faults that
    /// follow one another with nothing in between are a loop, however often one comes back in a VM's life.
    pub fn retired(&mut self) {
        self.recent
            .iter_mut()
            .for_each(|noted| noted.repeats = None);
    }

    /// Takes note of an exception that goes from `pc` to `vector`.
    ///
    /// # Errors
    /// [`Stop::NoVectors`]: `pc` is the very vector the last one went to and cannot be fetched, or has failed so often
    /// that no instruction will ever retire.
    pub fn note_injection(
        &mut self,
        pc: u64,
        is_fetch: bool,
        ipa: Option<Ipa>,
        vbar: u64,
        vector: u64,
    ) -> Result<(), Stop> {
        let last = self.injection.filter(|last| last.vector == pc);
        let chain = match last {
            Some(last) => Injection {
                vector,
                count: last.count + 1,
                ..last
            },
            None => Injection {
                vector,
                first_pc: pc,
                first_ipa: ipa,
                count: 1,
            },
        };
        self.injection = Some(chain);
        if chain.count > INJECTIONS || (last.is_some() && is_fetch) {
            let Injection {
                first_pc,
                first_ipa,
                ..
            } = chain;
            return Err(Stop::NoVectors {
                vbar,
                vector: pc,
                first_pc,
                first_ipa,
            });
        }
        Ok(())
    }
}

/// Does what an escalation asks for.
#[cold]
pub(super) fn escalate<M: Machine>(
    escalation: Escalation,
    stage2: &Stage2,
    ipa: Ipa,
    counters: &Counters,
    m: &mut M,
) {
    match escalation {
        Escalation::None | Escalation::Stop { .. } => return,
        Escalation::Invalidate => maintenance::invalidate_vmid(m),
        Escalation::Remake => match stage2.walk().leaf(m, ipa) {
            Leaf::Present(present) => present.remake(m),
            Leaf::Absent(_) => return,
        },
    }
    counters.tlbi.add(1);
}
