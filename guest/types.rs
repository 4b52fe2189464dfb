//! The confusion of the two faults does not compile: the two snippets at the head of `src/stage2/walk.rs`, compiled.
//!
//! `compile_fail` alone would be content with any error, a typing mistake too. Here the snippet that must fail has a twin
//! that must compile and differs from it in one call, and the compiler's error code is looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

/// The module documentation of `src/stage2/walk.rs`, cut into its code blocks: what follows the fence, and the code.
fn snippets() -> Vec<(String, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stage2/walk.rs");
    let text = fs::read_to_string(source).expect("the walker is there");
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut is_open = false;
    for line in text.lines().map_while(|line| line.strip_prefix("//!")) {
        let line = line.strip_prefix(' ').unwrap_or(line);
        match (line.strip_prefix("```"), is_open) {
            (Some(kind), false) => {
                blocks.push((kind.to_string(), String::new()));
                is_open = true;
            }
            (Some(_), true) => is_open = false,
            (None, true) => {
                let (_, code) = blocks.last_mut().expect("a block is open");
                code.push_str(line);
                code.push('\n');
            }
            (None, false) => {}
        }
    }
    blocks
}

/// The twin that compiles, and the one that does not.
fn twins() -> (String, String) {
    let [(good, twin), (bad, confusion)] =
        <[_; 2]>::try_from(snippets()).expect("two snippets, no more");
    assert_eq!((good.as_str(), bad.as_str()), ("", "compile_fail,E0599"));
    (twin, confusion)
}

/// Identifiers, numbers and single other characters.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in code.chars() {
        let is_word = c.is_alphanumeric() || c == '_';
        match tokens.last_mut() {
            Some(last) if is_word && in_word => last.push(c),
            _ if !c.is_whitespace() => tokens.push(c.to_string()),
            _ => {}
        }
        in_word = is_word;
    }
    tokens
}

#[test]
fn the_twins_differ_in_exactly_one_call() {
    let (twin, confusion) = twins();
    let (twin, confusion) = (tokens(&twin), tokens(&confusion));
    assert_eq!(twin.len(), confusion.len());
    let differing: Vec<usize> = (0..twin.len())
        .filter(|n| twin[*n] != confusion[*n])
        .collect();
    let [n] = differing[..] else {
        panic!("they differ in {} places", differing.len())
    };
    assert_eq!((twin[n].as_str(), confusion[n].as_str()), ("relax", "map"));
    assert_eq!(
        (twin[n - 1].as_str(), twin[n + 1].as_str()),
        (".", "("),
        "it is a method call"
    );
}

/// The library as this test run built it may be one of several beside this test: newest first.
fn libraries() -> Vec<PathBuf> {
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.parent().expect("and its folder");
    let is_library = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with("libfaultline-") && name.ends_with(".rlib")
    };
    let age = |path: &PathBuf| {
        fs::metadata(path)
            .and_then(|file| file.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let mut libraries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder can be read")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_library)
        .collect();
    libraries.sort_by_key(age);
    libraries.reverse();
    libraries
}

fn compile(name: &str, code: &str, library: &Path) -> Output {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = folder.join(format!("{name}.rs"));
    fs::write(&source, code).expect("cargo's folder for tests can be written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let dependencies = library.parent().expect("a library lies in a folder");
    Command::new(rustc)
        .args([
            "--edition=2024",
            "--crate-type=lib",
            "--emit=metadata",
            "--color=never",
        ])
        .arg(format!("--extern=faultline={}", library.display()))
        .arg(format!("-Ldependency={}", dependencies.display()))
        .arg(format!(
            "-o{}",
            folder.join(format!("lib{name}.rmeta")).display()
        ))
        .arg(&source)
        .output()
        .expect("rustc can be run; RUSTC names another")
}

/// The codes of all errors the compiler reports.
fn error_codes(stderr: &str) -> Vec<&str> {
    stderr
        .lines()
        .filter_map(|line| line.strip_prefix("error["))
        .filter_map(|rest| Some(&rest[..rest.find(']')?]))
        .collect()
}

#[test]
fn relax_on_a_present_leaf_compiles_and_map_is_no_method_of_it() {
    let (twin, confusion) = twins();
    let mut complaint = String::from("no libfaultline-*.rlib beside this test");
    // Another compiler's library, or one of other features, may lie there as well: the twin tells which is ours.
    for library in libraries() {
        let compiled = compile("twin", &twin, &library);
        if !compiled.status.success() {
            complaint = String::from_utf8_lossy(&compiled.stderr).into_owned();
            continue;
        }
        let refused = compile("confusion", &confusion, &library);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success(),
            "a permission fault can be mapped over"
        );
        assert_eq!(error_codes(&stderr), ["E0599"], "{stderr}");
        assert!(stderr.contains("present.map(m, grant)"), "{stderr}");
        return;
    }
    panic!("the twin does not compile: {complaint}");
}
