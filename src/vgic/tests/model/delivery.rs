//! Delivery as a guest sees it: what it may acknowledge, what its ends do, what its registers read.

use super::architecture::{Key, key};
use super::{TIMER_ID, World};
use crate::device::Width;
use crate::vgic::{IntId, Version};

impl World {
    /// What happens by itself: kicks, maintenance interrupts, and timers that fire.
    pub(super) fn settle(&mut self) {
        for _ in 0..4 {
            for vcpu in (0..self.vcpus()).filter(|vcpu| self.on[*vcpu]) {
                if self.timers[vcpu] && !self.guests[vcpu].physical.contains(&TIMER_ID) {
                    self.guests[vcpu].physical_interrupt(&mut self.vgic, TIMER_ID);
                }
                if self.vgic.needs_plan(vcpu) || self.guests[vcpu].wants_maintenance() {
                    self.guests[vcpu].turn(&mut self.vgic);
                }
            }
        }
        let on = (0..self.vcpus())
            .filter(|vcpu| self.on[*vcpu])
            .fold(0, |set, vcpu| set | 1 << vcpu);
        assert_eq!(
            self.vgic.vcpus_to_plan() & on,
            0,
            "vCPUs kick each other without end"
        );
    }

    /// Interrupts `vcpu` may acknowledge, whatever it is doing: with `alone`, those no other vCPU may.
    pub(super) fn waiting(&self, vcpu: usize, alone: bool) -> impl Iterator<Item = (Key, u8)> {
        self.model
            .iter()
            .filter(move |(at, interrupt)| {
                self.groups
                    && interrupt.is_pending()
                    && interrupt.enabled
                    && !interrupt.active
                    && self.is_mine(vcpu, **at, interrupt)
                    && (!alone || at.1 < 32 || interrupt.targets.len() == 1)
            })
            .map(|(at, interrupt)| (*at, interrupt.priority))
    }

    /// Those that are more urgent than what it is doing.
    pub(super) fn candidates(&self, vcpu: usize, alone: bool) -> impl Iterator<Item = (Key, u8)> {
        let running = self.running[vcpu]
            .last()
            .map_or(0xff, |(_, priority)| *priority);
        self.waiting(vcpu, alone)
            .filter(move |(_, priority)| *priority < running)
    }

    pub(super) fn acknowledge(&mut self, vcpu: usize) {
        self.arrive(vcpu);
        let best = self
            .candidates(vcpu, true)
            .map(|(_, priority)| priority)
            .min();
        let Some(register) = self.guests[vcpu].acknowledge() else {
            assert_eq!(best, None, "vCPU {vcpu} was not given what is pending");
            return;
        };
        let intid = register.vintid.raw();
        let at = key(vcpu, intid);
        let priority = self
            .candidates(vcpu, false)
            .find(|(other, _)| *other == at)
            .map(|(_, priority)| priority);
        assert_eq!(
            priority,
            Some(register.priority),
            "vCPU {vcpu} was given {intid}"
        );
        assert!(
            best.is_none_or(|best| register.priority <= best),
            "something more urgent than {intid} waits"
        );
        let is_v2 = self.version == Version::V2;
        let interrupt = self.interrupt(vcpu, intid);
        if intid < 16 && is_v2 {
            assert!(
                interrupt.sources.remove(&register.source),
                "nobody asked from {}",
                register.source
            );
        }
        interrupt.latch = false;
        interrupt.active = true;
        self.running[vcpu].push((intid, register.priority));
    }

    pub(super) fn end(&mut self, vcpu: usize) {
        self.arrive(vcpu);
        let Some((intid, _)) = self.running[vcpu].pop() else {
            return;
        };
        self.guests[vcpu].end(IntId::new(intid));
        if self.splits_end {
            if self.model[&key(vcpu, intid)].active {
                self.dropped[vcpu].push(intid);
            }
        } else {
            self.interrupt(vcpu, intid).active = false;
        }
    }

    /// `by` deactivates what `of` acknowledged, if that is an SPI or its own. A GICv2's GICC_DIR always comes to EL2, a
    /// GICv3's when the plan says so.
    pub(super) fn deactivate_dropped(&mut self, by: usize, of: usize, which: usize) {
        if self.dropped[of].is_empty() {
            return;
        }
        if !self.splits_end {
            // What it did not acknowledge it ends by the register.
            let intid = self.dropped[of][which % self.dropped[of].len()];
            return self.set_active(if intid < 32 { of } else { by }, intid, false);
        }
        let intid = self.dropped[of][which % self.dropped[of].len()];
        let by = if intid < 32 { of } else { by };
        self.arrive(by);
        self.interrupt(of, intid).active = false;
        self.forget_dropped(of, intid);
        if self.version == Version::V2 || self.guests[by].plan.traps_deactivation {
            let access = self.vgic.deactivation(by).expect("it exists");
            self.write(by, access, u64::from(intid));
        } else {
            self.guests[by].deactivate(IntId::new(intid));
        }
    }

    /// The pending and active registers, as `vcpu` reads them, of all vCPUs where a GICv3 shows them.
    pub(super) fn look(&mut self, vcpu: usize) {
        self.arrive(vcpu);
        for (at, interrupt) in self.model.clone() {
            let reader = if at.1 < 32 { at.0 } else { vcpu };
            if self.version == Version::V2 && reader != vcpu {
                continue;
            }
            for (start, expected, what) in [
                (0x300, interrupt.active, "active"),
                (0x200, interrupt.is_pending(), "pending"),
                (0x100, interrupt.enabled, "enabled"),
            ] {
                let offset = start + u64::from(at.1 / 32 * 4);
                let access = self.register(reader, offset, at.1, Width::Word);
                let bit = self.read(access) & 1 << (at.1 % 32) != 0;
                assert_eq!(bit, expected, "{what} state of {at:?}, read by {vcpu}");
            }
        }
        self.guests[vcpu].exit(&mut self.vgic);
        let (surely, perhaps) = (
            self.waiting(vcpu, true).next().is_some(),
            self.waiting(vcpu, false).next().is_some(),
        );
        let is_pending = self.vgic.is_pending(vcpu);
        assert!(is_pending || !surely, "a reason to wake is overlooked");
        assert!(!is_pending || perhaps, "no reason to wake");
        self.guests[vcpu].enter(&mut self.vgic);
    }
}
