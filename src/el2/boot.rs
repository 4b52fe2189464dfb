//! Boot: from a device tree to a machine that can run VMs, as a list of steps. Each refuses in one line.

use alloc::sync::Arc;
use alloc::vec::Vec;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, HCR_EL2};
use faultline::addr::{PAGE_SIZE, Pa, PaRange, Size};
use faultline::board::tree::{SIZE_PREFIX, Tree};
use faultline::board::{Board, Console, Gic as GicDescription};
use faultline::config::{self, DomainConfig, Origin};
use faultline::features::{Features, Midr};
use faultline::guest_tree::Seed;
use faultline::options::{Crash, Options};
use faultline::page_pool::PagePool;
use faultline::smccc::Mitigations;
use faultline::stage2::Vmids;
use faultline::sysreg::id::RawIds;
use faultline::vgic::Version;
use faultline::vm::{Bytes, Clock, Modules};
use tock_registers::interfaces::Readable;

use super::console::{self, log};
use super::driver::{gic::Gic, pl031};
use super::hyp_map::{self, TooRagged, Use};
use super::interrupts::Sources;
use super::machine::{Cpu, identity};
use super::power::{self, refuse};
use super::refuse::{code, early_console};
use super::shared::Shared;
use super::smp::Arrival;
use super::sysreg::RNDR;
use super::{el3, exception, heap, ids, smp};

/// Less than this is too little to run anything: 1 MiB.
const LEAST_RAM: u64 = 1 << 20;
/// The most RAM the pool takes, more than any guest can have: its book-keeping, 40 KiB a GiB, lies on the heap.
const POOL_MOST: u64 = 96 << 30;
/// How far below the image a tree may lie that nobody told us of: QEMU's RAM base.
const TREE_BELOW_IMAGE: u64 = 2 << 20;
/// Bits of an address in EL2's own map.
const ADDRESS_BITS: u32 = 48;
/// Room for a tree that nobody told us of.
const PROBE_SIZE: u64 = PAGE_SIZE;

/// A machine that can run VMs.
pub(super) struct Machine {
    pub(super) cpu: Cpu,
    pub(super) shared: &'static Shared,
    pub(super) ids: RawIds,
    pub(super) vmids: Arc<Vmids>,
    pub(super) vcpu_interface: Option<Pa>,
    pub(super) domain: DomainConfig,
    pub(super) modules: Modules<'static>,
    pub(super) clock: Option<Clock>,
    pub(super) seed: Option<Seed>,
    pub(super) crash: Option<Crash>,
    pub(super) mitigations: Mitigations,
}

/// All steps.
pub(super) fn boot(x0: Pa) -> Machine {
    let (blob, tree) = device_tree(x0);
    open_console(&tree);
    let options = options(&tree);
    let board = Board::from_tree(&tree).unwrap_or_else(|error| refuse(format_args!("{error}")));
    power::prepare(board.psci.filter(|_| !el3::is_ours()), board.watchdog);
    greet(&board, blob);
    let mut features = cpu();
    options
        .warnings
        .iter()
        .for_each(|warning| log!("warning", "{warning}"));
    enough_ram(&board, blob);
    let bundle = bundle(&board);
    let (domain, modules, module_ranges) = domain(&board, &tree, blob, bundle);
    let mut taken = Vec::from([hyp_map::image(), blob]);
    taken.extend(bundle);
    taken.extend(&module_ranges);
    let stacks = mapped(smp::stacks(&board, &taken));
    taken.extend(&stacks);
    let pool = ram(&board, &taken);
    check_gic(&board.gic);
    let gic = mapped(Gic::new(&board.gic));
    let sources = Sources::of(&board);
    sources.enable_private(&gic);
    sources.enable_shared(&gic);
    log!(
        "gic",
        "{}, {} list registers; timers {} and {}, maintenance {}",
        gic_name(&gic),
        gic.list_register_count(),
        board.timer.virt,
        board.timer.physical,
        board.gic.maintenance()
    );
    let mut cpu = Cpu::new(0, &features, gic.clone());
    let cpus = smp::start_all(&board, &stacks, &gic, sources, &mut cpu);
    let alone = features;
    let (all, ids, mitigations) = in_common(&cpus);
    features = all;
    if features.pa_bits < alone.pa_bits || features.vmid_bits < alone.vmid_bits {
        log!(
            "",
            "all have {} bits of PA and {} of VMID",
            features.pa_bits,
            features.vmid_bits
        );
    }
    let clock = clock(&board, &options);
    let seed = seed(&board, &options, blob, &features);
    // A run that is to be like another offers guests no randomness of its own.
    features.rng &= options.seed.is_none();
    Machine {
        ids,
        vmids: Arc::new(Vmids::new(&features)),
        shared: Shared::publish(pool, features, sources, cpus),
        cpu,
        vcpu_interface: match &board.gic {
            GicDescription::V2 { vcpu_interface, .. } => Some(vcpu_interface.start),
            GicDescription::V3 { .. } => None,
        },
        domain,
        modules,
        clock,
        seed,
        crash: options.crash,
        mitigations,
    }
}

/// What holds on all CPUs, for guests may run on any: what they can do, what their ID registers say, what is known of their
/// weaknesses. Who the CPU is comes from the first.
fn in_common(cpus: &[&Arrival]) -> (Features, RawIds, Mitigations) {
    let of = |cpu: &Arrival| {
        let known = Mitigations::new(cpu.features.midr, cpu.features.pfr0);
        (cpu.features, cpu.ids.clone(), known)
    };
    let each = cpus.iter().map(|cpu| of(cpu));
    let all = each.reduce(|(features, ids, known), (its, its_ids, its_known)| {
        (features.and(&its), ids.and(&its_ids), known.and(its_known))
    });
    if let [first, others @ ..] = cpus
        && let Some(other) = others
            .iter()
            .find(|other| other.features.midr != first.features.midr)
    {
        log!(
            "cpus",
            "{} and {}: guests are told of the first, and see what all have",
            Midr(first.features.midr),
            Midr(other.features.midr)
        );
    }
    all.unwrap_or_else(|| {
        let this = ids::features();
        (this, ids::raw(), Mitigations::new(this.midr, this.pfr0))
    })
}

/// The tree firmware passed, or one that lies where QEMU puts it.
fn device_tree(x0: Pa) -> (PaRange, Tree<'static>) {
    let below = hyp_map::image()
        .start
        .raw()
        .checked_sub(TREE_BELOW_IMAGE)
        .map(Pa::new);
    let named = (x0.raw() != 0).then(|| tree_at(x0));
    if let Some(Ok(found)) = named {
        return found;
    }
    // `x0` without a tree: QEMU's place, if there is one.
    let there = below.map(tree_at);
    if let Some(Ok(found)) = there {
        return found;
    }
    if !early_console() {
        power::wait_for_ever(code::NO_TREE);
    }
    match (named, there, below) {
        (Some(Err(why)), ..) => refuse(format_args!("no device tree at {x0} (x0): {why}")),
        (None, Some(Err(why)), Some(at)) => {
            refuse(format_args!("no device tree at {at} (x0 = {x0}): {why}"))
        }
        _ => refuse(format_args!("no device tree: none was passed in x0")),
    }
}

fn tree_at(at: Pa) -> Result<(PaRange, Tree<'static>), &'static str> {
    if !at.is_aligned(8) {
        return Err("its address is no multiple of 8");
    }
    if at.raw() >> ADDRESS_BITS != 0 {
        return Err("its address has more than 48 bits");
    }
    let too_ragged = |TooRagged| "the map of EL2 has no room for it";
    hyp_map::map(
        PaRange {
            start: at,
            size: PROBE_SIZE,
        },
        Use::Data,
    )
    .map_err(too_ragged)?;
    exception::probe(at).ok_or("there is no memory")?;
    let size = Tree::total_size(bytes(PaRange {
        start: at,
        size: SIZE_PREFIX as u64,
    }))
    .map_err(describe)?;
    let range = PaRange::new(at, size as u64).ok_or("it would end past the address space")?;
    hyp_map::map(range, Use::Data).map_err(too_ragged)?;
    exception::probe(Pa::new((range.end().raw() - 1) & !3)).ok_or("its end is no memory")?;
    let tree = Tree::parse(bytes(range)).map_err(describe)?;
    Ok((range, tree))
}

fn describe(error: faultline::board::tree::TreeError) -> &'static str {
    alloc::format!("{error}").leak()
}

/// Memory that is mapped at EL2 and that nobody writes while we run, as bytes.
fn bytes(range: PaRange) -> &'static [u8] {
    // SAFETY: the callers map the range first; it holds a device tree or a module, which boot reserves and nobody writes.
    unsafe { core::slice::from_raw_parts(identity::<u8>(range.start), range.size as usize) }
}

fn open_console(tree: &Tree<'_>) {
    let console = Console::from_tree(tree);
    match console {
        Ok(console) => mapped(console::open(&console)),
        Err(error) => {
            if !early_console() {
                power::wait_for_ever(code::NO_CONSOLE);
            }
            refuse(format_args!("{error}"));
        }
    }
}

/// The host's command line, read before the board is, so that a refusal has its nonce.
fn options(tree: &Tree<'_>) -> Options {
    let chosen = tree.find("/chosen");
    let property = |name| chosen.as_ref()?.property(name);
    let line = property("xen,xen-bootargs").or_else(|| property("bootargs"));
    let options = Options::parse(
        line.as_ref()
            .and_then(|line| line.string())
            .unwrap_or_default(),
    );
    power::note_nonce(options.nonce.clone());
    options
}

fn mapped<T>(result: Result<T, TooRagged>) -> T {
    result.unwrap_or_else(|TooRagged| {
        refuse(format_args!(
            "memory is in too many pieces for the map of EL2"
        ))
    })
}

fn greet(board: &Board, blob: PaRange) {
    console::print(format_args!(
        "\nFaultline {}: an arm64 hypervisor that gives memory one fault at a time\n",
        env!("CARGO_PKG_VERSION")
    ));
    let cpus = board.cpus.len();
    let plural = if cpus == 1 { "" } else { "s" };
    log!(
        "board",
        "{}, {cpus} CPU{plural}; image at {}, device tree at {}",
        board.model.escape_debug(),
        hyp_map::image().start,
        blob.start
    );
}

/// This CPU, its capabilities, and whether they suffice.
fn cpu() -> Features {
    let f = ids::features();
    let c = f.coherence;
    let bit = u8::from;
    log!(
        "cpu",
        "{}, EL2, PA {} bits, VMID {} bits, counter {} kHz",
        Midr(f.midr),
        f.pa_bits,
        f.vmid_bits,
        CNTFRQ_EL0.get() / 1000
    );
    log!(
        "",
        "caches   DIC {}  IDC {}  FWB {}  {}  lines D {} B, I {} B",
        bit(c.dic),
        bit(c.idc),
        bit(c.fwb),
        if c.pipt { "PIPT" } else { "VIPT" },
        f.dcache_line,
        f.icache_line
    );
    log!(
        "",
        "stage 2  XNX {}  HAFDBS {}  BBM {}  TTL {}  range TLBI {}  FGT {}  HCX {}",
        bit(f.xnx),
        f.hafdbs,
        f.bbm,
        bit(f.ttl),
        bit(f.tlbi_range),
        bit(f.fgt),
        bit(f.hcx)
    );
    // What a CPU may have and stage 2 leaves alone.
    log!(
        "",
        "unused   {}BBM levels: blocks and tables change by break-before-make; contiguous hint",
        if f.pa_bits > 48 {
            "address bits above 48 (LPA2); "
        } else {
            ""
        }
    );
    if !f.granule_4k {
        refuse(format_args!("this CPU has no 4 KiB granule at stage 2"));
    }
    if HCR_EL2.is_set(HCR_EL2::E2H) {
        refuse(format_args!(
            "this CPU cannot turn HCR_EL2.E2H off; Faultline runs at EL2 without it"
        ));
    }
    if CNTFRQ_EL0.get() == 0 {
        refuse(format_args!(
            "firmware left CNTFRQ_EL0 at 0: the counter's frequency is unknown"
        ));
    }
    f
}

/// The initrd, if there is one: a VM bundle.
fn bundle(board: &Board) -> Option<PaRange> {
    let range = board.chosen.initrd?;
    map_module(board, range, "the initrd");
    Some(range)
}

fn map_module(board: &Board, range: PaRange, what: &str) {
    if !is_ram(board, range) {
        refuse(format_args!("{what} at {range} does not lie in RAM"));
    }
    if range.overlaps(&hyp_map::image()) {
        refuse(format_args!(
            "{what} at {range} overlaps the hypervisor at {}",
            hyp_map::image()
        ));
    }
    if let Some(theirs) = board
        .reserved
        .iter()
        .find(|reserved| reserved.no_map && reserved.range.overlaps(&range))
    {
        refuse(format_args!(
            "{what} at {range} lies in reserved memory, {}",
            theirs.range
        ));
    }
    mapped(hyp_map::map(range, Use::ReadOnly));
}

/// The VM to run, with its modules' bytes and where they lie.
fn domain(
    board: &Board,
    host: &Tree<'static>,
    host_range: PaRange,
    initrd: Option<PaRange>,
) -> (DomainConfig, Modules<'static>, Vec<PaRange>) {
    let own = initrd.filter(|range| config::is_bundle(bytes(*range)));
    if initrd.is_some() && own.is_none() {
        log!(
            "warning",
            "the initrd is no VM bundle (a .dtb) and is ignored"
        );
    }
    let parsed = match own {
        Some(range) => match Tree::parse(bytes(range)) {
            Ok(tree) => config::parse(&tree, Origin::Bundle),
            Err(error) => refuse(format_args!("VM bundle: {error}")),
        },
        None => config::parse(host, Origin::HostTree),
    };
    let config = parsed.unwrap_or_else(|error| refuse(format_args!("{error}")));
    config
        .warnings
        .iter()
        .for_each(|warning| log!("warning", "{warning}"));
    let Some(domain) = config.domains.into_iter().next() else {
        refuse(format_args!("no VM is described"))
    };
    let base = own.unwrap_or(host_range).start;
    let range_of = |module: &config::Module| {
        module
            .range(base)
            .unwrap_or_else(|| refuse(format_args!("a module ends past the address space")))
    };
    let kernel = range_of(&domain.kernel);
    let ramdisk = domain.ramdisk.as_ref().map(range_of);
    let ranges: Vec<PaRange> = [Some(kernel), ramdisk].into_iter().flatten().collect();
    ranges
        .iter()
        .for_each(|range| map_module(board, *range, "a module"));
    let held = |range: PaRange| Bytes {
        bytes: bytes(range),
        at: range.start,
    };
    (
        domain,
        Modules {
            kernel: held(kernel),
            ramdisk: ramdisk.map(held),
        },
        ranges,
    )
}

/// The page that holds `at`.
pub(super) fn page_of(at: Pa) -> PaRange {
    PaRange {
        start: at.page(),
        size: PAGE_SIZE,
    }
}

/// Maps all RAM that is free and gives it to the pool.
fn ram(board: &Board, taken: &[PaRange]) -> PagePool {
    let pool = PagePool::new();
    let mut room = POOL_MOST;
    for range in board.free_ram(taken) {
        let part = PaRange {
            start: range.start,
            size: range.size.min(room),
        };
        room -= part.size;
        mapped(hyp_map::map(part, Use::Data));
        pool.add(part);
    }
    if room == 0 {
        log!(
            "warning",
            "RAM beyond the first {} is not used",
            Size(POOL_MOST)
        );
    }
    let all: u64 = board.ram.iter().map(|bank| bank.size).sum();
    let free = pool.account().total * PAGE_SIZE;
    let (heap_used, heap_size) = heap::usage();
    log!(
        "memory",
        "{} of RAM, {} of it in the page pool; heap {} of {}",
        Size(all),
        Size(free),
        Size(heap_used as u64),
        Size(heap_size as u64)
    );
    refuse_little(free, all);
    pool
}

/// A GICv2's windows are used as the architecture lays them out; a tree that gives them less is wrong, and what follows
/// them is not ours.
fn check_gic(gic: &GicDescription) {
    /// GICC and GICV: two pages, GICC_DIR begins the second.
    const CPU_INTERFACE: u64 = 0x2000;
    let GicDescription::V2 {
        cpu_interface,
        vcpu_interface,
        ..
    } = gic
    else {
        return;
    };
    for (name, range) in [("GICC", cpu_interface), ("GICV", vcpu_interface)] {
        if !range.start.is_aligned(PAGE_SIZE) || range.size < CPU_INTERFACE {
            refuse(format_args!(
                "device tree: {name} at {range} must be page aligned and {} long",
                Size(CPU_INTERFACE)
            ));
        }
    }
}

/// Before anything else needs it: is there RAM besides our image?
fn enough_ram(board: &Board, blob: PaRange) {
    let image = hyp_map::image();
    if !is_ram(board, image) {
        refuse(format_args!(
            "too little RAM: the device tree's does not hold the hypervisor itself, at {image}"
        ));
    }
    let free = board.free_ram(&[image, blob]);
    refuse_little(
        free.iter().map(|range| range.size).sum(),
        board.ram.iter().map(|bank| bank.size).sum(),
    );
}

/// Whether a range lies in one bank of RAM.
fn is_ram(board: &Board, range: PaRange) -> bool {
    board
        .ram
        .iter()
        .any(|bank| bank.intersect(&range) == Some(range))
}

fn refuse_little(free: u64, all: u64) {
    if free < LEAST_RAM {
        refuse(format_args!(
            "too little RAM: {} of {} are free, {} is the least",
            Size(free),
            Size(all),
            Size(LEAST_RAM)
        ));
    }
}

const fn gic_name(gic: &Gic) -> &'static str {
    match gic.version() {
        Version::V2 => "GICv2",
        Version::V3 => "GICv3",
    }
}

/// The time of day: from the board's clock, else from the command line.
fn clock(board: &Board, options: &Options) -> Option<Clock> {
    let uptime = CNTPCT_EL0.get() / CNTFRQ_EL0.get();
    let from_rtc = board
        .rtc
        .map(|registers| mapped(pl031::read(registers)).saturating_sub(uptime));
    let epoch = from_rtc.or(options.epoch);
    if epoch.is_none() {
        log!(
            "clock",
            "nobody knows the time of day: guests get no PL031 (faultline.epoch=SECONDS sets it)"
        );
    }
    epoch.map(|epoch| Clock { epoch })
}

/// Randomness for guests; what the boot loader left in the tree is wiped there.
fn seed(board: &Board, options: &Options, blob: PaRange, features: &Features) -> Option<Seed> {
    for place in &board.chosen.secrets {
        let start = identity::<u8>(blob.start.add(place.start as u64));
        // SAFETY: inside the tree, which is mapped writable and of which no reference to these bytes is left.
        unsafe { core::ptr::write_bytes(start, 0, place.len()) };
    }
    let seed = match options.seed {
        Some(number) => Some(Seed::from_number(number)),
        None => random(features).or_else(|| Seed::from_bytes(&board.chosen.seed)),
    };
    if seed.is_none() {
        log!(
            "seed",
            "no source of randomness: guests get no rng-seed and no kaslr-seed"
        );
    }
    seed
}

/// 32 bytes of FEAT_RNG.
fn random(features: &Features) -> Option<Seed> {
    if !features.rng {
        return None;
    }
    let words: [u64; 4] = core::array::from_fn(|_| RNDR.get());
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // A failed RNDR reads as zero.
    if words.contains(&0) {
        None
    } else {
        Seed::from_bytes(&bytes)
    }
}
