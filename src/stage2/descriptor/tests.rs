//! Descriptors, bit by bit.

use super::*;
use proptest::prelude::*;

const RWX: Rights = Rights::READ.with(Rights::WRITE).with(Rights::EXECUTE);

/// Bits spelled out from the figure in the Arm ARM, not from this module's names.
#[test]
fn pages_are_the_literals_of_the_manual() {
    let normal = Memory::Normal { forced: false };
    let oa = Pa::new(0x1234_5678_9000);
    // valid | page | MemAttr 0xf<<2 | S2AP RW 3<<6 | SH 3<<8 | AF 1<<10 | XN 0 | software owned 1<<55
    assert_eq!(
        Descriptor::leaf(Level::LAST, oa, RWX, normal, true).raw(),
        1 << 55 | 0x1234_5678_9000 | 0x7ff
    );
    // read only, execute never 0b10<<53
    assert_eq!(
        Descriptor::leaf(Level::LAST, oa, Rights::READ, normal, false).raw(),
        1 << 54 | 0x1234_5678_9000 | 0x77f
    );
    // forced write-back 0b0110<<2
    let forced = Memory::Normal { forced: true };
    assert_eq!(
        Descriptor::leaf(Level::LAST, oa, Rights::READ, forced, false).raw(),
        1 << 54 | 0x1234_5678_9000 | 0x75b
    );
    // Device-nGnRE 0b0001<<2, not shareable by encoding
    let window = Rights::READ.with(Rights::WRITE);
    assert_eq!(
        Descriptor::leaf(Level::LAST, oa, window, Memory::Device, false).raw(),
        1 << 54 | 0x1234_5678_9000 | 0x4c7
    );
    assert_eq!(Descriptor::table(oa).raw(), 0x1234_5678_9003);
}

#[test]
fn xn_is_never_an_encoding_that_needs_xnx() {
    for rights in 0..8 {
        let raw = Descriptor::leaf(
            Level::LAST,
            Pa::new(0x1000),
            Rights(rights),
            Memory::Device,
            true,
        )
        .raw();
        assert!(matches!(raw >> 53 & 3, 0b00 | 0b10));
    }
}

proptest! {
    #[test]
    fn a_page_decodes_to_what_was_encoded(page in 0u64..1 << 36, rights in 0u8..8, owned: bool, forced: bool) {
        let oa = Pa::new(page << 12);
        let desc = Descriptor::leaf(Level::LAST, oa, Rights(rights), Memory::Normal { forced }, owned);
        prop_assert_eq!(desc.view(Level::LAST), View::Leaf(oa, Rights(rights)));
        prop_assert_eq!(desc.is_owned(), owned);
    }

    #[test]
    fn the_parts_of_a_block_translate_as_the_block_did(
        gib in 0u64..1 << 18, rights in 0u8..8, owned: bool, index in 0usize..512, young: bool, tracked: bool,
    ) {
        let normal = Memory::Normal { forced: true };
        for number in [1, 2] {
            let (level, oa) = (Level::new(number), Pa::new(gib << 30));
            let block = Descriptor::leaf(level, oa, Rights(rights), normal, owned)
                .with_access_flag(young)
                .with_tracking(tracked);
            prop_assert_eq!(block.raw() & 3, 1, "a block's low bits are 01");
            let part = block.part(level, index);
            let size = if number == 1 { 2 << 20 } else { 4 << 10 };
            prop_assert_eq!(part.view(level.next()), View::Leaf(oa.add(index as u64 * size), Rights(rights)));
            prop_assert_eq!((part.is_owned(), part.is_young(), part.tracks_writes()), (owned, young, tracked));
            if index == 0 {
                prop_assert_eq!(part.whole(level.next()), block);
            }
        }
    }

    #[test]
    fn rights_only_grow_and_nothing_else_changes(raw: u64, more in 0u8..8) {
        let desc = Descriptor::from_raw(raw & !(1 << 53));
        let after = desc.with_rights(Rights(more));
        prop_assert_eq!(after.rights(), desc.rights().with(Rights(more)));
        let rights_bits = 3 << 6 | 3 << 53;
        prop_assert_eq!(after.raw() & !rights_bits, desc.raw() & !rights_bits);
    }

    #[test]
    fn any_bits_have_a_view(raw: u64, level in 0u8..4) {
        let _ = Descriptor::from_raw(raw).view(Level::new(level));
    }
}
