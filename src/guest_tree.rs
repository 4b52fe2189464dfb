//! The device tree a guest is given: complete for Linux and U-Boot, and nothing in it that is not there.
//!
//! Everything comes from [`crate::platform`] and from what is asked for; nothing of the board shows. The tree is built
//! anew at every start of the VM, so that its seeds are new too. Where it goes is [`crate::image::place`]'s business.
//!
//! Sources: Devicetree Specification 0.4; the bindings `arm,psci`, `arm,gic`, `arm,gic-v3`, `arm,arch_timer`, `pl011`,
//! `arm,pl031`, `fixed-clock` and `chosen`.

mod seed;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

pub use seed::{GuestSeed, Seed};

use crate::addr::{IpaRange, Size};
use crate::board::interrupt::{self, IntId};
use crate::image::TREE_MAX;
use crate::platform;

/// The GIC a guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicVersion {
    /// GICv2: the CPU interface is memory mapped.
    V2,
    /// GICv3: the CPU interface is system registers.
    V3,
}

/// What a guest's tree is to say.
#[derive(Clone, Copy, Debug)]
pub struct GuestTree<'a> {
    /// All of its RAM.
    pub memory: IpaRange,
    /// Parts of it that are not for general use: read-only or execute-never.
    pub reserved: &'a [IpaRange],
    /// Its vCPUs, 1 to 8; vCPU n has the affinity of [`platform::affinity`].
    pub vcpus: u32,
    /// Its interrupt controller.
    pub gic: GicVersion,
    /// Whether it has a PL011.
    pub console: bool,
    /// Whether its performance monitors interrupt.
    pub pmu: bool,
    /// Whether it has a PL031.
    pub rtc: bool,
    /// Its command line.
    pub bootargs: &'a str,
    /// Its ramdisk.
    pub ramdisk: Option<IpaRange>,
    /// Its randomness; `None`: no source, no property.
    pub seed: Option<&'a GuestSeed>,
}

/// Most vCPUs a tree can have: what GICv2's CPU masks have room for.
const VCPUS_MAX: u32 = 8;

/// Phandle of the interrupt controller.
const PHANDLE_GIC: u32 = 1;
/// Phandle of the fixed clock.
const PHANDLE_CLOCK: u32 = 2;

/// Interrupt specifier, third cell: level-sensitive, active high.
const LEVEL_HIGH: u32 = 4;
/// Interrupt specifier, third cell: where GICv2's mask of CPUs begins.
const PPI_MASK_SHIFT: u32 = 8;

/// Builds the tree.
///
/// # Errors
/// `TooLarge` if it would not fit where it goes, which only a huge command line can bring about; `Bootargs` for one with
/// a NUL in it; `Vcpus` for none or more than 8.
pub fn build(guest: &GuestTree<'_>) -> Result<Vec<u8>, GuestTreeError> {
    if guest.bootargs.contains('\0') {
        return Err(GuestTreeError::Bootargs);
    }
    if !(1..=VCPUS_MAX).contains(&guest.vcpus) {
        return Err(GuestTreeError::Vcpus(guest.vcpus));
    }
    let mut tree = DeviceTree::new();
    tree.root = Builder::new("")
        .strings("compatible", &["faultline,guest", "linux,dummy-virt"])
        .strings("model", &["Faultline guest"])
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .cells("interrupt-parent", &[PHANDLE_GIC])
        // Every device is EL2's, which reads and writes through the caches. Linux otherwise complains where a cache
        // line may be larger than it keeps buffers apart.
        .flag("dma-coherent")
        .child(chosen(guest))
        .optional(guest.console.then(aliases))
        .child(memory(guest))
        .optional((!guest.reserved.is_empty()).then(|| reserved(guest)))
        .child(cpus(guest))
        .child(psci())
        .child(timer(guest))
        .optional(guest.pmu.then(|| pmu(guest)))
        .child(gic(guest))
        .child(clock())
        .optional(guest.console.then(uart))
        .optional(guest.rtc.then(rtc))
        .node;
    let blob = tree.to_dtb();
    let size = blob.len() as u64;
    if size > TREE_MAX {
        Err(GuestTreeError::TooLarge(size))
    } else {
        Ok(blob)
    }
}

fn chosen(guest: &GuestTree<'_>) -> Builder {
    let mut chosen = Builder::new("chosen").strings("bootargs", &[guest.bootargs]);
    if guest.console {
        chosen = chosen.strings("stdout-path", &[&uart_path()]);
    }
    if let Some(ramdisk) = guest.ramdisk {
        chosen = chosen
            .number("linux,initrd-start", ramdisk.start.raw())
            .number("linux,initrd-end", ramdisk.end().raw());
    }
    if let Some(seed) = guest.seed {
        chosen = chosen
            .bytes("rng-seed", &seed.rng_seed)
            .number("kaslr-seed", seed.kaslr_seed);
    }
    chosen
}

fn aliases() -> Builder {
    Builder::new("aliases").strings("serial0", &[&uart_path()])
}

fn memory(guest: &GuestTree<'_>) -> Builder {
    Builder::at("memory", guest.memory).strings("device_type", &["memory"])
}

/// An operating system that took these for common memory would run into them.
fn reserved(guest: &GuestTree<'_>) -> Builder {
    let all = Builder::new("reserved-memory")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .cells("ranges", &[]);
    let parts = guest.reserved.iter();
    parts.fold(all, |all, part| {
        all.child(Builder::at("memory", *part).cells("no-map", &[]))
    })
}

fn cpus(guest: &GuestTree<'_>) -> Builder {
    let mut cpus = Builder::new("cpus")
        .cells("#address-cells", &[1])
        .cells("#size-cells", &[0]);
    for vcpu in 0..guest.vcpus {
        let affinity = platform::affinity(vcpu as usize);
        let cpu = Builder::new(&format!("cpu@{affinity:x}"))
            .strings("device_type", &["cpu"])
            .strings("compatible", &["arm,armv8"])
            .cells("reg", &[affinity as u32])
            .strings("enable-method", &["psci"]);
        cpus = cpus.child(cpu);
    }
    cpus
}

fn psci() -> Builder {
    Builder::new("psci")
        .strings("compatible", &["arm,psci-1.0", "arm,psci-0.2"])
        .strings("method", &["hvc"])
}

fn timer(guest: &GuestTree<'_>) -> Builder {
    let order = [
        platform::TIMER_SECURE,
        platform::TIMER_PHYSICAL,
        platform::TIMER_VIRT,
        platform::TIMER_HYP,
    ];
    Builder::new("timer")
        .strings("compatible", &["arm,armv8-timer"])
        .cells(
            "interrupts",
            order.map(|timer| specifier(guest, timer)).as_flattened(),
        )
        .cells("always-on", &[])
}

fn pmu(guest: &GuestTree<'_>) -> Builder {
    Builder::new("pmu")
        .strings("compatible", &["arm,armv8-pmuv3"])
        .cells("interrupts", &specifier(guest, platform::PMU_INTERRUPT))
}

fn gic(guest: &GuestTree<'_>) -> Builder {
    let gicr = platform::redistributors(guest.vcpus as usize);
    let (compatible, reg) = match guest.gic {
        GicVersion::V2 => ("arm,gic-400", [platform::GICD, platform::GICC]),
        GicVersion::V3 => ("arm,gic-v3", [platform::GICD, gicr]),
    };
    Builder::new(&unit("interrupt-controller", platform::GICD))
        .strings("compatible", &[compatible])
        .ranges("reg", &reg)
        .cells("interrupt-controller", &[])
        .cells("#interrupt-cells", &[3])
        .cells("#address-cells", &[0])
        .cells("phandle", &[PHANDLE_GIC])
}

fn clock() -> Builder {
    Builder::new("clock")
        .strings("compatible", &["fixed-clock"])
        .cells("#clock-cells", &[0])
        .cells("clock-frequency", &[platform::UART_CLOCK_HZ])
        .cells("phandle", &[PHANDLE_CLOCK])
}

fn uart() -> Builder {
    Builder::at("pl011", platform::UART)
        .strings("compatible", &["arm,pl011", "arm,primecell"])
        .cells("interrupts", &shared(platform::UART_INTERRUPT))
        .cells("clocks", &[PHANDLE_CLOCK, PHANDLE_CLOCK])
        .strings("clock-names", &["uartclk", "apb_pclk"])
}

fn rtc() -> Builder {
    Builder::at("pl031", platform::RTC)
        .strings("compatible", &["arm,pl031", "arm,primecell"])
        .cells("interrupts", &shared(platform::RTC_INTERRUPT))
        .cells("clocks", &[PHANDLE_CLOCK])
        .strings("clock-names", &["apb_pclk"])
}

/// The path of the console, for those that refer to it.
fn uart_path() -> String {
    format!("/{}", unit("pl011", platform::UART))
}

/// A node's name with the address of its first range.
fn unit(name: &str, range: IpaRange) -> String {
    format!("{name}@{:x}", range.start.raw())
}

/// An interrupt of a device, level-sensitive as all of them are.
fn shared(id: IntId) -> [u32; 3] {
    interrupt::specifier(id, LEVEL_HIGH)
}

/// A private interrupt: for GICv2 the specifier also names the CPUs that have it.
fn specifier(guest: &GuestTree<'_>, id: IntId) -> [u32; 3] {
    let mask = match guest.gic {
        GicVersion::V2 => ((1 << guest.vcpus) - 1) << PPI_MASK_SHIFT,
        GicVersion::V3 => 0,
    };
    interrupt::specifier(id, mask | LEVEL_HIGH)
}

/// A node being put together. Names are ours, so they are right.
struct Builder {
    node: DeviceTreeNode,
}

impl Builder {
    fn new(name: &str) -> Self {
        Self {
            node: DeviceTreeNode::new_unchecked(name),
        }
    }

    /// A node with one range, which also gives its unit address.
    fn at(name: &str, range: IpaRange) -> Self {
        Self::new(&unit(name, range)).ranges("reg", &[range])
    }

    fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.node
            .add_property(DeviceTreeProperty::new_unchecked(name, value));
        self
    }

    fn flag(self, name: &str) -> Self {
        self.bytes(name, &[])
    }

    fn cells(self, name: &str, cells: &[u32]) -> Self {
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.bytes(name, &bytes)
    }

    fn number(self, name: &str, number: u64) -> Self {
        self.bytes(name, &number.to_be_bytes())
    }

    fn ranges(self, name: &str, ranges: &[IpaRange]) -> Self {
        let numbers = ranges
            .iter()
            .flat_map(|range| [range.start.raw(), range.size]);
        let bytes: Vec<u8> = numbers.flat_map(u64::to_be_bytes).collect();
        self.bytes(name, &bytes)
    }

    fn strings(self, name: &str, strings: &[&str]) -> Self {
        let bytes: Vec<u8> = strings
            .iter()
            .flat_map(|text| text.bytes().chain([0]))
            .collect();
        self.bytes(name, &bytes)
    }

    fn child(mut self, child: Self) -> Self {
        self.node.add_child(child.node);
        self
    }

    fn optional(self, child: Option<Self>) -> Self {
        match child {
            Some(child) => self.child(child),
            None => self,
        }
    }
}

/// Why there is no tree. One line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestTreeError {
    /// It would be so many bytes large.
    TooLarge(u64),
    /// The command line has a NUL in it.
    Bootargs,
    /// A number of vCPUs it cannot describe.
    Vcpus(u32),
}

impl fmt::Display for GuestTreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(size) => {
                write!(
                    f,
                    "the guest's device tree would be {}; it can be {}",
                    Size(*size),
                    Size(TREE_MAX)
                )
            }
            Self::Bootargs => f.write_str("the guest's command line has a NUL in it"),
            Self::Vcpus(count) => write!(
                f,
                "no device tree for {count} vCPUs; there can be 1 to {VCPUS_MAX}"
            ),
        }
    }
}
