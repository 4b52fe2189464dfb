//! Pages of RAM that nobody has touched yet, and the pages this program itself lies in.
use crate::fdt;
use crate::global::Global;
use crate::mmio;
use crate::platform::RAM_BASE;
use crate::verdict;
use core::arch::asm;

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// Fresh pages begin here: well past every image of ours and the device tree Faultline puts at the base of RAM; QEMU
/// alone puts its tree in the middle of RAM or at 128 MiB.
const FRESH_BASE: u64 = RAM_BASE + 0x0100_0000;

static NEXT: Global<u64> = Global::new(FRESH_BASE);

/// The address of a page that nothing has touched since reset.
pub fn fresh() -> u64 {
    fresh_run(1)
}

/// The address of `count` such pages in a row.
pub fn fresh_run(count: u64) -> u64 {
    let page = NEXT.get();
    let end = page + count * PAGE;
    let (base, size) = fdt::memory();
    if end > base + size {
        verdict::fail(format_args!(
            "this guest needs more RAM than {} MiB",
            size >> 20
        ));
    }
    NEXT.set(end);
    page
}

/// The next fresh page is the first of an aligned group of `count` pages (a power of two).
pub fn fresh_aligned(count: u64) -> u64 {
    let unit = count * PAGE;
    NEXT.set(NEXT.get().next_multiple_of(unit));
    fresh_run(count)
}

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
}

static EL0_CODE: Global<u64> = Global::new(0);

/// Says at which page EL0 sees code of this program, when that is another address than EL1's.
pub fn set_el0_code(page: u64) {
    EL0_CODE.set(page);
}

/// Whether there is code of this program at `address`.
pub fn is_own_code(address: u64) -> bool {
    let own = &raw const __image_start as u64..&raw const __text_end as u64;
    own.contains(&address) || address & !(PAGE - 1) == EL0_CODE.get()
}

/// `RET`, the shortest function there is.
const RET: u32 = 0xd65f_03c0;

/// Touches each page of this program in each way it will ever be touched, so that what is counted from here on is about
/// other pages: reads all, writes .data, .bss and stack, and fetches from each page of code by calling a RET in it.
pub fn settle_image() {
    let [start, text_end, rodata_end, end] = [
        &raw const __image_start,
        &raw const __text_end,
        &raw const __rodata_end,
        &raw const __image_end,
    ]
    .map(|symbol| symbol as u64);
    for page in (start..end).step_by(PAGE as usize) {
        let first = mmio::read32(page);
        if page >= rodata_end {
            // The same value: whoever owns it does not notice, on one CPU.
            mmio::write32(page, first);
        }
        if page < text_end
            && let Some(ret) = (page..page + PAGE)
                .step_by(4)
                .find(|&at| mmio::read32(at) == RET)
        {
            call(ret);
        }
    }
}

/// Calls the code at `address` and answers its x0; `u64::MAX` goes in.
pub fn call(address: u64) -> u64 {
    let result: u64;
    // SAFETY: the callers pass code that returns and keeps what the calling convention says; it is opaque to Rust, so
    // everything a call may clobber is declared.
    unsafe { asm!("blr {0}", in(reg) address, inout("x0") u64::MAX => result, clobber_abi("C")) };
    result
}
