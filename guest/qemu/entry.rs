//! Ways into the image that no loader offers: at EL2 with any value in x0 and anything there.
//!
//! QEMU enters a few instructions of ours at EL2, which load x0 and branch to the image. Its own device tree is not
//! found then: it lies elsewhere, and nobody says where.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the image is put: 2 MiB aligned, like everything that loads one.
const IMAGE_AT: u64 = 0x4020_0000;
/// Where what x0 points to is put.
const TREE_AT: u64 = 0x4a00_0000;
/// What the early console slot of the image says for `virt` (bytes 0x40 to 0x80).
const EARLY_CONSOLE: &[u8] = b"pl011,0x9000000";

/// The machine all of these boot.
const MACHINE: &str = "-machine virt,virtualization=on,gic-version=3 -cpu cortex-a72 -m 512M -smp 1 -nic none -display none -serial stdio";

/// Something to hand over as a device tree, by name.
pub(crate) struct Oddity {
    pub(crate) name: &'static str,
    /// Words of the line that must come of it.
    pub(crate) says: &'static str,
    tree: Option<Vec<u8>>,
}

/// Makes what is needed of a good tree, QEMU's own.
pub(crate) fn oddities(qemu: &str, folder: &Path) -> Result<Vec<Oddity>, String> {
    let good = tree_of(qemu, folder, None)?;
    let without_uart = tree_of(qemu, folder, Some("/pl011@9000000"))?;
    let without_memory = tree_of(qemu, folder, Some("/memory@40000000"))?;
    // After the root's FDT_BEGIN_NODE and its empty name.
    let token = 8 + word(&good, 8) as usize;
    let odd = |name, says, tree| Oddity {
        name,
        says,
        tree: Some(tree),
    };
    let broken = "the device tree is broken";
    let nowhere = "not a device tree";
    Ok(vec![
        Oddity {
            name: "x0 = 0 and no device tree",
            says: nowhere,
            tree: None,
        },
        odd("x0 points to nonsense", nowhere, vec![0xa5; 4096]),
        odd(
            "a device tree of impossible size",
            "its end is no memory",
            with_word(&good, 4, u32::MAX),
        ),
        odd(
            "a device tree whose structure lies outside",
            broken,
            with_word(&good, 8, 0x7fff_fff0),
        ),
        odd(
            "a device tree whose structure is broken",
            broken,
            with_word(&good, token, 0xdead_beef),
        ),
        odd(
            "a device tree cut off",
            broken,
            good[..good.len().min(256)].to_vec(),
        ),
        odd(
            "a device tree without memory",
            "the device tree has no RAM",
            without_memory,
        ),
        odd("a device tree without UART", "no console", without_uart),
    ])
}

impl Oddity {
    /// QEMU's arguments to enter `image` with this; the files it needs go to `folder`.
    pub(crate) fn arguments(
        &self,
        number: usize,
        image: &Path,
        folder: &Path,
    ) -> std::io::Result<Vec<String>> {
        let (stub, tree) = (
            folder.join(format!("entry-{number}.bin")),
            folder.join(format!("tree-{number}.dtb")),
        );
        let x0 = if self.tree.is_some() { TREE_AT } else { 0 };
        std::fs::write(&stub, entry(x0))?;
        let copy = folder.join("image-with-early-console");
        with_early_console(image, &copy)?;
        let mut line: Vec<String> = MACHINE.split(' ').map(String::from).collect();
        line.extend([
            "-kernel".into(),
            stub.display().to_string(),
            "-device".into(),
            loader(&copy, IMAGE_AT),
        ]);
        if let Some(bytes) = &self.tree {
            std::fs::write(&tree, bytes)?;
            line.extend(["-device".into(), loader(&tree, TREE_AT)]);
        }
        Ok(line)
    }
}

fn loader(file: &Path, at: u64) -> String {
    format!("loader,file={},addr={at:#x},force-raw=on", file.display())
}

/// `LDR X0, x0; LDR X1, image; BR X1`, and the two literals.
fn entry(x0: u64) -> Vec<u8> {
    let code = [0x5800_0080u32, 0x5800_00a1, 0xd61f_0020, 0xd503_201f];
    let literals = [x0, IMAGE_AT].into_iter().flat_map(u64::to_le_bytes);
    code.into_iter()
        .flat_map(u32::to_le_bytes)
        .chain(literals)
        .collect()
}

/// A copy of the image that knows a UART before it has read any tree, as make writes it.
fn with_early_console(image: &Path, copy: &PathBuf) -> std::io::Result<()> {
    let mut bytes = std::fs::read(image)?;
    bytes[0x40..0x80].fill(0);
    bytes[0x40..0x40 + EARLY_CONSOLE.len()].copy_from_slice(EARLY_CONSOLE);
    std::fs::write(copy, bytes)
}

/// QEMU's device tree of the machine, without this node.
fn tree_of(qemu: &str, folder: &Path, without: Option<&str>) -> Result<Vec<u8>, String> {
    let file = folder.join("qemu.dtb");
    let mut dump = Command::new(qemu);
    dump.args(MACHINE.split(' ').take(8))
        .args(["-nic", "none", "-display", "none", "-serial", "null"]);
    dump.args(["-machine", &format!("dumpdtb={}", file.display())]);
    silently(&mut dump)?;
    if let Some(node) = without {
        silently(Command::new("fdtput").arg("-r").arg(&file).arg(node))?;
    }
    std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))
}

fn silently(command: &mut Command) -> Result<(), String> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{command:?}: {other:?}")),
    }
}

/// The big-endian word at `offset`.
fn word(tree: &[u8], offset: usize) -> u32 {
    tree[offset..]
        .iter()
        .take(4)
        .fold(0, |word, &byte| word << 8 | u32::from(byte))
}

fn with_word(tree: &[u8], offset: usize, value: u32) -> Vec<u8> {
    let mut tree = tree.to_vec();
    tree[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
    tree
}
