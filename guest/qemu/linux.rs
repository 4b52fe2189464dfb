//! Debian's Linux: to its shell, a workload that checks itself, and off, on every CPU the project promises.
use crate::cases::{Machine, Planner, gives_all_pages_back, now};
use crate::lab::Cpu;
use crate::run::{Case, code};

/// Where a module lies that follows a raw binary of less than 1.5 MiB, and where in it Linux leaves room for a ramdisk.
const PAYLOAD: usize = 0x4020_0000;
const RAMDISK_OFFSET: usize = 0x300_0000;

impl<'a> Planner<'a> {
    pub(crate) fn linux(&mut self) {
        if !self.lab.linux {
            return self.leave_out(
                "Linux (target/linux has no Image or initramfs.gz; `make setup` fetches)",
            );
        }
        let lab = self.lab;
        for (n, cpu) in self.linux_cpus().into_iter().enumerate() {
            // Every promised CPU; GIC versions in turn, or both.
            let gics: &[u32] = if self.everything {
                &[2, 3]
            } else {
                &[[3, 2][n % 2]]
            };
            for &gic in gics {
                let case = self.linux_on(Machine::Virt(cpu, gic)).within(240);
                // In one line: what is typed while a command prints is echoed into the middle of it.
                let case = case.types("/root # ", "workload\n").types(
                    "workload: ",
                    "echo now $(date +%s) by date; cat /proc/interrupts; poweroff\n",
                );
                self.add(
                    case.says("workload: PASS")
                        .says("arch_timer")
                        .examined_by(date_is_right)
                        .examined_by(gives_all_pages_back),
                );
            }
        }
        self.linux_with_many_cpus();
        if self.everything {
            self.linux_by_granule();
            self.linux_newer();
            self.linux_reboots_often();
            self.linux_soaks();
        }
        self.u_boot();
        let any = self.any();
        // What one fault brings, besides the default, which is 2 MiB where there is memory; 1 GiB needs a guest that has it in
        // one piece.
        for (granule, size) in [
            ("4k", "256M"),
            ("64k", "256M"),
            ("contiguous", "256M"),
            ("1g", "2G"),
        ] {
            let mut case = self
                .linux_on(any)
                .with("GRANULE", granule)
                .with("GUEST_MEM", size)
                .with("MEM", "4G");
            case.name = format!("Linux by {granule}");
            self.add(through_workload(case).within(300));
        }
        let mut case = self
            .linux_on(any)
            .types("/root # ", "reboot\n")
            // The shell draws its prompt again when it echoes: the next life's prompt is meant.
            .types("Restarting system", "")
            .types("/root # ", "poweroff\n")
            .within(240);
        case.name = "Linux reboots".into();
        self.add(case.examined_by(gives_all_pages_back));
        let mut case = self
            .linux_on(any)
            .types("", "ls /\npoweroff\n")
            .says("dev   etc   init")
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
            let mut case = case.types("/root # ", "poweroff\n").within(180);
            case.name = format!("Linux in {size}");
            self.add(case);
        }
        let case = self
            .linux_on(any)
            .with("MEM", "128M")
            .with("GUEST_MEM", "1G")
            .within(180);
        let case = case
            .types("/root # ", "dd if=/dev/zero of=/tmp/fill bs=1M\n")
            .ending_in(&[code::STOPPED]);
        let mut case = case.never("verdict=ok");
        case.name = "Linux uses up the machine's memory".into();
        self.add(case);
        if lab.raspi4b {
            let case = self
                .linux_on(Machine::Raspi4b)
                .with("VCPUS", "4")
                .within(300);
            self.add(through_workload(case));
        }
    }

    /// The CPUs Linux is booted on: those promised, or all.
    fn linux_cpus(&self) -> Vec<&'a Cpu> {
        let lab = self.lab;
        let cpus = lab.cpus.iter();
        cpus.filter(|cpu| self.everything || cpu.promised).collect()
    }

    /// More vCPUs, on as many or fewer pCPUs: the workload, CPUs that come and go, off; and a kernel that complains of
    /// nothing.
    fn linux_with_many_cpus(&mut self) {
        let machines = if self.everything {
            let cpus = self.linux_cpus().into_iter();
            cpus.flat_map(|cpu| [Machine::Virt(cpu, 2), Machine::Virt(cpu, 3)])
                .collect()
        } else {
            vec![self.any()]
        };
        let counts: &[(u32, u32)] = if self.everything {
            // One on one is the case above.
            &[
                (1, 2),
                (1, 4),
                (2, 1),
                (2, 2),
                (2, 4),
                (4, 1),
                (4, 2),
                (4, 4),
                (8, 1),
                (8, 2),
                (8, 4),
            ]
        } else {
            &[(4, 4), (4, 2)]
        };
        for machine in machines {
            for &(vcpus, pcpus) in counts {
                let mut case = self
                    .linux_on(machine)
                    .with("VCPUS", vcpus.to_string())
                    .with("SMP", pcpus.to_string())
                    .with("QEMU_ARGS", "-accel tcg,thread=single")
                    .within(400);
                case.name.push_str(&format!(" {vcpus} on {pcpus}"));
                self.add(through_workload(case.says(format!(", {vcpus} CPU, "))));
            }
        }
    }

    /// Every granule policy on every CPU promised.
    fn linux_by_granule(&mut self) {
        for cpu in self.linux_cpus() {
            for granule in ["4k", "64k", "contiguous", "2m", "auto"] {
                let mut case = self
                    .linux_on(Machine::Virt(cpu, 3))
                    .with("GRANULE", granule)
                    .within(240);
                case.name.push_str(&format!(" {granule}"));
                self.add(through_workload(case));
            }
        }
    }

    /// A kernel that knows more of what CPUs can do, on every CPU promised.
    fn linux_newer(&mut self) {
        let image = "target/linux/Image-newer";
        if !self.lab.root.join(image).exists() {
            return self.leave_out(format!("a newer Linux ({image} is not there)"));
        }
        for (n, cpu) in self.linux_cpus().into_iter().enumerate() {
            let gic = 2 + n as u32 % 2;
            let mut case = self
                .linux_on(Machine::Virt(cpu, gic))
                .with("GUEST", format!("./{image}"))
                .with("VCPUS", "4")
                .with("SMP", "2")
                .within(300);
            case.name.push_str(" newer");
            self.add(through_workload(case));
        }
    }

    /// A hundred reboots: nothing leaks.
    fn linux_reboots_often(&mut self) {
        let mut case = self
            .linux_on(self.any())
            .with("APPEND", "quiet")
            .with("VCPUS", "2")
            .with("SMP", "2")
            .within(1800);
        for _ in 0..100 {
            case = case
                .types("/root # ", "reboot\n")
                .types("Restarting system", "");
        }
        case.name = "Linux reboots a hundred times".into();
        self.add(
            case.types("/root # ", "poweroff\n")
                .examined_by(gives_all_pages_back),
        );
    }

    /// An hour of virtual time, whose idle part is skipped: the workload again and again, and no clock drifts.
    fn linux_soaks(&mut self) {
        let mut case = self
            .linux_on(self.any())
            .with("VCPUS", "2")
            .with("SMP", "2")
            .with("APPEND", "quiet")
            .with(
                "QEMU_ARGS",
                "-accel tcg,thread=single -icount shift=0,sleep=off -rtc clock=vm",
            )
            .within(3600);
        case.name = "Linux soaks".into();
        // In one line: while Linux waits for a key, virtual time flies.
        self.add(
            case.types("/root # ", "soak 3600; poweroff\n")
                .says("soak: PASS")
                .examined_by(agrees_on_time)
                .examined_by(gives_all_pages_back),
        );
    }

    /// Debian's U-Boot to its prompt, and from there Linux, whose image and ramdisk lie in memory as one module.
    fn u_boot(&mut self) {
        let folder = self.lab.root.join("target/linux");
        let read = |name: &str| std::fs::read(folder.join(name));
        let (Ok(mut payload), Ok(ramdisk), Ok(_)) =
            (read("Image"), read("initramfs.gz"), read("u-boot.bin"))
        else {
            return self.leave_out("U-Boot (target/linux has no u-boot.bin)");
        };
        payload.resize(RAMDISK_OFFSET, 0);
        payload.extend_from_slice(&ramdisk);
        if let Err(error) = std::fs::write(folder.join("u-boot.payload"), payload) {
            return self.leave_out(format!("U-Boot ({error})"));
        }
        let gics: &[u32] = if self.everything { &[2, 3] } else { &[3] };
        for &gic in gics {
            let Machine::Virt(cpu, _) = self.any() else {
                return;
            };
            let case = self
                .boot("U-Boot", Machine::Virt(cpu, gic), code::OK)
                .with("GUEST", "./target/linux/u-boot.bin")
                .with("INITRD", "./target/linux/u-boot.payload")
                .with("DOMAIN", "u-boot")
                .with("GUEST_MEM", "256M")
                .types("stop autoboot", "\n")
                .types("=> ", "setenv bootargs quiet\n")
                .types(
                    "=> ",
                    format!(
                        "booti {PAYLOAD:x} {:x}:{:x} ${{fdtcontroladdr}}\n",
                        PAYLOAD + RAMDISK_OFFSET,
                        ramdisk.len()
                    ),
                )
                .types("/root # ", "poweroff\n")
                .within(240);
            self.add(
                case.says("U-Boot 20")
                    .says("Starting kernel")
                    .says("Debian's Linux")
                    .never("Kernel panic")
                    .examined_by(gives_all_pages_back),
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
        let case = case.with("GUEST_MEM", "256M").says("Debian's Linux");
        case.never("Kernel panic")
            .never("Call trace")
            .never("self-detected stall")
    }
}

/// From the first prompt through the workload, and off.
fn through_workload(case: Case) -> Case {
    case.types("/root # ", "workload\n")
        .types("workload: ", "poweroff\n")
        .says("workload: PASS")
        .examined_by(gives_all_pages_back)
}

/// `date +%s` was answered within a minute of this machine's clock (it was asked some seconds ago).
fn date_is_right(console: &str) -> Result<(), String> {
    let now = now();
    let date = console.split("now ").skip(1).find_map(|rest| {
        let (seconds, _) = rest.split_once(" by date")?;
        seconds.parse::<u64>().ok()
    });
    match date {
        Some(date) if now.abs_diff(date) <= 60 => Ok(()),
        Some(date) => Err(format!("`date` said {date}, this machine {now}")),
        None => Err("`date` said nothing".into()),
    }
}

/// The guest's uptime is what the hypervisor counted, give or take the time of a boot.
fn agrees_on_time(console: &str) -> Result<(), String> {
    let number_before = |text: &str| {
        let before = console.split(text).next()?;
        before.split_whitespace().last()?.parse::<f64>().ok()
    };
    let ran = console.split("  ran ").nth(1);
    let ran = ran.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    match (number_before(" s up"), ran) {
        (Some(up), Some(ran)) if (ran - up).abs() < 30.0 => Ok(()),
        (up, ran) => Err(format!(
            "{up:?} s by the guest, {ran:?} s by the hypervisor"
        )),
    }
}
