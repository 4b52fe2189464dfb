//! What guests do: accesses that go through the model's TLBs and caches, and faults that go to the real handler.

use super::bits;
use super::cpu::{Cpu, VA_BASE};
use super::hardware::Hardware;
use super::memory::Owner;
use super::setup::{RAM_START, WINDOW_MEMORY, WINDOW_START};
use super::stores::Late;
use super::walk::Fault;
use super::world::{Seat, Vm, World};
use crate::addr::PAGE_SIZE;
use crate::exit::Abort;
use crate::fault::{Resolution, Stop};
use crate::machine::recorder::abort_with;

/// One access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Read,
    Write,
    Fetch,
    /// The guest cleans to the point of unification and invalidates its I-cache, by address.
    Maintain,
    /// A load whose stage-1 walk sets the access flag in a table that lies in the page.
    WalkUpdate,
}

/// Faults in a row that changed nothing, while nobody else changed anything: one too many.
const FAULTS: u32 = 4;
/// Faults on a window, which nobody takes away: misses of stores among them.
const WINDOW_FAULTS: u32 = 32;

impl World {
    /// The guest's access, until it is done: I2 and I3.
    pub(super) fn access(&self, vm: &Vm, seat: &mut Seat, page: u64, access: Access, m: &mut Cpu) {
        let ipa = RAM_START + self.setup.place(page) * PAGE_SIZE;
        let is_denied = self.setup.is_rom(page) && access == Access::Write;
        self.run_on(vm, seat, m);
        let vcpu = seat.vcpu();
        vcpu.registers.pc = VA_BASE + ipa;
        let is_cached = self.setup.fwb || !(self.setup.caches_off == 1 || vcpu.caches_off);
        let (mut fruitless, mut by_others) = (0, self.lab.hardware().noise(m.index, vm.tree));
        while let Err(abort) = m.guest_access(vm, ipa, access, is_cached) {
            let par = self.lab.hardware().pes[m.index].par;
            let answer = self.resolve(vm, vcpu, &abort, m);
            match answer {
                Resolution::Retry => {}
                Resolution::Inject(_) if is_denied => return,
                // It may have wanted to write, for all that its syndrome says, and so it was told.
                Resolution::Inject(_) if self.setup.is_rom(page) && access == Access::Maintain => {
                    let live = self.lab.hardware().live_leaf(vm.tree, ipa);
                    assert!(
                        live.is_some_and(|(leaf, _)| leaf & bits::READ != 0),
                        "I2, maintenance of {ipa:#x}"
                    );
                    return;
                }
                Resolution::Stop(Stop::OutOfPages { .. }) if self.is_short_of_pages() => return,
                Resolution::Stop(stop) => panic!("I2, {access:?} of {ipa:#x}: {stop}"),
                other => panic!("I2, {access:?} of {ipa:#x} is RAM and is answered with {other:?}"),
            }
            let mut hardware = self.lab.hardware();
            assert_eq!(
                hardware.pes[m.index].par, par,
                "I30, PAR_EL1 is the guest's"
            );
            let stage1_changed = std::mem::take(&mut hardware.pes[m.index].stage1_changed);
            let now = hardware.noise(m.index, vm.tree);
            if now != by_others || stage1_changed || hardware.is_broken_at(vm.tree, ipa) {
                (fruitless, by_others) = (0, now);
            } else {
                fruitless += 1;
            }
            let live = hardware.live_leaf(vm.tree, ipa);
            assert!(
                fruitless < FAULTS,
                "I2, no progress: {access:?} of {ipa:#x} faults again and again, with {live:x?} there"
            );
        }
        assert!(!is_denied, "I4, {ipa:#x} is read-only and was written");
        vcpu.progress.retired();
    }

    /// The guest's access to the device behind its window.
    pub(super) fn window(&self, vm: &Vm, seat: &mut Seat, page: u64, access: Access, m: &mut Cpu) {
        let ipa = WINDOW_START + page * PAGE_SIZE;
        self.run_on(vm, seat, m);
        let vcpu = seat.vcpu();
        vcpu.registers.pc = VA_BASE + RAM_START;
        for _ in 0..WINDOW_FAULTS {
            let Err(abort) = m.window_access(vm, ipa, access) else {
                return vcpu.progress.retired();
            };
            match self.resolve(vm, vcpu, &abort, m) {
                Resolution::Retry => {}
                Resolution::Inject(_) if access == Access::Fetch => return,
                Resolution::Stop(Stop::OutOfPages { .. }) if self.is_short_of_pages() => return,
                other => {
                    panic!("I2, {access:?} of the window at {ipa:#x} is answered with {other:?}")
                }
            }
        }
        panic!("I2, no progress: {access:?} of the window at {ipa:#x}");
    }
}

impl Cpu {
    /// The ERET, and one access: done, or the abort it takes.
    pub(super) fn guest_access(
        &self,
        vm: &Vm,
        ipa: u64,
        access: Access,
        is_cached: bool,
    ) -> Result<(), Abort> {
        let mut hardware = self.operation();
        let me = self.index;
        hardware.end_resizing(me);
        hardware.check_entry(me, vm);
        hardware.pes[me].caches_off = !is_cached;
        hardware.warm(vm.tree, ipa);
        let needs: &[usize] = match access {
            Access::Read | Access::Maintain => &[0],
            Access::Write => &[1],
            Access::Fetch => &[2],
            Access::WalkUpdate => &[0, 1],
        };
        let va = hardware.va_of(me, ipa);
        let mut entry = None;
        for need in needs {
            let found = hardware
                .translate(me, vm.tree, (va, ipa), *need)
                .map_err(|fault| abort_of(access, fault, (va, ipa)));
            if let Err(abort) = &found {
                hardware.note(|| {
                    std::format!("CPU {me} {access:?} of {ipa:#x} takes {:?}", abort.status())
                });
            }
            entry = Some(found?);
        }
        let Some(entry) = entry else { return Ok(()) };
        let pa = entry.output(entry.ipa);
        hardware.note(|| std::format!("CPU {me} {access:?} of {ipa:#x} at {pa:#x}"));
        hardware.perform(me, vm, ipa, pa, access, is_cached);
        let live = hardware.live_leaf(vm.tree, ipa);
        let is_quiet = hardware.trees[vm.tree].verbs == 0;
        assert!(
            !is_quiet || live.is_none_or(|(leaf, _)| leaf & bits::AF != 0),
            "I23, {ipa:#x} was used and {live:x?} does not say so"
        );
        Ok(())
    }
}

impl Cpu {
    /// The same for the window: it leads to the device, is a device's, and executes nothing.
    fn window_access(&self, vm: &Vm, ipa: u64, access: Access) -> Result<(), Abort> {
        let mut hardware = self.operation();
        let me = self.index;
        hardware.end_resizing(me);
        hardware.check_entry(me, vm);
        hardware.warm(vm.tree, ipa);
        let va = hardware.va_of(me, ipa);
        let need = usize::from(access == Access::Write) + 2 * usize::from(access == Access::Fetch);
        let entry = hardware
            .translate(me, vm.tree, (va, ipa), need)
            .map_err(|fault| abort_of(access, fault, (va, ipa)))?;
        let pa = entry.output(entry.ipa);
        hardware.note(|| std::format!("CPU {me} {access:?} of the window {ipa:#x} at {pa:#x}"));
        assert_eq!(
            pa,
            WINDOW_MEMORY + (ipa - WINDOW_START),
            "I14, the window at {ipa:#x} leads elsewhere"
        );
        assert!(access != Access::Fetch, "I20, code from a device");
        Ok(())
    }
}

impl Hardware {
    /// What the vCPU on PE `pe` calls this IPA.
    fn va_of(&self, pe: usize, ipa: u64) -> u64 {
        ipa ^ self.pes[pe]
            .stage1
            .expect("a guest that runs has a stage 1")
    }

    /// What others did that may have made a fault come back.
    fn noise(&self, pe: usize, tree: usize) -> (u64, u64) {
        let changes: u64 = self.changes.iter().sum();
        (
            changes - self.changes[pe],
            self.misses() + u64::from(self.trees[tree].verbs),
        )
    }

    /// Somebody is between break and make of the leaf at `ipa`.
    fn is_broken_at(&self, tree: usize, ipa: u64) -> bool {
        let (table, index, _) = self.live_place(tree, ipa);
        self.ram.frame(table).descriptor(index) == 1 << 56
    }

    fn check_entry(&self, pe: usize, vm: &Vm) {
        let cpu = &self.pes[pe];
        assert!(
            cpu.tlb.conflict.is_none(),
            "I5, a TLB conflict was answered and what it was about is left"
        );
        assert!(
            cpu.pending.is_empty(),
            "I29, never waited for: {:x?}",
            cpu.pending
        );
        assert!(
            !self.has_unseen(pe),
            "I29, a store to a table was never waited for"
        );
        assert_eq!(
            cpu.effective_vttbr,
            vm.stage2.vttbr(),
            "I19, a VM runs on its own stage 2"
        );
        assert!(cpu.par & 0xfff == 0x802, "I30, PAR_EL1 is the guest's");
    }

    fn perform(&mut self, pe: usize, vm: &Vm, ipa: u64, pa: u64, access: Access, is_cached: bool) {
        let tree = vm.tree;
        let owner = self.ram.frame(pa).owner;
        let is_its = owner.is_behind(tree, ipa, pa);
        let is_lent =
            owner == Owner::Module && !matches!(access, Access::Write | Access::WalkUpdate);
        assert!(
            is_its || is_lent,
            "I14, {access:?} of {ipa:#x} reaches {pa:#x}, which is {owner:x?}"
        );
        let line = self.rng.below(2);
        if access != Access::Write {
            self.drain(pe);
        }
        match access {
            Access::Read => {
                let frame = self.ram.frame_mut(pa);
                frame.histories[line].note_mode(is_cached);
                let value = if is_cached {
                    frame.lines[line].load()
                } else {
                    frame.lines[line].at_coherency()
                };
                let history = &frame.histories[line];
                assert!(
                    history.may_load(value),
                    "I13, {ipa:#x} reads {value:#x}, and may see {history:x?}"
                );
            }
            Access::Write | Access::WalkUpdate => {
                self.write(
                    pe,
                    vm,
                    Late::new(tree, ipa, pa, line, is_cached),
                    access == Access::Write,
                );
            }
            Access::Fetch => {
                self.ram.frame_mut(pa).histories[line].note_mode(is_cached);
                let value = self.fetch_line(pe, pa, ipa, line, is_cached);
                let history = &self.ram.frame(pa).histories[line];
                assert!(
                    history.may_fetch(value),
                    "I11, {ipa:#x} executes {value:#x}, and may see {history:x?}"
                );
            }
            Access::Maintain => self.maintain(pe, pa, ipa, is_cached),
        }
    }

    fn write(&mut self, pe: usize, vm: &Vm, mut store: Late, may_linger: bool) {
        self.tokens += 1;
        store.value = self.tokens;
        self.ram.frame_mut(store.pa).histories[store.line].note_mode(store.is_cached);
        let now = self.operations.iter().sum();
        let mut truth = vm.truth.lock().unwrap();
        if truth.is_logging {
            truth.written.insert(store.ipa, now);
        }
        if may_linger && self.pes[pe].late.len() < 4 && self.rng.one_in(3) {
            self.pes[pe].late.push(store);
        } else {
            self.drain(pe);
            self.land(store);
        }
    }

    /// `DC CVAU`, `DSB`, `IC IVAU`, `DSB`, `ISB` of the guest's own, by its own address; `IC IALLUIS` where others know the page
    /// by an address that the I-cache does not take for the same.
    fn maintain(&mut self, pe: usize, pa: u64, ipa: u64, is_cached: bool) {
        if self.setup.vivt {
            let tag = self.tag_of(pe);
            for pe in &mut self.pes {
                pe.icache.retain(|(.., of), _| *of != tag);
            }
        }
        let (page, colour) = (pa & !(PAGE_SIZE - 1), self.colour(ipa));
        for line in 0..2 {
            let frame = self.ram.frame_mut(pa);
            frame.lines[line].clean_to_unification();
            frame.histories[line].note_mode(is_cached);
            frame.histories[line].maintained();
            for pe in &mut self.pes {
                pe.icache.remove(&(page, line, colour));
            }
        }
    }
}

/// The abort as the hardware reports it, `HPFAR_EL2` a lie wherever it is UNKNOWN.
fn abort_of(access: Access, fault: Fault, (va, ipa): (u64, u64)) -> Abort {
    const S1PTW: u64 = 1 << 7;
    const CM: u64 = 1 << 8;
    const WNR: u64 = 1 << 6;
    let status = fault.class | u64::from(fault.level);
    let (class, flags, far) = match access {
        Access::Read => (0x24, 0, va),
        Access::Write => (0x24, WNR, va),
        Access::Fetch => (0x20, 0, va),
        Access::Maintain => (0x24, CM | WNR, va),
        // The syndrome tells of the load, not of the walk.
        Access::WalkUpdate => (0x24, S1PTW, RAM_START + 0x123),
    };
    abort_with(class, status | flags, VA_BASE | far, ipa)
}
