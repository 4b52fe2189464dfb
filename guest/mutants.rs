//! Deliberate bugs, each of which some test must catch. `make mutants` runs them all; `make test` five of them.
//!
//! A bug in what the machine is told is a switch of the hardware model: the very test binary of the tree, with one
//! operation dropped or weakened. Any other is one line of the source and what stands there instead, put into a copy of
//! the tree under `target/mutants`. A line that is not there exactly once fails, before anything else runs: a list that
//! nobody keeps up catches nothing.
//!
//! Prints `caught NAME by TEST` or `SURVIVED NAME` for each, and `N passed, N failed` in the end. Words choose by name,
//! `quick` the five of the gate, `list` only checks the list.

#[path = "mutants/list.rs"]
mod list;
#[path = "mutants/tree.rs"]
mod tree;

use list::{LINES, Line, QUICK, SWITCHES};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tree::Copy;

/// How long a mutant's tests may run. One that makes them run for ever is caught, too.
const TESTS: Duration = Duration::from_secs(240);
/// How long its build may take on a busy machine.
const BUILD: Duration = Duration::from_secs(900);

/// What became of a mutant.
enum Fate {
    Caught(String),
    Survived,
    /// It did not build, or the list is wrong.
    Broken(String),
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wrong: Vec<String> = LINES.iter().filter_map(list_error).collect();
    wrong.iter().for_each(|why| println!("{why}"));
    let (mut passed, mut failed) = (usize::from(wrong.is_empty()), wrong.len());
    if wrong.is_empty() && words != ["list"] {
        let chosen = |name: &str| match words.as_slice() {
            [] => true,
            [word] if word == "quick" => QUICK.contains(&name),
            words => words.iter().any(|word| name.contains(word.as_str())),
        };
        for (name, fate) in run(chosen) {
            match fate {
                Fate::Caught(test) => {
                    println!("caught {name} by {test}");
                    passed += 1;
                }
                Fate::Survived => {
                    println!("SURVIVED {name}");
                    failed += 1;
                }
                Fate::Broken(why) => {
                    println!("BROKEN {name}: {why}");
                    failed += 1;
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The mutants whose names are chosen, one after the other, as they are asked for.
fn run(chosen: impl Fn(&str) -> bool + Clone) -> impl Iterator<Item = (&'static str, Fate)> {
    let choose = chosen.clone();
    let switches = SWITCHES.iter().filter(move |(name, _)| choose(name));
    let mut binary = None;
    let switches = switches.map(move |(name, tests)| {
        let binary = binary.get_or_insert_with(|| build(&root(), &folder()));
        (
            *name,
            binary.as_ref().map_or_else(
                |why| Fate::Broken(why.clone()),
                |binary| try_switch(binary, name, tests),
            ),
        )
    });
    let mut copy = None;
    let lines = LINES
        .iter()
        .filter(move |line| chosen(line.name))
        .map(move |line| {
            let copy = copy.get_or_insert_with(|| Copy::of(&root()));
            (line.name, try_line(copy, line))
        });
    switches.chain(lines)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where the tree is built.
fn folder() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR");
    root().join(chosen.unwrap_or_else(|| tree::BUILT.into()))
}

/// Why a line of the list cannot be applied.
fn list_error(line: &Line) -> Option<String> {
    let text = std::fs::read_to_string(root().join(line.file)).unwrap_or_default();
    let count = text
        .lines()
        .filter(|found| found.trim() == line.old)
        .count();
    (count != 1).then(|| {
        format!(
            "BROKEN {}: {} has {count} lines `{}`, not one",
            line.name, line.file, line.old
        )
    })
}

fn try_switch(binary: &Path, name: &str, tests: &[&str]) -> Fate {
    let mut command = Command::new(binary);
    command
        .args(tests)
        .env("FAULTLINE_WEAK", name)
        .current_dir(root());
    first_failure(command)
}

fn try_line(copy: &Copy, line: &Line) -> Fate {
    if let Err(why) = copy.change(line.file, line.old, line.new) {
        return Fate::Broken(why);
    }
    // A folder of its own: cargo takes two trees for one, and would hand a mutant's build to who builds the tree next.
    let fate = match build(&copy.root, &copy.root.join(tree::BUILT)) {
        Ok(binary) => {
            let mut command = Command::new(binary);
            command.args(line.tests).current_dir(&copy.root);
            first_failure(command)
        }
        Err(why) => Fate::Broken(why),
    };
    match copy.restore(line.file) {
        Ok(()) => fate,
        Err(why) => Fate::Broken(why),
    }
}

/// Builds the library's tests of the tree at `root` into `folder`; answers the binary.
fn build(root: &Path, folder: &Path) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--lib", "--no-run", "--color", "never"])
        .env("CARGO_TARGET_DIR", folder)
        .current_dir(root);
    let (status, text) = output(command, BUILD).ok_or("the build does not end")?;
    let path = text.lines().rev().find_map(|line| {
        line.trim()
            .strip_prefix("Executable unittests src/lib.rs (")?
            .strip_suffix(')')
    });
    match path {
        // As cargo prints it: relative to the folder it ran in, where it lies below.
        Some(path) if status => Ok(root.join(path)),
        _ => {
            let why: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("error"))
                .take(3)
                .collect();
            Err(format!("{} (in {})", why.join("; "), folder.display()))
        }
    }
}

/// The first test that fails, or that does not end. No other is waited for.
fn first_failure(mut command: Command) -> Fate {
    command.env("RUST_BACKTRACE", "0");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(why) => return Fate::Broken(why.to_string()),
    };
    let (send, lines) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines
                .take_while(|line| send.send(line.clone()).is_ok())
                .for_each(drop);
        });
    }
    let started = Instant::now();
    let (mut failed, mut count) = (None, 0);
    while failed.is_none() {
        match lines.recv_timeout(TESTS.saturating_sub(started.elapsed())) {
            Ok(line) => {
                count += usize::from(line.starts_with("test "));
                failed = name_of_failure(&line);
            }
            Err(RecvTimeoutError::Timeout) => failed = Some("a test that does not end".into()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(test) = failed {
        let _ = child.kill();
        let _ = child.wait();
        return Fate::Caught(test);
    }
    match child.wait() {
        Ok(status) if !status.success() => Fate::Caught("the end of the whole test run".into()),
        _ if count <= 1 => Fate::Broken("no test has such a name".into()),
        _ => Fate::Survived,
    }
}

/// `test NAME ... FAILED`, as the harness of the library's tests prints it.
fn name_of_failure(line: &str) -> Option<String> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(name.trim_end_matches(" - should panic").into())
}

/// Whether the command did well, and what it said; nothing if it took too long.
fn output(mut command: Command, limit: Duration) -> Option<(bool, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let (mut out, mut err) = (child.stdout.take()?, child.stderr.take()?);
    let readers = (
        std::thread::spawn(move || read(&mut out)),
        std::thread::spawn(move || read(&mut err)),
    );
    let status = wait(&mut child, limit);
    let text = readers.0.join().unwrap_or_default() + &readers.1.join().unwrap_or_default();
    status.map(|status| (status, text))
}

fn read(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if started.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}
