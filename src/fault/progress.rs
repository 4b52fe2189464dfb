//! Is the guest getting anywhere? The detector behind "never a silent loop".
//!
//! A fault that finds everything as the last one left it changed nothing. That may happen once or twice (a stale TLB
//! entry, another vCPU's race); then it is escalated, and in the end the VM is stopped with an explanation. The same goes
//! for exceptions that only lead to the next one, because the vector they go to cannot be executed.

use crate::addr::{Gva, Ipa};
use crate::exit::{FaultStatus, Need};
use crate::fault::stop::Stop;
use crate::machine::Machine;
use crate::stage2::{Descriptor, Leaf, Stage2, maintenance};

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
    /// What the CPU said.
    pub status: FaultStatus,
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
    recent: [Option<(Attempt, u32)>; 2],
    /// Which of `recent` is the older.
    older: bool,
    injection: Option<Injection>,
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
    pub fn note(&mut self, attempt: &Attempt) -> Escalation {
        let known = self
            .recent
            .iter_mut()
            .flatten()
            .find(|(recent, _)| recent == attempt);
        let Some((_, repeats)) = known else {
            self.recent[usize::from(self.older)] = Some((*attempt, 0));
            self.older = !self.older;
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

    /// Takes note that an instruction of the guest was completed. What was noted before has led somewhere: only faults that
    /// follow one another with nothing in between are a loop, however often one comes back in a VM's life.
    pub fn retired(&mut self) {
        self.recent = Default::default();
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

/// Does what an escalation asks for; answers whether that was an invalidation.
pub(super) fn escalate<M: Machine>(
    escalation: Escalation,
    stage2: &Stage2,
    ipa: Ipa,
    m: &mut M,
) -> bool {
    match escalation {
        Escalation::None | Escalation::Stop { .. } => return false,
        Escalation::Invalidate => maintenance::invalidate_vmid(m),
        Escalation::Remake => match stage2.walk().leaf(m, ipa) {
            Leaf::Present(present) => present.remake(m),
            Leaf::Absent(_) => return false,
        },
    }
    true
}
