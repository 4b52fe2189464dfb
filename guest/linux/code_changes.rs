//! A Linux program of the workload's: code that changes under several threads, which move from CPU to CPU meanwhile. What
//! runs must be what was written last. Ends with one line, `code: PASS` or `code: FAIL` and what ran instead.
//!
//! It stands on nothing but the kernel: a static ELF file without a C library, built with the guests.
//!
//! Source: DDI 0487 "Synchronization and coherency issues between data and instruction accesses"; Linux's arm64 system
//! calls (`include/uapi/asm-generic/unistd.h`).
#![no_std]
#![no_main]

mod kernel;

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use kernel::{MMAP, SCHED_SETAFFINITY, call, end, say};

/// Threads, the first one among them.
const THREADS: usize = 4;
/// Versions of the code that all threads run, and of each thread's own.
const VERSIONS: u64 = 64;
const OWN_VERSIONS: u64 = 400;
/// Versions between two moves to another CPU.
const STAY: u64 = 16;
const STACK: usize = 16 << 10;
const PAGE: u64 = 4096;
const RET: u32 = 0xd65f_03c0;

const FTRUNCATE: u64 = 46;
const EXIT: u64 = 93;
const FUTEX: u64 = 98;
const MPROTECT: u64 = 226;
const MEMFD_CREATE: u64 = 279;
const PROT_READ: u64 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_ANONYMOUS: u64 = 0x20;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAKE: u64 = 1;

#[repr(C, align(16))]
struct Stacks(core::cell::UnsafeCell<[[u8; STACK]; THREADS]>);
// SAFETY: each thread uses its own stack only, and Rust refers to none of them.
unsafe impl Sync for Stacks {}
static STACKS: Stacks = Stacks(core::cell::UnsafeCell::new([[0; STACK]; THREADS]));

static ARRIVED: AtomicU32 = AtomicU32::new(0);
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// Where the threads' code is written, and where it is run.
static WRITE_AT: AtomicU64 = AtomicU64::new(0);
static RUN_AT: AtomicU64 = AtomicU64::new(0);
static MOVES: AtomicUsize = AtomicUsize::new(0);

global_asm!(
    ".global _start",
    "_start: mov x29, xzr",
    "mov   x30, xzr",
    "bl    code_changes",
    // In: x0 = flags, x1 = the new thread's stack, x2 = what it runs, x3 = that one's argument.
    "start_thread: mov x8, #220",
    "mov   x9, x2",
    "mov   x10, x3",
    "mov   x2, xzr",
    "mov   x3, xzr",
    "mov   x4, xzr",
    "svc   #0",
    "cbnz  x0, 1f",
    "mov   x29, xzr",
    "mov   x30, xzr",
    "mov   x0, x10",
    "br    x9",
    "1: ret",
);

unsafe extern "C" {
    fn start_thread(flags: u64, stack: u64, run: extern "C" fn(usize) -> !, argument: usize)
    -> i64;
}

fn say_number(number: u64) {
    let mut digits = [b' '; 21];
    let mut rest = number;
    for digit in digits[..20].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    say(core::str::from_utf8(&digits).unwrap_or("?").trim_start());
}

fn fail(what: &str, number: u64) -> ! {
    say("code: FAIL: ");
    say(what);
    say(" ");
    say_number(number);
    say("\n");
    end(1)
}

/// What a system call that cannot fail answered.
fn expect(what: &str, result: i64) -> u64 {
    match u64::try_from(result) {
        Ok(value) => value,
        Err(_) => fail(what, result.unsigned_abs()),
    }
}

/// Waits until all threads have come here.
fn meet() {
    let generation = GENERATION.load(Ordering::Acquire);
    let address = GENERATION.as_ptr() as u64;
    if ARRIVED.fetch_add(1, Ordering::AcqRel) + 1 == THREADS as u32 {
        ARRIVED.store(0, Ordering::Relaxed);
        GENERATION.fetch_add(1, Ordering::Release);
        call(FUTEX, [address, FUTEX_WAKE, THREADS as u64, 0, 0, 0]);
    }
    while GENERATION.load(Ordering::Acquire) == generation {
        call(FUTEX, [address, FUTEX_WAIT, generation.into(), 0, 0, 0]);
    }
}

/// Goes on on CPU `n`, if it is there and on.
fn move_to(n: u64) {
    let mask = 1u64 << (n % 8);
    if call(SCHED_SETAFFINITY, [0, 8, &raw const mask as u64, 0, 0, 0]) == 0 {
        MOVES.fetch_add(1, Ordering::Relaxed);
    }
}

/// Maps a page; of the file `file`, or fresh.
fn map(rights: u64, file: Option<u64>) -> u64 {
    let kind = match file {
        Some(_) => MAP_SHARED,
        None => MAP_PRIVATE | MAP_ANONYMOUS,
    };
    let file = file.unwrap_or(u64::MAX);
    expect("mmap", call(MMAP, [0, PAGE, rights, kind, file, 0]))
}

/// Writes a function that answers `version`: MOVZ X0, #version; RET.
fn write(at: u64, version: u64) {
    for (n, instruction) in [0xd280_0000 | (version as u32 & 0xffff) << 5, RET]
        .into_iter()
        .enumerate()
    {
        // SAFETY: the page was mapped for this and is no memory of Rust's.
        unsafe { ((at as *mut u32).add(n)).write_volatile(instruction) };
    }
}

/// What was written at `written` runs at `run` from now on, on every CPU that has an ISB behind it.
fn publish(written: u64, run: u64) {
    let ctr: u64;
    // SAFETY: the kernel lets EL0 read CTR_EL0 and maintain caches; both change no value in memory.
    unsafe {
        asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack));
        if ctr >> 28 & 1 == 0 {
            asm!("dc cvau, {}", in(reg) written, options(nostack));
        }
        asm!("dsb ish", options(nostack));
        if ctr >> 29 & 1 == 0 {
            asm!("ic ivau, {}", in(reg) run, options(nostack));
        }
        asm!("dsb ish", "isb", options(nostack));
    }
}

fn run(at: u64, what: &str, version: u64) {
    // SAFETY: the code there is what `write` made. The ISB makes this CPU fetch it anew.
    let answer = unsafe {
        asm!("isb", options(nostack));
        core::mem::transmute::<u64, extern "C" fn() -> u64>(at)()
    };
    if answer != version & 0xffff {
        fail(what, answer);
    }
}

/// Each thread in turn writes; all run it.
fn versions_of_all(thread: usize, what: &str) {
    let (write_at, run_at) = (
        WRITE_AT.load(Ordering::Acquire),
        RUN_AT.load(Ordering::Acquire),
    );
    for version in 0..VERSIONS {
        if version as usize % THREADS == thread {
            write(write_at, version);
            publish(write_at, run_at);
        }
        meet();
        run(run_at, what, version);
        if version.is_multiple_of(STAY) {
            move_to(thread as u64 + version / STAY);
        }
        meet();
    }
}

/// A page of the thread's own: made executable by the kernel, which then maintains the caches; or by itself.
fn versions_of_its_own(thread: usize) {
    let page = map(PROT_READ | PROT_WRITE | PROT_EXEC, None);
    let flipped = map(PROT_READ | PROT_WRITE, None);
    let number = (thread as u64) << 12;
    for version in number..number + OWN_VERSIONS {
        write(page, version);
        publish(page, page);
        run(page, "own code answered", version);
        if version.is_multiple_of(STAY) {
            write(flipped, version);
            publish(flipped, flipped);
            let executable = [flipped, PAGE, PROT_READ | PROT_EXEC, 0, 0, 0];
            expect("mprotect", call(MPROTECT, executable));
            run(flipped, "code made executable answered", version);
            expect(
                "mprotect",
                call(MPROTECT, [flipped, PAGE, PROT_READ | PROT_WRITE, 0, 0, 0]),
            );
            move_to(thread as u64 + version / STAY);
            run(page, "own code on another CPU answered", version);
        }
    }
}

fn work(thread: usize) {
    meet();
    versions_of_all(thread, "shared code answered");
    if thread == 0 {
        // The same page at two addresses: one is written, the other is run.
        let file = expect(
            "memfd_create",
            call(MEMFD_CREATE, [c"code".as_ptr() as u64, 0, 0, 0, 0, 0]),
        );
        expect("ftruncate", call(FTRUNCATE, [file, PAGE, 0, 0, 0, 0]));
        WRITE_AT.store(map(PROT_READ | PROT_WRITE, Some(file)), Ordering::Release);
        RUN_AT.store(map(PROT_READ | PROT_EXEC, Some(file)), Ordering::Release);
    }
    meet();
    versions_of_all(thread, "code written elsewhere answered");
    versions_of_its_own(thread);
    meet();
}

extern "C" fn further_thread(thread: usize) -> ! {
    work(thread);
    loop {
        call(EXIT, [0; 6]);
    }
}

// SAFETY: the entry code above knows this symbol.
#[unsafe(no_mangle)]
extern "C" fn code_changes() -> ! {
    // CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
    let flags = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
    let page = map(PROT_READ | PROT_WRITE | PROT_EXEC, None);
    WRITE_AT.store(page, Ordering::Release);
    RUN_AT.store(page, Ordering::Release);
    for thread in 1..THREADS {
        let stack = STACKS.0.get() as u64 + (STACK * (thread + 1)) as u64;
        // SAFETY: the stack is that thread's, and the function never returns.
        let result = unsafe { start_thread(flags, stack, further_thread, thread) };
        expect("clone", result);
    }
    work(0);
    if MOVES.load(Ordering::Relaxed) == 0 {
        fail("no thread ever moved:", 0);
    }
    say("code: PASS\n");
    end(0)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    say("code: FAIL: a panic\n");
    end(1)
}
