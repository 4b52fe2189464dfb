//! Heads of files written down byte by byte from their specifications, and kernels that do and do not fit.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use miniz_oxide::deflate::compress_to_vec;
use proptest::prelude::*;

use super::gzip::{Gzip, GzipError, InflateError};
use super::*;
use crate::addr::{Ipa, IpaRange};

const MIB: u64 = 1 << 20;

/// The header of Debian's 6.1 kernel as lab notes have it, with fields to vary.
fn image(text_offset: u64, image_size: u64, flags: u64) -> Vec<u8> {
    let mut head = std::vec![0; 64];
    head[..2].copy_from_slice(b"MZ");
    head[8..16].copy_from_slice(&text_offset.to_le_bytes());
    head[16..24].copy_from_slice(&image_size.to_le_bytes());
    head[24..32].copy_from_slice(&flags.to_le_bytes());
    head[56..60].copy_from_slice(&0x644d_5241_u32.to_le_bytes());
    head[60..64].copy_from_slice(&0x40_u32.to_le_bytes());
    head.extend(b"PE\0\0");
    head
}

fn header(text_offset: u64, image_size: u64) -> ImageHeader {
    ImageHeader::parse(&image(text_offset, image_size, 0xa)).unwrap()
}

fn at(offset: usize, magic: &[u8]) -> Vec<u8> {
    let mut head = std::vec![0; offset];
    head.extend(magic);
    head.resize(HEAD, 0);
    head
}

fn complaint(head: &[u8]) -> String {
    classify(head)
        .expect_err("not a kernel as it is")
        .to_string()
}

#[test]
fn an_image_is_recognised_although_it_is_an_efi_application_too() {
    let Ok(Format::Image(header)) = classify(&image(0, 0x0201_0000, 0xa)) else {
        panic!("an Image")
    };
    assert_eq!(
        (header.text_offset(), header.footprint(33 * MIB)),
        (0, 0x0210_0000)
    );
    assert_eq!(header.page_size(), Some(PageSize::Small));
    let sizes =
        [0, 2, 4, 6].map(|flags| ImageHeader::parse(&image(0, 1, flags)).unwrap().page_size());
    assert_eq!(
        sizes,
        [
            None,
            Some(PageSize::Small),
            Some(PageSize::Medium),
            Some(PageSize::Large)
        ]
    );
}

/// Values of the handbook's CPUs: an A72 has 4 and 64 KiB, `max` all three.
#[test]
fn a_granule_is_there_if_the_id_register_says_so() {
    let all = [PageSize::Small, PageSize::Medium, PageSize::Large];
    assert_eq!(
        all.map(|size| size.is_offered_by(0x0000_1124)),
        [true, false, true]
    );
    assert_eq!(
        all.map(|size| size.is_offered_by(0x0010_1122)),
        [true, true, true]
    );
    assert_eq!(
        all.map(|size| size.is_offered_by(0xff00_0000)),
        [false, false, false]
    );
}

#[test]
fn a_kernel_needs_the_larger_of_file_and_image_size() {
    assert_eq!(header(0, 100).footprint(40), 100);
    assert_eq!(header(0, 100).footprint(400), 400);
}

#[test]
fn anything_unknown_is_a_raw_binary_however_short() {
    for head in [
        &b"\x00"[..],
        b"\x14\0\0\x14",
        &[0; 63],
        &[0xff; HEAD],
        b"MZ",
        b"\x5d\0\0\x14 a branch, not lzma",
    ] {
        assert_eq!(classify(head), Ok(Format::Raw), "{head:?}");
    }
    assert_eq!(complaint(&[]), "the kernel is empty");
}

#[test]
fn what_cannot_be_entered_is_named_with_the_command_that_converts_it() {
    let mut elf = at(0, b"\x7fELF\x02\x01\x01");
    elf[18..20].copy_from_slice(&[0xb7, 0]);
    assert_eq!(
        complaint(&elf),
        "the kernel is an ELF file; `aarch64-linux-gnu-objcopy -O binary FILE Image` makes a kernel of it"
    );
    elf[18] = 62;
    assert_eq!(
        complaint(&elf),
        "the kernel is an ELF file for another architecture (e_machine 62)"
    );
    for (head, text) in [
        (
            at(4, b"1AY&SY"),
            "compressed with bzip2; `bzip2 -dc FILE > Image`",
        ),
        (
            at(0, b"\xfd7zXZ\0"),
            "compressed with xz; `xz -dc FILE > Image`",
        ),
        (
            at(0, b"\x5d\0\0\x80\0\xff\xff"),
            "compressed with lzma; `xz --format=lzma -dc FILE > Image`",
        ),
        (
            at(0, b"(\xb5/\xfd"),
            "compressed with zstd; `zstd -dc FILE > Image`",
        ),
        (
            at(0, b"\x04\"M\x18"),
            "compressed with lz4; `lz4 -dc FILE > Image`",
        ),
        (
            at(0, b"\x02!L\x18"),
            "compressed with lz4; `lz4 -dc FILE > Image`",
        ),
        (
            at(0, b"\x27\x05\x19\x56"),
            "a U-Boot uImage; `dumpimage -T kernel -p 0 -o Image FILE`",
        ),
        (
            at(0, b"\xd0\r\xfe\xed"),
            "a U-Boot FIT image or a device tree; `dumpimage",
        ),
        (
            at(0, b"070701000"),
            "an initramfs archive, and no kernel for arm64",
        ),
        (
            at(36, &0x016f_2818_u32.to_le_bytes()),
            "a 32-bit Arm zImage, and no kernel",
        ),
        (
            at(56, &0x0543_5352_u32.to_le_bytes()),
            "a RISC-V Image, and no kernel",
        ),
        (at(0x202, b"HdrS"), "an x86 bzImage, and no kernel"),
    ] {
        assert!(
            complaint(&head).starts_with(&format!("the kernel is {text}")),
            "{}",
            complaint(&head)
        );
    }
    let mut efi = at(0, b"MZ");
    efi[0x3c] = 0x80;
    efi[0x80..0x84].copy_from_slice(b"PE\0\0");
    assert_eq!(
        complaint(&efi),
        "the kernel is an EFI application, and no kernel for arm64"
    );
}

/// What `tail` and `head` cut out has to be the payload.
#[test]
fn the_command_for_a_zboot_kernel_unpacks_it() {
    let payload = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xcbNM-\xca\xcc\x03\0\x0c\x00\x00\x00";
    let mut zboot = at(0, b"MZ\0\0zimg");
    zboot[8..12].copy_from_slice(&1024_u32.to_le_bytes());
    zboot[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    zboot[24..28].copy_from_slice(b"gzip");
    zboot[56..60].copy_from_slice(&0x8182_23cd_u32.to_le_bytes());
    zboot.extend(payload);
    let size = payload.len();
    assert_eq!(
        complaint(&zboot[..HEAD]),
        format!(
            "the kernel is an EFI zboot image; `tail -c +1025 FILE | head -c {size} | gzip -d > Image` makes a kernel of it"
        )
    );
    let cut: Vec<u8> = zboot.iter().copied().skip(1025 - 1).take(size).collect();
    assert_eq!(cut, payload, "what tail and head leave");
    zboot[24..28].copy_from_slice(b"zpaq");
    assert_eq!(
        complaint(&zboot),
        "the kernel is an EFI zboot image with an unknown compressor"
    );
}

#[test]
fn kernels_that_cannot_run_are_refused() {
    assert_eq!(
        complaint(&image(0, MIB, 0xb)),
        "the kernel is a big-endian Image; the devices are little-endian only"
    );
    assert_eq!(
        complaint(&image(0x123, MIB, 0xa)),
        "the kernel's text_offset 0x123 is no multiple of 4 KiB"
    );
}

#[test]
fn placement_is_what_the_platform_document_says() {
    let ram = IpaRange::new(Ipa::new(0x4000_0000), 128 * MIB).unwrap();
    let range = |start, size| IpaRange::new(Ipa::new(start), size).unwrap();
    let linux = place(
        ram,
        Some(&header(0, 0x0201_0000)),
        33_000_000,
        Some(5 * MIB),
    )
    .unwrap();
    assert_eq!(linux.tree, Ipa::new(0x4000_0000));
    assert_eq!(linux.kernel, range(0x4020_0000, 33_000_000));
    assert_eq!(
        linux.ramdisk,
        Some(range(0x4240_0000, 5 * MIB)),
        "after image_size, not after the file"
    );
    let u_boot = place(ram, None, 971_000, Some(10)).unwrap();
    assert_eq!(u_boot.kernel, range(0x4008_0000, 971_000));
    assert_eq!(u_boot.ramdisk, Some(range(0x4020_0000, 10)));
    let old = place(ram, Some(&header(0x1234_5678, 0)), 8 * MIB, Some(3 * MIB)).unwrap();
    assert_eq!(
        old.kernel,
        range(0x4028_0000, 8 * MIB),
        "its text_offset is not believed"
    );
    assert_eq!(
        old.ramdisk,
        Some(range(0x47c0_0000, 3 * MIB)),
        "out of its way"
    );
}

#[test]
fn what_does_not_fit_is_refused_with_the_sizes() {
    let ram = IpaRange::new(Ipa::new(0x4000_0000), 64 * MIB).unwrap();
    let error = place(ram, Some(&header(0, 32 * MIB)), 30 * MIB, Some(40 * MIB)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "64 MiB of RAM are too little: the kernel needs 32 MiB, 2 MiB above the start, and its ramdisk 40 MiB"
    );
    let error = place(ram, None, 64 * MIB, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "64 MiB of RAM are too little: the kernel needs 64 MiB, 512 KiB above the start"
    );
    assert!(
        place(ram, None, 64 * MIB - 0x8_0000, None).is_ok(),
        "to the last byte"
    );
    assert!(place(ram, Some(&header(u64::MAX - 4095, 1)), 1, None).is_err());
}

proptest! {
    #[test]
    fn placed_parts_lie_in_ram_and_apart(
        ram in 1u64..64, text_offset in prop_oneof![0u64..64, Just(u64::MAX >> 12)], image_size in 0u64..64 << 20,
        size in 1u64..64 << 20, ramdisk in prop::option::of(1u64..64 << 20), raw in any::<bool>(),
    ) {
        let ram = IpaRange::new(Ipa::new(0x4000_0000), ram * MIB).unwrap();
        let header = header(text_offset << 12, image_size);
        let placed = place(ram, (!raw).then_some(&header), size, ramdisk);
        let Ok(placed) = placed else { return Ok(()) };
        let tree = IpaRange::new(placed.tree, TREE_MAX).unwrap();
        let needed = if raw { size } else { image_size.max(size) };
        let kernel = IpaRange::new(placed.kernel.start, needed).unwrap();
        prop_assert_eq!(placed.kernel.size, size);
        prop_assert!(!kernel.overlaps(&tree));
        for part in [Some(kernel), placed.ramdisk].into_iter().flatten() {
            prop_assert_eq!(part.intersect(&ram), Some(part));
        }
        if let Some(disk) = placed.ramdisk {
            prop_assert_eq!(Some(disk.size), ramdisk);
            prop_assert!(disk.start >= kernel.end() && disk.start.is_aligned(2 * MIB));
        }
    }

    #[test]
    fn any_head_is_classified(mut head in prop::collection::vec(any::<u8>(), 0..HEAD), magic in 0usize..6) {
        let magic = [&b""[..], b"\x7fELF", b"MZ\0\0zimg", b"\x1f\x8b\x08", b"MZ", b"\xd0\x0d\xfe\xed"][magic];
        for (byte, value) in head.iter_mut().zip(magic) {
            *byte = *value;
        }
        if let Err(error) = classify(&head) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

/// 300 times "one fault at a time\n", as `gzip -9` writes it, with the file's name in the header.
const BY_GZIP: &[u8] = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x02\xff\x49\x6d\x61\x67\x65\x2e\x74\x78\x74\x00\xed\xc8\xb9\x09\
\x00\x20\x10\x00\xb0\xde\x29\x6e\x35\x0b\x05\xc1\xa7\xd1\xfd\x75\x05\xfb\x40\xaa\xac\x59\xa2\xe6\xd3\x77\xe4\x27\x76\x1b\
\x25\x2d\xe7\x9c\x73\xce\x39\xe7\x9c\x73\xce\x39\xe7\x9c\x73\xce\x7d\xdd\x05\xce\xe0\xc5\xd9\x70\x17\x00\x00";

/// The CRC-32 of RFC 1952 by its definition, one bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| {
        if crc & 1 == 1 {
            0xedb8_8320 ^ (crc >> 1)
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

/// A gzip file with all optional fields of the header.
fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut file = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff\x03\0abcname\0comment\0\x12\x34".to_vec();
    file.extend(compress_to_vec(bytes, 6));
    file.extend(crc32(bytes).to_le_bytes());
    file.extend((bytes.len() as u32).to_le_bytes());
    file
}

/// Unpacks, holding the decoder to its promise about pages.
fn unpacked(file: &[u8], limit: u64) -> Result<Vec<u8>, GzipError> {
    let mut out = Vec::new();
    let mut short = false;
    let size = Gzip::parse(file)?.inflate(limit, |offset, page| {
        assert!(!short, "only the last page may be short");
        assert!(offset == out.len() as u64 && !page.is_empty() && page.len() <= 4096);
        short = page.len() < 4096;
        out.extend(page);
        Ok::<_, ()>(())
    });
    match size {
        Ok(size) => assert_eq!(size, out.len() as u64),
        Err(InflateError::Gzip(error)) => return Err(error),
        Err(InflateError::Sink(())) => unreachable!("the sink takes everything"),
    }
    Ok(out)
}

/// Bytes that compress a little: a generator's output, thinned.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x3f
    };
    (0..size).map(|_| step()).collect()
}

#[test]
fn what_gzip_packed_comes_out_again() {
    assert_eq!(classify(BY_GZIP), Ok(Format::Gzip));
    let text = "one fault at a time\n".repeat(300);
    assert_eq!(unpacked(BY_GZIP, u64::MAX), Ok(text.clone().into_bytes()));
    let gzip = Gzip::parse(BY_GZIP).unwrap();
    assert_eq!(gzip.stated_size(), text.len() as u64);
    let mut head = [0; 20];
    assert_eq!(
        gzip.head(&mut head),
        Ok(text.as_bytes().first_chunk::<20>().unwrap().as_slice())
    );
    let mut more = std::vec![0; 10_000];
    assert_eq!(
        gzip.head(&mut more),
        Ok(text.as_bytes()),
        "as many as there are"
    );
}

#[test]
fn sizes_around_pages_and_the_window_come_out_whole() {
    for size in [
        0, 1, 4095, 4096, 4097, 32_767, 32_768, 32_769, 65_536, 300_001,
    ] {
        let bytes = noise(size);
        assert_eq!(unpacked(&gzipped(&bytes), size as u64), Ok(bytes), "{size}");
    }
}

#[test]
fn more_than_the_limit_is_refused_before_it_is_written() {
    let bytes = noise(100_000);
    assert_eq!(
        unpacked(&gzipped(&bytes), 99_999),
        Err(GzipError::TooLarge { limit: 99_999 })
    );
    let bomb = gzipped(&std::vec![0; 4 << 20]);
    assert_eq!(
        unpacked(&bomb, 1 << 20),
        Err(GzipError::TooLarge { limit: 1 << 20 })
    );
}

#[test]
fn a_file_that_lies_or_ends_early_is_one_line() {
    let file = gzipped(&noise(50_000));
    assert_eq!(
        unpacked(&file[..file.len() / 2], u64::MAX),
        Err(GzipError::Truncated)
    );
    assert_eq!(unpacked(&file[..12], u64::MAX), Err(GzipError::Truncated));
    for from_end in [1, 5] {
        let mut wrong = file.clone();
        let at = wrong.len() - from_end;
        wrong[at] ^= 1;
        assert_eq!(unpacked(&wrong, u64::MAX), Err(GzipError::Checksum));
    }
    let twice = [file.clone(), file].concat();
    assert_eq!(unpacked(&twice, u64::MAX), Err(GzipError::Trailing));
}

#[test]
fn the_sinks_own_error_ends_the_work() {
    let file = gzipped(&noise(50_000));
    let mut pages = 0;
    let outcome = Gzip::parse(&file).unwrap().inflate(u64::MAX, |_, _| {
        pages += 1;
        if pages == 3 {
            Err("pool empty")
        } else {
            Ok(())
        }
    });
    assert_eq!((outcome, pages), (Err(InflateError::Sink("pool empty")), 3));
}

proptest! {
    #[test]
    fn a_damaged_file_never_passes_for_another(at in any::<prop::sample::Index>(), flip in 1u8.., size in 0usize..9000) {
        let bytes = noise(size);
        let mut file = gzipped(&bytes);
        let at = at.index(file.len());
        file[at] ^= flip;
        if let Ok(out) = unpacked(&file, 1 << 20) {
            prop_assert_eq!(out, bytes, "only bytes of the header that mean nothing may differ");
        }
    }
}
