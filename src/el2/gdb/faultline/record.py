"""What the hypervisor tells a debugger: FAULTLINE_DEBUG of src/el2/debug.rs, and the block of the CPU that is looked at, to
which TPIDR_EL2 points, of src/el2/percpu.rs. Their layouts are these."""
import struct
from collections import namedtuple

import gdb

from . import target

MAGIC, VERSION = b"FLDEBUG\0", 2
SLOTS = 16
_HEAD = struct.Struct("<8s3Q32sQ")
# registers, number, last exit
_BLOCK_WORDS = 7
_ROW = struct.Struct("<4Q16s")
RAM, DEVICE, WINDOW = range(3)

Record = namedtuple("Record", "vttbr vtcr registers cpu last_exit name slot_count slots")
Exit = namedtuple("Exit", "pc esr far hpfar vector")
Slot = namedtuple("Slot", "start size kind detail name")


def _text(padded):
    return padded.split(b"\0")[0].decode("utf-8", "replace")


def read():
    """The record as it is now."""
    data = target.read(target.symbol("FAULTLINE_DEBUG"), _HEAD.size + SLOTS * _ROW.size)
    magic, version, vttbr, vtcr, name, slot_count = _HEAD.unpack_from(data)
    if (magic, version) != (MAGIC, VERSION):
        raise gdb.GdbError("FAULTLINE_DEBUG is not what this script knows: symbols of another build, or moved wrongly?")
    block = target.register("TPIDR_EL2")
    registers, cpu, *last_exit = target.words(block, _BLOCK_WORDS) if block else [0] * _BLOCK_WORDS
    rows = [_ROW.unpack_from(data, _HEAD.size + n * _ROW.size) for n in range(min(slot_count, SLOTS))]
    slots = [Slot(start, size, kind, detail, _text(text)) for start, size, kind, detail, text in rows]
    return Record(vttbr, vtcr, registers, cpu, Exit(*last_exit), _text(name), slot_count, slots)


def running():
    """The record, if a VM runs."""
    found = read()
    if found.vttbr == 0:
        raise gdb.GdbError("no VM runs: it has not started yet, or has ended")
    return found


def slot_of(record, ipa):
    """The slot that holds an IPA, or None."""
    return next((slot for slot in record.slots if 0 <= ipa - slot.start < slot.size), None)


def describe(slot):
    """What a slot is, in a word or two."""
    if slot is None:
        return "no slot: nothing is there"
    return {
        RAM: "RAM",
        DEVICE: f"device {slot.name or slot.detail}",
        WINDOW: f"window on PA {slot.detail:#x}",
    }.get(slot.kind, f"kind {slot.kind}")
