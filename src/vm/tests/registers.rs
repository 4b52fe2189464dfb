//! Every system register there could be, with any value, from any vCPU: nothing but what the instruction names changes.

use proptest::prelude::*;

use super::Run;
use crate::exit::{Exit, SysRegAccess, encoding};
use crate::machine::El1;
use crate::vgic::Version;
use crate::vm::Next;

const VECTORS: u64 = 0x4010_0000;
const PC: u64 = 0x4020_0000;

/// Carries out an access by a vCPU and says what is wrong with the outcome.
fn access(
    run: &mut Run,
    vcpu: usize,
    access: SysRegAccess,
    x: &[u64; 31],
) -> Result<(), TestCaseError> {
    run.vcpu.index = vcpu;
    run.vcpu.registers.x = *x;
    run.vcpu.registers.pc = PC;
    run.vcpu.registers.pstate = 0x3c5;
    // Its loop detector is another test's subject.
    run.vcpu.progress.retired();
    let exit = Exit::SysReg(access);
    let next = run
        .vm
        .handle_exit(&mut run.vcpu, &exit, &run.pool, &mut run.m);
    prop_assert!(matches!(next, Next::Resume | Next::Look), "{}", access);
    let after = &run.vcpu.registers;
    for (n, (now, before)) in after.x.iter().zip(x).enumerate() {
        let is_result = access.is_read && n == usize::from(access.rt);
        prop_assert!(now == before || is_result, "{} changed x{}", access, n);
    }
    match after.pc {
        retired if retired == PC + 4 => {}
        // UNDEFINED: nothing was read either.
        vector if vector == VECTORS + 0x200 => {
            prop_assert_eq!(&after.x, x, "{}", access);
            prop_assert_eq!(run.el1(El1::Elr), PC);
            prop_assert_eq!(run.el1(El1::Esr), 1 << 25, "{}", access);
        }
        pc => prop_assert!(false, "{} goes on at {:#x}", access, pc),
    }
    Ok(())
}

fn machine(gic: Version) -> Run {
    let mut run = Run::with_vcpus(gic, 4);
    run.m.el1[El1::Vbar as usize] = VECTORS;
    run
}

/// Each of the 65,536 encodings, read and written.
#[test]
fn no_encoding_does_anything_else() {
    for gic in [Version::V2, Version::V3] {
        let mut run = machine(gic);
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for encoding in 0..=u16::MAX {
            for is_read in [true, false] {
                let x = core::array::from_fn(|_| random());
                let rt = (random() % 32) as u8;
                let vcpu = (random() % 4) as usize;
                let instruction = SysRegAccess {
                    encoding,
                    rt,
                    is_read,
                };
                access(&mut run, vcpu, instruction, &x).unwrap();
            }
        }
        assert!(run.m.host.warnings.len() <= 8, "nor does it fill the log");
    }
}

proptest! {
    /// Those that mean something, more often: interrupts, ID registers, errors, caches.
    #[test]
    fn nor_does_any_sequence(
        gic_v3 in any::<bool>(),
        steps in prop::collection::vec((0usize..4, 0u16..5, any::<u16>(), 0u8..32, any::<bool>(), any::<[u64; 4]>()), 1..60),
    ) {
        let mut run = machine(if gic_v3 { Version::V3 } else { Version::V2 });
        for (vcpu, kind, random, rt, is_read, values) in steps {
            let low = random & 0x7f;
            let encoding = match kind {
                // op0 3, op1 0, CRn 12 (GIC), 0 (ID registers), 5 (errors), 1 and 2.
                0 => 3 << 14 | 12 << 7 | low,
                1 => 3 << 14 | low,
                2 => 3 << 14 | 5 << 7 | low,
                3 => 3 << 14 | (random & 7) << 11 | low,
                _ => random,
            };
            let x = core::array::from_fn(|n| values[n % 4].rotate_left(n as u32));
            access(&mut run, vcpu, SysRegAccess { encoding, rt, is_read }, &x)?;
        }
    }
}

/// ICC_PMR_EL1, ICC_CTLR_EL1 and ICC_RPR_EL1 where they trap, on a CPU interface with five bits of priority.
#[test]
fn a_gicv3s_common_registers_are_its_interfaces() {
    let (pmr, ctlr, rpr) = (
        encoding(3, 0, 4, 6, 0),
        encoding(3, 0, 12, 12, 4),
        encoding(3, 0, 12, 11, 3),
    );
    let mut run = machine(Version::V3);
    let mut go = |encoding, value, is_read| {
        let mut x = [0; 31];
        x[3] = value;
        let instruction = SysRegAccess {
            encoding,
            rt: 3,
            is_read,
        };
        access(&mut run, 0, instruction, &x).unwrap();
        let is_done = run.vcpu.registers.pc == PC + 4;
        is_done.then_some(run.vcpu.registers.x[3])
    };
    go(pmr, 0x1ff, false);
    go(ctlr, u64::MAX, false);
    assert_eq!(go(pmr, 0, true), Some(0xf8));
    assert_eq!(go(ctlr, 0, true), Some(4 << 8 | 0b11));
    assert_eq!(go(rpr, 0, true), Some(0xff), "nothing is handled");
    assert_eq!(go(rpr, 0, false), None, "it is read only");
    assert_eq!(run.m.host.vmcr, 0xf800_0210);
}
