//! Accesses to devices: by the syndrome where it says all (`ISV` = 1), else by the instruction itself.
//!
//! An instruction is believed only if it fits the fault it is to explain: it was fetched through the guest's own tables, is a
//! load or store that [`LoadStore`] knows, has the direction of the syndrome, and its address is `FAR_EL2`. Anything else is
//! injected as an external abort, never guessed. Nothing of it is carried out here: the answer says what a VM has to do.
//!
//! Source: DDI 0487 "ISS encoding for an exception from a Data Abort", ISV; handbook stage2.md section 7.1.

use crate::addr::{Gva, IpaRange, PAGE_SIZE};
use crate::exit::instruction::LoadStore;
use crate::exit::{Need, Transfer};
use crate::fault::elsewhere::external;
use crate::fault::{Fault, FaultingVcpu, GuestMemory, Mmio, Resolution, stage1, unlocated};
use crate::machine::{El1, Machine};
use crate::registers::{Registers, pstate};

/// The bits of an address that are neither tag nor sign: what stays of it whatever `TCR_EL1.TBI` says.
const UNTAGGED: u64 = (1 << 56) - 1;
/// The base register's number that means the stack pointer.
const STACK_POINTER: u8 = 31;

/// All that one instruction does to a device and its vCPU, besides moving PC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Emulation {
    /// The first register's access.
    pub first: Mmio,
    /// The second register's, of a pair.
    pub second: Option<Mmio>,
    /// What goes into the base register when the accesses are done.
    pub write_back: Option<WriteBack>,
}

/// A base register's new value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteBack {
    base: u8,
    value: u64,
}

impl WriteBack {
    /// Writes it.
    pub fn apply<M: Machine>(self, registers: &mut Registers, m: &mut M) {
        if self.base == STACK_POINTER {
            m.set_el1(stack_pointer(registers), self.value);
        } else {
            registers.write(self.base, self.value);
        }
    }
}

/// The stack pointer that `SP` means: `SP_EL0` at EL0 and with PSTATE.SP = 0.
const fn stack_pointer(registers: &Registers) -> El1 {
    if registers.pstate & pstate::MODE == pstate::EL1H {
        El1::SpEl1
    } else {
        El1::SpEl0
    }
}

/// A device's slot.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) device: u8,
    pub(super) range: IpaRange,
}

impl Window {
    /// An access of `transfer` so many bytes above the address that faulted. `None` if it is not all in here: an unaligned
    /// access may report the second page it touched, or reach out of the slot, and then FAR is not where it began.
    pub(super) fn mmio(self, fault: &Fault<'_>, transfer: Transfer, above: u64) -> Option<Mmio> {
        let offset = fault.ipa.raw() - self.range.start.raw() + above;
        let size = transfer.width.bytes();
        let fits = fault.far.raw().is_multiple_of(size) && offset + size <= self.range.size;
        fits.then_some(Mmio {
            device: self.device,
            offset,
            is_write: fault.need == Need::Write,
            transfer,
        })
    }
}

/// The access to the device behind `window` that the instruction at PC makes.
pub(super) fn by_instruction<M: Machine>(
    memory: GuestMemory<'_>,
    vcpu: &mut FaultingVcpu<'_>,
    fault: &Fault<'_>,
    window: Window,
    m: &mut M,
) -> Resolution {
    if vcpu.registers.pstate & pstate::AARCH32 != 0 {
        return external(memory, vcpu, fault, m);
    }
    let Some(word) = fetch(memory, vcpu.registers.pc, m) else {
        // Its page is not where it was when the CPU fetched it; when the guest tries again, it is, or the fetch faults.
        return unlocated(vcpu, fault.abort, fault.far, m);
    };
    let emulation = LoadStore::decode(word)
        .and_then(|instruction| explain(&instruction, vcpu.registers, fault, window, m));
    match emulation {
        Some(emulation) => {
            vcpu.counters.decoded.add(1);
            Resolution::Emulate(emulation)
        }
        None => external(memory, vcpu, fault, m),
    }
}

/// The instruction at `pc`, by the guest's own translation.
fn fetch<M: Machine>(memory: GuestMemory<'_>, pc: u64, m: &mut M) -> Option<u32> {
    if !pc.is_multiple_of(4) {
        return None;
    }
    let ipa = stage1::translate(&memory.stage2, Gva::new(pc), m)?;
    let mut bytes = [0; 4];
    stage1::read(&memory.stage2, ipa, &mut bytes, m)?;
    // Instructions are little-endian whatever data are.
    Some(u32::from_le_bytes(bytes))
}

/// What `instruction` does, if it is what made this fault.
fn explain<M: Machine>(
    instruction: &LoadStore,
    registers: &Registers,
    fault: &Fault<'_>,
    window: Window,
    m: &mut M,
) -> Option<Emulation> {
    let LoadStore { base, first, .. } = *instruction;
    let base_value = if base == STACK_POINTER {
        m.el1(stack_pointer(registers))
    } else {
        registers.read(base)
    };
    let index = |number| registers.read(number);
    let (address, sum) = instruction.mode.address(base_value, index);
    let is_this = address & UNTAGGED == fault.far.raw() & UNTAGGED
        && instruction.is_write == (fault.need == Need::Write);
    if !is_this {
        return None;
    }
    let size = first.width.bytes();
    let second = match instruction.second {
        // Beyond the page stage 1 may go anywhere.
        Some(_) if fault.far.page_offset() + 2 * size > PAGE_SIZE => return None,
        Some(second) => Some(window.mmio(fault, second, size)?),
        None => None,
    };
    Some(Emulation {
        first: window.mmio(fault, first, 0)?,
        second,
        write_back: sum.map(|value| WriteBack { base, value }),
    })
}
