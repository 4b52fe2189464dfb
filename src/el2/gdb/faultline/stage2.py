"""Stage 2 as the hardware walks it: VTTBR_EL2, VTCR_EL2, descriptors.

Source: DDI 0487 "VTCR_EL2", "VMSAv8-64 translation table format descriptors"; the software bits are ours
(src/stage2/descriptor.rs).
"""
from collections import namedtuple

import gdb

from . import record, target

ADDRESS = 0x0000_FFFF_FFFF_F000
VALID, TABLE_OR_PAGE, ACCESS_FLAG = 1 << 0, 1 << 1, 1 << 10
READ, WRITE = 1 << 6, 1 << 7
OWNED, LOCKED = 1 << 55, 1 << 56

# MemAttr without and with FEAT_S2FWB; what else there is, is told as bits.
MEMORY = {0b1111: "Normal-WB", 0b0110: "Normal-WB-forced", 0b0101: "Normal-NC", 0b0001: "Device-nGnRE", 0b0000: "Device-nGnRnE"}
SHAREABLE = {0: "non-shareable", 2: "outer-shareable", 3: "inner-shareable"}
EXECUTE = {0b00: "X", 0b01: "x", 0b10: "-", 0b11: "p"}

Step = namedtuple("Step", "level table index descriptor kind")
Leaf = namedtuple("Leaf", "ipa size pa rights memory owned af")


class Stage2:
    """The tree of one VM, by the registers that the hardware has."""

    def __init__(self, vttbr, vtcr, source):
        self.vttbr, self.vtcr, self.source = vttbr, vtcr, source
        self.root = vttbr & ADDRESS
        self.vmid = vttbr >> 48
        self.ipa_bits = 64 - (vtcr & 0x3F)
        granule, sl0 = vtcr >> 14 & 3, vtcr >> 6 & 3
        if granule != 0 or not 12 < self.ipa_bits <= 48 or sl0 > 2:
            raise gdb.GdbError(f"VTCR_EL2 {vtcr:#x}: not the shape of a tree that Faultline makes (4 KiB pages)")
        self.start_level = 2 - sl0
        self.root_tables = 1 << max(0, self.ipa_bits - self.shift(self.start_level) - 9)

    @staticmethod
    def shift(level):
        """log2 of what a descriptor of the level stands for."""
        return 12 + 9 * (3 - level)

    def walk(self, ipa):
        """Every level's step down to the leaf, or to what is not there."""
        if ipa >> self.ipa_bits:
            raise gdb.GdbError(f"IPA {ipa:#x} lies outside the VM's space of {self.ipa_bits} bits: an address size fault")
        steps, level = [], self.start_level
        entry = ipa >> self.shift(level)
        table = self.root + (entry >> 9) * 4096
        while True:
            index = ipa >> self.shift(level) & 511
            descriptor = target.words(table + 8 * index, 1)[0]
            found = kind(descriptor, level)
            steps.append(Step(level, table, index, descriptor, found))
            if found != "table":
                return steps
            table, level = descriptor & ADDRESS, level + 1

    def leaf(self, ipa):
        """The leaf that maps an IPA, or None."""
        last = self.walk(ipa)[-1]
        return self._leaf(last, ipa >> self.shift(last.level) << self.shift(last.level))

    def _leaf(self, step, ipa):
        if step.kind not in ("page", "block"):
            return None
        d = step.descriptor
        return Leaf(ipa, 1 << self.shift(step.level), d & ADDRESS, rights(d), memory(d), bool(d & OWNED), bool(d & ACCESS_FLAG))

    def leaves(self, start, end):
        """All leaves in [start, end), by address. Subtrees outside are not read."""
        span = 1 << self.shift(self.start_level) + 9
        for n in range(self.root_tables):
            yield from self._below(self.root + n * 4096, self.start_level, n * span, start, end)

    def _below(self, table, level, base, start, end):
        size = 1 << self.shift(level)
        if base >= end or base + (size << 9) <= start:
            return
        for index, descriptor in enumerate(target.table(table)):
            ipa = base + index * size
            if not descriptor & VALID or ipa >= end or ipa + size <= start:
                continue
            found = kind(descriptor, level)
            if found == "table":
                yield from self._below(descriptor & ADDRESS, level + 1, ipa, start, end)
            elif found in ("page", "block"):
                yield self._leaf(Step(level, table, index, descriptor, found), ipa)


def kind(descriptor, level):
    """What a descriptor is at a level."""
    if not descriptor & VALID:
        return "locked" if descriptor == LOCKED else "invalid"
    if descriptor & TABLE_OR_PAGE:
        return "page" if level == 3 else "table"
    # Level 0 has no blocks, and at level 3 the encoding is reserved.
    return "block" if level in (1, 2) else "reserved"


def rights(descriptor):
    """`RWX`. X for both exception levels; x EL0 alone, p EL1 alone (FEAT_XNX), which Faultline does not make."""
    return ("R" if descriptor & READ else "-") + ("W" if descriptor & WRITE else "-") + EXECUTE[descriptor >> 53 & 3]


def memory(descriptor):
    attribute = descriptor >> 2 & 15
    return MEMORY.get(attribute, f"MemAttr={attribute:#06b}")


def describe(step):
    """A step's descriptor in words."""
    d = step.descriptor
    if step.kind == "table":
        return f"table at {d & ADDRESS:#x}"
    if step.kind == "locked":
        return "locked: a leaf that is being broken and made again"
    if step.kind == "invalid":
        return "invalid: nothing is mapped" + (f" (software bits {d:#x})" if d else "")
    if step.kind == "reserved":
        return "reserved encoding: the hardware takes it for invalid"
    parts = [f"{step.kind} at {d & ADDRESS:#x}", rights(d), memory(d), SHAREABLE.get(d >> 8 & 3, "reserved shareability")]
    parts.append("AF=1" if d & ACCESS_FLAG else "AF=0: the first access faults")
    parts.append("owned" if d & OWNED else "window (not owned)")
    return "  ".join(parts)


def current():
    """The tree the hardware walks now; where no VTTBR_EL2 is set, or told, the one of the VM that the record names."""
    vttbr, vtcr = target.register("VTTBR_EL2"), target.register("VTCR_EL2")
    if vttbr is not None and vtcr is not None and vttbr & ADDRESS:
        return Stage2(vttbr, vtcr, "VTTBR_EL2")
    known = record.running()
    return Stage2(known.vttbr, known.vtcr, "the VM's record: this CPU's VTTBR_EL2 is not set")


def folded(leaves):
    """Runs of leaves that follow each other in IPA and in PA and are alike: (first leaf, bytes, count)."""
    run = None
    for leaf in leaves:
        if run:
            first, size, count = run
            if leaf.ipa == first.ipa + size and leaf.pa == first.pa + size and leaf[3:] == first[3:]:
                run = (first, size + leaf.size, count + 1)
                continue
            yield run
        run = (leaf, leaf.size, 1)
    if run:
        yield run
