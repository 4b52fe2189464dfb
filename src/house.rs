//! The house rules that a compiler does not know, held by tests.

use std::fs;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// Modules from the known to the knowing. A module may use those before it, and those on its own line.
const STOREYS: &[&[&str]] = &[
    &["addr", "intid", "sync"],
    &["machine", "features", "registers", "device"],
    &["page_pool", "traps", "options", "sched"],
    &["stage2"],
    &["exit", "slot", "content", "board", "vgic"],
    &["stats", "fault", "sysreg", "platform"],
    &["config", "image", "guest_tree", "smccc", "psci"],
    &["vm"],
];

fn storey(module: &str) -> usize {
    let found = STOREYS.iter().position(|storey| storey.contains(&module));
    found.unwrap_or_else(|| panic!("{module} has no storey: put it into STOREYS"))
}

/// All Rust files below `folder`, tests aside.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir()
            && !name.ends_with("el2")
            && !name.ends_with("tests")
            && !name.ends_with("recorder")
        {
            found.extend(sources(&path));
        } else if name.ends_with(".rs")
            && !name.ends_with("tests.rs")
            && !name.ends_with("recorder.rs")
        {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            found.push((name, String::from(code)));
        }
    }
    found
}

/// The module of the crate that a file belongs to.
fn module_of(file: &str) -> &str {
    let inside = file.rsplit_once("src/").unwrap().1;
    inside.split(['/', '.']).next().unwrap()
}

#[test]
fn dependencies_point_downwards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut edges = 0;
    for (file, code) in sources(&root) {
        let from = module_of(&file);
        if matches!(from, "lib" | "main" | "house" | "el2") {
            continue;
        }
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for part in lines.flat_map(|line| line.split("crate::").skip(1)) {
            let to = part
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap();
            assert!(
                storey(to) <= storey(from),
                "{file}: {from} must not know {to}"
            );
            edges += 1;
        }
    }
    assert!(edges > 50, "the test looks at the sources");
}

#[test]
fn the_logic_names_no_instruction() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, code) in sources(&root) {
        if matches!(module_of(&file), "lib" | "main" | "house" | "el2") {
            continue;
        }
        // A pause between two looks is no instruction in `core`, or the wrong one.
        let code = code.replace("aarch64_cpu::asm::sevl();", "");
        let code = code.replace("aarch64_cpu::asm::wfe();", "");
        for word in ["asm!", "aarch64_cpu", "static mut", "unsafe {"] {
            assert!(!code.contains(word), "{file}: {word}");
        }
    }
}
