//! Faults on what is no RAM, or none to be used in that way: devices, windows to the hardware's own, read-only memory, nothing.

use crate::addr::{Gva, Ipa};
use crate::exit::Abort;
use crate::fault::inject::Exception;
use crate::fault::{
    Backing, Fault, FaultingVcpu, GuestMemory, Resolution, by_leaf, emulate, stage1, unlocated,
};
use crate::machine::{Machine, Ttl};
use crate::slot::{Kind, Slot};
use crate::stage2::{Leaf, Rights, maintenance};

/// A fault on anything but RAM that the guest may use in this way.
pub(super) fn resolve<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    slot: Option<&Slot>,
    m: &mut M,
) -> Resolution {
    let Some(slot) = slot else {
        return in_nothing(memory, vcpu, fault, m);
    };
    match slot.kind {
        Kind::Ram(most) if most.allows(Rights::READ) && fault.may_be_less() => {
            walk_of_ram(memory, vcpu, fault, m)
        }
        // RAM that is read-only, or execute-never: what the guest tried fails as on a bus that refuses.
        Kind::Ram(_) => external(memory, vcpu, fault, m),
        Kind::Window(base) if !fault.abort.is_fetch() && !fault.abort.s1ptw() => {
            let page = base.add(fault.ipa.page().raw() - slot.range.start.raw());
            by_leaf(memory, vcpu, fault, &Backing::Window(page), m)
        }
        Kind::Device(device) if fault.is_plain_data() => {
            let window = emulate::Window {
                device,
                range: slot.range,
            };
            let Some(transfer) = fault.abort.transfer() else {
                return emulate::by_instruction(memory, vcpu, fault, window, m);
            };
            match window.mmio(fault, transfer, 0) {
                Some(mmio) => Resolution::Mmio(mmio),
                None => external(memory, vcpu, fault, m),
            }
        }
        Kind::Window(_) | Kind::Device(_) => not_memory(memory, vcpu, fault, m),
    }
}

/// An address with more bits than the guest's PARange says that there are.
pub(super) fn too_large<M: Machine>(
    memory: GuestMemory<'_>,
    abort: &Abort,
    far: Gva,
    ipa: Ipa,
    m: &mut M,
) -> Resolution {
    let level = stage1::level_of_address(&memory.stage2, far, ipa, m);
    Resolution::Inject(Exception::address_size(abort, far, ipa, level))
}

/// A fault in no slot.
fn in_nothing<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Resolution {
    if fault.ipa.raw() >= memory.stage2.config().limit() {
        return too_large(memory, fault.abort, fault.far, fault.ipa, m);
    }
    not_memory(memory, vcpu, fault, m)
}

/// A walk or cache maintenance met RAM that has R and cannot have W. The CPU may have gone by an entry from before it had R:
/// it tries once without that entry.
fn walk_of_ram<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Resolution {
    let found = match memory.vm.stage2.walk().leaf(m, fault.ipa) {
        Leaf::Present(present) if present.rights().allows(Rights::READ) => present.descriptor(),
        // Taken away since the last look.
        Leaf::Present(_) | Leaf::Absent(_) => {
            vcpu.counters.raced.add(1);
            return Resolution::Retry;
        }
    };
    if vcpu
        .progress
        .is_first(fault.attempt(vcpu.registers.pc, found))
    {
        vcpu.counters.tlbi.add(1);
        maintenance::after_relax(m, fault.ipa, Ttl::ANY);
        return Resolution::Retry;
    }
    external(memory, vcpu, fault, m)
}

/// Nothing there that the access could mean.
fn not_memory<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Resolution {
    if fault.abort.is_maintenance() && !fault.abort.s1ptw() {
        vcpu.counters.skipped.add(1);
        return Resolution::Skip;
    }
    external(memory, vcpu, fault, m)
}

/// What the guest tried fails as on a bus that refuses. If it was a walk that cannot read its table, or not update it, the
/// guest's own tables say at which of its levels.
pub(super) fn external<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    m: &mut M,
) -> Resolution {
    let Fault {
        abort, far, ipa, ..
    } = *fault;
    if !abort.s1ptw() {
        return Resolution::Inject(Exception::external(abort, far, ipa));
    }
    match stage1::level_of_table(&memory.stage2, far, ipa, m) {
        Some(level) => Resolution::Inject(Exception::external_on_walk(abort, far, ipa, level)),
        None => unlocated(vcpu, abort, far, m),
    }
}
