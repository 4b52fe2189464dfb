//! A Linux program of the workload's: the kernel samples it by an overflow of the cycle counter, on each CPU that it may run
//! on. Ends with one line, `samples: PASS` or `samples: FAIL` and what went wrong.
//!
//! It stands on nothing but the kernel: a static ELF file without a C library, built with the guests.
//!
//! Source: Linux's `include/uapi/linux/perf_event.h`, and its arm64 system calls (`include/uapi/asm-generic/unistd.h`).
#![no_std]
#![no_main]

mod kernel;

use core::arch::global_asm;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use kernel::{MMAP, SCHED_SETAFFINITY, call, end, say};

/// Cycles from one sample to the next.
const PERIOD: u64 = 100_000;
/// Samples on each CPU.
const PER_CPU: u64 = 5;
/// CPUs that are tried.
const CPUS: u64 = 8;
/// Seconds within which they must come.
const PATIENCE: u64 = 10;
const PAGE: u64 = 4096;
/// The ring behind its first page, which says how far it is filled.
const RING: u64 = 64 * PAGE;

const CLOCK_GETTIME: u64 = 113;
const PERF_EVENT_OPEN: u64 = 241;
const CLOCK_MONOTONIC: u64 = 1;
const PROT_READ_WRITE: u64 = 1 | 2;
const MAP_SHARED: u64 = 1;
const PERF_TYPE_HARDWARE: u32 = 0;
const PERF_COUNT_HW_CPU_CYCLES: u64 = 0;
const PERF_SAMPLE_IP: u64 = 1;
const PERF_RECORD_SAMPLE: u32 = 9;
/// Of the first page of a ring: its filling, in bytes.
const DATA_HEAD: u64 = 1024;
/// No process, CPU or group.
const NONE: u64 = u64::MAX;

/// `struct perf_event_attr`, version 0.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint: u32,
    config1: u64,
}

global_asm!(
    ".global _start",
    "_start: mov x29, xzr",
    "mov   x30, xzr",
    "bl    samples",
    // Counts down from x0.
    ".global busy, busy_end",
    "busy: subs x0, x0, #1",
    "b.ne  busy",
    "ret",
    "busy_end:",
);

unsafe extern "C" {
    fn busy(times: u64);
    fn busy_end();
}

fn fail(what: &str) -> ! {
    say("samples: FAIL: ");
    say(what);
    say("\n");
    end(1)
}

fn expect(what: &str, result: i64) -> u64 {
    u64::try_from(result).unwrap_or_else(|_| fail(what))
}

fn seconds() -> u64 {
    let mut time = [0u64; 2];
    call(
        CLOCK_GETTIME,
        [CLOCK_MONOTONIC, time.as_mut_ptr() as u64, 0, 0, 0, 0],
    );
    time[0]
}

/// The samples of this thread, wherever it runs.
struct Ring {
    at: u64,
    read: u64,
    samples: u64,
    /// Those in [`busy`].
    of_busy: u64,
}

impl Ring {
    fn open() -> Self {
        let attributes = Attributes {
            kind: PERF_TYPE_HARDWARE,
            size: size_of::<Attributes>() as u32,
            config: PERF_COUNT_HW_CPU_CYCLES,
            sample_period: PERIOD,
            sample_type: PERF_SAMPLE_IP,
            read_format: 0,
            flags: 0,
            wakeup_events: 0,
            breakpoint: 0,
            config1: 0,
        };
        let attributes = (&raw const attributes) as u64;
        let file = call(PERF_EVENT_OPEN, [attributes, 0, NONE, NONE, 0, 0]);
        let file = expect("perf_event_open", file);
        let mapped = call(MMAP, [0, PAGE + RING, PROT_READ_WRITE, MAP_SHARED, file, 0]);
        Self {
            at: expect("mmap", mapped),
            read: 0,
            samples: 0,
            of_busy: 0,
        }
    }

    /// Takes in what the kernel has written: each record has its type, 32 bits; its size, 16 bits from byte 6 on; and a
    /// sample the PC.
    fn look(&mut self) {
        let (start, stop) = (busy as *const () as u64, busy_end as *const () as u64);
        // SAFETY: the kernel keeps the filling there, and never more than the ring holds: we read faster than it writes.
        let head = unsafe { AtomicU64::from_ptr((self.at + DATA_HEAD) as *mut u64) };
        let head = head.load(Ordering::Acquire);
        while self.read < head {
            let record = self.at + PAGE + self.read % RING;
            // SAFETY: a record of the kernel's, whose words are aligned; one of two words at most wraps between them, at a
            // multiple of its size.
            let (kind, size, pc) = unsafe {
                (
                    AtomicU32::from_ptr(record as *mut u32).load(Ordering::Relaxed),
                    AtomicU16::from_ptr((record + 6) as *mut u16).load(Ordering::Relaxed),
                    AtomicU64::from_ptr((self.at + PAGE + (self.read + 8) % RING) as *mut u64)
                        .load(Ordering::Relaxed),
                )
            };
            if size == 0 {
                fail("a record without a size");
            }
            self.read += u64::from(size);
            if kind == PERF_RECORD_SAMPLE {
                self.samples += 1;
                self.of_busy += u64::from((start..stop).contains(&pc));
            }
        }
    }
}

// SAFETY: the entry code above knows this symbol.
#[unsafe(no_mangle)]
extern "C" fn samples() -> ! {
    let mut ring = Ring::open();
    for cpu in 0..CPUS {
        let set = 1u64 << cpu;
        let set = (&raw const set) as u64;
        if call(SCHED_SETAFFINITY, [0, 8, set, 0, 0, 0]) < 0 {
            // There is none.
            break;
        }
        let (wanted, until) = (ring.of_busy + PER_CPU, seconds() + PATIENCE);
        while ring.of_busy < wanted {
            // SAFETY: it only counts.
            unsafe { busy(PERIOD) };
            ring.look();
            if seconds() > until {
                fail("the cycle counter does not interrupt");
            }
        }
    }
    if ring.samples == 0 {
        fail("no CPU was tried");
    }
    say("samples: PASS\n");
    end(0)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    fail("a panic")
}
