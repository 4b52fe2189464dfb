"""What guest/gdb.rs has gdb do, sourced after the project's commands. `$session` names the function to call.

Each step's output stands between `@@ NAME` lines; the Rust side judges it. An error is output, not the end.
"""
import gdb
from faultline import stage1, stage2, syndrome, target

PAGE = 1 << 12
NOWHERE = 0x0B00_0000
GUEST_ENTRY = 0x4008_0000
# An address that the tour's MMU maps elsewhere: guest/runtime/mmu.rs.
WINDOW = 8 << 30


def step(name, *commands):
    print(f"@@ {name}")
    for text in commands:
        try:
            print(gdb.execute(text, to_string=True), end="")
        except gdb.error as error:
            print(f"error: {error}")


def go_on():
    gdb.execute("continue", to_string=True)


def at_el2():
    """The tour, stopped where the hypervisor acts."""
    step("reset", "faultline walk 0x40080000", "faultline vcpu", "faultline where")
    step("help", "help faultline")
    for name in gdb.execute("help faultline", to_string=True).splitlines():
        if name.startswith("faultline "):
            step("help of " + name.split()[1], "help " + name.split(" --")[0])
    step("mistakes", "faultline break nonsense", "faultline break stop 0", "faultline walk", "faultline load target/faultline.elf 0x40400000")
    step("esr values", "faultline esr 0x93820006", "faultline esr 0x62300001", "faultline esr 0x5a000000", "faultline esr 0x820000a7")
    step("hpfar values", "faultline hpfar 0x400800 0x9200004f", "faultline hpfar 0x400800 0x920000cf", "faultline hpfar 0x400800 0x92000006")

    gdb.execute("faultline break translation", to_string=True)
    go_on()
    page = target.need("HPFAR_EL2") >> 4 << 12
    step("translation", "faultline where", "faultline esr", "faultline hpfar", "faultline explain", f"faultline walk {page}")
    gdb.execute("faultline break enter", to_string=True)
    go_on()
    step("mapped", "faultline where", f"faultline walk {page}", "faultline explain")

    for _ in range(20):
        gdb.execute("faultline break permission", to_string=True)
        go_on()
        if target.need("ESR_EL2") >> 26 == syndrome.DATA:
            break
    page = target.need("FAR_EL2") & -PAGE
    step("permission", "faultline where", "faultline esr", "faultline hpfar", "faultline explain", f"faultline walk {page}")
    step("slots", "faultline slots")
    step("vcpu", "faultline vcpu")
    gdb.execute("faultline break enter", to_string=True)
    go_on()
    step("relaxed", f"faultline walk {page}", f"faultline leaves {page} {page + PAGE}", "faultline leaves")

    gdb.execute("faultline break mmio 0x09000000", to_string=True)
    go_on()
    step("mmio", "faultline where", "faultline explain", "faultline esr", "faultline walk 0x09000000")
    gdb.execute("faultline break exit", to_string=True)
    go_on()
    step("exit", "faultline where")
    gdb.execute(f"faultline break inject {NOWHERE}", to_string=True)
    go_on()
    step("inject", "faultline where", "faultline explain", f"faultline translate {WINDOW}", f"faultline translate {WINDOW + PAGE}")


def in_guest():
    """The tour, stopped in the guest: at its first instruction, and later with its own MMU on."""
    gdb.execute(f"hbreak *{GUEST_ENTRY}", to_string=True)
    go_on()
    step("entry", "faultline where", f"faultline walk {GUEST_ENTRY}", "faultline vcpu", "faultline leaves", "faultline slots")
    # The fetch itself is still to come: it faults, and after it the same instruction is reached again.
    go_on()
    step("second entry", "faultline where", f"faultline walk {GUEST_ENTRY}", "faultline vcpu", "faultline leaves")
    pa = stage_two(GUEST_ENTRY)
    seen = bytes(gdb.selected_inferior().read_memory(GUEST_ENTRY, 16))
    step("bytes")
    print("at the PA:", target.read(pa, 16).hex())
    print("at the VA:", seen.hex())
    gdb.execute("delete")

    gdb.execute(f"faultline break inject {NOWHERE}", to_string=True)
    go_on()
    gdb.execute(f"thbreak *{target.need('VBAR') + 0x200:#x}", to_string=True)
    go_on()
    step("mmu on", "faultline where", f"faultline translate {WINDOW}", "faultline vcpu", "faultline explain")
    # Through the window the guest's MMU is at work; around it, at the PA, the same bytes are found.
    ipa = stage1.translate(stage2.current(), WINDOW)
    pa = stage_two(ipa)
    step("window")
    print(f"VA {WINDOW:#x} IPA {ipa:#x} PA {pa:#x}")
    gdb.selected_inferior().write_memory(WINDOW, b"faultline window")
    print("at the PA:", target.read(pa, 16).decode())
    print("at the VA:", bytes(gdb.selected_inferior().read_memory(WINDOW, 16)).decode())

    # The guest at an address where EL2 has code that is broken on: it fetches zeroes there and goes to its own vector.
    gdb.execute("faultline break inject", to_string=True)
    gdb.execute(f"set $pc = {target.symbol('faultline::vm::Vm::inject')}")
    vector = target.need("VBAR") + 0x200
    gdb.execute(f"thbreak *{vector:#x}", to_string=True)
    go_on()
    step("same address", "faultline where", "print $_el()")
    print("at the vector:", target.need("pc") == vector)


def stage_two(ipa):
    leaf = stage2.current().leaf(ipa)
    return leaf.pa + ipa - leaf.ipa


def stopped():
    """A VM that the hypervisor stops."""
    gdb.execute("faultline break stop", to_string=True)
    go_on()
    step("stop", "faultline where", "faultline vcpu", "faultline leaves")


globals()[gdb.convenience_variable("session").string()]()
