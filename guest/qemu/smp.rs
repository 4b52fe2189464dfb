//! Guests with several CPUs: on bare QEMU, which says whether they ask for what the architecture gives, and on Faultline
//! with as many physical CPUs, with fewer, and with one.
use crate::cases::{Machine, Planner, gives_all_pages_back};
use crate::lab::Cpu;
use crate::run::{Case, Start, VIRTUAL_TIME, code};

/// Guests for several CPUs that pass or fail by themselves.
const GUESTS: [&str; 15] = [
    "smp_start",
    "psci_race",
    "sgi",
    "same_pages",
    "own_tables",
    "wakeups",
    "fp_isolation",
    "pmu",
    "self_modifying",
    "timers",
    "debug",
    "gic_state",
    "par_kept",
    "id_registers",
    "hostile",
];
/// Those that say most when the CPUs really run at once. A QEMU thread per CPU costs ten times the time where CPUs spin.
const RACES: [&str; 4] = ["smp_start", "same_pages", "self_modifying", "wakeups"];
/// Those that are about stage 2, and so about the policy of rights.
const MEMORY: [&str; 3] = ["same_pages", "self_modifying", "par_kept"];
/// One QEMU thread for all CPUs: a CPU that waits in WFE lets the next one run at once.
const ONE_THREAD: &str = "-accel tcg,thread=single";

/// The ramdisk that is lent to the guest `lent_blocks`: five blocks of 2 MiB, and what its words are, by their number.
const LENT_BYTES: u64 = 10 << 20;
const LENT_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Resets with all CPUs at something.
const RESETS: usize = 6;

/// vCPUs, and the pCPUs that run them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Count {
    vcpus: u32,
    pcpus: u32,
}

const fn on(vcpus: u32, pcpus: u32) -> Count {
    Count { vcpus, pcpus }
}

impl<'a> Planner<'a> {
    /// The oracle: our guests on a machine without a hypervisor.
    pub(crate) fn bare(&mut self) {
        let Machine::Virt(cpu, _) = self.any() else {
            return;
        };
        let cpus: Vec<&Cpu> = if self.everything {
            self.lab.cpus.iter().collect()
        } else {
            vec![cpu]
        };
        for cpu in cpus {
            for gic in [2, 3] {
                for guest in GUESTS.iter().chain(&["smp_stop"]) {
                    self.add(self.on_bare_qemu(guest, cpu, gic));
                }
            }
            self.add(self.on_bare_qemu("address_size", cpu, 3));
        }
    }

    pub(crate) fn on_bare_qemu(&self, guest: &str, cpu: &Cpu, gic: u32) -> Case {
        let machine = format!("virt,gic-version={gic}");
        let binary = self.lab.root.join(format!("target/guest/{guest}.bin"));
        let binary = binary.to_string_lossy();
        let mut arguments = vec!["-machine", &machine, "-cpu", cpu.model, "-smp", "4"];
        arguments.extend(["-m", "256M", "-nic", "none", "-display", "none"]);
        arguments.extend(["-serial", "stdio", "-kernel", &binary]);
        arguments.extend(ONE_THREAD.split(' '));
        let arguments = arguments.into_iter().map(String::from).collect();
        let name = format!(
            "bare: {guest} {} gic{gic} qemu{}",
            cpu.model, cpu.qemu.version
        );
        let start = Start::Qemu(cpu.qemu.program.clone(), arguments);
        Case::start(&self.lab.root, name, start)
            .says(format!("PASS {guest}"))
            .never("FAIL")
    }

    /// A guest with several vCPUs on a machine with so many pCPUs.
    fn crowd(&self, guest: &str, machine: Machine, count: Count) -> Case {
        let mut case = self.boot(guest, machine, code::OK);
        case.name
            .push_str(&format!(" {} on {}", count.vcpus, count.pcpus));
        if matches!(machine, Machine::Virt(..)) {
            case = case.with("SMP", count.pcpus.to_string());
        }
        if count.vcpus > count.pcpus {
            case = case.with("APPEND", "crowded");
        }
        case.with("VCPUS", count.vcpus.to_string())
            .with("QEMU_ARGS", ONE_THREAD)
            .examined_by(gives_all_pages_back)
    }

    /// Each behaviour with several vCPUs.
    pub(crate) fn crowds(&mut self) {
        for (machine, count) in self.crowded_machines() {
            for guest in GUESTS {
                let both = MEMORY.contains(&guest);
                for rights in if both {
                    &["eager", "lazy"][..]
                } else {
                    &["eager"]
                } {
                    let mut case = self.crowd(guest, machine, count).with("RIGHTS", *rights);
                    if *rights == "lazy" {
                        // Page by page too; the default is what the policy of blocks gives.
                        case.name.push_str(" lazy");
                        case = case.with("GRANULE", "4k");
                    }
                    self.add(case.says(format!("PASS {guest}")));
                }
            }
        }
        for guest in RACES {
            let mut case = self.crowd(guest, self.any(), on(2, 2));
            case.name.push_str(" threads");
            self.add(
                case.with("QEMU_ARGS", "-accel tcg,thread=multi")
                    .says(format!("PASS {guest}")),
            );
        }
        self.strict_timers();
        self.lent_blocks();
        self.stops();
        self.pinned();
        self.asleep();
    }

    /// What nothing can wake is said to sleep for good; what listens is not. In virtual time, which passes while all sleep.
    fn asleep(&mut self) {
        const SAID: &str = "'asleep' sleeps for good";
        for count in [on(1, 1), on(3, 2)] {
            for listens in [false, true] {
                let mut case = self.boot("asleep", self.any(), code::TIME_LIMIT);
                case.name
                    .push_str(&format!(" {} on {}", count.vcpus, count.pcpus));
                case = case
                    .with("SMP", count.pcpus.to_string())
                    .with("VCPUS", count.vcpus.to_string())
                    .with("QEMU_ARGS", VIRTUAL_TIME)
                    .within(15)
                    .says("good night");
                self.add(if listens {
                    case.name.push_str(" listens");
                    case.with("APPEND", "listens").never(SAID)
                } else {
                    case.says(SAID)
                });
            }
        }
    }

    fn crowded_machines(&self) -> Vec<(Machine<'a>, Count)> {
        let lab = self.lab;
        let Machine::Virt(any, _) = self.any() else {
            return Vec::new();
        };
        let max = lab.cpu(|cpu| cpu.model == "max").unwrap_or(any);
        let mut machines = vec![
            (Machine::Virt(any, 3), on(4, 4)),
            (Machine::Virt(any, 2), on(4, 2)),
            (Machine::Virt(max, 3), on(3, 1)),
        ];
        if self.everything {
            machines.clear();
            for cpu in &lab.cpus {
                for (gic, count) in [
                    (2, on(4, 4)),
                    (3, on(4, 4)),
                    (2, on(8, 2)),
                    (3, on(8, 4)),
                    (2, on(2, 1)),
                    (3, on(2, 1)),
                    (3, on(4, 2)),
                    (2, on(1, 4)),
                ] {
                    machines.push((Machine::Virt(cpu, gic), count));
                }
            }
        }
        if lab.raspi4b {
            machines.push((Machine::Raspi4b, on(4, 4)));
        }
        machines
    }

    /// A block that is lent comes apart under its readers, with a break in between and in place.
    fn lent_blocks(&mut self) {
        let lab = self.lab;
        let ramdisk = lab.root.join("target/lent_blocks.payload");
        let words =
            (0..LENT_BYTES / 8).flat_map(|n: u64| n.wrapping_mul(LENT_FACTOR).to_le_bytes());
        std::fs::write(&ramdisk, words.collect::<Vec<u8>>()).expect("target can be written to");
        let Machine::Virt(any, _) = self.any() else {
            return;
        };
        let able = lab.cpu(Cpu::resizes);
        if able.is_none() {
            self.leave_out(
                "blocks resized in place: no QEMU here has a CPU with FEAT_BBM 2, FWB and DIC",
            );
        }
        let ways = [(any, "break-before-make")].into_iter();
        for (cpu, resize) in ways.chain(able.map(|cpu| (cpu, "in-place"))) {
            for (how, accel) in [("", ONE_THREAD), (" threads", "-accel tcg,thread=multi")] {
                let mut case = self
                    .crowd("lent_blocks", Machine::Virt(cpu, 3), on(4, 4))
                    .with("INITRD", "target/lent_blocks.payload")
                    .with("MEM", "48M")
                    .with("GUEST_MEM", "96M")
                    .with("GRANULE", "2m")
                    .with("RESIZE", resize)
                    .with("QEMU_ARGS", accel);
                case.name.push_str(&format!(" {resize}{how}"));
                let case = case.says("PASS lent_blocks").says("blocks split 5");
                self.add(case.never("warning"));
            }
        }
    }

    /// In virtual time lateness says something. On as many pCPUs: where vCPUs share one they wait in WFE, of which QEMU
    /// does some ten thousand a second then, and no time passes.
    fn strict_timers(&mut self) {
        let mut case = self.crowd("timers", self.any(), on(2, 2));
        case.name.push_str(" strict");
        case = case
            .with("APPEND", "strict")
            .with("QEMU_ARGS", VIRTUAL_TIME);
        self.add(case.says("PASS timers"));
    }

    /// vCPUs that are told where to run. By itself the first one would run on CPU 0.
    fn pinned(&mut self) {
        const WHERE: &str = "\u{1d}";
        let pinned = |planner: &Self, guest, verdict, vcpus, pin: &str| {
            let mut case = planner.boot(guest, planner.any(), verdict);
            case.name.push_str(&format!(" pinned {pin}"));
            case.with("SMP", "4")
                .with("QEMU_ARGS", ONE_THREAD)
                .with("VCPUS", vcpus)
                .with("PIN", pin)
        };
        let case = pinned(self, "uart_echo", code::OK, "2", "2")
            .types("type a line", format!("{WHERE}hello, world\n"))
            .types("and another", format!("{WHERE}a second line\n"))
            .says("': vCPU 0 on CPU 2")
            .says("vCPU 0 on CPU 2: PC")
            .says("polled: hello, world");
        self.add(case.never("on CPU 0").never("on CPU 1").never("on CPU 3"));
        // Two that share a CPU though others are idle, one that may choose, one that is free.
        let case = pinned(self, "smp_start", code::OK, "4", "3 3 0,2-3");
        self.add(case.says("PASS smp_start"));
        let case = pinned(self, "smp_start", code::OK, "2", "1,7-8");
        self.add(
            case.says("7-8 is not there: this machine has 0-3")
                .says("PASS smp_start"),
        );
        let case = pinned(self, "smp_start", code::REFUSED, "2", "0 9");
        self.add(
            case.says("VM 'smp_start': vCPU 1 on CPU 9; 9 is not there: this machine has 0-3"),
        );
    }

    /// Ends while others run, sleep, fault, call, are off.
    fn stops(&mut self) {
        let mut counts = vec![on(8, 4), on(7, 1)];
        if self.everything {
            counts.extend([on(2, 1), on(4, 4), on(8, 2)]);
        }
        for count in counts {
            let last = count.vcpus - 2;
            for (how, by) in [("off", 0), ("off", last), ("exit", last), ("nothing", 0)] {
                let case = self.stop(count, how, by);
                self.add(case.says("PASS smp_stop"));
            }
            let how = if count.pcpus == 1 { "reset2" } else { "reset" };
            for by in if self.everything {
                vec![0, last]
            } else {
                vec![last]
            } {
                let case = self.stop(count, how, by).asked("again?", RESETS);
                self.add(case.says("PASS smp_stop").says("' resets"));
            }
        }
    }

    fn stop(&self, count: Count, how: &str, by: u32) -> Case {
        let mut case = self.crowd("smp_stop", self.any(), count);
        case.name.push_str(&format!(" {how} by {by}"));
        let words = format!("crowded how={how} by={by}");
        // Some of the CPUs spin for good: a thread each.
        case.with("APPEND", words)
            .with("QEMU_ARGS", "-accel tcg,thread=multi")
    }
}
