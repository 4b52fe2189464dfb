//! Reads every encoding there is in the space of system registers: each answers or is UNDEFINED, and nothing else ever
//! happens, whatever the CPU has and the hypervisor traps.
#![no_std]
#![no_main]

use runtime::trap::{catch, class};
use runtime::{cache, check, check_eq, mmio, pages, println, write_sysreg};

runtime::guest!("every_register", every_register);

/// `MRS X0, S2_0_C0_C0_0`; op0 = 3 is one bit more.
const MRS: u32 = 0xd530_0000;
const RET: u32 = 0xd65f_03c0;

/// CPACR_EL1.FPEN, ZEN and SMEN: nothing of floating point, SVE and SME is trapped to EL1, so that EL2 is asked.
const ALLOW_ALL: u64 = 0b11 << 20 | 0b11 << 16 | 0b11 << 24;

fn every_register() {
    write_sysreg!("CPACR_EL1", ALLOW_ALL);
    let code = pages::fresh();
    mmio::write32(code + 4, RET);
    let (mut answered, mut undefined) = (0, 0);
    for encoding in 0..1 << 15 {
        // op0<0>, op1, CRn, CRm, op2.
        mmio::write32(code, MRS | encoding << 5);
        cache::publish_code(code, 4);
        let (_, caught) = catch(|| pages::call(code));
        let Some(frame) = caught.last else {
            answered += 1;
            continue;
        };
        undefined += 1;
        let name = Name(encoding);
        check_eq!(caught.count, 1, "exceptions on {name}");
        check!(
            frame.class() == class::UNKNOWN
                || is_feature_id_space(encoding) && frame.class() == class::SYSTEM,
            "class of the exception on {name}: {:#x}",
            frame.class()
        );
        check_eq!(frame.elr, code, "ELR_EL1 of the exception on {name}");
        check!(frame.il(), "ESR_EL1 {:#x} on {name}", frame.esr);
    }
    println!("{answered} encodings answered, {undefined} are UNDEFINED");
    check!(answered > 50, "a CPU with {answered} registers");
}

/// The feature ID space, whose reads may report their class (FEAT_IDST): op0 = 3, op1 = 0, 1 or 3, CRn = 0.
fn is_feature_id_space(encoding: u32) -> bool {
    encoding >> 14 == 1 && matches!(encoding >> 11 & 7, 0 | 1 | 3) && encoding >> 7 & 0xf == 0
}

/// An encoding as the Arm ARM writes it.
struct Name(u32);

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self(bits) = self;
        let (op0, op1, crn) = (2 + (bits >> 14), bits >> 11 & 7, bits >> 7 & 0xf);
        write!(f, "S{op0}_{op1}_C{crn}_C{}_{}", bits >> 3 & 0xf, bits & 7)
    }
}
