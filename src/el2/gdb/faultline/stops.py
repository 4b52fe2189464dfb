"""Breakpoints on what the hypervisor does, by functions of it that are kept out of line for this.

Where the hypervisor is about to act, ESR_EL2, FAR_EL2 and HPFAR_EL2 still tell of the exit, so that an IPA can be asked
of them, in the way the hypervisor itself asks (src/fault/ipa.rs).
"""
import gdb

from . import record, stage1, stage2, syndrome, target

KINDS = {
    "translation": ("faultline::fault::resolve", "about to map a page where the walk found none"),
    "permission": ("faultline::fault::resolve", "about to relax a leaf that has too few rights"),
    "window": ("faultline::fault::translation::map_window", "about to map a page of a hardware window"),
    "mmio": ("guest_exit", "the guest was left at an access that a device answers; its registers are still in the CPU's"),
    "inject": ("faultline::vm::Vm::inject", "about to make the guest take an exception"),
    "stop": ("faultline::el2::dispatch::report_stop", "the hypervisor stopped the VM, and is about to say why"),
    "exit": ("guest_exit", "the guest was left; its registers are still in the CPU's"),
    "enter": ("to_guest", "about to enter the guest"),
}
# No syndrome of a fault goes with these.
WITHOUT_IPA = ("stop", "enter")


class Once(gdb.Breakpoint):
    """Stops EL2 once at a kind of event. A guest that executes the same address is let go on."""

    def __init__(self, kind, page=None):
        function, self.meaning = KINDS[kind]
        self.kind, self.page = kind, page
        super().__init__(f"*{target.symbol(function):#x}", temporary=True)

    def stop(self):
        if target.exception_level() != 2:
            return False
        if self.page is not None and fault_page() != self.page:
            return False
        if self.kind == "mmio" and not is_device(fault_page()):
            return False
        if self.kind in ("translation", "permission") and is_mapped_ram(fault_page()) != (self.kind == "permission"):
            return False
        gdb.write(f"faultline: {self.meaning}\n")
        return True


def fault_ipa(esr, far, hpfar):
    """IPA of a guest's abort and who says so; None and the reason if there is none."""
    if not syndrome.is_guest_abort(esr):
        return None, "no abort"
    offset = far & 0xFFF
    if syndrome.hpfar_is_written(esr):
        return syndrome.hpfar_ipa(hpfar) | offset, "HPFAR_EL2"
    try:
        return stage1.translate(stage2.current(), far), "the guest's stage 1, walked from FAR_EL2"
    except gdb.GdbError as why:
        return None, str(why)


def fault_page():
    """Page of the IPA of the exit that is being handled, or None."""
    ipa, _ = fault_ipa(target.need("ESR_EL2"), target.need("FAR_EL2"), target.need("HPFAR_EL2"))
    return None if ipa is None else ipa >> 12


def is_mapped_ram(page):
    """Whether a leaf maps this page of RAM; None if it is not RAM. What is done about a fault on RAM is decided by that, in one
    function that has the rest of it inline."""
    slot = None if page is None else record.slot_of(record.running(), page << 12)
    if slot is None or slot.kind != record.RAM:
        return None
    return stage2.current().leaf(page << 12) is not None


def is_device(page):
    """Whether a device answers accesses to this page. Most are answered in a line or two of the way back to the guest, so there
    is no function to stop at."""
    slot = None if page is None else record.slot_of(record.running(), page << 12)
    return slot is not None and slot.kind == record.DEVICE
