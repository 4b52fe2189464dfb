//! Entropy for guests, on CPUs that have a true source (FEAT_RNG).
//!
//! Whether there is one is the caller's to know: without, every function is NOT_SUPPORTED. Nothing is kept or stretched: each
//! answer is made of fresh words.
//!
//! Source: DEN 0098 "Arm True Random Number Generator Firmware Interface", version 1.0.

use crate::smccc::{Action, low, uuid_words};

/// `TRNG_VERSION`.
pub const VERSION: u32 = 0x8400_0050;
/// `TRNG_FEATURES`.
pub const FEATURES: u32 = 0x8400_0051;
/// `TRNG_GET_UUID`.
pub const GET_UUID: u32 = 0x8400_0052;
/// `TRNG_RND`, 32-bit form.
pub const RND32: u32 = 0x8400_0053;
/// `TRNG_RND`, 64-bit form.
pub const RND64: u32 = 0xc400_0053;

/// The source's UUID, 6e0f3d52-91c4-4b7a-8a35-2f7d60c9e41b, in the order it is written.
pub const UUID: [u8; 16] = [
    0x6e, 0x0f, 0x3d, 0x52, 0x91, 0xc4, 0x4b, 0x7a, 0x8a, 0x35, 0x2f, 0x7d, 0x60, 0xc9, 0xe4, 0x1b,
];

/// Version 1.0: what `TRNG_VERSION` answers.
const TRNG_1_0: u64 = 0x1_0000;
const SUCCESS: u64 = 0;
/// `INVALID_PARAMETERS`, -2.
const INVALID_PARAMETERS: u64 = u64::MAX - 1;
/// `NO_ENTROPY`, -3.
const NO_ENTROPY: u64 = u64::MAX - 2;
/// Registers that entropy comes in.
const REGISTERS: u64 = 3;

/// A call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Which version is this?
    Version,
    /// Is this function there?
    Features(u32),
    /// Which source is it?
    Uuid,
    /// So many bits, in registers of so many.
    Rnd {
        /// How many bits are wanted.
        bits: u64,
        /// 32 or 64.
        width: u32,
    },
}

impl Call {
    /// The call of `function` with `x1`, if it is one.
    #[must_use]
    pub const fn decode(function: u32, x1: u64) -> Option<Self> {
        Some(match function {
            VERSION => Self::Version,
            FEATURES => Self::Features(low(x1)),
            GET_UUID => Self::Uuid,
            RND32 => Self::Rnd {
                bits: low(x1) as u64,
                width: u32::BITS,
            },
            RND64 => Self::Rnd {
                bits: x1,
                width: u64::BITS,
            },
            _ => return None,
        })
    }

    /// What is to be done about it where there is a source.
    #[must_use]
    pub fn action(self) -> Action {
        match self {
            Self::Version => Action::answer(TRNG_1_0),
            Self::Features(VERSION | FEATURES | GET_UUID | RND32 | RND64) => {
                Action::answer(SUCCESS)
            }
            Self::Features(_) => Action::NOT_SUPPORTED,
            Self::Uuid => Action::Return(uuid_words(&UUID)),
            Self::Rnd { bits, width } => match Request::new(bits, width) {
                Some(request) => Action::Random(request),
                None => Action::answer(INVALID_PARAMETERS),
            },
        }
    }
}

/// A number of bits that can be had in one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    bits: u32,
    width: u32,
}

impl Request {
    fn new(bits: u64, width: u32) -> Option<Self> {
        (1..=REGISTERS * u64::from(width))
            .contains(&bits)
            .then_some(Self {
                bits: bits as u32,
                width,
            })
    }

    /// `x0` to `x3`: the bits in `x3`, then `x2`, then `x1`, lowest first, the rest 0; or `NO_ENTROPY` and none, if `source`
    /// has nothing now.
    pub fn answer(self, mut source: impl FnMut() -> Option<u64>) -> [u64; 4] {
        let mut x = [SUCCESS, 0, 0, 0];
        let mut left = self.bits;
        let [_, registers @ ..] = &mut x;
        for register in registers.iter_mut().rev() {
            let here = left.min(self.width);
            if here == 0 {
                break;
            }
            let Some(word) = source() else {
                return [NO_ENTROPY, 0, 0, 0];
            };
            *register = word & u64::MAX >> (u64::BITS - here);
            left -= here;
        }
        x
    }
}

#[cfg(test)]
mod tests;
