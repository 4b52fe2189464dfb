//! Guests that switch their caches, with and without FEAT_S2FWB.

use super::Run;
use crate::addr::PAGE_SIZE;
use crate::exit::encoding;
use crate::machine::recorder::Op;
use crate::machine::{Dc, Dsb, El1};
use crate::platform::RAM_BASE;
use crate::traps::HCR_EL2_TVM;
use crate::vgic::Version;
use crate::vm::{End, Next};
use std::vec::Vec;

/// `SCTLR_EL1.M` and `C`.
const ON: u64 = 1 << 0 | 1 << 2;
const SCTLR: u16 = encoding(3, 0, 1, 0, 0);
const SET_WAY: [u16; 3] = [
    encoding(1, 0, 7, 6, 2),
    encoding(1, 0, 7, 10, 2),
    encoding(1, 0, 7, 14, 2),
];

impl Run {
    /// The trapped write of `value`; whether the instruction was completed.
    fn msr(&mut self, register: u16, value: u64) -> bool {
        let pc = self.vcpu.registers.pc;
        self.vcpu.registers.write(5, value);
        let field = |shift: u16, bits: u16| u64::from(register >> shift & ((1 << bits) - 1));
        // DDI 0487 "ISS encoding for an exception from MSR, MRS, or System instruction execution in AArch64 state".
        let iss = field(14, 2) << 20
            | field(0, 3) << 17
            | field(11, 3) << 14
            | field(7, 4) << 10
            | 5 << 5
            | field(3, 4) << 1;
        let next = self.exit(0x18 << 26 | 1 << 25 | iss, 0, 0);
        assert_eq!(next, Next::Look);
        let moved = self.vcpu.registers.pc - pc;
        assert!(moved == 0 || moved == 4);
        moved == 4
    }

    /// The same until it is completed; how often that took.
    fn msr_to_its_end(&mut self, register: u16, value: u64) -> usize {
        let mut times = 1;
        while !self.msr(register, value) {
            times += 1;
            assert!(times < 1000, "it comes to an end");
        }
        times
    }

    fn map_pages(&mut self, pages: &[u64]) {
        for page in pages {
            let ipa = RAM_BASE.raw() + page * PAGE_SIZE;
            let esr = 0x24 << 26 | 1 << 25 | 1 << 6 | 0x07;
            assert_ne!(self.exit(esr, ipa, ipa), Next::End(End::Off));
        }
    }

    fn traps_memory_registers(&self) -> bool {
        self.vcpu.traps & HCR_EL2_TVM != 0
    }

    /// The pages cleaned since `from` in the log, if a DSB SY waited for them.
    fn cleaned_since(&self, from: usize) -> Vec<u64> {
        let log = &self.m.log[from..];
        let waited = log
            .iter()
            .rposition(|op| *op == Op::Dsb(Dsb::Sy))
            .unwrap_or(0);
        let mut pages: Vec<u64> = log[..waited]
            .iter()
            .filter_map(|op| match op {
                Op::Dc(Dc::CleanInvalidateToPoc, range) => Some(*range),
                _ => None,
            })
            .flat_map(|range| (range.start.raw()..range.end().raw()).step_by(4096))
            .collect();
        pages.sort_unstable();
        pages
    }

    /// The pages behind everything that is mapped.
    fn memory(&self) -> Vec<u64> {
        let leaves = self.m.mapped();
        let mut pages: Vec<u64> = leaves
            .values()
            .map(|leaf| leaf & 0xffff_ffff_f000)
            .collect();
        pages.sort_unstable();
        pages
    }
}

#[test]
fn caches_that_go_on_or_off_have_all_of_the_memory_cleaned_before_the_guest_goes_on() {
    let mut run = Run::new();
    assert!(run.traps_memory_registers(), "from reset on");
    run.map_pages(&[0x100, 0x101, 0x3fff]);
    for (value, traps_then) in [(ON, false), (1, false), (ON, false)] {
        let from = run.m.log.len();
        run.msr_to_its_end(SCTLR, value);
        assert_eq!(run.cleaned_since(from), run.memory(), "{value:#x}");
        assert_eq!(run.m.el1[El1::Sctlr as usize], value);
        assert_eq!(run.traps_memory_registers(), traps_then);
    }
    assert_eq!(run.vcpu.counters.flushes, 3);
}

#[test]
fn a_write_that_switches_nothing_cleans_nothing() {
    let mut run = Run::new();
    run.map_pages(&[0x100]);
    let from = run.m.log.len();
    // M without C, C without M: data accesses stay non-cacheable.
    for value in [1 << 0, 1 << 2, 1 << 12, 0] {
        assert!(run.msr(SCTLR, value));
        assert_eq!(run.m.el1[El1::Sctlr as usize], value);
        assert!(run.traps_memory_registers());
    }
    assert!(run.cleaned_since(from).is_empty());
}

#[test]
fn the_first_operation_by_set_and_way_cleans_everything_and_the_next_nothing() {
    let mut run = Run::new();
    run.map_pages(&[0x100, 0x900]);
    // With the caches off there is nothing to clean.
    let from = run.m.log.len();
    assert!(run.msr(SET_WAY[0], 0));
    assert!(run.cleaned_since(from).is_empty());
    run.msr_to_its_end(SCTLR, ON);
    for set_way in SET_WAY {
        let from = run.m.log.len();
        run.msr_to_its_end(set_way, 0x40);
        assert_eq!(run.cleaned_since(from), run.memory());
        assert!(
            run.traps_memory_registers(),
            "it is about to switch its caches"
        );
        for _ in 0..512 {
            let from = run.m.log.len();
            assert!(run.msr(set_way, 0x80));
            assert!(run.cleaned_since(from).is_empty());
        }
        // Off, with what was written since, and on again.
        let from = run.m.log.len();
        run.msr_to_its_end(SCTLR, 0);
        assert_eq!(run.cleaned_since(from), run.memory());
        run.msr_to_its_end(SCTLR, ON);
        assert!(!run.traps_memory_registers());
    }
}

#[test]
fn every_register_that_traps_gets_exactly_what_was_written() {
    let registers = [
        (encoding(3, 0, 2, 0, 0), El1::Ttbr0),
        (encoding(3, 0, 2, 0, 1), El1::Ttbr1),
        (encoding(3, 0, 2, 0, 2), El1::Tcr),
        (encoding(3, 0, 5, 1, 0), El1::Afsr0),
        (encoding(3, 0, 5, 1, 1), El1::Afsr1),
        (encoding(3, 0, 5, 2, 0), El1::Esr),
        (encoding(3, 0, 6, 0, 0), El1::Far),
        (encoding(3, 0, 10, 2, 0), El1::Mair),
        (encoding(3, 0, 10, 3, 0), El1::Amair),
        (encoding(3, 0, 13, 0, 1), El1::Contextidr),
        (SCTLR, El1::Sctlr),
    ];
    for (n, (encoding, register)) in registers.into_iter().enumerate() {
        let mut run = Run::new();
        let before = run.m.el1;
        let value = 0xfedc_ba98_7654_3200 | (n as u64) << 4;
        assert!(run.msr(encoding, value));
        let mut expected = before;
        expected[register as usize] = value;
        assert_eq!(run.m.el1, expected, "{register:?}");
    }
}

/// A guest with a timer: in the middle of a long cleaning its handler does one of its own.
#[test]
fn a_cleaning_that_was_interrupted_by_another_begins_anew() {
    let mut run = Run::with_memory(Version::V3, 1, 2048);
    run.msr_to_its_end(SCTLR, ON);
    let pages: Vec<u64> = (0..700).collect();
    run.map_pages(&pages);
    let from = run.m.log.len();
    assert!(!run.msr(SET_WAY[2], 0), "too much for one go");
    let first = run.cleaned_since(from).len();
    assert!((1..700).contains(&first));
    // Elsewhere: its own cleaning, to the end.
    let pc = run.vcpu.registers.pc;
    run.vcpu.registers.pc = pc + 0x1000;
    let from = run.m.log.len();
    run.msr_to_its_end(SET_WAY[2], 0);
    assert_eq!(run.cleaned_since(from), run.memory());
    run.vcpu.registers.pc = pc;
    run.msr_to_its_end(SET_WAY[2], 0);
}

#[test]
fn where_stage_2_forces_write_back_nothing_traps() {
    let features = crate::features::Features::new(&crate::features::IdRegisters {
        mmfr2: 1 << 40,
        ..crate::features::IdRegisters::default()
    });
    assert_eq!(crate::traps::at_reset(&features, false), 0);
    let hcr = crate::traps::value(crate::traps::HCR_EL2, &features);
    assert_eq!(hcr & (HCR_EL2_TVM | 1 << 22), 0);
}
