//! The vGIC against a model of the architecture that knows nothing of list registers: one record per interrupt, one
//! sentence of the specification per line. Two vCPUs, one to four list registers each, random guests and devices.
//!
//! What must hold: what a vCPU acknowledges is pending, enabled, for it, not active, and nothing more urgent is; when it
//! acknowledges nothing there is nothing; pending and active registers read as the model says; a physical interrupt is
//! deactivated exactly once.

use super::guest::Guest;
use super::{read, running, write};
use crate::device::Width;
use crate::vgic::{IntId, Version, Vgic};
use proptest::prelude::*;
use std::collections::BTreeSet;

const VCPUS: usize = 2;
/// The virtual timer: its PPI stands for a physical one.
const TIMER: u32 = 27;
const SGIS: [u32; 2] = [1, 2];
const PPIS: [u32; 1] = [20];
const SPIS: [u32; 6] = [32, 33, 34, 64, 65, 95];

/// One interrupt as one vCPU sees it; SPIs are kept once, for all.
#[derive(Clone, Debug, Default)]
struct Interrupt {
    enabled: bool,
    edge: bool,
    line: bool,
    latch: bool,
    /// GICv2 SGIs: who asked.
    sources: BTreeSet<u8>,
    active: bool,
    priority: u8,
    /// vCPUs it may go to.
    targets: BTreeSet<usize>,
}

impl Interrupt {
    fn is_pending(&self) -> bool {
        self.latch || !self.sources.is_empty() || (self.line && !self.edge)
    }
}

/// Interrupts of the model: SPIs under vCPU 0.
type Key = (usize, u32);

fn key(vcpu: usize, intid: u32) -> Key {
    if intid < 32 {
        (vcpu, intid)
    } else {
        (0, intid)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Line(usize, u32, bool),
    Timer(usize, bool),
    Sgi { from: usize, to: usize, number: u32 },
    Enable(usize, u32, bool),
    Pending(usize, u32, bool),
    Active(usize, u32, bool),
    Priority(usize, u32, u8),
    Edge(usize, u32, bool),
    Target(u32, u8),
    Groups(bool),
    Acknowledge(usize),
    End(usize),
    Deactivate(usize, usize),
    Turn(usize),
    Look(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vcpu = 0..VCPUS;
    let wired = prop::sample::select([PPIS.as_slice(), &SPIS].concat());
    let every = prop::sample::select([SGIS.as_slice(), &PPIS, &[TIMER], &SPIS].concat());
    let step = prop_oneof![
        6 => (vcpu.clone(), wired.clone(), any::<bool>()).prop_map(|(v, i, on)| Step::Line(v, i, on)),
        3 => (vcpu.clone(), any::<bool>()).prop_map(|(v, on)| Step::Timer(v, on)),
        3 => (vcpu.clone(), vcpu.clone(), prop::sample::select(SGIS.as_slice()))
            .prop_map(|(from, to, number)| Step::Sgi { from, to, number }),
        1 => (vcpu.clone(), every.clone(), any::<bool>()).prop_map(|(v, i, on)| Step::Enable(v, i, on)),
        2 => (vcpu.clone(), every.clone(), any::<bool>()).prop_map(|(v, i, on)| Step::Pending(v, i, on)),
        1 => (vcpu.clone(), every.clone(), any::<bool>()).prop_map(|(v, i, on)| Step::Active(v, i, on)),
        2 => (vcpu.clone(), every.clone(), any::<u8>()).prop_map(|(v, i, p)| Step::Priority(v, i, p)),
        1 => (vcpu.clone(), wired, any::<bool>()).prop_map(|(v, i, on)| Step::Edge(v, i, on)),
        1 => (prop::sample::select(SPIS.as_slice()), 0u8..4).prop_map(|(i, t)| Step::Target(i, t)),
        1 => any::<bool>().prop_map(Step::Groups),
        12 => vcpu.clone().prop_map(Step::Acknowledge),
        8 => vcpu.clone().prop_map(Step::End),
        8 => (vcpu.clone(), any::<usize>()).prop_map(|(v, n)| Step::Deactivate(v, n)),
        3 => vcpu.clone().prop_map(Step::Turn),
        3 => vcpu.prop_map(Step::Look),
    ];
    prop::collection::vec(step, 1..120)
}

struct World {
    version: Version,
    vgic: Vgic,
    guests: Vec<Guest>,
    timers: [bool; VCPUS],
    model: std::collections::BTreeMap<Key, Interrupt>,
    groups: bool,
    /// Per vCPU, what it acknowledged and did not end: interrupt and priority, the most urgent last.
    running: Vec<Vec<(u32, u8)>>,
    /// Per vCPU, what it dropped the priority of and did not deactivate (EOImode = 1).
    dropped: Vec<Vec<u32>>,
    splits_end: bool,
}

impl World {
    fn new(
        version: Version,
        list_registers: usize,
        splits_end: bool,
        hardware_links: bool,
    ) -> Self {
        let mut model = std::collections::BTreeMap::new();
        let fresh = |edge: bool| Interrupt {
            enabled: true,
            edge,
            priority: 0xa0,
            ..Interrupt::default()
        };
        for vcpu in 0..VCPUS {
            for intid in SGIS {
                model.insert((vcpu, intid), fresh(true));
            }
            for intid in [PPIS[0], TIMER] {
                model.insert((vcpu, intid), fresh(false));
            }
        }
        for intid in SPIS {
            model.insert(
                (0, intid),
                Interrupt {
                    targets: [0].into(),
                    ..fresh(false)
                },
            );
        }
        let mut guests: Vec<_> = (0..VCPUS)
            .map(|vcpu| Guest::new(vcpu, list_registers))
            .collect();
        for guest in &mut guests {
            guest.splits_end = splits_end;
        }
        let vgic = running(version, VCPUS);
        Self {
            version,
            vgic: if hardware_links {
                vgic
            } else {
                vgic.without_hardware_links()
            },
            guests,
            timers: [false; VCPUS],
            model,
            groups: true,
            running: vec![Vec::new(); VCPUS],
            dropped: vec![Vec::new(); VCPUS],
            splits_end,
        }
    }

    fn is_mine(&self, vcpu: usize, at: Key, interrupt: &Interrupt) -> bool {
        if at.1 < 32 {
            at.0 == vcpu
        } else {
            interrupt.targets.contains(&vcpu)
        }
    }

    /// A write by vCPU `vcpu`, which leaves its guest for it, to the frame its registers are in.
    fn write(&mut self, vcpu: usize, start: u64, intid: u32, width: Width, value: u64) {
        self.guests[vcpu].exit(&mut self.vgic);
        match (self.version, intid) {
            (Version::V3, 0..32) => {
                self.vgic.write_redistributor(
                    vcpu as u64 * 0x2_0000 + 0x1_0000 + start,
                    width,
                    value,
                );
            }
            _ => self.vgic.write_distributor(vcpu, start, width, value),
        }
        self.guests[vcpu].enter(&mut self.vgic);
    }

    /// A write to a register with a bit per interrupt.
    fn write_bit(&mut self, vcpu: usize, start: u64, intid: u32) {
        let offset = start + u64::from(intid / 32 * 4);
        self.write(vcpu, offset, intid, Width::Word, 1 << (intid % 32));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Line(vcpu, intid, level) => {
                let interrupt = self.model.get_mut(&key(vcpu, intid)).unwrap();
                interrupt.latch |= interrupt.edge && level && !interrupt.line;
                interrupt.line = level;
                if intid < 32 {
                    self.guests[vcpu].exit(&mut self.vgic);
                    self.vgic.set_private_line(vcpu, IntId::new(intid), level);
                } else {
                    self.vgic.set_line(IntId::new(intid), level);
                }
            }
            Step::Timer(vcpu, level) => {
                self.timers[vcpu] = level;
                self.model.get_mut(&(vcpu, TIMER)).unwrap().line = level;
                self.guests[vcpu].timer_asserted = level;
                // In its handler a guest reprograms the timer without an exit; elsewhere EL2 looks before it can tell.
                if !self.running[vcpu].iter().any(|(intid, _)| *intid == TIMER) {
                    self.guests[vcpu].exit(&mut self.vgic);
                    self.guests[vcpu].enter(&mut self.vgic);
                }
            }
            Step::Sgi { from, to, number } => {
                let target = self.model.get_mut(&(to, number)).unwrap();
                match self.version {
                    Version::V2 => {
                        target.sources.insert(from as u8);
                        self.write(
                            from,
                            0xf00,
                            32,
                            Width::Word,
                            1 << (16 + to) | u64::from(number),
                        );
                    }
                    Version::V3 => {
                        target.latch = true;
                        self.guests[from].exit(&mut self.vgic);
                        self.vgic
                            .write_sgi1r(from, u64::from(number) << 24 | 1 << to);
                    }
                }
            }
            // A GICv2's SGIs are always enabled, and pending per source.
            Step::Enable(_, 0..16, _) if self.version == Version::V2 => {}
            Step::Pending(vcpu, number @ 0..16, on) if self.version == Version::V2 => {
                let sources = &mut self.model.get_mut(&(vcpu, number)).unwrap().sources;
                if on {
                    sources.insert(1);
                } else {
                    sources.remove(&1);
                }
                let start = if on { 0xf20 } else { 0xf10 };
                self.write(vcpu, start + u64::from(number), 32, Width::Byte, 0b10);
            }
            Step::Enable(vcpu, intid, on) => {
                self.model.get_mut(&key(vcpu, intid)).unwrap().enabled = on;
                self.write_bit(vcpu, if on { 0x100 } else { 0x180 }, intid);
            }
            Step::Pending(vcpu, intid, on) => {
                self.model.get_mut(&key(vcpu, intid)).unwrap().latch = on;
                self.settle_remote(vcpu, intid);
                self.write_bit(vcpu, if on { 0x200 } else { 0x280 }, intid);
            }
            Step::Active(vcpu, intid, on) => self.step_active(vcpu, intid, on),
            Step::Priority(vcpu, intid, priority) => {
                self.settle_remote(vcpu, intid);
                // The effect on an active interrupt is not architected.
                let interrupt = self.model.get_mut(&key(vcpu, intid)).unwrap();
                if !interrupt.active {
                    interrupt.priority = priority & 0xf8;
                    self.write(
                        vcpu,
                        0x400 + u64::from(intid),
                        intid,
                        Width::Byte,
                        u64::from(priority),
                    );
                }
            }
            Step::Edge(vcpu, intid, edge) => {
                self.model.get_mut(&key(vcpu, intid)).unwrap().edge = edge;
                self.settle_remote(vcpu, intid);
                let wired = [PPIS.as_slice(), &SPIS].concat();
                let register = intid / 16;
                let value = wired
                    .iter()
                    .filter(|other| {
                        **other / 16 == register && self.model[&key(vcpu, **other)].edge
                    })
                    .fold(0, |value, other| value | 2 << (2 * (other % 16)));
                self.write(
                    vcpu,
                    0xc00 + u64::from(register * 4),
                    intid,
                    Width::Word,
                    value,
                );
            }
            Step::Target(intid, choice) => self.step_target(intid, choice),
            Step::Groups(on) => {
                self.groups = on;
                self.write(0, 0x000, 32, Width::Word, if on { 3 } else { 1 });
            }
            Step::Acknowledge(vcpu) => self.acknowledge(vcpu),
            Step::End(vcpu) => self.end(vcpu),
            Step::Deactivate(vcpu, which) => self.deactivate_dropped(vcpu, which),
            Step::Turn(vcpu) => self.guests[vcpu].turn(&mut self.vgic),
            Step::Look(vcpu) => self.look(vcpu),
        }
        self.settle();
    }

    /// A change by one vCPU to an SPI that another has: real guests order that by themselves.
    fn settle_remote(&mut self, _vcpu: usize, intid: u32) {
        if intid >= 32 {
            for guest in &mut self.guests {
                guest.exit(&mut self.vgic);
            }
        }
    }

    fn step_active(&mut self, vcpu: usize, intid: u32, on: bool) {
        self.settle_remote(vcpu, intid);
        let interrupt = self.model.get_mut(&key(vcpu, intid)).unwrap();
        // Only a guest that deactivates by name can end what it did not acknowledge.
        if on && (!self.splits_end || interrupt.active) {
            return;
        }
        if !on && !self.splits_end {
            return;
        }
        interrupt.active = on;
        if on {
            let owner = interrupt.targets.first().copied().unwrap_or(0);
            let owner = if intid < 32 { vcpu } else { owner };
            self.dropped[owner].push(intid);
        } else {
            let banked = intid < 32;
            for other in (0..VCPUS).filter(|other| !banked || *other == vcpu) {
                self.dropped[other].retain(|dropped| *dropped != intid);
            }
        }
        self.write_bit(vcpu, if on { 0x300 } else { 0x380 }, intid);
    }

    fn step_target(&mut self, intid: u32, choice: u8) {
        self.settle_remote(0, intid);
        let interrupt = self.model.get_mut(&(0, intid)).unwrap();
        match self.version {
            Version::V2 => {
                interrupt.targets = (0..VCPUS).filter(|vcpu| choice & 1 << vcpu != 0).collect();
                self.write(
                    0,
                    0x800 + u64::from(intid),
                    intid,
                    Width::Byte,
                    u64::from(choice),
                );
            }
            Version::V3 => {
                // Aff0 0 or 1, an affinity nobody has, or 1-of-N.
                let route = [0, 1, 0x0100, 1 << 31][usize::from(choice)];
                interrupt.targets = match choice {
                    0 | 1 => [usize::from(choice)].into(),
                    2 => BTreeSet::new(),
                    _ => (0..VCPUS).collect(),
                };
                self.write(
                    0,
                    0x6000 + 8 * u64::from(intid),
                    intid,
                    Width::Double,
                    route,
                );
            }
        }
    }

    /// What happens by itself: kicks, maintenance interrupts, and timers that fire.
    fn settle(&mut self) {
        const TIMER_ID: IntId = IntId::new(TIMER);
        for _ in 0..4 {
            for vcpu in 0..VCPUS {
                if self.timers[vcpu] && !self.guests[vcpu].physical.contains(&TIMER_ID) {
                    self.guests[vcpu].physical_interrupt(&mut self.vgic, TIMER_ID);
                }
                if self.vgic.needs_plan(vcpu) || self.guests[vcpu].wants_maintenance() {
                    self.guests[vcpu].turn(&mut self.vgic);
                }
            }
        }
        assert_eq!(
            self.vgic.vcpus_to_plan(),
            0,
            "vCPUs kick each other without end"
        );
    }

    /// Interrupts `vcpu` may acknowledge: with `alone`, those no other vCPU may.
    fn candidates(&self, vcpu: usize, alone: bool) -> impl Iterator<Item = (Key, u8)> {
        let running = self.running[vcpu]
            .last()
            .map_or(0xff, |(_, priority)| *priority);
        self.model
            .iter()
            .filter(move |(at, interrupt)| {
                self.groups
                    && interrupt.is_pending()
                    && interrupt.enabled
                    && !interrupt.active
                    && interrupt.priority < running
                    && self.is_mine(vcpu, **at, interrupt)
                    && (!alone || at.1 < 32 || interrupt.targets.len() == 1)
            })
            .map(|(at, interrupt)| (*at, interrupt.priority))
    }

    fn acknowledge(&mut self, vcpu: usize) {
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
        let interrupt = self.model.get_mut(&at).unwrap();
        if intid < 16 && self.version == Version::V2 {
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
        let Some((intid, _)) = self.running[vcpu].pop() else {
            return;
        };
        self.guests[vcpu].end(IntId::new(intid));
        if self.splits_end {
            if self.model[&key(vcpu, intid)].active {
                self.dropped[vcpu].push(intid);
            }
        } else {
            self.model.get_mut(&key(vcpu, intid)).unwrap().active = false;
        }
    }

    fn deactivate_dropped(&mut self, vcpu: usize, which: usize) {
        if self.dropped[vcpu].is_empty() {
            return;
        }
        let which = which % self.dropped[vcpu].len();
        let intid = self.dropped[vcpu].swap_remove(which);
        self.model.get_mut(&key(vcpu, intid)).unwrap().active = false;
        if self.guests[vcpu].plan.entry_not_present {
            self.guests[vcpu].exit(&mut self.vgic);
            self.vgic.deactivate(vcpu, IntId::new(intid));
            self.guests[vcpu].enter(&mut self.vgic);
        } else {
            self.guests[vcpu].deactivate(IntId::new(intid));
        }
    }

    /// The pending and active registers, as `vcpu` reads them with all others stopped.
    fn look(&mut self, vcpu: usize) {
        for guest in &mut self.guests {
            guest.exit(&mut self.vgic);
        }
        for (at, interrupt) in self
            .model
            .iter()
            .filter(|(at, _)| at.1 >= 32 || at.0 == vcpu)
        {
            let word = |start: u64| {
                let offset = start + u64::from(at.1 / 32 * 4);
                match (self.version, at.1) {
                    (Version::V3, 0..32) => self.vgic.read_redistributor(
                        vcpu as u64 * 0x2_0000 + 0x1_0000 + offset,
                        Width::Word,
                    ),
                    _ => read(&self.vgic, vcpu, offset),
                }
            };
            let bit = |start: u64| word(start) & 1 << (at.1 % 32) != 0;
            assert_eq!(
                bit(0x200),
                interrupt.is_pending(),
                "pending state of {at:?}"
            );
            assert_eq!(bit(0x300), interrupt.active, "active state of {at:?}");
            assert_eq!(bit(0x100), interrupt.enabled, "enabled state of {at:?}");
        }
    }

    /// Everybody handles everything, lines fall, nothing is left.
    fn drain(&mut self) {
        self.step(&Step::Groups(true));
        for intid in SPIS {
            self.step(&Step::Target(
                intid,
                0b01 & u8::from(self.version == Version::V2),
            ));
        }
        for vcpu in 0..VCPUS {
            for intid in [SGIS.as_slice(), &PPIS, &[TIMER], &SPIS].concat() {
                self.step(&Step::Enable(vcpu, intid, true));
            }
        }
        for round in 0..200 {
            for vcpu in 0..VCPUS {
                while !self.running[vcpu].is_empty() {
                    self.step(&Step::End(vcpu));
                }
                while !self.dropped[vcpu].is_empty() {
                    self.step(&Step::Deactivate(vcpu, round));
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
        for vcpu in 0..VCPUS {
            self.look(vcpu);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_guest_sees_what_the_architecture_says(
        steps in steps(),
        is_v3: bool,
        list_registers in 1usize..=4,
        splits_end: bool,
        hardware_links: bool,
    ) {
        let version = if is_v3 { Version::V3 } else { Version::V2 };
        let mut world = World::new(version, list_registers, splits_end, hardware_links);
        write(&mut world.vgic, 0, 0x000, 3);
        world.settle();
        for step in &steps {
            world.step(step);
        }
        world.drain();
    }
}
