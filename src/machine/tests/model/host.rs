//! What the host does to VMs while their guests run, and what must hold when it has done it.

use std::collections::BTreeMap;

use super::action::Action;
use super::cpu::Cpu;
use super::guest::Access;
use super::setup::{RAM_PAGES, RAM_START, ROM_PAGE, Setup};
use super::world::{Mapping, Seat, Starved, Translation, Vm, World};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE};
use crate::stage2::{Grant, Leaf, Level, OutOfPages, Replaced, Rights, Tables, clean};

const RW: Rights = Rights::READ.with(Rights::WRITE);
/// Sizes of blocks, the largest first.
const BLOCKS: [u64; 2] = [1 << 30, 2 << 20];

/// The pages `first` to `first + count - 1` of those that are looked at, and what lies in between.
fn pages(setup: &Setup, first: u64, count: u64) -> IpaRange {
    let (first, last) = (setup.place(first), setup.place(first + count - 1));
    let start = Ipa::new(RAM_START + first * PAGE_SIZE);
    IpaRange::new(start, (last + 1 - first) * PAGE_SIZE).unwrap()
}

fn page_range(ipa: Ipa) -> IpaRange {
    IpaRange::new(ipa, PAGE_SIZE).unwrap()
}

/// What a guest may do to data in `range`: no store to what is read-only.
fn most_in(setup: &Setup, range: IpaRange) -> Rights {
    let rom = pages(setup, ROM_PAGE, RAM_PAGES - ROM_PAGE);
    if !setup.gigabyte && range.overlaps(&rom) {
        Rights::READ
    } else {
        RW
    }
}

fn rights(bits: u8) -> Rights {
    let one = |bit: u8, right| {
        if bits >> bit & 1 == 1 {
            right
        } else {
            Rights::NONE
        }
    };
    one(0, Rights::READ)
        .with(one(1, Rights::WRITE))
        .with(one(2, Rights::EXECUTE))
}

/// A VM's translation before a verb and after it, and whether it was alone.
struct Seen {
    before: Translation,
    after: Translation,
    range: IpaRange,
}

impl Seen {
    fn inside(&self) -> impl Iterator<Item = &Mapping> {
        let is_inside = |(ipa, _): &(&u64, &Mapping)| self.range.contains(Ipa::new(**ipa));
        self.after
            .pages
            .iter()
            .filter(is_inside)
            .map(|(_, mapping)| mapping)
    }

    /// I1: outside the range everything goes where it went, with the rights that it had.
    fn check_outside(&self) {
        let outside = |map: &BTreeMap<u64, Mapping>| -> BTreeMap<u64, (u64, [bool; 3])> {
            let is_outside = |(ipa, _): &(&u64, &Mapping)| !self.range.contains(Ipa::new(**ipa));
            map.iter()
                .filter(is_outside)
                .map(|(ipa, (pa, rights, _))| (*ipa, (*pa, *rights)))
                .collect()
        };
        assert!(
            outside(&self.before.pages) == outside(&self.after.pages),
            "I1, a verb changed more than its range"
        );
    }

    /// The same memory, and no right that was not there.
    fn check_same_memory(&self) {
        assert_eq!(
            (self.before.pages.len(), self.before.own_pages),
            (self.after.pages.len(), self.after.own_pages),
            "I1, something is gone or new"
        );
        for ((ipa, (pa, had, _)), (_, (now, has, _))) in
            self.before.pages.iter().zip(&self.after.pages)
        {
            assert_eq!(pa, now, "I1, {ipa:#x} goes elsewhere");
            assert!(
                (0..3).all(|n| had[n] || !has[n]),
                "I4, {ipa:#x} got rights: {had:?} to {has:?}"
            );
        }
    }
}

impl World {
    /// Does `action` on CPU `m`.
    pub(super) fn act(&self, action: Action, seats: &mut [Seat], m: &mut Cpu) {
        match action {
            Action::Starve(left) => return self.starve(left as u64),
            Action::Feed => return self.feed(),
            Action::Idle => {
                let coherence = self.setup.coherence();
                for _ in 0..3 {
                    clean::prepare(m, &self.pool, &coherence);
                }
                return;
            }
            Action::Recreate(n) => {
                if self.destroy(n, m) {
                    self.feed();
                    self.create(n, m);
                    seats[n] = Seat::default();
                }
                return;
            }
            _ => {}
        }
        let (Action::Guest(n, ..)
        | Action::WriteAndRun(n, _)
        | Action::Caches(n)
        | Action::Switch(n)
        | Action::Window(n, ..)
        | Action::Unmap(n, ..)
        | Action::Protect(n, ..)
        | Action::WriteProtect(n, ..)
        | Action::Age(n, ..)
        | Action::Split(n, ..)
        | Action::Coalesce(n)
        | Action::Replace(n, _)
        | Action::MapBlock(n, ..)
        | Action::Expect(n, ..)
        | Action::StartLog(n)
        | Action::Harvest(n)
        | Action::StopLog(n)) = action
        else {
            return;
        };
        let Some(vm) = self.vm(n) else { return };
        let seat = &mut seats[n];
        match action {
            // A walk that cannot set its flag in a ROM is told to the guest by its own tables, of which there are none here.
            Action::Guest(_, page, Access::WalkUpdate) if self.setup.is_rom(page) => {
                self.access(&vm, seat, page, Access::Read, m);
            }
            Action::Guest(_, page, access) => self.access(&vm, seat, page, access, m),
            Action::Window(_, page, access) => self.window(&vm, seat, page, access, m),
            Action::Switch(_) => self.switch(&vm, seat, m),
            Action::WriteAndRun(_, page) if !self.setup.is_rom(page) => {
                for access in [Access::Write, Access::Maintain, Access::Fetch] {
                    self.access(&vm, seat, page, access, m);
                }
            }
            Action::WriteAndRun(..) => {}
            // What was fetched with other attributes is the guest's own to forget.
            Action::Caches(_) => {
                seat.vcpu().caches_off ^= true;
                self.lab.hardware().pes[m.index].icache.clear();
            }
            Action::Expect(_, page, expected) => {
                let ipa = pages(&self.setup, page, 1).start.raw();
                let leaf = self.lab.hardware().live_leaf(vm.tree, ipa);
                if let Some((_, level)) = leaf {
                    assert_eq!(level, expected, "the level of the leaf for {ipa:#x}");
                }
            }
            Action::MapBlock(_, page, executes) => self.map_block(&vm, page, executes, m),
            Action::StartLog(_) | Action::Harvest(_) | Action::StopLog(_) => {
                self.log(&vm, action, m)
            }
            verb => self.verb(&vm, verb, m),
        }
    }

    fn starve(&self, left: u64) {
        self.feed();
        // Nothing is locked meanwhile: to take the last page may mean to wait for another CPU.
        let mut taken = Starved::default();
        let free = || self.pool.account().total - self.pool.account().taken;
        for size in BLOCKS {
            while free() >= left + size / PAGE_SIZE
                && let Some(block) = self.pool.take_block(size)
            {
                taken.blocks.push(block);
            }
        }
        while free() > left
            && let Some(page) = self.pool.take()
        {
            taken.pages.push(page);
        }
        let mut starved = self.starved.lock().unwrap();
        starved.blocks.append(&mut taken.blocks);
        starved.pages.append(&mut taken.pages);
    }

    /// Runs a verb of the host, with the hardware told that one is at work; answers what was before and after, if nobody
    /// else did anything meanwhile.
    fn watched<R>(
        &self,
        vm: &Vm,
        range: IpaRange,
        m: &mut Cpu,
        body: impl FnOnce(&mut Cpu) -> R,
    ) -> (R, Option<Seen>) {
        let me = m.index;
        let others = |operations: &[u64]| operations.iter().sum::<u64>() - operations[me];
        let (before, acted) = {
            let mut hardware = self.lab.hardware();
            hardware.trees[vm.tree].verbs += 1;
            hardware.note(|| std::format!("CPU {me} begins a verb on {range}"));
            (hardware.translation(vm.tree), others(&hardware.operations))
        };
        let answer = body(m);
        let mut hardware = self.lab.hardware();
        hardware.trees[vm.tree].verbs -= 1;
        hardware.end_resizing(me);
        hardware.note(|| std::format!("CPU {me} ends the verb on {range}"));
        hardware.audit(vm.tree);
        let after = hardware.translation(vm.tree);
        let is_alone = others(&hardware.operations) == acted && hardware.broken.is_empty();
        (
            answer,
            is_alone.then_some(Seen {
                before,
                after,
                range,
            }),
        )
    }

    fn verb(&self, vm: &Vm, action: Action, m: &mut Cpu) {
        let (stage2, pool) = (&vm.stage2, &*self.pool);
        match action {
            Action::Unmap(_, first, count) => {
                let range = pages(&self.setup, first, count);
                let (done, seen) = self.watched(vm, range, m, |m| stage2.unmap(m, range, pool));
                self.check(done, seen, |seen, gone| {
                    let was = seen.before.own_pages - seen.after.own_pages;
                    assert_eq!(gone, was, "I1, unmap gives back what was mapped");
                    assert_eq!(seen.inside().count(), 0, "I1, unmapped is unmapped");
                    seen.check_outside();
                });
            }
            Action::Protect(_, first, count, most) => {
                let range = pages(&self.setup, first, count);
                let (done, seen) = self.watched(vm, range, m, |m| {
                    stage2.protect(m, range, rights(most), pool)
                });
                self.check(done, seen, |seen, _| {
                    let within =
                        |(_, has, _): &Mapping| (0..3).all(|n| !has[n] || most >> n & 1 == 1);
                    assert!(
                        seen.inside().all(within),
                        "I4, rights are left that were taken"
                    );
                    seen.check_outside();
                    seen.check_same_memory();
                });
            }
            Action::WriteProtect(_, first, count) => {
                let range = pages(&self.setup, first, count);
                let (_, seen) = self.watched(vm, range, m, |m| stage2.write_protect(m, range));
                self.check(Ok(0), seen, |seen, _| {
                    let is_noted_by_hardware = self.setup.hafdbs == 2;
                    assert!(
                        is_noted_by_hardware || seen.inside().all(|(_, has, _)| !has[1]),
                        "I4, W is left"
                    );
                    seen.check_same_memory();
                });
            }
            Action::Age(_, first, count) => {
                let range = pages(&self.setup, first, count);
                let (_, seen) = self.watched(vm, range, m, |m| stage2.age(m, range));
                self.check(Ok(0), seen, |seen, _| {
                    assert!(seen.before == seen.after, "I1, ageing is no change")
                });
            }
            Action::Split(_, first, count) => {
                let range = pages(&self.setup, first, count);
                // A gigabyte of pages takes too long to look at.
                let smallest = Level::new(if range.size > 4 << 20 { 2 } else { 3 });
                let (done, seen) =
                    self.watched(vm, range, m, |m| stage2.split(m, range, smallest, pool));
                self.check(done, seen, |seen, _| {
                    assert!(
                        seen.inside().all(|(.., level)| *level >= smallest.number()),
                        "what is split is small"
                    );
                    let plain = |map: &BTreeMap<u64, Mapping>| -> BTreeMap<u64, (u64, [bool; 3])> {
                        map.iter()
                            .map(|(ipa, (pa, rights, _))| (*ipa, (*pa, *rights)))
                            .collect()
                    };
                    assert!(
                        plain(&seen.before.pages) == plain(&seen.after.pages),
                        "I1, a split changed the translation"
                    );
                });
            }
            Action::Coalesce(_) => {
                let range = pages(&self.setup, 0, RAM_PAGES);
                let (_, seen) = self.watched(vm, range, m, |m| stage2.coalesce(m, range, pool));
                self.check(Ok(0), seen, |seen, _| seen.check_same_memory());
            }
            Action::Replace(_, page) => {
                let range = pages(&self.setup, page, 1);
                let (_, seen) = self.watched(vm, range, m, |m| self.replace(vm, range.start, m));
                self.check(Ok(0), seen, |seen, _| seen.check_outside());
            }
            _ => {}
        }
    }

    /// I16: a verb that could not be done for want of pages changed nothing; one that was done did what it says.
    fn check(
        &self,
        done: Result<u64, OutOfPages>,
        seen: Option<Seen>,
        holds: impl FnOnce(&Seen, u64),
    ) {
        let Some(seen) = seen else { return };
        match done {
            Ok(count) => holds(&seen, count),
            Err(OutOfPages) => {
                assert!(
                    self.is_short_of_pages(),
                    "out of pages with pages in the pool"
                );
                seen.check_same_memory();
            }
        }
    }

    fn replace(&self, vm: &Vm, ipa: Ipa, m: &mut Cpu) {
        let Leaf::Present(present) = vm.stage2.walk().leaf(m, ipa) else {
            return;
        };
        if !present.level().is_last() {
            return;
        }
        let Some(page) = self.pool.take() else { return };
        let page = page.zeroed(m, vm.stage2.coherence());
        let grant = Grant::data(most_in(&self.setup, page_range(ipa)));
        match present.replace(m, page, grant) {
            Replaced::Done(Some(old)) => self.pool.give(old),
            Replaced::Done(None) => {}
            Replaced::Raced { page, .. } => self.pool.give(page.into_owned()),
        }
    }

    fn map_block(&self, vm: &Vm, page: u64, executes: bool, m: &mut Cpu) {
        let (level, coherence) = (Level::new(2), self.setup.coherence());
        let Leaf::Absent(absent) = vm.stage2.walk().leaf(m, pages(&self.setup, page, 1).start)
        else {
            return;
        };
        if absent.is_locked() || !absent.has_room_for(level) {
            return;
        }
        let Ok(mut tables) = Tables::prepare(m, &self.pool, absent.tables_needed_at(level)) else {
            return;
        };
        if let Ok(claim) = absent.claim(m, level, &mut tables) {
            let claim_range = IpaRange::new(claim.start(), level.size()).unwrap();
            if let Some(block) = self.pool.take_block(level.size()) {
                let block = block.filled(m, &coherence, |_, _| {});
                let mut grant = Grant::data(most_in(&self.setup, claim_range));
                if executes {
                    grant = grant.and_execute(block.make_executable(m, &coherence));
                }
                claim.fill(m, block, grant);
            } else {
                claim.release(m);
            }
        }
        tables.give_back(&self.pool);
    }

    fn log(&self, vm: &Vm, action: Action, m: &mut Cpu) {
        {
            let mut truth = vm.truth.lock().unwrap();
            let fits = truth.is_logging != matches!(action, Action::StartLog(_));
            if truth.is_busy || !fits {
                return;
            }
            truth.is_busy = true;
            truth.is_logging &= !matches!(action, Action::StopLog(_));
        }
        match action {
            Action::StartLog(_) => {
                let range = pages(&self.setup, 0, RAM_PAGES);
                let (done, seen) = self.watched(vm, range, m, |m| vm.stage2.start_log(m, range));
                assert_eq!(done, Ok(()));
                seen.iter().for_each(Seen::check_same_memory);
                let mut truth = vm.truth.lock().unwrap();
                truth.is_logging = true;
                truth.written.clear();
            }
            Action::Harvest(_) => self.harvest(vm, m),
            _ => vm.stage2.stop_log(m),
        }
        vm.truth.lock().unwrap().is_busy = false;
    }

    /// I22: what was written before the harvest began is in it.
    fn harvest(&self, vm: &Vm, m: &mut Cpu) {
        let now = || self.lab.hardware().operations.iter().sum::<u64>();
        let (began, before) = (now(), vm.truth.lock().unwrap().written.clone());
        let range = pages(&self.setup, 0, RAM_PAGES);
        let windows = self.setup.looked_at();
        let mut dirty = std::collections::BTreeSet::new();
        let (_, seen) = self.watched(vm, range, m, |m| {
            vm.stage2.harvest(m, |ipa| {
                let is_seen = |&(start, end): &(u64, u64)| (start..end).contains(&ipa.raw());
                if windows.iter().any(is_seen) {
                    dirty.insert(ipa.raw());
                }
            })
        });
        seen.iter().for_each(Seen::check_same_memory);
        for ipa in before.keys() {
            assert!(
                dirty.contains(ipa),
                "I22, the store to {ipa:#x} is not in the log"
            );
        }
        // A store while the harvest went on is in this one or in the next.
        let mut truth = vm.truth.lock().unwrap();
        truth
            .written
            .retain(|ipa, at| *at > began && !dirty.contains(ipa));
    }
}
