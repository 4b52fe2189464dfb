//! The recorder as the library's machine: each operation is noted, and checked against the rules.

use super::*;

impl Machine for Recorder {
    fn cpu(&mut self) -> usize {
        self.now
    }

    fn load(&mut self, table: Pa, index: usize) -> u64 {
        self.check_freed();
        self.owned(table);
        if let Some(tree) = &self.tree {
            assert!(tree.is_table(table), "{table} is not a table of the tree");
        }
        self.frames.get(table).load(index)
    }

    fn publish(&mut self, table: Pa, index: usize, current: u64, new: u64) -> Result<(), u64> {
        match self.interfere.take() {
            Some((0, other)) => other(self),
            Some((n, other)) => self.interfere = Some((n - 1, other)),
            None => {}
        }
        self.owned(table);
        let found = self.frames.get(table).load(index);
        if self.loses_stores {
            self.log.push(Op::Publish { old: current, new });
            return Ok(());
        }
        if found != current {
            self.log.push(Op::PublishFailed);
            return Err(found);
        }
        let tree = self
            .tree
            .as_mut()
            .expect("a tree is watched before it is written");
        let place = tree.place(table, index);
        if let Some(memory) = rules::leaf_memory(place.level, new) {
            for offset in (0..memory.size).step_by(PAGE_SIZE as usize) {
                let oa = memory.start.add(offset);
                if self.frames.is_ram(oa) {
                    assert!(self.pool.is_taken(oa), "a page is mapped that nobody owns");
                } else {
                    let is_window = self.windows.iter().any(|window| window.contains(oa));
                    assert!(
                        is_window || self.frames.is_lent(oa),
                        "{oa} is no window and no module"
                    );
                }
            }
        } else if new & 1 == 1 {
            self.pool.is_taken(Pa::new(rules::output_address(new)));
        }
        tree.check(
            place,
            current,
            new,
            &mut self.frames,
            &self.coherence,
            &self.log,
        );
        let pushed = self.log.len();
        tree.note(place, current, new, pushed);
        self.log.push(Op::Publish { old: current, new });
        self.frames.get_mut(table).store(index, new);
        self.writer
            .note(self.now, place.ipa, current & 1 == 1, new & 1 == 1);
        Ok(())
    }

    fn fill_table(&mut self, table: Pa, first: u64, step: u64) {
        self.owned(table);
        for index in 0..512 {
            let value = first.wrapping_add(step.wrapping_mul(index as u64));
            self.frames.get_mut(table).store(index, value);
        }
    }

    fn zero(&mut self, pages: PaRange) {
        assert!(
            pages.start.is_aligned(PAGE_SIZE) && pages.size.is_multiple_of(PAGE_SIZE),
            "pages are zeroed, not parts"
        );
        self.log.push(Op::Zero(pages.start));
        for offset in (0..pages.size).step_by(PAGE_SIZE as usize) {
            let page = pages.start.add(offset);
            self.owned(page);
            self.frames.write(page, &[0; PAGE_SIZE as usize]);
            self.frames.get_mut(page).is_prepared = true;
        }
    }

    fn read(&mut self, at: Pa, bytes: &mut [u8]) {
        if !self.frames.is_lent(at) {
            self.owned(at);
        }
        self.frames.read(at, bytes);
    }

    fn write(&mut self, at: Pa, bytes: &[u8]) {
        self.owned(at);
        self.log.push(Op::Write(at, bytes.len() as u64));
        self.frames.write(at, bytes);
    }

    fn copy(&mut self, from: PaRange, to: Pa) {
        self.owned(to);
        if self.frames.is_ram(from.start) {
            self.owned(from.start);
        }
        self.log.push(Op::Copy(from, to));
        let mut bytes = alloc::vec![0; from.size as usize];
        self.frames.read(from.start, &mut bytes);
        self.frames.write(to, &bytes);
    }

    fn dsb(&mut self, kind: Dsb) {
        self.log.push(Op::Dsb(kind));
        self.cpus[self.now].walks_ended |= !matches!(kind, Dsb::IshSt | Dsb::NshSt);
        self.tlbs.dsb(self.now, kind);
        self.writer.dsb(self.now, kind);
        self.frames.dsb(kind);
    }

    fn isb(&mut self) {
        self.log.push(Op::Isb);
        let cpu = &mut self.cpus[self.now];
        cpu.wants_isb = self.tlbs.has_pending(self.now);
        cpu.effective_vttbr = cpu.vttbr;
        if let Some(par) = cpu.par_answer.take() {
            cpu.par = par;
        }
    }

    fn tlbi(&mut self, op: Tlbi) {
        self.log.push(Op::Tlbi(op));
        let cpu = &mut self.cpus[self.now];
        cpu.wants_isb = true;
        assert_eq!(
            cpu.vttbr, cpu.effective_vttbr,
            "an ISB separates VTTBR_EL2 from a TLBI"
        );
        let is_ours = self
            .tree
            .as_ref()
            .is_none_or(|tree| tree.vttbr >> 48 == cpu.vttbr >> 48);
        if is_ours {
            self.tlbs
                .tlbi(self.now, op, self.writer.unseen_by_walkers(self.now));
        }
    }

    fn dc(&mut self, op: Dc, range: PaRange) {
        self.log.push(Op::Dc(op, range));
        self.frames.dc(op, range);
    }

    fn ic(&mut self, op: Ic) {
        self.log.push(Op::Ic(op));
        self.frames.ic(op);
    }

    fn vttbr(&mut self) -> u64 {
        self.cpus[self.now].vttbr
    }

    fn set_vttbr(&mut self, value: u64) {
        self.log.push(Op::SetVttbr(value));
        let cpu = &mut self.cpus[self.now];
        assert!(
            cpu.walks_ended,
            "a DSB ends the walks before VTTBR_EL2 changes"
        );
        cpu.vttbr = value;
        cpu.walks_ended = false;
    }

    fn at_s1e1r(&mut self, va: Gva) -> Result<(), AtAborted> {
        self.log.push(Op::At(va));
        let answer = match self.at.take() {
            Some(mut at) => {
                let answer = at(self, va);
                self.at = Some(at);
                answer
            }
            None => Ok((va.raw() & !VA_BASE & !0xfff) | 1 << 11),
        };
        // Aborted or not, the register is not what it was.
        let cpu = &mut self.cpus[self.now];
        cpu.par = 0xbad;
        match answer {
            Ok(par) => {
                cpu.par_answer = Some(par);
                Ok(())
            }
            Err(aborted) => Err(aborted),
        }
    }

    fn par(&mut self) -> u64 {
        self.cpus[self.now].par
    }

    fn set_par(&mut self, value: u64) {
        self.log.push(Op::SetPar(value));
        self.cpus[self.now].par = value;
    }

    fn el1(&mut self, register: El1) -> u64 {
        self.el1[register as usize]
    }

    fn set_el1(&mut self, register: El1, value: u64) {
        self.log.push(Op::SetEl1(register, value));
        self.el1[register as usize] = value;
    }

    fn interrupt_window(&mut self) {}
}
