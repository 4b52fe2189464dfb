//! What a VM finds in its memory: kernel, ramdisk and device tree as contents of IPA ranges. Nothing is copied here; pages
//! get their share when they are touched. Only a gzip'ed kernel is unpacked, once, into pages of the pool.

use alloc::vec::Vec;
use core::fmt;

use crate::addr::{Ipa, IpaRange, Pa};
use crate::config::DomainConfig;
use crate::content::{Content, Source};
use crate::image::gzip::{Gzip, GzipError, InflateError};
use crate::image::{self, DoesNotFit, Format, ImageError, ImageHeader, PageSize, Placement};
use crate::machine::Machine;
use crate::page_pool::{OwnedPage, PagePool};
use crate::platform;

/// Bytes that tell a format.
const HEAD: usize = 4096;

/// A module's bytes and where they lie.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Their physical address.
    pub at: Pa,
}

/// The modules of a VM.
#[derive(Clone, Copy)]
pub struct Modules<'a> {
    /// The kernel.
    pub kernel: Bytes<'a>,
    /// The ramdisk.
    pub ramdisk: Option<Bytes<'a>>,
}

/// What a VM's memory holds at its start.
pub struct Loaded {
    /// Contents of its pages; the device tree's comes last.
    pub(super) contents: Vec<Content>,
    /// Where the kernel is entered.
    pub(super) entry: Ipa,
    /// Where the device tree is.
    pub(super) tree: Ipa,
    /// Where the ramdisk is.
    ramdisk: Option<IpaRange>,
    /// What the kernel is.
    format: &'static str,
    has_tree: bool,
}

/// Why a VM's modules cannot be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The kernel's format.
    Image(ImageError),
    /// The kernel is gzip'ed, and cannot be unpacked.
    Gzip(GzipError),
    /// The kernel's page size is not one the CPU has.
    PageSize(PageSize),
    /// No memory to unpack it into.
    OutOfPages,
    /// The VM's RAM is too small.
    DoesNotFit(DoesNotFit),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Gzip(error) => error.fmt(f),
            Self::PageSize(size) => write!(
                f,
                "the kernel is built for {size} pages, which this CPU does not have"
            ),
            Self::OutOfPages => f.write_str(
                "no memory is left to unpack the kernel into: give the machine more (MEM=)",
            ),
            Self::DoesNotFit(error) => error.fmt(f),
        }
    }
}

/// A kernel that can be placed.
struct Kernel {
    header: Option<ImageHeader>,
    size: u64,
    source: Source,
    format: &'static str,
}

/// Loads the modules of a VM, for a CPU with this `ID_AA64MMFR0_EL1`.
///
/// # Errors
/// [`LoadError`], one line; no page is kept then.
pub fn load<M: Machine>(
    config: &DomainConfig,
    modules: &Modules<'_>,
    id_aa64mmfr0: u64,
    pool: &PagePool,
    m: &mut M,
) -> Result<Loaded, LoadError> {
    let kernel = open_kernel(config.memory, &modules.kernel, pool, m)?;
    let ram = IpaRange {
        start: platform::RAM_BASE,
        size: config.memory,
    };
    let page_size = kernel.header.as_ref().and_then(ImageHeader::page_size);
    if let Some(size) = page_size.filter(|size| !size.is_offered_by(id_aa64mmfr0)) {
        Content::new(ram, kernel.source).give_back(pool);
        return Err(LoadError::PageSize(size));
    }
    let ramdisk_size = modules.ramdisk.map(|ramdisk| ramdisk.bytes.len() as u64);
    match image::place(ram, kernel.header.as_ref(), kernel.size, ramdisk_size) {
        Ok(placement) => Ok(Loaded::new(placement, kernel, modules)),
        Err(error) => {
            Content::new(ram, kernel.source).give_back(pool);
            Err(LoadError::DoesNotFit(error))
        }
    }
}

fn open_kernel<M: Machine>(
    limit: u64,
    module: &Bytes<'_>,
    pool: &PagePool,
    m: &mut M,
) -> Result<Kernel, LoadError> {
    let head = &module.bytes[..module.bytes.len().min(HEAD)];
    let plain = |header, format| Kernel {
        header,
        size: module.bytes.len() as u64,
        source: Source::Memory(module.at),
        format,
    };
    match image::classify(head).map_err(LoadError::Image)? {
        Format::Image(header) => Ok(plain(Some(header), "arm64 Image")),
        Format::Raw => Ok(plain(None, "raw binary")),
        Format::Gzip => unpack(limit, module.bytes, pool, m),
    }
}

fn unpack<M: Machine>(
    limit: u64,
    file: &[u8],
    pool: &PagePool,
    m: &mut M,
) -> Result<Kernel, LoadError> {
    let gzip = Gzip::parse(file).map_err(LoadError::Gzip)?;
    let mut head = [0; HEAD];
    let head = gzip.head(&mut head).map_err(LoadError::Gzip)?;
    let (header, format) = match image::classify(head).map_err(LoadError::Image)? {
        Format::Image(header) => (Some(header), "arm64 Image, gzip'ed"),
        Format::Raw => (None, "raw binary, gzip'ed"),
        Format::Gzip => return Err(LoadError::Gzip(GzipError::Trailing)),
    };
    let mut pages: Vec<OwnedPage> = Vec::new();
    let outcome = gzip.inflate(limit, |_, bytes| {
        // The list of pages lives on the heap, which has its limits as well.
        pages.try_reserve(1).map_err(drop)?;
        let page = pool.take().ok_or(())?;
        pages.push(page.holding(m, bytes));
        Ok::<(), ()>(())
    });
    match outcome {
        Ok(size) => Ok(Kernel {
            header,
            size,
            source: Source::Pages(pages),
            format,
        }),
        Err(error) => {
            pages.into_iter().for_each(|page| pool.give(page));
            Err(match error {
                InflateError::Gzip(error) => LoadError::Gzip(error),
                InflateError::Sink(()) => LoadError::OutOfPages,
            })
        }
    }
}

impl Loaded {
    fn new(placement: Placement, kernel: Kernel, modules: &Modules<'_>) -> Self {
        let mut contents = Vec::from([Content::new(placement.kernel, kernel.source)]);
        if let (Some(range), Some(ramdisk)) = (placement.ramdisk, &modules.ramdisk) {
            contents.push(Content::new(range, Source::Memory(ramdisk.at)));
        }
        Self {
            contents,
            entry: placement.kernel.start,
            tree: placement.tree,
            ramdisk: placement.ramdisk,
            format: kernel.format,
            has_tree: false,
        }
    }

    /// Where the ramdisk is.
    #[must_use]
    pub const fn ramdisk(&self) -> Option<IpaRange> {
        self.ramdisk
    }

    /// What the kernel is, for people.
    #[must_use]
    pub const fn format(&self) -> &'static str {
        self.format
    }

    /// Where the kernel is entered.
    #[must_use]
    pub const fn entry(&self) -> Ipa {
        self.entry
    }

    /// Gives the VM this device tree, in place of the one it had before its reset.
    pub fn set_tree(&mut self, blob: Vec<u8>) {
        if self.has_tree {
            self.contents.pop();
        }
        let range = IpaRange {
            start: self.tree,
            size: blob.len() as u64,
        };
        self.contents.push(Content::new(range, Source::Bytes(blob)));
        self.has_tree = true;
    }

    /// Pages of the pool that hold an unpacked kernel.
    #[must_use]
    pub fn page_count(&self) -> usize {
        self.contents.iter().map(Content::page_count).sum()
    }

    /// Gives the pages it holds back.
    pub fn give_back(self, pool: &PagePool) {
        self.contents
            .into_iter()
            .for_each(|content| content.give_back(pool));
    }
}
