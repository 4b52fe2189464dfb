//! Counters, told in words.
use core::fmt::{Display, Formatter, Result};
use runtime::hypercall::{Counter, Counters};

/// What EL2 saw and did, from a difference of counters: `2 faults (a, b): did this, did that`.
pub struct Account<'a>(pub &'a Counters);

/// What was seen.
const SEEN: [(Counter, &str); 7] = [
    (Counter::TranslationRead, "translation fault, read"),
    (Counter::TranslationWrite, "translation fault, write"),
    (Counter::TranslationFetch, "translation fault, fetch"),
    (Counter::PermissionRead, "permission fault, read"),
    (Counter::PermissionWrite, "permission fault, write"),
    (Counter::PermissionFetch, "permission fault, fetch"),
    (Counter::MmioEmulated, "device access"),
];

/// What was done.
const DONE: [(Counter, &str); 6] = [
    (Counter::PagesMapped, "mapped a page"),
    (Counter::WriteRelaxed, "made a page writable"),
    (Counter::ExecRelaxed, "made a page executable"),
    (Counter::IcacheCoherent, "invalidated I-cache"),
    (Counter::TlbInvalidations, "invalidated TLB"),
    (Counter::AbortsInjected, "injected an abort"),
];

impl Display for Account<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if !self.list(f, &SEEN)? {
            return write!(f, "nothing: the hardware does it alone now.");
        }
        if self.0.get(Counter::Stage1Walk) > 0 {
            write!(
                f,
                " ({} by the table walker)",
                self.0.get(Counter::Stage1Walk)
            )?;
        }
        write!(f, " -> ")?;
        if !self.list(f, &DONE)? {
            write!(f, "answered")?;
        }
        write!(f, ".")
    }
}

impl Account<'_> {
    /// Writes the counters that moved; says whether any did.
    fn list(
        &self,
        f: &mut Formatter<'_>,
        items: &[(Counter, &str)],
    ) -> core::result::Result<bool, core::fmt::Error> {
        let mut moved = items
            .iter()
            .filter(|(counter, _)| self.0.get(*counter) > 0)
            .peekable();
        let any = moved.peek().is_some();
        let mut separator = "";
        for (counter, words) in moved {
            write!(f, "{separator}{words}")?;
            let count = self.0.get(*counter);
            if count > 1 {
                write!(f, " x{count}")?;
            }
            separator = ", ";
        }
        Ok(any)
    }
}

/// `1 fault`, `2 faults`.
pub struct Times(pub u64);

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} fault{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}
