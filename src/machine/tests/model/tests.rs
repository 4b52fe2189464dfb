//! The model at work: for a fixed budget, or for as long as asked; and histories of bugs that it found.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::action::Action;
use super::guest::Access;
use super::run::{case, report};
use super::setup::{RAM_PAGES, Setup};
use super::weak::Weak;

/// Actions of one history.
const STEPS_PER_CASE: usize = 120;
/// What `cargo test` does: always the same.
const SEED: u64 = 20_261_125;
const STEPS: u64 = 2_400;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is not a number")),
    )
}

/// `make model SEED=… STEPS=…` runs this very test for longer.
#[test]
fn nothing_that_hardware_may_do_breaks_an_invariant() {
    let (asked_seed, asked_steps) = (
        number("FAULTLINE_MODEL_SEED"),
        number("FAULTLINE_MODEL_STEPS"),
    );
    let (first, steps) = (asked_seed.unwrap_or(SEED), asked_steps.unwrap_or(STEPS));
    let weak = Weak::from_environment();
    let mut told = Instant::now();
    for n in 0..steps.div_ceil(STEPS_PER_CASE as u64) {
        let seed = first.wrapping_add(n);
        let (setup, history) = case(seed, STEPS_PER_CASE);
        if let Some(text) = report(setup, seed, weak, &history) {
            panic!("{text}\nTo see it again: make model SEED={seed} STEPS=1");
        }
        if asked_steps.is_some() && told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            let done = (n + 1) * STEPS_PER_CASE as u64;
            let _ = writeln!(
                std::io::stderr(),
                "{:>10}  {done} of {steps} steps, seed {seed}",
                "model"
            );
        }
    }
}

/// What random histories seldom come to, with many seeds: a store that outlives the entry it went through, by every verb
/// that takes the page away.
#[test]
fn a_store_that_lingers_reaches_nobody_elses_page() {
    let setup = Setup {
        cpus: 2,
        stores_linger: true,
        ..PLAIN
    };
    let write = |cpu| (cpu, Action::Guest(0, 0, Access::Write));
    let verbs = [Action::Unmap(0, 0, 1), Action::Replace(0, 0)];
    for (verb, seed) in verbs
        .into_iter()
        .flat_map(|verb| (0..40).map(move |n| (verb, n)))
    {
        let round = [write(1), write(1), write(1), (0, verb), write(0)];
        let history = round.repeat(3);
        if let Some(text) = report(setup, seed, Weak::from_environment(), &history) {
            panic!("{text}");
        }
    }
}

/// Blocks come apart and together in one store under the guests of other CPUs, which may meet both sizes.
#[test]
fn blocks_and_tables_that_take_each_others_place_in_one_store_disturb_no_guest() {
    let setup = Setup {
        cpus: 3,
        fwb: true,
        dic: true,
        granule: 2,
        patience: 4,
        ..PLAIN
    };
    let touch = |cpu, page, access| (cpu, Action::Guest(0, page, access));
    // Each CPU does its own part of it in its own time.
    let round = [
        touch(0, 0, Access::Write),
        (0, Action::Split(0, 0, 512)),
        (0, Action::Coalesce(0)),
        (0, Action::Split(0, 0, 512)),
        (0, Action::Protect(0, 1, 1, 1)),
        (0, Action::Coalesce(0)),
        touch(0, 1, Access::Write),
        (0, Action::Split(0, 0, 512)),
        (0, Action::Age(0, 0, 512)),
        (0, Action::Coalesce(0)),
        touch(1, 0, Access::Write),
        touch(1, 1, Access::Read),
        touch(1, 0, Access::Fetch),
        touch(1, 1, Access::Write),
        touch(2, 1, Access::Fetch),
        touch(2, 0, Access::Read),
        touch(2, 0, Access::Write),
        touch(2, 1, Access::Read),
    ];
    for seed in 0..80 {
        // Now and then on a CPU that can almost do it.
        let bbm = if seed % 4 == 3 { 1 } else { 2 };
        let setup = Setup { bbm, ..setup };
        if let Some(text) = report(setup, seed, Weak::from_environment(), &round.repeat(8)) {
            panic!("{text}");
        }
    }
}

/// Two vCPUs know two pages by one address, and an I-cache that goes by addresses knows nothing of vCPUs.
#[test]
fn no_vcpu_executes_what_another_fetched_at_the_same_address() {
    let setup = Setup {
        vivt: true,
        ..PLAIN
    };
    let fetch = |page| (0, Action::Guest(0, page, Access::Fetch));
    // Where the one has page 0 the other has page 2.
    let history = [
        (0, Action::WriteAndRun(0, 0)),
        fetch(0),
        (0, Action::Switch(0)),
        fetch(2),
    ];
    for seed in 0..20 {
        if let Some(text) = report(setup, seed, Weak::from_environment(), &history.repeat(2)) {
            panic!("{text}");
        }
    }
}

/// A history of a bug that was found: it must not come back.
fn replay(setup: Setup, seed: u64, history: &[(usize, Action)]) {
    if let Some(text) = report(setup, seed, Weak::Sound, &history.to_vec()) {
        panic!("{text}");
    }
}

/// One CPU for which nothing is free.
const PLAIN: Setup = Setup {
    cpus: 1,
    ipa_bits: 32,
    fwb: false,
    idc: false,
    dic: false,
    pipt: false,
    vivt: false,
    hafdbs: 0,
    ttl: false,
    ranges: false,
    stores_linger: false,
    caches_off: 0,
    gigabyte: false,
    granule: 0,
    lazy: false,
    bbm: 0,
    patience: 4,
};

/// A CPU that keeps access flags and dirty state.
const MARKS_DIRTY: Setup = Setup { hafdbs: 2, ..PLAIN };

#[test]
fn a_page_is_replaced_in_a_vm_while_its_cpu_is_on_another_one() {
    let history = [
        (0, Action::Guest(0, 0, Access::Read)),
        (0, Action::Guest(1, 0, Access::Read)),
        (0, Action::Replace(0, 0)),
    ];
    (0..8).for_each(|seed| replay(PLAIN, seed, &history));
}

#[test]
fn what_is_protected_stays_so_where_the_hardware_keeps_dirty_state() {
    let history = [
        (0, Action::Guest(0, 0, Access::Write)),
        (0, Action::StartLog(0)),
        (0, Action::Protect(0, 0, 1, 0b001)),
        (0, Action::Guest(0, 0, Access::Read)),
    ];
    replay(MARKS_DIRTY, 0, &history);
}

/// The hardware noted it in the descriptor, and the descriptor is gone.
#[test]
fn a_store_is_in_the_log_whatever_became_of_its_page() {
    for verb in [
        Action::Unmap(0, 0, 1),
        Action::Protect(0, 0, 1, 0b001),
        Action::Replace(0, 0),
    ] {
        let history = [
            (0, Action::Guest(0, 0, Access::Write)),
            (0, Action::StartLog(0)),
            (0, Action::Guest(0, 0, Access::Write)),
            (0, verb),
            (0, Action::Harvest(0)),
        ];
        (0..8).for_each(|seed| replay(MARKS_DIRTY, seed, &history));
    }
}

/// While one CPU replaces the page another one asks: between the break and the make there is no descriptor that says it.
#[test]
fn a_store_is_in_a_log_that_is_asked_for_while_its_page_is_replaced() {
    let setup = Setup {
        cpus: 2,
        patience: 24,
        ..MARKS_DIRTY
    };
    let write = (0, Action::Guest(0, 0, Access::Write));
    let round = [write, (1, Action::Replace(0, 0)), (0, Action::Harvest(0))];
    let mut history = std::vec![write, (0, Action::StartLog(0))];
    history.extend(round.repeat(4));
    for seed in 0..400 {
        if let Some(text) = report(setup, seed, Weak::from_environment(), &history) {
            panic!("{text}");
        }
    }
}

#[test]
fn a_log_gives_no_right_to_write() {
    let history = [
        (0, Action::Guest(0, 0, Access::Write)),
        (0, Action::Protect(0, 0, 1, 0b001)),
        (0, Action::StartLog(0)),
        (0, Action::Harvest(0)),
    ];
    replay(MARKS_DIRTY, 0, &history);
}

#[test]
fn maintenance_of_a_rom_that_is_not_readable_yet_makes_it_readable() {
    let history = [
        (0, Action::Guest(0, 1023, Access::Read)),
        (0, Action::Protect(0, 0, 1024, 0b110)),
        (0, Action::Guest(0, 1023, Access::Maintain)),
    ];
    replay(PLAIN, 0, &history);
}

#[test]
fn a_block_that_reaches_into_a_rom_is_split_before_it_is_relaxed() {
    let history = [
        (0, Action::MapBlock(0, 1023, false)),
        (0, Action::Guest(0, 513, Access::Write)),
        (0, Action::Guest(0, 1023, Access::Write)),
    ];
    replay(PLAIN, 0, &history);
}

/// Each unmap frees the tables that a permission fault of another CPU may be on its way through.
#[test]
fn no_table_is_freed_under_a_walk() {
    let touch = |cpu, access| (cpu, Action::Guest(0, 0, access));
    let round = [
        (1, Action::Unmap(0, 0, 1)),
        (1, Action::Unmap(0, 0, 1)),
        touch(0, Access::Read),
        touch(0, Access::Write),
        touch(2, Access::Read),
        touch(2, Access::Write),
        touch(3, Access::Read),
        touch(3, Access::Write),
    ];
    let four = Setup {
        cpus: 4,
        ipa_bits: 48,
        lazy: true,
        patience: 3,
        ..PLAIN
    };
    (0..24).for_each(|seed| replay(four, seed, &round.repeat(30)));
}

/// ddcadb297ce5 and 19cffd16ed64 in the handbook: a range verb that stops where somebody was faster leaves rights behind.
#[test]
fn a_verb_goes_on_where_the_hardware_was_faster() {
    let history = [
        (0, Action::Guest(0, 0, Access::Write)),
        (0, Action::Guest(0, 1, Access::Write)),
        (0, Action::Guest(0, 2, Access::Write)),
        (0, Action::Age(0, 0, 3)),
        (0, Action::Protect(0, 0, 3, 0b001)),
    ];
    (0..8).for_each(|seed| replay(MARKS_DIRTY, seed, &history));
}

/// What a walk for one VM's vCPU finds while another VM's tables are in `VTTBR_EL2` for a TLBI is kept as that VM's.
#[test]
fn no_walk_mixes_one_vms_stage_1_with_anothers_stage_2() {
    use Access::{Fetch, Maintain, Read, Write};
    use Action::{Age, Guest, Idle, Protect, Split, Switch, Unmap, WriteAndRun, WriteProtect};
    let setup = Setup {
        cpus: 2,
        ipa_bits: 32,
        fwb: false,
        idc: true,
        dic: false,
        pipt: true,
        vivt: false,
        hafdbs: 1,
        ttl: false,
        ranges: true,
        stores_linger: true,
        caches_off: 0,
        gigabyte: false,
        granule: 2,
        lazy: false,
        bbm: 0,
        patience: 3,
    };
    let history = [
        (0, Split(0, 0, 512)),
        (0, Protect(1, 0, 1024, 1)),
        (1, Guest(0, 3, Write)),
        (1, Switch(0)),
        (1, WriteProtect(0, 0, 3)),
        (1, Guest(0, 513, Fetch)),
        (0, Guest(0, 2, Write)),
        (0, Guest(0, 16, Write)),
        (1, Unmap(0, 510, 4)),
        (1, Unmap(0, 0, 3)),
        (1, Guest(0, 1023, Read)),
        (1, Protect(0, 0, 512, 6)),
        (1, Guest(0, 0, Maintain)),
        (0, Guest(0, 3, Read)),
        (1, Protect(0, 512, 512, 4)),
        (1, Age(0, 1, 1)),
        (1, WriteAndRun(0, 0)),
        (1, Guest(0, 512, Fetch)),
        (1, Split(0, 0, 512)),
        (1, Age(1, 1, 1)),
        (1, Guest(1, 2, Read)),
        (0, Guest(1, 193, Write)),
        (0, Unmap(0, 512, 512)),
        (0, Guest(0, 954, Write)),
        (0, Guest(0, 511, Read)),
        (0, Guest(0, 511, Fetch)),
        (0, Guest(0, 1023, Write)),
        (0, Idle),
        (0, Guest(0, 512, Fetch)),
    ];
    replay(setup, 958_759, &history);
}

/// A gigabyte in one leaf is given, relaxed, taken apart at one end and as a whole, put together, and taken back, while
/// other CPUs are at both of its ends. Where the hardware can do it in place, too.
#[test]
fn a_block_of_a_gigabyte_is_a_block_like_any_other() {
    let touch = |cpu, page, access| (cpu, Action::Guest(0, page, access));
    let (all, last) = ((0, RAM_PAGES), RAM_PAGES - 1);
    let history = [
        touch(0, 1, Access::Write),
        (0, Action::Expect(0, last, 1)),
        (0, Action::StartLog(0)),
        (0, Action::Split(0, all.0, all.1)),
        (0, Action::Harvest(0)),
        (0, Action::StopLog(0)),
        (0, Action::Coalesce(0)),
        (0, Action::Protect(0, 510, 4, 1)),
        touch(0, 1, Access::Fetch),
        (0, Action::Age(0, all.0, all.1)),
        touch(0, last, Access::Write),
        (0, Action::Unmap(0, 510, 4)),
        (0, Action::Unmap(0, all.0, all.1)),
        touch(1, 0, Access::Write),
        touch(1, last, Access::Fetch),
        touch(1, 2, Access::Read),
        touch(1, last, Access::Write),
        touch(2, last, Access::Read),
        touch(2, 511, Access::Write),
        (2, Action::WriteAndRun(0, 0)),
    ];
    for seed in 0..8 {
        let setup = Setup {
            cpus: 3,
            ipa_bits: if seed % 2 == 0 { 40 } else { 48 },
            gigabyte: true,
            granule: 4,
            lazy: seed % 4 < 2,
            bbm: 2,
            fwb: seed >= 4,
            dic: seed >= 4,
            ..PLAIN
        };
        if let Some(text) = report(setup, seed, Weak::from_environment(), &history.to_vec()) {
            panic!("{text}");
        }
    }
}

/// The sizes that it goes through, with nobody else about: also in place, and with no page for the tables that it takes.
#[test]
fn a_gigabyte_comes_apart_and_together_by_its_levels() {
    let (all, middle, last) = (RAM_PAGES, 511, RAM_PAGES - 1);
    let history = [
        (0, Action::Guest(0, 1, Access::Write)),
        (0, Action::Expect(0, last, 1)),
        (0, Action::Starve(0)),
        (0, Action::Split(0, 0, all)),
        (0, Action::Expect(0, last, 1)),
        (0, Action::Feed),
        (0, Action::Split(0, 0, all)),
        (0, Action::Expect(0, last, 2)),
        (0, Action::Coalesce(0)),
        (0, Action::Expect(0, last, 1)),
        // From the first 2 MiB into the last.
        (0, Action::Protect(0, middle, 4, 1)),
        (0, Action::Expect(0, last, 3)),
        (0, Action::Expect(0, middle, 3)),
        (0, Action::Unmap(0, 0, all)),
        (0, Action::Guest(0, last, Access::Fetch)),
        (0, Action::Expect(0, 0, 1)),
    ];
    for in_place in [false, true] {
        let setup = Setup {
            ipa_bits: 48,
            gigabyte: true,
            granule: 4,
            bbm: 2,
            fwb: in_place,
            dic: in_place,
            ..PLAIN
        };
        (0..2).for_each(|seed| replay(setup, seed, &history));
    }
}
