//! Unpacking a gzip'ed kernel a page at a time.
//!
//! Memory: 32 KiB of window and the decoder's tables, on the heap for the time of a call. Time: bounded by the input and
//! by the limit. The checksum and the size at the end of the file are verified; a file that lies is one line. Only one
//! member: whatever follows it is refused rather than dropped.
//!
//! Sources: RFC 1952 (gzip), RFC 1951 (DEFLATE).

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, TINFL_LZ_DICT_SIZE, decompress};

use crate::addr::{PAGE_SIZE, Size};

/// The first bytes of a gzip file that uses DEFLATE, as all do.
pub const MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];

/// Bytes of the fixed part of the header.
const HEADER: usize = 10;
/// Offset of the header's flags.
const FLAGS: usize = 3;
/// Flag: a checksum of the header follows it.
const FHCRC: u8 = 1 << 1;
/// Flag: extra fields follow.
const FEXTRA: u8 = 1 << 2;
/// Flag: the file's name follows.
const FNAME: u8 = 1 << 3;
/// Flag: a comment follows.
const FCOMMENT: u8 = 1 << 4;
/// Flags that mean something we do not know.
const FRESERVED: u8 = 0b1110_0000;
/// Bytes of the trailer: checksum and size.
const TRAILER: usize = 8;

/// A gzip file, its header understood and nothing of it unpacked.
#[derive(Clone, Copy)]
pub struct Gzip<'a> {
    deflated: &'a [u8],
    crc: u32,
    size: u32,
}

impl<'a> Gzip<'a> {
    /// Reads header and trailer.
    ///
    /// # Errors
    /// `Truncated` or `Corrupt` for what is no whole header and trailer.
    pub fn parse(file: &'a [u8]) -> Result<Self, GzipError> {
        let flags = *file.get(FLAGS).ok_or(GzipError::Truncated)?;
        if !file.starts_with(&MAGIC) || flags & FRESERVED != 0 {
            return Err(GzipError::Corrupt);
        }
        let mut rest = file.get(HEADER..).ok_or(GzipError::Truncated)?;
        if flags & FEXTRA != 0 {
            let (length, after) = rest.split_first_chunk().ok_or(GzipError::Truncated)?;
            rest = after
                .get(usize::from(u16::from_le_bytes(*length))..)
                .ok_or(GzipError::Truncated)?;
        }
        for text in [FNAME, FCOMMENT] {
            if flags & text != 0 {
                let nul = rest
                    .iter()
                    .position(|byte| *byte == 0)
                    .ok_or(GzipError::Truncated)?;
                rest = rest.get(nul + 1..).ok_or(GzipError::Truncated)?;
            }
        }
        if flags & FHCRC != 0 {
            rest = rest.get(size_of::<u16>()..).ok_or(GzipError::Truncated)?;
        }
        let (deflated, trailer) = rest
            .split_last_chunk::<TRAILER>()
            .ok_or(GzipError::Truncated)?;
        let [c0, c1, c2, c3, s0, s1, s2, s3] = *trailer;
        Ok(Self {
            deflated,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            size: u32::from_le_bytes([s0, s1, s2, s3]),
        })
    }

    /// Bytes that will come out, as the file says: [`inflate`](Self::inflate) holds it to its word.
    #[must_use]
    pub const fn stated_size(&self) -> u64 {
        self.size as u64
    }

    /// The first bytes that come out: as many as `head` holds, or fewer if there are no more.
    ///
    /// # Errors
    /// `Corrupt` or `Truncated` if not even those come out.
    pub fn head<'h>(&self, head: &'h mut [u8]) -> Result<&'h [u8], GzipError> {
        enum Stop {
            Full,
        }
        let mut filled = 0;
        let outcome = self.inflate(u64::MAX, |_, page| {
            for (slot, byte) in head.iter_mut().skip(filled).zip(page) {
                *slot = *byte;
                filled += 1;
            }
            if filled == head.len() {
                Err(Stop::Full)
            } else {
                Ok(())
            }
        });
        match outcome {
            Ok(_) | Err(InflateError::Sink(Stop::Full)) => {
                Ok(head.get(..filled).unwrap_or_default())
            }
            Err(InflateError::Gzip(error)) => Err(error),
        }
    }

    /// Unpacks everything: `sink` is given every page once, in order, with its offset, a multiple of 4 KiB; only the last
    /// can be shorter than a page. Returns the number of bytes.
    ///
    /// # Errors
    /// What is wrong with the file, `TooLarge` past `limit` bytes, or the sink's own error; what went to the sink before
    /// is then worth nothing.
    pub fn inflate<E>(
        &self,
        limit: u64,
        mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<u64, InflateError<E>> {
        let mut decoder: Box<DecompressorOxide> = Box::default();
        let mut window = vec![0; TINFL_LZ_DICT_SIZE].into_boxed_slice();
        let (mut input, mut done, mut crc) = (self.deflated, 0, Crc::new());
        loop {
            // The window is emptied whenever it is full, so every round starts at its first byte.
            let (status, consumed, produced) = decompress(&mut decoder, input, &mut window, 0, 0);
            let fresh = window.get(..produced).unwrap_or_default();
            for (page, offset) in fresh
                .chunks(PAGE_SIZE as usize)
                .zip((done..).step_by(PAGE_SIZE as usize))
            {
                if offset + page.len() as u64 > limit {
                    return Err(GzipError::TooLarge { limit }.into());
                }
                crc.add(page);
                sink(offset, page).map_err(InflateError::Sink)?;
            }
            done += produced as u64;
            input = input.get(consumed..).unwrap_or_default();
            match status {
                TINFLStatus::HasMoreOutput if produced == window.len() => {}
                TINFLStatus::Done => {
                    return self.check(done, crc, input).map_err(InflateError::Gzip);
                }
                TINFLStatus::FailedCannotMakeProgress => return Err(GzipError::Truncated.into()),
                _ => return Err(GzipError::Corrupt.into()),
            }
        }
    }

    /// Holds the file to its trailer.
    fn check(&self, size: u64, crc: Crc, rest: &[u8]) -> Result<u64, GzipError> {
        if !rest.is_empty() {
            return Err(GzipError::Trailing);
        }
        // The size in the file is modulo 2^32.
        if crc.value() != self.crc || size & u64::from(u32::MAX) != u64::from(self.size) {
            return Err(GzipError::Checksum);
        }
        Ok(size)
    }
}

/// Why nothing can be unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GzipError {
    /// The file ends too early.
    Truncated,
    /// Something in it makes no sense.
    Corrupt,
    /// The bytes do not have the checksum or the size that the file says.
    Checksum,
    /// There is more in the file than one compressed stream.
    Trailing,
    /// More comes out than there is room for.
    TooLarge {
        /// The room, in bytes.
        limit: u64,
    },
}

impl fmt::Display for GzipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the gzip'ed kernel is cut off"),
            Self::Corrupt => f.write_str("the gzip'ed kernel is damaged"),
            Self::Checksum => f.write_str("the gzip'ed kernel is damaged: its checksum is wrong"),
            Self::Trailing => {
                f.write_str("the gzip'ed kernel is followed by bytes that do not belong to it")
            }
            Self::TooLarge { limit } => write!(
                f,
                "the gzip'ed kernel unpacks to more than the {} there are",
                Size(*limit)
            ),
        }
    }
}

/// Why unpacking ended early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InflateError<E> {
    /// Because of the file.
    Gzip(GzipError),
    /// Because the sink said so.
    Sink(E),
}

impl<E> From<GzipError> for InflateError<E> {
    fn from(error: GzipError) -> Self {
        Self::Gzip(error)
    }
}

/// The CRC-32 of RFC 1952, section 8.
struct Crc(u32);

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// The CRC of every byte value.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < u8::BITS {
            crc = if crc & 1 != 0 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

impl Crc {
    const fn new() -> Self {
        Self(u32::MAX)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.0.to_le_bytes();
            self.0 = (self.0 >> 8) ^ TABLE[usize::from(low ^ byte)];
        }
    }

    const fn value(&self) -> u32 {
        !self.0
    }
}
