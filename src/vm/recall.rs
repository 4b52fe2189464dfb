//! Having other vCPUs leave their guests, and what they did there folded into the devices.
//!
//! What a guest does to its list registers is known to its pCPU alone. An access that depends on it asks for it: the asker
//! notes, under the devices' lock, how often each of the others has answered so far; frees the lock, kicks them, and waits until
//! each has been folded in and so answered once more. A vCPU that is kicked answers before it enters its guest again
//! ([`Vm::attend`](super::Vm::attend)); one that leaves its pCPU is folded in anyway.
//!
//! Nobody waits for ever: the asker holds no lock, so whoever it waits for gets on. If that one waits for others itself, it
//! is out of its guest and was folded in before it began to wait, which counts as an answer: so two may ask each other.

use alloc::boxed::Box;

use crate::sync::{AtomicU64, Ordering, spin_loop};
use crate::vgic::MAX_VCPUS;

/// Who is asked, and what was known of them.
pub(super) struct Recall {
    vcpus: u64,
    known: [u64; MAX_VCPUS],
}

/// The vCPUs of a VM, as far as they are asked to leave their guests. Counts change under the devices' lock only.
pub(super) struct Recalls {
    /// How often each was folded in that had been asked for.
    folded: Box<[AtomicU64]>,
    /// Bit per vCPU: it is to be folded in when it is kicked.
    asked: AtomicU64,
    /// Bit per vCPU: it is out of its guest, folded in, and waits for others.
    waiting: AtomicU64,
}

impl Recalls {
    /// For this many vCPUs.
    pub(super) fn new(vcpus: usize) -> Self {
        Self {
            folded: (0..vcpus).map(|_| AtomicU64::new(0)).collect(),
            asked: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        }
    }

    /// Notes that `vcpus`, a bit each, were folded in. Under the devices' lock.
    #[inline]
    pub(super) fn note_folded(&self, vcpus: u64) {
        // Who was not asked for since it was folded in last owes nobody an answer.
        let asked = self.asked.load(Ordering::Relaxed) & vcpus;
        if asked != 0 {
            self.answer(asked);
        }
    }

    #[cold]
    fn answer(&self, vcpus: u64) {
        for (_, count) in self.of(vcpus) {
            let next = count.load(Ordering::Relaxed).wrapping_add(1);
            count.store(next, Ordering::Release);
        }
        self.asked.fetch_and(!vcpus, Ordering::Relaxed);
    }

    /// Asks for `vcpus`, a bit each. Under the devices' lock; they must be kicked after.
    pub(super) fn ask(&self, vcpus: u64) -> Recall {
        let mut known = [0; MAX_VCPUS];
        for (vcpu, count) in self.of(vcpus) {
            if let Some(known) = known.get_mut(vcpu) {
                *known = count.load(Ordering::Relaxed);
            }
        }
        self.asked.fetch_or(vcpus, Ordering::SeqCst);
        Recall { vcpus, known }
    }

    /// Whether `vcpu` was asked for, and not folded in since.
    pub(super) fn is_asked(&self, vcpu: usize) -> bool {
        self.asked.load(Ordering::SeqCst) & bit(vcpu) != 0
    }

    /// Waits for the answer to `recall` on behalf of `own`, which is out of its guest and folded in. `kick` has those asked
    /// look. No lock is held.
    pub(super) fn wait(&self, own: usize, recall: &Recall, kick: impl FnOnce(u64)) {
        self.waiting.fetch_or(bit(own), Ordering::SeqCst);
        kick(recall.vcpus);
        while !self.is_answered(recall) {
            spin_loop();
        }
        self.waiting.fetch_and(!bit(own), Ordering::SeqCst);
    }

    fn is_answered(&self, recall: &Recall) -> bool {
        let waiting = self.waiting.load(Ordering::SeqCst);
        self.of(recall.vcpus & !waiting)
            .all(|(vcpu, count)| Some(&count.load(Ordering::Acquire)) != recall.known.get(vcpu))
    }

    fn of(&self, vcpus: u64) -> impl Iterator<Item = (usize, &AtomicU64)> {
        let mut rest = vcpus;
        core::iter::from_fn(move || {
            let vcpu = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            // None for no bit, and for a vCPU that does not exist, as all after it.
            self.folded.get(vcpu).map(|count| (vcpu, count))
        })
    }
}

/// `vcpu`'s bit in a set of them.
pub(super) const fn bit(vcpu: usize) -> u64 {
    if vcpu < u64::BITS as usize {
        1 << vcpu
    } else {
        0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::vec::Vec;

    #[test]
    fn an_answer_is_a_fold_after_the_question() {
        let recalls = Recalls::new(3);
        recalls.note_folded(0b111);
        let recall = recalls.ask(0b110);
        assert!(recalls.is_asked(1) && recalls.is_asked(2) && !recalls.is_asked(0));
        assert!(!recalls.is_answered(&recall));
        recalls.note_folded(0b010);
        assert!(!recalls.is_answered(&recall) && !recalls.is_asked(1));
        recalls.note_folded(0b100);
        assert!(recalls.is_answered(&recall));
    }

    #[test]
    fn who_waits_has_answered() {
        let recalls = Recalls::new(2);
        let mine = recalls.ask(0b10);
        recalls.waiting.store(0b10, Ordering::SeqCst);
        recalls.wait(0, &mine, |_| ());
    }

    /// Real threads, each a vCPU that asks for all others over and over, and answers when it is asked.
    #[test]
    fn vcpus_that_all_ask_each_other_all_get_on() {
        const VCPUS: usize = 4;
        let recalls = Recalls::new(VCPUS);
        let devices = Mutex::new(());
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..VCPUS)
                .map(|own| {
                    let (recalls, devices, done) = (&recalls, &devices, &done);
                    scope.spawn(move || {
                        for _ in 0..200 {
                            let lock = devices.lock().unwrap();
                            recalls.note_folded(bit(own));
                            let recall = recalls.ask(0b1111 & !bit(own));
                            drop(lock);
                            recalls.wait(own, &recall, |_| ());
                            if recalls.is_asked(own) {
                                let _lock = devices.lock().unwrap();
                                recalls.note_folded(bit(own));
                            }
                        }
                        done.fetch_add(1, Ordering::SeqCst);
                        while done.load(Ordering::SeqCst) != VCPUS as u64 {
                            let _lock = devices.lock().unwrap();
                            recalls.note_folded(bit(own));
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
    }
}

#[cfg(all(test, loom))]
mod orders {
    use super::*;
    use crate::sync::AtomicU64;
    use std::sync::Arc;

    /// In every order with at most two preemptions: the loops of those who wait have no end otherwise.
    fn check(orders: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(orders);
    }

    /// A vCPU works in its guest, is asked, and folds in: the asker sees all of its work up to the question.
    #[test]
    fn loom_an_answer_shows_what_was_done_before_the_question() {
        check(|| {
            let recalls = Arc::new(Recalls::new(2));
            // What vCPU 1's guest did to its list registers, and what of it the devices know, under their lock.
            let hardware = Arc::new(AtomicU64::new(0));
            let devices = Arc::new(loom::sync::Mutex::new(0));
            let guest = {
                let (recalls, hardware, devices) =
                    (recalls.clone(), hardware.clone(), devices.clone());
                loom::thread::spawn(move || {
                    hardware.store(1, Ordering::SeqCst);
                    // It leaves its pCPU, asked or not.
                    let mut known = devices.lock().unwrap();
                    *known = hardware.load(Ordering::SeqCst);
                    recalls.note_folded(0b10);
                })
            };
            let (recall, before) = {
                let known = devices.lock().unwrap();
                let recall = (*known == 0).then(|| recalls.ask(0b10));
                (recall, hardware.load(Ordering::SeqCst))
            };
            if let Some(recall) = recall {
                recalls.wait(0, &recall, |_| ());
                assert!(*devices.lock().unwrap() >= before);
            }
            guest.join().unwrap();
        });
    }

    #[test]
    fn loom_two_that_ask_each_other_both_return() {
        check(|| {
            let recalls = Arc::new(Recalls::new(2));
            let devices = Arc::new(loom::sync::Mutex::new(()));
            let ask = |own: usize, recalls: Arc<Recalls>, devices: Arc<loom::sync::Mutex<()>>| {
                let recall = {
                    let _lock = devices.lock().unwrap();
                    recalls.note_folded(bit(own));
                    recalls.ask(bit(1 - own))
                };
                recalls.wait(own, &recall, |_| ());
                // On the way back into the guest, or out of the pCPU.
                let _lock = devices.lock().unwrap();
                recalls.note_folded(bit(own));
            };
            let other = {
                let (recalls, devices) = (recalls.clone(), devices.clone());
                loom::thread::spawn(move || ask(1, recalls, devices))
            };
            ask(0, recalls, devices);
            other.join().unwrap();
        });
    }
}
