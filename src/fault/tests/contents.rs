//! What a page holds when a guest sees it first.

use super::world::{RAM_START, Setup, World};
use crate::addr::{Ipa, IpaRange, PAGE_SIZE, Pa};
use crate::content::{Content, Source};
use crate::exit::Need;
use crate::machine::Machine;
use proptest::prelude::*;

const MODULE: u64 = 0x1_2345_6789;

fn pattern(size: u64, seed: u64) -> Vec<u8> {
    (0..size)
        .map(|n| (n.wrapping_mul(31) ^ (n >> 8) ^ seed) as u8 | 1)
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum From {
    Memory,
    Pages,
    Bytes,
}

fn world(from: From, ranges: &[(u64, Vec<u8>)]) -> World {
    Setup {
        pages: 128,
        ..Setup::default()
    }
    .build_with(|m, pool| {
        let content = |(index, (start, bytes)): (usize, &(u64, Vec<u8>))| {
            let range = IpaRange::new(Ipa::new(*start), bytes.len() as u64).unwrap();
            let source = match from {
                From::Memory => {
                    let at = Pa::new(MODULE + index as u64 * 0x10_0000);
                    m.add_module(at, bytes.clone());
                    Source::Memory(at)
                }
                From::Pages => {
                    let page = |part: &[u8]| pool.take().unwrap().holding(m, part);
                    Source::Pages(bytes.chunks(PAGE_SIZE as usize).map(page).collect())
                }
                From::Bytes => Source::Bytes(bytes.clone()),
            };
            Content::new(range, source)
        };
        ranges.iter().enumerate().map(content).collect()
    })
}

/// The bytes of a guest's page worked out from the ranges, one byte at a time.
fn expected(ranges: &[(u64, Vec<u8>)], page: u64) -> Vec<u8> {
    let byte = |ipa: u64| {
        let covering = ranges.iter().find_map(|(start, bytes)| {
            let offset = ipa.checked_sub(*start)?;
            bytes.get(offset as usize)
        });
        covering.copied().unwrap_or(0)
    };
    (page..page + PAGE_SIZE).map(byte).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_page_gets_its_share_of_whatever_covers_it(
        start in 0u64..0x3000, size in 1u64..0x5000, gap in 0u64..0x1800, second in 1u64..0x2000, kind in 0usize..3,
    ) {
        let from = [From::Memory, From::Pages, From::Bytes][kind];
        let ranges = [
            (RAM_START + start, pattern(size, 1)),
            (RAM_START + start + size + gap, pattern(second, 2)),
        ];
        let mut world = world(from, &ranges);
        let end = start + size + gap + second;
        for page in (0..end + PAGE_SIZE).step_by(PAGE_SIZE as usize).map(|at| RAM_START + (at & !0xfff)) {
            world.touch(page + 8, [Need::Read, Need::Write, Need::Execute][(page >> 12) as usize % 3]);
            let (pa, _) = world.m.translate(page).unwrap();
            prop_assert_eq!(world.m.page(pa), &expected(&ranges, page)[..]);
        }
        world.end();
    }
}

#[test]
fn content_is_there_before_the_page_is_and_never_again_after() {
    let ranges = [(RAM_START + 0x10, pattern(0x20, 3))];
    let mut world = world(From::Bytes, &ranges);
    world.touch(RAM_START, Need::Write);
    world.m.guest_writes(RAM_START + 0x10, b"the guest's own");
    world.touch(RAM_START, Need::Execute);
    let (pa, _) = world.m.translate(RAM_START).unwrap();
    let mut bytes = [0; 15];
    world.m.read(pa.add(0x10), &mut bytes);
    assert_eq!(&bytes, b"the guest's own");
    world.end();
}
