//! Unmodified drivers on the device models: what a guest does with `ldr` and `str` arrives here through `safe-mmio`'s
//! `custom-mmio` back end, one access at a time, as it would from a data abort.
//!
//! A driver gets a pointer into a window of addresses that are never dereferenced; the window says which device is
//! meant. One back end may be registered per test binary, so all drivers share this one. Devices live per thread: tests
//! run in parallel and never meet.

#[path = "devices/gic.rs"]
mod gic;
#[path = "devices/uart.rs"]
mod uart;

use core::cell::RefCell;
use faultline::device::Width;
use faultline::device::pl011::Pl011;
use faultline::vgic::{Access, Affinity, Version, Vgic};
use gic::CpuInterface;
use safe_mmio::{MmioOps, set_mmio_ops};

const GICD_BASE: u64 = 0x0800_0000;
const GICC_BASE: u64 = 0x0801_0000;
const GICR_BASE: u64 = 0x080a_0000;
const UART_BASE: u64 = 0x0900_0000;
const UART_END: u64 = UART_BASE + 0x1000;

/// vCPUs the board is made for.
const VCPUS: u64 = 2;

thread_local! {
    static BOARD: RefCell<Board> = RefCell::new(Board::new(Version::V3));
}

/// The devices of one test, and what left them.
struct Board {
    uart: Pl011,
    sent: Vec<u8>,
    vgic: Vgic,
    /// The hardware's part of a GICv2: each vCPU's CPU interface.
    interfaces: [CpuInterface; VCPUS as usize],
    /// The vCPU that does the accesses.
    vcpu: usize,
}

impl Board {
    fn new(gic: Version) -> Self {
        let affinities: Vec<Affinity> = (0..VCPUS).map(Affinity::from_mpidr).collect();
        Self {
            uart: Pl011::new(),
            sent: Vec::new(),
            vgic: Vgic::new(gic, &affinities, 256).expect("a usual configuration"),
            interfaces: [0, 1].map(CpuInterface::of),
            vcpu: 0,
        }
    }

    /// Folds in what an access depends on.
    fn recall(&mut self, access: Access, written: Option<u64>) {
        let set = self.vgic.depends_on(access, written);
        for (vcpu, interface) in self.interfaces.iter_mut().enumerate() {
            if set & 1 << vcpu != 0 {
                interface.exit(&mut self.vgic);
            }
        }
    }

    fn read(&mut self, address: u64, width: Width) -> u64 {
        match address {
            GICD_BASE..GICC_BASE => {
                let access = self.vgic.distributor(self.vcpu, address - GICD_BASE, width);
                access.map_or(0, |access| {
                    self.recall(access, None);
                    self.vgic.read(access)
                })
            }
            GICC_BASE..GICR_BASE => {
                self.interfaces[self.vcpu].read(&mut self.vgic, address - GICC_BASE)
            }
            GICR_BASE..UART_BASE => {
                let access = self.vgic.redistributor(address - GICR_BASE, width);
                access.map_or(0, |access| self.vgic.read(access))
            }
            UART_BASE..UART_END => self.uart.read(address - UART_BASE, width),
            _ => panic!("read of {address:#x}, where there is no device"),
        }
    }

    fn write(&mut self, address: u64, width: Width, value: u64) {
        match address {
            GICD_BASE..GICC_BASE => {
                let access = self.vgic.distributor(self.vcpu, address - GICD_BASE, width);
                if let Some(access) = access {
                    self.recall(access, Some(value));
                    self.vgic.write(access, value);
                }
            }
            GICC_BASE..GICR_BASE => self.interfaces[self.vcpu].write(address - GICC_BASE, value),
            GICR_BASE..UART_BASE => {
                if let Some(access) = self.vgic.redistributor(address - GICR_BASE, width) {
                    self.vgic.write(access, value);
                }
            }
            UART_BASE..UART_END => {
                self.sent
                    .extend(self.uart.write(address - UART_BASE, width, value))
            }
            _ => panic!("write to {address:#x}, where there is no device"),
        }
    }
}

fn with_board<T>(act: impl FnOnce(&mut Board) -> T) -> T {
    BOARD.with_borrow_mut(act)
}

struct Trap;

macro_rules! trap {
    ($($read:ident $write:ident $integer:ty, $width:expr;)*) => {
        // SAFETY: no method uses its pointer as anything but a number, so there is nothing to keep.
        impl MmioOps for Trap {
            $(
                unsafe fn $read(src: *const $integer) -> $integer {
                    with_board(|board| board.read(src.addr() as u64, $width)) as $integer
                }
                unsafe fn $write(dst: *mut $integer, value: $integer) {
                    with_board(|board| board.write(dst.addr() as u64, $width, u64::from(value)));
                }
            )*
        }
    };
}

trap! {
    read_u8 write_u8 u8, Width::Byte;
    read_u16 write_u16 u16, Width::Half;
    read_u32 write_u32 u32, Width::Word;
    read_u64 write_u64 u64, Width::Double;
}

set_mmio_ops!(Trap);
