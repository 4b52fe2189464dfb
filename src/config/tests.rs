//! Descriptions: the documented example, QEMU's `guest-loader`, and trees built here to be wrong in one way each.

mod mistakes;
mod vcpus;

use std::string::{String, ToString};
use std::vec::Vec;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use proptest::prelude::*;

use super::*;
use crate::addr::{Pa, PaRange};

const EXAMPLE: &[u8] = include_bytes!("testdata/example.dtb");
const EXAMPLE_SOURCE: &str = include_str!("testdata/example.dts");
const GUEST_LOADER: &[u8] = include_bytes!("testdata/guest-loader.dtb");
const KERNEL_BYTES: &[u8] = b"the bytes of a kernel";
const RAMDISK_BYTES: &[u8] = b"a ramdisk";

/// A node with these properties and children.
fn node(name: &str, properties: &[(&str, &[u8])], children: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new(*name, *value).unwrap());
    }
    for child in children {
        node.add_child(child);
    }
    node
}

fn blob(chosen: DeviceTreeNode) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    tree.root.add_child(chosen);
    tree.to_dtb()
}

fn kernel() -> DeviceTreeNode {
    node(
        "module@0",
        &[
            ("compatible", b"multiboot,module\0multiboot,kernel\0"),
            ("faultline,data", b"kernel"),
        ],
        Vec::new(),
    )
}

fn ramdisk() -> DeviceTreeNode {
    node(
        "module@1",
        &[
            ("compatible", b"multiboot,ramdisk\0multiboot,module\0"),
            ("faultline,data", b"disk"),
        ],
        Vec::new(),
    )
}

const DOMAIN: (&str, &[u8]) = ("compatible", b"xen,domain\0");
const MEMORY: (&str, &[u8]) = ("memory", &[0, 0, 0, 0, 0, 2, 0, 0]);
const CONSOLE: (&str, &[u8]) = ("vpl011", b"");

/// A bundle of one domain that is sound but for what is added to it.
fn domain_with(properties: &[(&str, &[u8])], children: Vec<DeviceTreeNode>) -> Vec<u8> {
    let mut all = std::vec![DOMAIN, MEMORY, CONSOLE];
    all.extend(properties);
    blob(node("chosen", &[], std::vec![node("vm", &all, children)]))
}

fn read(blob: &[u8]) -> Result<Config, ConfigError> {
    parse(&Tree::parse(blob).unwrap(), Origin::Bundle)
}

fn complaint(blob: &[u8]) -> String {
    read(blob)
        .expect_err("this description is wrong")
        .to_string()
}

/// The bytes of a module that lies in its tree.
fn bytes_of<'b>(module: &Module, blob: &'b [u8]) -> &'b [u8] {
    let Module::Inside(place) = module else {
        panic!("the module has an address")
    };
    &blob[place.clone()]
}

#[test]
fn the_documented_example_means_what_the_document_says() {
    let config = read(EXAMPLE).unwrap();
    assert_eq!(config.warnings, [""; 0]);
    let [tour] = &config.domains[..] else {
        panic!("one domain")
    };
    assert_eq!(
        (tour.name.as_str(), tour.memory, tour.vcpus, tour.console),
        ("tour", 256 << 20, 1, true)
    );
    assert_eq!(tour.bootargs, "console=ttyAMA0 quiet");
    assert_eq!(bytes_of(&tour.kernel, EXAMPLE), KERNEL_BYTES);
    assert_eq!(
        bytes_of(tour.ramdisk.as_ref().unwrap(), EXAMPLE),
        RAMDISK_BYTES
    );
    assert_eq!(
        (tour.rights, tour.granule),
        (RightsPolicy::Lazy, GranulePolicy::Page)
    );
    assert_eq!(tour.reboot, RebootPolicy::Restart);
}

#[test]
fn the_document_shows_the_example_that_is_tested() {
    let document = include_str!("../../docs/vm-bundle.md");
    assert!(
        document.contains(&format!("```dts\n{EXAMPLE_SOURCE}```")),
        "docs/vm-bundle.md and example.dts differ"
    );
}

/// Where there is a device tree compiler, the committed blob is compared with what it makes of the source.
#[test]
fn the_example_compiles_to_the_blob_that_is_tested() {
    use std::process::Command;
    if Command::new("dtc").arg("--version").output().is_err() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("faultline-example-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("Image"), KERNEL_BYTES).unwrap();
    std::fs::write(folder.join("initrd"), RAMDISK_BYTES).unwrap();
    std::fs::write(folder.join("example.dts"), EXAMPLE_SOURCE).unwrap();
    let made = Command::new("dtc")
        .current_dir(&folder)
        .args(["-q", "-O", "dtb", "example.dts"])
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(read(&made.stdout), read(EXAMPLE));
    assert!(made.stdout == EXAMPLE, "example.dtb is out of date");
}

#[test]
fn qemus_guest_loader_gives_a_guest_with_a_console() {
    let tree = Tree::parse(GUEST_LOADER).unwrap();
    let config = parse(&tree, Origin::HostTree).unwrap();
    assert_eq!(config.warnings, [""; 0]);
    let [guest] = &config.domains[..] else {
        panic!("one guest")
    };
    let at = |start, size| Module::At(PaRange::new(Pa::new(start), size).unwrap());
    assert_eq!(guest.kernel, at(0x4900_0000, 0x1000));
    assert_eq!(
        guest.ramdisk,
        Some(at(0x4a00_0000, 0x1_0000)),
        "listed first, but at the higher address"
    );
    assert_eq!(
        (guest.console, guest.memory, guest.bootargs.as_str()),
        (true, DEFAULT_MEMORY, "hi")
    );
}

#[test]
fn a_module_in_a_bundle_has_the_address_of_the_bundle_plus_its_offset() {
    let config = read(EXAMPLE).unwrap();
    let Module::Inside(place) = config.domains[0].kernel.clone() else {
        panic!("bytes in the bundle")
    };
    let range = config.domains[0]
        .kernel
        .range(Pa::new(0x4800_0000))
        .unwrap();
    assert_eq!(
        (range.start.raw(), range.size),
        (0x4800_0000 + place.start as u64, KERNEL_BYTES.len() as u64)
    );
    assert_eq!(config.domains[0].kernel.range(Pa::new(u64::MAX)), None);
}

#[test]
fn compatible_strings_may_come_in_any_order_and_policies_have_defaults() {
    let blob = domain_with(&[], std::vec![ramdisk(), kernel()]);
    let config = read(&blob).unwrap();
    let vm = &config.domains[0];
    assert_eq!(
        (
            bytes_of(&vm.kernel, &blob),
            bytes_of(vm.ramdisk.as_ref().unwrap(), &blob)
        ),
        (&b"kernel"[..], &b"disk"[..])
    );
    assert_eq!((vm.rights, vm.granule, vm.reboot), Default::default());
    assert_eq!((vm.vcpus, vm.memory), (1, 128 << 20));
}

#[test]
fn an_addressed_module_uses_the_cells_of_its_domain() {
    let cells: Vec<u8> = [0x4900_0000u32, 0x1234].map(u32::to_be_bytes).concat();
    let module = node(
        "module@49000000",
        &[("compatible", b"multiboot,kernel\0"), ("reg", &cells)],
        Vec::new(),
    );
    let one = 1u32.to_be_bytes();
    let blob = domain_with(
        &[("#address-cells", &one), ("#size-cells", &one)],
        std::vec![module],
    );
    let range = PaRange::new(Pa::new(0x4900_0000), 0x1234).unwrap();
    assert_eq!(read(&blob).unwrap().domains[0].kernel, Module::At(range));
}

#[test]
fn a_domain_without_vpl011_has_no_console_and_a_warning_says_so() {
    let blob = blob(node(
        "chosen",
        &[],
        std::vec![node("mute", &[DOMAIN, MEMORY], std::vec![kernel()])],
    ));
    let config = read(&blob).unwrap();
    assert!(!config.domains[0].console);
    assert_eq!(
        config.warnings,
        ["VM bundle: mute: no `vpl011`: it has no console"]
    );
}

#[test]
fn what_is_not_understood_shares_one_warning() {
    let flask = node(
        "module@2",
        &[("compatible", b"xen,xsm-policy\0multiboot,module\0")],
        Vec::new(),
    );
    let blob = domain_with(
        &[("xen,static-mem", b"\0\0\0\0"), ("nr_spis", b"\0\0\0\0")],
        std::vec![kernel(), flask],
    );
    let warnings = read(&blob).unwrap().warnings;
    assert_eq!(
        warnings,
        ["VM bundle: vm: not understood and ignored: xen,static-mem, nr_spis, module@2"]
    );
}

#[test]
fn every_granule_has_its_word() {
    for (word, granule) in [
        (&b"4k\0"[..], GranulePolicy::Page),
        (b"64k\0", GranulePolicy::Neighbours),
        (b"contiguous\0", GranulePolicy::Group),
        (b"2m\0", GranulePolicy::Block2M),
        (b"1g\0", GranulePolicy::Block1G),
        (b"auto\0", GranulePolicy::Auto),
    ] {
        let blob = domain_with(&[("faultline,granule", word)], std::vec![kernel()]);
        assert_eq!(read(&blob).unwrap().domains[0].granule, granule);
    }
}

#[test]
fn blocks_are_resized_in_place_only_if_asked_for() {
    for (word, resize) in [
        (&b"break-before-make\0"[..], ResizePolicy::BreakBeforeMake),
        (b"in-place\0", ResizePolicy::InPlace),
    ] {
        let blob = domain_with(&[("faultline,resize", word)], std::vec![kernel()]);
        assert_eq!(read(&blob).unwrap().domains[0].resize, resize);
    }
    let blob = domain_with(&[], std::vec![kernel()]);
    let asked_for = read(&blob).unwrap().domains[0].resize;
    assert_eq!(asked_for, ResizePolicy::BreakBeforeMake);
}

fn cells(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

#[test]
fn parts_of_ram_may_have_fewer_rights() {
    let rom = cells(&[0x4100_0000, 0x1000, 0x4200_0000, 0x20_0000]);
    let xn = cells(&[0x4700_0000, 0x100_0000]);
    let blob = domain_with(
        &[("faultline,rom", &rom), ("faultline,xn", &xn)],
        std::vec![kernel()],
    );
    let config = read(&blob).unwrap();
    let starts = |ranges: &[IpaRange]| -> Vec<(u64, u64)> {
        ranges.iter().map(|r| (r.start.raw(), r.size)).collect()
    };
    let vm = &config.domains[0];
    assert_eq!(
        starts(&vm.rom),
        [(0x4100_0000, 0x1000), (0x4200_0000, 0x20_0000)]
    );
    assert_eq!(
        starts(&vm.xn),
        [(0x4700_0000, 0x100_0000)],
        "up to the end of RAM"
    );
    assert!(config.warnings.is_empty());
    for (start, size) in [
        (0x4100_0000, 0),
        (0x4100_0800, 0x1000),
        (0x4100_0000, 0x800),
        (0x3fff_f000, 0x2000),
        (0x4800_0000, 0x1000),
        (0x47ff_f000, 0x2000),
        (u64::MAX - 0xfff, 0x2000),
    ] {
        for property in ["faultline,rom", "faultline,xn"] {
            let part = cells(&[start, size]);
            let blob = domain_with(&[(property, &part)], std::vec![kernel()]);
            let line = format!(
                "VM bundle: vm: `{property}`: {size:#x} bytes at {start:#x}; it has to be whole pages of the guest's RAM"
            );
            assert_eq!(complaint(&blob), line);
        }
    }
    let half = domain_with(&[("faultline,rom", &[0; 12])], std::vec![kernel()]);
    assert_eq!(
        complaint(&half),
        "VM bundle: vm: `faultline,rom` cannot be read"
    );
}

#[test]
fn the_ipa_space_is_the_smallest_that_fits_unless_it_is_said() {
    let said = domain_with(
        &[("faultline,ipa-bits", &[0, 0, 0, 44])],
        std::vec![kernel()],
    );
    assert_eq!(read(&said).unwrap().domains[0].ipa_bits, Some(44));
    let unsaid = domain_with(&[], std::vec![kernel()]);
    assert_eq!(read(&unsaid).unwrap().domains[0].ipa_bits, None);
    let text = domain_with(&[("faultline,ipa-bits", b"large\0")], std::vec![kernel()]);
    assert!(read(&text).is_err());
}

#[test]
fn the_domains_own_command_line_serves_a_kernel_without_one() {
    let blob = domain_with(&[("bootargs", b"from the domain\0")], std::vec![kernel()]);
    assert_eq!(read(&blob).unwrap().domains[0].bootargs, "from the domain");
}

#[test]
fn a_bundle_is_told_from_a_ramdisk_by_its_first_word() {
    assert!(is_bundle(EXAMPLE));
    for ramdisk in [&b"\x1f\x8b\x08"[..], b"070701", b"\xd0\x0d\xfe", b""] {
        assert!(!is_bundle(ramdisk));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn damaged_bundles_give_vms_or_one_line_and_never_a_panic(
        which in 0..2usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut blob = [EXAMPLE, GUEST_LOADER][which].to_vec();
        for (at, byte) in damage {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        let Ok(tree) = Tree::parse(&blob) else { return Ok(()) };
        match parse(&tree, Origin::Bundle) {
            Ok(config) => for domain in config.domains {
                for module in core::iter::once(&domain.kernel).chain(&domain.ramdisk) {
                    if let Module::Inside(place) = module {
                        prop_assert!(blob.get(place.clone()).is_some());
                    }
                }
            },
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }
}
