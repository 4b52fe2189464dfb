//! Discovery on real trees (QEMU's, dumped) and made-up ones (sources beside them), and on damaged copies of all.

mod mistakes;

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeProperty};
use proptest::prelude::*;

use super::*;
use crate::addr::Pa;

const VIRT_GICV2: &[u8] = include_bytes!("testdata/virt-gicv2.dtb");
const VIRT_GICV3: &[u8] = include_bytes!("testdata/virt-gicv3.dtb");
const RPI4: &[u8] = include_bytes!("testdata/rpi4.dtb");
const SERVER: &[u8] = include_bytes!("testdata/server.dtb");
const ALL: [&[u8]; 4] = [VIRT_GICV2, VIRT_GICV3, RPI4, SERVER];

fn board(blob: &[u8]) -> Result<Board, BoardError> {
    Board::from_tree(&Tree::parse(blob).expect("a sound tree"))
}

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

/// A copy of a fixture, changed by `edit`.
fn edited(blob: &[u8], edit: impl FnOnce(&mut DeviceTree)) -> Vec<u8> {
    let mut tree = DeviceTree::from_fdt(&Fdt::new(blob).unwrap());
    edit(&mut tree);
    tree.to_dtb()
}

/// A copy of a fixture with one property set.
fn with(blob: &[u8], node: &str, property: &str, value: &[u8]) -> Vec<u8> {
    edited(blob, |tree| {
        let node = tree
            .find_node_mut(node)
            .expect("the node is in the fixture");
        node.add_property(DeviceTreeProperty::new_unchecked(property, value));
    })
}

/// A copy of a fixture with one property removed.
fn without(blob: &[u8], node: &str, property: &str) -> Vec<u8> {
    edited(blob, |tree| {
        let node = tree
            .find_node_mut(node)
            .expect("the node is in the fixture");
        node.remove_property(property)
            .expect("the property is in the fixture");
    })
}

fn ppi(n: u32) -> interrupt::IntId {
    interrupt::IntId::ppi(n)
}

fn complaint(blob: &[u8]) -> String {
    board(blob)
        .expect_err("this tree is not enough")
        .to_string()
}

#[test]
fn qemu_virt_with_gicv2_is_read() {
    let board = board(VIRT_GICV2).unwrap();
    assert_eq!(board.model, "linux,dummy-virt");
    assert_eq!(board.ram, [range(0x4000_0000, 1 << 30)]);
    assert_eq!(board.reserved, []);
    assert_eq!(board.console.kind, ConsoleKind::Pl011);
    assert_eq!(board.console.range, range(0x0900_0000, 0x1000));
    assert_eq!(board.console.interrupt.map(interrupt::IntId::raw), Some(33));
    let Gic::V2 {
        distributor,
        cpu_interface,
        hyp_interface,
        vcpu_interface,
        maintenance,
    } = board.gic
    else {
        panic!("not a GICv2");
    };
    assert_eq!(distributor, range(0x0800_0000, 0x1_0000));
    assert_eq!(cpu_interface, range(0x0801_0000, 0x1_0000));
    assert_eq!(hyp_interface, range(0x0803_0000, 0x1_0000));
    assert_eq!(vcpu_interface, range(0x0804_0000, 0x1_0000));
    assert_eq!(maintenance.raw(), 25);
    let timers = [
        board.timer.secure.unwrap(),
        board.timer.physical,
        board.timer.virt,
        board.timer.hyp,
    ];
    assert_eq!(timers.map(interrupt::IntId::raw), [29, 30, 27, 26]);
    assert_eq!(board.pmu, Some(ppi(7)));
    assert_eq!(board.psci, Some(Conduit::Smc));
    assert_eq!(board.rtc, Some(range(0x0901_0000, 0x1000)));
    assert_eq!(board.watchdog, None);
    let cpus: Vec<_> = board
        .cpus
        .iter()
        .map(|cpu| (cpu.mpidr.raw(), cpu.enable))
        .collect();
    assert_eq!(cpus, [(0, EnableMethod::Psci), (1, EnableMethod::Psci)]);
    assert_eq!(board.chosen.initrd, Some(range(0x4800_0000, 0x1_0000)));
    assert_eq!(
        board.chosen.bootargs,
        "faultline.nonce=abc123 faultline.epoch=1790000000"
    );
}

#[test]
fn qemu_virt_with_gicv3_is_read() {
    let Gic::V3 {
        distributor,
        redistributors,
        maintenance,
    } = board(VIRT_GICV3).unwrap().gic
    else {
        panic!("not a GICv3");
    };
    assert_eq!(distributor, range(0x0800_0000, 0x1_0000));
    assert_eq!(
        redistributors,
        [Redistributors {
            range: range(0x080a_0000, 0xf6_0000),
            stride: None
        }]
    );
    assert_eq!(maintenance.raw(), 25);
}

#[test]
fn a_raspberry_pi_is_read_through_its_bus() {
    let board = board(RPI4).unwrap();
    assert_eq!(board.model, "Raspberry Pi 4 Model B");
    assert_eq!(
        board.ram,
        [range(0, 0x3b40_0000), range(0x4000_0000, 0x4000_0000)]
    );
    assert_eq!(
        board.console.kind,
        ConsoleKind::Ns16550 {
            reg_shift: 2,
            io_width: 4
        }
    );
    assert_eq!(board.console.range, range(0xfe21_5040, 0x40));
    assert_eq!(
        board.console.interrupt.map(interrupt::IntId::raw),
        Some(32 + 93)
    );
    let Gic::V2 {
        distributor,
        cpu_interface,
        hyp_interface,
        vcpu_interface,
        maintenance,
    } = board.gic
    else {
        panic!("not a GICv2");
    };
    assert_eq!(distributor, range(0xff84_1000, 0x1000));
    assert_eq!(cpu_interface, range(0xff84_2000, 0x2000));
    assert_eq!(hyp_interface, range(0xff84_4000, 0x2000));
    assert_eq!(vcpu_interface, range(0xff84_6000, 0x2000));
    assert_eq!(maintenance, ppi(9));
    let releases: Vec<_> = board
        .cpus
        .iter()
        .map(|cpu| (cpu.mpidr.raw(), cpu.enable))
        .collect();
    let spin = |release| EnableMethod::SpinTable {
        release: Pa::new(release),
    };
    assert_eq!(
        releases,
        [
            (0, spin(0xd8)),
            (1, spin(0xe0)),
            (2, spin(0xe8)),
            (3, spin(0xf0))
        ]
    );
    assert_eq!(board.psci, None);
    assert_eq!(board.watchdog, Some(range(0xfe10_0000, 0x114)));
    assert_eq!(board.rtc, None);
    assert!(board.reserved.contains(&Reserved {
        range: range(0, 0x1000),
        no_map: false
    }));
    assert!(board.reserved.contains(&Reserved {
        range: range(0x3b00_0000, 0x0100_0000),
        no_map: true
    }));
    let free = board.free_ram(&[range(0x20_0000, 0x10_0000)]);
    assert_eq!(
        free,
        [
            range(0x1000, 0x1f_f000),
            range(0x30_0000, 0x3ad0_0000),
            range(0x4000_0000, 0x4000_0000)
        ]
    );
}

#[test]
fn a_server_with_nested_buses_and_named_interrupts_is_read() {
    let board = board(SERVER).unwrap();
    assert_eq!(board.model, "example,server");
    assert_eq!(
        board.ram,
        [
            range(0x8000_0000, 0x2000_0000),
            range(0x80_0000_0000, 0x1_0000_0000)
        ]
    );
    assert_eq!(
        board.console.kind,
        ConsoleKind::Ns16550 {
            reg_shift: 2,
            io_width: 4
        }
    );
    assert_eq!(board.console.range, range(0x1_0002_8000, 0x100));
    assert_eq!(
        board.console.interrupt, None,
        "its first interrupt goes to a GPIO controller"
    );
    let Gic::V3 { redistributors, .. } = board.gic else {
        panic!("not a GICv3")
    };
    let stride = Some(0x4_0000);
    assert_eq!(
        redistributors,
        [
            Redistributors {
                range: range(0x2f10_0000, 0x8_0000),
                stride
            },
            Redistributors {
                range: range(0x2f20_0000, 0x8_0000),
                stride
            },
        ]
    );
    let timer = board.timer;
    assert_eq!(
        (timer.secure, timer.physical, timer.virt, timer.hyp),
        (None, ppi(14), ppi(11), ppi(10))
    );
    assert_eq!(board.psci, Some(Conduit::Hvc));
    assert_eq!(
        board
            .cpus
            .iter()
            .map(|cpu| cpu.mpidr.raw())
            .collect::<Vec<_>>(),
        [0, 0x1_0000_0101]
    );
    assert_eq!(board.chosen.initrd, Some(range(0x8800_0000, 0x12_3456)));
    assert_eq!(
        board.chosen.bootargs, "faultline.seed=5",
        "Xen's own word for the hypervisor's arguments wins"
    );
    assert_eq!(board.chosen.seed, []);
}

/// Where there is a device tree compiler, the committed blobs are compared with what it makes of their sources.
#[test]
fn the_made_up_trees_are_up_to_date() {
    for (name, blob) in [("rpi4", RPI4), ("server", SERVER)] {
        let source = format!(
            "{}/src/board/testdata/{name}.dts",
            env!("CARGO_MANIFEST_DIR")
        );
        let dtc = std::process::Command::new("dtc")
            .args(["-q", "-O", "dtb", &source])
            .output();
        let Ok(made) = dtc else { return };
        assert!(
            made.stdout == blob,
            "{name}.dtb is not what dtc makes of {name}.dts"
        );
    }
}

#[test]
fn seeds_can_be_wiped_where_they_lie() {
    let mut blob = VIRT_GICV2.to_vec();
    let chosen = board(&blob).unwrap().chosen;
    assert_eq!(chosen.seed.len(), 32 + 8);
    let found: Vec<u8> = chosen
        .secrets
        .iter()
        .flat_map(|place| blob[place.clone()].to_vec())
        .collect();
    assert_eq!(found, chosen.seed);
    for place in chosen.secrets {
        blob[place].fill(0);
    }
    let wiped = board(&blob).unwrap();
    assert_eq!(
        (wiped.chosen.seed, wiped.chosen.secrets),
        (Vec::new(), Vec::new())
    );
}

#[test]
fn options_after_the_colon_and_aliases_are_understood() {
    let serial0 = with(
        RPI4,
        "/chosen",
        "stdout-path",
        b"/soc/serial@7e201000:115200\0",
    );
    assert_eq!(board(&serial0).unwrap().console.kind, ConsoleKind::Pl011);
    let alias = without(RPI4, "/chosen", "stdout-path");
    assert_eq!(
        board(&alias).unwrap().console.range,
        range(0xfe20_1000, 0x200),
        "serial0 is the last resort"
    );
}

#[test]
fn a_console_that_cannot_be_used_gives_way_to_one_that_can() {
    let disabled = with(RPI4, "/soc/serial@7e215040", "status", b"disabled\0");
    assert_eq!(
        board(&disabled).unwrap().console.range,
        range(0xfe20_1000, 0x200)
    );
    let both = with(
        &disabled,
        "/soc/serial@7e201000",
        "compatible",
        b"acme,uart\0",
    );
    assert_eq!(
        complaint(&both),
        "no console: /soc/serial@7e215040 is disabled"
    );
    let unknown = with(VIRT_GICV2, "/pl011@9000000", "compatible", b"acme,uart\0");
    assert_eq!(
        complaint(&unknown),
        "no console: /pl011@9000000 is a `acme,uart`, for which there is no driver"
    );
    let unnamed = without(VIRT_GICV2, "/chosen", "stdout-path");
    assert_eq!(complaint(&unnamed), "no console: `serial0` names no node");
}

#[test]
fn the_early_console_is_read_from_its_slot() {
    let console = |kind, start| {
        Some(Console {
            kind,
            range: range(start, 0x1000),
            interrupt: None,
        })
    };
    let slot = |text: &str| {
        let mut slot = [0; 64];
        slot[..text.len()].copy_from_slice(text.as_bytes());
        Console::from_slot(&slot)
    };
    let ns16550 = |reg_shift, io_width| ConsoleKind::Ns16550 {
        reg_shift,
        io_width,
    };
    assert_eq!(
        slot("pl011,0x9000000"),
        console(ConsoleKind::Pl011, 0x0900_0000)
    );
    assert_eq!(
        slot("ns16550,0xfe215040,2,4"),
        console(ns16550(2, 4), 0xfe21_5040)
    );
    assert_eq!(slot("ns16550,4096"), console(ns16550(0, 1), 0x1000));
    for bad in [
        "",
        "pl011",
        "pl011,",
        "pl011,0x",
        "pl011,1,2",
        "ns16550,1,4",
        "ns16550,1,2,3",
        "uart,1",
    ] {
        assert_eq!(slot(bad), None, "{bad}");
    }
    assert_eq!(
        slot("pl011,0xffffffffffffffff"),
        None,
        "no room for registers"
    );
    assert_eq!(
        Console::from_slot(b"pl011,0x9000000").map(|console| console.range.start),
        Some(Pa::new(0x0900_0000))
    );
}

#[test]
fn the_words_that_waiting_cpus_look_at_are_never_free_ram() {
    let unreserved = edited(RPI4, |tree| tree.memory_reservations.clear());
    let board = board(&unreserved).unwrap();
    assert_eq!(board.free_ram(&[])[0].start, Pa::new(0x1000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn damaged_trees_give_a_board_or_one_line_and_never_a_panic(
        which in 0..ALL.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut blob = ALL[which].to_vec();
        for (at, byte) in damage {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        let line = match Tree::parse(&blob) {
            Ok(tree) => match Board::from_tree(&tree) {
                Ok(board) => {
                    let free = board.free_ram(&[range(0, 1 << 32)]);
                    prop_assert!(free.iter().all(|free| board.ram.iter().any(|bank| free.intersect(bank) == Some(*free))));
                    return Ok(());
                }
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        prop_assert!(!line.is_empty() && !line.contains('\n'), "{:?}", line);
    }
}

/// The Raspberry Pi 4 has an SPI for each CPU: a guest's PPI cannot stand for that.
#[test]
fn performance_monitors_interrupt_by_a_ppi_or_not_at_all() {
    let specifier = interrupt::specifier(interrupt::IntId::spi(16), 4).map(u32::to_be_bytes);
    let by_spi = with(VIRT_GICV3, "/pmu", "interrupts", specifier.as_flattened());
    assert_eq!(board(VIRT_GICV3).unwrap().pmu, Some(ppi(7)));
    assert_eq!(board(&by_spi).unwrap().pmu, None);
    let without = without(VIRT_GICV3, "/pmu", "interrupts");
    assert_eq!(board(&without).unwrap().pmu, None);
}
