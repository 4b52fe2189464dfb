//! The registers that send SGIs, and those that say who sent them.

use super::*;

#[test]
fn sgi_sources_are_set_and_cleared_one_by_one() {
    let mut vgic = vgic(Version::V2, 4);
    vgic.write_distributor(0, 0xf25, Width::Byte, 0xff);
    assert_eq!(
        read(&vgic, 0, 0xf24),
        0x0000_0f00,
        "sources 0 to 3 of SGI 5"
    );
    assert_eq!(
        read(&vgic, 0, 0xf14),
        0x0000_0f00,
        "the clear register shows the same"
    );
    assert_eq!(read(&vgic, 1, 0xf24), 0, "of this vCPU alone");
    assert_eq!(read(&vgic, 0, 0x200), 1 << 5);
    vgic.write_distributor(0, 0xf15, Width::Byte, 0x0d);
    assert_eq!(vgic.read_distributor(0, 0xf25, Width::Byte), 0x02);
    assert_eq!(read(&vgic, 0, 0x200), 1 << 5);
    vgic.write_distributor(0, 0xf15, Width::Byte, 0x02);
    assert_eq!(read(&vgic, 0, 0x200), 0);
}

#[test]
fn sgir_filters_choose_the_targets() {
    // TargetListFilter 0 list, 1 all others, 2 itself, 3 reserved; from vCPU 1 of 3.
    for (value, reached) in [
        (0x0005_0003, 0b101),
        (0x00ff_0003, 0b111),
        (0x0100_0003, 0b101),
        (0x0200_0003, 0b010),
        (0x03ff_0003, 0b000),
    ] {
        let mut vgic = vgic(Version::V2, 3);
        write(&mut vgic, 1, 0xf00, value);
        let pending: u32 = (0..3)
            .filter(|vcpu| read(&vgic, *vcpu, 0x200) == 8)
            .map(|vcpu| 1 << vcpu)
            .sum();
        assert_eq!(pending, reached, "GICD_SGIR = {value:#x}");
    }
}

/// vCPUs whose SGI 2 is pending, a bit each, after vCPU 0 wrote `value` to ICC_SGI1R_EL1.
fn reached_by(affinities: &[u64], value: u64) -> u32 {
    let affinities: Vec<Affinity> = affinities
        .iter()
        .map(|mpidr| Affinity::from_mpidr(*mpidr))
        .collect();
    let mut vgic = Vgic::new(Version::V3, &affinities, 32).unwrap();
    vgic.write_sgi1r(0, value);
    (0..affinities.len())
        .filter(|vcpu| {
            read_redistributor(&vgic, *vcpu as u64 * 0x2_0000 + SGI_BASE + 0x200) == 1 << 2
        })
        .map(|vcpu| 1 << vcpu)
        .sum()
}

#[test]
fn sgi1r_targets_are_affinities() {
    // MPIDR_EL1 with its RES1 bit 31: Aff3.2.1.0 in bits 39:32 and 23:0.
    let affinities = [
        0x8000_0000,
        0x8000_0001,
        0x8000_0011,
        0x8000_0100,
        0x8001_0000,
        0x01_8000_0000,
    ];
    let sgi = 2 << 24;
    assert_eq!(reached_by(&affinities, sgi | 0b01), 0b00_0001);
    assert_eq!(reached_by(&affinities, sgi | 0b11), 0b00_0011);
    assert_eq!(
        reached_by(&affinities, sgi | 1 << 44 | 0b10),
        0b00_0100,
        "RS: Aff0 16 to 31"
    );
    assert_eq!(
        reached_by(&affinities, sgi | 1 << 16 | 0b01),
        0b00_1000,
        "Aff1"
    );
    assert_eq!(
        reached_by(&affinities, sgi | 1 << 32 | 0b01),
        0b01_0000,
        "Aff2"
    );
    assert_eq!(
        reached_by(&affinities, sgi | 1 << 48 | 0b01),
        0b10_0000,
        "Aff3"
    );
    assert_eq!(
        reached_by(&affinities, sgi | 1 << 40),
        0b11_1110,
        "IRM: all but the sender"
    );
    assert_eq!(
        reached_by(&affinities, sgi | 2 << 16 | 0xffff),
        0,
        "nobody there"
    );
}

#[test]
fn group_0_sgis_can_be_sent_by_all_and_group_1_by_sgi1r_only() {
    let pending = |send: fn(&mut Vgic, usize, u64), is_group_1: bool| {
        let mut vgic = vgic(Version::V3, 1);
        write_redistributor(
            &mut vgic,
            SGI_BASE + 0x80,
            if is_group_1 { 1 << 2 } else { 0 },
        );
        send(&mut vgic, 0, 2 << 24 | 1);
        read_redistributor(&vgic, SGI_BASE + 0x200) != 0
    };
    assert!(pending(Vgic::write_sgi1r, true) && pending(Vgic::write_sgi1r, false));
    assert!(!pending(Vgic::write_sgi0r, true) && pending(Vgic::write_sgi0r, false));
    assert!(!pending(Vgic::write_asgi1r, true) && pending(Vgic::write_asgi1r, false));
}
