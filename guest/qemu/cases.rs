//! The matrix: which guests boot on which machines, and what each must say.
use crate::lab::{Cpu, Lab};
use crate::run::{Case, Start, code};
use std::time::{SystemTime, UNIX_EPOCH};

/// What will be run, and what cannot be shown here.
pub(crate) struct Plan {
    pub(crate) cases: Vec<Case>,
    pub(crate) left_out: Vec<String>,
}

/// A machine: a CPU of the lab's and a GIC version; or the second board.
#[derive(Clone, Copy)]
enum Machine<'a> {
    Virt(&'a Cpu, u32),
    Raspi4b,
}

impl Machine<'_> {
    fn name(self) -> String {
        match self {
            Machine::Virt(cpu, gic) => format!("{} gic{gic}", cpu.model),
            Machine::Raspi4b => "raspi4b".into(),
        }
    }

    fn apply(self, case: Case) -> Case {
        match self {
            Machine::Virt(cpu, gic) => case.with("CPU", cpu.model).with("GIC", gic.to_string()),
            // Its firmware gives time to many devices; QEMU is slower to start than `virt`.
            Machine::Raspi4b => case.with("BOARD", "raspi4b"),
        }
    }
}

/// Guests that pass or fail by themselves, on every machine and with both policies of rights.
const MEMORY_GUESTS: [&str; 8] = [
    "founding_bug",
    "s1ptw",
    "page_crossing",
    "atomics",
    "first_touch",
    "integrity",
    "el0_pages",
    "aborts",
];
/// Guests that pass or fail by themselves, on every machine.
const OTHER_GUESTS: [&str; 4] = ["mmio_widths", "timer", "psci", "id_registers"];

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
    planner.behaviours();
    planner.bad_ends();
    planner.console_and_resets();
    planner.entries();
    planner.known_bad_build();
    planner.plan
}

struct Planner<'a> {
    lab: &'a Lab,
    everything: bool,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn add(&mut self, case: Case) {
        self.plan.cases.push(case);
    }

    fn leave_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.plan.left_out.contains(&what) {
            self.plan.left_out.push(what);
        }
    }

    /// The boot of a guest on a machine.
    fn boot(&self, guest: &str, machine: Machine, verdict: i32) -> Case {
        let case = Case::new(
            &self.lab.root,
            format!("{guest} {}", machine.name()),
            verdict,
        )
        .with("GUEST", guest);
        machine
            .apply(case)
            .with("GUEST_MEM", "128M")
            .with("MEM", "512M")
    }

    /// One CPU per kind that matters to stage 2, each once with every GIC version it is paired with.
    fn representatives(&mut self) -> Vec<Machine<'a>> {
        let lab = self.lab;
        let kinds: [(&str, fn(&Cpu) -> bool, u32); 5] = [
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
                None => self.leave_out(format!("{what} (no CPU of QEMU {} has it)", lab.version)),
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
                lab.version
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
                .says("permission fault, write")
                .says("permission fault, fetch -> ");
            let case = if dic {
                case.never("invalidated I-cache")
            } else {
                case.says("invalidated I-cache")
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
                for rights in ["eager", "lazy"] {
                    let mut case = self.boot(guest, machine, code::OK).with("RIGHTS", rights);
                    case.name
                        .push_str(if rights == "lazy" { " lazy" } else { "" });
                    self.add(
                        case.says(format!("PASS {guest}"))
                            .examined_by(gives_all_pages_back),
                    );
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

    /// A machine for what does not depend on the CPU.
    fn any(&self) -> Machine<'a> {
        // `probe` fails without a CPU, and every QEMU for arm64 has this one.
        let cpu = self
            .lab
            .cpu(|cpu| cpu.model == "cortex-a72")
            .unwrap_or(&self.lab.cpus[0]);
        Machine::Virt(cpu, 3)
    }

    /// Guests that must be stopped, or say that they failed; and crashes of our own.
    fn bad_ends(&mut self) {
        let any = self.any();
        for guest in ["no_vectors", "vector_loop"] {
            let case = self
                .boot(guest, any, code::STOPPED)
                .says("VBAR_EL1")
                .says("no exception vectors");
            self.add(case.never("FAIL"));
        }
        self.add(
            self.boot("exit_code", any, code::FAILED)
                .says("ending with code 7"),
        );
        self.add(self.boot("reset_loop", any, code::STOPPED));
        let mut case = self
            .boot("reset_loop", any, code::OK)
            .with("REBOOT", "stop");
        case.name.push_str(" REBOOT=stop");
        self.add(case);
        let case = self
            .boot("exhaustion", any, code::STOPPED)
            .with("MEM", "256M")
            .with("GUEST_MEM", "512M");
        self.add(
            case.says("touching all of 512 MiB")
                .never("touched all of")
                .never("panic"),
        );
        let mut case = self.boot("exhaustion", any, code::OK);
        case.name.push_str(" enough memory");
        self.add(
            case.says("PASS exhaustion")
                .examined_by(gives_all_pages_back)
                .within(120),
        );
        for how in ["abort", "panic", "stack"] {
            let mut case = self
                .boot("exit_code", any, code::CRASHED)
                .with("HOST_APPEND", format!("faultline.crash={how}"));
            case.name = format!("crash of EL2 by {how}");
            self.add(case.says("ESR_EL2").says("ELR_EL2").says("backtrace"));
        }
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
            .says("PASS reboot");
        case = case
            .with("APPEND", format!("until={}", now() + 10))
            .examined_by(booted_often);
        self.add(case.examined_by(gives_all_pages_back));
    }

    /// Ways into the image: EL3, EL1, without a device tree in x0, with a broken one, without VMs.
    fn entries(&mut self) {
        let any = self.any();
        let mut case = self
            .boot("tour", any, code::OK)
            .with("ENTRY", "el3")
            .says("It says 42.");
        case.name = "entry at EL3 with x0 = 0".into();
        self.add(case);
        // At EL1 there is nothing to power off with and no nonce was read: the line is what counts.
        let mut case = self
            .boot("tour", any, code::REFUSED)
            .with("ENTRY", "el1")
            .says("EL1")
            .within(5);
        case.name = "entry at EL1".into();
        self.add(case.ending_in(&[code::REFUSED, code::NO_VERDICT, code::TIME_LIMIT]));
        let mut case = self.boot("tour", any, code::REFUSED).with("BUNDLE", "no");
        case.name = "no VM described".into();
        self.add(case.ending_in(&[code::REFUSED, code::OK]).says("faultline"));
        let mut case = self
            .boot("tour", any, code::REFUSED)
            .with("MEM", "32M")
            .with("GUEST_MEM", "16M");
        case.name = "too little RAM".into();
        self.add(case.ending_in(&[code::REFUSED, code::OK]));
        self.trees();
    }

    /// Machines whose device tree is missing or broken, by QEMU's loader: one line on the early console, not silence.
    fn trees(&mut self) {
        let image = self
            .lab
            .root
            .join("target/qemu-logs/image-with-early-console");
        if let Err(error) = with_early_console(&self.lab.root.join("target/faultline.img"), &image)
        {
            return self.leave_out(format!("broken device trees ({error})"));
        }
        let machine = "-machine virt,virtualization=on,secure=on,gic-version=3 -cpu cortex-a72 -m 512M -smp 1";
        let loader = format!(
            "-device loader,file={},addr=0x40200000,cpu-num=0,force-raw=on",
            image.display()
        );
        // The loader writes after QEMU's own tree, which begins at RAM base: its magic, or its size.
        for (what, writes) in [
            (
                "no device tree",
                "-device loader,addr=0x40000000,data=0,data-len=8",
            ),
            (
                "a device tree of impossible size",
                "-device loader,addr=0x40000004,data=0xffffffff,data-len=4",
            ),
            (
                "a device tree whose structure lies outside",
                "-device loader,addr=0x40000008,data=0xffffff7f,data-len=4",
            ),
        ] {
            let line = format!("{machine} -nic none -display none -serial stdio {loader} {writes}");
            let arguments = line.split(' ').map(String::from).collect();
            let start = Start::Qemu(self.lab.qemu.clone(), arguments);
            self.add(
                Case::start(&self.lab.root, what.into(), start)
                    .says("faultline:")
                    .says("device tree")
                    .within(10),
            );
        }
    }

    fn known_bad_build(&mut self) {
        if !self.lab.known_bad {
            return self.leave_out(
                "the known-bad build (target/faultline-map-on-permission.img is not there)",
            );
        }
        let case = self
            .boot("founding_bug", self.any(), code::STOPPED)
            .never("PASS");
        let mut case = case
            .with("IMAGE", "target/faultline-map-on-permission.img")
            .says("permission");
        case.name = "known-bad build is stopped, and the rule named".into();
        self.add(case);
    }

    fn linux(&mut self) {
        if !self.lab.linux {
            return self.leave_out(
                "Linux (target/linux has no Image or initramfs.gz; `make setup` fetches)",
            );
        }
        let lab = self.lab;
        let promised: Vec<&Cpu> = lab.cpus.iter().filter(|cpu| cpu.promised).collect();
        for (n, cpu) in promised.iter().enumerate() {
            // Every promised CPU; GIC versions in turn, or both.
            let gics: &[u32] = if self.everything {
                &[2, 3]
            } else {
                &[[3, 2][n % 2]]
            };
            for &gic in gics {
                let case = self.linux_on(Machine::Virt(cpu, gic)).within(240);
                let case = case
                    .types("~ # ", "workload\n")
                    .types("workload: ", "date +%s\n");
                let case = case.types("~ # ", "cat /proc/interrupts; poweroff\n");
                self.add(
                    case.says("workload: PASS")
                        .says("arch_timer")
                        .examined_by(date_is_right)
                        .examined_by(gives_all_pages_back),
                );
            }
        }
        let any = self.any();
        let mut case = self
            .linux_on(any)
            .types("~ # ", "reboot\n")
            .types("~ # ", "poweroff\n")
            .within(240);
        case.name = "Linux reboots".into();
        self.add(case.examined_by(gives_all_pages_back));
        let mut case = self
            .linux_on(any)
            .types("", "ls /\npoweroff\n")
            .says("sbin")
            .within(180);
        case = case.with("EOF_KEYS", r"\nexit\n\004");
        case.name = "Linux with everything typed ahead".into();
        self.add(case);
        let sizes: &[&str] = if self.everything {
            &["128M", "1G", "3G"]
        } else {
            &["128M"]
        };
        for size in sizes {
            let case = self
                .linux_on(any)
                .with("GUEST_MEM", *size)
                .with("MEM", "4G");
            let mut case = case.types("~ # ", "poweroff\n").within(180);
            case.name = format!("Linux in {size}");
            self.add(case);
        }
        let case = self
            .linux_on(any)
            .with("MEM", "128M")
            .with("GUEST_MEM", "1G")
            .within(180);
        let case = case
            .types("~ # ", "dd if=/dev/zero of=/tmp/fill bs=1M\n")
            .ending_in(&[code::STOPPED]);
        let mut case = case.never("verdict=ok");
        case.name = "Linux uses up the machine's memory".into();
        self.add(case);
        if lab.raspi4b {
            let case = self
                .linux_on(Machine::Raspi4b)
                .within(300)
                .types("~ # ", "workload\n");
            self.add(
                case.types("workload: ", "poweroff\n")
                    .says("workload: PASS"),
            );
        }
    }

    fn linux_on(&self, machine: Machine) -> Case {
        let case = self
            .boot("linux", machine, code::OK)
            .with("GUEST", "./target/linux/Image");
        let case = case
            .with("INITRD", "./target/linux/initramfs.gz")
            .with("DOMAIN", "linux");
        let case = case
            .with("GUEST_MEM", "256M")
            .with("MEM", "1G")
            .says("Debian's Linux");
        let case = case
            .never("Kernel panic")
            .never("Call trace")
            .never("rcu_sched self-detected");
        case
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A copy of the image that knows a UART before it has read any tree (bytes 0x40 to 0x80, as make writes them).
fn with_early_console(image: &std::path::Path, copy: &std::path::Path) -> std::io::Result<()> {
    let mut bytes = std::fs::read(image)?;
    let text = b"pl011,0x9000000";
    bytes[0x40..0x80].fill(0);
    bytes[0x40..0x40 + text.len()].copy_from_slice(text);
    if let Some(folder) = copy.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(copy, bytes)
}

/// Nothing of the tour or of the boot log is wider than a terminal, and all of it is short.
fn fits_a_terminal(console: &str) -> Result<(), String> {
    match console
        .lines()
        .find(|line| line.trim_end().chars().count() > 80)
    {
        Some(line) => Err(format!("a line of more than 80 columns: {line}")),
        None => Ok(()),
    }
}

/// The hypervisor's summary says that every page of the VM came back.
fn gives_all_pages_back(console: &str) -> Result<(), String> {
    if console.contains("0 leaked") {
        Ok(())
    } else {
        Err("the summary does not say `0 leaked`".into())
    }
}

fn booted_often(console: &str) -> Result<(), String> {
    match console.matches("booted at ").count() {
        count @ ..3 => Err(format!("booted {count} times, not 3 or more")),
        _ => Ok(()),
    }
}

/// `date +%s` was answered within a few seconds of this machine's clock (it was asked some seconds ago).
fn date_is_right(console: &str) -> Result<(), String> {
    let now = now();
    let date = console.lines().find_map(|line| {
        let seconds: u64 = line.trim().parse().ok()?;
        (seconds > 1_000_000_000).then_some(seconds)
    });
    match date {
        Some(date) if now.abs_diff(date) <= 30 => Ok(()),
        Some(date) => Err(format!("`date` said {date}, this machine {now}")),
        None => Err("`date` said nothing".into()),
    }
}
