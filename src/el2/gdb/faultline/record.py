"""What the hypervisor tells a debugger: FAULTLINE_DEBUG, written by src/el2/debug.rs, whose layout this is."""
import struct
from collections import namedtuple

import gdb

from . import target

MAGIC, VERSION = b"FLDEBUG\0", 1
SLOTS = 16
_HEAD = struct.Struct("<8s9Q32sQ")
_ROW = struct.Struct("<4Q16s")
RAM, DEVICE, WINDOW = range(3)

Record = namedtuple("Record", "vttbr vtcr registers last_exit name slot_count slots")
Exit = namedtuple("Exit", "pc esr far hpfar vector")
Slot = namedtuple("Slot", "start size kind detail name")


def _text(padded):
    return padded.split(b"\0")[0].decode("utf-8", "replace")


def read():
    """The record as it is now."""
    data = target.read(target.symbol("FAULTLINE_DEBUG"), _HEAD.size + SLOTS * _ROW.size)
    magic, version, vttbr, vtcr, registers, *rest = _HEAD.unpack_from(data)
    if (magic, version) != (MAGIC, VERSION):
        raise gdb.GdbError("FAULTLINE_DEBUG is not what this script knows: symbols of another build, or moved wrongly?")
    *last_exit, name, slot_count = rest
    rows = [_ROW.unpack_from(data, _HEAD.size + n * _ROW.size) for n in range(min(slot_count, SLOTS))]
    slots = [Slot(start, size, kind, detail, _text(text)) for start, size, kind, detail, text in rows]
    return Record(vttbr, vtcr, registers, Exit(*last_exit), _text(name), slot_count, slots)


def running():
    """The record, if a VM runs."""
    found = read()
    if found.registers == 0:
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
