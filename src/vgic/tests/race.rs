//! vCPUs that run while others work on the controller: kicks come late, and what a guest did is known late.
//!
//! What must hold whatever the delay: an edge is delivered at least once after it came and never more often than it came; an
//! SPI is being handled by one vCPU at a time; what a completed write has disabled is not delivered; and when all is quiet
//! nothing is left pending or active.

use super::guest::Guest;
use super::running;
use crate::device::Width;
use crate::vgic::{IntId, Version, Vgic};
use proptest::prelude::*;
use std::collections::BTreeMap;

const VCPUS: usize = 3;
/// Edge-triggered.
const SPIS: [u32; 3] = [40, 41, 70];
const SGI: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Edge(u32),
    Sgi {
        from: usize,
        to: usize,
    },
    Enable {
        by: usize,
        spi: u32,
        on: bool,
    },
    Route {
        by: usize,
        spi: u32,
        to: usize,
    },
    Acknowledge(usize),
    End(usize),
    /// The kick has arrived.
    Turn(usize),
    Move(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vcpu = 0..VCPUS;
    let spi = prop::sample::select(SPIS.as_slice());
    let step = prop_oneof![
        4 => spi.clone().prop_map(Step::Edge),
        4 => (vcpu.clone(), vcpu.clone()).prop_map(|(from, to)| Step::Sgi { from, to }),
        1 => (vcpu.clone(), spi.clone(), any::<bool>())
            .prop_map(|(by, spi, on)| Step::Enable { by, spi, on }),
        2 => (vcpu.clone(), spi, vcpu.clone()).prop_map(|(by, spi, to)| Step::Route { by, spi, to }),
        8 => vcpu.clone().prop_map(Step::Acknowledge),
        6 => vcpu.clone().prop_map(Step::End),
        4 => vcpu.clone().prop_map(Step::Turn),
        1 => vcpu.prop_map(Step::Move),
    ];
    prop::collection::vec(step, 1..200)
}

/// What happened to one interrupt: of an SGI, at one vCPU.
#[derive(Default)]
struct History {
    raised: usize,
    acknowledged: usize,
    /// Raised since it was acknowledged last.
    is_owed: bool,
    is_disabled: bool,
    handled_by: Option<usize>,
}

struct World {
    vgic: Vgic,
    version: Version,
    guests: Vec<Guest>,
    histories: BTreeMap<(usize, u32), History>,
    handling: Vec<Vec<u32>>,
}

impl World {
    fn new(version: Version, list_registers: usize) -> Self {
        let mut vgic = running(version, VCPUS);
        for offset in [0xc08, 0xc0c, 0xc10, 0xc14] {
            vgic.write_distributor(0, offset, Width::Word, 0xaaaa_aaaa);
        }
        let mut guests: Vec<_> = (0..VCPUS)
            .map(|vcpu| Guest::new(vcpu, list_registers))
            .collect();
        guests.iter_mut().for_each(|guest| guest.turn(&mut vgic));
        Self {
            vgic,
            version,
            guests,
            histories: BTreeMap::new(),
            handling: vec![Vec::new(); VCPUS],
        }
    }

    fn history(&mut self, vcpu: usize, intid: u32) -> &mut History {
        let vcpu = if intid < 32 { vcpu } else { 0 };
        self.histories.entry((vcpu, intid)).or_default()
    }

    fn raise(&mut self, vcpu: usize, intid: u32) {
        let history = self.history(vcpu, intid);
        history.raised += 1;
        history.is_owed = true;
    }

    /// A write by a vCPU, complete as EL2 makes it so.
    fn write(&mut self, by: usize, offset: u64, width: Width, value: u64) {
        let Some(access) = self.vgic.distributor(by, offset, width) else {
            return;
        };
        let asked = self.vgic.depends_on(access, Some(value));
        self.each(asked, Guest::exit);
        let holders = self.vgic.holders(access, value);
        self.vgic.write(access, value);
        self.each(holders, Guest::enter);
        self.guests[by].enter(&mut self.vgic);
    }

    fn each(&mut self, set: u64, act: fn(&mut Guest, &mut Vgic)) {
        for vcpu in 0..VCPUS {
            if set & 1 << vcpu != 0 {
                act(&mut self.guests[vcpu], &mut self.vgic);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Edge(spi) => {
                self.raise(0, spi);
                self.vgic.set_line(IntId::new(spi), true);
                self.vgic.set_line(IntId::new(spi), false);
            }
            Step::Sgi { from, to } => {
                self.raise(to, SGI);
                match self.version {
                    Version::V2 => {
                        let value = 1 << (16 + to) | u64::from(SGI);
                        self.write(from, 0xf00, Width::Word, value);
                    }
                    Version::V3 => {
                        self.vgic.write_sgi1r(from, u64::from(SGI) << 24 | 1 << to);
                        self.guests[from].enter(&mut self.vgic);
                    }
                }
            }
            Step::Enable { by, spi, on } => {
                self.history(0, spi).is_disabled = !on;
                let start = if on { 0x100 } else { 0x180 };
                let offset = start + u64::from(spi / 32 * 4);
                self.write(by, offset, Width::Word, 1 << (spi % 32));
            }
            Step::Route { by, spi, to } => {
                let spi = u64::from(spi);
                self.write(by, 0x800 + spi, Width::Byte, 1 << to);
                self.write(by, 0x6000 + 8 * spi, Width::Double, to as u64);
            }
            Step::Acknowledge(vcpu) => self.acknowledge(vcpu),
            Step::End(vcpu) => {
                if let Some(intid) = self.handling[vcpu].pop() {
                    self.guests[vcpu].end(IntId::new(intid));
                    self.history(vcpu, intid).handled_by = None;
                }
            }
            Step::Turn(vcpu) => self.guests[vcpu].turn(&mut self.vgic),
            Step::Move(vcpu) => {
                self.guests[vcpu].timer_asserted = false;
                self.guests[vcpu].leave(&mut self.vgic);
                self.guests[vcpu].enter(&mut self.vgic);
            }
        }
        // A maintenance interrupt takes its vCPU out at once.
        for guest in &mut self.guests {
            if guest.wants_maintenance() {
                guest.turn(&mut self.vgic);
            }
        }
    }

    fn acknowledge(&mut self, vcpu: usize) {
        let Some(register) = self.guests[vcpu].acknowledge() else {
            return;
        };
        let intid = register.vintid.raw();
        let history = self.history(vcpu, intid);
        history.acknowledged += 1;
        history.is_owed = false;
        assert!(
            history.acknowledged <= history.raised,
            "{intid} is delivered more often than it came"
        );
        assert!(!history.is_disabled, "{intid} is disabled, and delivered");
        assert_eq!(
            history.handled_by.replace(vcpu),
            None,
            "{intid} is handled twice at once"
        );
        self.handling[vcpu].push(intid);
    }

    fn drain(&mut self) {
        for spi in SPIS {
            self.step(&Step::Enable {
                by: 0,
                spi,
                on: true,
            });
        }
        for _ in 0..20 {
            for vcpu in 0..VCPUS {
                self.step(&Step::Turn(vcpu));
                self.step(&Step::Acknowledge(vcpu));
                self.step(&Step::End(vcpu));
                self.step(&Step::End(vcpu));
            }
        }
        for ((vcpu, intid), history) in &self.histories {
            assert!(
                !history.is_owed,
                "{intid} never came (vCPU {vcpu}, if an SGI)"
            );
            assert_eq!(history.handled_by, None);
        }
        for vcpu in 0..VCPUS {
            self.guests[vcpu].turn(&mut self.vgic);
            assert!(!self.vgic.is_pending(vcpu));
            let active = self.guests[vcpu]
                .registers
                .iter()
                .any(|register| register.state.is_active());
            assert!(!active, "something is stuck active");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn late_kicks_lose_nothing_and_double_nothing(steps in steps(), is_v3: bool, list_registers in 1usize..=4) {
        let version = if is_v3 { Version::V3 } else { Version::V2 };
        let mut world = World::new(version, list_registers);
        for step in &steps {
            world.step(step);
        }
        world.drain();
    }
}
