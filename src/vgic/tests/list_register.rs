//! Oracles: the field positions of IHI 0048B "List Registers, GICH_LRn" and IHI 0069 "`ICH_LR<n>_EL2`", as numbers.

use crate::vgic::{Group, IntId, ListRegister, State};
use proptest::prelude::*;

fn software(intid: u32) -> ListRegister {
    ListRegister {
        vintid: IntId::new(intid),
        ..ListRegister::default()
    }
}

#[test]
fn a_free_list_register_is_zero() {
    assert_eq!(ListRegister::default().to_gich(), 0);
    assert_eq!(ListRegister::default().to_ich(), 0);
}

#[test]
fn fields_are_where_the_manuals_put_them() {
    let linked = ListRegister {
        vintid: IntId::new(27),
        pintid: Some(IntId::new(30)),
        priority: 0xa0,
        group: Group::One,
        state: State::Pending,
        ..ListRegister::default()
    };
    // HW, Grp1, State 01, Priority 0xa0 >> 3 = 0x14, PhysicalID 30, VirtualID 27.
    assert_eq!(
        linked.to_gich(),
        1 << 31 | 1 << 30 | 1 << 28 | 0x14 << 23 | 30 << 10 | 27
    );
    // State 01, HW, Group, Priority, pINTID, vINTID.
    assert_eq!(
        linked.to_ich(),
        1 << 62 | 1 << 61 | 1 << 60 | 0xa0 << 48 | 30 << 32 | 27
    );

    let level = ListRegister {
        priority: 0x08,
        state: State::PendingAndActive,
        eoi_maintenance: true,
        ..software(33)
    };
    assert_eq!(level.to_gich(), 3 << 28 | 1 << 23 | 1 << 19 | 33);
    assert_eq!(level.to_ich(), 3 << 62 | 0x08 << 48 | 1 << 41 | 33);

    let sgi = ListRegister {
        state: State::Active,
        source: 5,
        ..software(7)
    };
    assert_eq!(sgi.to_gich(), 2 << 28 | 5 << 10 | 7);
    assert_eq!(sgi.to_ich(), 2 << 62 | 7, "a GICv3 SGI has no source");
}

#[test]
fn the_eoi_bit_is_part_of_the_physical_number_when_linked() {
    let raw = 1 << 31 | 1 << 19 | 27;
    let linked = ListRegister::from_gich(raw);
    assert!(!linked.eoi_maintenance);
    assert_eq!(linked.pintid, Some(IntId::new(1 << 9)));
    let linked = ListRegister::from_ich(1 << 61 | 1 << 41 | 27);
    assert!(!linked.eoi_maintenance);
    assert_eq!(linked.pintid, Some(IntId::new(1 << 9)));
}

proptest! {
    #[test]
    fn any_gich_value_is_read_and_written_back(raw: u32) {
        // Bits 22:20 are reserved; without HW, so are bits 18:13.
        let reserved = 7 << 20 | if raw & 1 << 31 == 0 { 0x3f << 13 } else { 0 };
        prop_assert_eq!(ListRegister::from_gich(raw).to_gich(), raw & !reserved);
    }

    #[test]
    fn any_ich_value_is_read_and_written_back(raw: u64) {
        // Bits 59:56 and 47:45 are reserved or unused; without HW, so are the bits of pINTID but 41, EOI.
        let without_link = if raw & 1 << 61 == 0 { 0x1dff << 32 } else { 0 };
        let reserved = 0xf << 56 | 7 << 45 | without_link;
        prop_assert_eq!(ListRegister::from_ich(raw).to_ich(), raw & !reserved);
    }
}
