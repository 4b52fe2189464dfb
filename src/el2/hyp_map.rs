//! EL2's own stage 1: an identity map of what EL2 needs and nothing more.
//!
//! Text is executable and read-only, constants are read-only, all else is writable and never executable (and SCTLR_EL2.WXN
//! holds us to it). RAM is mapped when it enters the page pool, a device when its driver starts. Mappings are only ever
//! added, so there is nothing to invalidate.
//!
//! On entry to [`build`]: MMU and caches off, one PE, no locks.
//!
//! Source: DDI 0487 "VMSAv8-64 translation table format descriptors", EL2 translation regime; "TCR_EL2", "MAIR_EL2".

use core::cell::UnsafeCell;
use core::ptr::addr_of_mut;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, TCR_EL2};
use faultline::addr::{PAGE_SIZE, Pa, PaRange};
use tock_registers::interfaces::Readable;

/// Tables there are for the map; the image's own need 4, every ragged edge of RAM at most 2 more.
const TABLE_COUNT: usize = 96;
const ENTRIES: usize = 512;

/// `MAIR_EL2`: index 0 is Normal Write-Back, index 1 Device-nGnRE.
pub(super) const MAIR: u64 = 0x04_ff;

const VALID: u64 = 1 << 0;
const TABLE_OR_PAGE: u64 = 1 << 1;
const ATTR_DEVICE: u64 = 1 << 2;
/// AP[1] is RES1 in a regime with one privilege level.
const AP_RES1: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const SH_INNER: u64 = 3 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
const XN: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// What a range is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Executed.
    Text,
    /// Read.
    ReadOnly,
    /// Read and written.
    Data,
    /// Registers of a device.
    Device,
}

impl Use {
    const fn attributes(self) -> u64 {
        let normal = AP_RES1 | SH_INNER | ACCESS_FLAG;
        match self {
            Self::Text => normal | AP_READ_ONLY,
            Self::ReadOnly => normal | AP_READ_ONLY | XN,
            Self::Data => normal | XN,
            Self::Device => AP_RES1 | ACCESS_FLAG | XN | ATTR_DEVICE,
        }
    }
}

#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

struct Tables {
    tables: [Table; TABLE_COUNT],
    /// Tables in use besides the root, which is the first.
    used: usize,
}

struct Global(UnsafeCell<Tables>);

// SAFETY: touched by the boot CPU alone: before any other is started, through `map` and `build` only.
unsafe impl Sync for Global {}

static TABLES: Global = Global(UnsafeCell::new(Tables {
    tables: [const { Table([0; ENTRIES]) }; TABLE_COUNT],
    used: 0,
}));

/// No table is left for the map.
#[derive(Debug)]
pub(super) struct TooRagged;

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __stack_guard: u8;
    static __stack_bottom: u8;
    static __stack_top: u8;
    static __emergency_stack_bottom: u8;
    static __image_end: u8;
}

fn between(start: *const u8, end: *const u8) -> PaRange {
    PaRange {
        start: Pa::new(start as u64),
        size: end as u64 - start as u64,
    }
}

/// All of our image, guard page and heap among it.
pub(super) fn image() -> PaRange {
    between(&raw const __image_start, &raw const __image_end)
}

/// Maps the image by its sections. Called from entry.S, MMU off; answers TTBR0_EL2 and TCR_EL2.
pub(super) extern "C" fn build() -> Root {
    let sections = [
        (
            between(&raw const __image_start, &raw const __text_end),
            Use::Text,
        ),
        (
            between(&raw const __text_end, &raw const __rodata_end),
            Use::ReadOnly,
        ),
        (
            between(&raw const __rodata_end, &raw const __stack_guard),
            Use::Data,
        ),
        // The guards below the stacks stay unmapped.
        (
            between(&raw const __stack_bottom, &raw const __stack_top),
            Use::Data,
        ),
        (
            between(&raw const __emergency_stack_bottom, &raw const __image_end),
            Use::Data,
        ),
    ];
    for (range, purpose) in sections {
        // The image's few tables are always there.
        let _ = map(range, purpose);
    }
    let pa_range = ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange).min(5);
    let tcr = TCR_EL2::T0SZ.val(16)
        + TCR_EL2::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL2::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL2::SH0::Inner
        + TCR_EL2::TG0::KiB_4
        + TCR_EL2::PS.val(pa_range);
    const RES1: u64 = 1 << 31 | 1 << 23;
    Root {
        ttbr: TABLES.0.get() as u64,
        tcr: tcr.value | RES1,
    }
}

/// What entry.S writes into the registers of the same names.
#[repr(C)]
pub(super) struct Root {
    ttbr: u64,
    tcr: u64,
}

/// Maps `range`, grown to whole pages, at its own address. What is mapped already stays as it is.
pub(super) fn map(range: PaRange, purpose: Use) -> Result<(), TooRagged> {
    let pages = range.to_pages();
    let mut at = pages.start.raw();
    let end = pages.end().raw();
    while at < end {
        at += map_leaf(at, end, purpose)?;
    }
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
    Ok(())
}

/// Maps the largest leaf that starts at `at` and ends by `end`; answers its size.
fn map_leaf(at: u64, end: u64, purpose: Use) -> Result<u64, TooRagged> {
    // SAFETY: single owner, see `Global`; no reference into the tables outlives this function.
    let tables = unsafe { &mut *addr_of_mut!(*TABLES.0.get()) };
    let mut table = 0;
    for level in 0..4u32 {
        let shift = 12 + 9 * (3 - level);
        let size = 1 << shift;
        let index = (at >> shift) as usize % ENTRIES;
        let entry = tables.tables[table].0[index];
        let fits = (1..=3).contains(&level) && at.is_multiple_of(size) && end - at >= size;
        match (entry & VALID != 0, entry & TABLE_OR_PAGE != 0 && level < 3) {
            (true, true) => {
                table = ((entry & ADDRESS) - base_of(tables)) as usize / PAGE_SIZE as usize
            }
            (true, false) => return Ok(size - at % size),
            (false, _) if fits => {
                let shape = VALID | if level == 3 { TABLE_OR_PAGE } else { 0 };
                tables.tables[table].0[index] = at | purpose.attributes() | shape;
                return Ok(size);
            }
            (false, _) => {
                let new = tables.used + 1;
                if new == TABLE_COUNT {
                    return Err(TooRagged);
                }
                tables.used = new;
                let link = base_of(tables) + new as u64 * PAGE_SIZE;
                // The new table's zeroes, from .bss, are visible before the link is.
                barrier::dsb(barrier::ISHST);
                tables.tables[table].0[index] = link | VALID | TABLE_OR_PAGE;
                table = new;
            }
        }
    }
    unreachable!("level 3 always fits a page")
}

fn base_of(tables: &Tables) -> u64 {
    &raw const tables.tables as u64
}
