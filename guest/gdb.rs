//! Drives gdb in batch mode through the project's commands, on what make has built; `make test` calls it by name.
//!
//! `guest/host/debug.sh` starts QEMU stopped, with gdb on it; `gdb/session.py` says what gdb does, in steps; here is what
//! each step must have said. Oracles are independent of the commands where there are any: the guest's binary, its memory
//! as gdb reads it through the guest's MMU, what a right's growth must look like. What is missing on the machine fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Seconds a session may take; QEMU itself is ended a little earlier.
const LIMIT: u32 = 120;

/// What a session's steps said.
struct Session {
    text: String,
}

/// One step's output.
struct Step<'a> {
    name: &'a str,
    text: &'a str,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every QEMU there is: the system's or the one that QEMU names, and what `make setup-raspi4b` brought.
fn qemus() -> Vec<String> {
    let named = std::env::var("QEMU").ok().filter(|name| !name.is_empty());
    // Where the system cannot have the release's own beside another, the set-up keeps it here.
    let own = root().join("target/qemu-release/qemu");
    let found = if own.exists() {
        own.to_string_lossy().into_owned()
    } else {
        "qemu-system-aarch64".into()
    };
    let mut qemus = vec![named.unwrap_or(found)];
    let newer = root().join("target/qemu-backports/qemu");
    if newer.exists() {
        qemus.push(newer.to_string_lossy().into_owned());
    }
    qemus
}

/// What must be there, said in one line where it is not.
fn must_exist(file: &str) -> PathBuf {
    let path = root().join(file);
    assert!(
        path.exists(),
        "{file} is not built; `make test` builds everything and then calls this"
    );
    path
}

impl Session {
    /// Runs `session.py`'s function of this name with a guest on a machine.
    fn run(function: &str, qemu: &str, machine: &[(&str, &str)]) -> Self {
        must_exist("target/faultline.elf");
        must_exist("target/faultline.img");
        must_exist("target/guest/tour.bin");
        assert!(
            Command::new("gdb-multiarch")
                .arg("--version")
                .output()
                .is_ok_and(|output| output.status.success()),
            "gdb-multiarch does not run here; `apt-get install gdb-multiarch`"
        );
        let folder = tempfolder(function);
        let script = folder.join("script");
        let commands = format!(
            "python gdb.set_convenience_variable(\"session\", \"{function}\")\nsource {}\n",
            root().join("guest/gdb/session.py").display()
        );
        std::fs::write(&script, commands).expect("target is writable");
        let output = Command::new("timeout")
            .args(["-k", "10", &LIMIT.to_string()])
            .arg(root().join("guest/host/debug.sh"))
            .env("GDB_SCRIPT", &script)
            .env("QEMU", qemu)
            .env("LOG", folder.join("log"))
            .env("TIMEOUT", (LIMIT - 10).to_string())
            .envs(machine.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("timeout runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() != Some(124) && !complaints.contains("Traceback"),
            "{qemu}: the session did not end well:\n{text}\n{complaints}"
        );
        std::fs::remove_dir_all(&folder).expect("it is ours");
        Self {
            text: format!("{text}\n@@ and on stderr\n{complaints}"),
        }
    }

    /// A step's output.
    fn step<'a>(&'a self, name: &'a str) -> Step<'a> {
        let from = self.text.split_once(&format!("@@ {name}\n"));
        let text = from.and_then(|(_, rest)| rest.split_once("@@ "));
        let Some((text, _)) = text else {
            panic!(
                "gdb never came to the step `{name}`; it said:\n{}",
                self.text
            )
        };
        Step { name, text }
    }
}

fn tempfolder(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = root().join(format!("target/gdb-{}-{number}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("target is writable");
    folder
}

impl Step<'_> {
    fn says(&self, words: &str) -> &Self {
        assert!(
            self.text.contains(words),
            "step `{}` does not say `{words}`:\n{}",
            self.name,
            self.text
        );
        self
    }

    fn never(&self, words: &str) -> &Self {
        assert!(
            !self.text.contains(words),
            "step `{}` says `{words}`:\n{}",
            self.name,
            self.text
        );
        self
    }

    /// The word after the first `words`.
    fn word_after(&self, words: &str) -> &str {
        self.says(words);
        let rest = &self.text[self.text.find(words).unwrap_or(0) + words.len()..];
        rest.split_whitespace().next().unwrap_or("")
    }

    fn lines_with(&self, words: &str) -> usize {
        self.text
            .lines()
            .filter(|line| line.contains(words))
            .count()
    }
}

/// Runs `check` on the session, once per QEMU and GIC version.
fn on_every_qemu(function: &str, guest: &str, check: fn(&Session)) {
    for qemu in qemus() {
        for gic in ["3", "2"] {
            let machine = [
                ("GUEST", guest),
                ("GIC", gic),
                ("CPU", "cortex-a72"),
                ("GUEST_MEM", "256M"),
                ("RIGHTS", "lazy"),
            ];
            check(&Session::run(function, &qemu, &machine));
        }
    }
}

#[test]
fn stopped_at_el2_the_commands_tell_of_each_kind_of_fault() {
    on_every_qemu("at_el2", "tour", |session| {
        before_any_vm(session);
        values_decoded(session);
        translation_fault(session);
        permission_fault(session);
        vm_and_vcpu(session);
        device_and_injection(session);
    });
}

fn before_any_vm(session: &Session) {
    assert_eq!(session.text.matches("symbols moved there").count(), 1);
    let reset = session.step("reset");
    reset.says("error: no VM runs").says("not in the image");
    let help = session.step("help");
    for name in [
        "break",
        "esr",
        "explain",
        "hpfar",
        "leaves",
        "load",
        "slots",
        "translate",
        "vcpu",
        "walk",
        "where",
    ] {
        help.says(&format!("faultline {name} -- "));
        session
            .step(&format!("help of {name}"))
            .says(&format!("faultline {name}"));
    }
    session
        .step("mistakes")
        .says("error: usage: faultline break KIND")
        .says("error: faultline break stop: no IPA goes with it")
        .says("error: usage: faultline walk IPA")
        .says("error: there is no image of ");
}

/// Values made by hand from the figures of the Arm ARM.
fn values_decoded(session: &Session) {
    session
        .step("esr values")
        .says("data abort from a lower EL")
        .says("DFSC  0x06  translation fault, level 2")
        .says("32 bits to w2")
        .says("MRS x0, S3_0_C0_C0_0")
        .says("0x16  HVC")
        .says("S1PTW 1");
    let hpfar = session.step("hpfar values");
    hpfar.says("UNKNOWN: ESR_EL2 0x9200004f");
    hpfar.says("valid: ESR_EL2 tells of a fault that writes it, on a stage-1 walk");
    assert_eq!(hpfar.lines_with("FIPA: page 0x40080000"), 3);
    assert_eq!(hpfar.lines_with("  valid:"), 2);
}

fn translation_fault(session: &Session) {
    let before = session.step("translation");
    before
        .says("in faultline::fault::resolve")
        .says("src/fault.rs:")
        .says("src/el2/dispatch.rs:")
        .says("translation fault, level 2: a fetch at VA 0x40080000")
        .says("  valid:")
        .says("invalid: nothing is mapped")
        .never("UNKNOWN");
    let after = session.step("mapped");
    after.says("in to_guest").says("R-X").says("owned");
    after.never("nothing is mapped");
}

fn permission_fault(session: &Session) {
    let before = session.step("permission");
    before
        .says("in faultline::fault::resolve")
        .says("permission fault, level 3: a write at VA")
        .says("UNKNOWN: ESR_EL2")
        .says("by the guest's stage 1, walked from FAR_EL2")
        .says("R--  Normal-WB")
        .never("RW-");
    let after = session.step("relaxed");
    after.says("RW-  Normal-WB  inner-shareable  AF=1  owned");
    // Relaxed in place: another right, the same page, the same descriptor's place.
    assert_eq!(before.word_after("  PA "), after.word_after("  PA "));
    assert_eq!(
        before.word_after("level 3  [  0] at "),
        after.word_after("level 3  [  0] at ")
    );
    after.says("1 leaves in 1 runs");
}

fn vm_and_vcpu(session: &Session) {
    session
        .step("slots")
        .says("VM 'tour'")
        .says("0x0040000000..0x0050000000  RAM")
        .says("0x0009000000..0x0009001000  device PL011")
        .says("device GICD");
    let vcpu = session.step("vcpu");
    vcpu.says("out of the guest; EL2 runs")
        .says("EL1h")
        .says("data abort from a lower EL, permission fault");
    // The register that the syndrome names holds what the guest stores: the tour's 0x600d_f00d.
    session.step("permission").says("32 bits from w");
    vcpu.says("00000000600df00d");
}

fn device_and_injection(session: &Session) {
    session
        .step("mmio")
        .says("in guest_exit")
        .says("slot: device PL011")
        .says("ISV   1")
        .says("invalid: nothing is mapped");
    session.step("exit").says("EL2").says("in guest_exit");
    let inject = session.step("inject");
    inject
        .says("in faultline::vm::Vm::inject")
        .says("a read at VA 0xb000000")
        .says("no slot: nothing is there");
    // Stopped at EL2, the guest's own MMU is walked.
    inject
        .says("VA 0x200000000 -> IPA 0x4")
        .says("(stage 1) -> PA");
    inject.says("error: VA 0x200001000 is not mapped by the guest");
}

#[test]
fn stopped_in_the_guest_the_commands_look_past_its_mmu() {
    on_every_qemu("in_guest", "tour", |session| {
        first_instruction(session);
        own_mmu(session);
    });
}

fn first_instruction(session: &Session) {
    // The fetch at the entry point is the first fault of all: a debugger that stops there sees a tree with nothing in it.
    session
        .step("entry")
        .says("EL1  PC 0x40080000")
        .says("stage 1 is off")
        .says("nothing: not mapped at stage 2")
        .says("in the guest now")
        .says("it has not been left yet")
        .says("0 leaves in 0 runs")
        .says("device PL011");
    session
        .step("second entry")
        .says("R-X  Normal-WB")
        .says("1 leaves in 1 runs")
        .says("instruction abort from a lower EL, translation fault");
    let binary = std::fs::read(Path::new(&must_exist("target/guest/tour.bin"))).expect("readable");
    let hex: String = binary[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let bytes = session.step("bytes");
    assert_eq!(bytes.word_after("at the PA:"), hex);
    assert_eq!(bytes.word_after("at the VA:"), hex);
}

fn own_mmu(session: &Session) {
    session
        .step("mmu on")
        .says("EL1  PC 0x")
        .says("in the guest: EL2's symbols do not apply")
        .says("(stage 1) -> PA")
        .says("VA 0x200000000 -> IPA 0x4")
        .says("in the guest now")
        .says("no slot: nothing is there");
    session
        .step("window")
        .says("at the PA: faultline window")
        .says("at the VA: faultline window");
    // EL2's breakpoint at an address that the guest runs through as well did not stop it.
    session
        .step("same address")
        .says("EL1  PC 0x")
        .says("$1 = 1")
        .says("at the vector: True");
}

#[test]
fn a_vm_that_the_hypervisor_stops_is_still_there_to_look_at() {
    on_every_qemu("stopped", "no_vectors", |session| {
        session
            .step("stop")
            .says("in faultline::el2::dispatch::report_stop")
            .says("VM 'no_vectors', vCPU 0, out of the guest")
            // VBAR_EL1 of the guest, where nothing is, and the vector for an exception from EL1h.
            .says("PC 0x000000000b000200")
            .says("owned");
    });
}
