//! The guest platform's fixed addresses (docs/guest-platform.md): those of QEMU's `virt` machine.

/// First byte of RAM.
pub const RAM_BASE: u64 = 0x4000_0000;
/// PL011 UART, SPI 1.
pub const PL011: u64 = 0x0900_0000;
/// Interrupt of the PL011.
pub const PL011_INTID: u32 = 33;
/// PL031 real-time clock, SPI 2.
pub const PL031: u64 = 0x0901_0000;
/// An address at which there is nothing: not under Faultline, and not on bare QEMU `virt`.
pub const NOWHERE: u64 = 0x0b00_0000;
/// Interrupt of the EL1 physical timer: PPI 14.
pub const PTIMER_INTID: u32 = 30;
/// Interrupt of the performance monitors: PPI 7.
pub const PMU_INTID: u32 = 23;
/// Interrupt of the EL1 virtual timer: PPI 11.
pub const VTIMER_INTID: u32 = 27;
