//! Boots our guests, and Linux, on Faultline under QEMU, and reads what they say. `make test` calls it when everything is
//! built; `cargo test` alone leaves it out.
//!
//! A case passes when the run ends in time with the verdict it expects and everything it expects was on the console.
//! Silence is a failure. Machines are chosen by what their ID registers say, so that a newer QEMU shows more; what the
//! QEMU at hand cannot show is listed in one line, `left out: …`, before the last one, `N passed, N failed`.
//!
//! `cargo test --test qemu -- WORD…` runs only cases whose name contains a word. FAULTLINE_QEMU=all runs the whole
//! matrix, PART=k/n of it every n-th case from the k-th on, JOBS=n so many QEMUs at once (2).

#[path = "qemu/bench.rs"]
mod bench;
#[path = "qemu/cases.rs"]
mod cases;
#[path = "qemu/console.rs"]
mod console;
#[path = "qemu/endings.rs"]
mod endings;
#[path = "qemu/entry.rs"]
mod entry;
#[path = "qemu/lab.rs"]
mod lab;
#[path = "qemu/linux.rs"]
mod linux;
#[path = "qemu/observed.rs"]
mod observed;
#[path = "qemu/run.rs"]
mod run;
#[path = "qemu/smp.rs"]
mod smp;

use cases::Plan;
use lab::Lab;
use run::Case;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Mutex;

/// QEMUs at once.
const JOBS: usize = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let lab = match Lab::open() {
        Ok(lab) => lab,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let everything = std::env::var("FAULTLINE_QEMU").is_ok_and(|value| value == "all");
    let Plan {
        mut cases,
        left_out,
    } = cases::plan(&lab, everything);
    cases.retain(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word)));
    if let Ok(part) = std::env::var("PART") {
        let Some((first, step)) = part_of(&part) else {
            eprintln!("PART={part} is not k/n, as in PART=3/20: 1 is the first part, n the last");
            return ExitCode::FAILURE;
        };
        cases = cases.into_iter().skip(first).step_by(step).collect();
    }
    let jobs = std::env::var("JOBS")
        .ok()
        .and_then(|jobs| jobs.parse().ok())
        .unwrap_or(JOBS);
    let (passed, failures) = run_all(cases, jobs);
    for (case, failure) in &failures {
        println!("\n---- {}: {}", case.name, failure.why);
        println!("     to see it again: {}", case.command());
        println!("{}", failure.tail());
    }
    println!();
    if !left_out.is_empty() {
        println!("left out: {}", left_out.join("; "));
    }
    println!("{passed} passed, {} failed", failures.len());
    if failures.is_empty() && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// `k/n`: where a part begins, and what it goes on by. The matrix takes many hours, and its parts may run on as many
/// machines, or nights; each has something of everything.
fn part_of(text: &str) -> Option<(usize, usize)> {
    let (part, parts) = text.split_once('/')?;
    let (part, parts): (usize, usize) = (part.parse().ok()?, parts.parse().ok()?);
    (1..=parts).contains(&part).then(|| (part - 1, parts))
}

/// Runs the cases, `jobs` at a time, longest first as the plan has them; answers how many passed, and the others.
fn run_all(cases: Vec<Case>, jobs: usize) -> (usize, Vec<(Case, run::Failure)>) {
    let total = cases.len();
    let queue = Mutex::new(VecDeque::from(cases));
    let done = Mutex::new((0, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().pop_front() else {
                        break;
                    };
                    let (seconds, result) = case.run();
                    let mut done = done.lock().unwrap();
                    let number = done.0 + done.1.len() + 1;
                    let word = if result.is_ok() { "ok" } else { "FAILED" };
                    println!(
                        "{number:3}/{total} {:<52} {word} ({seconds:.1} s)",
                        case.name
                    );
                    match result {
                        Ok(()) => done.0 += 1,
                        Err(failure) => done.1.push((case, failure)),
                    }
                }
            });
        }
    });
    done.into_inner().unwrap()
}
