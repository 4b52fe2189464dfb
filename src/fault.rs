//! A stage-2 abort, from syndrome to what is done about it.
//!
//! [`resolve`] is the order of decisions; the two kinds of fault part at the live leaf. `translation` maps where nothing
//! is, `permission` relaxes what is there, and neither can do the other's work. The fault status is only a hint that is
//! cross-checked: between the fault and now another vCPU may have been here. How much one fault brings is `policy`'s, and
//! the work of `block` and `neighbours`; memory that is lent is copied by `copy` when it is written.
//!
//! Nothing in here knows of VMs or devices. What somebody else must do is answered as a [`Resolution`].
//!
//! Source: DDI 0487 "Stage 2 translation", "Abort exceptions"; handbook for the bugs behind each rule.

mod block;
mod copy;
mod emulate;
pub mod inject;
mod ipa;
mod neighbours;
mod permission;
mod policy;
pub mod progress;
mod ram;
mod stage1;
mod status;
pub mod stop;
mod translation;

pub use emulate::Emulation;
pub use policy::{GranulePolicy, RightsPolicy};
pub use stop::Stop;

use alloc::vec::Vec;

use crate::addr::{Gva, Ipa, IpaRange, PAGE_SIZE, Pa};
use crate::content::Content;
use crate::exit::{Abort, FaultStatus, Need, Transfer};
use crate::machine::Machine;
use crate::page_pool::PagePool;
use crate::registers::Registers;
use crate::slot::{Kind, Slots};
use crate::stage2::{Leaf, Present, Rights, Stage2, Translation, maintenance};
use crate::stats::Counters;
use inject::Exception;
use ipa::Located;
use progress::{Attempt, Escalation, Progress};
use ram::RamFault;

/// The memory of a VM, as a fault sees it.
pub struct GuestMemory<'a> {
    /// What lies where.
    pub slots: &'a Slots,
    /// What is mapped.
    pub stage2: &'a Stage2,
    /// Where pages come from.
    pub pool: &'a PagePool,
    /// What pages hold at first.
    pub contents: &'a [Content],
    /// How fast rights grow.
    pub rights: RightsPolicy,
    /// How much one fault brings.
    pub granule: GranulePolicy,
    /// The CPUs have erratum 834220.
    pub erratum_834220: bool,
    /// `HCR_EL2.TEA`: external aborts of the guest's own accesses and walks come to EL2.
    pub guest_errors_trap: bool,
}

impl GuestMemory<'_> {
    /// The contents that have a part in `leaf`.
    fn contents_of(&self, leaf: IpaRange) -> impl Iterator<Item = &Content> {
        let contents = self.contents.iter();
        contents.filter(move |content| content.range().overlaps(&leaf))
    }
}

/// The vCPU's part in it.
pub struct FaultingVcpu<'a> {
    /// Its registers: PC is that of the access.
    pub registers: &'a Registers,
    /// Its progress detector.
    pub progress: &'a mut Progress,
    /// Its counters.
    pub counters: &'a Counters,
}

/// What is to be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Enter the guest at the same PC: the cause was removed.
    Retry,
    /// A device must answer the access.
    Mmio(Mmio),
    /// The same, for an instruction that does more than move one register.
    Emulate(Emulation),
    /// Step over the instruction: cache maintenance of nothing.
    Skip,
    /// The guest takes this exception.
    Inject(Exception),
    /// The VM cannot go on.
    Stop(Stop),
}

/// One access for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mmio {
    /// Which, by the VM's number.
    pub device: u8,
    /// Offset from the start of its slot.
    pub offset: u64,
    /// Store, not load.
    pub is_write: bool,
    /// How the value moves.
    pub transfer: Transfer,
}

/// A located fault: the abort, where it hit, and what it wanted.
#[derive(Clone, Copy)]
struct Fault<'a> {
    abort: &'a Abort,
    far: Gva,
    ipa: Ipa,
    need: Need,
}

impl Fault<'_> {
    /// A load or store itself: no fetch, no walk for one, no maintenance.
    const fn is_plain_data(&self) -> bool {
        !self.abort.is_fetch && !self.abort.s1ptw && !self.abort.is_maintenance
    }

    /// A walk or cache maintenance, of which the syndrome does not say whether R or W was wanting, where there is no R.
    fn may_want_to_read<M: Machine>(&self, memory: &GuestMemory<'_>, m: &mut M) -> bool {
        let is_readable = |leaf: Translation| leaf.rights.allows(Rights::READ);
        (self.abort.s1ptw || self.abort.is_maintenance)
            && !memory
                .stage2
                .translate(m, self.ipa)
                .is_some_and(is_readable)
    }
}

/// Decides what to do about `abort`, and does it where it is stage 2's to do.
pub fn resolve<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    abort: &Abort,
    m: &mut M,
) -> Resolution {
    if let Some(answer) = status::resolve(memory, vcpu, abort, m) {
        return answer;
    }
    // Every status that is left comes with a valid FAR_EL2.
    let far = abort.far.unwrap_or_default();
    let need = abort.need();
    let located = ipa::locate(abort, far, memory.erratum_834220, m);
    let ipa = match located {
        Located::ByHpfar(ipa) => ipa,
        Located::ByAt(ipa) => {
            vcpu.counters.translated_by_at.add(1);
            ipa
        }
        Located::Nowhere => return unlocated(vcpu, abort, far, m),
    };
    if abort.s1ptw {
        vcpu.counters.stage1_walk.add(1);
    }
    let fault = Fault {
        abort,
        far,
        ipa: Ipa::new(ipa.raw() | far.page_offset()),
        need,
    };
    by_slot(memory, vcpu, &fault, m)
}

/// The guest's stage 1 does not say where the access went: it was changed meanwhile. This PE forgets what it holds of it
/// (a combined entry of old would fault for ever), and the guest faults again by its own tables; but not for ever.
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
        status: abort.status,
        descriptor: 0,
    };
    if let Escalation::Stop { repeats } = vcpu.progress.note(&attempt) {
        return Resolution::Stop(Stop::NoProgress { attempt, repeats });
    }
    vcpu.counters.tlbi.add(1);
    maintenance::forget_stage1(m);
    Resolution::Retry
}

fn by_slot<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Resolution {
    if fault.ipa.raw() >= memory.stage2.config().limit() {
        // More bits than the guest's PARange says that there are.
        return Resolution::Inject(Exception::address_size(fault.abort, fault.far, fault.ipa));
    }
    if let FaultStatus::AddressSize(_) = fault.abort.status {
        // Not the guest's address is too large, so it is one in our tables.
        return Resolution::Stop(Stop::OutputSize {
            pc: vcpu.registers.pc,
            ipa: fault.ipa.page(),
            esr: fault.abort.esr,
        });
    }
    match memory
        .slots
        .find(fault.ipa)
        .map(|slot| (slot.kind, slot.range))
    {
        Some((Kind::Ram(most), range)) if most.allows(fault.need.rights()) => {
            let ram = RamFault::new(memory, vcpu, fault, range, most);
            by_leaf(memory, vcpu, fault, &Backing::Ram(ram), m)
        }
        Some((Kind::Ram(most), range))
            if most.allows(Rights::READ) && fault.may_want_to_read(memory, m) =>
        {
            let fault = Fault {
                need: Need::Read,
                ..*fault
            };
            let ram = RamFault::new(memory, vcpu, &fault, range, most);
            by_leaf(memory, vcpu, &fault, &Backing::Ram(ram), m)
        }
        Some((Kind::Ram(_), _)) => denied(memory, vcpu, fault, m),
        Some((Kind::Window(base), range)) if !fault.abort.is_fetch && !fault.abort.s1ptw => {
            let page = base.add(fault.ipa.page().raw() - range.start.raw());
            by_leaf(memory, vcpu, fault, &Backing::Window(page), m)
        }
        Some((Kind::Device(device), range)) if fault.is_plain_data() => {
            let window = emulate::Window { device, range };
            match fault.abort.transfer {
                Some(transfer) => window.access(fault, transfer),
                None => emulate::by_instruction(memory, vcpu, fault, window, m),
            }
        }
        Some(_) | None => not_memory(memory, vcpu, fault, m),
    }
}

/// What a page that is not mapped yet is made of.
enum Backing<'a> {
    /// Memory: of the pool, or lent.
    Ram(RamFault<'a>),
    /// The hardware's own, at this address.
    Window(Pa),
}

/// The heart: what is mapped decides, and the status is cross-checked against it.
fn by_leaf<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    backing: &Backing<'_>,
    m: &mut M,
) -> Resolution {
    let leaf = memory.stage2.walk().leaf(m, fault.ipa);
    let descriptor = match &leaf {
        Leaf::Absent(absent) => absent.descriptor(),
        Leaf::Present(present) => present.descriptor(),
    };
    let attempt = Attempt {
        pc: vcpu.registers.pc,
        far: fault.far,
        ipa: Some(fault.ipa.page()),
        need: fault.need,
        status: fault.abort.status,
        descriptor: descriptor.raw(),
    };
    let escalation = vcpu.progress.note(&attempt);
    if let Escalation::Stop { repeats } = escalation {
        return Resolution::Stop(Stop::NoProgress { attempt, repeats });
    }
    let is_other = match (&leaf, fault.abort.status) {
        (Leaf::Absent(_), FaultStatus::Translation(_))
        | (Leaf::Present(_), FaultStatus::Permission(_)) => false,
        (Leaf::Present(present), FaultStatus::AccessFlag(_)) => present.is_young(),
        _ => true,
    };
    vcpu.counters.cross_check.add(u64::from(is_other));
    let answer = match (leaf, backing) {
        // Another vCPU fills a block here, or makes a leaf again: the guest tries until it has, and takes its interrupts
        // meanwhile.
        (Leaf::Absent(absent), _) if absent.is_locked() => {
            vcpu.counters.raced.add(1);
            Resolution::Retry
        }
        (Leaf::Absent(absent), Backing::Ram(ram)) => translation::resolve(ram, absent, m),
        (Leaf::Absent(absent), Backing::Window(page)) => {
            translation::map_window(memory, vcpu, absent, *page, m)
        }
        // A leaf without its flag is in no TLB: to set it is all.
        (Leaf::Present(present), _) if is_about_age(fault, &present) => {
            vcpu.counters.aged.add(u64::from(present.make_young(m)));
            Resolution::Retry
        }
        (Leaf::Present(present), Backing::Ram(ram)) => permission::resolve(ram, present, m),
        (Leaf::Present(present), Backing::Window(_)) => {
            permission::drop_stale(vcpu, fault, present, m)
        }
    };
    vcpu.counters.tlbi.add(u64::from(progress::escalate(
        escalation,
        memory.stage2,
        fault.ipa,
        m,
    )));
    answer
}

/// Whether the CPU faulted for want of the access flag, and it is wanting.
fn is_about_age(fault: &Fault<'_>, present: &Present<'_>) -> bool {
    matches!(fault.abort.status, FaultStatus::AccessFlag(_)) && !present.is_young()
}

/// RAM that the guest may not use in this way: read-only, or execute-never. What it tried fails as on a bus that refuses;
/// cache maintenance that wants to write is no exception.
fn denied<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Resolution {
    if fault.abort.s1ptw {
        external_on_walk(memory, vcpu, fault, m)
    } else {
        external(fault)
    }
}

/// Nothing there that the access could mean.
fn not_memory<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Resolution {
    if fault.abort.s1ptw {
        return external_on_walk(memory, vcpu, fault, m);
    }
    if fault.abort.is_maintenance {
        vcpu.counters.skipped.add(1);
        return Resolution::Skip;
    }
    external(fault)
}

/// The guest's walk cannot read its table, or not update it. Its own tables say at which of its levels.
fn external_on_walk<M: Machine>(
    memory: &GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Resolution {
    match stage1::level_of_table(memory.stage2, fault.far, fault.ipa, m) {
        Some(level) => Resolution::Inject(Exception::external_on_walk(
            fault.abort,
            fault.far,
            fault.ipa,
            level,
        )),
        None => unlocated(vcpu, fault.abort, fault.far, m),
    }
}

fn external(fault: &Fault<'_>) -> Resolution {
    Resolution::Inject(Exception::external(fault.abort, fault.far, fault.ipa))
}

const fn page_of(ipa: Ipa) -> IpaRange {
    IpaRange {
        start: ipa.page(),
        size: PAGE_SIZE,
    }
}

/// Contents are kept in a plain list: a VM has a handful.
pub type Contents = Vec<Content>;

#[cfg(test)]
mod tests;
