//! The deliberate bugs. Behind each stands a real one of the handbook's stage2.md section 9, or a rule of sections 3 to 5.

/// One line of the source, and what stands there instead.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    /// The whole line, without its indentation.
    pub(crate) old: &'static str,
    pub(crate) new: &'static str,
    /// Which tests are run: parts of their names.
    pub(crate) tests: &'static [&'static str],
}

/// Those that `make test` tries.
pub(crate) const QUICK: [&str; 5] = [
    "no-tlbi-after-relax",
    "tlbi-ipa-only",
    "wrong-vmid",
    "clean-after-publish",
    "map-on-permission",
];

/// The hardware model at work.
const MODEL: &[&str] = &["machine::tests::model"];
/// And the tests of what decides, and of what is done.
const FAULTS: &[&str] = &["fault::tests", "exit::tests", "machine::tests::model"];
const TREE: &[&str] = &["stage2::", "machine::tests::model"];

/// Machine operations that the model drops or weakens: their names are `src/machine/tests/model/weak.rs`'s.
pub(crate) const SWITCHES: [(&str, &[&str]); 22] = [
    ("no-tlbi-after-relax", MODEL),
    ("tlbi-ipa-only", MODEL),
    ("no-dsb-between", MODEL),
    ("local-where-broadcast", MODEL),
    ("wrong-vmid", MODEL),
    ("no-dsb-before-tlbi", MODEL),
    ("no-dsb-after-tlbi", MODEL),
    ("non-shareable-dsb", MODEL),
    ("no-isb-after-vttbr", MODEL),
    ("wrong-ttl", MODEL),
    ("short-range", MODEL),
    ("no-clean-to-poc", MODEL),
    ("clean-after-publish", MODEL),
    ("no-clean-to-pou", MODEL),
    ("no-icache", MODEL),
    ("lines-on-vipt", MODEL),
    ("no-dsb-after-clean", MODEL),
    ("first-line-only", MODEL),
    ("no-repeat", MODEL),
    ("no-zero", MODEL),
    ("store-for-cas", MODEL),
    ("par-not-kept", MODEL),
];

/// Lines of the source.
pub(crate) const LINES: &[Line] = &[
    Line {
        name: "map-on-permission",
        file: "src/fault/permission.rs",
        old: "if present.level().is_last() {",
        new: "if !present.rights().allows(fault.need.rights()) { return Resolution::Retry; } else if present.level().is_last() {",
        tests: FAULTS,
    },
    Line {
        name: "block-of-two-slots-relaxed",
        file: "src/fault/permission.rs",
        old: "let reaches_out = !fault.holds(present.range());",
        new: "let reaches_out = false;",
        tests: FAULTS,
    },
    Line {
        name: "trust-hpfar",
        file: "src/exit/abort.rs",
        old: "FaultStatus::Permission(_) => self.s1ptw(),",
        new: "FaultStatus::Permission(_) => true,",
        tests: FAULTS,
    },
    Line {
        name: "s1ptw-after-wnr",
        file: "src/exit/abort.rs",
        old: "match (self.s1ptw(), self.is_fetch(), self.is_maintenance()) {",
        new: "match (false, self.is_fetch(), self.is_maintenance()) {",
        tests: FAULTS,
    },
    Line {
        name: "write-strips-x",
        file: "src/stage2/descriptor.rs",
        old: "bits.modify(rights_field(self.rights().with(more)));",
        new: "bits.modify(rights_field(more));",
        tests: FAULTS,
    },
    Line {
        name: "no-tlbi-when-sufficient",
        file: "src/stage2/present.rs",
        old: "maintenance::after_relax(m, ipa, ttl);",
        new: "if matches!(outcome, Relaxed::Relaxed) { maintenance::after_relax(m, ipa, ttl); }",
        tests: TREE,
    },
    Line {
        name: "old-stays-old",
        file: "src/stage2/present.rs",
        old: "match seen.publish(m, seen.descriptor.with_access_flag(true)) {",
        new: "match seen.publish(m, seen.descriptor.with_access_flag(false)) {",
        tests: TREE,
    },
    Line {
        name: "break-of-any-vmid",
        file: "src/stage2/present.rs",
        old: "tree.under(m, |m| maintenance::after_break(m, ipa, ttl));",
        new: "maintenance::after_break(m, ipa, ttl);",
        tests: TREE,
    },
    Line {
        name: "no-icache-on-coalesce",
        file: "src/stage2/reshape.rs",
        old: "rights = rights.intersection(leaf.rights().with(noted));",
        new: "rights = if index == 0 { leaf.rights() } else { rights.with(leaf.rights().with(noted)) };",
        tests: TREE,
    },
    Line {
        name: "no-bbm-on-split",
        file: "src/stage2/reshape.rs",
        old: "self.under(m, |m| maintenance::after_break(m, Ipa::new(start), ttl));",
        new: "let _ = (start, ttl);",
        tests: TREE,
    },
    Line {
        name: "split-with-default-rights",
        file: "src/stage2/descriptor.rs",
        old: "Self((self.0 | page) + index as u64 * below.size())",
        new: "Self((self.0 | page | 3 << 6) + index as u64 * below.size())",
        tests: TREE,
    },
    Line {
        name: "free-before-tlbi",
        file: "src/stage2/unmap.rs",
        old: "gone.span.invalidate(m, self);",
        new: "",
        tests: TREE,
    },
    Line {
        name: "full-table-freed",
        file: "src/stage2/unmap.rs",
        old: "if !is_end || (0..1 << ENTRY_BITS).any(|n| m.load(place.table, n) != 0) {",
        new: "if !is_end {",
        tests: TREE,
    },
    Line {
        name: "lost-dirty",
        file: "src/stage2/dirty.rs",
        old: "self.change_all(m, part, &self.write_protection());",
        new: "let _ = part;",
        tests: TREE,
    },
    Line {
        name: "lost-dirty-on-unmap",
        file: "src/stage2/unmap.rs",
        old: "self.keep_dirty_state(last, IpaRange { start, size });",
        new: "let _ = (size, IpaRange { start, size });",
        tests: TREE,
    },
    Line {
        name: "hardware-gives-w-back",
        file: "src/stage2/descriptor.rs",
        old: "Self(bits.get()).with_tracking(self.tracks_writes() && most.allows(Rights::WRITE))",
        new: "Self(bits.get())",
        tests: TREE,
    },
    Line {
        name: "log-gives-w",
        file: "src/stage2/dirty.rs",
        old: ".with_tracking(by_hardware && level.is_last() && is_writable)",
        new: ".with_tracking(by_hardware && level.is_last() && (is_writable || true))",
        tests: TREE,
    },
    Line {
        name: "range-stops-at-race",
        file: "src/stage2/range.rs",
        old: "Err(found) => leaf = Descriptor::from_raw(found),",
        new: "Err(_) => { leaf = new; break }",
        tests: TREE,
    },
    Line {
        name: "step-from-the-middle",
        file: "src/stage2/range.rs",
        old: "(place, descriptor, at & !(place.level.size() - 1))",
        new: "(place, descriptor, at)",
        tests: TREE,
    },
    Line {
        name: "old-observation-kept",
        file: "src/stage2/walk.rs",
        old: "self.generation == self.tree.gate.generation()",
        new: "self.generation <= self.tree.gate.generation()",
        tests: TREE,
    },
    Line {
        name: "changer-does-not-wait",
        file: "src/stage2/gate.rs",
        old: "self.wait_while_any_is(WALKING);",
        new: "",
        tests: TREE,
    },
    Line {
        name: "first-root-table-only",
        file: "src/stage2/walk.rs",
        old: "let table = Pa::new(self.root().raw() | ((entry >> ENTRY_BITS) * PAGE_SIZE));",
        new: "let table = Pa::new(self.root().raw() | ((entry >> 63) * PAGE_SIZE));",
        tests: TREE,
    },
    Line {
        name: "vmid-not-retired",
        file: "src/stage2.rs",
        old: "maintenance::under_vttbr(m, vttbr(parked, self.vmid), maintenance::invalidate_vmid);",
        new: "let _ = parked;",
        tests: TREE,
    },
    Line {
        name: "no-tlbi-between-vcpus",
        file: "src/stage2/maintenance.rs",
        old: "forget_stage1(m);",
        new: "m.dsb(Dsb::Nsh);",
        tests: MODEL,
    },
    Line {
        name: "no-icache-between-vcpus",
        file: "src/stage2/maintenance.rs",
        old: "m.ic(Ic::AllLocal);",
        new: "",
        tests: TREE,
    },
    Line {
        name: "vmid-used-again-at-once",
        file: "src/stage2/vmid.rs",
        old: "self.next += 1;",
        new: "if !self.live.contains(&candidate) { return Some(candidate) } self.next += 1;",
        tests: TREE,
    },
    Line {
        name: "raced-page-lost",
        file: "src/fault/translation.rs",
        old: "page.give_back(m, fault.memory.pool, coherence);",
        new: "drop(page);",
        tests: FAULTS,
    },
    Line {
        name: "contiguous-hint-on-single-pages",
        file: "src/stage2/descriptor.rs",
        old: "Self((shape + attributes + owner + rights_field(rights)).value | address_bits(oa))",
        new: "Self((shape + attributes + owner + rights_field(rights)).value | address_bits(oa) | u64::from(level.is_last()) << 52)",
        tests: MODEL,
    },
    Line {
        name: "hint-not-on-all-of-a-group",
        file: "src/stage2/group.rs",
        old: "swap(m, at, Descriptor::LOCKED, leaf.with_hint(true));",
        new: "swap(m, at, Descriptor::LOCKED, leaf.with_hint(n != 5));",
        tests: FAULTS,
    },
    Line {
        name: "no-tlbi-on-dissolve",
        file: "src/stage2/group.rs",
        old: "maintenance::after_breaks(m, group_of(ipa), &self.config().mmu);",
        new: "let _ = (m, group_of(ipa));",
        tests: FAULTS,
    },
    Line {
        name: "group-unmapped-in-part",
        file: "src/stage2/unmap.rs",
        old: "self.dissolve_alone(m, Ipa::new(start));",
        new: "",
        tests: TREE,
    },
    Line {
        name: "group-changed-in-part",
        file: "src/stage2/range.rs",
        old: "if leaf.has_hint() {",
        new: "if leaf.is_locked() {",
        tests: TREE,
    },
    Line {
        name: "group-relaxed-in-part",
        file: "src/stage2/present.rs",
        old: "if self.seen.descriptor.has_hint() {",
        new: "if self.seen.descriptor.is_locked() {",
        tests: FAULTS,
    },
    Line {
        name: "stage1-open-under-another-vttbr",
        file: "src/stage2/maintenance.rs",
        old: "m.set_el1(El1::Tcr, TCR_NO_WALKS);",
        new: "",
        tests: TREE,
    },
];
