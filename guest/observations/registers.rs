//! The interrupt controller's registers, read and written.
use crate::interrupts::{SGI, SPI};
use crate::{attempt, see};
use runtime::gic::{Gic, register as r};
use runtime::{mmio, write_sysreg};

fn word(what: &str, at: u64, values: &[u32]) {
    let before = mmio::read32(at);
    see(format_args!("{what}"), before.into());
    for value in values {
        mmio::write32(at, *value);
        see(
            format_args!("{what} after {value:#x}"),
            mmio::read32(at).into(),
        );
    }
    mmio::write32(at, before);
}

const ALL: &[u32] = &[!0, 0];

/// What both versions have.
pub(crate) fn common(gic: Gic) {
    let d = gic.gicd();
    see(
        format_args!("GICD_TYPER lines"),
        (mmio::read32(d + r::TYPER) & 0x1f).into(),
    );
    for (name, offset) in [
        ("IGROUPR1", r::IGROUPR + 4),
        ("IPRIORITYR8", r::IPRIORITYR + 32),
        ("ICFGR2", r::ICFGR + 8),
        ("ICFGR3", r::ICFGR + 12),
        ("ITARGETSR8", r::ITARGETSR + 32),
        ("ITARGETSR0", r::ITARGETSR),
        ("reserved 0x00c", 0xc),
        ("reserved 0x040", 0x40),
        ("NSACR2", 0xe08),
        ("reserved 0xfb0", 0xfb0),
    ] {
        word(name, d + offset, ALL);
    }
    // What has no SPI behind it.
    let beyond = u64::from(((mmio::read32(d + r::TYPER) & 0x1f) + 1) * 32);
    if beyond < 1020 {
        word("ISENABLER beyond", d + r::ISENABLER + beyond / 8, ALL);
        word("IPRIORITYR beyond", d + r::IPRIORITYR + beyond, ALL);
    }
    for (set, clear, name) in [
        (r::ISENABLER, r::ICENABLER, "ENABLER"),
        (r::ISPENDR, r::ICPENDR, "PENDR"),
        (r::ISACTIVER, r::ICACTIVER, "ACTIVER"),
    ] {
        for intid in [SPI, SGI, 27] {
            let (set, clear) = (gic.word(set, intid), gic.word(clear, intid));
            mmio::write32(set, !0);
            see(
                format_args!("IS{name} of {intid} after all set"),
                mmio::read32(set).into(),
            );
            mmio::write32(clear, !0);
            see(
                format_args!("IC{name} of {intid} after all clear"),
                mmio::read32(clear).into(),
            );
        }
    }
    for intid in [SGI, 16, 27, 30] {
        let at = gic.frame(intid) + r::IPRIORITYR + u64::from(intid & !3);
        word("IPRIORITYR private", at, ALL);
        word(
            "ICFGR private",
            gic.frame(intid) + r::ICFGR + u64::from(intid / 16 * 4),
            ALL,
        );
        word("IGROUPR private", gic.word(r::IGROUPR, intid), ALL);
    }
    for (name, at) in [
        ("GICD byte of IPRIORITYR", d + r::IPRIORITYR + 33),
        ("GICD byte of TYPER", d + 5),
        ("GICD byte of ISENABLER", d + r::ISENABLER + 4),
    ] {
        attempt(format_args!("{name}"), || mmio::read8(at).into());
    }
    attempt(format_args!("half of IPRIORITYR"), || {
        mmio::read16(d + r::IPRIORITYR + 34).into()
    });
    attempt(format_args!("half of ICFGR"), || {
        mmio::read16(d + r::ICFGR + 8).into()
    });
    attempt(format_args!("double of ISENABLER"), || {
        mmio::read64(d + r::ISENABLER)
    });
    for offset in (0xfd0..0x1000).step_by(4) {
        see(
            format_args!("GICD ID {offset:#x}"),
            mmio::read32(d + offset).into(),
        );
    }
}

/// A GICv2's: distributor and CPU interface.
pub(crate) fn v2(d: u64, c: u64) {
    word("GICD_CTLR", d, &[!0, 0, 1]);
    word("GICC_BPR", c + 8, &[0, 3, 7, !0]);
    word("GICC_ABPR", c + 0x1c, &[0, 3, 7, !0]);
    word("GICC_PMR", c + 4, &[0xf0, 0xff]);
    for offset in [0x00c, 0x014, 0x018, 0x020, 0x028, 0x0d0, 0x0e0] {
        see(
            format_args!("GICC {offset:#x}"),
            mmio::read32(c + offset).into(),
        );
    }
    word("CPENDSGIR0", d + r::CPENDSGIR, &[]);
    mmio::write32(d + r::SPENDSGIR, 0x0102_0304);
    see(
        format_args!("SPENDSGIR0"),
        mmio::read32(d + r::SPENDSGIR).into(),
    );
    see(
        format_args!("ISPENDR0"),
        (mmio::read32(d + r::ISPENDR) & 0xffff).into(),
    );
    mmio::write32(d + r::CPENDSGIR, !0);
    see(
        format_args!("CPENDSGIR0 after all"),
        mmio::read32(d + r::CPENDSGIR).into(),
    );
    see(format_args!("SGIR"), mmio::read32(d + r::SGIR).into());
}

/// A GICv3's: distributor, redistributor, system registers.
pub(crate) fn v3(d: u64, g: u64) {
    see(format_args!("GICD_CTLR"), mmio::read32(d).into());
    for value in [0, 1, 2, 3, 0x10, 0x12, 0x13, !0, 0x12] {
        mmio::write32(d, value);
        see(
            format_args!("GICD_CTLR after {value:#x}"),
            mmio::read32(d).into(),
        );
    }
    for value in [0, !0, 1 << 31, 0xff, 0x1_0000_0000] {
        mmio::write64(d + r::IROUTER + 8 * u64::from(SPI), value);
        see(
            format_args!("IROUTER after {value:#x}"),
            mmio::read64(d + r::IROUTER + 8 * u64::from(SPI)),
        );
    }
    mmio::write64(d + r::IROUTER + 8 * u64::from(SPI), 0);
    word("SGIR", d + r::SGIR, ALL);
    word("SPENDSGIR0", d + r::SPENDSGIR, ALL);
    for (name, at) in [
        ("GICR_CTLR", g),
        ("GICR_STATUSR", g + 0x10),
        ("GICR_SETLPIR", g + 0x40),
        ("GICR_PROPBASER", g + 0x70),
        ("GICR_PENDBASER", g + 0x78),
        ("GICR_SGI ISENABLER1", g + 0x1_0104),
        ("GICR IGRPMODR0", g + 0x1_0d00),
        ("GICR NSACR", g + 0x1_0e00),
        ("GICR reserved", g + 0x1_0c08),
        ("GICD IGRPMODR1", d + 0xd04),
        ("GICD_STATUSR", d + 0x10),
        ("GICD_SETSPI_NSR", d + 0x40),
        ("GICD ISENABLER0", d + r::ISENABLER),
        ("GICD IPRIORITYR0", d + r::IPRIORITYR),
    ] {
        word(name, at, ALL);
    }
    see(format_args!("GICR_TYPER"), mmio::read64(g + r::GICR_TYPER));
    word("GICR_WAKER", g + r::GICR_WAKER, &[2, 0]);
    for offset in [
        0xffd0u64, 0xffe0, 0xffe4, 0xffe8, 0xffec, 0xfff0, 0xfff4, 0xfff8, 0xfffc,
    ] {
        see(
            format_args!("GICR ID {offset:#x}"),
            mmio::read32(g + offset).into(),
        );
    }
    crate::register!("S3_0_C12_C12_5", 0, 7, 1);
    crate::register!("S3_0_C12_C12_7", 0, !0u64, 1);
    crate::register!("S3_0_C12_C12_6", 1, !0u64, 0);
    crate::register!("S3_0_C12_C12_4", 1, 2, 3, !0u64);
    crate::register!("S3_0_C12_C8_3", 0, 3, 7);
    // One binary point for both groups.
    write_sysreg!("S3_0_C12_C12_4", 1);
    crate::register!("S3_0_C12_C12_3", 0, 3, 7);
    crate::register!("S3_0_C12_C8_3", 0, 3, 7);
    write_sysreg!("S3_0_C12_C12_4", 0);
    crate::register!("S3_0_C12_C8_4");
    crate::register!("S3_0_C12_C9_0");
    crate::register!("S3_0_C12_C9_0", 0);
    crate::register!("S3_0_C12_C11_3");
    crate::register!("S3_0_C12_C8_2");
    crate::register!("S3_0_C12_C12_2");
    for (what, value) in [
        ("to nobody", 1u64 << 16 | 5 << 24),
        ("range 1", 1 << 44 | 1 | 5 << 24),
        ("group 0 to self", 1),
    ] {
        write_sysreg!("S3_0_C12_C11_5", value);
        see(
            format_args!("SGI1R {what}"),
            mmio::read32(g + 0x1_0200).into(),
        );
    }
    write_sysreg!("S3_0_C12_C11_7", 1u64 | 6 << 24);
    see(
        format_args!("SGI0R to self"),
        (mmio::read32(g + 0x1_0200) & 0xffff).into(),
    );
    write_sysreg!("S3_0_C12_C11_6", 1u64 | 7 << 24);
    see(
        format_args!("ASGI1R to self"),
        (mmio::read32(g + 0x1_0200) & 0xffff).into(),
    );
    mmio::write32(g + 0x1_0280, !0);
}
