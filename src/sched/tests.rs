//! The scheduler against plain lists, and its promises in every order of events (loom).

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Vcpu {
    number: usize,
    last: usize,
    allowed: u64,
}

impl Task for Vcpu {
    fn last_cpu(&self) -> usize {
        self.last
    }

    fn allowed(&self) -> u64 {
        self.allowed
    }
}

fn vcpu(number: usize, last: usize) -> Vcpu {
    Vcpu {
        number,
        last,
        allowed: u64::MAX,
    }
}

#[cfg(not(loom))]
mod plain {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_ready_vcpu_goes_where_it_ran_unless_another_pcpu_has_nothing_to_do() {
        let scheduler = Scheduler::new(3, 8);
        assert_eq!(scheduler.ready(vcpu(0, 1)), 1, "nobody is known to be idle");
        assert_eq!(scheduler.next(1).map(|vcpu| vcpu.number), Some(0));
        assert_eq!(scheduler.next(2), None);
        assert_eq!(scheduler.ready(vcpu(1, 1)), 2, "2 is idle, 1 is not");
        assert_eq!(scheduler.ready(vcpu(2, 1)), 1, "2 has something now");
        assert!(scheduler.has_waiting(1) && scheduler.has_waiting(2) && !scheduler.has_waiting(0));
    }

    #[test]
    fn a_pcpu_without_work_takes_what_waits_elsewhere_and_may_run_here() {
        let scheduler = Scheduler::new(2, 8);
        let pinned = Vcpu {
            allowed: 0b10,
            ..vcpu(0, 1)
        };
        assert_eq!(scheduler.ready(pinned), 1);
        scheduler.ready(vcpu(1, 1));
        assert_eq!(scheduler.next(0).map(|vcpu| vcpu.number), Some(1));
        assert_eq!(scheduler.next(0), None, "the other is pinned");
        assert_eq!(scheduler.next(1).map(|vcpu| vcpu.number), Some(0));
    }

    #[test]
    fn a_pinned_vcpu_never_goes_to_an_idle_pcpu_it_must_not_run_on() {
        let scheduler = Scheduler::new(2, 8);
        assert_eq!(scheduler.next(0), None);
        let pinned = Vcpu {
            allowed: 0b10,
            ..vcpu(0, 0)
        };
        assert_eq!(scheduler.ready(pinned), 1);
    }

    #[test]
    fn a_vcpu_that_ran_waits_its_turn() {
        let scheduler = Scheduler::new(1, 8);
        (0..3).for_each(|number| {
            scheduler.ready(vcpu(number, 0));
        });
        let mut order = Vec::new();
        for _ in 0..7 {
            let now = scheduler.next(0).unwrap();
            order.push(now.number);
            scheduler.again(0, now);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_wake_up_before_the_second_look_keeps_the_vcpu_awake() {
        let place = Whereabouts::off(7);
        assert_eq!(place.turn_on(|number| *number += 1), Some(8));
        assert_eq!(place.turn_on(|_| ()), None, "it is on");
        place.note_running(3);
        assert_eq!(place.wake(), Wake::Kick(3));
        assert_eq!(place.wait(8, || true), Some(8));
        assert_eq!(place.place(), Place::Ready);
        place.note_running(3);
        assert_eq!(place.wait(8, || false), None);
        assert_eq!(place.wake(), Wake::Ready(8));
        assert_eq!(place.wake(), Wake::Nothing, "once");
    }

    #[test]
    fn a_vcpu_sleeps_when_it_is_off_or_waits_without_a_moment() {
        let place = Whereabouts::off(7);
        assert!(place.sleeps(|_| true), "off");
        let _ = place.turn_on(|_| ());
        assert!(!place.sleeps(|_| false), "ready");
        place.note_running(0);
        assert!(!place.sleeps(|_| false), "it runs");
        assert_eq!(place.wait(7, || false), None);
        assert!(place.sleeps(|_| false) && !place.sleeps(|vcpu| *vcpu == 7));
        assert_eq!(place.wake(), Wake::Ready(7));
        assert!(!place.sleeps(|_| false), "awake");
    }

    #[test]
    fn what_took_the_vcpu_before_the_second_look_has_it() {
        let place = Whereabouts::off(7);
        let _ = place.turn_on(|_| ());
        place.note_running(0);
        let mut taken = None;
        let kept = place.wait(7, || {
            taken = Some(place.wake());
            true
        });
        assert_eq!((kept, taken), (None, Some(Wake::Ready(7))));
    }

    proptest! {
        #[test]
        fn deadlines_come_due_in_their_time_and_once(sets in proptest::collection::vec((0u8..6, proptest::option::of(0u64..50)), 0..60)) {
            let mut deadlines = Deadlines::new(6);
            let mut model = std::collections::BTreeMap::new();
            for (key, at) in sets {
                prop_assert!(deadlines.set(&key, at.unwrap_or(NEVER)));
                match at {
                    Some(at) => model.insert(key, at),
                    None => model.remove(&key),
                };
                prop_assert_eq!(deadlines.earliest(), model.values().min().copied().unwrap_or(NEVER));
            }
            for now in 0..50 {
                while let Some(key) = deadlines.take_due(now) {
                    prop_assert!(model.remove(&key).is_some_and(|at| at <= now));
                }
                prop_assert!(model.values().all(|at| *at > now));
            }
        }
    }
}

#[cfg(loom)]
mod orders {
    use super::*;
    use crate::sync::{AtomicUsize, Ordering};
    use std::sync::Arc;

    /// A device makes an interrupt pending and wakes the vCPU while it goes to sleep: it never sleeps with one pending.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let place = Arc::new(Whereabouts::off(1));
            let _ = place.turn_on(|_| ());
            place.note_running(0);
            let pending = Arc::new(AtomicUsize::new(0));
            let kicked = Arc::new(AtomicUsize::new(0));
            let device = {
                let (place, pending, kicked) = (place.clone(), pending.clone(), kicked.clone());
                loom::thread::spawn(move || {
                    pending.store(1, Ordering::Release);
                    match place.wake() {
                        Wake::Ready(_) => true,
                        Wake::Kick(_) => {
                            kicked.store(1, Ordering::Release);
                            false
                        }
                        Wake::Nothing => false,
                    }
                })
            };
            let runs_on = place
                .wait(1, || pending.load(Ordering::Acquire) != 0)
                .is_some();
            let was_taken = device.join().unwrap();
            assert!(
                runs_on != was_taken,
                "it has exactly one owner, and it is awake"
            );
        });
    }

    /// The same where what is pending has a lock: the vCPU looks once, under it, and goes to sleep before it frees it.
    #[test]
    fn loom_no_wake_up_is_lost_that_has_a_lock() {
        loom::model(|| {
            let place = Arc::new(Whereabouts::off(1));
            let _ = place.turn_on(|_| ());
            place.note_running(0);
            let devices = Arc::new(SpinMutex::new(false));
            let device = {
                let (place, devices) = (place.clone(), devices.clone());
                loom::thread::spawn(move || {
                    *devices.lock() = true;
                    matches!(place.wake(), Wake::Ready(_))
                })
            };
            let runs_on = {
                let is_pending = devices.lock();
                *is_pending || place.wait(1, || false).is_some()
            };
            let was_taken = device.join().unwrap();
            assert!(
                runs_on != was_taken,
                "it has exactly one owner, and it is awake"
            );
        });
    }

    /// Two wake it at once: one of them has it.
    #[test]
    fn loom_two_who_wake_it_do_not_both_have_it() {
        loom::model(|| {
            let place = Arc::new(Whereabouts::off(1));
            let _ = place.turn_on(|_| ());
            assert!(place.wait(1, || false).is_none());
            let other = {
                let place = place.clone();
                loom::thread::spawn(move || matches!(place.wake(), Wake::Ready(_)))
            };
            let mine = matches!(place.wake(), Wake::Ready(_));
            assert!(mine != other.join().unwrap());
        });
    }

    /// A vCPU becomes ready while two pCPUs look for work: one of them gets it, or it is still there and its pCPU was named.
    #[test]
    fn loom_a_ready_vcpu_is_run_or_waits_where_somebody_is_told() {
        loom::model(|| {
            let scheduler = Arc::new(Scheduler::new(2, 2));
            let thief = {
                let scheduler = scheduler.clone();
                loom::thread::spawn(move || scheduler.next(1).is_some())
            };
            let told = scheduler.ready(vcpu(0, 0));
            let stolen = thief.join().unwrap();
            assert_eq!(scheduler.next(told).is_some(), !stolen);
        });
    }
}
