//! The platform a guest sees: QEMU `virt`'s map, on every board.
//!
//! The one table of guest addresses and interrupt numbers: the guest's device tree, the devices, the vGIC and the loader
//! take them from here. `docs/guest-platform.md` shows the same table to people, and a test keeps the two equal.
//! Intermediate physical addresses throughout; where the board has its own devices does not matter here.

use crate::addr::{Ipa, IpaRange};
use crate::intid::IntId;

/// The first byte of a guest's RAM, which has no hole.
pub const RAM_BASE: Ipa = Ipa::new(0x4000_0000);

/// Most RAM a guest may have: what keeps every address of the platform below 2^36.
pub const RAM_MAX: u64 = 63 << 30;

/// The second flash bank, erased for ever: firmware built for `virt` looks for its variables there.
pub const FLASH: IpaRange = window(0x0400_0000, 0x0400_0000);

/// GIC distributor (GICD).
pub const GICD: IpaRange = window(0x0800_0000, 0x1_0000);

/// GICv2 CPU interface (GICC).
pub const GICC: IpaRange = window(0x0801_0000, 0x2000);

/// Its first page: the hardware's GICV lies behind it.
pub const GICC_WINDOW: IpaRange = window(0x0801_0000, 0x1000);

/// Its second page, which GICC_DIR begins: never the hardware's, which would deactivate only what it has in its list
/// registers.
pub const GICC_DIR: IpaRange = window(0x0801_1000, 0x1000);

/// GICv3 redistributor (GICR) of vCPU 0; those of the others follow ([`redistributors`]).
pub const GICR: IpaRange = window(0x080a_0000, 0x2_0000);

/// Console: PL011.
pub const UART: IpaRange = window(0x0900_0000, 0x1000);

/// Interrupt of [`UART`].
pub const UART_INTERRUPT: IntId = spi(1);

/// Frequency of the console's clock, in Hz; nothing depends on it but what a guest computes from it.
pub const UART_CLOCK_HZ: u32 = 24_000_000;

/// Real-time clock: PL031.
pub const RTC: IpaRange = window(0x0901_0000, 0x1000);

/// Interrupt of [`RTC`].
pub const RTC_INTERRUPT: IntId = spi(2);

/// What was stolen from each vCPU, 64 bytes each: memory that the guest can read.
pub const STOLEN_TIME: IpaRange = window(0x090a_0000, 0x1000);

/// All virtio-mmio windows, 512 bytes each; there is no device in any of them.
pub const VIRTIO: IpaRange = window(0x0a00_0000, 0x4000);

/// How many virtio-mmio windows there are.
pub const VIRTIO_COUNT: u32 = 32;

/// Interrupt of the first virtio-mmio window; the others follow.
pub const VIRTIO_INTERRUPT: IntId = spi(16);

/// Timer interrupt: EL3's physical timer, which no guest has.
pub const TIMER_SECURE: IntId = ppi(13);
/// Timer interrupt: EL1's physical timer.
pub const TIMER_PHYSICAL: IntId = ppi(14);
/// Timer interrupt: EL1's virtual timer.
pub const TIMER_VIRT: IntId = ppi(11);
/// Timer interrupt: EL2's physical timer, which no guest has.
pub const TIMER_HYP: IntId = ppi(10);

/// Interrupt of the performance monitors: a counter has overflowed.
pub const PMU_INTERRUPT: IntId = ppi(7);

/// vCPUs that share Aff1: as many as a target list of ICC_SGI1R_EL1 names.
const CLUSTER: usize = 16;
const AFF1_SHIFT: u32 = 8;

/// The affinity of vCPU `index`, as MPIDR_EL1 has it: clusters of sixteen.
#[must_use]
pub const fn affinity(index: usize) -> u64 {
    (index % CLUSTER) as u64 | ((index / CLUSTER) as u64) << AFF1_SHIFT
}

/// GICv3 redistributors of so many vCPUs.
#[must_use]
pub const fn redistributors(vcpus: usize) -> IpaRange {
    IpaRange {
        start: GICR.start,
        size: GICR.size * vcpus as u64,
    }
}

const fn window(start: u64, size: u64) -> IpaRange {
    IpaRange {
        start: Ipa::new(start),
        size,
    }
}

const fn spi(n: u32) -> IntId {
    IntId::spi(n)
}

const fn ppi(n: u32) -> IntId {
    IntId::ppi(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    /// The document is the oracle: whoever changes one has to change the other.
    #[test]
    fn the_table_people_read_says_the_same() {
        let document = include_str!("../docs/guest-platform.md");
        let row = |name: &str, range: IpaRange, interrupt: Option<IntId>| {
            let (high, low) = (range.start.raw() >> 16, range.start.raw() & 0xffff);
            let address = format!("0x{high:04x}_{low:04x}");
            let interrupt = interrupt.map_or(String::from("none"), |id| {
                format!("{id} (INTID {})", id.raw())
            });
            format!(
                "| {name} | `{address}` | {} | {interrupt} |",
                crate::addr::Size(range.size)
            )
        };
        for line in [
            row("flash", FLASH, None),
            row("GICD", GICD, None),
            row("GICC (GICv2)", GICC, None),
            row("GICR (GICv3)", GICR, None),
            row("PL011", UART, Some(UART_INTERRUPT)),
            row("PL031", RTC, Some(RTC_INTERRUPT)),
            row("stolen time", STOLEN_TIME, None),
            row("virtio-mmio", VIRTIO, Some(VIRTIO_INTERRUPT)),
        ] {
            assert!(
                document.contains(&line),
                "docs/guest-platform.md has no line\n{line}"
            );
        }
        let private = [
            TIMER_SECURE,
            TIMER_PHYSICAL,
            TIMER_VIRT,
            TIMER_HYP,
            PMU_INTERRUPT,
        ]
        .map(|id| format!("{id} (INTID {})", id.raw()));
        for interrupt in private {
            assert!(
                document.contains(&interrupt),
                "docs/guest-platform.md does not name {interrupt}"
            );
        }
    }

    #[test]
    fn affinities_are_those_of_virt() {
        assert_eq!(
            [0, 1, 15, 16, 33].map(affinity),
            [0, 1, 15, 0x100, 0x201],
            "Aff1.Aff0"
        );
    }

    #[test]
    fn no_two_windows_overlap_and_none_lies_in_ram() {
        assert_eq!(
            VIRTIO.size,
            u64::from(VIRTIO_COUNT) * crate::device::virtio::WINDOW
        );
        let ram = IpaRange {
            start: RAM_BASE,
            size: RAM_MAX,
        };
        let most = redistributors(crate::vgic::MAX_VCPUS);
        let windows = [FLASH, GICD, GICC, most, UART, RTC, STOLEN_TIME, VIRTIO, ram];
        for (index, one) in windows.iter().enumerate() {
            assert!(
                windows
                    .iter()
                    .skip(index + 1)
                    .all(|other| !one.overlaps(other)),
                "{one}"
            );
        }
    }
}
