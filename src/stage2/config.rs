//! The shape of a stage-2 tree: how many IPA bits, which level the walk starts at, how many tables its root has, and the
//! `VTCR_EL2` that says so. A pure function, tested for every size.
//!
//! Source: DDI 0487 "VTCR_EL2, Virtualization Translation Control Register", "Concatenated translation tables for stage 2
//! translations".

use crate::addr::Ipa;
use crate::addr::PAGE_SHIFT;
use crate::features::{Features, Mmu, pa_range};
use crate::stage2::descriptor::{ENTRY_BITS, Level};

/// Bit positions, named as in the manual.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the names are the manual's"
)]
mod bits {
    use tock_registers::register_bitfields;

    register_bitfields! { u64,
        /// Virtualization Translation Control Register.
        pub VTCR_EL2 [
            T0SZ OFFSET(0) NUMBITS(6) [],
            SL0 OFFSET(6) NUMBITS(2) [Level2 = 0, Level1 = 1, Level0 = 2],
            IRGN0 OFFSET(8) NUMBITS(2) [WriteBackWriteAllocate = 1],
            ORGN0 OFFSET(10) NUMBITS(2) [WriteBackWriteAllocate = 1],
            SH0 OFFSET(12) NUMBITS(2) [InnerShareable = 3],
            TG0 OFFSET(14) NUMBITS(2) [Kib4 = 0],
            PS OFFSET(16) NUMBITS(3) [],
            VS OFFSET(19) NUMBITS(1) [],
            HA OFFSET(21) NUMBITS(1) [],
            HD OFFSET(22) NUMBITS(1) [],
            RES1 OFFSET(31) NUMBITS(1) []
        ]
    }
}
use bits::VTCR_EL2;

/// A root may be up to 16 tables side by side, which resolves 4 bits more than one.
const CONCATENATED_BITS: u32 = 4;
/// The IPA sizes `PARange` has an encoding for. A guest must be told one of them.
const IPA_BITS: [u32; 6] = [32, 36, 40, 42, 44, 48];

/// Why an IPA space cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// More bits than the CPUs' physical addresses have, or than 48.
    TooLarge {
        /// Bits asked for.
        asked: u32,
        /// Bits there are.
        limit: u32,
    },
    /// A size that `PARange` cannot tell a guest.
    NoSuchSize {
        /// Bits asked for.
        asked: u32,
    },
    /// Fewer bits than the VM's memory and devices take.
    TooSmall {
        /// Bits asked for.
        asked: u32,
        /// Bits it takes.
        needed: u32,
    },
}

/// How a block and the table of its parts take each other's place: `faultline,resize`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ResizePolicy {
    /// `break-before-make`: never two sizes for one address in a TLB; vCPUs that touch it meanwhile fault and wait.
    #[default]
    BreakBeforeMake,
    /// `in-place`: in one store, where the CPUs have FEAT_BBM level 2 or more, FWB and DIC; TLB conflict aborts are answered.
    InPlace,
}

/// The shape of one VM's stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Size of the IPA space: 32, 36, 40, 42, 44 or 48 bits.
    pub ipa_bits: u32,
    /// Where the walk starts: 2, 1 or 0.
    pub start_level: Level,
    /// Tables side by side at the start level: 1, 2, 4, 8 or 16, aligned to their size together.
    pub root_tables: usize,
    /// `VTCR_EL2` for it.
    pub vtcr: u64,
    /// What the MMU can do.
    pub mmu: Mmu,
    /// How blocks and tables take each other's place.
    pub resize: ResizePolicy,
}

impl Config {
    /// The smallest space that holds IPAs up to and including `highest`.
    ///
    /// # Errors
    /// [`ConfigError::TooLarge`] if the CPUs' physical addresses are shorter than that, or 48 bits are too few.
    pub fn for_highest(highest: u64, features: &Features) -> Result<Self, ConfigError> {
        let needed = u64::BITS - highest.leading_zeros();
        let limit = features.pa_bits.min(48);
        let fits = IPA_BITS
            .into_iter()
            .find(|bits| *bits >= needed)
            .filter(|bits| *bits <= limit);
        match fits {
            Some(bits) => Ok(Self::new(bits, features)),
            None => Err(ConfigError::TooLarge {
                asked: needed,
                limit,
            }),
        }
    }

    /// A space of `bits` bits, for a VM that has something up to and including IPA `highest`.
    ///
    /// # Errors
    /// [`ConfigError`]: the CPUs' physical addresses are shorter, no guest could be told, or the VM does not fit.
    pub fn with_bits(bits: u32, highest: u64, features: &Features) -> Result<Self, ConfigError> {
        let needed = u64::BITS - highest.leading_zeros();
        let limit = features.pa_bits.min(48);
        if bits > limit {
            return Err(ConfigError::TooLarge { asked: bits, limit });
        }
        if !IPA_BITS.contains(&bits) {
            return Err(ConfigError::NoSuchSize { asked: bits });
        }
        if bits < needed {
            return Err(ConfigError::TooSmall {
                asked: bits,
                needed,
            });
        }
        Ok(Self::new(bits, features))
    }

    /// The shape for a given size. Starting one level lower with up to 16 tables side by side spares every TLB miss a step,
    /// so the root is concatenated wherever the architecture lets it be.
    fn new(ipa_bits: u32, features: &Features) -> Self {
        let levels = (ipa_bits - CONCATENATED_BITS - PAGE_SHIFT).div_ceil(ENTRY_BITS);
        let resolved = PAGE_SHIFT + ENTRY_BITS * levels;
        let start_level = Level::new(4 - levels as u8);
        let sl0 = match start_level.number() {
            0 => VTCR_EL2::SL0::Level0,
            1 => VTCR_EL2::SL0::Level1,
            _ => VTCR_EL2::SL0::Level2,
        };
        let fields = VTCR_EL2::T0SZ.val(u64::from(64 - ipa_bits))
            + sl0
            + VTCR_EL2::IRGN0::WriteBackWriteAllocate
            + VTCR_EL2::ORGN0::WriteBackWriteAllocate
            + VTCR_EL2::SH0::InnerShareable
            + VTCR_EL2::TG0::Kib4
            // Our descriptors hold 48-bit output addresses: a 52-bit PARange must not be copied here.
            + VTCR_EL2::PS.val(pa_range(features.pa_bits.min(48)))
            + VTCR_EL2::VS.val(u64::from(features.vmid_bits == 16))
            + VTCR_EL2::HA.val(u64::from(features.mmu().access_flag))
            + VTCR_EL2::HD.val(u64::from(features.mmu().dirty_state))
            + VTCR_EL2::RES1::SET;
        Self {
            ipa_bits,
            start_level,
            root_tables: 1 << ipa_bits.saturating_sub(resolved),
            vtcr: fields.value,
            mmu: features.mmu(),
            resize: ResizePolicy::BreakBeforeMake,
        }
    }

    /// The same, with blocks and tables that take each other's place as `policy` wants it, if the MMU can do that.
    #[must_use]
    pub const fn with_resize(self, policy: ResizePolicy) -> Self {
        let resize = if self.mmu.resizes_in_place {
            policy
        } else {
            ResizePolicy::BreakBeforeMake
        };
        Self { resize, ..self }
    }

    /// The first IPA beyond the space.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        1 << self.ipa_bits
    }

    /// Whether `ipa` lies in the space.
    #[must_use]
    #[inline]
    pub const fn holds(&self, ipa: Ipa) -> bool {
        // Bits are 48 at most: nothing wraps.
        ipa.raw().wrapping_shr(self.ipa_bits) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::IdRegisters;

    /// DDI 0487 "VTCR_EL2" read bit by bit, and what stage 2 of that shape resolves: IPA bits, start level, tables.
    fn decode(vtcr: u64, pa_bits: u32) -> (u32, u32, u32) {
        let t0sz = (vtcr & 0x3f) as u32;
        let start = match vtcr >> 6 & 3 {
            0 => 2,
            1 => 1,
            2 => 0,
            _ => panic!("SL0 3 is level 3, of FEAT_TTST"),
        };
        let ipa_bits = 64 - t0sz;
        // "If the PA size is less than 44 bits, a level 0 start is a translation fault": so it would be for every access.
        assert!(start != 0 || pa_bits >= 44, "level 0 with {pa_bits} bits");
        let entry_bits = 12 + 9 * (3 - start);
        // The start level resolves one bit at least, and four more than a table does at most.
        assert!(
            ipa_bits > entry_bits && ipa_bits <= entry_bits + 9 + 4,
            "{ipa_bits} from level {start}"
        );
        (
            ipa_bits,
            start,
            1 << ipa_bits.saturating_sub(entry_bits + 9),
        )
    }

    #[test]
    fn every_size_on_every_cpu_is_what_the_manual_allows_or_refused() {
        const PA: [u32; 7] = [32, 36, 40, 42, 44, 48, 52];
        let mut shapes = 0;
        for (bits, pa_range, vmid, hafdbs, tgran4_2) in (32..=52u32).flat_map(|bits| {
            (0..7u64).flat_map(move |pa| {
                (0..18u64).map(move |n| (bits, pa, n % 2 * 2, n / 2 % 3, n / 6))
            })
        }) {
            let features = Features::new(&IdRegisters {
                mmfr0: pa_range | tgran4_2 << 40,
                mmfr1: hafdbs | vmid << 4,
                ..IdRegisters::default()
            });
            let pa_bits = PA[pa_range as usize];
            let highest = (1u64 << bits) - 1;
            // Any size that fits, whether a guest could be told of it or not.
            if bits <= pa_bits.min(48) {
                let config = Config::new(bits, &features);
                let (ipa_bits, start, tables) = decode(config.vtcr, pa_bits);
                assert_eq!(ipa_bits, bits);
                assert_eq!(u32::from(config.start_level.number()), start);
                assert_eq!(config.root_tables as u32, tables);
                assert_eq!(config.limit(), 1 << bits);
                let ps = config.vtcr >> 16 & 7;
                assert_eq!(
                    ps,
                    pa_range.min(5),
                    "PS: what the CPU has, and no 52 bits without DS"
                );
                let ha = u64::from(hafdbs >= 1) << 21 | u64::from(hafdbs >= 2) << 22;
                // IRGN0, ORGN0 Write-Back Write-Allocate, SH0 inner, TG0 4 KiB, RES1; DS and all above it 0.
                let rest = 1 << 8 | 1 << 10 | 3 << 12 | 1 << 31 | (vmid >> 1) << 19 | ha;
                assert_eq!(config.vtcr & !0x7_00ff, rest);
                shapes += 1;
            }
            let named = Config::with_bits(bits, highest, &features);
            let chosen = Config::for_highest(highest, &features);
            if bits > pa_bits.min(48) {
                let error = Err(ConfigError::TooLarge {
                    asked: bits,
                    limit: pa_bits.min(48),
                });
                assert_eq!((named, chosen), (error, error));
            } else if PA.contains(&bits) {
                assert_eq!(named, chosen);
                assert_eq!(named.unwrap().ipa_bits, bits);
                assert_eq!(
                    crate::features::pa_bits(pa_range_of(bits)),
                    bits,
                    "a guest is told exactly this"
                );
                // One bit more memory does not fit.
                let small = Config::with_bits(bits, highest + 1, &features);
                assert_eq!(
                    small,
                    Err(ConfigError::TooSmall {
                        asked: bits,
                        needed: bits + 1
                    })
                );
            } else {
                assert_eq!(named, Err(ConfigError::NoSuchSize { asked: bits }));
                assert!(chosen.is_err() || chosen.unwrap().ipa_bits > bits);
            }
        }
        assert_eq!(shapes, 18 * (1 + 5 + 9 + 11 + 13 + 17 + 17));
    }

    fn pa_range_of(bits: u32) -> u64 {
        pa_range(bits)
    }

    fn features(pa_range: u64, sixteen_bit_vmids: bool) -> Features {
        let mmfr1 = if sixteen_bit_vmids { 2 << 4 } else { 0 };
        Features::new(&IdRegisters {
            mmfr0: pa_range,
            mmfr1,
            ..IdRegisters::default()
        })
    }

    /// IPA bits, start level, root tables, SL0: worked by hand from the concatenation rules of the Arm ARM.
    const BY_HAND: [(u32, u8, usize, u64); 6] = [
        (32, 2, 4, 0),
        (36, 1, 1, 1),
        (40, 1, 2, 1),
        (42, 1, 8, 1),
        (44, 0, 1, 2),
        (48, 0, 1, 2),
    ];

    #[test]
    fn every_size_has_the_shape_worked_out_by_hand() {
        for (bits, level, tables, sl0) in BY_HAND {
            let config = Config::for_highest((1 << bits) - 1, &features(5, false)).unwrap();
            assert_eq!(
                (
                    config.ipa_bits,
                    config.start_level.number(),
                    config.root_tables
                ),
                (bits, level, tables)
            );
            assert_eq!(
                config.vtcr & 0x3f,
                u64::from(64 - bits),
                "T0SZ of {bits} bits"
            );
            assert_eq!(config.vtcr >> 6 & 3, sl0, "SL0 of {bits} bits");
        }
    }

    #[test]
    fn vtcr_is_the_literal_that_the_manual_spells() {
        // 40-bit PA (Cortex-A53), 32-bit IPA: T0SZ 32, SL0 0, WBWA, inner shareable, 4 KiB, PS 40 bits, RES1.
        let config = Config::for_highest(0xffff_ffff, &features(2, false)).unwrap();
        assert_eq!(config.vtcr, 0x8002_3520);
        // 16-bit VMIDs set VS and nothing above bit 31 is ever set.
        let config = Config::for_highest(1 << 46, &features(6, true)).unwrap();
        assert_eq!(config.vtcr, 0x800d_3590);
    }

    #[test]
    fn a_52_bit_machine_gets_48_bit_output_addresses() {
        let config = Config::for_highest(0xffff_ffff, &features(6, false)).unwrap();
        assert_eq!(config.vtcr >> 16 & 7, 5);
    }

    #[test]
    fn the_smallest_space_that_fits_is_chosen_and_no_larger_than_the_cpu_has() {
        for highest in [
            0x4fff_ffff,
            0xffff_ffff,
            0x1_0000_0000,
            0xf_ffff_ffff,
            0x10_0000_0000,
        ] {
            let config = Config::for_highest(highest, &features(2, false)).unwrap();
            assert!(highest < config.limit());
            assert!(
                IPA_BITS
                    .iter()
                    .all(|bits| *bits >= config.ipa_bits || highest >= 1 << bits)
            );
        }
        assert_eq!(
            Config::for_highest(1 << 40, &features(2, false)),
            Err(ConfigError::TooLarge {
                asked: 41,
                limit: 40
            })
        );
        assert_eq!(
            Config::for_highest(u64::MAX, &features(6, false)),
            Err(ConfigError::TooLarge {
                asked: 64,
                limit: 48
            })
        );
    }
}
