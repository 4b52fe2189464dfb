//! Randomness for guests, expanded from what the host has.
//!
//! The host's 32 bytes are the key of a ChaCha20 whose nonce is the number of the VM and of its boot: no two starts of any
//! VM get the same bytes, none can compute another's, and with a seed from the command line every run is alike. Says
//! nothing about how good the host's bytes are.
//!
//! Sources: D. J. Bernstein, "ChaCha, a variant of Salsa20"; the `chosen` schema for `rng-seed` and `kaslr-seed`.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Bytes of `rng-seed`: what Linux credits itself with 256 bits for, twice.
const RNG_SEED: usize = 64;

/// The host's randomness. Deliberately neither `Debug` nor `Copy`.
pub struct Seed([u8; 32]);

impl Seed {
    /// From all bytes of a source (FEAT_RNG, the host tree's own seeds), folded into 32; `None` if there are none.
    #[must_use]
    pub fn from_bytes(source: &[u8]) -> Option<Self> {
        if source.is_empty() {
            return None;
        }
        let mut seed = [0; 32];
        for part in source.chunks(seed.len()) {
            for (byte, more) in seed.iter_mut().zip(part) {
                *byte ^= more;
            }
        }
        Some(Self(seed))
    }

    /// From a number: reproducible, and as secret as the number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        let mut seed = [0; 32];
        for (byte, part) in seed.iter_mut().zip(number.to_le_bytes()) {
            *byte = part;
        }
        Self(seed)
    }

    /// What VM number `vm` gets at its boot number `boot`.
    #[must_use]
    pub fn for_boot(&self, vm: u32, boot: u32) -> GuestSeed {
        let mut stream = ChaCha20Rng::from_seed(self.0);
        stream.set_stream(u64::from(vm) << u32::BITS | u64::from(boot));
        let mut rng_seed = [0; RNG_SEED];
        stream.fill_bytes(&mut rng_seed);
        GuestSeed {
            rng_seed,
            kaslr_seed: stream.next_u64(),
        }
    }
}

/// A guest's randomness for one boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestSeed {
    /// For `rng-seed`.
    pub rng_seed: [u8; RNG_SEED],
    /// For `kaslr-seed`.
    pub kaslr_seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A block of ChaCha20 as its specification defines it: 64-bit counter, 64-bit nonce.
    fn chacha20(key: &[u8; 32], counter: u64, nonce: u64) -> [u8; 64] {
        let mut start = [
            0x6170_7865,
            0x3320_646e,
            0x7962_2d32,
            0x6b20_6574,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        for (word, bytes) in start[4..12].iter_mut().zip(key.chunks(4)) {
            *word = u32::from_le_bytes(bytes.try_into().unwrap());
        }
        start[12..].copy_from_slice(&[
            counter as u32,
            (counter >> 32) as u32,
            nonce as u32,
            (nonce >> 32) as u32,
        ]);
        let mut x = start;
        let mut quarter = |[a, b, c, d]: [usize; 4]| {
            for (left, right, into, by) in
                [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]
            {
                x[left] = x[left].wrapping_add(x[right]);
                x[into] = (x[into] ^ x[left]).rotate_left(by);
            }
        };
        for _ in 0..10 {
            for lane in 0..4 {
                quarter([lane, lane + 4, lane + 8, lane + 12]);
            }
            for lane in 0..4 {
                quarter([
                    lane,
                    4 + (lane + 1) % 4,
                    8 + (lane + 2) % 4,
                    12 + (lane + 3) % 4,
                ]);
            }
        }
        let mut block = [0; 64];
        for ((bytes, end), start) in block.chunks_mut(4).zip(x).zip(start) {
            bytes.copy_from_slice(&end.wrapping_add(start).to_le_bytes());
        }
        block
    }

    #[test]
    fn the_first_vm_of_seed_zero_gets_the_published_key_stream() {
        let seed = Seed::from_number(0).for_boot(0, 0);
        let published = [
            0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86,
            0xbd, 0x28,
        ];
        assert_eq!(seed.rng_seed[..16], published);
    }

    #[test]
    fn every_vm_and_every_boot_gets_other_bytes() {
        let seed = Seed::from_number(7);
        let mut seen = std::collections::HashSet::new();
        for (vm, boot) in [(0, 0), (0, 1), (1, 0), (1, 1), (0, u32::MAX), (u32::MAX, 0)] {
            let guest = seed.for_boot(vm, boot);
            assert!(
                seen.insert(guest.rng_seed.to_vec())
                    && seen.insert(guest.kaslr_seed.to_le_bytes().to_vec())
            );
        }
        assert_eq!(
            seed.for_boot(1, 1),
            Seed::from_number(7).for_boot(1, 1),
            "the same number gives the same run"
        );
    }

    #[test]
    fn every_byte_of_a_long_source_counts_and_no_source_is_no_seed() {
        assert!(Seed::from_bytes(&[]).is_none());
        let source = [0x5a; 40];
        let plain = Seed::from_bytes(&source).unwrap().for_boot(0, 0);
        for index in 0..source.len() {
            let mut other = source;
            other[index] ^= 1;
            assert_ne!(Seed::from_bytes(&other).unwrap().for_boot(0, 0), plain);
        }
    }

    proptest! {
        #[test]
        fn bytes_are_chacha20_under_the_hosts_key(key in any::<[u8; 32]>(), vm in any::<u32>(), boot in any::<u32>()) {
            let guest = Seed::from_bytes(&key).unwrap().for_boot(vm, boot);
            let nonce = (u64::from(vm) << 32) | u64::from(boot);
            prop_assert_eq!(guest.rng_seed, chacha20(&key, 0, nonce));
            prop_assert_eq!(guest.kaslr_seed.to_le_bytes(), *chacha20(&key, 1, nonce).first_chunk::<8>().unwrap());
        }
    }
}
