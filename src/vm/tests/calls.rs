//! Calls, system registers, and what is neither.

use super::{ENTRY, RAM, Run};
use crate::exit::{Exit, encoding};
use crate::fault::Stop;
use crate::machine::El1;
use crate::vgic::Version;
use crate::vm::{End, Next};

const HVC: u64 = 0x16 << 26 | 1 << 25;
const SMC: u64 = 0x17 << 26 | 1 << 25;

/// `HVC` leaves PC after itself; a trapped `SMC` leaves it at itself (DDI 0487 "Preferred exception return address").
#[test]
fn smc_is_stepped_over_and_hvc_was_already() {
    for (esr, pc) in [(HVC, ENTRY), (SMC, ENTRY + 4)] {
        let mut run = Run::new();
        // SMCCC_VERSION.
        run.vcpu.registers.x[..4].copy_from_slice(&[0x8000_0000, 7, 8, 9]);
        run.vcpu.registers.x[4] = 0x44;
        assert_eq!(run.exit(esr, 0, 0), Next::Resume);
        assert_eq!(run.vcpu.registers.x[0], 0x1_0001);
        assert_eq!((run.vcpu.registers.x[4], run.vcpu.registers.pc), (0x44, pc));
        assert_eq!(run.vcpu.counters.exits.calls, 1);
    }
}

#[test]
fn an_unknown_call_and_another_immediate_get_minus_one() {
    for (esr, function) in [
        (HVC, 0x8600_7777),
        (SMC, 0xc600_0099),
        (HVC | 1, 0x8000_0000),
        (SMC | 0xffff, 0xc600_0000),
    ] {
        let mut run = Run::new();
        run.vcpu.registers.x[0] = function;
        assert_eq!(run.exit(esr, 0, 0), Next::Resume);
        assert_eq!(run.vcpu.registers.x[0], u64::MAX, "{function:#x}");
    }
}

/// The words of docs/guest-abi.md: the UID's bytes, first byte lowest.
#[test]
fn our_own_calls_answer_as_the_abi_says() {
    let mut run = Run::new();
    run.vcpu.registers.x[0] = 0x8600_ff01;
    run.exit(HVC, 0, 0);
    assert_eq!(
        run.vcpu.registers.x[..4],
        [0xa4e6_c5d9, 0x0e4f_8f5a, 0x4c0f_579a, 0x107a_2b1e]
    );
    for (id, expected) in [
        (16, [0, 2]),
        (15, [0, 0]),
        (17, [u64::MAX, 0]),
        (u64::MAX, [u64::MAX, 0]),
    ] {
        let mut run = Run::new();
        run.exit(HVC, 0, 0);
        run.vcpu.registers.x[..2].copy_from_slice(&[0xc600_0001, id]);
        run.exit(SMC, 0, 0);
        assert_eq!(run.vcpu.registers.x[..2], expected, "counter {id}");
    }
    for code in [0, 3] {
        let mut run = Run::new();
        run.vcpu.registers.x[..2].copy_from_slice(&[0xc600_0000, code]);
        assert_eq!(run.exit(HVC, 0, 0), Next::End(End::Exit(code)));
    }
}

/// PSCI 0.2: SYSTEM_OFF 0x8400_0008, SYSTEM_RESET 0x8400_0009, CPU_OFF 0x8400_0002.
#[test]
fn psci_ends_the_vm() {
    for (function, end) in [
        (0x8400_0008, End::Off),
        (0x8400_0009, End::Reset),
        (0x8400_0002, End::Off),
    ] {
        let mut run = Run::new();
        run.vcpu.registers.x[0] = function;
        assert_eq!(run.exit(HVC, 0, 0), Next::End(end));
    }
}

/// CPU_ON 0xc400_0003 and AFFINITY_INFO 0xc400_0004, by HVC and by SMC.
#[test]
fn vcpus_are_switched_on_and_off() {
    for conduit in [HVC, SMC] {
        let mut run = Run::with_vcpus(Version::V3, 3);
        let mut call = |index: usize, x: [u64; 4]| {
            run.vcpu.index = index;
            run.vcpu.registers.x[..4].copy_from_slice(&x);
            let next = run.exit(conduit, 0, 0);
            (next, run.vcpu.registers.x[0])
        };
        let entry = RAM + 0x20_0000;
        assert_eq!(call(0, [0xc400_0003, 2, entry, 77]), (Next::Look, 0));
        assert_eq!(
            call(0, [0xc400_0003, 2, entry, 78]),
            (Next::Resume, -4i64 as u64),
            "already on"
        );
        assert_eq!(call(2, [0xc400_0004, 0, 0, 0]).1, 0, "vCPU 0 is on");
        assert_eq!(call(2, [0xc400_0004, 1, 0, 0]).1, 1, "vCPU 1 is off");
        assert_eq!(call(0, [0x8400_0002, 0, 0, 0]).0, Next::Off);
        assert_eq!(call(2, [0xc400_0004, 0, 0, 0]).1, 1, "vCPU 0 is off now");
        assert_eq!(call(2, [0xc400_0003, 0, entry, 5]), (Next::Look, 0));
        assert_eq!(call(0, [0x8400_0002, 0, 0, 0]).0, Next::Off);
        assert_eq!(call(2, [0x8400_0002, 0, 0, 0]).0, Next::End(End::Off));
        assert_eq!(run.m.host.started, [(2, entry, 77), (0, entry, 5)]);
        assert_eq!(
            run.m.host.warnings,
            ["vCPU 2 switched itself off, and no other is on: the VM is off"]
        );
    }
}

/// DEN 0022, 6.4: EL1h, all masked, the context in x0.
#[test]
fn a_vcpu_begins_with_its_context_and_nothing_else() {
    let run = Run::with_vcpus(Version::V3, 2);
    let mut vcpu = run.vm.vcpu(1);
    vcpu.registers.x[5] = 5;
    vcpu.enter_at(RAM + 0x20_0000, 0xdead_beef_cafe);
    assert_eq!(vcpu.index, 1);
    assert_eq!(
        (vcpu.registers.pc, vcpu.registers.pstate),
        (RAM + 0x20_0000, 0x3c5)
    );
    assert_eq!(vcpu.registers.x[0], 0xdead_beef_cafe);
    assert_eq!(vcpu.registers.x[1..], [0; 30]);
}

/// TRNG_RND 0xc400_0053: from the host's source, where it has one.
#[test]
fn entropy_comes_from_the_host() {
    let mut run = Run::new();
    let mut ask = |has_entropy, bits| {
        std::sync::Arc::get_mut(&mut run.vm).unwrap().has_entropy = has_entropy;
        run.vcpu.registers.x[..4].copy_from_slice(&[0xc400_0053, bits, 1, 1]);
        run.m.host.entropy = [0x1111, 0x2222].into();
        assert_eq!(run.exit(HVC, 0, 0), Next::Resume);
        run.vcpu.registers.x[..4].to_vec()
    };
    assert_eq!(ask(true, 128), [0, 0, 0x2222, 0x1111]);
    assert_eq!(ask(true, 192), [-3i64 as u64, 0, 0, 0], "it ran dry");
    assert_eq!(ask(false, 64), [u64::MAX, 0, 0, 0]);
}

fn sysreg(encoding: u16, rt: u64, is_read: bool) -> u64 {
    let e = u64::from(encoding);
    let (op0, op1, crn, crm, op2) = (e >> 14, e >> 11 & 7, e >> 7 & 15, e >> 3 & 15, e & 7);
    0x18 << 26
        | 1 << 25
        | op0 << 20
        | op2 << 17
        | op1 << 14
        | crn << 10
        | rt << 5
        | crm << 1
        | u64::from(is_read)
}

#[test]
fn an_undefined_register_is_undefined_every_time_and_logged_once() {
    let mut run = Run::new();
    run.m.el1[El1::Vbar as usize] = 0x4010_0000;
    let pmcr = encoding(3, 3, 9, 12, 0);
    for n in 0..3 {
        run.vcpu.registers.pc = ENTRY + n * 4;
        assert_eq!(run.exit(sysreg(pmcr, 5, true), 0, 0), Next::Resume);
        assert_eq!(run.el1(El1::Esr), 1 << 25, "EC 0, IL");
        assert_eq!(run.el1(El1::Elr), ENTRY + n * 4);
        assert_eq!(run.vcpu.registers.pc, 0x4010_0200);
    }
    assert_eq!(run.vcpu.counters.undefined, 3);
    assert_eq!(run.m.host.warnings.len(), 1);
    assert!(
        run.m.host.warnings[0].contains("MRS S3_3_C9_C12_0"),
        "{:?}",
        run.m.host.warnings
    );
    // A guest that tries everything does not fill the log.
    for op2 in 0..8 {
        for crm in 0..8 {
            run.vcpu.registers.pc = ENTRY;
            run.exit(sysreg(encoding(3, 3, 15, crm, op2), 5, true), 0, 0);
        }
    }
    assert!(run.m.host.warnings.len() <= 8);
}

#[test]
fn a_feature_register_is_read_and_stepped_over() {
    let mut run = Run::new();
    // ID_AA64PFR1_EL1: SSBS as the CPU has it.
    assert_eq!(
        run.exit(sysreg(encoding(3, 0, 0, 4, 1), 5, true), 0, 0),
        Next::Resume
    );
    assert_eq!(
        (run.vcpu.registers.x[5] >> 4 & 0xf, run.vcpu.registers.pc),
        (1, ENTRY + 4)
    );
    run.exit(sysreg(encoding(3, 0, 0, 4, 1), 31, true), 0, 0);
    assert_eq!(run.vcpu.registers.pc, ENTRY + 8);
}

#[test]
fn hidden_features_are_undefined_and_unknown_exits_end_the_vm() {
    for class in [0x07u64, 0x09, 0x19, 0x1d] {
        let mut run = Run::new();
        run.m.el1[El1::Vbar as usize] = 0x4010_0000;
        assert_eq!(run.exit(class << 26 | 1 << 25, 0, 0), Next::Resume);
        assert_eq!((run.el1(El1::Esr), run.m.host.warnings.len()), (1 << 25, 1));
    }
    for class in [0x25u64, 0x21, 0x3f] {
        let mut run = Run::new();
        let esr = class << 26 | 1 << 25;
        let stop = Stop::UnknownExit { pc: ENTRY, esr };
        assert_eq!(run.exit(esr, 0, 0), Next::End(End::Stopped(stop)));
    }
}

#[test]
fn a_trapped_wait_is_stepped_over() {
    let mut run = Run::new();
    let exit = Exit::Wait { event: false };
    assert_eq!(
        run.vm
            .handle_exit(&mut run.vcpu, &exit, &run.pool, &mut run.m),
        Next::Wait
    );
    assert_eq!(
        (run.vcpu.registers.pc, run.vcpu.counters.exits.waits.get()),
        (ENTRY + 4, 1)
    );
}

#[test]
fn every_exit_is_counted_once_and_by_its_class() {
    let mut run = Run::new();
    run.m.el1[El1::Vbar as usize] = 0x4010_0000;
    for (esr, class) in [
        (0x18 << 26 | 1 << 25, 0),
        (HVC, 1),
        (SMC, 1),
        (0x19 << 26, 2),
        (0x3f << 26, 2),
    ] {
        let counters = run.vcpu.counters.clone();
        let exits = &counters.exits;
        let count = [&exits.sysreg, &exits.calls, &exits.other][class];
        let before = (exits.total(), count.get());
        run.exit(esr, 0, 0);
        let after = (exits.total(), count.get());
        assert_eq!(after, (before.0 + 1, before.1 + 1), "ESR {esr:#x}");
    }
    let _ = run
        .vm
        .handle_exit(&mut run.vcpu, &Exit::Interrupt, &run.pool, &mut run.m);
    assert_eq!(run.vcpu.counters.exits.interrupts, 1);
    let _ = run.vm.handle_exit(
        &mut run.vcpu,
        &Exit::SError { esr: 0 },
        &run.pool,
        &mut run.m,
    );
    assert_eq!(run.vcpu.counters.exits.other, 3);
}

/// The same stale entry now and then, over a long life: whatever instruction was completed in between shows progress.
#[test]
fn a_completed_instruction_between_two_faults_is_progress() {
    let ram = 0x4000_0000;
    let stale = 0x24 << 26 | 1 << 25 | 0x07;
    let device = 0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 31 << 16 | 0x07;
    let skipped = 0x24 << 26 | 1 << 25 | 1 << 8 | 0x07;
    let feature = sysreg(encoding(3, 0, 0, 4, 1), 5, true);
    for (esr, at) in [
        (HVC, 0),
        (SMC, 0),
        (device, super::UART),
        (skipped, 0x1000_0000),
        (feature, 0),
    ] {
        let mut run = Run::new();
        for _ in 0..200 {
            run.vcpu.registers.pc = ENTRY;
            assert_eq!(run.exit(stale, 0, ram), Next::Resume);
            run.vcpu.registers.x[0] = 0x8000_0000;
            assert!(matches!(run.exit(esr, at, at), Next::Resume | Next::Look));
        }
    }
    let mut run = Run::new();
    let stopped = (0..200).any(|_| run.exit(stale, 0, ram) != Next::Resume);
    assert!(stopped, "and nothing in between shows none");
}
