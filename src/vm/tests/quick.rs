//! The shortcuts are shortcuts: what they answer is what the long way answers.

use proptest::prelude::*;

use super::{GICD, GICR, RAM, RTC, Run, UART};
use crate::exit::Syndrome;
use crate::machine::El1;
use crate::vgic::{SGIR, Version};
use std::vec::Vec;

const VIRTIO: u64 = 0x0a00_0000;
/// SCTLR_EL1.EE.
const EE: u64 = 1 << 25;

/// Of one exit: ESR, where an access hit, and what is in the register that it names, or in x0.
#[derive(Clone, Copy, Debug)]
struct Access {
    esr: u64,
    ipa: u64,
    value: u64,
}

/// HVC, mostly with no immediate, and of functions that are there or not.
fn call() -> impl Strategy<Value = Access> {
    let owner = prop_oneof![
        Just(0x8000_0000u64),
        Just(0x8400_0000),
        Just(0xc400_0000),
        Just(0xc500_0000),
        Just(0xc600_0000),
        any::<u64>()
    ];
    let immediate = prop_oneof![4 => Just(0u64), 1 => 0u64..0x1_0000];
    (owner, 0u64..0x60, immediate).prop_map(|(owner, number, immediate)| Access {
        esr: 0x16 << 26 | 1 << 25 | immediate,
        ipa: 0,
        value: owner | number,
    })
}

/// An MRS or MSR, mostly of identification registers.
fn register() -> impl Strategy<Value = Access> {
    let anything = 0u64..1 << 22;
    let identification = (0u64..8, 0u64..16, 0u64..32, 0u64..2)
        .prop_map(|(op2, crm, rt, read)| 3 << 20 | op2 << 17 | rt << 5 | crm << 1 | read);
    let iss = prop_oneof![3 => identification, 1 => anything];
    (iss, any::<u64>()).prop_map(|(iss, value)| Access {
        esr: 0x18 << 26 | 1 << 25 | iss,
        ipa: 0,
        value,
    })
}

fn access() -> impl Strategy<Value = Access> {
    let place = prop_oneof![
        4 => prop_oneof![Just(0u64), Just(0x18), Just(0x30), Just(0x38), Just(0x44), 0u64..0x50].prop_map(|at| UART + at),
        1 => (0u64..0x20).prop_map(|at| RTC + at),
        2 => prop_oneof![4 => 0u64..0x1000, 1 => Just(SGIR)].prop_map(|at| GICD + at),
        1 => (0u64..0x1_1000).prop_map(|at| GICR + at),
        1 => (0u64..0x100).prop_map(|at| VIRTIO + at),
        3 => (0u64..0x3000).prop_map(|at| RAM + at),
        1 => Just(0x0b00_0000),
    ];
    // Mostly a plain access; sometimes any ISS at all.
    let iss = prop_oneof![
        6 => (0u64..4, 0u64..2, 0u64..32, 0u64..2, 0u64..2).prop_map(|(sas, sse, srt, sf, wnr)| {
            1 << 24 | sas << 22 | sse << 21 | srt << 16 | sf << 15 | wnr << 6 | 0x07
        }),
        1 => any::<u64>().prop_map(|iss| iss & 0x1ff_ffff & !0x3f | 0x07),
    ];
    let class = prop_oneof![9 => Just(0x24u64), 1 => Just(0x20u64)];
    // Translation faults at level 3, most of them; permission faults; any.
    let status = prop_oneof![6 => Just(0x07u64), 2 => Just(0x0f), 1 => 0u64..0x40];
    (place, iss, status, class, any::<bool>(), any::<u64>()).prop_map(
        |(ipa, iss, status, class, il, value)| Access {
            esr: class << 26 | u64::from(il) << 25 | iss & !0x3f | status,
            ipa,
            value,
        },
    )
}

/// Takes an exit; answers whether the shortcut did.
fn take(run: &mut Run, access: Access, may_be_quick: bool) -> bool {
    let syndrome = Syndrome {
        esr: access.esr,
        far: 0x7000_0000 | access.ipa & 0xfff,
        hpfar: access.ipa >> 12 << 4,
    };
    let named = match access.esr >> 26 {
        0x24 | 0x20 => access.esr >> 16 & 0x1f,
        0x18 => access.esr >> 5 & 0x1f,
        _ => 0,
    };
    run.vcpu.registers.write(named as u8, access.value);
    if may_be_quick && is_quick(run, &syndrome) {
        run.m.enter_guest();
        return true;
    }
    run.exit(access.esr, syndrome.far, access.ipa);
    false
}

/// Whether a shortcut answered: as EL2 tries them.
fn is_quick(run: &mut Run, syndrome: &Syndrome) -> bool {
    let before = run.to_look_at();
    let (vm, vcpu, host) = (&run.vm, &mut run.vcpu, &mut run.m);
    let is_answered = match syndrome.esr >> 26 {
        0x24 => {
            vm.quick_access(vcpu, syndrome, host) || vm.quick_fault(vcpu, syndrome, &run.pool, host)
        }
        0x20 => vm.quick_fault(vcpu, syndrome, &run.pool, host),
        0x16 => vm.quick_call(vcpu, syndrome.esr),
        0x18 => vm.quick_register(vcpu, syndrome.esr),
        _ => false,
    };
    if is_answered {
        assert_eq!(run.to_look_at(), before, "there is something to look at");
    }
    is_answered || run.vm.device_access(&mut run.vcpu, syndrome, &mut run.m)
}

/// All that an access may change.
fn seen(run: &Run) -> impl PartialEq + core::fmt::Debug + use<> {
    let (registers, counters, host) = (&run.vcpu.registers, &run.vcpu.counters, &run.m.host);
    let devices = run.vm.devices();
    (
        (registers.x, registers.pc, registers.pstate),
        std::format!("{counters:?}"),
        (
            host.console.clone(),
            host.listens,
            host.alarm,
            host.kicks.clone(),
        ),
        (devices.has_room(), devices.spoke(), devices.vcpus_to_plan()),
    )
}

proptest! {
    #[test]
    fn a_shortcut_answers_what_the_long_way_answers(
        accesses in proptest::collection::vec(prop_oneof![4 => access(), 1 => call(), 1 => register()], 1..60),
        version in prop_oneof![Just(Version::V2), Just(Version::V3)],
        is_big_endian in any::<bool>(),
    ) {
        let [mut quick, mut long] = [Run::with_vcpus(version, 2), Run::with_vcpus(version, 2)];
        for run in [&mut quick, &mut long] {
            run.m.el1[El1::Sctlr as usize] = if is_big_endian { EE } else { 0 };
        }
        for access in accesses {
            take(&mut quick, access, true);
            take(&mut long, access, false);
            prop_assert_eq!(seen(&quick), seen(&long), "after {:x?}", access);
        }
    }
}

#[test]
fn a_polled_console_takes_the_shortcut() {
    let mut run = Run::new();
    let flag = |register: u64| Access {
        esr: 0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | register << 16 | 0x07,
        ipa: UART + 0x18,
        value: 0,
    };
    let data = |byte: u8| Access {
        esr: flag(1).esr | 1 << 6,
        ipa: UART,
        value: u64::from(byte),
    };
    let mut quick = Vec::new();
    for byte in *b"quick" {
        quick.push(take(&mut run, flag(2), true));
        quick.push(take(&mut run, data(byte), true));
    }
    assert_eq!(quick, [true; 10]);
    assert_eq!(run.m.host.console, b"quick");
    assert_eq!(run.vcpu.registers.x[2], 0x90, "TXFE and RXFE");
}

/// GICD_SGIR: to the requester itself, and to the other vCPU.
#[test]
fn an_sgi_of_a_gicv2_takes_the_shortcut() {
    /// GICD_SPENDSGIR of SGIs 4 to 7.
    const SPENDSGIR1: u64 = 0xf24;
    let mut run = Run::with_vcpus(Version::V2, 2);
    let access = |at: u64, value: u64, wnr: u64| Access {
        esr: 0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 1 << 16 | wnr << 6 | 0x07,
        ipa: GICD + at,
        value,
    };
    take(&mut run, access(0, 1, 1), false);
    let before = run.vcpu.counters.mmio[0].get();
    assert!(
        take(&mut run, access(SGIR, 0x0201_0005, 1), true),
        "to itself"
    );
    assert!(
        take(&mut run, access(SGIR, 0x0002_0006, 1), true),
        "to vCPU 1"
    );
    assert_eq!(run.vcpu.counters.mmio[0].get() - before, 2);
    assert_eq!(run.m.host.kicks, [1 << 1]);
    take(&mut run, access(SPENDSGIR1, 0, 0), false);
    assert_eq!(run.vcpu.registers.x[1], 0x0100, "SGI 5, from vCPU 0");
}
