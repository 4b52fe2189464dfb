//! What a machine answers with Faultline and without: the guest `observations` prints it, on both, and all that differs has
//! its reason here.
use crate::cases::{Machine, Planner, gives_all_pages_back};
use crate::lab::Cpu;
use crate::run::code;

/// How the names of observations begin that may differ, and why.
const MAY_DIFFER: [(&[&str], &str); 17] = [
    (
        &["GICD_TYPER lines", "ISENABLER beyond", "IPRIORITYR beyond"],
        "some QEMUs report a block of SPIs less than they have",
    ),
    (
        &[
            "IPRIORITYR8 after",
            "IPRIORITYR private after",
            "binary point after",
            "GICC_BPR",
            "GICC_ABPR",
            "GICC_PMR",
        ],
        "a virtual interface has five bits of priority",
    ),
    (&["ITARGETSR8 after"], "there are as many bits as CPUs"),
    (
        &["ISPENDR of"],
        "QEMU's GICv2 pends nothing that has no target",
    ),
    (&["IROUTER after 0xffffffffffffffff"], "reserved bits are 0"),
    (
        &[
            "GICR_CTLR",
            "GICR_PROPBASER",
            "GICR_PENDBASER",
            "GICR_TYPER",
        ],
        "there are no LPIs",
    ),
    (
        &["SGI1R group 0", "SGI0R", "ASGI1R"],
        "ICC_SGI1R_EL1 may send an SGI of group 0 where there is one security state; QEMU's does not",
    ),
    (
        &[
            "UART 0x20 after 0xffffffff",
            "UART 0x24 after 0xffffffff",
            "UART 0x28 after 0xffffffff",
            "UART 0x34 after 0xffffffff",
            "UART 0x38 after 0xffffffff",
            "UART 0x48 after 0xffffffff",
        ],
        "registers are as wide as the PL011's",
    ),
    (
        &["UART odd byte", "clock odd byte"],
        "a lane that has no byte reads 0",
    ),
    (&["CNTFRQ_EL0"], "EL1 writes it only where there is no EL2"),
    (&["smc #1"], "there is somebody to call"),
    (
        &["mrs xzr, S3_0_C15_C2_0"],
        "what is IMPLEMENTATION DEFINED is no guest's",
    ),
    (&["RAM: stxr"], "an exception in between clears the monitor"),
    (
        &["ldxr", "ldaxr", "ldr q0", "ldr s0", "ldp q0", "ld1", "ldur"],
        "an access that no register is made for is an external abort",
    ),
    (
        &["nowhere: ldur", "just beyond RAM: ldur"],
        "QEMU's FAR is aligned",
    ),
    (
        &["double of ISENABLER"],
        "a GICv2 has no accesses of 64 bits",
    ),
    (
        &["61 pending: next"],
        "group 1 is off at the distributor, and QEMU asks at the interface",
    ),
];
/// To what the accesses are made that are said without it above.
const DEVICES: [&str; 2] = ["the UART: ", "the clock: "];
/// The line after that.
const ACKNOWLEDGE: &str = "  acknowledge";

impl Planner<'_> {
    /// The same image with Faultline and without, on two CPUs, or all, and both interrupt controllers.
    pub(crate) fn observed(&mut self) {
        let Machine::Virt(any, _) = self.any() else {
            return;
        };
        let max = self.lab.cpu(|cpu| cpu.model == "max");
        let cpus: Vec<&Cpu> = if self.everything {
            self.lab.cpus.iter().collect()
        } else {
            [any].into_iter().chain(max).collect()
        };
        for cpu in cpus {
            for (gic, is_poisoned) in [(2, false), (3, false), (3, true)] {
                if is_poisoned && !self.lab.poisoned {
                    continue;
                }
                let bare = self.on_bare_qemu("observations", cpu, gic);
                let machine = Machine::Virt(cpu, gic);
                let mut case = self.boot("observations", machine, code::OK);
                case.name.push_str(" as bare");
                if is_poisoned {
                    // The CPU interface's registers trap there.
                    case.name.push_str(" poisoned");
                    case = case.with("IMAGE", "target/faultline-poison.img");
                }
                let case = case
                    .with("GUEST_MEM", "256M")
                    .with("VCPUS", "4")
                    .with("SMP", "4");
                let case = case
                    .says("PASS observations")
                    .examined_by(gives_all_pages_back);
                self.add(case.compared_with(bare, differs));
            }
        }
    }
}

/// The first observation that differs and has no reason to.
fn differs(here: &str, bare: &str) -> Result<(), String> {
    let (here, bare) = (observations(here), observations(bare));
    if here.len() != bare.len() || here.is_empty() {
        return Err(format!(
            "{} observations, {} on the bare machine",
            here.len(),
            bare.len()
        ));
    }
    let mut has_reason = false;
    for (one, other) in here.iter().zip(&bare) {
        let follows = has_reason && one.starts_with(ACKNOWLEDGE);
        let device = DEVICES.iter().find_map(|device| one.strip_prefix(device));
        let name = device.unwrap_or(one);
        let mut names = MAY_DIFFER.iter().flat_map(|(names, _)| *names);
        has_reason = names.any(|begin| name.starts_with(begin));
        if one != other && !has_reason && !follows {
            return Err(format!("`{one}` is `{other}` on the bare machine"));
        }
    }
    Ok(())
}

fn observations(console: &str) -> Vec<&str> {
    console
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("= "))
        .collect()
}
