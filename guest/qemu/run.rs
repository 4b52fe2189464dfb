//! One case: a boot, what is typed, and what must come of it.
use crate::console::{self, End, Keys};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Lines of console shown of a failure.
const TAIL: usize = 30;
/// What a case may take that does not say otherwise: many times what it takes alone.
const LIMIT: Duration = Duration::from_secs(180);
/// What run.sh may take beyond the limit it is given itself.
const GRACE: Duration = Duration::from_secs(20);

/// Exit codes of `run.sh` (docs: the verdict).
pub(crate) mod code {
    pub(crate) const OK: i32 = 0;
    pub(crate) const FAILED: i32 = 1;
    pub(crate) const STOPPED: i32 = 2;
    pub(crate) const CRASHED: i32 = 3;
    pub(crate) const REFUSED: i32 = 4;
    pub(crate) const NO_VERDICT: i32 = 5;
    pub(crate) const TIME_LIMIT: i32 = 124;
}

/// QEMU's arguments for a machine whose time is the number of instructions executed.
pub(crate) const VIRTUAL_TIME: &str = "-accel tcg,thread=single -icount shift=0,sleep=off";

/// What starts the machine.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    /// `guest/host/run.sh`, which answers with the verdict as its exit code: one of these.
    RunScript(Vec<i32>),
    /// QEMU itself, for machines that cannot have a verdict; ended as soon as everything expected was said.
    Qemu(String, Vec<String>),
}

/// Looks at a console's whole text; says what is wrong with it.
pub(crate) type Examine = fn(&str) -> Result<(), String>;

/// Looks at two consoles' text, this case's and another's.
pub(crate) type Compare = fn(&str, &str) -> Result<(), String>;

/// One boot.
pub(crate) struct Case {
    pub(crate) name: String,
    root: PathBuf,
    start: Start,
    variables: Vec<(&'static str, String)>,
    keys: Vec<Keys>,
    says: Vec<String>,
    never: Vec<String>,
    examine: Vec<Examine>,
    compare: Option<(Box<Case>, Compare)>,
    limit: Duration,
}

/// Why a case failed.
pub(crate) struct Failure {
    pub(crate) why: String,
    console: String,
}

impl Failure {
    /// The end of the console's text.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<&str> = self.console.lines().collect();
        let from = lines.len().saturating_sub(TAIL);
        lines[from..]
            .iter()
            .map(|line| format!("     | {}\n", line.trim_end()))
            .collect()
    }
}

impl Case {
    /// A boot by run.sh that ends with `verdict`.
    pub(crate) fn new(root: &Path, name: String, verdict: i32) -> Self {
        Self::start(root, name, Start::RunScript(vec![verdict]))
    }

    /// A boot in some way.
    pub(crate) fn start(root: &Path, name: String, start: Start) -> Self {
        Self {
            name,
            root: root.into(),
            start,
            variables: Vec::new(),
            keys: Vec::new(),
            says: Vec::new(),
            never: Vec::new(),
            examine: Vec::new(),
            compare: None,
            limit: LIMIT,
        }
    }

    /// May end in any of these ways instead.
    pub(crate) fn ending_in(mut self, verdicts: &[i32]) -> Self {
        self.start = Start::RunScript(verdicts.to_vec());
        self
    }

    /// With a variable of run.sh's.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.into()));
        self
    }

    /// Types `send` once `after` has been said.
    pub(crate) fn types(mut self, after: &'static str, send: impl Into<String>) -> Self {
        self.keys.push(Keys {
            after,
            send: send.into(),
        });
        self
    }

    /// Answers this question with `y` so many times, then with `n`.
    pub(crate) fn asked(mut self, question: &'static str, times: usize) -> Self {
        for answer in std::iter::repeat_n("y", times).chain(["n"]) {
            self = self.types(question, answer);
        }
        self
    }

    /// The console must say this.
    pub(crate) fn says(mut self, text: impl Into<String>) -> Self {
        self.says.push(text.into());
        self
    }

    /// The console must not say this.
    pub(crate) fn never(mut self, text: impl Into<String>) -> Self {
        self.never.push(text.into());
        self
    }

    /// The console's text must please this too.
    pub(crate) fn examined_by(mut self, examine: Examine) -> Self {
        self.examine.push(examine);
        self
    }

    /// What `other` says is compared with what this one says.
    pub(crate) fn compared_with(mut self, other: Case, compare: Compare) -> Self {
        self.compare = Some((Box::new(other), compare));
        self
    }

    /// Ends in at most this time.
    pub(crate) fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Boots; answers how long it took, and what was wrong.
    pub(crate) fn run(&self) -> (f64, Result<(), Failure>) {
        let begin = Instant::now();
        let result = self.console().and_then(|console| {
            let Some((other, compare)) = &self.compare else {
                return Ok(());
            };
            compare(&console, &other.console()?).map_err(|why| Failure { why, console })
        });
        (begin.elapsed().as_secs_f64(), result)
    }

    /// Boots, and answers what was said if it pleases.
    fn console(&self) -> Result<String, Failure> {
        let enough =
            |text: &str| matches!(self.start, Start::Qemu(..)) && self.missing(text).is_none();
        match console::watch(self.process(), &self.keys, self.patience(), enough) {
            Ok((end, console)) => match self.judge(&end, &console) {
                Ok(()) => Ok(console),
                Err(why) => Err(Failure { why, console }),
            },
            Err(error) => Err(Failure {
                why: format!("could not start: {error}"),
                console: String::new(),
            }),
        }
    }

    /// How long to wait: run.sh keeps the limit itself.
    fn patience(&self) -> Duration {
        match self.start {
            Start::RunScript(_) => self.limit + GRACE,
            Start::Qemu(..) => self.limit,
        }
    }

    fn judge(&self, end: &End, console: &str) -> Result<(), String> {
        match (&self.start, end) {
            (_, End::Limit) => {
                return Err(format!("no end after {} s", self.patience().as_secs()));
            }
            (Start::RunScript(expected), End::Code(code))
                if !code.is_some_and(|code| expected.contains(&code)) =>
            {
                return Err(format!("exit code {code:?}, not {expected:?}"));
            }
            _ => {}
        }
        if let Some(text) = self.missing(console) {
            return Err(format!("never said `{text}`"));
        }
        if let Some(text) = self
            .never
            .iter()
            .find(|text| console.contains(text.as_str()))
        {
            return Err(format!("said `{text}`"));
        }
        self.examine.iter().try_for_each(|examine| examine(console))
    }

    /// The first text that was expected and not said.
    fn missing(&self, console: &str) -> Option<&str> {
        self.says
            .iter()
            .map(String::as_str)
            .find(|text| !console.contains(text))
    }

    fn process(&self) -> Command {
        match &self.start {
            Start::RunScript(_) => {
                let mut command = Command::new("guest/host/run.sh");
                // Nothing of the caller's but where programs are: `make` exports its variables to us.
                command.env_clear().current_dir(&self.root);
                command.envs(
                    ["PATH", "HOME", "TMPDIR", "QEMU"]
                        .iter()
                        .filter_map(|name| Some((name, std::env::var_os(name)?))),
                );
                command.envs(self.variables.iter().map(|(name, value)| (name, value)));
                command.env("TIMEOUT", self.limit.as_secs().to_string());
                command.env("LOG", self.log());
                command
            }
            Start::Qemu(program, arguments) => {
                let mut command = Command::new(program);
                command.args(arguments).current_dir(&self.root);
                command
            }
        }
    }

    fn log(&self) -> PathBuf {
        let folder = self.root.join("target/qemu-logs");
        // If it cannot be made, run.sh says so.
        let _ = std::fs::create_dir_all(&folder);
        folder.join(format!("{}.log", self.name.replace([' ', '/', ','], "-")))
    }

    /// A command line that does the same.
    pub(crate) fn command(&self) -> String {
        match &self.start {
            Start::Qemu(program, arguments) => format!("{program} {}", arguments.join(" ")),
            Start::RunScript(_) => {
                let keys: String = self.keys.iter().map(|keys| keys.send.as_str()).collect();
                let typed = if keys.is_empty() {
                    "</dev/null".into()
                } else {
                    format!("printf {keys:?} |")
                };
                let variables = self
                    .variables
                    .iter()
                    .map(|(name, value)| format!("{name}='{value}' "));
                let variables: String = variables
                    .chain([format!("TIMEOUT={} ", self.limit.as_secs())])
                    .collect();
                if keys.is_empty() {
                    format!("{variables}guest/host/run.sh {typed}")
                } else {
                    format!("{typed} {variables}guest/host/run.sh")
                }
            }
        }
    }
}
