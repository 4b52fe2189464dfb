//! Thirty-two interrupts as columns of bits, one word per property: the unit in which the registers show them.

use super::Group;

/// Interrupts in a bank.
pub(super) const BANK: u32 = 32;

/// Priority bits implemented: five, as the list registers of a GICv2 hold and every GICv3 has at least.
pub(super) const PRIORITY_MASK: u8 = 0xf8;

/// Which groups the distributor forwards (GICD_CTLR.EnableGrp0 and EnableGrp1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct GroupEnables {
    pub(super) zero: bool,
    pub(super) one: bool,
}

/// State of 32 interrupts. Bit `n` of each word belongs to interrupt `n` of the bank.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    /// Interrupts that exist; the registers of the others read as zero and ignore writes.
    pub(super) valid: u32,
    pub(super) enabled: u32,
    /// Group 1 (set) or Group 0.
    pub(super) group: u32,
    /// Edge-triggered (set) or level-sensitive.
    pub(super) edge: u32,
    /// Level of the input line.
    pub(super) line: u32,
    /// Pending because of an edge or by software, until acknowledged.
    pub(super) latch: u32,
    /// A latch that moved into a list register and was not acknowledged there as far as is known.
    pub(super) loaded_latch: u32,
    pub(super) active: u32,
    /// Of those, made active by a register: nobody acknowledged it.
    pub(super) forced: u32,
    /// In a list register of some vCPU that is not known to be free again.
    pub(super) resident: u32,
    /// Stands for a physical interrupt that stays active until this one's end ([`super::link`]).
    pub(super) linked: u32,
    /// Of those, active *because* of the link, and not for a reason of software's.
    pub(super) taken: u32,
    pub(super) priority: [u8; BANK as usize],
}

impl Bank {
    pub(super) const fn new(valid: u32) -> Self {
        Self {
            valid,
            enabled: 0,
            group: 0,
            edge: 0,
            line: 0,
            latch: 0,
            loaded_latch: 0,
            active: 0,
            forced: 0,
            resident: 0,
            linked: 0,
            taken: 0,
            priority: [0; BANK as usize],
        }
    }

    /// Pending, as the registers show it, wherever the pending state is kept.
    pub(super) const fn pending(&self) -> u32 {
        self.latch | self.loaded_latch | self.line & !self.edge | self.linked & !self.taken
    }

    /// Nothing is pending, active or in a list register.
    pub(super) const fn is_idle(&self) -> bool {
        (self.pending() | self.active | self.resident) == 0
    }

    /// Level-sensitive and asserted. Not if a link was taken: then hardware looks at the line after the guest's end.
    pub(super) const fn asserted(&self) -> u32 {
        self.line & !self.edge & !self.taken
    }

    /// Enabled, and of a group that is.
    pub(super) const fn forwarded(&self, groups: GroupEnables) -> u32 {
        let one = if groups.one { self.group } else { 0 };
        let zero = if groups.zero { !self.group } else { 0 };
        self.enabled & (one | zero)
    }

    /// Pending and forwarded, active or not.
    pub(super) const fn deliverable(&self, groups: GroupEnables) -> u32 {
        let pending = self.latch | self.loaded_latch | self.asserted() | self.linked & !self.taken;
        pending & self.forwarded(groups)
    }

    /// Priority of interrupt `bit`.
    pub(super) const fn priority(&self, bit: u32) -> u8 {
        self.priority[(bit % BANK) as usize]
    }

    /// The group of interrupt `bit`.
    pub(super) const fn group_of(&self, bit: u32) -> Group {
        if self.group & 1 << (bit % BANK) != 0 {
            Group::One
        } else {
            Group::Zero
        }
    }

    /// The input lines in `mask` take `level`; the interrupts whose state it changed.
    pub(super) fn set_line(&mut self, mask: u32, level: bool) -> u32 {
        let mask = mask & self.valid;
        if level {
            let risen = mask & !self.line;
            self.line |= risen;
            self.latch |= risen & self.edge;
            risen
        } else {
            let fallen = mask & self.line;
            self.line &= !fallen;
            fallen
        }
    }
}

/// The set bits of `mask`, lowest first, as bit numbers.
pub(super) fn bits(mask: u32) -> impl Iterator<Item = u32> {
    let mut left = mask;
    core::iter::from_fn(move || {
        let bit = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        (bit < u32::BITS).then_some(bit)
    })
}
