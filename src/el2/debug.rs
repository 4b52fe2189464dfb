//! What a debugger is told: one record at a fixed symbol, the contract with `gdb.py` (docs/debugging.md).
//!
//! A release image has no type information, so that a debugger cannot know where a `Vm` keeps its slots or a run loop its
//! vCPU. [`FAULTLINE_DEBUG`] says it in a layout of its own: C's, 64-bit words, written when a VM starts and ends. The
//! hypervisor never takes a decision from it. Stage 2 itself is not in here: the debugger walks the tables that the hardware
//! walks. Nor is what belongs to one pCPU, its vCPU's registers and last exit: that is in the block to which `TPIDR_EL2`
//! points ([`super::percpu`]).
//!
//! Change the layout, and count `VERSION` up here and in `gdb/faultline/record.py`.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use faultline::slot::{Kind, Slot};
use faultline::vm::{Vm, device_name};

/// Tells a record from what else might lie where a debugger looks.
const MAGIC: u64 = u64::from_le_bytes(*b"FLDEBUG\0");
const VERSION: u64 = 2;
/// Slots that fit; a VM has a handful.
const SLOTS: usize = 16;
/// Bytes of a name that are kept.
const NAME: usize = 32;
const DEVICE_NAME: usize = 16;

/// The record.
#[repr(C)]
struct Record {
    magic: u64,
    version: u64,
    /// `VTTBR_EL2` of the VM that runs; 0 when none does.
    vttbr: AtomicU64,
    /// `VTCR_EL2` for it.
    vtcr: AtomicU64,
    /// The VM's name, NUL padded.
    name: [AtomicU8; NAME],
    /// How many slots the VM has; those beyond `SLOTS` are not listed.
    slot_count: AtomicU64,
    slots: [Row; SLOTS],
}

/// One slot.
#[repr(C)]
struct Row {
    /// First IPA.
    start: AtomicU64,
    /// Bytes.
    size: AtomicU64,
    /// 0: RAM. 1: a device model. 2: a hardware window.
    kind: AtomicU64,
    /// A window's first PA, a device's number.
    detail: AtomicU64,
    /// A device's name, NUL padded.
    name: [AtomicU8; DEVICE_NAME],
}

impl Row {
    const fn empty() -> Self {
        Self {
            start: AtomicU64::new(0),
            size: AtomicU64::new(0),
            kind: AtomicU64::new(0),
            detail: AtomicU64::new(0),
            name: [const { AtomicU8::new(0) }; DEVICE_NAME],
        }
    }

    fn set(&self, slot: &Slot) {
        let (kind, detail, name) = match slot.kind {
            Kind::Ram(_) => (0, 0, ""),
            Kind::Device(device) => (1, u64::from(device), device_name(device)),
            Kind::Window(pa) => (2, pa.raw(), ""),
        };
        put(&self.start, slot.range.start.raw());
        put(&self.size, slot.range.size);
        put(&self.kind, kind);
        put(&self.detail, detail);
        put_name(&self.name, name);
    }
}

// SAFETY: no other symbol of the image has this name.
#[unsafe(no_mangle)]
#[used]
static FAULTLINE_DEBUG: Record = Record {
    magic: MAGIC,
    version: VERSION,
    vttbr: AtomicU64::new(0),
    vtcr: AtomicU64::new(0),
    name: [const { AtomicU8::new(0) }; NAME],
    slot_count: AtomicU64::new(0),
    slots: [const { Row::empty() }; SLOTS],
};

fn put(place: &AtomicU64, value: u64) {
    place.store(value, Ordering::Relaxed);
}

fn put_name(place: &[AtomicU8], name: &str) {
    let padded = name.bytes().chain(core::iter::repeat(0));
    // The last byte stays 0.
    for (byte, value) in place.iter().zip(padded).take(place.len() - 1) {
        byte.store(value, Ordering::Relaxed);
    }
}

/// `vm` is about to run.
pub(super) fn note_vm(vm: &Vm) {
    let record = &FAULTLINE_DEBUG;
    put_name(&record.name, vm.name());
    put(&record.slot_count, vm.slots().iter().count() as u64);
    for (row, slot) in record.slots.iter().zip(vm.slots().iter()) {
        row.set(slot);
    }
    put(&record.vtcr, vm.stage2().config().vtcr);
    put(&record.vttbr, vm.stage2().vttbr());
}

/// The VM that ran has ended.
pub(super) fn note_no_vm() {
    put(&FAULTLINE_DEBUG.vttbr, 0);
}
