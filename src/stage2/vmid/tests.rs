//! VMIDs held against what TLBs may hold: no VM ever meets entries of another.

#[cfg(not(loom))]
mod desk {
    use crate::features::{Features, IdRegisters};
    use crate::machine::recorder::{Op, Recorder};
    use crate::machine::{Dsb, Ic, Tlbi};
    use crate::stage2::tests::WEAKEST;
    use crate::stage2::vmid::{Vmid, Vmids};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn vmids(mmfr1: u64) -> Vmids {
        Vmids::new(&Features::new(&IdRegisters {
            mmfr1,
            ..IdRegisters::default()
        }))
    }

    /// `ID_AA64MMFR1_EL1.VMIDBits`.
    const SIXTEEN_BITS: u64 = 2 << 4;

    #[test]
    fn every_vmid_but_0_is_handed_out_once_and_then_refused() {
        for (mmfr1, count) in [(0, 255), (SIXTEEN_BITS, 65535)] {
            let (vmids, mut m) = (vmids(mmfr1), Recorder::new(1, WEAKEST));
            let all: Vec<Vmid> = std::iter::from_fn(|| vmids.take(&mut m))
                .take(300)
                .collect();
            let distinct: BTreeSet<u16> = all.iter().map(|vmid| vmid.0).collect();
            assert_eq!(all.len(), 300.min(count));
            assert_eq!(distinct.len(), all.len());
            assert!(!distinct.contains(&0));
            assert!(distinct.iter().all(|vmid| usize::from(*vmid) <= count));
            assert!(m.log.is_empty(), "nothing was used before");
            if count == 255 {
                assert_eq!(vmids.take(&mut m), None);
            }
        }
    }

    /// Handbook 4.1: "All VMIDs (rollover)".
    #[test]
    fn a_new_generation_begins_with_one_broadcast_for_everything() {
        let (vmids, mut m) = (vmids(0), Recorder::new(1, WEAKEST));
        let kept = vmids.take(&mut m).unwrap();
        for _ in 0..254 {
            let vmid = vmids.take(&mut m).unwrap();
            vmids.give(vmid);
        }
        assert!(m.log.is_empty());
        let first = vmids.take(&mut m).unwrap();
        assert_ne!(first, kept, "who lives keeps its VMID");
        assert_eq!(vmids.generation(), 1);
        assert_eq!(
            m.log,
            [
                Op::Dsb(Dsb::IshSt),
                Op::Tlbi(Tlbi::Alle1Is),
                Op::Ic(Ic::AllInnerShareable),
                Op::Dsb(Dsb::Ish),
                Op::Tlbi(Tlbi::RepeatVale2Is),
                Op::Dsb(Dsb::Ish),
                Op::Isb,
            ]
        );
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn giving_a_vmid_back_twice_is_caught() {
        let (vmids, mut m) = (vmids(0), Recorder::new(1, WEAKEST));
        let vmid = vmids.take(&mut m).unwrap();
        vmids.give(vmid);
        vmids.give(vmid);
    }

    proptest! {
        /// Three VMIDs, so that generations are short. A VM leaves entries behind until a broadcast drops them.
        #[test]
        fn no_vm_meets_entries_of_another(ops in proptest::collection::vec(0usize..4, 1..200)) {
            let vmids = Vmids::with_bits(2);
            let (mut live, mut held, mut generations) = (Vec::new(), BTreeSet::new(), 0);
            for op in ops {
                if op < live.len() {
                    vmids.give(live.swap_remove(op));
                } else if let Some(vmid) = vmids.take_with(|| {
                    generations += 1;
                    held = live.iter().map(|vmid: &Vmid| vmid.0).collect();
                }) {
                    prop_assert!((1..4).contains(&vmid.0));
                    prop_assert!(held.insert(vmid.0), "{vmid:?} may have entries of another VM");
                    live.push(vmid);
                } else {
                    prop_assert_eq!(live.len(), 3, "refused only when all are in use");
                }
                prop_assert_eq!(vmids.generation(), generations);
            }
        }
    }
}

/// Two pCPUs make and end VMs at once, with so few VMIDs that every other one begins a generation.
#[cfg(loom)]
mod interleaved {
    use crate::stage2::vmid::{Vmid, Vmids};
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};
    use loom::thread;

    struct World {
        vmids: Vmids,
        /// By VMID: [`LIVE`] and [`ENTRIES`].
        tags: [AtomicU64; 4],
    }

    /// A VM has it.
    const LIVE: u64 = 1;
    /// TLBs may hold entries of it.
    const ENTRIES: u64 = 2;

    impl World {
        fn take(&self) -> Option<Vmid> {
            let vmid = self.vmids.take_with(|| {
                for tag in &self.tags {
                    tag.fetch_and(!ENTRIES, Ordering::SeqCst);
                }
            })?;
            let before = self.tags[usize::from(vmid.0)].fetch_or(LIVE, Ordering::SeqCst);
            assert_eq!(before, 0, "a VM met entries of another");
            Some(vmid)
        }

        fn run_and_end(&self, vmid: Vmid) {
            let tag = &self.tags[usize::from(vmid.0)];
            tag.fetch_or(ENTRIES, Ordering::SeqCst);
            tag.fetch_and(!LIVE, Ordering::SeqCst);
            self.vmids.give(vmid);
        }

        fn lives(&self, count: usize) {
            for _ in 0..count {
                if let Some(vmid) = self.take() {
                    self.run_and_end(vmid);
                }
            }
        }
    }

    #[test]
    fn loom_two_vms_race_into_a_new_generation() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let world = Arc::new(World {
                vmids: Vmids::with_bits(2),
                tags: core::array::from_fn(|_| AtomicU64::new(0)),
            });
            // One lives through all of it and keeps its VMID.
            let kept = world.take().unwrap();
            let other = {
                let world = world.clone();
                thread::spawn(move || world.lives(2))
            };
            world.lives(2);
            other.join().unwrap();
            assert_eq!(
                world.tags[usize::from(kept.0)].load(Ordering::SeqCst) & LIVE,
                LIVE
            );
            assert!(world.vmids.generation() >= 1);
        });
    }
}
