//! Loads and stores of general-purpose registers, decoded from their A64 encoding.
//!
//! The syndrome of a data abort describes an access only where `ISV` = 1: one register, no write-back. For a device that is
//! reached by a pair or with write-back the instruction itself must be read. [`LoadStore::decode`] is pure and total; what it
//! does not answer (SIMD, exclusives, atomics, 64-byte accesses, unprivileged and literal forms, everything the manual calls
//! CONSTRAINED UNPREDICTABLE) is not emulated.
//!
//! Source: DDI 0487 "Loads and Stores" in "A64 instruction set encoding": "Load/store register pair (post-indexed)" and its
//! neighbours, "Load/store register (unscaled immediate)" and its neighbours.

use crate::device::Width;
use crate::exit::Transfer;

/// A load or store of one or two general-purpose registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadStore {
    /// A store, not a load.
    pub is_write: bool,
    /// What moves at the address; for a pair, at its first half.
    pub first: Transfer,
    /// What moves right above it, if it is a pair.
    pub second: Option<Transfer>,
    /// The base register; 31 is the current stack pointer.
    pub base: u8,
    /// How the address comes from the base.
    pub mode: Mode,
}

/// An addressing mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// `[base, #offset]`
    Offset(i64),
    /// `[base, #offset]!`: the sum goes back into the base.
    PreIndex(i64),
    /// `[base], #offset`: the base alone is the address, and the sum goes back.
    PostIndex(i64),
    /// `[base, index, extend #shift]`
    Register {
        /// The index register; 31 is the zero register.
        index: u8,
        /// How it is widened.
        extend: Extend,
        /// By how many bits it is shifted left then.
        shift: u8,
    },
}

/// How an index register is widened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extend {
    /// `UXTW`: its low 32 bits, unsigned.
    Unsigned32,
    /// `LSL`, `SXTX`: all 64 bits.
    All,
    /// `SXTW`: its low 32 bits, signed.
    Signed32,
}

impl Mode {
    /// The address, and what goes back into the base: from the values of the base and of a register by its number.
    #[must_use]
    pub fn address(self, base: u64, register: impl Fn(u8) -> u64) -> (u64, Option<u64>) {
        match self {
            Self::Offset(offset) => (base.wrapping_add_signed(offset), None),
            Self::PreIndex(offset) => {
                let sum = base.wrapping_add_signed(offset);
                (sum, Some(sum))
            }
            Self::PostIndex(offset) => (base, Some(base.wrapping_add_signed(offset))),
            Self::Register {
                index,
                extend,
                shift,
            } => {
                let value = register(index);
                let value = match extend {
                    Extend::Unsigned32 => value & 0xffff_ffff,
                    Extend::All => value,
                    Extend::Signed32 => value as i32 as i64 as u64,
                };
                (base.wrapping_add(value << shift), None)
            }
        }
    }

    const fn writes_back(self) -> bool {
        matches!(self, Self::PreIndex(_) | Self::PostIndex(_))
    }
}

/// Bits `low` to `low + count - 1` of an instruction.
const fn field(word: u32, low: u32, count: u32) -> u32 {
    word >> low & ((1 << count) - 1)
}

/// The same, as a signed number.
const fn signed(word: u32, low: u32, count: u32) -> i64 {
    ((field(word, low, count) << (32 - count)) as i32 >> (32 - count)) as i64
}

/// A register number.
const fn register(word: u32, low: u32) -> u8 {
    field(word, low, 5) as u8
}

impl LoadStore {
    /// The load or store that `word` encodes, if it is one of those that are emulated.
    #[must_use]
    pub fn decode(word: u32) -> Option<Self> {
        // Bit 26 is V: floating point and SIMD.
        let decoded = match (field(word, 27, 3), field(word, 26, 1)) {
            (0b101, 0) => pair(word),
            (0b111, 0) => single(word),
            _ => None,
        };
        decoded.filter(Self::is_predictable)
    }

    /// Not one of the register combinations that the manual leaves open.
    fn is_predictable(&self) -> bool {
        let loads_twice_into_one = !self.is_write
            && self
                .second
                .is_some_and(|second| second.register == self.first.register);
        let moves = |transfer: &Transfer| transfer.register == self.base;
        let writes_back_over_it = self.mode.writes_back()
            && self.base != 31
            && (moves(&self.first) || self.second.as_ref().is_some_and(moves));
        !loads_twice_into_one && !writes_back_over_it
    }
}

/// `LDP`, `STP`, `LDPSW`, `LDNP`, `STNP`.
fn pair(word: u32) -> Option<LoadStore> {
    let is_load = field(word, 22, 1) == 1;
    let kind = field(word, 23, 3);
    let (width, sign_extend, is_64_bit) = match (field(word, 30, 2), is_load) {
        (0b00, _) => (Width::Word, false, false),
        // Without a non-temporal form; its store is STGP.
        (0b01, true) if kind != 0 => (Width::Word, true, true),
        (0b10, _) => (Width::Double, false, true),
        _ => return None,
    };
    let offset = signed(word, 15, 7) * width.bytes() as i64;
    let transfer = |register| Transfer {
        width,
        sign_extend,
        register,
        is_64_bit,
        is_ordered: false,
    };
    Some(LoadStore {
        is_write: !is_load,
        first: transfer(register(word, 0)),
        second: Some(transfer(register(word, 10))),
        base: register(word, 5),
        mode: match kind {
            0b001 => Mode::PostIndex(offset),
            0b000 | 0b010 => Mode::Offset(offset),
            0b011 => Mode::PreIndex(offset),
            _ => return None,
        },
    })
}

/// `LDR`, `STR`, `LDUR` and `STUR` in all their widths, but for literals and unprivileged accesses.
fn single(word: u32) -> Option<LoadStore> {
    let size = field(word, 30, 2);
    let (is_load, sign_extend, is_64_bit) = match (field(word, 22, 2), size) {
        (0b00, _) => (false, false, size == 3),
        (0b01, _) => (true, false, size == 3),
        (0b10, 0..=2) => (true, true, true),
        (0b11, 0..=1) => (true, true, false),
        // PRFM, and nothing.
        _ => return None,
    };
    let mode = match (field(word, 24, 2), field(word, 21, 1), field(word, 10, 2)) {
        (0b01, _, _) => Mode::Offset(i64::from(field(word, 10, 12)) << size),
        (0b00, 0, 0b00) => Mode::Offset(signed(word, 12, 9)),
        (0b00, 0, 0b01) => Mode::PostIndex(signed(word, 12, 9)),
        (0b00, 0, 0b11) => Mode::PreIndex(signed(word, 12, 9)),
        (0b00, 1, 0b10) => Mode::Register {
            index: register(word, 16),
            extend: match field(word, 13, 3) {
                0b010 => Extend::Unsigned32,
                0b011 | 0b111 => Extend::All,
                0b110 => Extend::Signed32,
                _ => return None,
            },
            shift: if field(word, 12, 1) == 1 {
                size as u8
            } else {
                0
            },
        },
        _ => return None,
    };
    Some(LoadStore {
        is_write: !is_load,
        first: Transfer {
            width: Width::from_sas(u64::from(size)),
            sign_extend,
            register: register(word, 0),
            is_64_bit,
            is_ordered: false,
        },
        second: None,
        base: register(word, 5),
        mode,
    })
}

#[cfg(test)]
mod tests;
