//! Random touches against a plain map from IPA to page and rights.

use std::collections::BTreeMap;

use super::world::{RAM_START, Setup, World, coherence};
use crate::addr::Pa;
use crate::exit::Need;
use crate::fault::RightsPolicy;
use crate::features::Coherence;
use crate::stats::Count;
use proptest::prelude::*;

const NEEDS: [Need; 3] = [Need::Read, Need::Write, Need::Execute];

/// What the policy gives for one touch, spelled out: R, W, X.
fn given(policy: RightsPolicy, dic: bool, need: Need, is_first: bool) -> [bool; 3] {
    match policy {
        RightsPolicy::Eager => [true, true, need == Need::Execute || (dic && is_first)],
        RightsPolicy::Lazy => [true, need == Need::Write, need == Need::Execute],
    }
}

fn world(rights: RightsPolicy, coherence: Coherence, highest: u64) -> World {
    Setup {
        rights,
        coherence,
        highest,
        ..Setup::default()
    }
    .build()
}

/// Pages on both sides of table boundaries, neighbours, and the last of RAM.
const PAGES: [u64; 7] = [0, 1, 511, 512, 513, 0x3c00, 0x3fff];
/// 32, 36, 40, 42, 44 and 48 bits.
const HIGHEST: [u64; 6] = [0xffff_ffff, 1 << 35, 1 << 39, 1 << 41, 1 << 43, 1 << 47];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn the_tree_equals_the_model_after_every_touch(
        touches in proptest::collection::vec((0usize..7, 0usize..3, 0u64..4096), 1..24),
        cache_rules in 0u32..16,
        eager: bool,
        size in 0usize..6,
    ) {
        let policy = if eager { RightsPolicy::Eager } else { RightsPolicy::Lazy };
        let rules = coherence(cache_rules);
        let mut world = world(policy, rules, HIGHEST[size]);
        let mut model: BTreeMap<u64, (Pa, [bool; 3])> = BTreeMap::new();
        let (mut translation, mut permission, mut icache, mut relaxed) = ([0; 3], [0; 3], 0, [0; 3]);
        for (page, need, offset) in touches {
            let ipa = RAM_START + PAGES[page] * 4096;
            let need = NEEDS[need];
            let known = model.get(&ipa).copied();
            let faults = world.touch(ipa + offset, need);
            let after = match known {
                None => {
                    translation[need as usize] += 1;
                    given(policy, rules.dic, need, true)
                }
                Some((_, had)) if had[need as usize] => had,
                Some((_, had)) => {
                    permission[need as usize] += 1;
                    let more = given(policy, rules.dic, need, false);
                    let both: [bool; 3] = std::array::from_fn(|n| had[n] || more[n]);
                    (0..3).for_each(|n| relaxed[n] += u64::from(both[n] && !had[n]));
                    both
                }
            };
            let gained_x = after[2] && !known.is_some_and(|(_, had)| had[2]);
            icache += u64::from(gained_x && !rules.dic);
            let enough = known.is_some_and(|(_, had)| had[need as usize]);
            prop_assert_eq!(faults, u32::from(!enough), "one fault where something is wanting, none elsewhere");
            let (pa, rights) = world.m.translate(ipa).unwrap();
            prop_assert_eq!(rights, after);
            if let Some((before, _)) = known {
                prop_assert_eq!(pa, before, "the output address stays");
            } else {
                prop_assert!(model.values().all(|(other, _)| *other != pa), "a page has one owner");
                prop_assert!(world.m.page(pa).iter().all(|byte| *byte == 0));
            }
            model.insert(ipa, (pa, after));
            prop_assert_eq!(world.m.mapped().len(), model.len(), "no other page appeared");
            for (ipa, leaf) in &model {
                prop_assert_eq!(world.m.translate(*ipa), Some(*leaf));
            }
            prop_assert!(world.nothing_leaked());
        }
        let counters = &world.vcpu.counters;
        prop_assert_eq!(counters.translation.each_ref().map(Count::get), translation);
        prop_assert_eq!(counters.permission.each_ref().map(Count::get), permission);
        prop_assert_eq!(counters.relaxed.each_ref().map(Count::get), relaxed);
        prop_assert_eq!(counters.icache.get(), icache);
        prop_assert_eq!(counters.mapped.get(), model.len() as u64);
        prop_assert_eq!(counters.dcache.get(), if rules.fwb { 0 } else { model.len() as u64 });
        prop_assert_eq!(counters.tlbi.get(), permission.iter().sum::<u64>());
        prop_assert_eq!((counters.sufficient.get(), counters.cross_check.get()), (0, 0));
        world.end();
    }
}

/// The founding bug's own sequence: read a page, then execute it.
#[test]
fn read_then_fetch_takes_two_faults_at_most_and_ends_executable() {
    for bits in 0..16 {
        for policy in [RightsPolicy::Eager, RightsPolicy::Lazy] {
            let rules = coherence(bits);
            let mut world = world(policy, rules, 0xffff_ffff);
            let faults = world.touch(RAM_START, Need::Read) + world.touch(RAM_START, Need::Execute);
            let spared = rules.dic && policy == RightsPolicy::Eager;
            assert_eq!(faults, if spared { 1 } else { 2 }, "{rules:?} {policy:?}");
            let (pa, rights) = world.m.translate(RAM_START).unwrap();
            assert!(rights[0] && rights[2]);
            assert_eq!(
                world.touch(RAM_START, Need::Read) + world.touch(RAM_START, Need::Execute),
                0
            );
            assert_eq!(world.m.translate(RAM_START).unwrap().0, pa);
            world.end();
        }
    }
}

/// A15f693935a9 in the handbook: a write fault must not take X away.
#[test]
fn writing_and_executing_in_turn_costs_no_more_faults_once_all_is_granted() {
    let mut world = World::new();
    for need in NEEDS {
        world.touch(RAM_START, need);
    }
    for _ in 0..16 {
        assert_eq!(
            world.touch(RAM_START, Need::Write) + world.touch(RAM_START, Need::Execute),
            0
        );
    }
    world.end();
}
