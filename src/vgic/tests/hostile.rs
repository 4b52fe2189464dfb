//! Anything, in any order.

use crate::device::Width;
use crate::vgic::{
    Affinity, CpuInterface, IntId, ListRegister, MAX_LIST_REGISTERS, State, Version, Vgic,
};
use proptest::prelude::*;

/// What a hostile guest, and a confused EL2, may do in any order.
#[derive(Clone, Debug)]
enum Act {
    Read(u64, u64),
    Write(u64, u64, u64),
    ReadRedistributor(u64, u64),
    WriteRedistributor(u64, u64, u64),
    Sgi(u64),
    Line(u32, bool),
    PrivateLine(u32, bool),
    Hardware(u32, u32),
    Deactivate(u32),
    Retire(u32),
    Sync(Vec<u64>),
    Plan(usize),
    Again(u32, u64),
    Leave,
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
    let offset = prop_oneof![
        0u64..0x1000,
        0x6000u64..0x8000,
        0xff00u64..0x1_0010,
        any::<u64>()
    ];
    let frame = prop_oneof![0u64..0x6_0010, any::<u64>()];
    let intid = prop_oneof![0u32..100, 1000u32..1100, any::<u32>()];
    let act = prop_oneof![
        (offset.clone(), 0u64..4).prop_map(|(o, w)| Act::Read(o, w)),
        (offset, 0u64..4, any::<u64>()).prop_map(|(o, w, v)| Act::Write(o, w, v)),
        (frame.clone(), 0u64..4).prop_map(|(o, w)| Act::ReadRedistributor(o, w)),
        (frame, 0u64..4, any::<u64>()).prop_map(|(o, w, v)| Act::WriteRedistributor(o, w, v)),
        any::<u64>().prop_map(Act::Sgi),
        (intid.clone(), any::<bool>()).prop_map(|(i, on)| Act::Line(i, on)),
        (intid.clone(), any::<bool>()).prop_map(|(i, on)| Act::PrivateLine(i, on)),
        (intid.clone(), any::<u32>()).prop_map(|(i, p)| Act::Hardware(i, p)),
        intid.clone().prop_map(Act::Deactivate),
        (intid, any::<u64>()).prop_map(|(i, lr)| Act::Again(i, lr)),
        any::<u32>().prop_map(Act::Retire),
        prop::collection::vec(any::<u64>(), 0..20).prop_map(Act::Sync),
        (0usize..20).prop_map(Act::Plan),
        Just(Act::Leave),
    ];
    prop::collection::vec((0usize..4, act), 0..150)
}

proptest! {
    #[test]
    fn nothing_anybody_does_in_any_order_fails(acts in acts(), is_v3: bool, vcpus in 1usize..4, spis in 0usize..=988) {
        let version = if is_v3 { Version::V3 } else { Version::V2 };
        let affinities = [0, 1, 0x100].map(Affinity::from_mpidr);
        let mut vgic = Vgic::new(version, &affinities[..vcpus], spis).unwrap();
        for (vcpu, act) in acts {
            match act {
                Act::Read(offset, sas) => {
                    let width = Width::from_sas(sas);
                    prop_assert_eq!(vgic.read_distributor(vcpu, offset, width) & !width.mask(), 0);
                }
                Act::Write(offset, sas, value) => {
                    if let Some(access) = vgic.distributor(vcpu, offset, Width::from_sas(sas)) {
                        let named = vgic.depends_on(access, Some(value)) | vgic.holders(access, value);
                        prop_assert!(named < 1 << vcpus);
                        vgic.write(access, value);
                    }
                }
                Act::ReadRedistributor(offset, sas) => {
                    let width = Width::from_sas(sas);
                    if let Some(access) = vgic.redistributor(offset, width) {
                        prop_assert!(vgic.depends_on(access, None) < 1 << vcpus);
                    }
                    prop_assert_eq!(vgic.read_redistributor(offset, width) & !width.mask(), 0);
                }
                Act::WriteRedistributor(offset, sas, value) => {
                    vgic.write_redistributor(offset, Width::from_sas(sas), value);
                }
                Act::Sgi(value) => {
                    vgic.write_sgi1r(vcpu, value);
                    vgic.write_sgi0r(vcpu, value);
                    vgic.write_asgi1r(vcpu, value);
                }
                Act::Line(intid, level) => vgic.set_line(IntId::new(intid), level),
                Act::PrivateLine(intid, level) => vgic.set_private_line(vcpu, IntId::new(intid), level),
                Act::Hardware(intid, pintid) => {
                    let _ = vgic.hardware_interrupt(vcpu, IntId::new(intid), IntId::new(pintid));
                }
                Act::Deactivate(intid) => {
                    if let Some(access) = vgic.deactivation(vcpu) {
                        let value = u64::from(intid);
                        prop_assert!(vgic.depends_on(access, Some(value)) < 1 << vcpus);
                        vgic.write(access, value);
                    }
                }
                Act::Leave => vgic.unload(vcpu, |n| assert!(n < MAX_LIST_REGISTERS)),
                Act::Retire(count) => vgic.retire(vcpu, count, &CpuInterface::default()),
                Act::Sync(raw) => {
                    let registers: Vec<_> = raw.iter().map(|raw| ListRegister::from_ich(*raw)).collect();
                    vgic.sync_from(vcpu, |n| registers.get(n).map_or(State::Invalid, |register| register.state));
                }
                Act::Again(intid, raw) => {
                    let state = ListRegister::from_ich(raw).state;
                    let _ = vgic.comes_again(vcpu, (IntId::new(intid), IntId::new(intid)), |_| state);
                    let planned = vgic.plan_latched(vcpu, |_| state);
                    prop_assert!(planned.is_none() || !vgic.needs_plan(vcpu));
                    let _ = vgic.leaves_nothing(vcpu, |_| state);
                }
                Act::Plan(count) => {
                    vgic.plan(vcpu, count, |n, _| assert!(n < MAX_LIST_REGISTERS));
                    prop_assert!(!vgic.needs_plan(vcpu));
                }
            }
            prop_assert!(vgic.vcpus_to_plan() < 1 << vcpus);
            let _ = vgic.highest_pending(vcpu);
            let _ = vgic.is_signalled(vcpu, &CpuInterface::default());
            vgic.unlink(if spis % 7 == 0 { vcpu } else { 9 });
            let owed = std::iter::from_fn(|| vgic.take_deactivation(vcpu)).take(33).count();
            prop_assert!(owed <= 16, "one per PPI at most");
        }
    }
}
