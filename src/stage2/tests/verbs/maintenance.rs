//! In which parts verbs work, and what maintenance each part ends with.

use super::*;

#[test]
fn ranges_are_worked_through_in_chunks_that_each_end_with_a_broadcast() {
    let mut m = Plain::new(16 * MIB);
    let tree = m.tree(48, 0, 0, 0);
    for page in 0..1500 {
        map(&tree, &mut m, page * PAGE_SIZE, Level::LAST, RW).unwrap();
    }
    let pool = m.pool.clone();
    let before = m.broadcasts;
    let changed = tree.protect(&mut m, range(0, 8 * MIB), Rights::READ, &pool);
    assert_eq!(changed, Ok(1500));
    assert!((3..=5).contains(&(m.broadcasts - before)));
    assert!(
        m.mapped(&tree).iter().all(|run| run.3 >> 7 & 1 == 0),
        "no W is left"
    );
    let before = m.broadcasts;
    assert_eq!(tree.unmap(&mut m, range(0, 8 * MIB), &pool), Ok(1500));
    let chunks = m.broadcasts - before;
    assert!((1500 / 64..1500 / 32).contains(&chunks), "{chunks}");
    end(m, tree);
}

/// FEAT_TTL and FEAT_TLBIRANGE: used where they are, and right where they are not.
#[test]
fn one_leaf_is_named_by_its_level_and_many_by_their_range_where_the_cpu_can() {
    for (ttl, tlb) in [(0, 0), (0, 1), (1, 0), (0, 2), (1, 2)] {
        let mut m = Plain::new(16 * MIB);
        let tree = m.tree(40, 0, ttl, tlb);
        let pool = m.pool.clone();
        map(&tree, &mut m, 4 * MIB, BLOCK_2M, RW).unwrap();
        for page in 0..100 {
            map(&tree, &mut m, page * PAGE_SIZE, Level::LAST, RW).unwrap();
        }
        let mut tlbis = |part, most| {
            m.tlbis.clear();
            tree.protect(&mut m, part, most, &pool).unwrap();
            m.tlbis.clone()
        };
        let hint = |level| {
            if ttl == 1 {
                Ttl::level(level)
            } else {
                Ttl::ANY
            }
        };
        for (ipa, size, level) in [(7 * PAGE_SIZE, PAGE_SIZE, 3), (4 * MIB, 2 * MIB, 2)] {
            let one = tlbis(range(ipa, size), Rights::READ);
            assert_eq!(one[0], Tlbi::Ipas2e1Is(Ipa::new(ipa), hint(level)));
            assert_eq!(one[1..], [Tlbi::Vmalle1Is, Tlbi::RepeatVale2Is]);
        }
        let many = tlbis(range(PAGE_SIZE, 90 * PAGE_SIZE), Rights::NONE);
        if tlb == 2 {
            let Tlbi::Ripas2e1Is(part) = many[0] else {
                panic!("{many:?}")
            };
            assert_eq!(part.start, Ipa::new(PAGE_SIZE));
            assert!(
                (90..90 + 64).contains(&part.pages()),
                "in units of 64 pages"
            );
            assert_eq!(many[1..], [Tlbi::Vmalle1Is, Tlbi::RepeatVale2Is]);
        } else {
            assert_eq!(many, [Tlbi::Vmalls12e1Is, Tlbi::RepeatVale2Is]);
        }
        end(m, tree);
    }
}

/// For another VM than the one that is current, and there too with the repeat of CVE-2025-10263.
#[test]
fn maintenance_for_a_vm_that_does_not_run_here_is_done_under_its_vmid() {
    let (mut m, tree) = world();
    let pool = m.pool.clone();
    m.set_vttbr(0);
    m.tlbis.clear();
    tree.unmap(&mut m, range(5 * GIB, PAGE_SIZE), &pool)
        .unwrap();
    assert_eq!(m.vttbrs, [0, tree.vttbr(), 0]);
    assert_eq!(m.tlbis.last(), Some(&Tlbi::RepeatVale2Is));
    end(m, tree);
}

/// Whatever lies in the range: pages, blocks of either size, or nothing.
#[test]
fn interrupts_are_taken_between_bounded_parts_of_every_range_verb() {
    /// Each descriptor is looked for from the root, and a table that may have become empty is looked through.
    const LOADS: u64 = 512 * 4 + 8 * 512;
    let all = range(0, 8 * GIB);
    type Verb = fn(&mut Plain, &Stage2, IpaRange);
    let verbs: [Verb; 7] = [
        |m, tree, all| {
            let pool = m.pool.clone();
            let _ = tree.split(m, all, BLOCK_2M, &pool);
        },
        |m, tree, all| {
            tree.start_log(m, all).unwrap();
            m.interrupt_window();
            tree.harvest(m, |_| ());
            tree.stop_log(m);
        },
        |m, tree, all| {
            let pool = m.pool.clone();
            let _ = tree.protect(m, all, Rights::READ, &pool);
        },
        |m, tree, all| {
            tree.age(m, all);
        },
        |m, tree, all| {
            tree.leaves(m, all);
        },
        |m, tree, all| {
            let pool = m.pool.clone();
            tree.coalesce(m, all, &pool);
        },
        |m, tree, all| {
            let pool = m.pool.clone();
            let _ = tree.unmap(m, all, &pool);
        },
    ];
    for (n, verb) in verbs.into_iter().enumerate() {
        let (mut m, tree) = world();
        for page in 0..3000 {
            map(&tree, &mut m, 6 * GIB + page * PAGE_SIZE, Level::LAST, RW).unwrap();
        }
        m.interrupt_window();
        m.longest = Default::default();
        verb(&mut m, &tree, all);
        assert!(
            m.longest.loads <= LOADS,
            "verb {n}: {} loads",
            m.longest.loads
        );
        assert!(
            m.longest.zeroed <= 2 * MIB,
            "verb {n}: {} B",
            m.longest.zeroed
        );
        m.interrupt_window();
        m.longest = Default::default();
        let pool = m.pool.clone();
        tree.destroy(&mut m, &pool);
        assert!(
            m.longest.loads <= LOADS,
            "destroy: {} loads",
            m.longest.loads
        );
        assert_eq!(pool.account().taken, 0);
    }
}
