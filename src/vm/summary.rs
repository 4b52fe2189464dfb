//! What a VM did, in a few lines, when it has ended.

use core::fmt;

use crate::addr::{PAGE_SIZE, Size};
use crate::stats::Count;
use crate::vm::Vm;
use crate::vm::devices::NAMES;

/// The summary of a VM; shown, it is seven aligned lines of at most 80 columns without a line end after the last.
pub struct Summary<'a> {
    /// The VM.
    pub vm: &'a Vm,
    /// How long it ran, in milliseconds.
    pub milliseconds: u64,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.vm.counters();
        let pages = self.vm.stage2().page_count();
        let tables = self.vm.stage2().table_count();
        let (seconds, rest) = (self.milliseconds / 1000, self.milliseconds % 1000);
        writeln!(
            f,
            "  ran          {seconds}.{rest:03} s; {pages} pages touched, {} of {}; {tables} tables",
            Size(pages * PAGE_SIZE),
            Size(self.vm.memory),
        )?;
        let [read, write, fetch] = c.translation.each_ref().map(Count::get);
        let all = read + write + fetch;
        writeln!(
            f,
            "  translation  {all:<7} read {read}, write {write}, fetch {fetch}: page mapped"
        )?;
        let [read, write, fetch] = c.permission.each_ref().map(Count::get);
        let all = read + write + fetch;
        writeln!(
            f,
            "  permission   {all:<7} read {read}, write {write}, fetch {fetch}: rights relaxed"
        )?;
        let [r, w, x] = &c.relaxed;
        writeln!(
            f,
            "  odd faults   stale {}, walk {}, raced {}, status off {}; window {}; IPA by AT {}",
            c.sufficient, c.stage1_walk, c.raced, c.cross_check, c.windows, c.translated_by_at
        )?;
        writeln!(
            f,
            "  upkeep       relaxed R {r} W {w} X {x}; pages: I-cache {}, D-cache {}; TLBI {}; all cleaned {}; blocks split {}",
            c.icache, c.dcache, c.tlbi, c.flushes, c.split
        )?;
        write!(f, "  devices     ")?;
        for (name, count) in NAMES.iter().zip(&c.mmio).filter(|(_, count)| **count != 0) {
            write!(f, " {name} {count}")?;
        }
        writeln!(
            f,
            "; injected {} aborts, {} undefined; skipped {}",
            c.injected, c.undefined, c.skipped
        )?;
        let e = &c.exits;
        write!(
            f,
            "  exits        {:<7} aborts {}, calls {}, registers {}, interrupts {}, other {}",
            e.total(),
            e.aborts,
            e.calls,
            e.sysreg,
            e.interrupts,
            e.waits.get() + e.other.get()
        )
    }
}
