//! The gate alone, then every interleaving of a few pCPUs at it.

#[cfg(not(loom))]
mod desk {
    use crate::stage2::gate::Gate;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn the_generation_moves_when_a_changer_says_so() {
        let gate = Gate::new(2);
        let before = gate.generation();
        drop(gate.close(1));
        assert_eq!(gate.generation(), before);
        gate.close(0).bump();
        let walking = gate.enter(0);
        assert_ne!(gate.generation(), before);
        drop(walking);
    }

    #[test]
    #[should_panic(expected = "inside a gate once")]
    fn a_walker_that_would_wait_for_itself_is_caught() {
        let gate = Gate::new(1);
        let _walking = gate.enter(0);
        let _changing = gate.close(0);
    }

    #[test]
    #[should_panic(expected = "inside a gate once")]
    fn a_changer_that_walks_by_the_gate_is_caught() {
        let gate = Gate::new(1);
        let _changing = gate.close(0);
        let _walking = gate.enter(0);
    }

    /// Two plain numbers that only a changer makes unequal, and only for as long as it is inside.
    #[test]
    fn threads_never_see_a_change_half_made() {
        const ROUNDS: u64 = 20_000;
        let (gate, pair) = (Gate::new(4), [AtomicU64::new(0), AtomicU64::new(0)]);
        let both = || pair.each_ref().map(|half| half.load(Ordering::Relaxed));
        std::thread::scope(|scope| {
            for cpu in 0..2 {
                let (gate, both) = (&gate, &both);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        let _walking = gate.enter(cpu);
                        let [a, b] = both();
                        assert_eq!(a, b);
                    }
                });
            }
            for cpu in 2..4 {
                let (gate, pair) = (&gate, &pair);
                scope.spawn(move || {
                    for _ in 0..ROUNDS / 10 {
                        let changing = gate.close(cpu);
                        for half in pair {
                            half.store(half.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        }
                        changing.bump();
                    }
                });
            }
        });
        assert_eq!(both(), [ROUNDS / 5; 2]);
        assert_eq!(gate.generation(), ROUNDS / 5);
    }
}

/// loom's cell panics where a read and a write of it are not ordered, which is what walking a freed table would be.
#[cfg(loom)]
mod interleaved {
    use crate::stage2::gate::Gate;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, Ordering};
    use loom::thread;

    struct Tree {
        gate: Gate,
        tables: UnsafeCell<()>,
        changes: AtomicU64,
    }

    impl Tree {
        fn new(cpus: usize) -> Arc<Self> {
            Arc::new(Self {
                gate: Gate::new(cpus),
                tables: UnsafeCell::new(()),
                changes: AtomicU64::new(0),
            })
        }

        /// Reads the tables; what it sees is what the last changer left, and of that changer's generation.
        fn walk(&self, cpu: usize) -> u64 {
            let _walking = self.gate.enter(cpu);
            self.tables.with(|_| ());
            let seen = self.changes.load(Ordering::Relaxed);
            assert_eq!(seen, self.gate.generation());
            seen
        }

        fn change(&self, cpu: usize) {
            let changing = self.gate.close(cpu);
            self.tables.with_mut(|_| ());
            let seen = self.changes.load(Ordering::Relaxed);
            self.changes.store(seen + 1, Ordering::Relaxed);
            changing.bump();
        }
    }

    /// Runs `others` on pCPUs 1, 2, … and `own` on pCPU 0, in every order.
    fn explore(others: &'static [fn(&Tree, usize)], own: fn(&Tree, usize), changes: u64) {
        let mut model = loom::model::Builder::new();
        // Three pCPUs that wait for each other have very many orders.
        model.preemption_bound = Some(if others.len() > 1 { 1 } else { 3 });
        model.max_branches = 10_000;
        model.check(move || {
            let tree = Tree::new(others.len() + 1);
            let threads: Vec<_> = others
                .iter()
                .enumerate()
                .map(|(i, run)| {
                    let tree = tree.clone();
                    thread::spawn(move || run(&tree, i + 1))
                })
                .collect();
            own(&tree, 0);
            for thread in threads {
                thread.join().unwrap();
            }
            // Nobody waits for ever (the model would not end), and nobody's change is lost.
            assert_eq!(tree.walk(0), changes);
        });
    }

    fn walk(tree: &Tree, cpu: usize) {
        tree.walk(cpu);
    }

    /// What is seen later is not older.
    fn walk_twice(tree: &Tree, cpu: usize) {
        let first = tree.walk(cpu);
        assert!(first <= tree.walk(cpu));
    }

    fn change(tree: &Tree, cpu: usize) {
        tree.change(cpu);
    }

    fn change_twice(tree: &Tree, cpu: usize) {
        tree.change(cpu);
        tree.change(cpu);
    }

    #[test]
    fn loom_a_walker_never_meets_a_changer() {
        explore(&[walk_twice], change, 1);
    }

    #[test]
    fn loom_two_walkers_never_meet_a_changer() {
        explore(&[walk, walk], change, 1);
    }

    #[test]
    fn loom_two_changers_exclude_each_other() {
        explore(&[change], change, 2);
    }

    /// The second change waits for the walker that the first kept out.
    #[test]
    fn loom_a_walker_gets_its_turn_between_two_changes() {
        explore(&[walk], change_twice, 2);
    }
}
