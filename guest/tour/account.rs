//! Counters, told in words.
use core::fmt::{Display, Formatter, Result, Write};
use runtime::hypercall::{Counter, Counters};

/// What EL2 saw and did, from a difference of counters: `sees a, b; it does this, does that.`
pub struct Account<'a>(pub &'a Counters);

/// How a counter is told: when it moved by one, and around the number when it moved by more.
struct Words(Counter, &'static str, &'static str, &'static str);

/// What was seen.
const SEEN: [Words; 7] = [
    Words(
        Counter::TranslationRead,
        "a translation fault on a read",
        "",
        " translation faults on reads",
    ),
    Words(
        Counter::TranslationWrite,
        "a translation fault on a write",
        "",
        " translation faults on writes",
    ),
    Words(
        Counter::TranslationFetch,
        "a translation fault on a fetch",
        "",
        " translation faults on fetches",
    ),
    Words(
        Counter::PermissionRead,
        "a permission fault on a read",
        "",
        " permission faults on reads",
    ),
    Words(
        Counter::PermissionWrite,
        "a permission fault on a write",
        "",
        " permission faults on writes",
    ),
    Words(
        Counter::PermissionFetch,
        "a permission fault on a fetch",
        "",
        " permission faults on fetches",
    ),
    Words(
        Counter::MmioEmulated,
        "a device access",
        "",
        " device accesses",
    ),
];

/// What was done.
const DONE: [Words; 6] = [
    Words(Counter::PagesMapped, "maps a page", "maps ", " pages"),
    Words(
        Counter::WriteRelaxed,
        "makes a page writable",
        "makes ",
        " pages writable",
    ),
    Words(
        Counter::ExecRelaxed,
        "makes a page executable",
        "makes ",
        " pages executable",
    ),
    Words(
        Counter::IcacheCoherent,
        "invalidates the I-cache",
        "invalidates the I-cache for ",
        " pages",
    ),
    Words(
        Counter::TlbInvalidations,
        "invalidates the TLB",
        "invalidates the TLB ",
        " times",
    ),
    Words(
        Counter::AbortsInjected,
        "injects an abort",
        "injects ",
        " aborts",
    ),
];

impl Display for Account<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "sees ")?;
        if !self.tell(f, &SEEN)? {
            return write!(f, "{}", self.unseen());
        }
        match self.0.get(Counter::Stage1Walk) {
            0 => {}
            walks => write!(f, " ({walks} by the walker of my tables)")?,
        }
        write!(f, "; it ")?;
        if !self.tell(f, &DONE)? {
            write!(f, "answers")?;
        }
        write!(f, ".")
    }
}

impl Account<'_> {
    /// When no fault was resolved: an abort may still have been handed back.
    fn unseen(&self) -> &'static str {
        match self.0.get(Counter::AbortsInjected) {
            0 => "nothing: the hardware does it alone now.",
            _ => "an access to nothing; it injects an abort.",
        }
    }

    /// Writes the counters that moved; says whether any did.
    fn tell(
        &self,
        f: &mut Formatter<'_>,
        items: &[Words],
    ) -> core::result::Result<bool, core::fmt::Error> {
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
