//! Power states: alone, on real threads, and (`--cfg loom`) in every order there is.

use super::*;

#[cfg(not(loom))]
mod alone {
    use super::*;
    use std::thread;
    use std::vec::Vec;

    #[test]
    fn the_first_is_on_out_of_reset_and_no_other() {
        let power = Power::new(4);
        let on: Vec<bool> = (0..5).map(|vcpu| power.is_on(vcpu)).collect();
        assert_eq!(on, [true, false, false, false, false]);
    }

    #[test]
    fn only_what_is_there_and_off_can_be_switched_on() {
        let power = Power::new(2);
        assert!(!power.switch_on(0), "it is on");
        assert!(power.switch_on(1));
        assert!(!power.switch_on(1), "it is on by now");
        for nobody in [2, 63, 64, 65, usize::MAX] {
            assert!(!power.switch_on(nobody) && !power.is_on(nobody));
        }
    }

    #[test]
    fn the_last_to_go_is_told_so() {
        let power = Power::new(3);
        assert!(power.switch_on(2));
        assert!(power.switch_off(0), "2 is on");
        assert!(!power.is_on(0));
        assert!(!power.switch_off(2), "nobody is");
    }

    #[test]
    fn a_vm_never_has_more_than_there_are_bits() {
        assert_eq!(Power::new(0).count(), 1);
        assert_eq!(Power::new(1000).count(), 64);
    }

    #[test]
    fn affinities_of_the_17th_and_later_are_in_the_next_cluster() {
        let power = Power::new(20);
        assert_eq!(power.find(0x0f), Some(15));
        assert_eq!(power.find(0x100), Some(16));
        assert_eq!(power.find(0x103), Some(19));
        for nobody in [0x10, 0x104, 0x1_0000, 1 << 32, 1 << 31] {
            assert_eq!(power.find(nobody), None);
        }
    }

    /// Many rounds on real CPUs: one winner each.
    #[test]
    fn of_many_who_switch_one_on_one_wins() {
        for _ in 0..200 {
            let power = Power::new(8);
            let wins: usize = thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| usize::from(power.switch_on(5))))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .sum()
            });
            assert_eq!(wins, 1);
        }
    }
}

#[cfg(loom)]
mod every_order {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn loom_of_two_who_switch_one_on_one_wins() {
        loom::model(|| {
            let power = Arc::new(Power::new(3));
            let other = power.clone();
            let thread = thread::spawn(move || other.switch_on(2));
            let here = power.switch_on(2);
            assert!(thread.join().unwrap() != here);
            assert!(power.is_on(2));
        });
    }

    /// Whoever switches one on finds all that it did before it went off.
    #[test]
    fn loom_off_and_on_again_is_in_order() {
        loom::model(|| {
            let power = Arc::new(Power::new(2));
            assert!(power.switch_on(1));
            let cell = Arc::new(UnsafeCell::new(0));
            let (other, its_cell) = (power.clone(), cell.clone());
            let thread = thread::spawn(move || {
                its_cell.with_mut(|_| ());
                assert!(other.switch_off(1), "0 is on all the time");
            });
            if power.switch_on(1) {
                cell.with_mut(|_| ());
                assert!(power.is_on(1));
            }
            thread.join().unwrap();
        });
    }

    #[test]
    fn loom_of_two_who_go_one_is_the_last() {
        loom::model(|| {
            let power = Arc::new(Power::new(2));
            assert!(power.switch_on(1));
            let other = power.clone();
            let thread = thread::spawn(move || other.switch_off(1));
            let here = power.switch_off(0);
            assert!(thread.join().unwrap() != here);
        });
    }
}
