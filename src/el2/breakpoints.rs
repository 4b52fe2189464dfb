//! Breakpoints and watchpoints of a vCPU, switched only for those that ever touched one.
//!
//! While a vCPU has all of them off its accesses to debug registers trap (`MDCR_EL2.TDA`), and so are the hardware's. From its
//! first access on they are its own, untrapped, and follow it.
//!
//! Source: DDI 0487 "MDCR_EL2, Monitor Debug Configuration Register", "DBGBCR<n>_EL1", "DBGWCR<n>_EL1".

use aarch64_cpu::registers::ID_AA64DFR0_EL1;
use tock_registers::interfaces::Readable;

use super::guest_state::untrap_mdcr;

/// `MDCR_EL2.TDA`.
pub(super) const TDA: u64 = 1 << 9;
/// Breakpoints, and watchpoints, an implementation has at most.
const MOST: usize = 16;

/// Values and controls.
#[derive(Default, PartialEq, Eq)]
struct Registers {
    breakpoint_value: [u64; MOST],
    breakpoint_control: [u64; MOST],
    watchpoint_value: [u64; MOST],
    watchpoint_control: [u64; MOST],
}

/// One vCPU's.
#[derive(Default)]
pub(super) struct Breakpoints {
    registers: Registers,
    /// The hardware's are its own in this slice.
    is_open: bool,
}

impl Breakpoints {
    /// A slice begins.
    #[inline]
    pub(super) fn load(&self) {
        if self.is_open {
            write_all(&self.registers);
        }
    }

    /// Bits of `MDCR_EL2`: what traps.
    pub(super) const fn traps(&self) -> u64 {
        if self.is_open { 0 } else { TDA }
    }

    /// The vCPU accessed a debug register while they trapped: from now on they are its own. Answers whether that was so.
    pub(super) fn open(&mut self) -> bool {
        if self.is_open {
            return false;
        }
        self.is_open = true;
        untrap_mdcr(TDA);
        true
    }

    /// A slice ends. The hardware's are off after that: they would fire in the next. Where all are off anyway, as an
    /// operating system leaves them that nobody debugs, they trap again and cost nothing.
    #[inline]
    pub(super) fn save(&mut self) {
        if self.is_open {
            self.take_out();
        }
    }

    #[inline(never)] // few vCPUs are debugged
    fn take_out(&mut self) {
        read_all(&mut self.registers);
        self.is_open = self.registers != Registers::default();
        if self.is_open {
            write_all(&Registers::default());
        }
    }
}

/// At boot: off, whatever firmware left.
pub(super) fn switch_off() {
    write_all(&Registers::default());
}

/// How many breakpoints and watchpoints there are.
fn counts() -> (usize, usize) {
    let dfr0 = ID_AA64DFR0_EL1.get();
    // Both fields hold the number less one.
    let field = |shift: u32| (dfr0 >> shift & 0xf) as usize + 1;
    (field(12), field(20))
}

macro_rules! each {
    ($($n:literal)*) => {
        fn write_all(from: &Registers) {
            let (breakpoints, watchpoints) = counts();
            $(
                if $n < breakpoints {
                    // SAFETY: debug registers of EL1's; the count keeps us off those there are not. Control last: off or
                    // complete.
                    unsafe {
                        core::arch::asm!(
                            concat!("msr dbgbvr", $n, "_el1, {}"),
                            concat!("msr dbgbcr", $n, "_el1, {}"),
                            in(reg) from.breakpoint_value[$n],
                            in(reg) from.breakpoint_control[$n],
                            options(nomem, nostack)
                        );
                    }
                }
                if $n < watchpoints {
                    // SAFETY: as above.
                    unsafe {
                        core::arch::asm!(
                            concat!("msr dbgwvr", $n, "_el1, {}"),
                            concat!("msr dbgwcr", $n, "_el1, {}"),
                            in(reg) from.watchpoint_value[$n],
                            in(reg) from.watchpoint_control[$n],
                            options(nomem, nostack)
                        );
                    }
                }
            )*
        }

        fn read_all(to: &mut Registers) {
            let (breakpoints, watchpoints) = counts();
            $(
                if $n < breakpoints {
                    // SAFETY: reading has no side effect; the count keeps us off those there are not.
                    unsafe {
                        core::arch::asm!(
                            concat!("mrs {}, dbgbvr", $n, "_el1"),
                            concat!("mrs {}, dbgbcr", $n, "_el1"),
                            out(reg) to.breakpoint_value[$n],
                            out(reg) to.breakpoint_control[$n],
                            options(nomem, nostack)
                        );
                    }
                }
                if $n < watchpoints {
                    // SAFETY: as above.
                    unsafe {
                        core::arch::asm!(
                            concat!("mrs {}, dbgwvr", $n, "_el1"),
                            concat!("mrs {}, dbgwcr", $n, "_el1"),
                            out(reg) to.watchpoint_value[$n],
                            out(reg) to.watchpoint_control[$n],
                            options(nomem, nostack)
                        );
                    }
                }
            )*
        }
    };
}
each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
