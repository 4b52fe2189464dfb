//! Exception entry to EL1 against AArch64.TakeException() of the Arm ARM, spelled here a second time.

use crate::addr::{Gva, Ipa};
use crate::fault::inject::{Exception, PstateFeatures};
use crate::fault::progress::Progress;
use crate::machine::El1;
use crate::machine::recorder::{Op, Recorder, abort_with};
use crate::registers::Registers;

use super::world::A72;

/// What an exception left in EL1's registers and in the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Taken {
    pub(super) esr: u64,
    pub(super) far: u64,
    pub(super) elr: u64,
    pub(super) spsr: u64,
    pub(super) pc: u64,
    pub(super) pstate: u64,
}

const VBAR: u64 = 0xffff_8000_0801_0800;
const PC: u64 = 0xffff_8000_1234_5678;
const OLD_FAR: u64 = 0x0dd_fa12;

fn take_with(exception: Exception, pstate: u64, sctlr: u64, features: PstateFeatures) -> Taken {
    let mut m = Recorder::new(0, A72);
    m.el1[El1::Vbar as usize] = VBAR;
    m.el1[El1::Sctlr as usize] = sctlr;
    m.el1[El1::Far as usize] = OLD_FAR;
    let mut registers = Registers::entering(PC);
    registers.pstate = pstate;
    registers.x.fill(0x77);
    exception
        .take(&mut registers, features, &mut Progress::default(), &mut m)
        .unwrap();
    assert!(
        registers.x.iter().all(|x| *x == 0x77),
        "general-purpose registers stay"
    );
    let written = m.log.iter().all(|op| {
        matches!(
            op,
            Op::SetEl1(El1::Esr | El1::Far | El1::Elr | El1::Spsr, _)
        )
    });
    assert!(written, "nothing else of EL1 is touched");
    let el1 = |register| m.el1[register as usize];
    Taken {
        esr: el1(El1::Esr),
        far: el1(El1::Far),
        elr: el1(El1::Elr),
        spsr: el1(El1::Spsr),
        pc: registers.pc,
        pstate: registers.pstate,
    }
}

/// Takes it on a CPU with all PSTATE features.
pub(super) fn take(exception: Exception, pstate: u64, sctlr: u64) -> Taken {
    take_with(
        exception,
        pstate,
        sctlr,
        PstateFeatures {
            pan: true,
            ssbs: true,
        },
    )
}

const FAR: u64 = 0xffff_0000_dead_beef;

/// What it is called, the exception, and of an abort its class for a lower EL and its ISS.
type Case = (&'static str, Exception, Option<(u64, u64)>);

fn exceptions() -> [Case; 7] {
    let data = abort_with(
        0x24,
        0x07 | 1 << 6 | 1 << 24 | 2 << 22 | 5 << 16,
        FAR,
        0x1000_0000,
    );
    let load = abort_with(0x24, 0x07, FAR, 0x1000_0000);
    let fetch = abort_with(0x20, 0x07 | 1 << 6, FAR, 0x1000_0000);
    let unaligned = abort_with(0x24, 0x21 | 1 << 6, FAR, 0);
    let (far, ipa) = (Gva::new(FAR), Ipa::new(0x1000_0eef));
    // Class for a lower EL, and ISS: status, and WnR of data aborts. ISV, SRT, S1PTW of EL2's syndrome do not leak.
    [
        (
            "store to nothing",
            Exception::external(&data, far, ipa),
            Some((0x24, 0x50)),
        ),
        (
            "load from nothing",
            Exception::external(&load, far, ipa),
            Some((0x24, 0x10)),
        ),
        (
            "fetch from nothing",
            Exception::external(&fetch, far, ipa),
            Some((0x20, 0x10)),
        ),
        (
            "walk into nothing",
            Exception::external_on_walk(&load, far, ipa, 2),
            Some((0x24, 0x16)),
        ),
        (
            "beyond PARange",
            Exception::address_size(&load, far, ipa, 2),
            Some((0x24, 0x02)),
        ),
        (
            "unaligned",
            Exception::same_status(&unaligned),
            Some((0x24, 0x61)),
        ),
        ("undefined", Exception::undefined(), None),
    ]
}

/// M[4:0] of where it comes from, offset of the vector, and whether that is EL1.
const ORIGINS: [(u64, u64, bool); 4] = [
    (0b0_0100, 0x000, true),
    (0b0_0101, 0x200, true),
    (0b0_0000, 0x400, false),
    (0b1_0000, 0x600, false),
];

#[test]
fn syndrome_and_vector_are_what_the_architecture_says_for_every_origin() {
    for (mode, offset, same_el) in ORIGINS {
        for (name, exception, abort) in exceptions() {
            let taken = take(exception, mode, 0);
            let (class, iss) = match abort {
                Some((class, iss)) => (class + u64::from(same_el), iss),
                None => (0, 0),
            };
            assert_eq!(
                taken.esr,
                class << 26 | 1 << 25 | iss,
                "{name} from {mode:#b}"
            );
            assert_eq!(
                taken.far,
                if abort.is_some() { FAR } else { OLD_FAR },
                "{name}"
            );
            assert_eq!((taken.elr, taken.spsr), (PC, mode), "{name} from {mode:#b}");
            assert_eq!(taken.pc, VBAR + offset, "{name} from {mode:#b}");
        }
    }
}

#[test]
fn vbar_is_read_without_its_res0_bits() {
    let mut m = Recorder::new(0, A72);
    m.el1[El1::Vbar as usize] = 0x4000_0fff;
    let mut registers = Registers::entering(PC);
    let features = PstateFeatures::default();
    Exception::undefined()
        .take(&mut registers, features, &mut Progress::default(), &mut m)
        .unwrap();
    assert_eq!(registers.pc, 0x4000_0a00);
}

#[test]
fn pstate_in_the_handler_is_what_exception_entry_makes_of_it() {
    const DAIF: u64 = 0xf << 6;
    // Position of each bit that matters in SPSR_EL1, from the Arm ARM.
    let (nzcv, tco, dit, uao, pan) = (0xfu64 << 28, 1u64 << 25, 1u64 << 24, 1u64 << 23, 1u64 << 22);
    let (ss, il, ssbs, btype) = (1u64 << 21, 1u64 << 20, 1u64 << 12, 3u64 << 10);
    let everything = nzcv | dit | uao | pan | ss | il | ssbs | btype;
    for (mode, _, _) in ORIGINS {
        for bits in [
            0,
            everything,
            nzcv,
            dit,
            uao,
            pan,
            ss,
            il,
            ssbs,
            btype,
            0b1010 << 28,
            tco,
        ] {
            for sctlr in [0, 1 << 23, 1 << 44, 1 << 23 | 1 << 44] {
                for (has_pan, has_ssbs) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let features = PstateFeatures {
                        pan: has_pan,
                        ssbs: has_ssbs,
                    };
                    let before = mode | bits;
                    let taken = take_with(Exception::undefined(), before, sctlr, features);
                    let span = sctlr >> 23 & 1 == 1;
                    let dssbs = sctlr >> 44 & 1 == 1;
                    let mut expected = before & (nzcv | dit | pan) | DAIF | 0b0101;
                    if has_pan && !span {
                        expected |= pan;
                    }
                    if has_ssbs && dssbs {
                        expected |= ssbs;
                    }
                    assert_eq!(
                        taken.pstate, expected,
                        "from {before:#x}, SCTLR_EL1 {sctlr:#x}, {features:?}"
                    );
                    assert_eq!(taken.spsr, before, "SPSR_EL1 has all of it");
                }
            }
        }
    }
}

#[test]
fn only_aborts_count_as_aborts() {
    for (name, exception, abort) in exceptions() {
        assert_eq!(exception.is_abort(), abort.is_some(), "{name}");
    }
}
