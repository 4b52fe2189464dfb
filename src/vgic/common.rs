//! The registers of a GICv3's CPU interface that both groups have in common, for guests whose accesses to them trap.
//!
//! ICC_DIR_EL1 has to trap at times ([`Plan::traps_deactivation`](super::Plan)), and hardware without ICH_VTR_EL2.TDS traps it
//! together with these or not at all. They are what the hardware would have shown: fields of ICH_VMCR_EL2, and the running
//! priority as the active priorities have it. A guest that masks interrupts by their priority writes one of them all the time:
//! that is too dear ([`Masking`]), unless it ends interrupts by name, which few do.
//!
//! Source: IHI 0069 "ICH_HCR_EL2.TC", "ICV_CTLR_EL1", "ICV_PMR_EL1", "ICV_RPR_EL1", "ICH_VTR_EL2".

use super::CpuInterface;
use super::interface::vmcr;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommonRegister {
    /// ICC_CTLR_EL1.
    Control,
    /// ICC_PMR_EL1.
    PriorityMask,
    /// ICC_RPR_EL1, which is read only.
    RunningPriority,
}

/// What the hardware says of its virtual CPU interfaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InterfaceType {
    /// ICH_VTR_EL2.
    pub vtr: u64,
    /// ICC_CTLR_EL1.RSS: SGIs reach affinities beyond 15 at level 0.
    pub has_range_selector: bool,
}

impl InterfaceType {
    /// Whether ICC_DIR_EL1 can trap alone (TDS).
    #[must_use]
    pub const fn traps_deactivation_alone(self) -> bool {
        self.vtr >> 19 & 1 == 1
    }

    /// The fields of ICC_CTLR_EL1 that are the hardware's.
    const fn control(self) -> u64 {
        const A3V: u64 = 1 << 15;
        const SEIS: u64 = 1 << 14;
        const RSS: u64 = 1 << 18;
        let (vtr, mut control) = (self.vtr, 0);
        // PRIbits, then IDbits.
        control |= (vtr >> 29 & 7) << 8 | (vtr >> 23 & 7) << 11;
        control |= if vtr >> 22 & 1 == 1 { SEIS } else { 0 };
        control |= if vtr >> 21 & 1 == 1 { A3V } else { 0 };
        control | if self.has_range_selector { RSS } else { 0 }
    }

    /// The bits of a priority that there are.
    const fn priority_bits(self) -> u32 {
        let bits = (self.vtr >> 29 & 7) + 1;
        0xff << (8 - bits) & 0xff
    }
}

/// Writes of a vCPU after which it counts as one that masks interrupts by their priority. A kernel that does not makes a few
/// when it sets its CPU up.
const OFTEN: u32 = 64;

/// How often a vCPU wrote to these registers where they trapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Masking {
    writes: u32,
}

impl Masking {
    /// It wrote once more, and its ICH_VMCR_EL2 is `vmcr` now: whether they are not to trap any more, until it is planned for
    /// from scratch or loaded again.
    pub const fn is_too_dear(&mut self, vmcr: u32) -> bool {
        self.writes = self.writes.saturating_add(1);
        self.writes > OFTEN && vmcr & vmcr::EOI_MODE == 0
    }
}

/// ICC_CTLR_EL1.
const CBPR: u64 = 1 << 0;
const EOI_MODE: u64 = 1 << 1;

impl CpuInterface {
    /// What the guest reads.
    #[must_use]
    pub fn read_common(&self, register: CommonRegister, of: InterfaceType) -> u64 {
        let is = |field: u32| self.vmcr & field != 0;
        match register {
            CommonRegister::Control => {
                let common = if is(vmcr::COMMON_BINARY_POINT) {
                    CBPR
                } else {
                    0
                };
                let mode = if is(vmcr::EOI_MODE) { EOI_MODE } else { 0 };
                of.control() | common | mode
            }
            CommonRegister::PriorityMask => u64::from(self.vmcr >> vmcr::MASK_SHIFT),
            CommonRegister::RunningPriority => u64::from(self.running()),
        }
    }

    /// The guest writes `value`: what ICH_VMCR_EL2 is then. `None`: the register cannot be written.
    #[must_use]
    pub fn write_common(
        &self,
        register: CommonRegister,
        value: u64,
        of: InterfaceType,
    ) -> Option<u32> {
        let with = |field: u32, is_set: bool| if is_set { field } else { 0 };
        match register {
            CommonRegister::Control => {
                let others = self.vmcr & !(vmcr::COMMON_BINARY_POINT | vmcr::EOI_MODE);
                let common = with(vmcr::COMMON_BINARY_POINT, value & CBPR != 0);
                Some(others | common | with(vmcr::EOI_MODE, value & EOI_MODE != 0))
            }
            CommonRegister::PriorityMask => {
                let others = self.vmcr & ((1 << vmcr::MASK_SHIFT) - 1);
                Some(others | (value as u32 & of.priority_bits()) << vmcr::MASK_SHIFT)
            }
            CommonRegister::RunningPriority => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CommonRegister::{Control, PriorityMask, RunningPriority};

    /// A Cortex-A72's: 5 bits of priority, 16 of an INTID, no A3V; four list registers.
    const A72: InterfaceType = InterfaceType {
        vtr: 4 << 29 | 4 << 26 | 3,
        has_range_selector: false,
    };

    #[test]
    fn the_hardwares_own_fields_are_where_icc_ctlr_has_them() {
        let idle = CpuInterface::default();
        assert_eq!(idle.read_common(Control, A72), 4 << 8);
        let all = InterfaceType {
            vtr: 6 << 29 | 1 << 23 | 1 << 22 | 1 << 21 | 1 << 19,
            has_range_selector: true,
        };
        assert_eq!(
            idle.read_common(Control, all),
            6 << 8 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 18
        );
        assert!(all.traps_deactivation_alone() && !A72.traps_deactivation_alone());
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_changes() {
        const OTHERS: u32 = 0x00fc_0003;
        let mut interface = CpuInterface {
            vmcr: OTHERS,
            ..CpuInterface::default()
        };
        for (value, vmcr) in [(3, 1 << 9 | 1 << 4), (1, 1 << 4), (2, 1 << 9), (0, 0)] {
            let written = interface.write_common(Control, value | 0xff00, A72);
            assert_eq!(written, Some(OTHERS | vmcr), "only two of its bits");
            interface.vmcr = OTHERS | vmcr;
            assert_eq!(interface.read_common(Control, A72), value | 4 << 8);
        }
        let written = interface.write_common(PriorityMask, 0x1ff, A72);
        assert_eq!(written, Some(OTHERS | 0xf800_0000), "five bits of eight");
        interface.vmcr = 0xf800_0000 | OTHERS;
        assert_eq!(interface.read_common(PriorityMask, A72), 0xf8);
        assert_eq!(interface.write_common(PriorityMask, 0, A72), Some(OTHERS));
    }

    #[test]
    fn who_masks_by_priority_is_let_alone_unless_it_ends_by_name() {
        let in_mode = |vmcr| CpuInterface {
            vmcr,
            ..CpuInterface::default()
        };
        let mut masking = Masking::default();
        let one_step = in_mode(vmcr::ENABLE_GROUP_1);
        for n in 1..200 {
            assert_eq!(masking.is_too_dear(one_step.vmcr), n > OFTEN, "write {n}");
        }
        let by_name = in_mode(vmcr::ENABLE_GROUP_1 | vmcr::EOI_MODE);
        assert!(!masking.is_too_dear(by_name.vmcr));
        assert!(masking.is_too_dear(one_step.vmcr));
    }

    #[test]
    fn the_running_priority_is_that_of_the_most_urgent_that_is_handled() {
        let mut interface = CpuInterface::default();
        assert_eq!(interface.read_common(RunningPriority, A72), 0xff, "idle");
        interface.group_1[0] = 1 << 20 | 1 << 10;
        assert_eq!(interface.read_common(RunningPriority, A72), 0x50);
        interface.group_0[0] = 1 << 4;
        assert_eq!(interface.read_common(RunningPriority, A72), 0x20);
        assert_eq!(interface.write_common(RunningPriority, 0, A72), None);
    }
}
