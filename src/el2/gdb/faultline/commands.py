"""The commands. Each is a function; its doc string is what `help faultline NAME` shows."""
import gdb

from . import record, stage1, stage2, stops, syndrome, target

say = print


class Faultline(gdb.Command):
    """Look at stage 2, faults and vCPUs, wherever the CPU was stopped: at EL2 or in a guest.

Addresses are expressions. An IPA is a guest's physical address, as its own page tables yield it; PAs are the machine's.
$_el() is the exception level of the selected CPU: EL2's code and the guest's may share addresses, so break on EL2's with
`break FUNCTION if $_el() == 2`, or with `faultline break KIND`."""

    def __init__(self):
        super().__init__("faultline", gdb.COMMAND_USER, gdb.COMPLETE_NONE, True)


class ExceptionLevel(gdb.Function):
    """$_el(): the exception level of the selected CPU, 0 to 3."""

    def __init__(self):
        super().__init__("_el")

    def invoke(self):
        return target.exception_level()


Faultline()
ExceptionLevel()


def command(function):
    """Makes a function of a list of arguments a subcommand of its name."""

    class Command(gdb.Command):
        __doc__ = function.__doc__

        def invoke(self, text, from_tty):
            self.dont_repeat()
            try:
                function(gdb.string_to_argv(text))
            except gdb.MemoryError as error:
                raise gdb.GdbError(f"{error} (a physical address where there is no memory)") from None

    Command(f"faultline {function.__name__.rstrip('_')}", gdb.COMMAND_DATA)
    return function


def number(text):
    """The value of an expression."""
    return int(gdb.parse_and_eval(text)) & (1 << 64) - 1


def arguments(given, usage, least, most):
    """The arguments as numbers; the usage if there are too few or too many."""
    if not least <= len(given) <= most:
        raise gdb.GdbError(f"usage: faultline {usage}")
    return [number(text) for text in given]


@command
def load(given):
    """Find where the image runs and load its symbols there: faultline load [FILE [ADDRESS]]

FILE is the ELF, target/faultline.elf if gdb has no other. The image is looked for by its arm64 header, at multiples of
2 MiB; ADDRESS is where it is, if you know. `make debug` does this at reset, where QEMU has put the image into RAM already.
Do not give gdb the ELF by itself: it is linked at 0, where it does not run."""
    file, place = given[:1], arguments(given[1:], "load [FILE [ADDRESS]]", 0, 1)
    address = target.load(*file, *place)
    say(f"image at {address:#x}; symbols moved there")


@command
def walk(given):
    """Walk stage 2 for an IPA: faultline walk IPA

Every level's descriptor, decoded, from VTTBR_EL2 and VTCR_EL2 down to the leaf or to what is not there."""
    [ipa] = arguments(given, "walk IPA", 1, 1)
    tree = stage2.current()
    say(f"IPA {ipa:#x}   VMID {tree.vmid}, {tree.ipa_bits}-bit IPAs, root {tree.root:#x} of {tree.root_tables} at level {tree.start_level}   (by {tree.source})")
    for step in tree.walk(ipa):
        place = step.table + 8 * step.index
        say(f"  level {step.level}  [{step.index:3}] at {place:#x}: {step.descriptor:#018x}  {stage2.describe(step)}")
    leaf = tree.leaf(ipa)
    if leaf:
        say(f"  PA {leaf.pa + ipa - leaf.ipa:#x}")
    _say_slot(ipa)


def _say_slot(ipa):
    try:
        known = record.running()
    except gdb.GdbError:
        return
    say(f"  slot: {record.describe(record.slot_of(known, ipa))}")


@command
def leaves(given):
    """List what stage 2 maps: faultline leaves [START [END]]

IPAs from START up to END, all without. Pages that follow each other in IPA and PA, and are alike, are one line."""
    start, end = (arguments(given, "leaves [START [END]]", 0, 2) + [0, 1 << 64][len(given):])[:2]
    tree = stage2.current()
    total = lines = 0
    for leaf, size, count in stage2.folded(tree.leaves(start, end)):
        owner = "owned" if leaf.owned else "window"
        flag = "" if leaf.af else "  AF=0"
        say(f"  {leaf.ipa:#012x}..{leaf.ipa + size:#012x} -> {leaf.pa:#012x}  {leaf.rights}  {leaf.memory}  {owner}  {count:6}{flag}")
        total, lines = total + count, lines + 1
    say(f"{total} leaves in {lines} runs")


@command
def slots(given):
    """List the slots of the VM that runs: what lies where in its IPA space. faultline slots"""
    arguments(given, "slots", 0, 0)
    known = record.running()
    say(f"VM '{known.name}'")
    for slot in known.slots:
        say(f"  {slot.start:#012x}..{slot.start + slot.size:#012x}  {record.describe(slot)}")
    if known.slot_count > len(known.slots):
        say(f"  and {known.slot_count - len(known.slots)} more, which the record has no room for")


@command
def esr(given):
    """Decode ESR_EL2, or a value as if it were in it: faultline esr [VALUE]"""
    [value] = arguments(given, "esr [VALUE]", 0, 1) or [target.need("ESR_EL2")]
    say(f"ESR_EL2 {value:#018x}")
    for line in syndrome.decode_esr(value):
        say("  " + line)


@command
def hpfar(given):
    """Decode HPFAR_EL2, or a value as if it were in it: faultline hpfar [VALUE [ESR]]

Says when the register is UNKNOWN, which ESR_EL2 tells: then the IPA is looked up in the guest's own tables, from FAR_EL2,
as the hypervisor does it with AT S1E1R."""
    values = arguments(given, "hpfar [VALUE [ESR]]", 0, 2)
    value = values[0] if values else target.need("HPFAR_EL2")
    status = values[1] if len(values) > 1 else target.need("ESR_EL2")
    say(f"HPFAR_EL2 {value:#018x}  FIPA: page {syndrome.hpfar_ipa(value):#x}")
    if syndrome.hpfar_is_written(status):
        say("  valid: ESR_EL2 tells of a fault that writes it" + (", on a stage-1 walk" if syndrome.is_on_walk(status) else ""))
        return
    say(f"  UNKNOWN: ESR_EL2 {status:#x} tells of {syndrome.why_unknown(status)}; the value is not to be believed")
    if not values and syndrome.is_guest_abort(status):
        ipa, source = stops.fault_ipa(status, target.need("FAR_EL2"), value)
        say(f"  IPA not known: {source}" if ipa is None else f"  IPA {ipa:#x}, by {source}")


@command
def vcpu(given):
    """Show the vCPU that runs, its registers and its last exit: faultline vcpu

Stopped in the guest, the registers are the CPU's; stopped at EL2, they are those that were saved when the guest was left
last. On the guest's way in or out (enter_guest, to_guest, guest_exit) the two may differ for a few instructions."""
    arguments(given, "vcpu", 0, 0)
    known = record.running()
    level = target.exception_level()
    if level < 2:
        x = [target.need(f"x{n}") for n in range(31)]
        pc, state, source = target.need("pc"), target.pstate(), "in the guest now"
    else:
        *x, pc, state = target.words(known.registers, 33)
        source = f"out of the guest; EL{level} runs"
    say(f"VM '{known.name}', vCPU 0, {source}   VTTBR_EL2 {known.vttbr:#x}")
    say(f"  PC {pc:#018x}   PSTATE {state:#x}: {syndrome.decode_pstate(state)}")
    for n in range(0, 31, 4):
        say("  " + "  ".join(f"{f'x{m}':3} {x[m]:016x}" for m in range(n, min(n + 4, 31))))
    _say_last_exit(known.last_exit)


def _say_last_exit(last):
    if last.esr == 0 and last.pc == 0:
        say("  it has not been left yet")
    elif last.vector != 0:
        say(f"  last exit: PC {last.pc:#x}  {('', 'IRQ', 'FIQ', 'SError')[last.vector & 3]}")
    else:
        what = syndrome.CLASSES.get(syndrome.exception_class(last.esr), "reserved")
        if syndrome.is_guest_abort(last.esr):
            what += f", {syndrome.status(last.esr)[0]}"
        say(f"  last exit: PC {last.pc:#x}  {what}")
        say(f"    ESR_EL2 {last.esr:#x}  FAR_EL2 {last.far:#x}  HPFAR_EL2 {last.hpfar:#x}")


@command
def explain(given):
    """Explain the abort that ESR_EL2 tells of: faultline explain

What the guest wanted, where, and what stage 2 has there now: at a breakpoint of `faultline break`, before anything was
done about it; later, what was done."""
    arguments(given, "explain", 0, 0)
    esr, far, hpfar = (target.need(name) for name in ("ESR_EL2", "FAR_EL2", "HPFAR_EL2"))
    if not syndrome.is_guest_abort(esr):
        raise gdb.GdbError(f"no abort from a guest: {syndrome.CLASSES.get(syndrome.exception_class(esr), 'reserved')}")
    what, level = syndrome.status(esr)
    say(f"{what}{'' if level is None else f', level {level}'}: {syndrome.access(esr)} at VA {far:#x}")
    ipa, source = stops.fault_ipa(esr, far, hpfar)
    if ipa is None:
        say(f"  IPA not known: {source}")
        return
    say(f"  IPA {ipa:#x}, by {source}")
    say(f"  slot: {record.describe(record.slot_of(record.running(), ipa))}")
    leaf = stage2.current().leaf(ipa)
    say(f"  stage 2 now: PA {leaf.pa + ipa - leaf.ipa:#x} {leaf.rights}" if leaf else "  stage 2 now: nothing is mapped")


@command
def translate(given):
    """Translate a guest's virtual address: faultline translate VA

Stage 1 as the guest has it now, then stage 2; permissions are not looked at."""
    [va] = arguments(given, "translate VA", 1, 1)
    tree = stage2.current()
    ipa = stage1.translate(tree, va)
    leaf = tree.leaf(ipa)
    stage = "stage 1" if stage1.is_on() else "stage 1 is off"
    say(f"VA {va:#x} -> IPA {ipa:#x} ({stage}) -> " + (f"PA {leaf.pa + ipa - leaf.ipa:#x} {leaf.rights}" if leaf else "nothing: not mapped at stage 2"))
    _say_slot(ipa)


@command
def break_(given):
    """Break once on the next event of a kind: faultline break KIND [IPA]

  translation  a page is about to be mapped         mmio    a device answers an access
  permission   a leaf is about to be relaxed        inject  the guest is about to take an exception
  window       a hardware window is to be mapped    stop    the hypervisor stopped the VM
  exit, enter  the guest was left, is entered

With an IPA, only for a fault on that page (not for enter and stop). `continue` then runs up to it."""
    if not 1 <= len(given) <= 2 or given[0] not in stops.KINDS:
        raise gdb.GdbError(f"usage: faultline break KIND [IPA], where KIND is one of: {' '.join(stops.KINDS)}")
    kind, page = given[0], None
    if len(given) == 2:
        if kind in stops.WITHOUT_IPA:
            raise gdb.GdbError(f"faultline break {kind}: no IPA goes with it")
        page = number(given[1]) >> 12
    stops.Once(kind, page)
    say(f"break once on {kind}" + (f" at IPA page {page << 12:#x}" if page is not None else "") + f": {stops.KINDS[kind][1]}")


@command
def where(given):
    """Say where the CPU is: faultline where

At EL2 the function and its callers, inlined ones among them; in a guest, what its PC translates to. The symbols that gdb shows
by itself are EL2's, which mean nothing for a guest that happens to run at the same addresses."""
    arguments(given, "where", 0, 0)
    level, pc = target.exception_level(), target.need("pc")
    say(f"EL{level}  PC {pc:#x}  {syndrome.decode_pstate(target.pstate())}")
    if level >= 2:
        _say_frames(pc)
        return
    say("  in the guest: EL2's symbols do not apply")
    translate([str(pc)])


def _say_frames(pc):
    if not target.is_in_image(pc):
        say("  not in the image" + ("" if target.image else "; `faultline load` finds it"))
        return
    say(f"  in {target.name_of(pc)}")
    # What gdb finds, functions that were inlined among it. Where registers are the guest's (guest_exit) it ends at once.
    frame = gdb.newest_frame()
    while frame is not None and target.is_in_image(frame.pc()):
        place = frame.find_sal()
        line = f"  {place.symtab.filename}:{place.line}" if place.symtab else ""
        say(f"    {target.path_of(frame.name() or target.name_of(frame.pc()) or hex(frame.pc()))}{line}")
        frame = frame.older()
