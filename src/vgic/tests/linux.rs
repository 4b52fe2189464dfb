//! What Linux does to bring an interrupt controller up, and what it would complain about.

use super::{read, vgic, write};
use crate::device::Width;
use crate::vgic::{IntId, Version};

/// Linux 6.12, drivers/irqchip/irq-gic-v3.c: probe, `gic_dist_init`, `gic_enable_redist`, `gic_cpu_init`.
#[test]
fn a_linux_brings_a_gicv3_up() {
    let mut vgic = vgic(Version::V3, 2);
    assert!(
        matches!(read(&vgic, 0, 0xffe8) & 0xf0, 0x30 | 0x40),
        "gic_validate_dist_version"
    );
    assert_eq!(read(&vgic, 0, 0x00c), 0, "GICD_TYPER2: no GICv4.1");
    let spis = 32 * ((read(&vgic, 0, 0x004) & 0x1f) + 1) - 32;
    assert_eq!(spis, 64);
    write(&mut vgic, 0, 0x000, 0);
    assert_eq!(read(&vgic, 0, 0x000) >> 31, 0, "RWP");
    for row in 1..=spis / 32 {
        write(&mut vgic, 0, 0x080 + 4 * row, 0xffff_ffff);
        write(&mut vgic, 0, 0x180 + 4 * row, 0xffff_ffff);
        write(&mut vgic, 0, 0x380 + 4 * row, 0xffff_ffff);
        write(&mut vgic, 0, 0xc00 + 8 * row, 0);
        write(&mut vgic, 0, 0xc04 + 8 * row, 0);
        for word in 0..8 {
            write(&mut vgic, 0, 0x400 + 32 * row + 4 * word, 0xa0a0_a0a0);
        }
    }
    write(&mut vgic, 0, 0x000, 1 << 4 | 1 << 1 | 1 << 0);
    for intid in 32..32 + spis {
        vgic.write_distributor(0, 0x6000 + 8 * intid, Width::Double, 0);
    }
    // gic_iterate_rdists: until one whose affinity is this CPU's, stopping at Last.
    let own = 1;
    let frame = (0..)
        .map(|n| n * 0x2_0000)
        .find(|base| vgic.read_redistributor(base + 8, Width::Double) >> 32 == own);
    assert_eq!(frame, Some(0x2_0000));
    let frame = frame.unwrap();
    assert!(matches!(word(&vgic, frame + 0xffe8) & 0xf0, 0x30 | 0x40));
    let waker = word(&vgic, frame + 0x14) & !0b10;
    set(&mut vgic, frame + 0x14, waker);
    assert_eq!(
        word(&vgic, frame + 0x14) & 0b100,
        0,
        "gic_enable_redist waits for this"
    );
    let private = frame + 0x1_0000;
    set(&mut vgic, private + 0x080, 0xffff_ffff);
    set(&mut vgic, private + 0x380, 0xffff_ffff);
    set(&mut vgic, private + 0x180, 0xffff_0000);
    for word in 0..8 {
        set(&mut vgic, private + 0x400 + 4 * word, 0xa0a0_a0a0);
    }
    set(&mut vgic, private + 0x100, 0x0000_ffff);
    assert_eq!(
        vgic.read_redistributor(frame, Width::Word) >> 3 & 1,
        0,
        "RWP of GICR_CTLR"
    );
    // gic_set_type on the timer: level, as it is: nothing to write, no "misconfigured" warning.
    assert_eq!(word(&vgic, private + 0xc04) >> (2 * 11 + 1) & 1, 0);
    set(&mut vgic, private + 0x100, 1 << 27);
    assert!(vgic.hardware_interrupt(1, IntId::ppi(11), IntId::ppi(11)));
    assert!(vgic.is_pending(1));
}

/// Linux 6.12, drivers/irqchip/irq-gic.c: `gic_get_cpumask`, `gic_dist_init`, `gic_cpu_init`.
#[test]
fn a_linux_brings_a_gicv2_up() {
    for vcpus in [1, 4] {
        let mut vgic = vgic(Version::V2, vcpus);
        let lines = 32 * ((read(&vgic, 0, 0x004) & 0x1f) + 1);
        write(&mut vgic, 0, 0x000, 0);
        let word = read(&vgic, 0, 0x800);
        let mask = (word | word >> 8 | word >> 16 | word >> 24) & 0xff;
        assert_eq!(mask, 1, "or it complains that the CPU mask was not found");
        for intid in (32..lines).step_by(4) {
            write(&mut vgic, 0, 0x800 + intid, mask * 0x0101_0101);
            write(&mut vgic, 0, 0x400 + intid, 0xa0a0_a0a0);
            write(&mut vgic, 0, 0xc00 + intid / 4, 0);
        }
        for row in 1..lines / 32 {
            write(&mut vgic, 0, 0x380 + 4 * row, 0xffff_ffff);
            write(&mut vgic, 0, 0x180 + 4 * row, 0xffff_ffff);
        }
        write(&mut vgic, 0, 0x000, 1);
        write(&mut vgic, 0, 0x104, 1 << 1);
        vgic.set_line(IntId::spi(1), true);
        assert!(vgic.is_pending(0) && vgic.forwards(0, IntId::spi(1)));
    }
}

fn word(vgic: &crate::vgic::Vgic, offset: u64) -> u64 {
    vgic.read_redistributor(offset, Width::Word)
}

fn set(vgic: &mut crate::vgic::Vgic, offset: u64, value: u64) {
    vgic.write_redistributor(offset, Width::Word, value);
}
