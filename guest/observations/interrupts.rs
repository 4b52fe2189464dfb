//! What the interrupt controller says of interrupts in every state.
use crate::{registers, see};
use runtime::gic::{Gic, register as r};
use runtime::{mmio, read_sysreg};

/// An SPI that nothing drives, a second one, an SGI, a second one.
pub(crate) const SPI: u32 = 60;
const OTHER: u32 = 61;
pub(crate) const SGI: u32 = 3;
const SGI2: u32 = 4;

pub(crate) fn observe() {
    let Some(gic) = Gic::from_tree() else { return };
    see(format_args!("GIC version"), gic.version().into());
    registers::common(gic);
    gic.enable();
    interface(gic);
    for intid in [SPI, SGI] {
        states(gic, intid);
    }
    nesting(gic);
    groups(gic);
    match gic {
        Gic::V2 { gicd, gicc } => registers::v2(gicd, gicc),
        Gic::V3 { gicd, gicr } => registers::v3(gicd, gicr),
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
