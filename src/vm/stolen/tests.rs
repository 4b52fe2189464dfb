//! Stolen time as a guest asks for it and reads it.

use std::vec::Vec;

use crate::addr::{Ipa, Pa};
use crate::stage2::{Leaf, Rights};
use crate::vgic::Version;
use crate::vm::Next;
use crate::vm::stolen::nanoseconds;
use crate::vm::tests::Run;

const PV_TIME_ST: u64 = 0xc500_0021;
const HVC: u64 = 0x16 << 26 | 1 << 25;
const PAGE: u64 = 0x090a_0000;

/// What `PV_TIME_ST` answers to a vCPU.
fn ask(run: &mut Run, vcpu: usize) -> u64 {
    run.vcpu.index = vcpu;
    run.vcpu.registers.x[0] = PV_TIME_ST;
    assert_eq!(run.exit(HVC, 0, 0), Next::Resume);
    run.vcpu.registers.x[0]
}

/// The page as the guest sees it, if it is mapped.
fn page(run: &mut Run) -> Option<(Pa, Rights)> {
    match run.vm.stage2().walk().leaf(&mut run.m, Ipa::new(PAGE)) {
        Leaf::Present(present) => Some((present.output_address(), present.rights())),
        Leaf::Absent(_) => None,
    }
}

/// The 64 bytes of a vCPU: revision and attributes, total, the rest.
fn structure(run: &mut Run, vcpu: usize) -> (u64, u64, Vec<u64>) {
    let (pa, _) = page(run).unwrap();
    let words: Vec<u64> = run.m.page(pa)[64 * vcpu..][..64]
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .collect();
    (words[0], words[1], words[2..].to_vec())
}

#[test]
fn each_vcpu_has_a_structure_of_its_own_in_one_page_that_is_read_only() {
    let mut run = Run::with_vcpus(Version::V3, 3);
    assert_eq!(page(&mut run), None, "who does not ask has no page");
    assert_eq!(ask(&mut run, 2), PAGE + 2 * 64);
    let (pa, rights) = page(&mut run).unwrap();
    assert_eq!(rights, Rights::READ);
    assert_eq!(structure(&mut run, 2), (0, 0, vec![0; 6]));
    assert_eq!(ask(&mut run, 0), PAGE);
    assert_eq!(ask(&mut run, 2), PAGE + 2 * 64);
    assert_eq!(page(&mut run).unwrap().0, pa, "the page stays");
    assert_eq!(run.vm.stage2().page_count(), 1);
}

/// Of the counter of these tests, 1 kHz.
const NS_PER_TICK: u64 = 1_000_000;

#[test]
fn what_was_stolen_is_seen_by_its_vcpu_and_by_no_other() {
    let mut run = Run::with_vcpus(Version::V3, 2);
    run.vm.stolen().add(1, 500, &mut run.m);
    assert_eq!(page(&mut run), None, "nobody looks yet");
    ask(&mut run, 1);
    assert_eq!(
        structure(&mut run, 1).1,
        500 * NS_PER_TICK,
        "from before it asked"
    );
    run.vm.stolen().add(1, 70, &mut run.m);
    run.vm.stolen().add(0, 3, &mut run.m);
    assert_eq!(structure(&mut run, 1), (0, 570 * NS_PER_TICK, vec![0; 6]));
    assert_eq!(structure(&mut run, 0).1, 3 * NS_PER_TICK);
    assert_eq!(run.vm.stolen().total(1), 570);
}

/// However long, and with a counter whose tick is no whole number of ns.
#[test]
fn ticks_become_ns_by_the_frequency_of_the_counter() {
    let day_of_a_pi = 86_400 * 54_000_000;
    assert_eq!(
        nanoseconds(day_of_a_pi + 27, 54_000_000),
        86_400_000_000_500
    );
    assert_eq!(nanoseconds(1, 54_000_000), 18);
    assert_eq!(nanoseconds(u64::MAX, 1_000_000_000), u64::MAX);
    assert_eq!(
        nanoseconds(5, 0),
        5_000_000_000,
        "a broken counter is no reason to stop"
    );
}

#[test]
fn nothing_is_stolen_from_a_vcpu_that_is_not_there() {
    let mut run = Run::with_vcpus(Version::V3, 2);
    ask(&mut run, 0);
    let (pa, _) = page(&mut run).unwrap();
    for nobody in [2, 64, usize::MAX] {
        run.vm.stolen().add(nobody, 1, &mut run.m);
        assert_eq!(run.vm.stolen().total(nobody), 0);
    }
    assert!(run.m.page(pa).iter().all(|byte| *byte == 0));
    assert_eq!(ask(&mut run, 2), u64::MAX);
}

#[test]
fn a_page_that_was_touched_first_is_the_one() {
    let mut run = Run::with_vcpus(Version::V3, 1);
    run.vm.stolen().add(0, 9, &mut run.m);
    // A load from Normal memory, translation fault of level 3.
    assert_eq!(
        run.exit(0x24 << 26 | 1 << 25 | 0x07, PAGE, PAGE),
        Next::Resume
    );
    let touched = page(&mut run).unwrap().0;
    assert_eq!(ask(&mut run, 0), PAGE);
    assert_eq!(page(&mut run).unwrap().0, touched);
    assert_eq!(structure(&mut run, 0).1, 9 * NS_PER_TICK);
}

#[test]
fn without_memory_there_is_no_stolen_time_and_nothing_is_lost() {
    let mut run = Run::with_vcpus(Version::V3, 1);
    let mut hoard: Vec<_> = core::iter::from_fn(|| run.pool.take()).collect();
    for spare in 0..2 {
        assert_eq!(ask(&mut run, 0), u64::MAX, "{spare} pages left");
        assert_eq!(page(&mut run), None);
        assert_eq!(run.pool.account().taken, run.pool.account().total - spare);
        run.pool.give(hoard.pop().unwrap().into_owned());
    }
    hoard
        .drain(..)
        .for_each(|page| run.pool.give(page.into_owned()));
    assert_eq!(ask(&mut run, 0), PAGE);
}
