//! The registers as a guest meets them. Oracles: IHI 0048B "Distributor register descriptions" and IHI 0069 "The GIC
//! Distributor register descriptions", "The GIC Redistributor register descriptions".

mod sgis;

use super::{read, vgic, write};
use crate::device::Width;
use crate::vgic::{Affinity, ConfigError, IntId, MAX_SPIS, Version, Vgic};

const BOTH: [Version; 2] = [Version::V2, Version::V3];
/// SGI_base of vCPU 0.
const SGI_BASE: u64 = 0x1_0000;

fn read_redistributor(vgic: &Vgic, offset: u64) -> u64 {
    vgic.read_redistributor(offset, Width::Word)
}

fn write_redistributor(vgic: &mut Vgic, offset: u64, value: u64) {
    vgic.write_redistributor(offset, Width::Word, value);
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let many = [Affinity::default(); 65];
    let new = |version, vcpus: usize, spis| Vgic::new(version, &many[..vcpus], spis).err();
    assert_eq!(new(Version::V2, 0, 64), Some(ConfigError::VcpuCount(0)));
    assert_eq!(new(Version::V2, 9, 64), Some(ConfigError::VcpuCount(9)));
    assert_eq!(new(Version::V3, 65, 64), Some(ConfigError::VcpuCount(65)));
    assert_eq!(
        new(Version::V3, 1, MAX_SPIS + 1),
        Some(ConfigError::SpiCount(989))
    );
    assert_eq!(new(Version::V2, 8, MAX_SPIS), None);
    assert_eq!(new(Version::V3, 64, 0), None);
}

#[test]
fn type_registers_tell_the_configuration() {
    // ITLinesNumber: 32 * (N + 1) INTIDs. GICv2: CPUNumber in bits 7:5, one less.
    assert_eq!(read(&vgic(Version::V2, 1), 0, 0x004), 2);
    assert_eq!(read(&vgic(Version::V2, 8), 0, 0x004), 2 | 7 << 5);
    // GICv3: IDbits in 23:19, one less; A3V. No LPIs (17), no MBIs (16), no ESPIs (8), no NMIs (9), 1-of-N (25 clear).
    assert_eq!(read(&vgic(Version::V3, 8), 0, 0x004), 2 | 9 << 19 | 1 << 24);
    let most = Vgic::new(Version::V3, &[Affinity::default()], MAX_SPIS).unwrap();
    assert_eq!(read(&most, 0, 0x004) & 0x1f, 31);
    assert_eq!(read(&most, 0, 0x00c), 0, "GICD_TYPER2");
}

#[test]
fn identification_says_which_architecture_it_is() {
    let v2 = vgic(Version::V2, 1);
    let v3 = vgic(Version::V3, 1);
    assert_eq!(read(&v2, 0, 0xfe8) >> 4 & 0xf, 2, "ICPIDR2.ArchRev");
    assert_eq!(read(&v3, 0, 0xffe8) >> 4 & 0xf, 3, "GICD_PIDR2.ArchRev");
    assert_eq!(
        read_redistributor(&v3, 0xffe8) >> 4 & 0xf,
        3,
        "GICR_PIDR2.ArchRev"
    );
    for (vgic, first) in [(&v2, 0xff0), (&v3, 0xfff0)] {
        let component: Vec<u64> = (0..4).map(|n| read(vgic, 0, first + 4 * n)).collect();
        assert_eq!(component, [0x0d, 0xf0, 0x05, 0xb1]);
    }
    assert_eq!(read(&v3, 0, 0x008) & 0xfff, 0x43b);
    assert_eq!(read_redistributor(&v3, 0x004) & 0xfff, 0x43b);
}

#[test]
fn control_keeps_the_group_enables_and_nothing_else() {
    let mut v2 = vgic(Version::V2, 1);
    write(&mut v2, 0, 0x000, 0xffff_ffff);
    assert_eq!(read(&v2, 0, 0x000), 3);
    let mut v3 = vgic(Version::V3, 1);
    assert_eq!(
        read(&v3, 0, 0x000),
        1 << 4 | 1 << 6,
        "ARE and DS read as one, RWP as zero"
    );
    write(&mut v3, 0, 0x000, 0xffff_ffff);
    assert_eq!(read(&v3, 0, 0x000), 1 << 4 | 1 << 6 | 3);
    write(&mut v3, 0, 0x000, 0);
    assert_eq!(read(&v3, 0, 0x000), 1 << 4 | 1 << 6);
}

#[test]
fn set_and_clear_registers_are_two_views_of_one_state() {
    for version in BOTH {
        for (set, clear) in [(0x104, 0x184), (0x204, 0x284), (0x304, 0x384)] {
            let mut vgic = vgic(version, 1);
            write(&mut vgic, 0, set, 0xf0f0_0001);
            write(&mut vgic, 0, set, 0x0000_0002);
            assert_eq!(
                (read(&vgic, 0, set), read(&vgic, 0, clear)),
                (0xf0f0_0003, 0xf0f0_0003)
            );
            write(&mut vgic, 0, clear, 0xf000_0001);
            assert_eq!(
                (read(&vgic, 0, set), read(&vgic, 0, clear)),
                (0x00f0_0002, 0x00f0_0002)
            );
        }
    }
}

#[test]
fn priorities_have_five_bits_and_take_bytes_and_words() {
    for version in BOTH {
        let mut vgic = vgic(version, 1);
        write(&mut vgic, 0, 0x420, 0xffff_ffff);
        assert_eq!(read(&vgic, 0, 0x420), 0xf8f8_f8f8);
        vgic.write_distributor(0, 0x421, Width::Byte, 0x47);
        assert_eq!(read(&vgic, 0, 0x420), 0xf8f8_40f8);
        assert_eq!(vgic.read_distributor(0, 0x421, Width::Byte), 0x40);
    }
}

#[test]
fn configuration_is_two_bits_of_which_one_is_edge() {
    for version in BOTH {
        let mut vgic = vgic(version, 1);
        assert_eq!(
            read(&vgic, 0, 0xc08),
            0,
            "SPIs are level-sensitive out of reset"
        );
        write(&mut vgic, 0, 0xc0c, 0xffff_fff7);
        assert_eq!(read(&vgic, 0, 0xc0c), 0xaaaa_aaa2, "SPI 17 stays a level");
        assert_eq!(read(&vgic, 0, 0xc08), 0, "and the sixteen before it");
        write(&mut vgic, 0, 0xc0c, 0);
        assert_eq!(read(&vgic, 0, 0xc0c), 0);
    }
}

#[test]
fn sgis_are_edges_whatever_is_written() {
    let mut v2 = vgic(Version::V2, 1);
    write(&mut v2, 0, 0xc00, 0);
    assert_eq!(read(&v2, 0, 0xc00), 0xaaaa_aaaa);
    let mut v3 = vgic(Version::V3, 1);
    write_redistributor(&mut v3, SGI_BASE + 0xc00, 0);
    assert_eq!(read_redistributor(&v3, SGI_BASE + 0xc00), 0xaaaa_aaaa);
    write_redistributor(&mut v3, SGI_BASE + 0xc04, 2 << 22);
    assert_eq!(
        read_redistributor(&v3, SGI_BASE + 0xc04),
        2 << 22,
        "PPI 11 can be either"
    );
}

#[test]
fn private_interrupts_of_a_gicv2_are_banked_in_the_distributor() {
    let mut vgic = vgic(Version::V2, 2);
    write(&mut vgic, 1, 0x100, 1 << 27);
    assert_eq!(read(&vgic, 0, 0x100), 0xffff, "SGIs are always enabled");
    assert_eq!(read(&vgic, 1, 0x100), 0xffff | 1 << 27);
    write(&mut vgic, 1, 0x180, 0xffff_ffff);
    assert_eq!(read(&vgic, 1, 0x100), 0xffff);
    write(&mut vgic, 0, 0x200, 0xffff_ffff);
    assert_eq!(
        read(&vgic, 0, 0x200),
        0xffff_0000,
        "SGIs are made pending by source only"
    );
    assert_eq!(read(&vgic, 1, 0x200), 0);
}

#[test]
fn private_interrupts_of_a_gicv3_are_in_its_redistributor_only() {
    let mut vgic = vgic(Version::V3, 2);
    for offset in [0x080, 0x100, 0x200, 0x300, 0x400, 0x41c, 0xc00, 0xc04] {
        write(&mut vgic, 0, offset, 0xffff_ffff);
        assert_eq!(read(&vgic, 0, offset), 0, "GICD at {offset:#x}");
    }
    for (offset, value) in [
        (0x080, 1 << 27),
        (0x100, 1 << 3),
        (0x200, 1 << 4),
        (0x300, 1 << 5),
        (0x41c, 0xf8),
    ] {
        write_redistributor(&mut vgic, SGI_BASE + offset, value);
        assert_eq!(
            read_redistributor(&vgic, SGI_BASE + offset),
            value,
            "GICR at {offset:#x}"
        );
        assert_eq!(
            read_redistributor(&vgic, 0x2_0000 + SGI_BASE + offset),
            0,
            "the other vCPU's"
        );
    }
}

#[test]
fn what_a_gicv3_with_affinity_routing_lacks_reads_as_zero() {
    let mut vgic = vgic(Version::V3, 1);
    // ITARGETSR, IGRPMODR, NSACR, SGIR, CPENDSGIR, SPENDSGIR, IROUTER of private interrupts, SETSPI, CLRSPI.
    for offset in [
        0x820, 0xd04, 0xe08, 0xf00, 0xf10, 0xf20, 0x6008, 0x040, 0x048,
    ] {
        write(&mut vgic, 0, offset, 0xffff_ffff);
        assert_eq!(read(&vgic, 0, offset), 0, "GICD at {offset:#x}");
    }
    assert!(!vgic.is_pending(0));
}

#[test]
fn target_registers_of_private_interrupts_name_their_reader() {
    let mut vgic = vgic(Version::V2, 3);
    write(&mut vgic, 2, 0x800, 0xffff_ffff);
    assert_eq!(
        [0, 1, 2].map(|vcpu| read(&vgic, vcpu, 0x800)),
        [0x0101_0101, 0x0202_0202, 0x0404_0404]
    );
    assert_eq!(vgic.read_distributor(2, 0x81f, Width::Byte), 4);
}

#[test]
fn target_registers_of_spis_have_bits_for_vcpus_that_exist() {
    let mut vgic = vgic(Version::V2, 3);
    assert_eq!(read(&vgic, 0, 0x820), 0);
    write(&mut vgic, 0, 0x820, 0xffff_ffff);
    assert_eq!(read(&vgic, 0, 0x820), 0x0707_0707);
    vgic.write_distributor(0, 0x822, Width::Byte, 0x02);
    assert_eq!(read(&vgic, 0, 0x820), 0x0702_0707);
}

#[test]
fn with_one_vcpu_spis_reach_it_untargeted() {
    let mut vgic = vgic(Version::V2, 1);
    write(&mut vgic, 0, 0x000, 1);
    write(&mut vgic, 0, 0x104, 1);
    write(&mut vgic, 0, 0x820, 0);
    vgic.set_line(IntId::spi(0), true);
    assert!(vgic.is_pending(0));
}

#[test]
fn routes_are_double_words_that_may_be_written_in_halves() {
    let mut vgic = vgic(Version::V3, 1);
    let route = 0x6000 + 8 * 40;
    vgic.write_distributor(0, route, Width::Double, u64::MAX);
    assert_eq!(
        vgic.read_distributor(0, route, Width::Double),
        0x0000_00ff_80ff_ffff,
        "Aff3, IRM, Aff2-0"
    );
    assert_eq!(vgic.read_distributor(0, route + 4, Width::Word), 0xff);
    vgic.write_distributor(0, route, Width::Word, 0x0001_0203);
    assert_eq!(
        vgic.read_distributor(0, route, Width::Double),
        0x0000_00ff_0001_0203
    );
    vgic.write_distributor(0, route + 4, Width::Word, 0xffff_ff00);
    assert_eq!(
        vgic.read_distributor(0, route, Width::Double),
        0x0000_0000_0001_0203
    );
    assert_eq!(vgic.read_distributor(0, route + 4, Width::Word), 0);
}

#[test]
fn redistributors_name_their_vcpu_and_the_last_says_so() {
    let affinities = [0x8000_0000, 0x8000_0001, 0x12_8034_5678].map(Affinity::from_mpidr);
    let vgic = Vgic::new(Version::V3, &affinities, 32).unwrap();
    let types =
        [0u64, 1, 2].map(|vcpu| vgic.read_redistributor(vcpu * 0x2_0000 + 8, Width::Double));
    assert_eq!(
        types,
        [0, 1 << 32 | 1 << 8, 0x1234_5678 << 32 | 2 << 8 | 1 << 4]
    );
    assert_eq!(
        read_redistributor(&vgic, 0x4_000c),
        0x1234_5678,
        "in halves as well"
    );
    assert_eq!(read_redistributor(&vgic, 0x4_0008), 2 << 8 | 1 << 4);
    assert_eq!(
        vgic.read_redistributor(0x6_0008, Width::Double),
        0,
        "behind the last"
    );
}

#[test]
fn children_wake_when_the_processor_does() {
    let mut vgic = vgic(Version::V3, 1);
    assert_eq!(
        read_redistributor(&vgic, 0x14),
        0b110,
        "asleep out of reset"
    );
    write_redistributor(&mut vgic, 0x14, 0);
    assert_eq!(read_redistributor(&vgic, 0x14), 0);
    write_redistributor(&mut vgic, 0x14, 0xffff_ffff);
    assert_eq!(read_redistributor(&vgic, 0x14), 0b110);
}

#[test]
fn interrupts_that_do_not_exist_have_no_state() {
    let mut vgic = Vgic::new(Version::V3, &[Affinity::default()], 40).unwrap();
    for offset in [0x108, 0x208, 0x308, 0x088] {
        write(&mut vgic, 0, offset, 0xffff_ffff);
        assert_eq!(
            read(&vgic, 0, offset),
            0xff,
            "SPIs 32 to 39 exist, 40 does not: {offset:#x}"
        );
        write(&mut vgic, 0, offset + 4, 0xffff_ffff);
        assert_eq!(read(&vgic, 0, offset + 4), 0);
    }
    write(&mut vgic, 0, 0x448, 0xffff_ffff);
    assert_eq!(read(&vgic, 0, 0x448), 0, "priorities of SPIs 40 to 43");
    vgic.set_line(IntId::spi(40), true);
    vgic.set_line(IntId::new(1020), true);
    vgic.set_line(IntId::new(u32::MAX), true);
    assert_eq!(read(&vgic, 0, 0x208), 0xff);
}

#[test]
fn accesses_of_a_width_a_register_does_not_have_are_ignored() {
    let mut vgic = vgic(Version::V2, 1);
    for width in [Width::Byte, Width::Half, Width::Double] {
        vgic.write_distributor(0, 0x104, width, 0xff);
        assert_eq!(vgic.read_distributor(0, 0x004, width), 0, "{width:?}");
    }
    assert_eq!(read(&vgic, 0, 0x104), 0);
    vgic.write_distributor(0, 0x420, Width::Half, 0xffff);
    vgic.write_distributor(0, 0x422, Width::Word, 0xffff_ffff);
    assert_eq!(read(&vgic, 0, 0x420), 0);
}

#[test]
fn the_line_is_seen_by_the_pending_register_and_not_cleared_there() {
    for version in BOTH {
        let mut vgic = vgic(version, 1);
        vgic.set_line(IntId::spi(3), true);
        write(&mut vgic, 0, 0x284, 1 << 3);
        assert_eq!(read(&vgic, 0, 0x204), 1 << 3);
        write(&mut vgic, 0, 0x204, 1 << 3);
        vgic.set_line(IntId::spi(3), false);
        assert_eq!(
            read(&vgic, 0, 0x204),
            1 << 3,
            "software made it pending as well"
        );
        write(&mut vgic, 0, 0x284, 1 << 3);
        assert_eq!(read(&vgic, 0, 0x204), 0);
    }
}

#[test]
fn lines_are_for_spis_and_private_lines_for_ppis() {
    let mut vgic = vgic(Version::V2, 1);
    vgic.set_line(IntId::ppi(4), true);
    vgic.set_line(IntId::sgi(4), true);
    vgic.set_private_line(0, IntId::sgi(4), true);
    vgic.set_private_line(0, IntId::spi(4), true);
    vgic.set_private_line(7, IntId::ppi(4), true);
    assert_eq!((read(&vgic, 0, 0x200), read(&vgic, 0, 0x204)), (0, 0));
    vgic.set_private_line(0, IntId::ppi(4), true);
    assert_eq!(read(&vgic, 0, 0x200), 1 << 20);
}

#[test]
fn a_vcpu_that_does_not_exist_sees_and_changes_nothing() {
    for version in BOTH {
        let mut vgic = vgic(version, 2);
        for offset in (0..0x1000).chain(0xff00..0x1_0000).step_by(4) {
            write(&mut vgic, 2, offset, 0xffff_ffff);
            assert_eq!(read(&vgic, 2, offset), 0, "GICD at {offset:#x}");
        }
        for offset in (0x4_0000..0x4_1000).chain(0x5_0000..0x5_1000).step_by(4) {
            write_redistributor(&mut vgic, offset, 0xffff_ffff);
            assert_eq!(read_redistributor(&vgic, offset), 0, "GICR at {offset:#x}");
        }
        vgic.write_sgi1r(2, 1 << 40);
        assert!(!vgic.is_pending(2) && vgic.take_news() == 0);
        assert_eq!(read(&vgic, 0, 0x104), 0);
    }
}
