//! The hypervisor's own command line: words of the host's `/chosen/bootargs`.
//!
//! | word | meaning |
//! |---|---|
//! | `faultline.nonce=<hex>` | repeated in the verdict line, so that no guest can forge one |
//! | `faultline.epoch=<seconds>` | time of day at boot, seconds since 1970 |
//! | `faultline.seed=<u64>` | replaces all randomness: two runs are alike |
//! | `faultline.crash=abort\|panic\|stack` | crash EL2 in this way when the first VM has ended; a test's switch |
//!
//! Total: what is wrong with the line is a warning beside the options, and the rest still counts. Words without our prefix
//! are somebody else's. The last of several equal words wins.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The prefix of the words that are ours.
const PREFIX: &str = "faultline.";

/// Number of hexadecimal digits a nonce may have.
const NONCE_MAX: usize = 64;

/// A way to crash EL2 on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// A data abort at EL2.
    Abort,
    /// A Rust panic.
    Panic,
    /// Running into the stack's guard page.
    Stack,
}

/// A number used once: hexadecimal digits, kept as they were written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nonce(String);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Repeated in the verdict line.
    pub nonce: Option<Nonce>,
    /// Seconds since 1970 at boot.
    pub epoch: Option<u64>,
    /// Replaces all randomness.
    pub seed: Option<u64>,
    /// Crash EL2 after the first VM.
    pub crash: Option<Crash>,
    /// One line each: words with a value that cannot be read, then all unknown ones in one.
    pub warnings: Vec<String>,
}

impl Options {
    /// Reads a command line.
    #[must_use]
    pub fn parse(bootargs: &str) -> Self {
        let mut options = Self::default();
        let mut unknown = Vec::new();
        for word in bootargs
            .split_whitespace()
            .filter(|word| word.starts_with(PREFIX))
        {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let understood = match name.strip_prefix(PREFIX) {
                Some("nonce") => set(&mut options.nonce, nonce(value)),
                Some("epoch") => set(&mut options.epoch, value.parse().ok()),
                Some("seed") => set(&mut options.seed, number(value)),
                Some("crash") => set(&mut options.crash, crash(value)),
                _ => {
                    unknown.push(name);
                    continue;
                }
            };
            if !understood {
                options
                    .warnings
                    .push(format!("bootargs: `{word}` cannot be read and is ignored"));
            }
        }
        if !unknown.is_empty() {
            options.warnings.push(format!(
                "bootargs: unknown and ignored: {}",
                unknown.join(", ")
            ));
        }
        options
    }
}

/// Sets an option that could be read; tells whether it could.
fn set<T>(option: &mut Option<T>, value: Option<T>) -> bool {
    let readable = value.is_some();
    if readable {
        *option = value;
    }
    readable
}

fn nonce(text: &str) -> Option<Nonce> {
    let sound =
        (1..=NONCE_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| Nonce(String::from(text)))
}

/// Decimal, or hexadecimal after `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn crash(text: &str) -> Option<Crash> {
    match text {
        "abort" => Some(Crash::Abort),
        "panic" => Some(Crash::Panic),
        "stack" => Some(Crash::Stack),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn every_word_of_the_table_is_understood_among_words_of_others() {
        let line = "console=ttyAMA0 faultline.nonce=00c0FFEE quiet faultline.epoch=1790000000 \
                    faultline.seed=0xffffffffffffffff faultline.crash=stack init=/bin/sh";
        let options = Options::parse(line);
        assert_eq!(
            options.nonce.unwrap().to_string(),
            "00c0FFEE",
            "written back digit by digit"
        );
        assert_eq!(options.epoch, Some(1_790_000_000));
        assert_eq!(options.seed, Some(u64::MAX));
        assert_eq!(options.crash, Some(Crash::Stack));
        assert_eq!(options.warnings, [""; 0]);
    }

    #[test]
    fn an_empty_line_asks_for_nothing() {
        assert_eq!(Options::parse(""), Options::default());
    }

    #[test]
    fn unknown_words_share_one_warning() {
        let options =
            Options::parse("faultline.nonse=1 faultline.seed=3 faultline. faultline.verbose");
        assert_eq!(options.seed, Some(3));
        let expected =
            "bootargs: unknown and ignored: faultline.nonse, faultline., faultline.verbose";
        assert_eq!(options.warnings, [expected]);
    }

    #[test]
    fn a_value_that_cannot_be_read_leaves_the_one_before() {
        for bad in [
            "seed=",
            "seed=-1",
            "seed",
            "seed=18446744073709551616",
            "seed=0x",
        ] {
            let options = Options::parse(&format!("faultline.seed=7 faultline.{bad}"));
            assert_eq!(options.seed, Some(7));
            assert_eq!(
                options.warnings,
                [format!(
                    "bootargs: `faultline.{bad}` cannot be read and is ignored"
                )]
            );
        }
    }

    #[test]
    fn the_last_word_wins() {
        assert_eq!(
            Options::parse("faultline.crash=abort faultline.crash=panic").crash,
            Some(Crash::Panic)
        );
    }

    #[test]
    fn a_nonce_is_hexadecimal_and_of_bounded_length() {
        for bad in ["", "xyz", "1-2", &"a".repeat(NONCE_MAX + 1)] {
            assert_eq!(
                Options::parse(&format!("faultline.nonce={bad}")).nonce,
                None
            );
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_and_each_warning_is_one_line(line in "(faultline\\.|seed|nonce|=|0x|\\PC| ){0,20}") {
            let warnings = Options::parse(&line).warnings;
            prop_assert!(warnings.iter().all(|warning| !warning.contains('\n')), "{:?}", warnings);
        }

        #[test]
        fn any_seed_survives_the_round_trip(seed in any::<u64>()) {
            prop_assert_eq!(Options::parse(&format!("faultline.seed={seed}")).seed, Some(seed));
            prop_assert_eq!(Options::parse(&format!("faultline.seed={seed:#x}")).seed, Some(seed));
        }
    }
}
