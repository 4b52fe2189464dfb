//! How many bits a physical address has: what `ID_AA64MMFR0_EL1.PARange` says (`bits=` on the command line, if that was
//! asked for), and what an address with more of them comes to, with stage 1 off and on: an address size fault.
//!
//! Oracle: DDI 0487 "Address size faults": level 0 with stage 1 off, else the level of the descriptor; the same guest passes
//! on bare QEMU.
#![no_std]
#![no_main]

use runtime::mmu::{self, Tables};
use runtime::trap::{Frame, catch, class};
use runtime::{check_eq, fdt, hypercall, mmio, pages, println, read_sysreg, sysreg, write_sysreg};

runtime::guest!("address_size", address_size);

/// Bits by PARange.
const BITS: [u32; 8] = [32, 36, 40, 42, 44, 48, 52, 56];
/// The widest addresses with descriptors of 48 bits.
const MOST: u32 = 48;
/// Bare QEMU `virt` has its 64-bit PCIe window at 1 << 39, which answers reads.
const PCIE_WINDOW_BIT: u32 = 39;
/// ESR_EL1 status: address size fault, level 0; synchronous external abort.
const ADDRESS_SIZE: u64 = 0x00;
const EXTERNAL: u64 = 0x10;
/// TCR_EL1.IPS.
const IPS: u64 = 0b111 << 32;

fn address_size() {
    let bits = BITS[(sysreg::pa_range() & 7) as usize];
    println!("{bits} bits");
    if let Some(expected) = fdt::number("bits") {
        check_eq!(u64::from(bits), expected, "bits by PARange");
    }
    stage_1_off(bits);
    let tables = Tables::identity();
    tables.enable();
    // TCR_EL1.IPS as PARange is, and more: that counts as what PARange is.
    for ips in [read_sysreg!("TCR_EL1") & IPS, 0b101 << 32] {
        write_sysreg!("TCR_EL1", read_sysreg!("TCR_EL1") & !IPS | ips);
        for level in 1..=3 {
            stage_1_on(tables, bits, level);
        }
    }
    table_out_of_reach(tables, bits);
}

fn abort_of(what: &str, address: u64, access: fn(u64), expected_class: u64) -> Frame {
    let ((), caught) = catch(|| access(address));
    check_eq!(caught.count, 1, "{what} {address:#x}: exceptions");
    let frame = caught.last.unwrap_or_else(|| unreachable!());
    check_eq!(
        frame.class(),
        expected_class,
        "{what} {address:#x}: ESR_EL1.EC"
    );
    check_eq!(frame.far, address, "{what} {address:#x}: FAR_EL1");
    frame
}

type Access = (&'static str, fn(u64), u64);
const ACCESSES: [Access; 3] = [
    (
        "load of",
        |at| {
            mmio::read32(at);
        },
        class::DATA_ABORT,
    ),
    ("store to", |at| mmio::write32(at, 0), class::DATA_ABORT),
    (
        "fetch of",
        |at| {
            pages::call(at);
        },
        class::INSTRUCTION_ABORT,
    ),
];

/// Above RAM and devices, up to the widest: an abort, never silence and never data.
fn stage_1_off(bits: u32) {
    let is_bare = hypercall::counter(0).is_none();
    for bit in (34..52).filter(|&bit| !(is_bare && bit == PCIE_WINDOW_BIT)) {
        let beyond = bit >= bits;
        for (what, access, expected_class) in ACCESSES {
            let frame = abort_of(what, 1 << bit, access, expected_class);
            let expected = if beyond { ADDRESS_SIZE } else { EXTERNAL };
            check_eq!(frame.fault_status(), expected, "{what} 1 << {bit}: status");
        }
    }
}

/// A descriptor of this level whose output has the lowest bit too many.
fn stage_1_on(tables: Tables, bits: u32, level: u32) {
    if bits >= MOST {
        return;
    }
    let address = mmu::elsewhere(level.into());
    let leaf = if level == 3 {
        mmu::TABLE_OR_PAGE
    } else {
        mmu::BLOCK
    };
    let mut descriptor = 1 << bits | leaf | mmu::NORMAL;
    for depth in (1..level).rev() {
        let table = pages::fresh();
        mmio::write64(table + 8 * mmu::index(address, depth + 1), descriptor);
        descriptor = table | mmu::TABLE_OR_PAGE;
    }
    tables.set_root(mmu::index(address, 1), descriptor);
    mmu::invalidate();
    for (what, access, expected_class) in ACCESSES {
        let frame = abort_of(what, address, access, expected_class);
        check_eq!(
            frame.fault_status(),
            ADDRESS_SIZE + u64::from(level),
            "{what} {address:#x} by level {level}: status"
        );
    }
}

/// A table that lies beyond: the level of the descriptor that points to it.
fn table_out_of_reach(tables: Tables, bits: u32) {
    if bits >= MOST {
        return;
    }
    let address = mmu::elsewhere(4);
    tables.set_root(mmu::index(address, 1), 1 << bits | mmu::TABLE_OR_PAGE);
    mmu::invalidate();
    for (what, access, expected_class) in ACCESSES {
        let frame = abort_of(what, address, access, expected_class);
        check_eq!(
            frame.fault_status(),
            ADDRESS_SIZE + 1,
            "{what} {address:#x} by a table out of reach: status"
        );
    }
}
