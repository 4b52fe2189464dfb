//! The interrupt controller's registers and what it says of interrupts in every state.
use crate::{attempt, see};
use runtime::gic::{Gic, register as r};
use runtime::{mmio, read_sysreg, write_sysreg};

/// An SPI that nothing drives, a second one, an SGI, a second one.
const SPI: u32 = 60;
const OTHER: u32 = 61;
const SGI: u32 = 3;
const SGI2: u32 = 4;

pub(crate) fn observe() {
    let Some(gic) = Gic::from_tree() else { return };
    see(format_args!("GIC version"), gic.version().into());
    registers(gic);
    gic.enable();
    interface(gic);
    for intid in [SPI, SGI] {
        states(gic, intid);
    }
    nesting(gic);
    groups(gic);
    match gic {
        Gic::V2 { gicd, gicc } => v2(gicd, gicc),
        Gic::V3 { gicd, gicr } => v3(gicd, gicr),
    }
}

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

fn registers(gic: Gic) {
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

/// The CPU interface with nothing going on.
fn interface(gic: Gic) {
    see(
        format_args!("acknowledge nothing"),
        gic.acknowledge().into(),
    );
    see(
        format_args!("running priority of nothing"),
        gic.running_priority().into(),
    );
    see(
        format_args!("highest pending of nothing"),
        gic.highest_pending().into(),
    );
    for intid in [1023, 1022, 1020, SPI, SGI] {
        gic.end(intid);
        see(
            format_args!("after the end of {intid}"),
            gic.running_priority().into(),
        );
    }
    for mask in [0x00, 0x08, 0x0f, 0x10, 0xf8, 0xff] {
        gic.set_mask(mask);
        let now = match gic {
            Gic::V2 { gicc, .. } => mmio::read32(gicc + 4).into(),
            Gic::V3 { .. } => read_sysreg!("S3_0_C4_C6_0"),
        };
        see(format_args!("mask after {mask:#x}"), now & 0xf8);
    }
    for point in 0..8 {
        gic.set_binary_point(point);
        let now = match gic {
            Gic::V2 { gicc, .. } => mmio::read32(gicc + 8).into(),
            Gic::V3 { .. } => read_sysreg!("S3_0_C12_C12_3"),
        };
        see(format_args!("binary point after {point}"), now);
    }
    gic.set_binary_point(0);
    gic.set_mask(0xff);
}

fn show(gic: Gic, intid: u32, when: &str) {
    let bits = [r::ISENABLER, r::ISPENDR, r::ISACTIVER]
        .map(|register| u64::from(gic.bit(register, intid)));
    see(
        format_args!("{intid} {when}: enabled, pending, active, running, next"),
        bits[0]
            | bits[1] << 4
            | bits[2] << 8
            | u64::from(gic.running_priority()) << 12
            | u64::from(gic.highest_pending()) << 32,
    );
}

fn pend(gic: Gic, intid: u32) {
    if intid < 16 {
        gic.send_to_self(intid)
    } else {
        gic.pend(intid)
    }
}

/// One interrupt through its life, and off the path.
fn states(gic: Gic, intid: u32) {
    gic.enable_interrupt(intid);
    show(gic, intid, "idle");
    pend(gic, intid);
    show(gic, intid, "pending");
    gic.disable_interrupt(intid);
    show(gic, intid, "pending and disabled");
    see(
        format_args!("acknowledge a disabled one"),
        gic.acknowledge().into(),
    );
    gic.set_bit(r::ISENABLER, intid);
    gic.set_mask(0x80);
    show(gic, intid, "pending and masked");
    see(
        format_args!("acknowledge a masked one"),
        gic.acknowledge().into(),
    );
    gic.set_mask(0xff);
    see(format_args!("acknowledge"), gic.acknowledge_raw().into());
    show(gic, intid, "active");
    pend(gic, intid);
    show(gic, intid, "active and pending");
    see(
        format_args!("acknowledge while active"),
        gic.acknowledge().into(),
    );
    gic.end(intid);
    show(gic, intid, "ended and pending");
    see(format_args!("acknowledge again"), gic.acknowledge().into());
    gic.end(intid);
    show(gic, intid, "ended");
    pend(gic, intid);
    if intid >= 16 {
        gic.set_bit(r::ICPENDR, intid);
        show(gic, intid, "taken back");
    }
    see(
        format_args!("acknowledge what may be gone"),
        gic.acknowledge().into(),
    );
    gic.end(intid);
    gic.set_bit(r::ISACTIVER, intid);
    show(gic, intid, "made active");
    pend(gic, intid);
    show(gic, intid, "made active and pending");
    see(
        format_args!("acknowledge what was made active"),
        gic.acknowledge().into(),
    );
    gic.set_bit(r::ICACTIVER, intid);
    show(gic, intid, "made inactive");
    let taken = gic.acknowledge();
    see(
        format_args!("acknowledge what was made inactive"),
        taken.into(),
    );
    gic.set_bit(r::ICACTIVER, intid);
    show(gic, intid, "made inactive while it runs");
    gic.end(taken);
    show(gic, intid, "ended after that");
    gic.split_end(true);
    pend(gic, intid);
    let taken = gic.acknowledge_raw();
    gic.end(taken);
    show(gic, intid, "dropped");
    pend(gic, intid);
    see(
        format_args!("acknowledge what is dropped"),
        gic.acknowledge().into(),
    );
    gic.deactivate(taken);
    show(gic, intid, "deactivated");
    let taken = gic.acknowledge_raw();
    gic.deactivate(taken);
    show(gic, intid, "deactivated before it is dropped");
    gic.end(taken);
    show(gic, intid, "dropped after that");
    gic.split_end(false);
    gic.disable_interrupt(intid);
}

/// Two interrupts, by priority and binary point.
fn nesting(gic: Gic) {
    for (first, second) in [(SPI, OTHER), (SGI2, SGI), (SGI, SPI)] {
        for (a, b, point) in [
            (0x80, 0x40, 0),
            (0x80, 0x78, 0),
            (0x80, 0x80, 0),
            (0x40, 0x80, 0),
            (0x88, 0x80, 4),
            (0x80, 0x40, 7),
            (0xa0, 0x90, 5),
            (0xa0, 0x80, 5),
        ] {
            gic.enable_interrupt(first);
            gic.enable_interrupt(second);
            gic.set_priority(first, a);
            gic.set_priority(second, b);
            gic.set_binary_point(point);
            pend(gic, first);
            let one = gic.acknowledge_raw();
            pend(gic, second);
            let two = gic.acknowledge_raw();
            see(
                format_args!("{first} at {a:#x}, then {second} at {b:#x}, point {point}"),
                u64::from(one)
                    | u64::from(two) << 16
                    | u64::from(gic.running_priority()) << 32
                    | u64::from(gic.highest_pending()) << 40,
            );
            // In the wrong order where both are there.
            gic.end(one);
            let between = gic.running_priority();
            let late = gic.acknowledge_raw();
            gic.end(if late & 0x3ff < 1020 { late } else { two });
            see(
                format_args!("  ended"),
                u64::from(between)
                    | u64::from(late) << 16
                    | u64::from(gic.running_priority()) << 32,
            );
            for intid in [first, second] {
                gic.end(intid);
                gic.set_bit(r::ICACTIVER, intid);
                gic.disable_interrupt(intid);
                if intid >= 16 {
                    gic.set_bit(r::ICPENDR, intid)
                }
            }
            while gic.running_priority() != 0xff && gic.acknowledge() < 1020 {}
        }
    }
    gic.set_binary_point(0);
}

/// Interrupts of group 0 beside those of group 1.
fn groups(gic: Gic) {
    let word = gic.word(r::IGROUPR, SPI);
    let before = mmio::read32(word);
    mmio::write32(word, 1 << (OTHER % 32));
    see(
        format_args!("groups of {SPI} and {OTHER}"),
        mmio::read32(word).into(),
    );
    for intid in [SPI, OTHER] {
        gic.set_priority(intid, 0x80);
        gic.set_bit(r::ISENABLER, intid);
    }
    gic.set_priority(SPI, 0x40);
    for pended in [SPI, OTHER] {
        gic.pend(pended);
        see(
            format_args!("{pended} pending: next"),
            gic.highest_pending().into(),
        );
        if let Gic::V3 { .. } = gic {
            see(
                format_args!("  next of group 0"),
                read_sysreg!("S3_0_C12_C8_2"),
            );
            see(
                format_args!("  acknowledge group 0"),
                read_sysreg!("S3_0_C12_C8_0"),
            );
        }
        let taken = gic.acknowledge_raw();
        see(format_args!("  acknowledge"), taken.into());
        see(format_args!("  running"), gic.running_priority().into());
        gic.end(taken);
        see(
            format_args!("  running after the end"),
            gic.running_priority().into(),
        );
        gic.set_bit(r::ICACTIVER, pended);
        gic.set_bit(r::ICPENDR, pended);
    }
    mmio::write32(word, before);
    for intid in [SPI, OTHER] {
        gic.disable_interrupt(intid)
    }
}

fn v2(d: u64, c: u64) {
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

fn v3(d: u64, g: u64) {
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
