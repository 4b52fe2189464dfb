//! Modules are mapped where the boot loader put them, and copied when they are written. The machine panics if anybody
//! writes to one.

use std::vec::Vec;

use super::world::{RAM_START, Setup, TestVcpu, World, coherence};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa};
use crate::content::{Content, Source};
use crate::exit::Need;
use crate::fault::{GranulePolicy, Resolution, RightsPolicy, Stop};
use crate::machine::recorder::{Recorder, abort};

const BLOCK: u64 = 2 << 20;
const MODULE: Pa = Pa::new(0x7_0000_0000);
/// A block, a page and a bit.
const SIZE: u64 = BLOCK + PAGE_SIZE + 5;
/// CPUs that ask for everything, for nothing, and for one thing each.
const RULES: [u32; 4] = [0, 0b1000, 0b0111, 0b1110];

fn bytes() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| (0..SIZE).map(|n| (n ^ n >> 11) as u8 | 1).collect())
}

/// A module at `at`, for the guest at the start of its RAM.
fn world(setup: Setup, at: Pa) -> World {
    setup.build_with(|m, _| {
        m.add_module(at, bytes().to_vec());
        let range = IpaRange::new(Ipa::new(RAM_START), SIZE).unwrap();
        Vec::from([Content::new(range, Source::Memory(at))])
    })
}

fn setup(granule: GranulePolicy) -> Setup {
    Setup {
        granule,
        pages: 512 + 64,
        ..Setup::default()
    }
}

fn holds(world: &mut World, ipa: u64) -> bool {
    let (pa, _) = world.m.translate(ipa).unwrap();
    let from = (ipa - RAM_START) as usize;
    world.m.page(pa) == &bytes()[from..from + PAGE_SIZE as usize]
}

#[test]
fn what_a_guest_only_reads_and_runs_is_not_copied() {
    for (granule, count) in [
        (GranulePolicy::Page, 1),
        (GranulePolicy::Neighbours, 16),
        (GranulePolicy::Block2M, 512),
        (GranulePolicy::Block1G, 512),
    ] {
        for bits in RULES {
            for need in [Need::Read, Need::Execute] {
                let mut world = world(
                    Setup {
                        coherence: coherence(bits),
                        // Pages are lent to those who get each right when it is wanted; blocks always.
                        rights: if count == 512 {
                            RightsPolicy::Eager
                        } else {
                            RightsPolicy::Lazy
                        },
                        ..setup(granule)
                    },
                    MODULE,
                );
                world.touch(RAM_START + 0x2_1234, need);
                let (pa, rights) = world.m.translate(RAM_START + 0x2_1000).unwrap();
                assert_eq!(pa, MODULE.add(0x2_1000));
                assert!(rights[0] && !rights[1]);
                assert_eq!(world.m.mapped().len(), count, "{granule}");
                assert_eq!(world.vcpu.counters.lent, count as u64);
                assert_eq!(
                    world.shared.stage2.page_count(),
                    0,
                    "the tree owns none of it"
                );
                world.touch(RAM_START + 0x2_1234, Need::Execute);
                assert!(holds(&mut world, RAM_START + 0x2_1000));
                world.end();
            }
        }
    }
}

/// With eager rights a page is writable from its first touch, so it is copied at once: Linux writes three of four anyway.
#[test]
fn with_eager_rights_a_page_is_the_guests_own_from_the_start() {
    for granule in [GranulePolicy::Page, GranulePolicy::Neighbours] {
        let eager = Setup {
            rights: RightsPolicy::Eager,
            ..setup(granule)
        };
        let mut world = world(eager, MODULE);
        world.touch(RAM_START, Need::Read);
        assert_eq!(world.vcpu.counters.lent, 0);
        assert_eq!(world.touch(RAM_START, Need::Write), 0);
        assert!(holds(&mut world, RAM_START));
        world.end();
    }
}

/// A store comes to a copy: of the block where blocks are the policy, else of the page, and the rest stays lent.
#[test]
fn a_store_gets_a_copy_that_can_do_all_the_original_could() {
    for (granule, copied) in [
        (GranulePolicy::Page, 1),
        (GranulePolicy::Neighbours, 1),
        (GranulePolicy::Block2M, 512),
        (GranulePolicy::Block1G, 512),
    ] {
        for bits in RULES {
            for executed in [false, true] {
                let mut world = world(
                    Setup {
                        coherence: coherence(bits),
                        ..setup(granule)
                    },
                    MODULE,
                );
                let ipa = RAM_START + 0x3000;
                world.touch(ipa, if executed { Need::Execute } else { Need::Read });
                let before = world.m.mapped().len();
                assert_eq!(world.touch(ipa, Need::Write), 1);
                let (pa, rights) = world.m.translate(ipa).unwrap();
                assert_ne!(pa, MODULE.add(0x3000));
                assert_eq!(rights, [true, true, executed]);
                assert!(holds(&mut world, ipa));
                assert_eq!(world.shared.stage2.page_count(), copied);
                assert_eq!(world.vcpu.counters.copied, copied);
                assert_eq!(world.m.mapped().len(), before);
                world.m.guest_writes(ipa, b"mine");
                assert_eq!(
                    world.touch(ipa, Need::Read) + world.touch(ipa, Need::Write),
                    0
                );
                // The neighbour, lent or copied, is what it was.
                world.touch(ipa + PAGE_SIZE, Need::Read);
                assert!(holds(&mut world, ipa + PAGE_SIZE));
                world.end();
            }
        }
    }
}

#[test]
fn a_block_is_split_for_a_store_where_the_pool_has_no_block() {
    let mut world = world(
        Setup {
            pages: 20,
            ..setup(GranulePolicy::Block2M)
        },
        MODULE,
    );
    world.touch(RAM_START, Need::Execute);
    assert_eq!(world.m.mapped().len(), 512, "to lend a block takes none");
    assert_eq!(world.touch(RAM_START + 0x5000, Need::Write), 1);
    assert_eq!(world.shared.stage2.page_count(), 1);
    assert_eq!(world.vcpu.counters.split, 1);
    assert_eq!(world.m.mapped().len(), 512);
    for page in [0x4000, 0x6000] {
        let (pa, rights) = world.m.translate(RAM_START + page).unwrap();
        assert_eq!((pa, rights), (MODULE.add(page), [true, false, true]));
    }
    world.end();
}

/// The pool dry at each step of a store to a block that is lent: a clean end, nothing lost, and no loop.
#[test]
fn a_store_without_memory_for_the_copy_stops_the_vm() {
    for free in 0..2 {
        let mut world = world(
            Setup {
                pages: 20,
                ..setup(GranulePolicy::Block2M)
            },
            MODULE,
        );
        world.touch(RAM_START, Need::Read);
        let pool = world.shared.pool.clone();
        let mut held: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
        held.drain(..free)
            .for_each(|page| pool.give(page.into_owned()));
        let answer = world.resolve(&abort(RAM_START, Need::Write, 0x0e));
        assert!(matches!(answer, Resolution::Stop(Stop::OutOfPages { .. })));
        assert!(holds(&mut world, RAM_START));
        held.into_iter()
            .for_each(|page| pool.give(page.into_owned()));
        assert_eq!(world.touch(RAM_START, Need::Write), 1);
        world.end();
    }
}

#[test]
fn a_first_touch_that_writes_gets_its_copy_at_once() {
    for (granule, count) in [(GranulePolicy::Page, 1), (GranulePolicy::Block2M, 512)] {
        let mut world = world(setup(granule), MODULE);
        assert_eq!(world.touch(RAM_START + 0x7000, Need::Write), 1);
        assert_eq!(world.shared.stage2.page_count(), count);
        assert!(holds(&mut world, RAM_START + 0x7000));
        world.end();
    }
}

/// Neither ends of the module nor modules in odd places are lent: they are copied, as ever.
#[test]
fn only_whole_leaves_in_the_right_place_are_lent() {
    for (offset, ipa, lent) in [
        (0, RAM_START, 512),
        (0, RAM_START + BLOCK, 0),
        // In step with pages, not with blocks.
        (0x5000, RAM_START, 0),
        (0x234, RAM_START, 0),
    ] {
        let mut world = world(setup(GranulePolicy::Block2M), MODULE.add(offset));
        world.touch(ipa, Need::Read);
        assert_eq!(world.vcpu.counters.lent, lent, "{offset:#x} {ipa:#x}");
        assert!(holds(&mut world, ipa));
        world.end();
    }
    for (offset, ipa, lent) in [
        (0x5000, RAM_START + 0x1000, 1),
        (0x234, RAM_START, 0),
        (0, RAM_START + BLOCK, 1),
        (0, RAM_START + BLOCK + PAGE_SIZE, 0),
    ] {
        let mut world = world(setup(GranulePolicy::Page), MODULE.add(offset));
        world.touch(ipa, Need::Execute);
        assert_eq!(world.vcpu.counters.lent, lent, "{offset:#x} {ipa:#x}");
        world.end();
    }
}

/// An unpacked kernel is the VM's own, and lent to it all the same: a restart finds it as it was.
#[test]
fn pages_of_the_pool_are_lent_page_by_page() {
    let mut world = setup(GranulePolicy::Page).build_with(|m, pool| {
        let page = |part: &[u8]| pool.take().unwrap().holding(m, part);
        let pages = bytes()[..0x4800]
            .chunks(PAGE_SIZE as usize)
            .map(page)
            .collect();
        let range = IpaRange::new(Ipa::new(RAM_START), 0x4800).unwrap();
        Vec::from([Content::new(range, Source::Pages(pages))])
    });
    world.touch(RAM_START + 0x1000, Need::Execute);
    assert_eq!(world.shared.stage2.page_count(), 0);
    world.touch(RAM_START + 0x4000, Need::Execute);
    assert_eq!(
        world.shared.stage2.page_count(),
        1,
        "the last page is not full"
    );
    let lent = world.m.translate(RAM_START + 0x1000).unwrap().0;
    world.touch(RAM_START + 0x1000, Need::Write);
    let (copy, rights) = world.m.translate(RAM_START + 0x1000).unwrap();
    assert!(copy != lent && rights == [true; 3]);
    world.m.guest_writes(RAM_START + 0x1000, b"mine");
    assert_eq!(world.m.page(lent), &bytes()[0x1000..0x2000]);
    world.end();
}

/// Two vCPUs store to one page that is lent: one copy, and the other's page goes back. (Room for two copies: with less, one
/// would wait at the gate for ever, as both are one thread here.)
#[test]
fn whoever_copies_second_gives_its_page_back() {
    for granule in [GranulePolicy::Page, GranulePolicy::Block2M] {
        for step in 0..2 {
            let roomy = Setup {
                pages: 3 * 512,
                ..setup(granule)
            };
            let mut world = world(roomy, MODULE);
            world.touch(RAM_START, Need::Execute);
            world.m.enter_guest();
            let shared = world.shared.clone();
            let body = move |m: &mut Recorder| {
                m.as_other_cpu(|m| {
                    m.enter_guest();
                    let mut other = TestVcpu::default();
                    if let Err(abort) = m.access(RAM_START, Need::Write) {
                        let answer = shared.resolve(&mut other, &abort, m);
                        assert_eq!(answer, Resolution::Retry);
                    }
                });
            };
            world.m.interfere = Some((step, Box::new(body)));
            assert!(world.touch(RAM_START, Need::Write) <= 2);
            let copied = if granule == GranulePolicy::Page {
                1
            } else {
                512
            };
            assert_eq!(world.shared.stage2.page_count(), copied);
            assert!(world.nothing_leaked());
            assert!(holds(&mut world, RAM_START));
            world.end();
        }
    }
}

#[test]
fn a_walk_of_ours_reads_tables_and_code_that_are_lent() {
    use crate::machine::El1;
    let mut world = Setup {
        rights: RightsPolicy::Lazy,
        ..setup(GranulePolicy::Page)
    }
    .build_with(|m, _| {
        // A level-1 table whose entry 0 points into nothing.
        let mut table = Vec::from(0x1000_0003u64.to_le_bytes());
        table.resize(PAGE_SIZE as usize, 0);
        m.add_module(MODULE, table);
        let range = IpaRange::new(Ipa::new(RAM_START), PAGE_SIZE).unwrap();
        Vec::from([Content::new(range, Source::Memory(MODULE))])
    });
    world.touch(RAM_START, Need::Read);
    world.m.el1[El1::Sctlr as usize] = 1;
    world.m.el1[El1::Tcr as usize] = 25 | 33 << 16 | 0b10 << 30;
    world.m.el1[El1::Ttbr0 as usize] = RAM_START;
    let walk = crate::machine::recorder::abort_with(0x24, 0x07 | 1 << 7, 0x1000, 0x1000_0000);
    let Resolution::Inject(exception) = world.resolve(&walk) else {
        panic!("the walk is found again")
    };
    assert_eq!(super::inject::take(exception, 0x3c5, 0).esr, 0x9600_0016);
    world.end();
}
