//! PSCI, SMCCC and Faultline's own calls: what is there, what is not, by HVC and by SMC.
//!
//! Oracle: PSCI 1.1 (DEN 0022), SMCCC (DEN 0028): an unknown function answers NOT_SUPPORTED, -1, and nothing else.
#![no_std]
#![no_main]

use runtime::hypercall::{
    CALL_UID, COUNTERS, Conduit, NOT_SUPPORTED, PSCI_FEATURES, PSCI_VERSION, SYSTEM_OFF,
    SYSTEM_RESET, UID, call, counter,
};
use runtime::trap::catch;
use runtime::{check, check_eq, println};

runtime::guest!("psci", psci);

/// CPU_ON in its 64-bit form.
const CPU_ON: u32 = 0xc400_0003;
/// AFFINITY_INFO in its 64-bit form.
const AFFINITY_INFO: u32 = 0xc400_0004;
/// SMCCC_VERSION.
const SMCCC_VERSION: u32 = 0x8000_0000;
/// PSCI's ALREADY_ON.
const ALREADY_ON: i32 = -4;
/// PSCI's INVALID_PARAMETERS.
const INVALID_PARAMETERS: i32 = -2;

fn psci() {
    let faultline = counter(0).is_some();
    for (conduit, name) in [(Conduit::Hvc, "HVC"), (Conduit::Smc, "SMC")] {
        // Bare QEMU answers one conduit only.
        if conduit == Conduit::Smc && !faultline {
            continue;
        }
        let (_, caught) = catch(|| standard(conduit, name));
        check_eq!(caught.count, 0, "{name}: exceptions");
    }
    if faultline {
        own();
    }
}

fn standard(conduit: Conduit, name: &str) {
    let one = |function, argument| call(conduit, function, [argument, 0, 0])[0];
    let version = one(PSCI_VERSION, 0);
    println!("{name}: PSCI {}.{}", version >> 16, version & 0xffff);
    check!(
        version >> 16 == 1 && version & 0xffff <= 9,
        "{name}: PSCI_VERSION {version:#x}"
    );
    for function in [SYSTEM_OFF, SYSTEM_RESET, PSCI_VERSION, PSCI_FEATURES] {
        check_eq!(
            one(PSCI_FEATURES, u64::from(function)) as i32,
            0,
            "{name}: PSCI_FEATURES of {function:#x}"
        );
    }
    for function in [0x8400_00ffu32, 0xc400_00ff] {
        check_eq!(
            one(PSCI_FEATURES, u64::from(function)) as i32,
            -1,
            "{name}: PSCI_FEATURES of {function:#x}"
        );
    }
    for function in [
        0x8400_00ff,
        0xc400_00ff,
        0x8500_0000,
        0xbf00_ffff,
        0xc3ff_ffff,
        0x0000_0000,
        0xffff_ffff,
    ] {
        check_eq!(
            one(function, 0) as i32,
            -1,
            "{name}: unknown function {function:#x}"
        );
    }
    let mpidr = runtime::read_sysreg!("MPIDR_EL1") & 0xff_00ff_ffff;
    check_eq!(
        one(CPU_ON, mpidr) as i32,
        ALREADY_ON,
        "{name}: CPU_ON of this CPU"
    );
    check_eq!(
        one(CPU_ON, 0xff_00ff_ffff) as i32,
        INVALID_PARAMETERS,
        "{name}: CPU_ON of no CPU"
    );
    check_eq!(
        one(AFFINITY_INFO, mpidr),
        0,
        "{name}: AFFINITY_INFO of this CPU"
    );
    if one(PSCI_FEATURES, u64::from(SMCCC_VERSION)) as i32 == 0 {
        let version = one(SMCCC_VERSION, 0);
        check!(
            (0x1_0000..0x2_0000).contains(&version),
            "{name}: SMCCC_VERSION {version:#x}"
        );
    }
}

fn own() {
    for (conduit, name) in [(Conduit::Hvc, "HVC"), (Conduit::Smc, "SMC")] {
        let answer = call(conduit, CALL_UID, [0; 3]);
        for (n, (got, expected)) in answer.into_iter().zip(UID).enumerate() {
            check_eq!(got, u64::from(expected), "{name}: word {n} of the UID");
        }
        let unknown = call(conduit, 0xc600_ffee, [1, 2, 3])[0];
        check_eq!(unknown, NOT_SUPPORTED, "{name}: unknown vendor call");
    }
    for id in [COUNTERS as u64 + 1000, u64::MAX, 1 << 32] {
        check!(counter(id).is_none(), "counter {id:#x} exists");
    }
    for id in 0..COUNTERS as u64 {
        check!(counter(id).is_some(), "counter {id} does not exist");
    }
    let (first, second) = (counter(16), counter(16));
    check!(
        first < second,
        "exits are not counted: {first:?}, then {second:?}"
    );
}
