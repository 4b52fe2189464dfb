//! What is refused, and the line that says so.

use super::*;

#[test]
fn each_mistake_has_its_own_line() {
    let nine = 9u32.to_be_bytes();
    let zero = [0; 8];
    let cases: [(&str, Vec<u8>, &str); 14] = [
        (
            "cpus",
            domain_with(&[("cpus", &nine)], std::vec![kernel()]),
            "vm: 9 vCPUs; a VM has 1 to 8",
        ),
        (
            "no cpus",
            domain_with(&[("cpus", &[0; 4])], std::vec![kernel()]),
            "vm: 0 vCPUs; a VM has 1 to 8",
        ),
        (
            "memory",
            domain_with(&[("memory", &zero)], std::vec![kernel()]),
            "vm: 0 B of RAM; it has to be whole pages, at least one, at most 63 GiB",
        ),
        (
            "pages",
            domain_with(&[("memory", &5u32.to_be_bytes())], std::vec![kernel()]),
            "vm: 5 KiB of RAM; it has to be whole pages, at least one, at most 63 GiB",
        ),
        (
            "memory shape",
            domain_with(&[("memory", b"128M\0")], std::vec![kernel()]),
            "vm: `memory` cannot be read",
        ),
        (
            "rights",
            domain_with(&[("faultline,rights", b"lazzy\0")], std::vec![kernel()]),
            "vm: `faultline,rights` is \"lazzy\"; it can be \"eager\" or \"lazy\"",
        ),
        (
            "resize",
            domain_with(&[("faultline,resize", b"inplace\0")], std::vec![kernel()]),
            "vm: `faultline,resize` is \"inplace\"; it can be \"break-before-make\" or \"in-place\"",
        ),
        (
            "granule",
            domain_with(&[("faultline,granule", b"16k\0")], std::vec![kernel()]),
            "vm: `faultline,granule` is \"16k\"; it can be \"4k\", \"64k\", \"contiguous\", \"2m\", \"1g\" or \"auto\"",
        ),
        (
            "reboot",
            domain_with(&[("faultline,reboot", b"halt\0")], std::vec![kernel()]),
            "vm: `faultline,reboot` is \"halt\"; it can be \"restart\" or \"stop\"",
        ),
        (
            "no kernel",
            domain_with(&[], std::vec![ramdisk()]),
            "vm: no `multiboot,kernel` module",
        ),
        (
            "empty",
            blob(node("chosen", &[], Vec::new())),
            "/chosen: no VM here: no `xen,domain` node and no `multiboot,kernel` module",
        ),
        (
            "nothing",
            DeviceTree::new().to_dtb(),
            "/chosen: no VM here: no `xen,domain` node and no `multiboot,kernel` module",
        ),
        (
            "passthrough",
            domain_with(
                &[],
                std::vec![
                    kernel(),
                    node(
                        "module@2",
                        &[("compatible", b"multiboot,device-tree\0multiboot,module\0")],
                        Vec::new()
                    )
                ],
            ),
            "module@2: `multiboot,device-tree` describes passthrough, which this version does not have",
        ),
        (
            "no bytes",
            domain_with(
                &[],
                std::vec![node(
                    "module@0",
                    &[("compatible", b"multiboot,kernel\0")],
                    Vec::new()
                )],
            ),
            "module@0: a module has either its bytes in `faultline,data` or their address in `reg`",
        ),
    ];
    for (what, blob, line) in cases {
        assert_eq!(complaint(&blob), format!("VM bundle: {line}"), "{what}");
    }
    let missing = blob(node(
        "chosen",
        &[],
        std::vec![node("vm", &[DOMAIN, CONSOLE], std::vec![kernel()])],
    ));
    assert_eq!(complaint(&missing), "VM bundle: vm: `memory` is missing");
}

#[test]
fn more_than_one_vm_is_refused_however_they_are_described() {
    let vm = |name| node(name, &[DOMAIN, MEMORY, CONSOLE], std::vec![kernel()]);
    let two = blob(node("chosen", &[], std::vec![vm("one"), vm("two")]));
    assert_eq!(
        complaint(&two),
        "VM bundle: /chosen: 2 VMs; this version runs one"
    );
    let mixed = blob(node("chosen", &[], std::vec![vm("one"), kernel()]));
    assert_eq!(
        complaint(&mixed),
        "VM bundle: /chosen: 2 VMs; this version runs one"
    );
    let mut off = vm("two");
    off.add_property(DeviceTreeProperty::new("status", "disabled").unwrap());
    let one = blob(node("chosen", &[], std::vec![vm("one"), off]));
    assert_eq!(
        read(&one).unwrap().domains.len(),
        1,
        "a disabled domain does not count"
    );
}

#[test]
fn two_kernels_or_two_ramdisks_in_one_domain_are_refused() {
    let mut second = kernel();
    second = node(
        "module@5",
        &[
            ("compatible", b"multiboot,kernel\0"),
            ("faultline,data", b"k2"),
        ],
        {
            drop(second.remove_property("reg"));
            Vec::new()
        },
    );
    let kernels = domain_with(&[], std::vec![kernel(), second]);
    assert_eq!(
        complaint(&kernels),
        "VM bundle: vm: 2 `multiboot,kernel` modules; there can be one"
    );
    let disk = node(
        "module@6",
        &[
            ("compatible", b"multiboot,ramdisk\0"),
            ("faultline,data", b"d2"),
        ],
        Vec::new(),
    );
    let ramdisks = domain_with(&[], std::vec![kernel(), ramdisk(), disk]);
    assert_eq!(
        complaint(&ramdisks),
        "VM bundle: vm: 2 `multiboot,ramdisk` modules; there can be one"
    );
}

#[test]
fn a_flat_ramdisk_below_every_kernel_is_refused() {
    let flat = blob(node("chosen", &[], std::vec![ramdisk(), kernel()]));
    assert_eq!(
        complaint(&flat),
        "VM bundle: module@1: a ramdisk belongs to the kernel below it, and there is none"
    );
}
