//! The tree is read back by other code than wrote it: our own discovery, and `dtc` where there is one.

use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::addr::{Ipa, Pa, PaRange};
use crate::board::tree::{Node, Tree};
use crate::board::{Conduit, Console, ConsoleKind};

fn range(start: u64, size: u64) -> IpaRange {
    IpaRange::new(Ipa::new(start), size).unwrap()
}

fn seed() -> &'static GuestSeed {
    std::boxed::Box::leak(std::boxed::Box::new(Seed::from_number(1).for_boot(0, 0)))
}

fn everything(gic: GicVersion, seed: &GuestSeed) -> GuestTree<'_> {
    GuestTree {
        memory: range(0x4000_0000, 256 << 20),
        reserved: &[],
        vcpus: 1,
        gic,
        console: true,
        pmu: true,
        rtc: true,
        bootargs: "console=ttyAMA0 quiet",
        ramdisk: Some(range(0x4420_0000, 0x12_3456)),
        seed: Some(seed),
    }
}

fn cells(node: &Node<'_>, property: &str) -> Vec<u32> {
    node.property(property).expect(property).cells().collect()
}

fn strings<'a>(node: &Node<'a>, property: &str) -> Vec<&'a str> {
    node.property(property).expect(property).strings().collect()
}

/// Every node and property, so that one too many is seen as well as one too few.
fn shape(blob: &[u8]) -> String {
    let tree = Tree::parse(blob).unwrap();
    let mut shape = String::new();
    for node in core::iter::once(tree.root()).chain(tree.nodes()) {
        let properties: Vec<String> = node.property_names().collect();
        shape += &format!("{}: {}\n", node.path(), properties.join(" "));
    }
    shape
}

#[test]
fn the_tree_has_the_platforms_nodes_and_no_others() {
    let seed = seed();
    let blob = build(&everything(GicVersion::V3, seed)).unwrap();
    assert_eq!(
        shape(&blob),
        "/: compatible model #address-cells #size-cells interrupt-parent dma-coherent\n\
         /chosen: bootargs stdout-path linux,initrd-start linux,initrd-end rng-seed kaslr-seed\n\
         /aliases: serial0\n\
         /memory@40000000: reg device_type\n\
         /cpus: #address-cells #size-cells\n\
         /cpus/cpu@0: device_type compatible reg enable-method\n\
         /psci: compatible method\n\
         /timer: compatible interrupts always-on\n\
         /pmu: compatible interrupts\n\
         /interrupt-controller@8000000: compatible reg interrupt-controller #interrupt-cells #address-cells phandle\n\
         /clock: compatible #clock-cells clock-frequency phandle\n\
         /pl011@9000000: reg compatible interrupts clocks clock-names\n\
         /pl031@9010000: reg compatible interrupts clocks clock-names\n"
    );
}

#[test]
fn parts_of_memory_with_fewer_rights_are_reserved() {
    let reserved = [range(0x4100_0000, 0x1000), range(0x4200_0000, 0x20_0000)];
    let guest = GuestTree {
        reserved: &reserved,
        ..everything(GicVersion::V3, seed())
    };
    let blob = build(&guest).unwrap();
    let tree = Tree::parse(&blob).unwrap();
    for (path, reg) in [
        (
            "/reserved-memory/memory@41000000",
            [0, 0x4100_0000, 0, 0x1000],
        ),
        (
            "/reserved-memory/memory@42000000",
            [0, 0x4200_0000, 0, 0x20_0000],
        ),
    ] {
        let node = tree.find(path).expect(path);
        assert_eq!(cells(&node, "reg"), reg);
        assert!(node.property("no-map").is_some());
    }
    let parent = tree.find("/reserved-memory").unwrap();
    assert_eq!(parent.property("ranges").unwrap().bytes(), b"");
}

#[test]
fn what_is_not_asked_for_is_not_there() {
    let bare = GuestTree {
        console: false,
        pmu: false,
        rtc: false,
        bootargs: "",
        ramdisk: None,
        seed: None,
        ..everything(GicVersion::V2, seed())
    };
    let shape = shape(&build(&bare).unwrap());
    assert!(shape.contains("/chosen: bootargs\n"));
    for absent in ["aliases", "pl011", "pl031", "stdout", "initrd", "seed"] {
        assert!(!shape.contains(absent), "{absent} in\n{shape}");
    }
}

#[test]
fn values_are_those_of_qemus_virt_board() {
    let seed = seed();
    let blob = build(&everything(GicVersion::V3, seed)).unwrap();
    let tree = Tree::parse(&blob).unwrap();
    let node = |path| tree.find(path).unwrap_or_else(|| panic!("{path}"));
    let chosen = node("/chosen");
    assert_eq!(
        chosen.property("bootargs").unwrap().string(),
        Some("console=ttyAMA0 quiet")
    );
    assert_eq!(
        chosen.property("linux,initrd-start").unwrap().u64(),
        Some(0x4420_0000)
    );
    assert_eq!(
        chosen.property("linux,initrd-end").unwrap().u64(),
        Some(0x4432_3456)
    );
    assert_eq!(chosen.property("rng-seed").unwrap().bytes(), seed.rng_seed);
    assert_eq!(
        chosen.property("kaslr-seed").unwrap().u64(),
        Some(seed.kaslr_seed)
    );
    assert_eq!(
        cells(&node("/memory"), "reg"),
        [0, 0x4000_0000, 0, 0x1000_0000]
    );
    assert_eq!(
        strings(&node("/psci"), "compatible"),
        ["arm,psci-1.0", "arm,psci-0.2"]
    );
    assert_eq!(strings(&node("/psci"), "method"), ["hvc"]);
    assert_eq!(cells(&node("/cpus/cpu@0"), "reg"), [0]);
    assert_eq!(strings(&node("/cpus/cpu@0"), "enable-method"), ["psci"]);
    assert_eq!(
        cells(&node("/timer"), "interrupts"),
        [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]
    );
    let gic = node("/interrupt-controller");
    assert_eq!(strings(&gic, "compatible"), ["arm,gic-v3"]);
    assert_eq!(
        cells(&gic, "reg"),
        [0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0x2_0000]
    );
    assert_eq!(
        cells(&tree.root(), "interrupt-parent"),
        cells(&gic, "phandle")
    );
    let clock = node("/clock");
    assert_eq!(cells(&clock, "clock-frequency"), [24_000_000]);
    let uart = node("/pl011");
    assert_eq!(strings(&uart, "compatible"), ["arm,pl011", "arm,primecell"]);
    assert_eq!(cells(&uart, "interrupts"), [0, 1, 4]);
    assert_eq!(
        cells(&uart, "clocks"),
        [cells(&clock, "phandle"), cells(&clock, "phandle")].concat()
    );
    assert_eq!(strings(&uart, "clock-names"), ["uartclk", "apb_pclk"]);
    let rtc = node("/pl031");
    assert_eq!(
        (cells(&rtc, "reg"), cells(&rtc, "interrupts")),
        (std::vec![0, 0x0901_0000, 0, 0x1000], std::vec![0, 2, 4])
    );
}

#[test]
fn a_gicv2_guest_gets_the_virtual_cpu_interface_as_its_own_and_cpu_masks() {
    let two = GuestTree {
        vcpus: 2,
        ..everything(GicVersion::V2, seed())
    };
    let blob = build(&two).unwrap();
    let tree = Tree::parse(&blob).unwrap();
    let gic = tree.find("/interrupt-controller").unwrap();
    assert_eq!(strings(&gic, "compatible"), ["arm,gic-400"]);
    assert_eq!(
        cells(&gic, "reg"),
        [0, 0x0800_0000, 0, 0x1_0000, 0, 0x0801_0000, 0, 0x2000]
    );
    let timer = tree.find("/timer").unwrap();
    assert_eq!(
        cells(&timer, "interrupts"),
        [1, 13, 0x304, 1, 14, 0x304, 1, 11, 0x304, 1, 10, 0x304]
    );
    assert_eq!(cells(&tree.find("/cpus/cpu@1").unwrap(), "reg"), [1]);
}

#[test]
fn a_hypervisor_of_our_kind_finds_its_console_in_it() {
    let seed = seed();
    let blob = build(&everything(GicVersion::V3, seed)).unwrap();
    let tree = Tree::parse(&blob).unwrap();
    let console = Console::from_tree(&tree).unwrap();
    assert_eq!(
        (console.kind, console.range),
        (
            ConsoleKind::Pl011,
            PaRange::new(Pa::new(0x0900_0000), 0x1000).unwrap()
        )
    );
    assert_eq!(console.interrupt.map(IntId::raw), Some(33));
    let error = crate::board::Board::from_tree(&tree).expect_err("no nested virtualization");
    assert!(error.to_string().contains("no virtualization interface"));
    assert_eq!(Conduit::from_tree(&tree), Some(Conduit::Hvc));
}

#[test]
fn dtc_finds_nothing_to_complain_about() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    for gic in [GicVersion::V2, GicVersion::V3] {
        let blob = build(&everything(gic, seed())).unwrap();
        let dtc = Command::new("dtc")
            .args(["-I", "dtb", "-O", "dts"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut dtc) = dtc else { return };
        dtc.stdin.take().unwrap().write_all(&blob).unwrap();
        let output = dtc.wait_with_output().unwrap();
        assert_eq!(
            (
                output.status.success(),
                String::from_utf8_lossy(&output.stderr).as_ref()
            ),
            (true, "")
        );
    }
}

#[test]
fn a_tree_that_does_not_fit_is_refused() {
    let long = "x".repeat(512 << 10);
    let guest = GuestTree {
        bootargs: &long,
        ..everything(GicVersion::V3, seed())
    };
    assert_eq!(
        build(&guest).unwrap_err().to_string(),
        "the guest's device tree would be 513.7 KiB; it can be 512 KiB"
    );
    let nul = GuestTree {
        bootargs: "a\0b",
        ..everything(GicVersion::V3, seed())
    };
    assert_eq!(build(&nul), Err(GuestTreeError::Bootargs));
    for vcpus in [0, 9, u32::MAX] {
        let guest = GuestTree {
            vcpus,
            ..everything(GicVersion::V3, seed())
        };
        assert_eq!(build(&guest), Err(GuestTreeError::Vcpus(vcpus)));
    }
}

proptest! {
    #[test]
    fn any_command_line_and_size_come_back_as_they_were(
        bootargs in "[^\\x00]{0,2000}", pages in 1u64..1 << 24, vcpus in 1u32..=8,
    ) {
        let seed = seed();
        let memory = range(0x4000_0000, pages << 12);
        let blob = build(&GuestTree { bootargs: &bootargs, memory, vcpus, ..everything(GicVersion::V3, seed) }).unwrap();
        prop_assert!(blob.len() <= 512 << 10);
        let tree = Tree::parse(&blob).unwrap();
        prop_assert_eq!(tree.find("/chosen").unwrap().property("bootargs").unwrap().string(), Some(bootargs.as_str()));
        let reg = tree.find("/memory").unwrap().reg().unwrap();
        prop_assert_eq!(reg, [PaRange::new(Pa::new(0x4000_0000), pages << 12).unwrap()]);
        prop_assert_eq!(tree.find("/cpus").unwrap().children().count(), vcpus as usize);
        for cpu in 0..vcpus {
            let node = tree.find(&format!("/cpus/cpu@{cpu:x}")).unwrap();
            prop_assert_eq!(cells(&node, "reg"), vec![cpu]);
            prop_assert_eq!(strings(&node, "enable-method"), vec!["psci"]);
            prop_assert_eq!(strings(&node, "device_type"), vec!["cpu"]);
        }
    }
}
