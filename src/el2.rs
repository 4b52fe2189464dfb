//! The machine: everything that is unsafe, and nothing that decides.
//!
//! Reading order: entry.S (reset) ─► [`start`] (boot, a list of calls) ─► [`smp`] (the other CPUs) ─► [`run`] (the life of a VM)
//! ─► [`dispatch`] (a pCPU at work: enter a guest, decode its exit, let the library handle it) ─► [`power`] (the end).
//!
//! Beside the road: [`vcpu_run`] (how a vCPU comes to a pCPU and leaves it, with [`context`], [`fp`], [`breakpoints`]),
//! [`vm_run`] (its vCPUs together, and its end), [`shared`] (what all pCPUs have), [`interrupts`], [`machine`] (the seam's
//! instructions), [`hyp_map`] (EL2's own stage 1), [`exception`] (EL2's own faults), [`guest_state`] (what traps), the drivers,
//! and [`debug`] (what gdb is told).
//!
//! True throughout: interrupts are masked, also while a pCPU waits in WFI, which a pending one ends all the same; MMU and
//! caches are on from [`start`] on; what belongs to a pCPU is its [`machine::Cpu`], what all share is in [`shared`].

mod boot;
mod breakpoints;
mod console;
mod context;
mod debug;
mod dispatch;
mod driver;
mod el3;
mod exception;
mod fp;
mod guest;
mod guest_state;
mod heap;
mod host;
mod hpfar;
mod hyp_map;
mod ids;
mod interrupts;
mod machine;
mod percpu;
mod pmu;
mod power;
mod refuse;
mod run;
mod shared;
mod smp;
mod sysreg;
mod vcpu_run;
mod vm_run;
mod watch;

use core::arch::global_asm;
use core::mem::{offset_of, size_of};

use faultline::addr::Pa;
use faultline::registers::Registers;

/// `SCTLR_EL2`'s RES1 bits.
const SCTLR_RES1: u64 =
    1 << 4 | 1 << 5 | 1 << 11 | 1 << 16 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 28 | 1 << 29;
/// M, C, SA, I, WXN: MMU and caches, stack alignment, and nothing writable is executable.
const SCTLR_ON: u64 = SCTLR_RES1 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;

global_asm!(
    include_str!("el2/entry.S"),
    SCTLR_OFF = const SCTLR_RES1,
    SCTLR_ON = const SCTLR_ON,
    MAIR = const hyp_map::MAIR,
    build_map = sym hyp_map::build,
    start = sym start,
    refuse = sym refuse::refused,
    wanted = sym smp::WANTED,
    secondary = sym smp::secondary,
    REFUSE_EL1 = const refuse::code::EL1,
    REFUSE_E2H = const refuse::code::E2H,
    EL3_STORE = const el3::STORE,
);

global_asm!(
    include_str!("el2/vectors.S"),
    PC = const offset_of!(Registers, pc),
    FRAME_SIZE = const size_of::<exception::Frame>(),
    STACK_BIT = const 16,
    OVERFLOW = const exception::OVERFLOW,
    exception = sym exception::exception,
    quick_exit = sym guest::quick_exit,
);

global_asm!(include_str!("el2/copy.S"));

/// EL2's first Rust with MMU and caches on: boot, then run. `x0` is what firmware passed; `own_el3`: there was none.
extern "C" fn start(x0: u64, own_el3: u64) -> ! {
    heap::init();
    el3::note(own_el3 != 0);
    let machine = boot::boot(Pa::new(x0));
    run::run(machine)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    exception::report_panic(info)
}
