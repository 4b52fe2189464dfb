//! Formats that are no kernel as they are, and the command that makes one of them.
//!
//! Sources: the ELF specification; PE/COFF and Linux `drivers/firmware/efi/libstub/zboot-header.S`; Linux
//! `Documentation/arch/x86/boot.rst` and `arch/riscv/boot-image-header.rst`; the magic numbers of the compressors.

use core::fmt;

/// Something that has to be converted first, or is not for us at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// An arm64 ELF file.
    Elf,
    /// An ELF file for another architecture (its `e_machine`).
    ElfForeign(u16),
    /// A kernel that unpacks itself as an EFI application.
    EfiZboot {
        /// Offset of the compressed kernel in it.
        offset: u32,
        /// Bytes of the compressed kernel.
        size: u32,
        /// The command that unpacks such bytes from stdin; `None` for a compressor without one.
        unpack: Option<&'static str>,
    },
    /// One of the formats that a magic number tells.
    Known {
        /// What it is, with its article.
        name: &'static str,
        /// The command that makes a kernel of `FILE`; `None` if nothing does.
        convert: Option<&'static str>,
    },
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf => {
                f.write_str("an ELF file; `aarch64-linux-gnu-objcopy -O binary FILE Image` makes a kernel of it")
            }
            Self::ElfForeign(machine) => write!(f, "an ELF file for another architecture (e_machine {machine})"),
            Self::EfiZboot { offset, size, unpack: Some(unpack) } => write!(
                f,
                "an EFI zboot image; `tail -c +{} FILE | head -c {size} | {unpack} > Image` makes a kernel of it",
                u64::from(*offset) + 1
            ),
            Self::EfiZboot { unpack: None, .. } => f.write_str("an EFI zboot image with an unknown compressor"),
            Self::Known { name, convert: Some(command) } => write!(f, "{name}; `{command}` makes a kernel of it"),
            Self::Known { name, convert: None } => write!(f, "{name}, and no kernel for arm64"),
        }
    }
}

/// A magic number at its offset, and what it tells.
struct Mark {
    offset: usize,
    magic: &'static [u8],
    name: &'static str,
    convert: Option<&'static str>,
}

const fn mark(
    offset: usize,
    magic: &'static [u8],
    name: &'static str,
    convert: Option<&'static str>,
) -> Mark {
    Mark {
        offset,
        magic,
        name,
        convert,
    }
}

/// The formats told by one magic number.
const MARKS: &[Mark] = &[
    mark(
        4,
        b"1AY&SY",
        "compressed with bzip2",
        Some("bzip2 -dc FILE > Image"),
    ),
    mark(
        0,
        b"\xfd7zXZ\0",
        "compressed with xz",
        Some("xz -dc FILE > Image"),
    ),
    // With the two usual sizes of dictionary; three bytes alone are also a branch instruction.
    mark(
        0,
        b"\x5d\0\0\x80\0",
        "compressed with lzma",
        Some("xz --format=lzma -dc FILE > Image"),
    ),
    mark(
        0,
        b"\x5d\0\0\0\x04",
        "compressed with lzma",
        Some("xz --format=lzma -dc FILE > Image"),
    ),
    mark(
        0,
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        Some("zstd -dc FILE > Image"),
    ),
    mark(
        0,
        b"\x04\x22\x4d\x18",
        "compressed with lz4",
        Some("lz4 -dc FILE > Image"),
    ),
    mark(
        0,
        b"\x02\x21\x4c\x18",
        "compressed with lz4",
        Some("lz4 -dc FILE > Image"),
    ),
    mark(
        0,
        b"\x89LZO",
        "compressed with lzop",
        Some("lzop -dc FILE > Image"),
    ),
    mark(
        0,
        b"\x27\x05\x19\x56",
        "a U-Boot uImage",
        Some("dumpimage -T kernel -p 0 -o Image FILE"),
    ),
    mark(
        0,
        b"\xd0\x0d\xfe\xed",
        "a U-Boot FIT image or a device tree",
        Some("dumpimage -T flat_dt -p 0 -o Image FILE"),
    ),
    mark(
        0,
        b"ANDROID!",
        "an Android boot image",
        Some("unpack_bootimg --boot_img FILE"),
    ),
    mark(0, b"070701", "an initramfs archive", None),
    mark(0, b"070702", "an initramfs archive", None),
    mark(0x24, b"\x18\x28\x6f\x01", "a 32-bit Arm zImage", None),
    mark(0x38, b"RSC\x05", "a RISC-V Image", None),
    mark(0x202, b"HdrS", "an x86 bzImage", None),
];

const ELF_MAGIC: &[u8] = b"\x7fELF";
/// Offset of `e_ident[EI_DATA]`, and its value for big-endian files.
const ELF_DATA: usize = 5;
const ELF_BIG_ENDIAN: u8 = 2;
/// Offset of `e_machine`, and its value for arm64.
const ELF_MACHINE: usize = 18;
const ELF_MACHINE_AARCH64: u16 = 183;

const MZ: &[u8] = b"MZ";
const ZBOOT_MAGIC_OFFSET: usize = 4;
const ZBOOT_MAGIC: &[u8] = b"zimg";
const ZBOOT_PAYLOAD_OFFSET: usize = 8;
const ZBOOT_PAYLOAD_SIZE: usize = 12;
const ZBOOT_COMPRESSION: usize = 24;

/// What the bytes are, if they are something that cannot be entered.
pub(super) fn recognise(head: &[u8]) -> Option<Foreign> {
    let has = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if has(0, ELF_MAGIC) {
        return Some(elf(head));
    }
    if has(0, MZ) && has(ZBOOT_MAGIC_OFFSET, ZBOOT_MAGIC) {
        return Some(zboot(head));
    }
    if super::ImageHeader::parse(head).is_some() {
        return None;
    }
    let found = MARKS.iter().find(|mark| has(mark.offset, mark.magic));
    found
        .map(|mark| Foreign::Known {
            name: mark.name,
            convert: mark.convert,
        })
        .or_else(|| efi(head))
}

fn elf(head: &[u8]) -> Foreign {
    let bytes = head
        .get(ELF_MACHINE..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or_default();
    let machine = match head.get(ELF_DATA) {
        Some(&ELF_BIG_ENDIAN) => u16::from_be_bytes(bytes),
        _ => u16::from_le_bytes(bytes),
    };
    if machine == ELF_MACHINE_AARCH64 {
        Foreign::Elf
    } else {
        Foreign::ElfForeign(machine)
    }
}

fn zboot(head: &[u8]) -> Foreign {
    let word = |offset: usize| {
        u32::from_le_bytes(
            head.get(offset..)
                .and_then(|rest| rest.first_chunk())
                .copied()
                .unwrap_or_default(),
        )
    };
    let name = head
        .get(ZBOOT_COMPRESSION..)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .next();
    let unpack = match name.unwrap_or_default() {
        b"gzip" => Some("gzip -d"),
        b"zstd" | b"zstd22" => Some("zstd -d"),
        b"xz" | b"xzkern" => Some("xz -d"),
        b"lzma" => Some("xz --format=lzma -d"),
        b"lz4" => Some("lz4 -d"),
        b"lzo" => Some("lzop -d"),
        _ => None,
    };
    Foreign::EfiZboot {
        offset: word(ZBOOT_PAYLOAD_OFFSET),
        size: word(ZBOOT_PAYLOAD_SIZE),
        unpack,
    }
}

/// Offset of the PE header's offset, in a DOS header.
const PE_POINTER: usize = 0x3c;

/// A PE file that is not an arm64 `Image` at the same time.
fn efi(head: &[u8]) -> Option<Foreign> {
    let pointer = head.get(PE_POINTER..)?.first_chunk()?;
    let at = u32::from_le_bytes(*pointer) as usize;
    let is_pe = head.starts_with(MZ)
        && head
            .get(at..)
            .is_some_and(|rest| rest.starts_with(b"PE\0\0"));
    is_pe.then_some(Foreign::Known {
        name: "an EFI application",
        convert: None,
    })
}
