//! A vCPU's registers that live in the hardware while it runs, and in memory while it does not.
//!
//! General-purpose registers are saved on each exit (vectors.S); these here only when another vCPU takes the pCPU. Floating
//! point is apart ([`super::fp`]), and so are breakpoints ([`super::breakpoints`]): few slices touch them.
//!
//! Source: DDI 0487 "Reset and AArch64 state", Linux `Documentation/arch/arm64/booting.rst` for the values at reset.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    AFSR0_EL1, AFSR1_EL1, AMAIR_EL1, CNTKCTL_EL1, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTV_CTL_EL0,
    CNTV_CVAL_EL0, CONTEXTIDR_EL1, CPACR_EL1, CSSELR_EL1, ELR_EL1, ESR_EL1, FAR_EL1, MAIR_EL1,
    MDSCR_EL1, OSLAR_EL1, PAR_EL1, SCTLR_EL1, SP_EL0, SP_EL1, SPSR_EL1, TCR_EL1, TPIDR_EL0,
    TPIDR_EL1, TPIDRRO_EL0, TTBR0_EL1, TTBR1_EL1, VBAR_EL1, VMPIDR_EL2,
};
use faultline::features::Features;
use faultline::sched;
use faultline::stage2::maintenance::{SCTLR_MMU_ON, TCR_NO_WALKS};
use faultline::vm::{PHYSICAL_TIMER, VIRTUAL_TIMER};
use tock_registers::interfaces::{Readable, Writeable};

use super::interrupts::asserts;
use super::sysreg::{
    APDA, APDA_HI, APDB, APDB_HI, APGA, APGA_HI, APIA, APIA_HI, APIB, APIB_HI, MDCCINT_EL1,
    OSDLR_EL1, OSLSR_EL1,
};

/// `SCTLR_EL1` at reset: EOS, TSCXT, EIS, SPAN, nTLSMD and LSMAOE, which are RES1 or as if; nTWI and nTWE, so that EL0 may
/// wait, as under QEMU and KVM; MMU, caches and alignment checks off.
const SCTLR_EL1_RESET: u64 = 0x30d5_0800;
/// With EL0 in AArch32: CP15BEN, its barriers by CP15.
const SCTLR_EL1_AARCH32: u64 = 1 << 5;
/// Without: ITD and SED are RES1.
const SCTLR_EL1_NO_AARCH32: u64 = 1 << 7 | 1 << 8;
/// `CNTx_CTL.ENABLE`, `IMASK`, `ISTATUS`.
const TIMER_STATE: u64 = 0b111;
/// Enabled, not masked, and its moment has not come.
const TIMER_ARMED: u64 = 0b001;

/// Registers that are only copied, in and out.
macro_rules! copied {
    ($($field:ident = $register:ident;)*) => {
        #[derive(Default)]
        struct Copied {
            $($field: u64,)*
        }

        impl Copied {
            /// All of them before the first is stored: two go into memory at a time.
            fn save(&mut self) {
                *self = Self {
                    $($field: $register.get(),)*
                };
            }

            fn load(&self) {
                $($register.set(self.$field);)*
            }
        }
    };
}

copied! {
    cpacr = CPACR_EL1;
    ttbr0 = TTBR0_EL1;
    ttbr1 = TTBR1_EL1;
    mair = MAIR_EL1;
    amair = AMAIR_EL1;
    vbar = VBAR_EL1;
    contextidr = CONTEXTIDR_EL1;
    elr = ELR_EL1;
    spsr = SPSR_EL1;
    esr = ESR_EL1;
    far = FAR_EL1;
    afsr0 = AFSR0_EL1;
    afsr1 = AFSR1_EL1;
    par = PAR_EL1;
    sp_el0 = SP_EL0;
    sp_el1 = SP_EL1;
    tpidr_el0 = TPIDR_EL0;
    tpidrro_el0 = TPIDRRO_EL0;
    tpidr_el1 = TPIDR_EL1;
    csselr = CSSELR_EL1;
    cntkctl = CNTKCTL_EL1;
    mdscr = MDSCR_EL1;
    mdccint = MDCCINT_EL1;
}

/// One of the two timers of EL1.
#[derive(Clone, Copy, Default)]
struct Timer {
    control: u64,
    compare: u64,
}

impl Timer {
    const fn deadline(self, counter_offset: u64) -> u64 {
        if self.control == TIMER_ARMED {
            sched::deadline(self.compare, counter_offset)
        } else {
            sched::NEVER
        }
    }
}

/// All of it.
pub(super) struct Context {
    copied: Copied,
    sctlr: u64,
    tcr: u64,
    vmpidr: u64,
    /// `OSLSR_EL1`
    os_lock: u64,
    virtual_timer: Timer,
    physical_timer: Timer,
    /// Keys of pointer authentication, if the CPUs have it.
    keys: Option<[u64; 10]>,
}

impl Context {
    /// As at reset, for the vCPU with this affinity.
    pub(super) fn at_reset(affinity: u64, features: &Features) -> Self {
        /// `MPIDR_EL1.RES1`.
        const MPIDR_RES1: u64 = 1 << 31;
        /// `OSLSR_EL1.OSLK`: debug state is locked until software unlocks it.
        const OS_LOCKED: u64 = 1 << 1;
        Self {
            copied: Copied::default(),
            sctlr: SCTLR_EL1_RESET
                | if features.aarch32_el0 {
                    SCTLR_EL1_AARCH32
                } else {
                    SCTLR_EL1_NO_AARCH32
                },
            tcr: 0,
            vmpidr: MPIDR_RES1 | affinity,
            os_lock: OS_LOCKED,
            virtual_timer: Timer::default(),
            physical_timer: Timer::default(),
            keys: features.pauth.then_some([0; 10]),
        }
    }

    /// Out of the hardware. Its timers are off after that.
    pub(super) fn save(&mut self) {
        self.copied.save();
        self.sctlr = SCTLR_EL1.get();
        self.tcr = TCR_EL1.get();
        self.os_lock = OSLSR_EL1.get();
        self.virtual_timer = Timer {
            control: CNTV_CTL_EL0.get() & TIMER_STATE,
            compare: CNTV_CVAL_EL0.get(),
        };
        self.physical_timer = Timer {
            control: CNTP_CTL_EL0.get() & TIMER_STATE,
            compare: CNTP_CVAL_EL0.get(),
        };
        CNTV_CTL_EL0.set(0);
        CNTP_CTL_EL0.set(0);
        if let Some(keys) = &mut self.keys {
            *keys = read_keys();
        }
    }

    /// Into the hardware, where EL1's stage 1 is closed ([`close_stage1`]) and `VTTBR_EL2` is the VM's already: what says
    /// how to walk comes last.
    pub(super) fn load(&self) {
        VMPIDR_EL2.set(self.vmpidr);
        self.copied.load();
        OSLAR_EL1.set(self.os_lock >> 1 & 1);
        OSDLR_EL1.set(0);
        if let Some(keys) = &self.keys {
            write_keys(keys);
        }
        CNTV_CVAL_EL0.set(self.virtual_timer.compare);
        CNTP_CVAL_EL0.set(self.physical_timer.compare);
        barrier::isb(barrier::SY);
        CNTV_CTL_EL0.set(self.virtual_timer.control);
        CNTP_CTL_EL0.set(self.physical_timer.control);
        TCR_EL1.set(self.tcr);
        SCTLR_EL1.set(self.sctlr);
    }

    /// The moment at which one of its timers will interrupt, in ticks of the physical counter.
    pub(super) const fn deadline(&self, counter_offset: u64) -> u64 {
        let virt = self.virtual_timer.deadline(counter_offset);
        let physical = self.physical_timer.deadline(0);
        if virt < physical { virt } else { physical }
    }
}

impl Context {
    /// The lines that its timers assert, a bit each by INTID, of a context that was saved.
    #[inline]
    pub(super) const fn lines(&self) -> u32 {
        (asserts(self.virtual_timer.control) as u32) << VIRTUAL_TIMER.raw()
            | (asserts(self.physical_timer.control) as u32) << PHYSICAL_TIMER.raw()
    }
}

/// EL1's stage 1 on and walking nothing: whatever is translated speculatively while registers of two vCPUs are mixed ends in
/// a fault that nobody sees (errata 1165522, 1319367, 1530923 and their like). Other registers of the vCPU that was here may
/// be replaced after that.
pub(super) fn close_stage1() {
    TCR_EL1.set(TCR_NO_WALKS);
    SCTLR_EL1.set(SCTLR_EL1_RESET | SCTLR_MMU_ON);
    barrier::isb(barrier::SY);
    // The walker may still be at work for the vCPU that was here.
    barrier::dsb(barrier::NSH);
}

macro_rules! keys {
    ($($index:literal $register:ident)*) => {
        fn read_keys() -> [u64; 10] {
            [$($register.get()),*]
        }

        fn write_keys(keys: &[u64; 10]) {
            $($register.set(keys[$index]);)*
        }
    };
}
keys! { 0 APIA 1 APIA_HI 2 APIB 3 APIB_HI 4 APDA 5 APDA_HI 6 APDB 7 APDB_HI 8 APGA 9 APGA_HI }
