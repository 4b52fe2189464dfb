//! The UART and the clock, register by register.
use crate::{attempt, see};
use runtime::mmio;
use runtime::platform::{NOWHERE, PL011, PL031};

pub(crate) fn observe() {
    for offset in [
        0x004, 0x018, 0x020, 0x024, 0x028, 0x02c, 0x030, 0x034, 0x038, 0x03c, 0x040, 0x044, 0x048,
        0x04c, 0x080, 0x100,
    ] {
        see(
            format_args!("UART {offset:#x}"),
            mmio::read32(PL011 + offset).into(),
        );
    }
    for (offset, values) in [
        (0x024, [!0u32, 0]),
        (0x028, [!0, 0]),
        (0x020, [!0, 0]),
        (0x034, [!0, 0x12]),
        (0x038, [!0, 0]),
        (0x048, [!0, 0]),
        (0x004, [!0, 0]),
        (0x044, [!0, 0]),
    ] {
        let before = mmio::read32(PL011 + offset);
        for value in values {
            mmio::write32(PL011 + offset, value);
            see(
                format_args!("UART {offset:#x} after {value:#x}"),
                mmio::read32(PL011 + offset).into(),
            );
            see(
                format_args!("  raw and masked"),
                u64::from(mmio::read32(PL011 + 0x3c)) | u64::from(mmio::read32(PL011 + 0x40)) << 32,
            );
        }
        if offset != 0x044 {
            mmio::write32(PL011 + offset, before)
        }
    }
    for base in [PL011, PL031] {
        for offset in (0xfe0..0x1000).step_by(4) {
            see(
                format_args!("{base:#x} ID {offset:#x}"),
                mmio::read32(base + offset).into(),
            );
        }
    }
    for (what, base) in [("UART", PL011), ("clock", PL031)] {
        attempt(format_args!("{what} byte"), || {
            mmio::read8(base + 0xfe0).into()
        });
        attempt(format_args!("{what} half"), || {
            mmio::read16(base + 0xfe0).into()
        });
        attempt(format_args!("{what} double"), || mmio::read64(base + 0xff0));
        attempt(format_args!("{what} odd byte"), || {
            mmio::read8(base + 0xfe5).into()
        });
    }
    for offset in [0x00c, 0x010, 0x014, 0x018] {
        see(
            format_args!("clock {offset:#x}"),
            mmio::read32(PL031 + offset).into(),
        );
    }
    clock();
    attempt(format_args!("nowhere"), || mmio::read32(NOWHERE).into());
    attempt(format_args!("write to nowhere"), || {
        mmio::write32(NOWHERE, 1);
        0
    });
}

/// The clock is set, and its alarm goes off at once.
fn clock() {
    let now = mmio::read32(PL031);
    mmio::write32(PL031 + 8, 1000);
    see(
        format_args!("clock after 1000"),
        (mmio::read32(PL031) / 10).into(),
    );
    see(
        format_args!("its load register"),
        mmio::read32(PL031 + 8).into(),
    );
    mmio::write32(PL031 + 0x10, !0);
    see(format_args!("its mask"), mmio::read32(PL031 + 0x10).into());
    mmio::write32(PL031 + 4, mmio::read32(PL031));
    see(
        format_args!("its match, now"),
        u64::from(mmio::read32(PL031 + 0x14)) | u64::from(mmio::read32(PL031 + 0x18)) << 4,
    );
    mmio::write32(PL031 + 0x1c, 1);
    see(
        format_args!("cleared"),
        u64::from(mmio::read32(PL031 + 0x14)) | u64::from(mmio::read32(PL031 + 0x18)) << 4,
    );
    mmio::write32(PL031 + 0x0c, 0);
    see(
        format_args!("its control after 0"),
        mmio::read32(PL031 + 0x0c).into(),
    );
    mmio::write32(PL031 + 0x10, 0);
    mmio::write32(PL031 + 8, now);
}
