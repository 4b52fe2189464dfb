//! The vGIC against a model of the architecture that knows nothing of list registers: one record per interrupt, one
//! sentence of the specification per line. One to three vCPUs with one to four list registers, random guests and devices,
//! vCPUs that leave their physical CPU and go on elsewhere.
//!
//! What must hold: what a vCPU acknowledges is pending, enabled, for it, not active, and nothing more urgent is; when it
//! acknowledges nothing there is nothing; pending and active registers read as the model says, whoever has the interrupt;
//! a physical interrupt is deactivated exactly once. Only those vCPUs are stopped for an access that the vGIC names.

mod architecture;
mod step;

use super::guest::Guest;
use super::{running, write};
use crate::device::Width;
use crate::vgic::{Access, IntId, Version, Vgic};
use architecture::{Interrupt, Key, interrupts, key};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use step::{Step, steps};

/// vCPUs at most.
const VCPUS: usize = 3;
/// The virtual timer: its PPI stands for a physical one.
const TIMER: u32 = 27;
const TIMER_ID: IntId = IntId::new(TIMER);
const SGIS: [u32; 2] = [1, 2];
const PPIS: [u32; 1] = [20];
const SPIS: [u32; 6] = [32, 33, 34, 64, 65, 95];

struct World {
    version: Version,
    vgic: Vgic,
    guests: Vec<Guest>,
    /// vCPUs that are on a physical CPU.
    on: Vec<bool>,
    timers: Vec<bool>,
    model: BTreeMap<Key, Interrupt>,
    groups: bool,
    /// Per vCPU, what it acknowledged and did not end: interrupt and priority, the most urgent last.
    running: Vec<Vec<(u32, u8)>>,
    /// Per vCPU, what it dropped the priority of and did not deactivate (EOImode = 1).
    dropped: Vec<Vec<u32>>,
    splits_end: bool,
}

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
struct Kind {
    version: Version,
    vcpus: usize,
    list_registers: usize,
    splits_end: bool,
    hardware_links: bool,
}

impl World {
    fn new(kind: Kind) -> Self {
        let vcpus = kind.vcpus;
        let mut guests: Vec<_> = (0..vcpus)
            .map(|vcpu| Guest::new(vcpu, kind.list_registers))
            .collect();
        for guest in &mut guests {
            guest.splits_end = kind.splits_end;
            guest.timer_asserted = false;
        }
        let vgic = running(kind.version, vcpus).with_unseen_lines(&[TIMER_ID]);
        Self {
            version: kind.version,
            vgic: if kind.hardware_links {
                vgic
            } else {
                vgic.without_hardware_links()
            },
            guests,
            on: vec![true; vcpus],
            timers: vec![false; vcpus],
            model: interrupts(vcpus),
            groups: true,
            running: vec![Vec::new(); vcpus],
            dropped: vec![Vec::new(); vcpus],
            splits_end: kind.splits_end,
        }
    }

    fn vcpus(&self) -> usize {
        self.guests.len()
    }

    fn interrupt(&mut self, vcpu: usize, intid: u32) -> &mut Interrupt {
        self.model.get_mut(&key(vcpu, intid)).unwrap()
    }

    fn is_mine(&self, vcpu: usize, at: Key, interrupt: &Interrupt) -> bool {
        if at.1 < 32 {
            at.0 == vcpu
        } else {
            interrupt.targets.contains(&vcpu)
        }
    }

    /// The vCPU goes on on some physical CPU, if it is on none.
    fn arrive(&mut self, vcpu: usize) {
        self.on[vcpu] = true;
        self.settle();
    }

    /// The register of `vcpu` at `start` in the frame that has `intid`.
    fn register(&self, vcpu: usize, start: u64, intid: u32, width: Width) -> Access {
        let access = match (self.version, intid) {
            (Version::V3, 0..32) => self
                .vgic
                .redistributor(vcpu as u64 * 0x2_0000 + 0x1_0000 + start, width),
            _ => self.vgic.distributor(vcpu, start, width),
        };
        access.expect("a register")
    }

    /// The vCPUs in `set` leave their guests, and what they did is folded in.
    fn recall(&mut self, set: u64) {
        for vcpu in 0..self.vcpus() {
            if set & 1 << vcpu != 0 && self.on[vcpu] {
                self.guests[vcpu].exit(&mut self.vgic);
            }
        }
    }

    fn read(&mut self, access: Access) -> u64 {
        self.recall(self.vgic.depends_on(access, None));
        self.vgic.read(access)
    }

    /// A write by `vcpu`, which leaves its guest for it.
    fn write(&mut self, vcpu: usize, access: Access, value: u64) {
        self.recall(self.vgic.depends_on(access, Some(value)));
        let holders = self.vgic.holders(access, value);
        self.vgic.write(access, value);
        for other in 0..self.vcpus() {
            if self.on[other] && (other == vcpu || holders & 1 << other != 0) {
                self.guests[other].enter(&mut self.vgic);
            }
        }
    }

    /// A write by vCPU `vcpu` to a register, its own or one of all. When it is done no vCPU may still be given what it
    /// forbids.
    fn store(&mut self, vcpu: usize, start: u64, intid: u32, width: Width, value: u64) {
        let access = self.register(vcpu, start, intid, width);
        self.write(vcpu, access, value);
        for other in 0..self.vcpus() {
            for intid in self.guests[other].pending() {
                let at = key(other, intid.raw());
                let interrupt = &self.model[&at];
                assert!(
                    intid == TIMER_ID
                        || interrupt.enabled
                            && interrupt.is_pending()
                            && self.groups
                            && self.is_mine(other, at, interrupt),
                    "vCPU {other} can still be given {intid} after a write to {start:#x} of {value:#x}"
                );
            }
        }
    }

    /// A write to a register with a bit per interrupt.
    fn store_bit(&mut self, vcpu: usize, start: u64, intid: u32) {
        let offset = start + u64::from(intid / 32 * 4);
        self.store(vcpu, offset, intid, Width::Word, 1 << (intid % 32));
    }

    fn step(&mut self, step: &Step) {
        let count = self.vcpus();
        match *step {
            Step::Line(vcpu, intid, level) => {
                let vcpu = vcpu % count;
                self.interrupt(vcpu, intid).drive(level);
                if intid < 32 {
                    self.vgic.set_private_line(vcpu, IntId::new(intid), level);
                } else {
                    self.vgic.set_line(IntId::new(intid), level);
                }
            }
            Step::Timer(vcpu, level) => self.set_timer(vcpu % count, level),
            Step::Sgi { from, to, number } => self.send(from % count, to % count, number),
            Step::Broadcast { from, number } => self.broadcast(from % count, number),
            Step::Enable(vcpu, intid, on) => self.enable(vcpu % count, intid, on),
            Step::Pending(vcpu, intid, on) => self.set_pending(vcpu % count, intid, on),
            Step::Active(vcpu, intid, on) => self.set_active(vcpu % count, intid, on),
            Step::Priority(vcpu, intid, priority) => {
                self.prioritize(vcpu % count, intid, priority);
            }
            Step::Edge(vcpu, intid, edge) => self.configure(vcpu % count, intid, edge),
            Step::Target(vcpu, intid, choice) => self.route(vcpu % count, intid, choice),
            Step::Groups(vcpu, on) => {
                let vcpu = vcpu % count;
                self.arrive(vcpu);
                self.groups = on;
                self.store(vcpu, 0x000, 32, Width::Word, if on { 3 } else { 1 });
            }
            Step::Acknowledge(vcpu) => self.acknowledge(vcpu % count),
            Step::End(vcpu) => self.end(vcpu % count),
            Step::Deactivate(by, of, which) => {
                self.deactivate_dropped(by % count, of % count, which);
            }
            Step::Turn(vcpu) => {
                self.arrive(vcpu % count);
                self.guests[vcpu % count].turn(&mut self.vgic);
            }
            Step::Leave(vcpu) => {
                let vcpu = vcpu % count;
                if self.on[vcpu] {
                    self.guests[vcpu].leave(&mut self.vgic);
                    self.on[vcpu] = false;
                }
            }
            Step::Look(vcpu) => self.look(vcpu % count),
        }
        self.settle();
    }

    fn set_timer(&mut self, vcpu: usize, level: bool) {
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

    fn send(&mut self, from: usize, to: usize, number: u32) {
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

    fn broadcast(&mut self, from: usize, number: u32) {
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

    fn enable(&mut self, vcpu: usize, intid: u32, on: bool) {
        // A GICv2's SGIs are always enabled.
        if intid < 16 && self.version == Version::V2 {
            return;
        }
        self.arrive(vcpu);
        self.interrupt(vcpu, intid).enabled = on;
        self.store_bit(vcpu, if on { 0x100 } else { 0x180 }, intid);
    }

    fn set_pending(&mut self, vcpu: usize, intid: u32, on: bool) {
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
    fn set_active(&mut self, vcpu: usize, intid: u32, on: bool) {
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
    fn forget_dropped(&mut self, vcpu: usize, intid: u32) {
        let banked = intid < 32;
        for other in (0..self.vcpus()).filter(|other| !banked || *other == vcpu) {
            self.dropped[other].retain(|dropped| *dropped != intid);
        }
    }

    fn prioritize(&mut self, vcpu: usize, intid: u32, priority: u8) {
        self.arrive(vcpu);
        // The effect on an active interrupt is not architected.
        let interrupt = self.interrupt(vcpu, intid);
        if !interrupt.active {
            interrupt.priority = priority & 0xf8;
            let offset = 0x400 + u64::from(intid);
            self.store(vcpu, offset, intid, Width::Byte, u64::from(priority));
        }
    }

    fn configure(&mut self, vcpu: usize, intid: u32, edge: bool) {
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

    fn route(&mut self, vcpu: usize, intid: u32, choice: u8) {
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

    /// What happens by itself: kicks, maintenance interrupts, and timers that fire.
    fn settle(&mut self) {
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
    fn waiting(&self, vcpu: usize, alone: bool) -> impl Iterator<Item = (Key, u8)> {
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
    fn candidates(&self, vcpu: usize, alone: bool) -> impl Iterator<Item = (Key, u8)> {
        let running = self.running[vcpu]
            .last()
            .map_or(0xff, |(_, priority)| *priority);
        self.waiting(vcpu, alone)
            .filter(move |(_, priority)| *priority < running)
    }

    fn acknowledge(&mut self, vcpu: usize) {
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

    fn end(&mut self, vcpu: usize) {
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
    fn deactivate_dropped(&mut self, by: usize, of: usize, which: usize) {
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
    fn look(&mut self, vcpu: usize) {
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

    /// Everybody handles everything, lines fall, nothing is left.
    fn drain(&mut self) {
        self.step(&Step::Groups(0, true));
        for intid in SPIS {
            self.step(&Step::Target(
                0,
                intid,
                u8::from(self.version == Version::V2),
            ));
        }
        for vcpu in 0..self.vcpus() {
            for intid in [SGIS.as_slice(), &PPIS, &[TIMER], &SPIS].concat() {
                self.step(&Step::Enable(vcpu, intid, true));
            }
        }
        for round in 0..200 {
            for vcpu in 0..self.vcpus() {
                while !self.running[vcpu].is_empty() {
                    self.step(&Step::End(vcpu));
                }
                while !self.dropped[vcpu].is_empty() {
                    self.step(&Step::Deactivate(vcpu, vcpu, round));
                }
                self.step(&Step::Acknowledge(vcpu));
                if let Some((intid, _)) = self.running[vcpu].last().copied() {
                    match intid {
                        TIMER => self.step(&Step::Timer(vcpu, false)),
                        16.. => self.step(&Step::Line(vcpu, intid, false)),
                        _ => {}
                    }
                }
            }
        }
        for (at, interrupt) in &self.model {
            assert!(!interrupt.active, "{at:?} is stuck active");
            assert!(
                !interrupt.is_pending() || interrupt.priority == 0xff,
                "{at:?} is stuck pending"
            );
        }
        for guest in &self.guests {
            assert!(
                guest.physical.is_empty(),
                "a physical interrupt is stuck active"
            );
        }
        for vcpu in 0..self.vcpus() {
            self.look(vcpu);
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    (
        prop::sample::select(vec![Version::V2, Version::V3]),
        1..=VCPUS,
        1usize..=4,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(version, vcpus, list_registers, splits_end, hardware_links)| Kind {
                version,
                vcpus,
                list_registers,
                splits_end,
                hardware_links,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_guest_sees_what_the_architecture_says(kind in kinds(), steps in steps()) {
        let mut world = World::new(kind);
        write(&mut world.vgic, 0, 0x000, 3);
        world.settle();
        for step in &steps {
            world.step(step);
        }
        world.drain();
    }
}
