//! Calls, registers and devices: one exit each.
use super::{ROUNDS, clock};
use core::arch::asm;
use runtime::gic::Gic;
use runtime::hypercall::PSCI_VERSION;
use runtime::mmio;
use runtime::pages;
use runtime::platform::{NOWHERE, PL011};

/// A vendor-specific hypervisor call that nobody has.
const NO_SUCH_CALL: u32 = 0xc600_ff00;
/// The last transport of virtio-mmio, which is empty.
const VIRTIO: u64 = 0x0a00_3e00;
const UART_DR: u64 = PL011;
const UART_FR: u64 = PL011 + 0x18;
const GICD_TYPER: u64 = 0x004;
const GICD_IPRIORITYR: u64 = 0x400;

/// HVC #0, changed by nobody but SMCCC's four registers.
macro_rules! with_call {
    ($instruction:literal, $function:expr) => {
        // SAFETY: SMCCC calls of these numbers change x0 to x3 and no memory.
        unsafe {
            asm!($instruction, inout("x0") u64::from($function) => _, inout("x1") 0u64 => _, inout("x2") 0u64 => _,
                inout("x3") 0u64 => _, options(nostack))
        }
    };
}

fn call(function: u32) -> u64 {
    clock::per_round(
        ROUNDS,
        |_| with_call!("hvc #0", function),
        |_| with_call!("", function),
    )
}

pub fn hypercall(_: Gic) -> Option<u64> {
    Some(call(NO_SUCH_CALL))
}

pub fn psci_call(_: Gic) -> Option<u64> {
    Some(call(PSCI_VERSION))
}

pub fn id_register(_: Gic) -> Option<u64> {
    Some(clock::per_round(
        ROUNDS,
        // SAFETY: reads a register.
        |_| unsafe { asm!("mrs {}, id_aa64pfr0_el1", out(reg) _, options(nomem, nostack)) },
        |_| (),
    ))
}

/// A load from `address` against one from memory.
fn read(address: u64) -> u64 {
    let memory = touched();
    let load = |address| {
        mmio::read32(address);
    };
    clock::per_round(ROUNDS, |_| load(address), |_| load(memory))
}

/// A store to `address` against one to memory.
fn write(address: u64, value: u32) -> u64 {
    let memory = touched();
    clock::per_round(
        ROUNDS,
        |_| mmio::write32(address, value),
        |_| mmio::write32(memory, value),
    )
}

/// A page that will not fault any more.
fn touched() -> u64 {
    let page = pages::fresh();
    mmio::write32(page, 0);
    page
}

pub fn mmio_read(_: Gic) -> Option<u64> {
    Some(read(VIRTIO))
}

pub fn mmio_write(_: Gic) -> Option<u64> {
    Some(write(VIRTIO + 0x70, 0))
}

pub fn uart_flag(_: Gic) -> Option<u64> {
    Some(read(UART_FR))
}

pub fn uart_write(_: Gic) -> Option<u64> {
    let cost = write(UART_DR, u32::from(b'.'));
    runtime::println!();
    Some(cost)
}

pub fn distributor_read(gic: Gic) -> Option<u64> {
    Some(read(gic.gicd() + GICD_TYPER))
}

/// A priority, of an SPI that nobody uses.
pub fn distributor_write(gic: Gic) -> Option<u64> {
    Some(write(gic.gicd() + GICD_IPRIORITYR + 64, 0xa0a0_a0a0))
}

/// A load from nothing against an instruction that is undefined: both are stepped over by the same vector.
pub fn inject(_: Gic) -> Option<u64> {
    Some(clock::per_round(
        ROUNDS,
        // SAFETY: the vector steps over the load.
        |_| unsafe {
            asm!("ldr {0:w}, [{1}]", out(reg) _, in(reg) NOWHERE, out("x16") _, options(nostack));
        },
        // SAFETY: likewise.
        |_| unsafe { asm!("udf #0", out("x16") _, options(nostack)) },
    ))
}
