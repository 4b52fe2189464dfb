//! The vGIC against a model of the architecture that knows nothing of list registers: one record per interrupt, one
//! sentence of the specification per line. One to three vCPUs with one to four list registers, random guests and devices,
//! vCPUs that leave their physical CPU and go on elsewhere.
//!
//! What must hold: what a vCPU acknowledges is pending, enabled, for it, not active, and nothing more urgent is; when it
//! acknowledges nothing there is nothing; pending and active registers read as the model says, whoever has the interrupt;
//! a physical interrupt is deactivated exactly once. Only those vCPUs are stopped for an access that the vGIC names.

mod architecture;
mod changes;
mod delivery;
mod step;

use super::guest::Guest;
use super::{running, write};
use crate::device::Width;
use crate::vgic::{Access, IntId, Version, Vgic};
use architecture::{Interrupt, Key, interrupts, key};
use proptest::prelude::*;
use std::collections::BTreeMap;
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
