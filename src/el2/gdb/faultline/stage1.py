"""The guest's own translation, VA to IPA, walked as its CPU would: TTBRn_EL1, TCR_EL1, tables that lie in IPAs.

Source: DDI 0487 "TCR_EL1", "VMSAv8-64 translation table format descriptors".
"""
import gdb

from . import target

# log2 of the granule: TG0's and TG1's encodings differ.
GRANULE = ({0: 12, 1: 16, 2: 14}, {1: 14, 2: 12, 3: 16})
ADDRESS = 0x0000_FFFF_FFFF_FFFF
SCTLR_M, TCR_DS = 1 << 0, 1 << 59


class NotMapped(gdb.GdbError):
    """The guest's stage 1 does not translate the address, or a table of it lies where nothing is mapped."""


def is_on():
    return bool(target.need("SCTLR") & SCTLR_M)


def translate(tree, va):
    """The IPA of a guest's VA, through the stage 2 `tree`; permissions are not looked at."""
    if not is_on():
        return va
    tcr, high = target.need("TCR_EL1"), va >> 55 & 1
    size = tcr >> (16 if high else 0) & 63
    shift = GRANULE[high].get(tcr >> (30 if high else 14) & 3)
    if shift is None or tcr & TCR_DS:
        raise NotMapped(f"TCR_EL1 {tcr:#x}: a table format this script does not know")
    if tcr >> (23 if high else 7) & 1:
        raise NotMapped(f"VA {va:#x}: the guest has walks by TTBR{high}_EL1 off")
    bits, stride = 64 - size, shift - 3
    ignored = 8 if tcr >> (38 if high else 37) & 1 else 0
    # What lies between the size of the half and a top byte that is ignored repeats bit 55.
    between = (va & (1 << 64 - ignored) - 1) >> bits
    if between != ((1 << 64 - ignored - bits) - 1 if high else 0):
        raise NotMapped(f"VA {va:#x} lies outside the guest's {bits}-bit halves")
    level = 4 - -(-(bits - shift) // stride)
    table = target.need(f"TTBR{high}_EL1") & ADDRESS & ~1
    width = bits - shift - stride * (3 - level)
    while True:
        step = shift + stride * (3 - level)
        place = table + 8 * (va >> step & (1 << width) - 1)
        leaf = tree.leaf(place)
        if leaf is None:
            raise NotMapped(f"VA {va:#x}: the guest's level-{level} table at IPA {place:#x} is not mapped at stage 2")
        descriptor = target.words(leaf.pa + place - leaf.ipa, 1)[0]
        if not descriptor & 1 or (level == 3 and not descriptor & 2):
            raise NotMapped(f"VA {va:#x} is not mapped by the guest: invalid descriptor at level {level}, IPA {place:#x}")
        output = descriptor & ADDRESS >> shift << shift
        if level == 3 or not descriptor & 2:
            return output >> step << step | va & (1 << step) - 1
        table, level, width = output, level + 1, stride
