//! Runs that must not end well, and ways in that are not the usual one: stopped VMs, crashes of EL2, refusals.
use crate::cases::{Machine, Planner, gives_all_pages_back};
use crate::entry;
use crate::run::{Case, Start, VIRTUAL_TIME, code};

/// A VM bundle around its domains.
const BUNDLE: &str = r#"/dts-v1/;
/ { #address-cells = <2>; #size-cells = <2>;
  chosen { #address-cells = <2>; #size-cells = <2>; @domains@ }; };
"#;
/// The tour as a module.
const GUEST_MODULE: &str = r#"module@0 { compatible = "multiboot,kernel", "multiboot,module";
    faultline,data = /incbin/("../guest/tour.bin"); };"#;
/// Bundles that must be refused: why, a word of the refusal, the domains.
const BAD_BUNDLES: &[(&str, &str, &str)] = &[
    ("a bundle without domains", "domain", ""),
    (
        "a bundle with two domains",
        "2 VMs",
        r#"a { compatible = "xen,domain"; memory = <0 0x20000>; cpus = <1>; vpl011; @guest@ };
           b { compatible = "xen,domain"; memory = <0 0x20000>; cpus = <1>; vpl011; @guest@ };"#,
    ),
    (
        "a domain with nine CPUs",
        "9 vCPUs",
        r#"a { compatible = "xen,domain"; memory = <0 0x20000>; cpus = <9>; vpl011; @guest@ };"#,
    ),
    (
        "a domain without kernel",
        "kernel",
        r#"a { compatible = "xen,domain"; memory = <0 0x20000>; cpus = <1>; vpl011; };"#,
    ),
    (
        "a domain with more IPA bits than any CPU has",
        "its IPA space takes 52 bits",
        r#"a { compatible = "xen,domain"; memory = <0 0x20000>; cpus = <1>; vpl011; faultline,ipa-bits = <52>; @guest@ };"#,
    ),
    (
        "a domain with an IPA space too small for its memory",
        "take",
        r#"a { compatible = "xen,domain"; memory = <0 0x400000>; cpus = <1>; vpl011; faultline,ipa-bits = <32>; @guest@ };"#,
    ),
    (
        "a domain without memory",
        "memory",
        r#"a { compatible = "xen,domain"; cpus = <1>; vpl011; @guest@ };"#,
    ),
];

impl Planner<'_> {
    /// Guests that must be stopped, or say that they failed; and crashes of our own.
    pub(crate) fn bad_ends(&mut self) {
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
        // In virtual time: a busy host is no reason for long lives.
        self.add(
            self.boot("reset_loop", any, code::STOPPED)
                .with("QEMU_ARGS", VIRTUAL_TIME),
        );
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
                .examined_by(gives_all_pages_back),
        );
        for (how, words) in [
            ("abort", "EL2 crashed: a data abort"),
            ("panic", "EL2 panicked"),
            ("stack", "EL2 crashed"),
        ] {
            let mut case = self
                .boot("exit_code", any, code::CRASHED)
                .with("HOST_APPEND", format!("faultline.crash={how}"));
            case.name = format!("crash of EL2 by {how}");
            self.add(case.says(words).says("backtrace").says("last guest exit"));
        }
    }

    /// Ways into the image: EL3, EL1, without a device tree in x0, with a broken one, without VMs.
    pub(crate) fn entries(&mut self) {
        let any = self.any();
        let mut case = self
            .boot("tour", any, code::OK)
            .with("ENTRY", "el3")
            .says("It says 42.");
        case.name = "entry at EL3 with x0 = 0".into();
        self.add(case);
        // A GIC out of reset keeps its interrupts for the Secure world.
        for gic in ["2", "3"] {
            let mut case = self
                .boot("timer", any, code::OK)
                .with("ENTRY", "el3")
                .with("GIC", gic)
                .says("PASS timer");
            case.name = format!("interrupts after entry at EL3, GICv{gic}");
            self.add(case);
        }
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
        let mut case = self.boot("exit_code", any, code::FAILED).with("MEM", "12M");
        case = case.with("GUEST_MEM", "16M").says("ending with code 7");
        case.name = "a machine with 12 MiB".into();
        self.add(case);
        self.trees();
    }

    /// Device trees that are missing or broken: one line on the early console, not silence.
    fn trees(&mut self) {
        let folder = self.lab.root.join("target/qemu-logs");
        let image = self.lab.root.join("target/faultline.img");
        let oddities = std::fs::create_dir_all(&folder).map_err(|error| error.to_string());
        let oddities =
            match oddities.and_then(|()| entry::oddities(&self.lab.qemu.program, &folder)) {
                Ok(oddities) => oddities,
                Err(why) => return self.leave_out(format!("broken device trees ({why})")),
            };
        for (number, oddity) in oddities.iter().enumerate() {
            match oddity.arguments(number, &image, &folder) {
                Ok(arguments) => {
                    let start = Start::Qemu(self.lab.qemu.program.clone(), arguments);
                    self.add(
                        Case::start(&self.lab.root, oddity.name.into(), start)
                            .says("faultline: cannot start: ")
                            .says(oddity.says),
                    );
                }
                Err(error) => self.leave_out(format!("{} ({error})", oddity.name)),
            }
        }
    }

    /// What cannot be booted is refused in one line that names the reason.
    pub(crate) fn refusals(&mut self) {
        let any = self.any();
        let mut refuse = |name: &str, words: &str, change: &dyn Fn(Case) -> Case| {
            let mut case = change(self.boot("tour", any, code::REFUSED)).says(words);
            case.name = format!("refused: {name}");
            self.add(case.never("I am a guest"));
        };
        refuse("an ELF file", "ELF", &|case| {
            case.with("GUEST", "./target/guest/tour.elf")
        });
        refuse("a kernel larger than its RAM", "MiB", &|case| {
            case.with("GUEST", "./target/guest/integrity.bin")
                .with("GUEST_MEM", "1M")
                .with("INITRD", "target/faultline.img")
        });
        for (name, words, source) in BAD_BUNDLES {
            let file = self
                .lab
                .root
                .join("target/qemu-logs")
                .join(format!("{}.dts", name.replace(' ', "-")));
            let source = BUNDLE
                .replace("@domains@", source)
                .replace("@guest@", GUEST_MODULE);
            if let Err(error) = std::fs::create_dir_all(file.with_file_name(""))
                .and_then(|()| std::fs::write(&file, source))
            {
                return self.leave_out(format!("bad bundles ({error})"));
            }
            let mut case =
                Case::new(&self.lab.root, format!("refused: {name}"), code::REFUSED).says(*words);
            case = case.with("VMS", file.to_string_lossy());
            self.add(any.apply(case).never("I am a guest"));
        }
    }

    /// HPFAR_EL2 holds a wrong address where the architecture says UNKNOWN, and a GICv3 is as those are that cannot trap
    /// ICC_DIR_EL1 alone: the guests do not notice.
    pub(crate) fn poisoned_build(&mut self) {
        if !self.lab.poisoned {
            return self.leave_out("HPFAR_EL2 poisoned (target/faultline-poison.img is not there)");
        }
        let machines = if self.everything {
            self.representatives()
        } else {
            vec![self.any()]
        };
        for machine in machines {
            for guest in ["tour", "founding_bug", "s1ptw", "el0_pages", "par_kept"] {
                let case = self
                    .boot(guest, machine, code::OK)
                    .with("IMAGE", "target/faultline-poison.img")
                    .with("RIGHTS", "lazy");
                let mut case = case
                    .examined_by(gives_all_pages_back)
                    .examined_by(asks_by_at);
                case.name.push_str(" poisoned");
                self.add(case);
            }
        }
        self.poisoned_gic();
    }

    fn poisoned_gic(&mut self) {
        let Machine::Virt(any, _) = self.any() else {
            return;
        };
        for guest in ["gic_state", "sgi", "timers", "smp_start", "wakeups"] {
            let mut case = self
                .boot(guest, Machine::Virt(any, 3), code::OK)
                .with("IMAGE", "target/faultline-poison.img")
                .with("VCPUS", "4")
                .with("SMP", "2")
                .examined_by(gives_all_pages_back);
            case.name.push_str(" poisoned");
            self.add(case);
        }
    }

    pub(crate) fn known_bad_build(&mut self) {
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
            .says("map-on-permission");
        case.name = "known-bad build is stopped, and the rule named".into();
        self.add(case);
    }
}

/// The hypervisor did ask by AT where HPFAR_EL2 is not valid: else a run shows nothing.
fn asks_by_at(console: &str) -> Result<(), String> {
    let count = console.split("IPA by AT ").nth(1);
    let count = count.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    match count {
        Some(1..) => Ok(()),
        other => Err(format!("{other:?} questions by AT")),
    }
}
