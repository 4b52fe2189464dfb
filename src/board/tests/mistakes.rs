//! Trees that are wrong in one way each, and the line that says so.

use super::*;

#[test]
fn each_missing_part_has_its_own_line() {
    let cut = |blob: &[u8], node: &str| {
        edited(blob, |tree| {
            drop(tree.root.remove_child(node).expect("in the fixture"))
        })
    };
    assert_eq!(
        complaint(&cut(VIRT_GICV2, "memory@40000000")),
        "the device tree has no RAM"
    );
    assert_eq!(
        complaint(&cut(VIRT_GICV2, "intc@8000000")),
        "the device tree has no GICv2 or GICv3"
    );
    assert_eq!(
        complaint(&cut(VIRT_GICV2, "cpus")),
        "the device tree has no CPUs"
    );
    assert!(complaint(&cut(VIRT_GICV2, "timer")).contains("no generic timer"));
    let reg: Vec<u8> = [0u32, 0x0800_0000, 0, 0x1_0000, 0, 0x0801_0000, 0, 0x1_0000]
        .map(u32::to_be_bytes)
        .concat();
    let plain = with(VIRT_GICV2, "/intc@8000000", "reg", &reg);
    assert!(
        complaint(&plain).starts_with("/intc@8000000: this GIC has no virtualization interface")
    );
    let plain = without(VIRT_GICV3, "/intc@8000000", "interrupts");
    assert!(
        complaint(&plain).starts_with("/intc@8000000: this GIC has no virtualization interface")
    );
}

#[test]
fn malformed_memory_is_refused_not_guessed() {
    let short = with(VIRT_GICV2, "/memory@40000000", "reg", &[0; 12]);
    assert_eq!(
        complaint(&short),
        "device tree: /memory@40000000: `reg` cannot be read"
    );
    let wrapping = with(VIRT_GICV2, "/memory@40000000", "reg", &[0xff; 16]);
    assert_eq!(
        complaint(&wrapping),
        "device tree: /memory@40000000: `reg` cannot be read"
    );
    let reserved = with(RPI4, "/reserved-memory/gpu@3b000000", "reg", &[0; 4]);
    assert_eq!(
        complaint(&reserved),
        "device tree: /reserved-memory/gpu@3b000000: `reg` cannot be read"
    );
    let careless = without(RPI4, "/reserved-memory", "ranges");
    assert_eq!(board(&careless), board(RPI4), "memory is not behind a bus");
    let no_bus = without(RPI4, "/soc", "ranges");
    assert!(complaint(&no_bus).contains("has no address a CPU reaches"));
    let initrd = with(VIRT_GICV2, "/chosen", "linux,initrd-end", &[0; 4]);
    assert_eq!(
        complaint(&initrd),
        "device tree: /chosen: `linux,initrd-end` cannot be read"
    );
}

#[test]
fn a_blob_that_is_no_tree_is_told_from_a_broken_one() {
    assert_eq!(Tree::parse(&[]).err(), Some(tree::TreeError::NotATree));
    assert_eq!(
        Tree::parse(b"\x7fELF and so on").err(),
        Some(tree::TreeError::NotATree)
    );
    let cut = &RPI4[..RPI4.len() - 1];
    let size = RPI4.len() as u64;
    assert_eq!(
        Tree::parse(cut).err(),
        Some(tree::TreeError::Truncated {
            promised: size,
            present: size - 1
        })
    );
    let mut padded = RPI4.to_vec();
    padded.extend([0xff; 100]);
    assert_eq!(
        board(&padded),
        board(RPI4),
        "bytes after the tree are not its business"
    );
}

#[test]
fn a_name_with_a_line_break_stays_on_its_line() {
    let uart = BoardError::NoConsole(String::from("/a\nb is disabled"));
    let gic = BoardError::GicWithoutVirtualization {
        node: String::from("/gic\r\n"),
    };
    for error in [uart, gic] {
        assert!(!std::format!("{error}").contains(['\n', '\r']));
    }
}
