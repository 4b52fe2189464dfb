"""ESR_EL2, HPFAR_EL2 and PSTATE in words. Pure functions of the values.

Source: DDI 0487 "ESR_EL2", "HPFAR_EL2", "Fields in PSTATE".
"""

CLASSES = {
    0x00: "unknown reason",
    0x01: "trapped WFI or WFE",
    0x03: "trapped AArch32 MCR/MRC (CP15)",
    0x05: "trapped AArch32 MCR/MRC (CP14)",
    0x06: "trapped AArch32 LDC/STC",
    0x07: "trapped SVE, SIMD or floating point",
    0x09: "trapped pointer authentication",
    0x0A: "trapped LD64B/ST64B",
    0x0C: "trapped AArch32 MRRC (CP14)",
    0x0D: "branch target exception",
    0x0E: "illegal execution state",
    0x11: "SVC, AArch32",
    0x12: "HVC, AArch32",
    0x13: "SMC, AArch32",
    0x15: "SVC",
    0x16: "HVC",
    0x17: "SMC",
    0x18: "trapped system register or instruction",
    0x19: "trapped SVE",
    0x1A: "trapped ERET",
    0x1C: "pointer authentication failure",
    0x1D: "trapped SME",
    0x20: "instruction abort from a lower EL",
    0x21: "instruction abort at EL2",
    0x22: "misaligned PC",
    0x24: "data abort from a lower EL",
    0x25: "data abort at EL2",
    0x26: "misaligned SP",
    0x2C: "floating-point exception",
    0x2F: "SError",
    0x30: "breakpoint from a lower EL",
    0x32: "software step from a lower EL",
    0x34: "watchpoint from a lower EL",
    0x3C: "BRK",
}
FETCH, DATA = 0x20, 0x24
TRANSLATION, ACCESS_FLAG, PERMISSION, ADDRESS_SIZE = "translation fault", "access flag fault", "permission fault", "address size fault"

# Statuses that are not a class and a level.
STATUSES = {
    0x10: ("synchronous external abort", None),
    0x12: ("synchronous external abort on a walk", -2),
    0x13: ("synchronous external abort on a walk", -1),
    0x18: ("parity or ECC error", None),
    0x21: ("alignment fault", None),
    0x29: (ADDRESS_SIZE, -1),
    0x2A: (TRANSLATION, -2),
    0x2B: (TRANSLATION, -1),
    0x2C: (ADDRESS_SIZE, -2),
    0x30: ("TLB conflict", None),
    0x31: ("unsupported hardware update", None),
    0x35: ("unsupported exclusive or atomic access", None),
}
LEVELLED = {
    0x00: ADDRESS_SIZE,
    0x04: TRANSLATION,
    0x08: ACCESS_FLAG,
    0x0C: PERMISSION,
    0x14: "synchronous external abort on a walk",
    0x1C: "parity or ECC error on a walk",
}


def exception_class(esr):
    return esr >> 26 & 63


def is_guest_abort(esr):
    return exception_class(esr) in (FETCH, DATA)


def status(esr):
    """Class and level of an abort's status; the level is None where there is none."""
    code = esr & 63
    if code in STATUSES:
        return STATUSES[code]
    if code & 0x3C in LEVELLED and code < 0x20:
        return LEVELLED[code & 0x3C], code & 3
    return f"status {code:#04x}", None


def is_on_walk(esr):
    """S1PTW: the fault is on a stage-1 walk's own access."""
    return bool(esr >> 7 & 1)


def access(esr):
    """What the guest wanted."""
    if is_on_walk(esr):
        return "a stage-1 walk for an access"
    if exception_class(esr) == FETCH:
        return "a fetch"
    if esr >> 8 & 1:
        return "cache maintenance"
    return "a write" if esr >> 6 & 1 else "a read"


def hpfar_is_written(esr):
    """Whether the architecture says that HPFAR_EL2 holds the IPA; else it is UNKNOWN."""
    if not is_guest_abort(esr):
        return False
    what, _ = status(esr)
    return what in (TRANSLATION, ACCESS_FLAG, ADDRESS_SIZE) or (what == PERMISSION and is_on_walk(esr))


def why_unknown(esr):
    if not is_guest_abort(esr):
        return "the exception is no abort from a guest"
    if status(esr)[0] == PERMISSION:
        return "a permission fault that is not on a stage-1 walk"
    return f"a {status(esr)[0]}"


def hpfar_ipa(hpfar):
    """The page HPFAR_EL2.FIPA names."""
    return (hpfar >> 4 & (1 << 40) - 1) << 12


def decode_esr(esr):
    """ESR_EL2, one line per fact."""
    ec, iss = exception_class(esr), esr & 0x1FFFFFF
    yield f"EC   {ec:#04x}  {CLASSES.get(ec, 'reserved')}"
    yield f"IL   {esr >> 25 & 1}     a {'32' if esr >> 25 & 1 else '16'}-bit instruction"
    yield f"ISS  {iss:#x}"
    if ec in (0x20, 0x21, 0x24, 0x25):
        yield from _abort(esr, is_fetch=ec < 0x24)
    elif ec == 0x18:
        yield _system_register(iss)
    elif ec == 0x01:
        yield f"     {('WFI', 'WFE', 'WFIT', 'WFET')[iss & 3]}"
    elif ec in (0x15, 0x16, 0x17):
        yield f"     immediate {iss & 0xFFFF:#x}"


def _abort(esr, is_fetch):
    def bit(n):
        return esr >> n & 1

    what, level = status(esr)
    yield f"     {'IFSC' if is_fetch else 'DFSC'}  {esr & 63:#04x}  {what}{'' if level is None else f', level {level}'}"
    if bit(7):
        yield "     S1PTW 1     on a stage-1 walk: what follows tells of the access, not of the walk"
    if bit(9):
        yield "     EA    1     the external abort type is implementation defined"
    if esr & 63 == 0x10 and bit(10):
        yield "     FnV   1     FAR_EL2 is not valid"
    if is_fetch:
        return
    if bit(8):
        yield "     CM    1     cache maintenance or address translation (WnR is 1 for these)"
    yield f"     WnR   {bit(6)}     {'write' if bit(6) else 'read'}"
    if not bit(24):
        yield "     ISV   0     no word on register and width: decode the instruction"
        return
    width, register = 8 << (esr >> 22 & 3), esr >> 16 & 31
    name = f"{'x' if bit(15) else 'w'}{'zr' if register == 31 else register}"
    extra = ("", ", sign-extended")[bit(21)] + ("", ", acquire/release")[bit(14)]
    yield f"     ISV   1     {width} bits {'from' if bit(6) else 'to'} {name}{extra}"


def _system_register(iss):
    op0, op2, op1, crn, rt, crm = iss >> 20 & 3, iss >> 17 & 7, iss >> 14 & 7, iss >> 10 & 15, iss >> 5 & 31, iss >> 1 & 15
    name = f"S{op0}_{op1}_C{crn}_C{crm}_{op2}"
    register = "xzr" if rt == 31 else f"x{rt}"
    return f"     MRS {register}, {name}" if iss & 1 else f"     MSR {name}, {register}"


MODES = {0b0000: "EL0t", 0b0100: "EL1t", 0b0101: "EL1h", 0b1000: "EL2t", 0b1001: "EL2h", 0b1100: "EL3t", 0b1101: "EL3h"}


def decode_pstate(value):
    """PSTATE as one line: flags in upper case are set."""
    if value & 0x10:
        return f"AArch32, mode {value & 0x1F:#x}"
    nzcv = "".join(letter if value >> bit & 1 else letter.lower() for letter, bit in zip("NZCV", (31, 30, 29, 28)))
    masked = "".join(letter if value >> bit & 1 else letter.lower() for letter, bit in zip("DAIF", (9, 8, 7, 6)))
    more = [name for name, bit in (("SS", 21), ("IL", 20), ("PAN", 22), ("UAO", 23), ("DIT", 24), ("SSBS", 12)) if value >> bit & 1]
    branch = value >> 10 & 3
    more += [f"BTYPE={branch}"] if branch else []
    return " ".join([MODES.get(value & 15, f"mode {value & 15:#x}"), nzcv, masked] + more)
