//! Counters, told in words.
use core::fmt::{Display, Error, Formatter, Result, Write};
use runtime::hypercall::{Counter, Counters};

/// What EL2 saw and did, from a difference of counters: `this, that -> so and so.`
pub struct Account<'a>(pub &'a Counters);

/// How a counter is told: when it moved by one, and around the number when it moved by more.
struct Words(Counter, &'static str, &'static str, &'static str);

/// What was seen.
#[rustfmt::skip]
const SEEN: [Words; 7] = [
    Words(Counter::TranslationRead, "translation fault on a read", "", " translation faults on reads"),
    Words(Counter::TranslationWrite, "translation fault on a write", "", " translation faults on writes"),
    Words(Counter::TranslationFetch, "translation fault on a fetch", "", " translation faults on fetches"),
    Words(Counter::PermissionRead, "permission fault on a read", "", " permission faults on reads"),
    Words(Counter::PermissionWrite, "permission fault on a write", "", " permission faults on writes"),
    Words(Counter::PermissionFetch, "permission fault on a fetch", "", " permission faults on fetches"),
    Words(Counter::MmioEmulated, "device access", "", " device accesses"),
];

/// What was done.
#[rustfmt::skip]
const DONE: [Words; 6] = [
    Words(Counter::PagesMapped, "page mapped", "", " pages mapped"),
    Words(Counter::WriteRelaxed, "made writable", "", " pages made writable"),
    Words(Counter::ExecRelaxed, "made executable", "", " pages made executable"),
    Words(Counter::IcacheCoherent, "I-cache invalidated", "I-cache invalidated for ", " pages"),
    Words(Counter::TlbInvalidations, "TLB invalidated", "TLB invalidated ", " times"),
    Words(Counter::AbortsInjected, "abort injected", "", " aborts injected"),
];

impl Display for Account<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if !self.tell(f, &SEEN)? {
            return f.write_str(self.unseen());
        }
        match self.0.get(Counter::Stage1Walk) {
            0 => {}
            walks => write!(f, " ({walks} by the walker of my tables)")?,
        }
        f.write_str(" -> ")?;
        if !self.tell(f, &DONE)? {
            f.write_str("answered")?;
        }
        f.write_str(".")
    }
}

impl Account<'_> {
    /// When no fault was resolved: an abort may still have been handed back.
    fn unseen(&self) -> &'static str {
        match self.0.get(Counter::AbortsInjected) {
            0 => "nothing to do: the hardware does it alone.",
            _ => "access to nothing -> abort injected.",
        }
    }

    /// Writes the counters that moved; says whether any did.
    fn tell(&self, f: &mut Formatter<'_>, items: &[Words]) -> core::result::Result<bool, Error> {
        let mut separator = "";
        for &Words(counter, one, before, after) in items {
            match self.0.get(counter) {
                0 => continue,
                1 => write!(f, "{separator}{one}")?,
                count => write!(f, "{separator}{before}{count}{after}")?,
            }
            separator = ", ";
        }
        Ok(!separator.is_empty())
    }
}

/// `1 fault`, `2 faults`.
pub struct Times(pub u64);

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} fault{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Columns of a terminal that are used.
const WIDTH: usize = 79;
/// Columns that text of a step is set in by.
pub const INDENT: &str = "    ";

/// Text set in under a step, broken between words.
pub struct Paragraph<T>(pub T);

impl<T: Display> Display for Paragraph<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(INDENT)?;
        let mut column = Columns {
            out: f,
            column: INDENT.len(),
            word: [0; WIDTH],
            length: 0,
        };
        write!(column, "{}", self.0)?;
        column.end_word()
    }
}

struct Columns<'a, 'b> {
    out: &'a mut Formatter<'b>,
    column: usize,
    /// The word being gathered, which may come in several pieces.
    word: [u8; WIDTH],
    length: usize,
}

impl Columns<'_, '_> {
    fn end_word(&mut self) -> Result {
        let space = usize::from(self.column > INDENT.len());
        if self.column + space + self.length > WIDTH {
            self.out.write_str("\n")?;
            self.out.write_str(INDENT)?;
            self.column = INDENT.len();
        } else if space == 1 {
            self.out.write_str(" ")?;
            self.column += 1;
        }
        self.out
            .write_str(core::str::from_utf8(&self.word[..self.length]).unwrap_or("?"))?;
        self.column += self.length;
        self.length = 0;
        Ok(())
    }
}

impl Write for Columns<'_, '_> {
    fn write_str(&mut self, text: &str) -> Result {
        for byte in text.bytes() {
            if byte == b' ' || self.length == WIDTH {
                self.end_word()?;
            }
            if byte != b' ' {
                self.word[self.length] = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}
