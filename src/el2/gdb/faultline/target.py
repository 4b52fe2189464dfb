"""The machine behind gdb: registers, physical memory, and where the image runs in it.

Stopped in a guest, gdb sees memory through the guest's MMU. QEMU's physical-memory mode goes around it; it is asked
first and put back as it was.
"""
import contextlib
import os
import re
import struct
from collections import namedtuple

import gdb

MIB2 = 2 << 20
# Where an image may lie, in steps of 2 MiB: RAM of the boards we know. Devices are left out, reading them has effects.
RAM = ((0x0000_0000, 0x0800_0000), (0x4000_0000, 0x8000_0000))
# The arm64 Image header: image_size and the magic in it.
HEADER_SIZE, IMAGE_SIZE, MAGIC = 0x40, 0x10, 0x38
# What make builds, seen from here.
ELF = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../../target/faultline.elf")


def register(name):
    """The value of a register, or None where this QEMU does not tell it."""
    try:
        value = gdb.selected_frame().read_register(name)
        return int(value) & (1 << 64) - 1
    except (ValueError, gdb.error):
        return None


def need(name):
    """The value of a register that the command cannot do without."""
    if gdb.selected_thread() is None:
        raise gdb.GdbError("no machine: gdb is not connected, or it has ended")
    value = register(name)
    if value is None:
        raise gdb.GdbError(f"{name}: this gdb stub does not tell it (QEMU 7.2 and newer do)")
    return value


def pstate():
    return need("cpsr")


def exception_level():
    """0 to 3, of the selected CPU."""
    value = pstate()
    return 0 if value & 0x10 else value >> 2 & 3


def _packet(text):
    answer = gdb.execute(f"maintenance packet {text}", to_string=True)
    found = re.search(r'received: "(.*)"', answer)
    return found.group(1) if found else ""


@contextlib.contextmanager
def physical():
    """Within it, addresses are physical."""
    before = _packet("qqemu.PhyMemMode")
    if before not in ("0", "1"):
        if exception_level() == 2:
            # Not QEMU, but EL2 maps RAM at its own address.
            yield
            return
        raise gdb.GdbError("this gdb stub cannot read physical memory: stop at EL2, where addresses are physical")
    _packet("Qqemu.PhyMemMode:1")
    try:
        yield
    finally:
        _packet(f"Qqemu.PhyMemMode:{before}")


def read(address, size):
    """Bytes of physical memory."""
    with physical():
        return bytes(gdb.selected_inferior().read_memory(address, size))


def words(address, count):
    """64-bit little-endian words of physical memory."""
    return struct.unpack(f"<{count}Q", read(address, 8 * count))


def table(address):
    """The 512 descriptors of a translation table; a table that lies in nothing is told as an error."""
    try:
        return words(address, 512)
    except gdb.MemoryError:
        raise gdb.GdbError(f"the table at {address:#x} cannot be read: no memory there") from None


def symbol(name):
    """Address of a symbol of the hypervisor, where the image runs: `enter_guest`, `faultline::vm::Vm::inject`."""
    if image is None:
        load()
    if name not in image.symbols:
        raise gdb.GdbError(f"the image has no symbol {name}: is this script of another version?")
    return image.symbols[name]


def _symbols(program):
    """The symbol table. gdb finds no Rust function by its path where there is no full debug information."""
    table = gdb.execute(f'maintenance print msymbols -objfile "{program}"', to_string=True)
    symbols = {}
    for address, linkage, more in re.findall(r"^\[ *\d+\] \S (0x[0-9a-f]+) (\S+) section \S+(.*)$", table, re.MULTILINE):
        symbols[linkage] = int(address, 16)
        if "::" in more:
            symbols[path_of(more.split("  ")[1])] = int(address, 16)
    return symbols


def path_of(demangled):
    """The path of a demangled function: without its hash, its type parameters, the <> around its type, and the module
that it is in if that is not its type's."""
    shorter = re.sub(r"::h[0-9a-f]{16}$|::<.*>$", "", demangled)
    return re.sub(r"^(?:.*::)?<(?:impl )?([^<> ]*)>", r"\1", shorter)


def name_of(address):
    """The function at an address of EL2, or None."""
    answer = gdb.execute(f"info symbol {address:#x}", to_string=True)
    return None if answer.startswith("No symbol") else path_of(answer.split(" in section")[0].split(" + ")[0])


Image = namedtuple("Image", "address size symbols")
# Where the image runs and its symbols there; None before `load`.
image = None


def load(program=None, address=None):
    """Loads the ELF's symbols, moved to where the image runs; answers where that is. Fails as a whole."""
    global image
    program = os.path.abspath(program or gdb.current_progspace().filename or ELF)
    header = _header_of(program)
    if address is None:
        address = _find(header)
    elif not _is_image(address, header):
        raise gdb.GdbError(f"there is no image of {program} at {address:#x}")
    gdb.execute(f'symbol-file -o {address:#x} "{program}"', to_string=True)
    image = Image(address, struct.unpack_from("<Q", header, IMAGE_SIZE)[0], _symbols(program))
    return address


def _header_of(program):
    """The arm64 Image header, as the ELF's first segment begins with it. gdb is not asked: it would take the addresses
    that the ELF is linked at, from 0 on, for those of the machine."""
    try:
        with open(program, "rb") as elf:
            head = elf.read(64)
            (segments,), (size,) = struct.unpack_from("<Q", head, 0x20), struct.unpack_from("<H", head, 0x36)
            elf.seek(segments)
            (start,) = struct.unpack_from("<Q", elf.read(size), 8)
            elf.seek(start)
            header = elf.read(HEADER_SIZE)
    except (OSError, struct.error) as error:
        raise gdb.GdbError(f"{program}: {error}; `make build` builds target/faultline.elf") from None
    if head[:4] != b"\x7fELF" or header[MAGIC : MAGIC + 4] != b"ARM\x64":
        raise gdb.GdbError(f"{program}: not an ELF that begins with an arm64 Image header")
    return header


def is_in_image(address):
    return image is not None and 0 <= address - image.address < image.size


def _is_image(address, header):
    try:
        return read(address, HEADER_SIZE) == header
    except gdb.MemoryError:
        return False


def _find(header):
    for start, end in RAM:
        for address in range(start, end, MIB2):
            if _is_image(address, header):
                return address
    raise gdb.GdbError("the image is not in RAM, or not of this build; `faultline load FILE ADDRESS` if you know where it is")
