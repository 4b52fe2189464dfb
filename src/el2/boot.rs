//! Boot: from a device tree to a machine that can run VMs, as a list of steps. Each refuses in one line.

mod ram;
mod tree;
mod vms;

use alloc::sync::Arc;
use alloc::vec::Vec;

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0, HCR_EL2};
use faultline::addr::{PAGE_SIZE, Pa, PaRange, Size};
use faultline::board::tree::Tree;
use faultline::board::{Board, Console, Gic as GicDescription};
use faultline::config::DomainConfig;
use faultline::features::{Features, Midr};
use faultline::guest_tree::Seed;
use faultline::options::{Crash, Options};
use faultline::smccc::Mitigations;
use faultline::stage2::Vmids;
use faultline::sysreg::id::RawIds;
use faultline::vgic::Version;
use faultline::vm::{Clock, Modules};
use tock_registers::interfaces::Readable;

use super::console::{self, log};
use super::driver::{gic::Gic, pl031};
use super::hyp_map::{self, TooRagged};
use super::interrupts::Sources;
use super::machine::{Cpu, identity};
use super::power::{self, refuse};
use super::refuse::{code, early_console};
use super::shared::Shared;
use super::smp::Arrival;
use super::sysreg::RNDR;
use super::{el3, ids, smp};

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
    let (blob, tree) = tree::device_tree(x0);
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
    ram::enough_ram(&board, blob);
    let bundle = vms::bundle(&board);
    let (domain, modules, module_ranges) = vms::domain(&board, &tree, blob, bundle);
    let mut taken = Vec::from([hyp_map::image(), blob]);
    taken.extend(bundle);
    taken.extend(&module_ranges);
    let stacks = mapped(smp::stacks(&board, &taken));
    taken.extend(&stacks);
    let pool = ram::ram(&board, &taken);
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
    if f.pa_bits > 48 {
        log!("", "unused   address bits above 48 (LPA2)");
    }
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

/// The page that holds `at`.
pub(super) fn page_of(at: Pa) -> PaRange {
    PaRange {
        start: at.page(),
        size: PAGE_SIZE,
    }
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
