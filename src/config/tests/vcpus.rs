//! Nodes of single vCPUs: where each may run.

use super::*;

fn vcpu_node(name: &str, id: u32, hard_affinity: &[u8]) -> DeviceTreeNode {
    node(
        name,
        &[
            ("compatible", b"xen,vcpu\0"),
            ("id", &id.to_be_bytes()),
            ("hard-affinity", hard_affinity),
        ],
        Vec::new(),
    )
}

#[test]
fn a_vcpu_runs_where_its_node_says_and_everywhere_without_one() {
    let three = 3u32.to_be_bytes();
    let blob = domain_with(
        &[("cpus", &three)],
        std::vec![
            kernel(),
            vcpu_node("vcpu@2", 2, b"1\0"),
            vcpu_node("vcpu@0", 0, b"0-1,4\0"),
        ],
    );
    let config = read(&blob).unwrap();
    assert_eq!(config.warnings, [""; 0]);
    let domain = &config.domains[0];
    assert_eq!(domain.affinities, [0b1_0011, u64::MAX, 0b10]);
    assert_eq!(domain.placements(8).count(), 2);
}

#[test]
fn what_is_wrong_with_a_vcpu_has_a_line_that_names_its_node() {
    let of = |vcpu| complaint(&domain_with(&[], std::vec![kernel(), vcpu]));
    assert_eq!(
        of(vcpu_node("vcpu@1", 1, b"0\0")),
        "VM bundle: vcpu@1: vCPU 1 of 1: they are counted from 0"
    );
    assert_eq!(
        of(vcpu_node("vcpu@0", 0, b"fast\0")),
        "VM bundle: vcpu@0: `hard-affinity` is \"fast\"; it can be CPUs from 0 to 31, as in \"0-2,5\""
    );
    assert_eq!(
        of(node("odd", &[("compatible", b"xen,vcpu\0")], Vec::new())),
        "VM bundle: odd: `id` is missing"
    );
}
