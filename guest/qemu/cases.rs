//! The matrix: which guests boot on which machines, and what each must say.
use crate::lab::{Cpu, Lab};
use crate::run::{Case, code};
use std::time::{SystemTime, UNIX_EPOCH};

/// What will be run, and what cannot be shown here.
pub(crate) struct Plan {
    pub(crate) cases: Vec<Case>,
    pub(crate) left_out: Vec<String>,
}

/// A machine: a CPU of the lab's and a GIC version; or the second board.
#[derive(Clone, Copy)]
pub(crate) enum Machine<'a> {
    Virt(&'a Cpu, u32),
    Raspi4b,
}

impl Machine<'_> {
    fn name(self) -> String {
        match self {
            Machine::Virt(cpu, gic) => format!("{} gic{gic} qemu{}", cpu.model, cpu.qemu.version),
            Machine::Raspi4b => "raspi4b".into(),
        }
    }

    pub(crate) fn apply(self, case: Case) -> Case {
        match self {
            Machine::Virt(cpu, gic) => {
                let case = case.with("QEMU", &*cpu.qemu.program);
                case.with("CPU", cpu.model).with("GIC", gic.to_string())
            }
            Machine::Raspi4b => case.with("BOARD", "raspi4b"),
        }
    }
}

/// Whether a CPU is of a kind.
type Fits = fn(&Cpu) -> bool;

/// Guests that pass or fail by themselves, on every machine and with both policies of rights.
const MEMORY_GUESTS: [&str; 9] = [
    "founding_bug",
    "s1ptw",
    "page_crossing",
    "atomics",
    "first_touch",
    "integrity",
    "el0_pages",
    "set_way",
    "par_kept",
];
/// Guests that pass or fail by themselves, on every machine.
const OTHER_GUESTS: [&str; 14] = [
    "aborts",
    "address_size",
    "mmio_widths",
    "pair_access",
    "timer",
    "psci",
    "offers",
    "id_registers",
    "every_register",
    "every_device",
    "timers",
    "debug",
    "gic_state",
    "hostile",
];

/// The parts of RAM that the guest `rom_and_xn` knows of: the ramdisk's place, some pages, and one page that is both.
const ROM_AND_XN: &str = "faultline,rom = <0 0x40200000 0 0x20000>, <0 0x46900000 0 0x1000>;\
    faultline,xn = <0 0x46803000 0 0x4000>, <0 0x46900000 0 0x1000>;";

/// Chooses cases for this lab: one representative per axis, or everything.
pub(crate) fn plan(lab: &Lab, everything: bool) -> Plan {
    let mut planner = Planner {
        lab,
        everything,
        plan: Plan {
            cases: Vec::new(),
            left_out: Vec::new(),
        },
    };
    // Longest first, so that the last ones to run are short.
    planner.linux();
    planner.tours();
    planner.costs();
    planner.behaviours();
    planner.granules();
    planner.kinds_of_memory();
    planner.crowds();
    planner.bare();
    planner.observed();
    planner.bad_ends();
    planner.console_and_resets();
    planner.entries();
    planner.refusals();
    planner.known_bad_build();
    planner.poisoned_build();
    planner.plan
}

/// Chooses.
pub(crate) struct Planner<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) everything: bool,
    plan: Plan,
}

impl<'a> Planner<'a> {
    pub(crate) fn add(&mut self, case: Case) {
        self.plan.cases.push(case);
    }

    pub(crate) fn leave_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.plan.left_out.contains(&what) {
            self.plan.left_out.push(what);
        }
    }

    /// The boot of a guest on a machine.
    pub(crate) fn boot(&self, guest: &str, machine: Machine, verdict: i32) -> Case {
        let case = Case::new(
            &self.lab.root,
            format!("{guest} {}", machine.name()),
            verdict,
        )
        .with("GUEST", guest);
        machine.apply(case).with("GUEST_MEM", "128M")
    }

    /// One CPU per kind that matters to stage 2, each once with every GIC version it is paired with.
    pub(crate) fn representatives(&mut self) -> Vec<Machine<'a>> {
        let lab = self.lab;
        let kinds: [(&str, Fits, u32); 5] = [
            (
                "a VIPT I-cache with DIC = 0",
                |cpu| cpu.vipt() && !cpu.dic(),
                2,
            ),
            (
                "a PIPT I-cache with DIC = 0",
                |cpu| !cpu.vipt() && !cpu.dic(),
                3,
            ),
            (
                "DIC = 0 with LSE and hardware access flags",
                |cpu| !cpu.dic() && cpu.lse() && cpu.hafdbs(),
                2,
            ),
            ("DIC = 1", Cpu::dic, 3),
            ("stage-2 forced write-back", Cpu::fwb, 3),
        ];
        let mut machines: Vec<Machine> = Vec::new();
        for (what, fits, gic) in kinds {
            match lab.cpu(fits) {
                Some(cpu) => {
                    let known = machines.iter().any(
                        |m| matches!(m, Machine::Virt(c, g) if c.model == cpu.model && *g == gic),
                    );
                    if !known {
                        machines.push(Machine::Virt(cpu, gic));
                    }
                }
                None => self.leave_out(format!(
                    "{what} (no CPU of QEMU {} has it)",
                    lab.qemu.version
                )),
            }
        }
        if let Some(max) = lab.cpu(|cpu| cpu.model == "max")
            && !machines
                .iter()
                .any(|m| matches!(m, Machine::Virt(c, _) if c.model == "max"))
        {
            machines.push(Machine::Virt(max, 3));
        }
        if self.everything {
            let all = lab
                .cpus
                .iter()
                .flat_map(|cpu| [Machine::Virt(cpu, 2), Machine::Virt(cpu, 3)]);
            machines = all.collect();
        }
        if lab.raspi4b {
            machines.push(Machine::Raspi4b);
        } else {
            self.leave_out(format!(
                "BOARD=raspi4b (QEMU {} does not have it)",
                lab.qemu.version
            ));
        }
        machines
    }

    /// The tour on every representative; what it says of the CPU is true of the CPU.
    fn tours(&mut self) {
        for machine in self.representatives() {
            let dic = matches!(machine, Machine::Virt(cpu, _) if cpu.dic());
            let case = self.boot("tour", machine, code::OK).says("It says 42.");
            let case = case.says(if dic { "(DIC = 1)" } else { "(DIC = 0)" });
            let case = case
                .says("permission fault on a write ->")
                .says("permission fault on a fetch -> made executable");
            let case = if dic {
                case.never("I-cache invalidated")
            } else {
                case.says("I-cache invalidated")
            };
            let case = case
                .says("synchronous external abort")
                .never("no Faultline beneath");
            self.add(case.examined_by(fits_a_terminal));
        }
    }

    fn behaviours(&mut self) {
        for machine in self.representatives() {
            for guest in MEMORY_GUESTS {
                // The default, and every page and right by itself.
                for (rights, granule) in [("eager", "auto"), ("lazy", "4k")] {
                    self.memory_guest(guest, machine, rights, granule);
                }
            }
            for guest in OTHER_GUESTS {
                let case = self
                    .boot(guest, machine, code::OK)
                    .says(format!("PASS {guest}"));
                self.add(case.examined_by(gives_all_pages_back));
            }
        }
    }

    /// The other sizes of what one fault brings.
    fn granules(&mut self) {
        let machines = if self.everything {
            self.representatives()
        } else {
            Vec::from([self.any()])
        };
        for machine in machines {
            for guest in MEMORY_GUESTS {
                for (rights, granule) in [("lazy", "64k"), ("lazy", "2m"), ("eager", "1g")] {
                    self.memory_guest(guest, machine, rights, granule);
                }
            }
        }
    }

    /// Memory that is not to be used in every way, and IPA spaces of each size.
    fn kinds_of_memory(&mut self) {
        let lab = self.lab;
        let any = self.any();
        // Whose walker sets flags, if there is one.
        let updating = lab.cpu(Cpu::hafdbs).map(|cpu| Machine::Virt(cpu, 3));
        for machine in std::iter::once(any).chain(updating) {
            for (rights, granule) in [("eager", "auto"), ("lazy", "4k")] {
                let mut case = self
                    .boot("rom_and_xn", machine, code::OK)
                    .with("INITRD", "target/guest/rom_and_xn.bin")
                    .with("PROPERTIES", ROM_AND_XN)
                    .with("RIGHTS", rights)
                    .with("GRANULE", granule)
                    .says("PASS rom_and_xn");
                case.name.push_str(&format!(" {rights} {granule}"));
                self.add(case.examined_by(gives_all_pages_back));
            }
        }
        for bits in [36, 42, 44] {
            let mut case = self
                .boot("address_size", any, code::OK)
                .with("PROPERTIES", format!("faultline,ipa-bits = <{bits}>;"))
                .with("APPEND", format!("bits={bits}"))
                .says("PASS address_size");
            case.name.push_str(&format!(" {bits} bits"));
            self.add(case);
        }
    }

    fn memory_guest(&mut self, guest: &str, machine: Machine, rights: &str, granule: &str) {
        let mut case = self.boot(guest, machine, code::OK);
        case.name.push_str(&format!(" {rights} {granule}"));
        let case = case.with("RIGHTS", rights).with("GRANULE", granule);
        self.add(
            case.says(format!("PASS {guest}"))
                .examined_by(gives_all_pages_back),
        );
    }

    /// A machine for what does not depend on the CPU.
    pub(crate) fn any(&self) -> Machine<'a> {
        // `probe` fails without a CPU, and every QEMU for arm64 has this one.
        let cpu = self
            .lab
            .cpu(|cpu| cpu.model == "cortex-a72")
            .unwrap_or(&self.lab.cpus[0]);
        Machine::Virt(cpu, 3)
    }

    fn console_and_resets(&mut self) {
        for gic in [2, 3] {
            let Machine::Virt(cpu, _) = self.any() else {
                continue;
            };
            let machine = Machine::Virt(cpu, gic);
            let case = self
                .boot("uart_echo", machine, code::OK)
                .says("polled: hello, world");
            let case = case
                .types("type a line", "hello, world\n")
                .types("and another", "a second line\n");
            self.add(
                case.says("by some interrupts: a second line")
                    .says("PASS uart_echo"),
            );
            // Everything typed before the guest listens, as `printf … | make run` does: no byte may be lost.
            let mut case = self
                .boot("uart_echo", machine, code::OK)
                .types("", "hello, world\na second line\n");
            case.name.push_str(" typed ahead");
            self.add(
                case.says("polled: hello, world")
                    .says("a second line")
                    .says("PASS uart_echo"),
            );
        }
        let mut case = self
            .boot("reboot", self.any(), code::OK)
            .asked("again?", 4)
            .says("PASS reboot");
        case = case.examined_by(clock_goes_on);
        self.add(case.examined_by(gives_all_pages_back));
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Nothing the tour says is wider than a terminal.
fn fits_a_terminal(console: &str) -> Result<(), String> {
    let tour = console.split("I am a guest").nth(1).unwrap_or("");
    let tour = tour.split("I switch myself off").next().unwrap_or("");
    match tour
        .lines()
        .find(|line| line.trim_end().chars().count() > 80)
    {
        Some(line) => Err(format!("a line of more than 80 columns: {line}")),
        None => Ok(()),
    }
}

/// The hypervisor's accounts say that every page of the VM came back, each time it was off.
pub(crate) fn gives_all_pages_back(console: &str) -> Result<(), String> {
    let leaks = console.lines().filter_map(|line| {
        line.split(" pages leaked")
            .next()
            .filter(|part| *part != line)
    });
    let mut counts = leaks
        .map(|line| line.split_whitespace().last().unwrap_or("?"))
        .peekable();
    if counts.peek().is_none() {
        return Err("no word of leaked pages".into());
    }
    match counts.find(|count| *count != "0") {
        Some(count) => Err(format!("{count} pages leaked")),
        None => Ok(()),
    }
}

/// Over its resets the guest's clock went on with ours.
fn clock_goes_on(console: &str) -> Result<(), String> {
    let boots = console.split("booted at ").skip(1);
    let mut last = now() - 600;
    for boot in boots {
        let time = boot.split_whitespace().next().unwrap_or("");
        match time.parse() {
            Ok(time) if (last..=now()).contains(&time) => last = time,
            _ => return Err(format!("booted at {time}, after {last}")),
        }
    }
    Ok(())
}
