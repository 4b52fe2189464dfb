//! What there is to test with: the QEMU at hand, its CPUs by their ID registers, the images that were built.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// CPU models, most wanted first. The first six are those the project promises Linux on.
const MODELS: [&str; 13] = [
    "cortex-a72",
    "max",
    "cortex-a53",
    "cortex-a57",
    "cortex-a76",
    "neoverse-n1",
    "neoverse-v1",
    "neoverse-n2",
    "cortex-a710",
    "cortex-a55",
    "cortex-a35",
    "a64fx",
    // 48 bits of physical address space, and what else goes with 52.
    "max,lpa2=off",
];

/// How many of `MODELS` are promised.
const PROMISED: usize = 6;

/// A CPU model, with the ID registers it has under this QEMU.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    /// Which QEMU.
    pub(crate) qemu: Qemu,
    pub(crate) model: &'static str,
    /// Whether the project promises this model.
    pub(crate) promised: bool,
    ctr: u64,
    isar0: u64,
    mmfr1: u64,
    mmfr2: u64,
}

impl Cpu {
    /// Whether another QEMU's model is the same for all that matters here.
    fn is_like(&self, other: &Self) -> bool {
        let registers = |cpu: &Self| (cpu.ctr, cpu.isar0, cpu.mmfr1, cpu.mmfr2);
        self.model == other.model && (self.dic(), self.fwb()) == (other.dic(), other.fwb())
            || registers(self) == registers(other)
    }

    /// CTR_EL0.DIC: no I-cache maintenance for new code.
    pub(crate) fn dic(&self) -> bool {
        self.ctr >> 29 & 1 == 1
    }

    /// CTR_EL0.L1Ip: the instruction cache is virtually indexed, physically tagged.
    pub(crate) fn vipt(&self) -> bool {
        self.ctr >> 14 & 3 == 0b10
    }

    /// ID_AA64ISAR0_EL1.Atomic: LSE.
    pub(crate) fn lse(&self) -> bool {
        self.isar0 >> 20 & 0xf >= 2
    }

    /// ID_AA64MMFR1_EL1.HAFDBS: hardware access flag and dirty state.
    pub(crate) fn hafdbs(&self) -> bool {
        self.mmfr1 & 0xf == 2
    }

    /// ID_AA64MMFR2_EL1.BBM, with what else it takes to resize a block in place.
    pub(crate) fn resizes(&self) -> bool {
        self.mmfr2 >> 52 & 0xf >= 2 && self.fwb() && self.dic()
    }

    /// ID_AA64MMFR2_EL1.FWB: stage 2 can force write-back.
    pub(crate) fn fwb(&self) -> bool {
        self.mmfr2 >> 40 & 0xf != 0
    }
}

/// A QEMU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Qemu {
    pub(crate) program: String,
    pub(crate) version: String,
}

impl Qemu {
    fn find(program: &str) -> Result<Self, String> {
        let text = output(program, &["--version"])?;
        let version = text.split_whitespace().nth(3).unwrap_or("?").into();
        Ok(Self {
            program: program.into(),
            version,
        })
    }

    /// Those of `MODELS` that it has, as it has them.
    fn cpus(&self, probe: &Path) -> Result<Vec<Cpu>, String> {
        let models = output(&self.program, &["-cpu", "help"])?;
        let known = |model: &&str| {
            let name = model.split(',').next();
            models.split_whitespace().any(|word| Some(word) == name)
        };
        let models = MODELS.iter().enumerate().filter(|(_, model)| known(model));
        models
            .map(|(n, model)| self.probe(model, n < PROMISED, probe))
            .collect()
    }

    fn has_raspi4b(&self) -> bool {
        output(&self.program, &["-machine", "help"]).is_ok_and(|text| text.contains("\nraspi4b "))
    }

    /// Reads a model's ID registers with a guest of ours at EL1, without any hypervisor.
    fn probe(&self, model: &'static str, promised: bool, binary: &Path) -> Result<Cpu, String> {
        let binary = binary.to_string_lossy();
        let arguments = [
            "-M", "virt", "-cpu", model, "-m", "256M", "-display", "none", "-nic", "none",
            "-serial", "stdio",
        ];
        let mut command = Command::new("timeout");
        command
            .args(["20", &self.program])
            .args(arguments)
            .args(["-kernel", &binary])
            .stdin(Stdio::null());
        let output = command
            .output()
            .map_err(|error| format!("timeout: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let register = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(name)?.trim().strip_prefix("= 0x"));
            line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        };
        let ctr = register("CTR_EL0")
            .ok_or_else(|| format!("{model}: the probe said nothing: {text}"))?;
        Ok(Cpu {
            qemu: self.clone(),
            model,
            promised,
            ctr,
            isar0: register("S3_0_C0_C6_0").unwrap_or(0),
            mmfr1: register("S3_0_C0_C7_1").unwrap_or(0),
            mmfr2: register("S3_0_C0_C7_2").unwrap_or(0),
        })
    }
}

/// The QEMU at hand and what was built.
pub(crate) struct Lab {
    pub(crate) root: PathBuf,
    /// The QEMU a person would get.
    pub(crate) qemu: Qemu,
    pub(crate) cpus: Vec<Cpu>,
    /// The program for BOARD=raspi4b, when there is one.
    pub(crate) raspi4b: bool,
    /// Debian's kernel and our ramdisk were fetched and made.
    pub(crate) linux: bool,
    /// The image that answers permission faults as KVM once did.
    pub(crate) known_bad: bool,
    /// The image that finds a wrong address wherever HPFAR_EL2 is not valid.
    pub(crate) poisoned: bool,
}

impl Lab {
    /// Looks around; an error names what must be built first.
    pub(crate) fn open() -> Result<Self, String> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let target = root.join("target");
        for built in ["faultline.img", "guest/tour.bin", "guest/id_registers.bin"] {
            if !target.join(built).exists() {
                return Err(format!(
                    "target/{built} is not built; `make test` builds everything and then calls this"
                ));
            }
        }
        let qemu = std::env::var("QEMU").ok().filter(|value| !value.is_empty());
        // Where the system cannot have the release's own beside another, the set-up keeps it here.
        let own = target.join("qemu-release/qemu");
        let found = if own.exists() {
            own.to_string_lossy().into_owned()
        } else {
            "qemu-system-aarch64".into()
        };
        let qemu = Qemu::find(&qemu.unwrap_or(found))?;
        let binary = target.join("guest/id_registers.bin");
        let mut cpus = qemu.cpus(&binary)?;
        // The newer QEMU that `make setup-raspi4b` brings shows CPUs that the system's does not have, or has otherwise.
        let newer = target.join("qemu-backports/qemu");
        let newer = if newer.exists() {
            Some(Qemu::find(&newer.to_string_lossy())?)
        } else {
            None
        };
        for cpu in newer
            .iter()
            .map(|qemu| qemu.cpus(&binary))
            .collect::<Result<Vec<_>, _>>()?
            .concat()
        {
            if !cpus.iter().any(|known| known.is_like(&cpu)) {
                cpus.push(cpu);
            }
        }
        Ok(Self {
            raspi4b: qemu.has_raspi4b() || newer.is_some_and(|newer| newer.has_raspi4b()),
            linux: ["Image", "initramfs.gz"]
                .iter()
                .all(|file| target.join("linux").join(file).exists()),
            known_bad: target.join("faultline-map-on-permission.img").exists(),
            poisoned: target.join("faultline-poison.img").exists(),
            root,
            qemu,
            cpus,
        })
    }

    /// The first CPU that fits.
    pub(crate) fn cpu(&self, fits: impl Fn(&Cpu) -> bool) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| fits(cpu))
    }
}

fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
