//! One CPU of the model, as the library sees it.

use std::sync::{Arc, MutexGuard};

use super::baton::Lab;
use super::hardware::Hardware;
use super::maintenance::{Work, is_local};
use super::memory::LINES;
use super::weak::Weak;
use crate::addr::{Gva, PAGE_SIZE, Pa, PaRange};
use crate::machine::{AtAborted, Dc, Dsb, El1, Ic, Machine, TlbRange, Tlbi, Ttl};

/// Guest virtual addresses are the IPA with these bits set, and those changed in which its vCPU's stage 1 differs.
pub(super) const VA_BASE: u64 = 0xffff_0000_0000_0000;

/// One CPU.
pub(super) struct Cpu {
    pub(super) lab: Arc<Lab>,
    pub(super) index: usize,
}

impl Cpu {
    pub(super) const fn new(lab: Arc<Lab>, index: usize) -> Self {
        Self { lab, index }
    }

    /// One operation: the others and the hardware may do something before.
    pub(super) fn operation(&self) -> MutexGuard<'_, Hardware> {
        let mut hardware = self.lab.enter(self.index);
        hardware.operations[self.index] += 1;
        hardware.check_freed();
        hardware.disturb();
        hardware
    }

    /// What a deliberate bug makes of a TLBI.
    fn weakened_tlbi(weak: Weak, op: Tlbi) -> Option<Tlbi> {
        Some(match (weak, op) {
            (Weak::NoTlbiAfterRelax, Tlbi::Ipas2e1(..) | Tlbi::Vmalle1)
            | (Weak::TlbiIpaOnly, Tlbi::Vmalle1 | Tlbi::Vmalle1Is)
            | (Weak::NoRepeat, Tlbi::RepeatVale2Is) => return None,
            (Weak::LocalWhereBroadcast, Tlbi::Ipas2e1Is(ipa, ttl)) => Tlbi::Ipas2e1(ipa, ttl),
            (Weak::LocalWhereBroadcast, Tlbi::Vmalle1Is) => Tlbi::Vmalle1,
            (Weak::LocalWhereBroadcast, Tlbi::Vmalls12e1Is) => Tlbi::Vmalls12e1,
            (Weak::WrongTtl, Tlbi::Ipas2e1(ipa, ttl)) if ttl.only().is_some() => {
                Tlbi::Ipas2e1(ipa, Ttl::level(2))
            }
            (Weak::WrongTtl, Tlbi::Ipas2e1Is(ipa, ttl)) if ttl.only().is_some() => {
                Tlbi::Ipas2e1Is(ipa, Ttl::level(2))
            }
            (Weak::ShortRange, Tlbi::Ripas2e1Is(range)) if range.num > 0 => {
                Tlbi::Ripas2e1Is(TlbRange {
                    num: range.num - 1,
                    ..range
                })
            }
            (_, op) => op,
        })
    }

    /// What a deliberate bug makes of a DSB.
    fn weakened_dsb(hardware: &mut Hardware, pe: usize, kind: Dsb) -> Option<Dsb> {
        let cpu = &mut hardware.pes[pe];
        let after_stage2_tlbi = std::mem::take(&mut cpu.after_stage2_tlbi);
        let (after_tlbi, after_clean) = (
            std::mem::take(&mut cpu.after_tlbi),
            std::mem::take(&mut cpu.after_clean),
        );
        match hardware.weak {
            Weak::NoDsbBetween if after_stage2_tlbi => None,
            Weak::NoDsbBeforeTlbi if matches!(kind, Dsb::IshSt | Dsb::NshSt) => None,
            Weak::NoDsbAfterTlbi if after_tlbi && !after_stage2_tlbi => None,
            Weak::NoDsbAfterClean if after_clean => None,
            Weak::NonShareableDsb if kind == Dsb::Ish => Some(Dsb::Nsh),
            _ => Some(kind),
        }
    }
}

impl Machine for Cpu {
    fn cpu(&mut self) -> usize {
        self.index
    }

    fn load(&mut self, table: Pa, index: usize) -> u64 {
        let hardware = self.operation();
        assert!(
            hardware.pool.try_is_taken(table) != Some(false),
            "I9, {table} is walked and free"
        );
        hardware.ram.frame(table.raw()).descriptor(index)
    }

    fn publish(&mut self, table: Pa, index: usize, current: u64, new: u64) -> Result<(), u64> {
        let mut hardware = self.operation();
        assert!(
            hardware.pool.try_is_taken(table) != Some(false),
            "I9, {table} is written and free"
        );
        hardware.update_at_the_last_moment(table.raw(), index);
        let found = hardware.ram.frame(table.raw()).descriptor(index);
        let me = self.index;
        hardware.note(|| {
            std::format!(
                "CPU {me} publishes {table}[{index}]: {current:#x} to {new:#x}, found {found:#x}"
            )
        });
        if found != current && hardware.weak != Weak::StoreForCas {
            return Err(found);
        }
        hardware.check_publish(me, (table.raw(), index), found, new);
        hardware.store(me, table.raw(), index, new);
        for range in std::mem::take(&mut hardware.pes[me].late_cleans) {
            hardware.issue(me, Work::Dc(Dc::CleanInvalidateToPoc, range), true);
        }
        Ok(())
    }

    fn fill_table(&mut self, table: Pa, first: u64, step: u64) {
        let mut hardware = self.operation();
        hardware.take_back(table.raw(), table.raw() + PAGE_SIZE);
        let frame = hardware.ram.frame_mut(table.raw());
        for index in 0..512 {
            frame.set_descriptor(index, first.wrapping_add(step.wrapping_mul(index as u64)));
        }
    }

    fn zero(&mut self, pages: PaRange) {
        let mut hardware = self.operation();
        let me = self.index;
        hardware.note(|| std::format!("CPU {me} zeroes {pages}"));
        hardware.take_back(pages.start.raw(), pages.end().raw());
        let is_done = hardware.weak != Weak::NoZero;
        let (start, size) = (pages.start.raw(), pages.size);
        hardware.ram.change(start, size, |frame, _| {
            frame.table = None;
            if is_done {
                frame.lines.iter_mut().for_each(|line| line.store(0));
                frame.is_prepared = true;
            }
        });
    }

    fn read(&mut self, at: Pa, bytes: &mut [u8]) {
        let mut hardware = self.operation();
        let line = LINES
            .iter()
            .rposition(|line| at.page_offset() >= *line)
            .unwrap_or(0);
        let value = hardware.ram.frame_mut(at.raw()).lines[line]
            .load()
            .to_le_bytes();
        bytes
            .iter_mut()
            .zip(value.iter().cycle())
            .for_each(|(to, from)| *to = *from);
    }

    fn write(&mut self, at: Pa, bytes: &[u8]) {
        let mut hardware = self.operation();
        hardware.take_back(at.raw(), at.raw() + 1);
        let frame = hardware.ram.frame_mut(at.raw());
        for (line, start) in LINES.iter().enumerate() {
            let from = start
                .checked_sub(at.page_offset())
                .map(|from| from as usize);
            if let Some(word) = from.and_then(|from| bytes.get(from..from + 8)) {
                frame.lines[line].store(u64::from_le_bytes(word.try_into().unwrap()));
            }
        }
    }

    fn copy(&mut self, from: PaRange, to: Pa) {
        if to.is_aligned(PAGE_SIZE) && from.size.is_multiple_of(PAGE_SIZE) {
            let mut hardware = self.operation();
            hardware.take_back(to.raw(), to.raw() + from.size);
            for offset in (0..from.size).step_by(PAGE_SIZE as usize) {
                let lines = &mut hardware.ram.frame_mut(from.start.raw() + offset).lines;
                let values = [lines[0].load(), lines[1].load()];
                let copy = hardware.ram.frame_mut(to.raw() + offset);
                copy.lines
                    .iter_mut()
                    .zip(values)
                    .for_each(|(line, value)| line.store(value));
                copy.is_prepared = true;
            }
            return;
        }
        let mut bytes = std::vec![0; from.size as usize];
        self.read(from.start, &mut bytes);
        self.write(to, &bytes);
    }

    fn dsb(&mut self, kind: Dsb) {
        let mut hardware = self.operation();
        let me = self.index;
        hardware.note(|| std::format!("CPU {me} DSB {kind:?}"));
        hardware.pes[me].walks_ended |= !matches!(kind, Dsb::IshSt | Dsb::NshSt);
        if let Some(kind) = Self::weakened_dsb(&mut hardware, me, kind) {
            hardware.complete(me, kind);
        }
    }

    fn isb(&mut self) {
        let mut hardware = self.operation();
        let weak = hardware.weak;
        let cpu = &mut hardware.pes[self.index];
        if weak == Weak::NoIsbAfterVttbr && cpu.vttbr != cpu.effective_vttbr {
            return;
        }
        cpu.effective_vttbr = cpu.vttbr;
        if let Some(par) = cpu.par_answer.take() {
            cpu.par = par;
        }
    }

    fn tlbi(&mut self, op: Tlbi) {
        let mut hardware = self.operation();
        let me = self.index;
        let effective = hardware.pes[me].effective_vttbr >> 48;
        hardware.note(|| std::format!("CPU {me} TLBI {op:x?} of VMID {effective}"));
        let hint = match op {
            Tlbi::Ipas2e1(_, ttl) | Tlbi::Ipas2e1Is(_, ttl) => ttl,
            Tlbi::Ripas2e1Is(range) => {
                assert!(
                    hardware.setup.ranges,
                    "a range TLBI on a CPU without FEAT_TLBIRANGE"
                );
                range.ttl
            }
            _ => Ttl::ANY,
        };
        assert!(
            hint == Ttl::ANY || hardware.setup.ttl,
            "a TTL hint on a CPU without FEAT_TTL"
        );
        let cpu = &mut hardware.pes[me];
        cpu.after_stage2_tlbi = matches!(
            op,
            Tlbi::Ipas2e1(..) | Tlbi::Ipas2e1Is(..) | Tlbi::Ripas2e1Is(_)
        );
        cpu.after_tlbi = true;
        // Between VTTBR_EL2 and the ISB it is the old VMID that is meant.
        let vmid = (cpu.effective_vttbr >> 48) as u16;
        if let Some(op) = Self::weakened_tlbi(hardware.weak, op) {
            hardware.issue(me, Work::Tlbi(op, vmid), is_local(op));
        }
    }

    fn dc(&mut self, op: Dc, range: PaRange) {
        let mut hardware = self.operation();
        let me = self.index;
        hardware.note(|| std::format!("CPU {me} DC {op:?} {range}"));
        hardware.pes[me].after_clean = true;
        let range = match hardware.weak {
            Weak::NoCleanToPoc if op == Dc::CleanInvalidateToPoc => return,
            Weak::CleanAfterPublish if op == Dc::CleanInvalidateToPoc => {
                hardware.pes[me].late_cleans.push(range);
                return;
            }
            Weak::NoCleanToPou if op == Dc::CleanToPou => return,
            Weak::FirstLineOnly => PaRange {
                size: range.size.min(64),
                ..range
            },
            _ => range,
        };
        hardware.issue(me, Work::Dc(op, range), true);
    }

    fn ic(&mut self, op: Ic) {
        let mut hardware = self.operation();
        let me = self.index;
        hardware.note(|| std::format!("CPU {me} IC {op:?}"));
        let op = match (hardware.weak, op) {
            (Weak::NoIcache, _) => return,
            (Weak::LinesOnVipt, Ic::AllInnerShareable) => Ic::Range(PaRange {
                start: Pa::new(hardware.ram.start),
                size: hardware.ram.size(),
            }),
            (_, op) => op,
        };
        hardware.issue(me, Work::Ic(op), op == Ic::AllLocal);
    }

    fn vttbr(&mut self) -> u64 {
        self.lab.hardware().pes[self.index].vttbr
    }

    fn set_vttbr(&mut self, value: u64) {
        let mut hardware = self.operation();
        let me = self.index;
        hardware.note(|| std::format!("CPU {me} VTTBR_EL2 = {value:#x}"));
        let is_done = hardware.weak != Weak::WrongVmid;
        let cpu = &mut hardware.pes[me];
        assert!(
            cpu.walks_ended,
            "a DSB ends the walks before VTTBR_EL2 changes"
        );
        if is_done {
            cpu.vttbr = value;
        }
    }

    fn at_s1e1r(&mut self, va: Gva) -> Result<(), AtAborted> {
        let mut hardware = self.operation();
        let fails = hardware.rng.one_in(16);
        let cpu = &mut hardware.pes[self.index];
        cpu.stage1_changed |= fails;
        cpu.par = 0xbad;
        // The guest's stage 1 is an offset; now and then it was changed since the access.
        let stage1 = cpu.stage1.expect("AT wants a vCPU's stage 1");
        cpu.par_answer = Some(if fails {
            0x809
        } else {
            ((va.raw() & !VA_BASE & !0xfff) ^ stage1) | 1 << 11
        });
        Ok(())
    }

    fn par(&mut self) -> u64 {
        self.operation().pes[self.index].par
    }

    fn set_par(&mut self, value: u64) {
        let mut hardware = self.operation();
        if hardware.weak != Weak::ParNotKept {
            hardware.pes[self.index].par = value;
        }
    }

    fn el1(&mut self, _register: El1) -> u64 {
        0
    }

    fn set_el1(&mut self, register: El1, value: u64) {
        /// EPD0 and EPD1.
        const NO_WALKS: u64 = 1 << 7 | 1 << 23;
        let index = self.index;
        let pe = &mut self.operation().pes[index];
        match register {
            El1::Tcr => pe.stage1_is_closed = value & NO_WALKS == NO_WALKS,
            // Off, stage 1 walks nothing and keeps what it passes on all the same.
            El1::Sctlr => {}
            other => panic!("{other:?} is the guest's"),
        }
    }

    /// Others are let in here as at every other step.
    fn interrupt_window(&mut self) {
        drop(self.operation());
    }
}
