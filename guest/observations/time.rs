//! Counters and timers at their edges.
use crate::{attempt, register, see};
use runtime::{read_sysreg, write_sysreg};

pub(crate) fn observe() {
    register!("CNTKCTL_EL1", !0u64, 0);
    attempt(format_args!("CNTFRQ_EL0 written"), || {
        write_sysreg!("CNTFRQ_EL0", 1);
        0
    });
    register!("CNTFRQ_EL0");
    macro_rules! timer {
        ($ctl:literal, $cval:literal, $tval:literal, $count:literal) => {
            for (what, ctl) in [
                ("off", 0u64),
                ("on", 1),
                ("on, masked", 3),
                ("all ones", !0),
            ] {
                for (when, at) in [
                    ("at 0", 0u64),
                    ("at the end of time", !0),
                    ("at half of it", 1 << 63),
                ] {
                    write_sysreg!($cval, at);
                    write_sysreg!($ctl, ctl);
                    see(format_args!("{} {what} {when}", $ctl), read_sysreg!($ctl));
                    see(format_args!("  {}", $cval), read_sysreg!($cval));
                }
                for by in [
                    0u64,
                    !0,
                    0x7fff_ffff,
                    0x8000_0000,
                    0xffff_ffff,
                    0x1_0000_0000,
                ] {
                    write_sysreg!($tval, by);
                    write_sysreg!($ctl, ctl);
                    see(
                        format_args!("{} {what}, {} {by:#x}", $ctl, $tval),
                        read_sysreg!($ctl),
                    );
                    let ahead = read_sysreg!($cval).wrapping_sub(read_sysreg!($count)) as i64;
                    see(
                        format_args!("  ahead, roughly"),
                        (ahead + (1 << 28) >> 30) as u64,
                    );
                    let left = read_sysreg!($tval);
                    see(
                        format_args!("  left, roughly"),
                        (left + (1 << 28) & 0xffff_ffff) >> 30 | left >> 32 << 8,
                    );
                }
            }
            write_sysreg!($ctl, 0u64);
        };
    }
    timer!(
        "CNTV_CTL_EL0",
        "CNTV_CVAL_EL0",
        "CNTV_TVAL_EL0",
        "CNTVCT_EL0"
    );
    timer!(
        "CNTP_CTL_EL0",
        "CNTP_CVAL_EL0",
        "CNTP_TVAL_EL0",
        "CNTPCT_EL0"
    );
    register!("CNTVOFF_EL2");
    register!("CNTHCTL_EL2");
    register!("CNTPS_CTL_EL1");
}
