//! What there is to test with: the QEMU at hand, its CPUs by their ID registers, the images that were built.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// CPU models, most wanted first. The first six are those the project promises Linux on.
const MODELS: [&str; 12] = [
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
];

/// How many of `MODELS` are promised.
const PROMISED: usize = 6;

/// A CPU model, with the ID registers it has under this QEMU.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    pub(crate) model: &'static str,
    /// Whether the project promises this model.
    pub(crate) promised: bool,
    ctr: u64,
    isar0: u64,
    mmfr1: u64,
    mmfr2: u64,
}

impl Cpu {
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

    /// ID_AA64MMFR2_EL1.FWB: stage 2 can force write-back.
    pub(crate) fn fwb(&self) -> bool {
        self.mmfr2 >> 40 & 0xf != 0
    }
}

/// The QEMU at hand and what was built.
pub(crate) struct Lab {
    pub(crate) root: PathBuf,
    pub(crate) qemu: String,
    pub(crate) version: String,
    pub(crate) cpus: Vec<Cpu>,
    /// The program for BOARD=raspi4b, when there is one.
    pub(crate) raspi4b: bool,
    /// Debian's kernel and our ramdisk were fetched and made.
    pub(crate) linux: bool,
    /// The image that answers permission faults as KVM once did.
    pub(crate) known_bad: bool,
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
        let qemu = qemu.unwrap_or_else(|| "qemu-system-aarch64".into());
        let version = output(&qemu, &["--version"])?;
        let version = version.split_whitespace().nth(3).unwrap_or("?").to_string();
        let models = output(&qemu, &["-cpu", "help"])?;
        let known = |model: &&str| models.split_whitespace().any(|word| word == *model);
        let binary = target.join("guest/id_registers.bin");
        let mut cpus = Vec::new();
        for (n, model) in MODELS.iter().enumerate().filter(|(_, model)| known(model)) {
            cpus.push(probe(&qemu, model, n < PROMISED, &binary)?);
        }
        let backports = target.join("qemu-backports/qemu");
        let has_board = |qemu: &str| {
            output(qemu, &["-machine", "help"]).is_ok_and(|text| text.contains("\nraspi4b "))
        };
        Ok(Self {
            raspi4b: has_board(&qemu) || has_board(&backports.to_string_lossy()),
            linux: ["Image", "initramfs.gz"]
                .iter()
                .all(|file| target.join("linux").join(file).exists()),
            known_bad: target.join("faultline-map-on-permission.img").exists(),
            root,
            qemu,
            version,
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

/// Reads a model's ID registers with a guest of ours at EL1, without any hypervisor.
fn probe(qemu: &str, model: &'static str, promised: bool, binary: &Path) -> Result<Cpu, String> {
    let binary = binary.to_string_lossy();
    let arguments = [
        "-M", "virt", "-cpu", model, "-m", "256M", "-display", "none", "-nic", "none", "-serial",
        "stdio",
    ];
    let mut command = Command::new("timeout");
    command
        .args(["20", qemu])
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
    let ctr =
        register("CTR_EL0").ok_or_else(|| format!("{model}: the probe said nothing: {text}"))?;
    Ok(Cpu {
        model,
        promised,
        ctr,
        isar0: register("S3_0_C0_C6_0").unwrap_or(0),
        mmfr1: register("S3_0_C0_C7_1").unwrap_or(0),
        mmfr2: register("S3_0_C0_C7_2").unwrap_or(0),
    })
}
