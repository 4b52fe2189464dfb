//! What guests and devices do, one thing at a time.

use super::{PPIS, SGIS, SPIS, TIMER, VCPUS};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Line(usize, u32, bool),
    Timer(usize, bool),
    Sgi {
        from: usize,
        to: usize,
        number: u32,
    },
    Broadcast {
        from: usize,
        number: u32,
    },
    Enable(usize, u32, bool),
    Pending(usize, u32, bool),
    Active(usize, u32, bool),
    Priority(usize, u32, u8),
    Edge(usize, u32, bool),
    Target(usize, u32, u8),
    Groups(usize, bool),
    Acknowledge(usize),
    End(usize),
    /// By one vCPU, of what another may have acknowledged.
    Deactivate(usize, usize, usize),
    Turn(usize),
    Leave(usize),
    Look(usize),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vcpu = 0..VCPUS;
    let wired = prop::sample::select([PPIS.as_slice(), &SPIS].concat());
    let every = prop::sample::select([SGIS.as_slice(), &PPIS, &[TIMER], &SPIS].concat());
    let spi = prop::sample::select(SPIS.as_slice());
    let sgi = prop::sample::select(SGIS.as_slice());
    let changes = prop_oneof![
        6 => (vcpu.clone(), wired.clone(), any::<bool>()).prop_map(|(v, i, on)| Step::Line(v, i, on)),
        3 => (vcpu.clone(), any::<bool>()).prop_map(|(v, on)| Step::Timer(v, on)),
        3 => (vcpu.clone(), vcpu.clone(), sgi.clone())
            .prop_map(|(from, to, number)| Step::Sgi { from, to, number }),
        1 => (vcpu.clone(), sgi).prop_map(|(from, number)| Step::Broadcast { from, number }),
        1 => (vcpu.clone(), every.clone(), any::<bool>()).prop_map(|(v, i, on)| Step::Enable(v, i, on)),
        2 => (vcpu.clone(), every.clone(), any::<bool>()).prop_map(|(v, i, on)| Step::Pending(v, i, on)),
        2 => (vcpu.clone(), every.clone(), any::<bool>()).prop_map(|(v, i, on)| Step::Active(v, i, on)),
        2 => (vcpu.clone(), every, any::<u8>()).prop_map(|(v, i, p)| Step::Priority(v, i, p)),
        1 => (vcpu.clone(), wired, any::<bool>()).prop_map(|(v, i, on)| Step::Edge(v, i, on)),
        1 => (vcpu.clone(), spi, 0u8..8).prop_map(|(v, i, t)| Step::Target(v, i, t)),
        1 => (vcpu.clone(), any::<bool>()).prop_map(|(v, on)| Step::Groups(v, on)),
    ];
    let acts = prop_oneof![
        6 => vcpu.clone().prop_map(Step::Acknowledge),
        4 => vcpu.clone().prop_map(Step::End),
        4 => (vcpu.clone(), vcpu.clone(), any::<usize>())
            .prop_map(|(by, of, which)| Step::Deactivate(by, of, which)),
        1 => vcpu.clone().prop_map(Step::Turn),
        1 => vcpu.clone().prop_map(Step::Leave),
        2 => vcpu.prop_map(Step::Look),
    ];
    let step = prop_oneof![4 => changes, 5 => acts];
    prop::collection::vec(step, 1..150)
}
