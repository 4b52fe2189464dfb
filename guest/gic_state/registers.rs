//! What is read is what was written, where it may be written at all.
use super::{FIRST_SPI, gic, ready, set_edge, spis};
use core::sync::atomic::{AtomicU64, Ordering};
use runtime::gic::{Gic, PRIORITY, register};
use runtime::{check, check_eq, hypercall, mmio, smp, trap};

pub(crate) fn all() {
    trap::mask_irq();
    identification();
    bits();
    priorities();
    configuration();
    targets();
    private();
    reserved();
    trap::unmask_irq();
}

fn identification() {
    let gicd = gic().gicd();
    let lines = 32 * ((gic().typer() & 0x1f) + 1);
    check!(
        lines > spis().end,
        "GICD_TYPER: {lines} INTIDs, fewer than `virt` has"
    );
    // The architecture revision, in PIDR2.
    match gic() {
        Gic::V2 { .. } => {
            check_eq!(mmio::read32(gicd + 0xfe8) >> 4 & 0xf, 2, "ICPIDR2.ArchRev");
            check_eq!(
                gic().typer() >> 5 & 7,
                smp::count() as u32 - 1,
                "GICD_TYPER.CPUNumber"
            );
        }
        Gic::V3 { gicr, .. } => {
            for (what, frame) in [("GICD", gicd), ("GICR", gicr)] {
                let revision = mmio::read32(frame + 0xffe8) >> 4 & 0xf;
                check!(matches!(revision, 3 | 4), "{what}_PIDR2.ArchRev {revision}");
            }
            check_eq!(
                mmio::read64(gicr + 8) >> 8 & 0xffff,
                0,
                "GICR_TYPER.Processor_Number of CPU 0"
            );
            check_eq!(
                mmio::read32(gicd + register::CTLR) >> 4 & 1,
                1,
                "GICD_CTLR.ARE"
            );
            check_eq!(
                mmio::read32(gicd + register::CTLR) >> 31,
                0,
                "GICD_CTLR.RWP"
            );
        }
    }
}

/// Set and clear registers: ones act, zeros do not, and neighbours keep their state.
fn bits() {
    for intid in spis() {
        ready(intid);
        gic().disable_interrupt(intid);
    }
    for (what, set, clear) in [
        ("enable", register::ISENABLER, register::ICENABLER),
        ("pending", register::ISPENDR, register::ICPENDR),
        ("active", register::ISACTIVER, register::ICACTIVER),
    ] {
        for intid in spis() {
            let others =
                |register| mmio::read32(gic().word(register, intid)) & !(1 << (intid % 32));
            check!(!gic().bit(set, intid), "{what} of {intid} before");
            let before = others(set);
            gic().set_bit(set, intid);
            check!(gic().bit(set, intid), "{what} of {intid}, set");
            check!(
                gic().bit(clear, intid),
                "{what} of {intid}, set, by the other register"
            );
            mmio::write32(gic().word(set, intid), 0);
            mmio::write32(gic().word(clear, intid), 0);
            check!(
                gic().bit(set, intid),
                "{what} of {intid} after writes of zero"
            );
            check_eq!(others(set), before, "{what} of {intid}'s neighbours");
            gic().set_bit(clear, intid);
            check!(!gic().bit(set, intid), "{what} of {intid}, cleared");
        }
    }
    // The private ones: an SGI's and a PPI's bits.
    for intid in [3, 27] {
        gic().set_bit(register::ISENABLER, intid);
        check!(gic().bit(register::ISENABLER, intid), "enable of {intid}");
        gic().set_bit(register::ISACTIVER, intid);
        check!(gic().bit(register::ISACTIVER, intid), "active of {intid}");
        gic().set_bit(register::ICACTIVER, intid);
        check!(
            !gic().bit(register::ISACTIVER, intid),
            "active of {intid}, cleared"
        );
    }
    gic().disable_interrupt(27);
}

/// Bytes and words see the same; at least 16 levels; what is not implemented reads as zero.
fn priorities() {
    for intid in [0, 15, 27, FIRST_SPI, FIRST_SPI + 7] {
        gic().set_priority(intid, 0xff);
        let mask = gic().priority(intid);
        check!(
            mask >= 0xf0 && mask.leading_ones() + mask.trailing_zeros() == 8,
            "priority bits of {intid}: {mask:#x}"
        );
        for value in [0, 0x10, 0xa0, 0xf0] {
            gic().set_priority(intid, value);
            check_eq!(gic().priority(intid), value, "priority of {intid}");
        }
        let word = gic().frame(intid) + register::IPRIORITYR + u64::from(intid & !3);
        mmio::write32(word, 0x3020_1000);
        check_eq!(
            gic().priority(intid),
            [0, 0x10, 0x20, 0x30][intid as usize & 3],
            "priority of {intid}, written with its neighbours"
        );
        check_eq!(mmio::read32(word), 0x3020_1000, "priorities by the word");
        mmio::write32(word, u32::from(PRIORITY) * 0x0101_0101);
    }
}

fn configuration() {
    let sgis = mmio::read32(gic().frame(0) + register::ICFGR);
    check_eq!(
        sgis & 0xaaaa_aaaa,
        0xaaaa_aaaa,
        "GICD_ICFGR0: SGIs are edges"
    );
    mmio::write32(gic().frame(0) + register::ICFGR, 0);
    check_eq!(
        mmio::read32(gic().frame(0) + register::ICFGR),
        sgis,
        "GICD_ICFGR0 after a write"
    );
    for intid in spis() {
        for edge in [false, true] {
            set_edge(intid, edge);
            let address = gic().gicd() + register::ICFGR + u64::from(intid / 16) * 4;
            check_eq!(
                mmio::read32(address) >> (intid % 16 * 2 + 1) & 1,
                u32::from(edge),
                "GICD_ICFGR of {intid}"
            );
        }
    }
}

fn targets() {
    let gicd = gic().gicd();
    for intid in spis() {
        match gic() {
            Gic::V2 { .. } => {
                let address = gicd + register::ITARGETSR + u64::from(intid);
                mmio::write8(address, 0xff);
                // A single CPU needs no targets: the registers may be RAZ/WI then.
                let all = if smp::count() == 1 {
                    0
                } else {
                    (1u16 << smp::count()) as u8 - 1
                };
                let mut read = mmio::read8(address);
                if hypercall::counter(0).is_none() {
                    // QEMU's own distributor keeps bits of CPUs that are not there.
                    read &= all;
                }
                check!(
                    read == all || smp::count() == 1 && read == 1,
                    "GICD_ITARGETSR of {intid}: {read:#x}"
                );
                mmio::write8(address, 1);
            }
            Gic::V3 { .. } => {
                let address = gicd + register::IROUTER + 8 * u64::from(intid);
                for cpu in 0..smp::count() {
                    gic().route(intid, cpu);
                    check_eq!(
                        mmio::read64(address) & !(1 << 31),
                        smp::affinity(cpu),
                        "GICD_IROUTER of {intid}"
                    );
                }
                mmio::write64(address, 1 << 31);
                check_eq!(
                    mmio::read64(address) >> 31 & 1,
                    1,
                    "GICD_IROUTER.Interrupt_Routing_Mode"
                );
                gic().route(intid, 0);
            }
        }
    }
}

static READ: AtomicU64 = AtomicU64::new(0);

fn read_private() {
    let enabled = gic().bit(register::ISENABLER, 26);
    READ.store(
        u64::from(enabled) << 8 | u64::from(gic().priority(26)),
        Ordering::Release,
    );
}

/// PPIs are each CPU's own.
fn private() {
    gic().set_priority(26, 0x40);
    gic().set_bit(register::ISENABLER, 26);
    for cpu in 1..smp::count() {
        smp::on(cpu, read_private);
        check_eq!(
            READ.load(Ordering::Acquire),
            0,
            "enable and priority of PPI 26 on CPU {cpu}"
        );
    }
    read_private();
    check_eq!(
        READ.load(Ordering::Acquire),
        0x140,
        "enable and priority of PPI 26 on CPU 0"
    );
    if let Gic::V2 { gicd, .. } = gic()
        && smp::count() > 1
    {
        for cpu in 0..smp::count() {
            smp::on(cpu, read_own_target);
            check_eq!(
                READ.load(Ordering::Acquire),
                0x0101_0101 << cpu,
                "GICD_ITARGETSR0 read by CPU {cpu}"
            );
        }
        mmio::write32(gicd + register::ITARGETSR, 0);
        read_own_target();
        check_eq!(
            READ.load(Ordering::Acquire),
            0x0101_0101,
            "GICD_ITARGETSR0 after a write"
        );
    }
    gic().disable_interrupt(26);
}

fn read_own_target() {
    let word = mmio::read32(gic().gicd() + register::ITARGETSR);
    READ.store(word.into(), Ordering::Release);
}

/// Registers that are not there read as zero and ignore writes.
fn reserved() {
    let gicd = gic().gicd();
    if gic().version() == 3 {
        // With affinity routing the private interrupts' registers are the redistributor's.
        for offset in [register::ISENABLER, register::ISPENDR, register::IPRIORITYR] {
            mmio::write32(gicd + offset, u32::MAX);
            check_eq!(
                mmio::read32(gicd + offset),
                0,
                "GICD + {offset:#x} with ARE"
            );
        }
    }
    for offset in [0x0c00_u64 - 4, 0xd00 - 4] {
        let _ = mmio::read32(gicd + offset);
    }
    // What says what there is does not change.
    for offset in [register::TYPER, register::IIDR] {
        let before = mmio::read32(gicd + offset);
        mmio::write32(gicd + offset, !before);
        check_eq!(mmio::read32(gicd + offset), before, "GICD + {offset:#x}");
    }
    // Beyond the last INTID there is nothing (in QEMU's own GICv3 there is).
    let lines = u64::from(32 * ((gic().typer() & 0x1f) + 1));
    if lines < 1020 && (gic().version() == 2 || hypercall::counter(0).is_some()) {
        for bytes in [register::IPRIORITYR, register::ITARGETSR] {
            mmio::write32(gicd + bytes + lines, u32::MAX);
            check_eq!(
                mmio::read32(gicd + bytes + lines),
                0,
                "GICD + {bytes:#x} + {lines}"
            );
        }
        let bits = register::ISENABLER + lines / 8;
        mmio::write32(gicd + bits, u32::MAX);
        check_eq!(mmio::read32(gicd + bits), 0, "GICD + {bits:#x}");
    }
    // The special INTIDs have no bits.
    let last = gicd + register::ISENABLER + 31 * 4;
    mmio::write32(last, u32::MAX);
    check_eq!(
        mmio::read32(last) >> 28,
        0,
        "GICD_ISENABLER of INTIDs 1020 to 1023"
    );
}
