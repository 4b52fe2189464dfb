//! Software-generated interrupts: who asked for them, and how they are asked for.
//!
//! A GICv2 keeps an SGI's pending state once per source vCPU, and the receiver sees the source; a GICv3 keeps it once.
//!
//! Source: IHI 0048B "Software Generated Interrupt Register, GICD_SGIR", "SGI Set-Pending Registers"; IHI 0069
//! "ICC_SGI1R_EL1", "Software Generated Interrupts".

use super::{Affinity, BankId, SGIS, Version, Vgic, bits, every};

/// SGIs there are.
pub(super) const SGI_COUNT: usize = 16;

/// Sources of one vCPU's SGIs (GICv2): a bit per requesting vCPU while pending, its number once in a list register.
#[derive(Clone, Debug, Default)]
pub(super) struct SgiSources {
    waiting: [u8; SGI_COUNT],
    loaded: [u8; SGI_COUNT],
    active: [u8; SGI_COUNT],
}

impl SgiSources {
    /// `number` left its list register unacknowledged.
    pub(super) fn take_back(&mut self, number: u32) {
        if let Some(waiting) = self.waiting.get_mut(number as usize) {
            *waiting |= 1 << (self.loaded[number as usize] & 7);
        }
    }

    /// `number` was acknowledged in its list register.
    pub(super) fn acknowledge(&mut self, number: u32) {
        if let Some(active) = self.active.get_mut(number as usize) {
            *active = self.loaded[number as usize];
        }
    }

    /// `number` moves into a list register; the source chosen, the lowest.
    pub(super) fn load(&mut self, number: u32) -> u8 {
        let Some(waiting) = self.waiting.get_mut(number as usize) else {
            return 0;
        };
        let source = waiting.trailing_zeros() as u8 & 7;
        *waiting &= !(1 << source);
        self.loaded[number as usize] = source;
        source
    }

    /// The same, if only one source waits.
    pub(super) fn load_only(&mut self, number: u32) -> Option<u8> {
        let is_only_one = self.waiting.get(number as usize)?.is_power_of_two();
        is_only_one.then(|| self.load(number))
    }

    /// `number` was acknowledged in its list register and ended, and comes again: its source, if it is the only one that waits.
    pub(super) fn take_next(&mut self, number: u32) -> Option<u8> {
        let acknowledged = *self.loaded.get(number as usize)?;
        let source = self.load_only(number)?;
        self.active[number as usize] = acknowledged;
        Some(source)
    }

    /// Source of the active `number`.
    pub(super) fn active(&self, number: u32) -> u8 {
        self.active.get(number as usize).copied().unwrap_or(0)
    }

    /// Whether sources of `number` are pending outside the list registers.
    pub(super) fn has_waiting(&self, number: u32) -> bool {
        self.waiting
            .get(number as usize)
            .is_some_and(|waiting| *waiting != 0)
    }
}

/// GICD_SGIR.
mod sgir {
    pub(super) const INTID: u32 = 0xf;
    pub(super) const TARGET_LIST_SHIFT: u32 = 16;
    pub(super) const FILTER_SHIFT: u32 = 24;
    /// TargetListFilter: the vCPUs of CPUTargetList.
    pub(super) const FILTER_LIST: u32 = 0;
    /// All but the requester.
    pub(super) const FILTER_OTHERS: u32 = 1;
    /// The requester alone.
    pub(super) const FILTER_SELF: u32 = 2;
}

/// ICC_SGI0R_EL1, ICC_SGI1R_EL1, ICC_ASGI1R_EL1.
mod sgir_el1 {
    pub(super) const TARGET_LIST: u64 = 0xffff;
    pub(super) const INTID_SHIFT: u32 = 24;
    pub(super) const INTID: u64 = 0xf;
    pub(super) const IRM: u64 = 1 << 40;
    pub(super) const RS_SHIFT: u32 = 44;
    pub(super) const RS: u64 = 0xf;
    pub(super) const AFF1_SHIFT: u32 = 16;
    pub(super) const AFF2_SHIFT: u32 = 32;
    pub(super) const AFF3_SHIFT: u32 = 48;
    /// vCPUs a target list names: 16 values of Aff0 from 16 times RS.
    pub(super) const LIST_LEN: u8 = 16;
}

impl Vgic {
    /// `vcpu` wrote ICC_SGI1R_EL1 (GICv3): the SGI becomes pending at every target, whichever group it is of there.
    pub fn write_sgi1r(&mut self, vcpu: usize, value: u64) {
        self.send_sgi(vcpu, value, true);
    }

    /// `vcpu` wrote ICC_SGI0R_EL1 (GICv3): the SGI becomes pending at the targets where it is of Group 0.
    pub fn write_sgi0r(&mut self, vcpu: usize, value: u64) {
        self.send_sgi(vcpu, value, false);
    }

    /// `vcpu` wrote ICC_ASGI1R_EL1 (GICv3): with one security state the same as [`Vgic::write_sgi0r`].
    pub fn write_asgi1r(&mut self, vcpu: usize, value: u64) {
        self.send_sgi(vcpu, value, false);
    }

    fn send_sgi(&mut self, vcpu: usize, value: u64, may_be_group_1: bool) {
        if self.version != Version::V3 || vcpu >= self.vcpus.len() {
            return;
        }
        let mask = 1u32 << (value >> sgir_el1::INTID_SHIFT & sgir_el1::INTID);
        if value & sgir_el1::IRM != 0 {
            for target in (0..self.vcpus.len()).filter(|target| *target != vcpu) {
                self.raise_sgi(target, mask, may_be_group_1);
            }
            return;
        }
        let byte = |shift: u32| (value >> shift) as u8;
        let first = (value >> sgir_el1::RS_SHIFT & sgir_el1::RS) as u8 * sgir_el1::LIST_LEN;
        for bit in bits((value & sgir_el1::TARGET_LIST) as u32) {
            let affinity = Affinity::new(
                byte(sgir_el1::AFF3_SHIFT),
                byte(sgir_el1::AFF2_SHIFT),
                byte(sgir_el1::AFF1_SHIFT),
                first | bit as u8,
            );
            if let Some(target) = self.with_affinity(affinity) {
                self.raise_sgi(target, mask, may_be_group_1);
            }
        }
    }

    fn raise_sgi(&mut self, target: usize, mask: u32, may_be_group_1: bool) {
        let bank = &mut self.vcpus[target].bank;
        if may_be_group_1 || bank.group & mask == 0 {
            bank.latch |= mask;
            self.reconsider(BankId::Private(target), mask);
        }
    }

    /// `vcpu` wrote GICD_SGIR (GICv2).
    pub fn write_sgir(&mut self, vcpu: usize, value: u32) {
        let all = every(self.vcpus.len());
        let itself = 1u64 << vcpu;
        let targets = match value >> sgir::FILTER_SHIFT & 3 {
            sgir::FILTER_LIST => u64::from(value >> sgir::TARGET_LIST_SHIFT & 0xff) & all,
            sgir::FILTER_OTHERS => all & !itself,
            sgir::FILTER_SELF => itself,
            _ => 0,
        };
        for target in (0..self.vcpus.len()).filter(|target| targets & 1 << target != 0) {
            self.set_sgi_sources(target, (value & sgir::INTID) as usize, 1 << vcpu);
        }
    }

    /// SGI `number` becomes pending at `vcpu` from `sources`, a bit per vCPU (GICv2).
    pub(super) fn set_sgi_sources(&mut self, vcpu: usize, number: usize, sources: u8) {
        let interface = &mut self.vcpus[vcpu];
        interface.sgi.waiting[number] |= sources;
        self.sources_changed(vcpu, number);
    }

    /// SGI `number` is no longer pending at `vcpu` from `sources` (GICv2).
    pub(super) fn clear_sgi_sources(&mut self, vcpu: usize, number: usize, sources: u8) {
        let interface = &mut self.vcpus[vcpu];
        interface.sgi.waiting[number] &= !sources;
        if sources & 1 << interface.sgi.loaded[number] != 0 {
            interface.bank.loaded_latch &= !(1 << number);
        }
        self.sources_changed(vcpu, number);
    }

    /// The vCPUs from which SGI `number` is pending at `vcpu`, a bit each (GICv2).
    pub(super) fn sgi_sources(&self, vcpu: usize, number: usize) -> u8 {
        let interface = &self.vcpus[vcpu];
        let is_loaded = interface.bank.loaded_latch & 1 << number != 0;
        interface.sgi.waiting[number]
            | if is_loaded {
                1 << interface.sgi.loaded[number]
            } else {
                0
            }
    }

    /// The latch follows the sources that wait.
    fn sources_changed(&mut self, vcpu: usize, number: usize) {
        let interface = &mut self.vcpus[vcpu];
        let mask = 1u32 << number & SGIS;
        if interface.sgi.has_waiting(number as u32) {
            interface.bank.latch |= mask;
        } else {
            interface.bank.latch &= !mask;
        }
        self.reconsider(BankId::Private(vcpu), mask);
    }
}
