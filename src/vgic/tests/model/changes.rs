//! What changes an interrupt's state from outside of delivery: lines, SGIs, and registers that a guest writes. Each in the model,
//! and then in the vGIC.

use std::collections::BTreeSet;

use super::architecture::key;
use super::{PPIS, SPIS, TIMER, TIMER_ID, World};
use crate::device::Width;
use crate::vgic::Version;

impl World {
    pub(super) fn set_timer(&mut self, vcpu: usize, level: bool) {
        if !self.on[vcpu] {
            // It can only expire, and EL2 sees that.
            if level {
                self.vgic.set_private_line(vcpu, TIMER_ID, true);
            } else {
                return;
            }
        }
        self.timers[vcpu] = level;
        self.interrupt(vcpu, TIMER).line = level;
        self.guests[vcpu].timer_asserted = level;
        // In its handler a guest reprograms the timer without an exit; elsewhere EL2 looks before it can tell.
        let mut running = self.running[vcpu].iter();
        let is_handled =
            running.any(|(intid, _)| *intid == TIMER) && self.model[&key(vcpu, TIMER)].active;
        if self.on[vcpu] && !is_handled {
            self.guests[vcpu].exit(&mut self.vgic);
            self.guests[vcpu].enter(&mut self.vgic);
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, number: u32) {
        self.arrive(from);
        let is_v2 = self.version == Version::V2;
        let target = self.interrupt(to, number);
        if is_v2 {
            target.sources.insert(from as u8);
            let value = 1 << (16 + to) | u64::from(number);
            self.store(from, 0xf00, 32, Width::Word, value);
        } else {
            target.latch = true;
            self.vgic
                .write_sgi1r(from, u64::from(number) << 24 | 1 << to);
        }
    }

    pub(super) fn broadcast(&mut self, from: usize, number: u32) {
        self.arrive(from);
        let is_v2 = self.version == Version::V2;
        for to in (0..self.vcpus()).filter(|to| *to != from) {
            let target = self.interrupt(to, number);
            if is_v2 {
                target.sources.insert(from as u8);
            } else {
                target.latch = true;
            }
        }
        if is_v2 {
            let value = 1 << 24 | u64::from(number);
            self.store(from, 0xf00, 32, Width::Word, value);
        } else {
            self.vgic
                .write_sgi1r(from, u64::from(number) << 24 | 1 << 40);
        }
    }

    pub(super) fn enable(&mut self, vcpu: usize, intid: u32, on: bool) {
        // A GICv2's SGIs are always enabled.
        if intid < 16 && self.version == Version::V2 {
            return;
        }
        self.arrive(vcpu);
        self.interrupt(vcpu, intid).enabled = on;
        self.store_bit(vcpu, if on { 0x100 } else { 0x180 }, intid);
    }

    pub(super) fn set_pending(&mut self, vcpu: usize, intid: u32, on: bool) {
        self.arrive(vcpu);
        if intid < 16 && self.version == Version::V2 {
            // They are pending per source; here, vCPU 0.
            let sources = &mut self.interrupt(vcpu, intid).sources;
            if on {
                sources.insert(0);
            } else {
                sources.remove(&0);
            }
            let start = if on { 0xf20 } else { 0xf10 };
            self.store(vcpu, start + u64::from(intid), 32, Width::Byte, 0b1);
            return;
        }
        self.interrupt(vcpu, intid).latch = on;
        self.store_bit(vcpu, if on { 0x200 } else { 0x280 }, intid);
    }

    /// By a register. What a guest handles it ends all the same, whether that is active by then or not.
    pub(super) fn set_active(&mut self, vcpu: usize, intid: u32, on: bool) {
        let is_handled_by = |vcpu: usize| {
            let mut running = self.running[vcpu].iter();
            running.any(|(other, _)| *other == intid)
        };
        let is_private = intid < 32;
        let is_handled = if is_private {
            is_handled_by(vcpu)
        } else {
            (0..self.vcpus()).any(is_handled_by)
        };
        // An end by name of what another vCPU handles by then is not architected; and who makes active again what it handles
        // and has cleared is taken for one that will clear it again.
        let is_alone = is_private || self.vcpus() == 1;
        let is_active = self.model[&key(vcpu, intid)].active;
        if !self.splits_end && is_handled && (!is_alone || on && !is_active) {
            return;
        }
        self.arrive(vcpu);
        let interrupt = self.interrupt(vcpu, intid);
        if on && !interrupt.active {
            let owner = interrupt.targets.first().copied().unwrap_or(0);
            let owner = if intid < 32 { vcpu } else { owner };
            self.dropped[owner].push(intid);
        }
        self.interrupt(vcpu, intid).active = on;
        if !on {
            self.forget_dropped(vcpu, intid);
        }
        self.store_bit(vcpu, if on { 0x300 } else { 0x380 }, intid);
    }

    /// `intid` is active no longer.
    pub(super) fn forget_dropped(&mut self, vcpu: usize, intid: u32) {
        let banked = intid < 32;
        for other in (0..self.vcpus()).filter(|other| !banked || *other == vcpu) {
            self.dropped[other].retain(|dropped| *dropped != intid);
        }
    }

    pub(super) fn prioritize(&mut self, vcpu: usize, intid: u32, priority: u8) {
        self.arrive(vcpu);
        // The effect on an active interrupt is not architected.
        let interrupt = self.interrupt(vcpu, intid);
        if !interrupt.active {
            interrupt.priority = priority & 0xf8;
            let offset = 0x400 + u64::from(intid);
            self.store(vcpu, offset, intid, Width::Byte, u64::from(priority));
        }
    }

    pub(super) fn configure(&mut self, vcpu: usize, intid: u32, edge: bool) {
        self.arrive(vcpu);
        self.interrupt(vcpu, intid).edge = edge;
        let register = intid / 16;
        let wired = [PPIS.as_slice(), &SPIS].concat();
        let value = wired
            .iter()
            .filter(|other| **other / 16 == register && self.model[&key(vcpu, **other)].edge)
            .fold(0, |value, other| value | 2 << (2 * (other % 16)));
        let offset = 0xc00 + u64::from(register * 4);
        self.store(vcpu, offset, intid, Width::Word, value);
    }

    pub(super) fn route(&mut self, vcpu: usize, intid: u32, choice: u8) {
        self.arrive(vcpu);
        let all = 0..self.vcpus();
        if self.version == Version::V2 {
            // With one CPU interface there is nothing to choose.
            let only = all.len() == 1;
            self.interrupt(0, intid).targets =
                all.filter(|vcpu| only || choice & 1 << vcpu != 0).collect();
            let offset = 0x800 + u64::from(intid);
            self.store(vcpu, offset, intid, Width::Byte, u64::from(choice));
            return;
        }
        // Aff0 0 to 2, which may not be there, an affinity nobody has, or 1-of-N.
        let (route, targets): (u64, BTreeSet<usize>) = match choice {
            0..3 => (
                u64::from(choice),
                all.filter(|vcpu| *vcpu == usize::from(choice)).collect(),
            ),
            3 => (0x0100, BTreeSet::new()),
            _ => (1 << 31, all.collect()),
        };
        self.interrupt(0, intid).targets = targets;
        let offset = 0x6000 + 8 * u64::from(intid);
        self.store(vcpu, offset, intid, Width::Double, route);
    }
}
