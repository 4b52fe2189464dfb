//! System registers by their name in the Arm ARM, or as `S<op0>_<op1>_C<n>_C<m>_<op2>` where the assembler has no name.

/// Reads a system register.
#[macro_export]
macro_rules! read_sysreg {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a system register has no effect on memory; an UNDEFINED one is an exception we handle.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
        value
    }};
}

/// Writes a system register and synchronises.
#[macro_export]
macro_rules! write_sysreg {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the guest owns its EL1 registers; the caller keeps code and stack mapped when it changes translation.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) value, options(nostack)) };
    }};
}

/// `CTR_EL0.DIC`: instruction caches need no invalidation for new code.
pub fn dic() -> bool {
    read_sysreg!("CTR_EL0") >> 29 & 1 == 1
}

/// `CTR_EL0.IDC`: data caches need no cleaning for new code.
pub fn idc() -> bool {
    read_sysreg!("CTR_EL0") >> 28 & 1 == 1
}

/// `ID_AA64MMFR1_EL1.HAFDBS`: 0 none, 1 hardware sets access flags, 2 and dirty state too.
pub fn hafdbs() -> u64 {
    read_sysreg!("ID_AA64MMFR1_EL1") & 0xf
}

/// `ID_AA64MMFR0_EL1.PARange`, encoded.
pub fn pa_range() -> u64 {
    read_sysreg!("ID_AA64MMFR0_EL1") & 0xf
}

/// The CPU's name, from `MIDR_EL1`, as its maker writes it; `None` for one this table does not hold.
pub fn cpu_name() -> Option<&'static str> {
    let midr = read_sysreg!("MIDR_EL1");
    let (implementer, part) = (midr >> 24 & 0xff, midr >> 4 & 0xfff);
    match (implementer, part) {
        (0x41, 0xd03) => Some("Cortex-A53"),
        (0x41, 0xd04) => Some("Cortex-A35"),
        (0x41, 0xd05) => Some("Cortex-A55"),
        (0x41, 0xd07) => Some("Cortex-A57"),
        (0x41, 0xd08) => Some("Cortex-A72"),
        (0x41, 0xd0b) => Some("Cortex-A76"),
        (0x41, 0xd0c) => Some("Neoverse N1"),
        (0x41, 0xd40) => Some("Neoverse V1"),
        (0x41, 0xd47) => Some("Cortex-A710"),
        (0x41, 0xd49) => Some("Neoverse N2"),
        (0x46, 0x001) => Some("A64FX"),
        // QEMU's `max` has no part number of a maker's.
        (0x00, 0x051) => Some("QEMU max"),
        _ => None,
    }
}
