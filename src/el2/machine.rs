//! The seam, implemented: single instructions. Everything that composes them is in the library.

use core::arch::asm;

use alloc::sync::Arc;

use super::dispatch::Due;
use super::driver::gic::Gic;
use super::fp::FpOwner;
use super::percpu::{self, Block};
use super::sysreg::DCZID_EL0;
use super::vm_run::VmRun;
use super::{interrupts, shared};
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    AFSR0_EL1, AFSR1_EL1, AMAIR_EL1, CONTEXTIDR_EL1, ELR_EL1, ESR_EL1, FAR_EL1, MAIR_EL1, PAR_EL1,
    SCTLR_EL1, SP_EL0, SP_EL1, SPSR_EL1, TCR_EL1, TTBR0_EL1, TTBR1_EL1, VBAR_EL1, VTTBR_EL2,
};
use core::sync::atomic::{AtomicU64, Ordering};
use faultline::addr::{Gva, Ipa, Pa, PaRange};
use faultline::features::Features;
use faultline::machine::{AtAborted, Dc, Dsb, El1, Ic, Machine, Tlbi, Ttl};
use faultline::sched::{Deadlines, NEVER, Slice};
use tock_registers::interfaces::{Readable, Writeable};

unsafe extern "C" {
    /// vectors.S.
    fn translate_s1e1r(va: u64) -> u64;
}

/// Moments a pCPU keeps besides the end of a slice: each vCPU's timer, each VM's alarm, and the next look at it.
const DEADLINES: usize = 3 * shared::MAX_VCPUS;

/// This pCPU.
pub(super) struct Cpu {
    /// What the exit path finds.
    pub(super) block: &'static Block,
    pub(super) gic: Gic,
    dcache_line: u64,
    icache_line: u64,
    /// Bytes that one DC ZVA zeroes; 0 where it is prohibited.
    zero_block: u64,
    /// Its number: 0 is the boot CPU.
    pub(super) number: usize,
    /// The VM whose stage 2 is in its registers.
    pub(super) vm: Option<Arc<VmRun>>,
    /// Whose floating-point registers it holds.
    pub(super) fp: FpOwner,
    /// `HCR_EL2`.
    pub(super) hcr: u64,
    /// Whether others wait for it, as its vCPU's slice has it; `None`: that is yet to begin.
    pub(super) shares: Option<bool>,
    /// And its vCPU has had its time.
    pub(super) slice_is_over: bool,
    /// What is left of its time, and the moment at which it is looked at.
    pub(super) slice: Slice,
    deadlines: Deadlines<Due>,
    /// What EL2's own timer is set to.
    alarm: u64,
    /// The guest has made room for console input.
    pub(super) guest_listens: bool,
}

impl Cpu {
    pub(super) fn new(number: usize, features: &Features, gic: Gic) -> Self {
        Self {
            block: percpu::init(number),
            number,
            vm: None,
            fp: FpOwner::default(),
            hcr: 0,
            shares: None,
            slice_is_over: false,
            slice: Slice::ENDLESS,
            deadlines: Deadlines::new(DEADLINES),
            alarm: NEVER,
            gic,
            dcache_line: features.dcache_line,
            icache_line: features.icache_line,
            zero_block: zero_block(),
            guest_listens: false,
        }
    }

    /// Sets the moment at which `what` is due; `NEVER` forgets it.
    #[inline]
    pub(super) fn due(&mut self, what: &Due, at: u64) {
        if !self.deadlines.set(what, at) {
            // Of VMs that have ended.
            self.deadlines.retain(|due| due.vm.strong_count() != 0);
            let is_kept = self.deadlines.set(what, at);
            assert!(is_kept, "there is room for every vCPU's timer");
        }
        self.set_timer();
    }

    /// Sets the slice of the vCPU.
    #[inline]
    pub(super) fn set_slice(&mut self, slice: Slice) {
        if self.slice != slice {
            self.slice = slice;
            self.set_timer();
        }
    }

    /// Takes what is due by `now`. The last time, when there is nothing, the timer is set to what comes next.
    pub(super) fn take_due(&mut self, now: u64) -> Option<Due> {
        let due = self.deadlines.take_due(now);
        if due.is_none() {
            self.set_timer();
        }
        due
    }

    #[inline]
    fn set_timer(&mut self) {
        let first = self.slice.next_look().min(self.deadlines.earliest());
        if self.alarm != first {
            self.alarm = first;
            interrupts::set_hyp_timer(first);
        }
    }

    /// Whether the guest has made room for console input since this was asked last.
    pub(super) fn take_guest_listens(&mut self) -> bool {
        core::mem::take(&mut self.guest_listens)
    }

    /// Waits for a physical interrupt.
    pub(super) fn wait(&self) {
        aarch64_cpu::asm::wfi();
    }
}

/// The one place where a physical address becomes a pointer: EL2 maps RAM at its own address.
pub(super) const fn identity<T>(pa: Pa) -> *mut T {
    pa.raw() as *mut T
}

fn descriptor(table: Pa, index: usize) -> *mut u64 {
    assert!(index < 512, "a table has 512 entries");
    identity::<u64>(table).wrapping_add(index)
}

/// `DCZID_EL0`: bit 4 prohibits, bits 3 to 0 are log2 of the block in words.
fn zero_block() -> u64 {
    let dczid = DCZID_EL0.get();
    if dczid & 1 << 4 == 0 {
        4 << (dczid & 0xf)
    } else {
        0
    }
}

/// Bytes that [`copy_steps`] copies at a time.
const COPY_STEP: u64 = 128;

/// Copies `size` bytes, a multiple of [`COPY_STEP`] and not 0: a module's block is copied as a whole when it is written, and
/// the compiler's `memcpy` takes three times as long, a word at a time.
///
/// # Safety
/// As for `core::ptr::copy_nonoverlapping`; both are Normal memory, which may be accessed at any address.
unsafe fn copy_steps(from: *const u8, to: *mut u8, size: u64) {
    // SAFETY: the caller's; the registers written are operands.
    unsafe {
        asm!(
            "2:",
            ".rept 4",
            "ldp {a}, {b}, [{from}], #32",
            "ldp {c}, {d}, [{from}, #-16]",
            "stp {a}, {b}, [{to}], #32",
            "stp {c}, {d}, [{to}, #-16]",
            ".endr",
            "subs {left}, {left}, #{step}",
            "b.ne 2b",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            left = inout(reg) size => _,
            step = const COPY_STEP,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            options(nostack),
        );
    }
}

/// One instruction for each line of `step` bytes that has a byte of the range: two instructions a line, and two more for
/// every eight lines.
macro_rules! by_line {
    ($text:literal, $range:expr, $step:expr) => {{
        let (range, step): (PaRange, u64) = ($range, $step);
        let start = range.start.raw() & !(step - 1);
        // SAFETY: as for `instruction!`; or DC ZVA, whose caller owns every block of the range.
        unsafe {
            asm!(
                "subs {left}, {left}, {step}, lsl #3",
                "b.lo 3f",
                "2:",
                ".rept 8",
                concat!($text, ", {line}"),
                "add {line}, {line}, {step}",
                ".endr",
                "subs {left}, {left}, {step}, lsl #3",
                "b.hs 2b",
                "3: adds {left}, {left}, {step}, lsl #3",
                "b.eq 5f",
                "4:",
                concat!($text, ", {line}"),
                "add {line}, {line}, {step}",
                "subs {left}, {left}, {step}",
                "b.hi 4b",
                "5:",
                line = inout(reg) start => _,
                left = inout(reg) range.end().raw().wrapping_sub(start) => _,
                step = in(reg) step,
                options(nostack)
            );
        }
    }};
}

macro_rules! instruction {
    ($text:literal $(, $operand:expr)?) => {
        // SAFETY: maintenance of caches and TLBs, which changes no memory EL2 relies on; no `nomem`, so that the compiler
        // keeps it in order with the stores around it.
        unsafe { asm!($text, $(in(reg) $operand,)? options(nostack, preserves_flags)) }
    };
}

/// The operand of a TLBI by IPA: the page, and in TTL (bits 47 to 44) the granule, 01 for 4 KiB, with the level.
const fn one_page(ipa: Ipa, ttl: Ttl) -> u64 {
    let hint = match ttl.only() {
        Some(level) => (1 << 2 | level as u64) << 44,
        None => 0,
    };
    ipa.raw() >> 12 | hint
}

impl Machine for Cpu {
    fn cpu(&mut self) -> usize {
        self.number
    }

    fn load(&mut self, table: Pa, index: usize) -> u64 {
        // SAFETY: `table` is a page of the pool that a stage-2 tree owns: mapped, aligned, and only accessed atomically.
        unsafe { AtomicU64::from_ptr(descriptor(table, index)) }.load(Ordering::Acquire)
    }

    fn publish(&mut self, table: Pa, index: usize, current: u64, new: u64) -> Result<(), u64> {
        // SAFETY: as in `load`.
        let place = unsafe { AtomicU64::from_ptr(descriptor(table, index)) };
        place
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
    }

    fn fill_table(&mut self, table: Pa, first: u64, step: u64) {
        let mut value = first;
        for index in 0..512 {
            // SAFETY: as in `load`; nothing refers to the table yet, and the store that links it has release order.
            unsafe { AtomicU64::from_ptr(descriptor(table, index)) }
                .store(value, Ordering::Relaxed);
            value = value.wrapping_add(step);
        }
    }

    #[inline(never)] // `make bench` counts it apart
    fn zero(&mut self, pages: PaRange) {
        // Blocks are a power of two of at most 2 KiB: whole pages are whole blocks.
        if self.zero_block != 0 {
            return by_line!("dc zva", pages, self.zero_block);
        }
        // SAFETY: the caller owns the pages; they are mapped, and nothing refers to them yet.
        unsafe {
            core::ptr::write_bytes(identity::<u64>(pages.start), 0, pages.size as usize / 8);
        };
    }

    fn read(&mut self, at: Pa, bytes: &mut [u8]) {
        // SAFETY: `at` lies in a page that a VM of ours owns; a racing guest store tears bytes, and bytes are all we take.
        unsafe {
            core::ptr::copy_nonoverlapping(identity::<u8>(at), bytes.as_mut_ptr(), bytes.len())
        };
    }

    fn write(&mut self, at: Pa, bytes: &[u8]) {
        // SAFETY: the caller owns the page `at` lies in and stays inside it.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), identity::<u8>(at), bytes.len()) };
    }

    #[inline(never)] // `make bench` counts it apart
    fn copy(&mut self, from: PaRange, to: Pa) {
        let whole = PaRange {
            size: from.size & !(COPY_STEP - 1),
            ..from
        };
        let (source, target) = (identity::<u8>(from.start), identity::<u8>(to));
        // SAFETY: `from` is memory that nobody writes and that is mapped; the caller owns what `to` lies in, and they do
        // not overlap. The loop copies the whole steps, the function what is left.
        unsafe {
            if whole.size != 0 {
                copy_steps(source, target, whole.size);
            }
            core::ptr::copy_nonoverlapping(
                source.wrapping_add(whole.size as usize),
                target.wrapping_add(whole.size as usize),
                (from.size - whole.size) as usize,
            );
        }
    }

    fn dsb(&mut self, kind: Dsb) {
        match kind {
            Dsb::IshSt => barrier::dsb(barrier::ISHST),
            Dsb::Ish => barrier::dsb(barrier::ISH),
            Dsb::NshSt => barrier::dsb(barrier::NSHST),
            Dsb::Nsh => barrier::dsb(barrier::NSH),
            Dsb::Sy => barrier::dsb(barrier::SY),
        }
    }

    fn isb(&mut self) {
        barrier::isb(barrier::SY);
    }

    #[inline(always)] // one of them is left of it where it is called
    fn tlbi(&mut self, op: Tlbi) {
        match op {
            Tlbi::Ipas2e1(ipa, ttl) => instruction!("tlbi ipas2e1, {}", one_page(ipa, ttl)),
            Tlbi::Ipas2e1Is(ipa, ttl) => instruction!("tlbi ipas2e1is, {}", one_page(ipa, ttl)),
            // By its encoding: older assemblers ask for the feature that FEAT_TLBIRANGE's callers have checked.
            Tlbi::Ripas2e1Is(range) => instruction!("sys #4, c8, c0, #2, {}", range.operand()),
            Tlbi::Vmalle1 => instruction!("tlbi vmalle1"),
            Tlbi::Vmalle1Is => instruction!("tlbi vmalle1is"),
            Tlbi::Vmalls12e1Is => instruction!("tlbi vmalls12e1is"),
            Tlbi::Vmalls12e1 => instruction!("tlbi vmalls12e1"),
            Tlbi::Alle1Is => instruction!("tlbi alle1is"),
            Tlbi::RepeatVale2Is => instruction!("tlbi vale2is, xzr"),
        }
    }

    #[inline(never)] // `make bench` counts it apart
    fn dc(&mut self, op: Dc, range: PaRange) {
        match op {
            Dc::CleanInvalidateToPoc => by_line!("dc civac", range, self.dcache_line),
            Dc::CleanToPou => by_line!("dc cvau", range, self.dcache_line),
        }
    }

    #[inline(never)] // `make bench` counts it apart
    fn ic(&mut self, op: Ic) {
        match op {
            Ic::AllLocal => instruction!("ic iallu"),
            Ic::AllInnerShareable => instruction!("ic ialluis"),
            Ic::Range(range) => by_line!("ic ivau", range, self.icache_line),
        }
    }

    fn vttbr(&mut self) -> u64 {
        VTTBR_EL2.get()
    }

    fn set_vttbr(&mut self, value: u64) {
        // As one value: the crate's `set_baddr` would clear the VMID.
        VTTBR_EL2.set(value);
    }

    fn at_s1e1r(&mut self, va: Gva) -> Result<(), AtAborted> {
        // SAFETY: AT reads the guest's tables and writes PAR_EL1; an abort on it is in the fix-up table (exception.rs).
        match unsafe { translate_s1e1r(va.raw()) } {
            0 => Ok(()),
            _ => Err(AtAborted),
        }
    }

    fn par(&mut self) -> u64 {
        PAR_EL1.get()
    }

    fn set_par(&mut self, value: u64) {
        PAR_EL1.set(value);
    }

    fn el1(&mut self, register: El1) -> u64 {
        match register {
            El1::Vbar => VBAR_EL1.get(),
            El1::Sctlr => SCTLR_EL1.get(),
            El1::Esr => ESR_EL1.get(),
            El1::Far => FAR_EL1.get(),
            El1::Elr => ELR_EL1.get(),
            El1::Spsr => SPSR_EL1.get(),
            El1::Ttbr0 => TTBR0_EL1.get(),
            El1::Ttbr1 => TTBR1_EL1.get(),
            El1::Tcr => TCR_EL1.get(),
            El1::SpEl0 => SP_EL0.get(),
            El1::SpEl1 => SP_EL1.get(),
            El1::Mair => MAIR_EL1.get(),
            El1::Amair => AMAIR_EL1.get(),
            El1::Afsr0 => AFSR0_EL1.get(),
            El1::Afsr1 => AFSR1_EL1.get(),
            El1::Contextidr => CONTEXTIDR_EL1.get(),
        }
    }

    fn set_el1(&mut self, register: El1, value: u64) {
        match register {
            El1::Vbar => VBAR_EL1.set(value),
            El1::Sctlr => SCTLR_EL1.set(value),
            El1::Esr => ESR_EL1.set(value),
            El1::Far => FAR_EL1.set(value),
            El1::Elr => ELR_EL1.set(value),
            El1::Spsr => SPSR_EL1.set(value),
            El1::Ttbr0 => TTBR0_EL1.set(value),
            El1::Ttbr1 => TTBR1_EL1.set(value),
            El1::Tcr => TCR_EL1.set(value),
            El1::SpEl0 => SP_EL0.set(value),
            El1::SpEl1 => SP_EL1.set(value),
            El1::Mair => MAIR_EL1.set(value),
            El1::Amair => AMAIR_EL1.set(value),
            El1::Afsr0 => AFSR0_EL1.set(value),
            El1::Afsr1 => AFSR1_EL1.set(value),
            El1::Contextidr => CONTEXTIDR_EL1.set(value),
        }
    }

    fn interrupt_window(&mut self) {
        interrupts::window(self);
    }
}
