//! A stage-2 abort, from syndrome to what is done about it.
//!
//! [`resolve`] is the order of decisions; the two kinds of fault part at the live leaf. `translation` maps where nothing
//! is, `permission` relaxes what is there, and neither can do the other's work. The fault status is only a hint that is
//! cross-checked: between the fault and now another vCPU may have been here. How much one fault brings is `policy`'s, and
//! the work of `block` and `neighbours`; memory that is lent is copied by `copy` when it is written. What is no RAM, or is not
//! to be used in that way, is `elsewhere`'s.
//!
//! Nothing in here knows of VMs or devices. What somebody else must do is answered as a [`Resolution`].
//!
//! Source: DDI 0487 "Stage 2 translation", "Abort exceptions"; handbook for the bugs behind each rule.

mod block;
mod context;
mod copy;
mod elsewhere;
mod emulate;
mod group;
pub mod inject;
mod ipa;
mod neighbours;
mod permission;
mod policy;
pub mod progress;
mod ram;
mod spins;
mod stage1;
mod status;
pub mod stop;
mod translation;

pub use context::{Contents, FaultingVcpu, GuestMemory, Mmio, Resolution, VmMemory};
pub use emulate::Emulation;
pub use policy::{GranulePolicy, RightsPolicy};
pub use spins::spins;
pub use stop::Stop;

use crate::addr::{Gva, Ipa, IpaRange, PAGE_SIZE, Pa};
use crate::exit::{Abort, FaultStatus, Need};
use crate::machine::Machine;
use crate::slot::Slot;
use crate::stage2::{Descriptor, Leaf, Present, Rights, Translation, maintenance};
use progress::{Attempt, Escalation};
use ram::RamFault;

/// A located fault: the abort, where it hit, and what it wanted.
#[derive(Clone, Copy)]
struct Fault<'a> {
    abort: &'a Abort,
    far: Gva,
    ipa: Ipa,
    need: Need,
}

impl<'a> Fault<'a> {
    /// An abort about a leaf, which comes with a valid `FAR_EL2`, on `page`.
    #[inline(always)]
    fn at(page: Ipa, abort: &'a Abort) -> Self {
        let far = abort.far_as_is();
        Self {
            abort,
            far,
            ipa: Ipa::new(page.raw() | far.page_offset()),
            need: abort.need(),
        }
    }

    /// A load or store itself: no fetch, no walk for one, no maintenance.
    fn is_plain_data(&self) -> bool {
        !self.abort.is_fetch() && !self.may_be_less()
    }

    /// A walk or cache maintenance: the syndrome does not say whether R or W was wanting.
    fn may_be_less(&self) -> bool {
        self.abort.s1ptw() || self.abort.is_maintenance()
    }

    /// Whether it wants what the slot's RAM allows.
    fn is_allowed_in(&self, slot: Option<&Slot>) -> bool {
        slot.is_some_and(|slot| slot.rights().allows(self.need.rights()))
    }

    /// What the progress detector is told of it.
    #[inline(always)]
    fn attempt(&self, pc: u64, found: Descriptor) -> Attempt {
        Attempt {
            pc,
            far: self.far,
            ipa: Some(self.ipa.page()),
            need: self.need,
            code: self.abort.code(),
            descriptor: found.raw(),
        }
    }
}

/// Decides what to do about `abort`, and does it where it is stage 2's to do.
pub fn resolve<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    abort: &Abort,
    m: &mut M,
) -> Resolution {
    if let Some(answer) = resolve_in_ram(memory, vcpu, abort, m) {
        return answer;
    }
    if !status::is_about_leaf(abort)
        && let Some(answer) = status::resolve(memory, vcpu, abort, m)
    {
        return answer;
    }
    match locate(memory, vcpu, abort, m) {
        Some((fault, slot)) if !fault.is_allowed_in(slot) => {
            elsewhere::resolve(memory, vcpu, &fault, slot, m)
        }
        // Or it says something else now than a moment ago.
        _ => unlocated(vcpu, abort, abort.far_as_is(), m),
    }
}

/// The same for what most aborts are, a fault on RAM that the guest may use in this way, or on nothing that the guest's stage 1
/// knows; `None`, and nothing was done, if it is another. Nothing of the vCPU's registers is looked at but PC.
#[inline(never)] // `faultline break` of gdb stops here
pub fn resolve_in_ram<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    abort: &Abort,
    m: &mut M,
) -> Option<Resolution> {
    if !status::is_about_leaf(abort) {
        return None;
    }
    let far = abort.far_as_is();
    let Some((page, by_at)) = ipa::locate(abort, far, memory.erratum_834220, m) else {
        return Some(unlocated(vcpu, abort, far, m));
    };
    let mut fault = Fault::at(page, abort);
    let slot = memory.vm.slots.find(fault.ipa)?;
    let most = slot.rights();
    if !most.allows(fault.need.rights()) {
        if !is_about_reading(memory, &fault, most, m) {
            return None;
        }
        fault.need = Need::Read;
    }
    vcpu.counters.note_place(by_at, abort.s1ptw());
    let ram = RamFault::new(memory, vcpu.counters, &fault, slot.range, most);
    match by_leaf(memory, vcpu, &fault, &Backing::Ram(ram), m) {
        // Apart, so that no more than this is copied.
        Resolution::Retry => Some(Resolution::Retry),
        other => Some(other),
    }
}

/// Whether a walk or cache maintenance, which met RAM that is not for writing, wanted to read: where there is no R, that is
/// what was wanting.
#[cold]
fn is_about_reading<M: Machine>(
    memory: GuestMemory<'_>,
    fault: &Fault<'_>,
    most: Rights,
    m: &mut M,
) -> bool {
    let is_readable = |leaf: Translation| leaf.rights.allows(Rights::READ);
    most.allows(Rights::READ)
        && fault.may_be_less()
        && !memory
            .stage2
            .translate(m, fault.ipa)
            .is_some_and(is_readable)
}

/// Where `abort` hit; `None` if the guest's stage 1 does not say.
fn locate<'a, M: Machine>(
    memory: GuestMemory<'a>,
    vcpu: &FaultingVcpu<'_>,
    abort: &'a Abort,
    m: &mut M,
) -> Option<(Fault<'a>, Option<&'a Slot>)> {
    let (page, by_at) = ipa::locate(abort, abort.far_as_is(), memory.erratum_834220, m)?;
    vcpu.counters.note_place(by_at, abort.s1ptw());
    let fault = Fault::at(page, abort);
    Some((fault, memory.vm.slots.find(fault.ipa)))
}

/// The guest's stage 1 does not say where the access went: it was changed meanwhile. This PE forgets what it holds of it
/// (a combined entry of old would fault for ever), and the guest faults again by its own tables; but not for ever.
#[cold]
fn unlocated<M: Machine>(
    vcpu: &mut FaultingVcpu<'_>,
    abort: &Abort,
    far: Gva,
    m: &mut M,
) -> Resolution {
    let attempt = Attempt {
        pc: vcpu.registers.pc,
        far,
        ipa: None,
        need: abort.need(),
        code: abort.code(),
        descriptor: 0,
    };
    if let Escalation::Stop { repeats } = vcpu.progress.note(attempt) {
        return Resolution::Stop(Stop::NoProgress { attempt, repeats });
    }
    vcpu.counters.tlbi.add(1);
    maintenance::forget_stage1(m);
    Resolution::Retry
}

/// What a page that is not mapped yet is made of.
enum Backing<'a> {
    /// Memory: of the pool, or lent.
    Ram(RamFault<'a>),
    /// The hardware's own, at this address.
    Window(Pa),
}

/// The heart: what is mapped decides, and the status is cross-checked against it. Where nothing is, `map`; where a leaf has
/// too few rights, or seemed to, `relax`.
#[inline(always)]
fn by_leaf<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    backing: &Backing<'_>,
    m: &mut M,
) -> Resolution {
    let leaf = memory.vm.stage2.walk().leaf(m, fault.ipa);
    let attempt = fault.attempt(vcpu.registers.pc, leaf.descriptor());
    let escalation = vcpu.progress.note(attempt);
    if let Escalation::Stop { repeats } = escalation {
        return Resolution::Stop(Stop::NoProgress { attempt, repeats });
    }
    if !agrees(fault.abort, &leaf) {
        vcpu.counters.cross_check.add(1);
    }
    let answer = match leaf {
        // Another vCPU fills a block here, or makes a leaf again: the guest tries until it has, and takes its interrupts
        // meanwhile.
        Leaf::Absent(absent) if absent.is_locked() => {
            vcpu.counters.raced.add(1);
            Resolution::Retry
        }
        Leaf::Absent(absent) => match backing {
            Backing::Ram(ram) => translation::resolve(ram, absent, m),
            Backing::Window(page) => {
                translation::map_window(memory, vcpu.counters, absent, *page, m)
            }
        },
        // A leaf without its flag is in no TLB: to set it is all.
        Leaf::Present(present) if is_about_age(fault.abort, &present) => {
            vcpu.counters.aged.add(u64::from(present.make_young(m)));
            Resolution::Retry
        }
        Leaf::Present(present) => match backing {
            Backing::Ram(ram) => permission::resolve(ram, present, m),
            Backing::Window(_) => permission::drop_stale(vcpu.counters, fault, present, m),
        },
    };
    if escalation != Escalation::None {
        progress::escalate(escalation, &memory.stage2, fault.ipa, vcpu.counters, m);
    }
    answer
}

/// Whether the fault status is what the leaf would have caused.
#[inline(always)]
fn agrees(abort: &Abort, leaf: &Leaf<'_>) -> bool {
    match leaf {
        Leaf::Absent(_) => matches!(abort.status(), FaultStatus::Translation(_)),
        Leaf::Present(present) => abort.is_permission() || is_about_age(abort, present),
    }
}

/// Whether the CPU faulted for want of the access flag, and it is wanting.
#[inline(always)]
fn is_about_age(abort: &Abort, present: &Present<'_>) -> bool {
    abort.is_access_flag() && !present.is_young()
}

const fn page_of(ipa: Ipa) -> IpaRange {
    IpaRange {
        start: ipa.page(),
        size: PAGE_SIZE,
    }
}

#[cfg(test)]
mod tests;
