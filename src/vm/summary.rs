//! What a VM did, in a few lines, when it has ended.

use core::fmt;

use crate::addr::{PAGE_SIZE, Size};
use crate::stats::Counters;
use crate::vm::Vm;
use crate::vm::devices::NAMES;

/// The summary of a VM; shown, it is up to six aligned lines without a line end after the last.
pub struct Summary<'a> {
    /// The VM.
    pub vm: &'a Vm,
    /// Its vCPU's counters.
    pub counters: &'a Counters,
    /// How long it ran, in milliseconds.
    pub milliseconds: u64,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.counters;
        let pages = self.vm.stage2.page_count();
        let (seconds, rest) = (self.milliseconds / 1000, self.milliseconds % 1000);
        writeln!(
            f,
            "  memory       {pages} pages touched: {} of {}, and {} of tables; ran {seconds}.{rest:03} s",
            Size(pages * PAGE_SIZE),
            Size(self.vm.memory),
            Size(self.vm.stage2.table_count() * PAGE_SIZE),
        )?;
        let [tr, tw, tx] = c.translation;
        let [pr, pw, px] = c.permission;
        writeln!(
            f,
            "  translation  {:<8} read {tr}, write {tw}, fetch {tx}: a page taken and mapped",
            tr + tw + tx
        )?;
        writeln!(
            f,
            "  permission   {:<8} read {pr}, write {pw}, fetch {px}: rights relaxed in place",
            pr + pw + px
        )?;
        let [r, w, x] = c.relaxed;
        writeln!(
            f,
            "  upkeep       relaxed R {r} W {w} X {x}; I-cache {} pages, D-cache {} pages, TLBI {}; stale {}, by AT {}, walks {}",
            c.icache, c.dcache, c.tlbi, c.sufficient, c.translated_by_at, c.stage1_walk
        )?;
        write!(f, "  devices     ")?;
        for (name, count) in NAMES.iter().zip(c.mmio).filter(|(_, count)| *count != 0) {
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
            "  exits        {:<8} aborts {}, calls {}, registers {}, interrupts {}, waits {}, other {}",
            e.total(),
            e.aborts,
            e.calls,
            e.sysreg,
            e.interrupts,
            e.waits,
            e.other
        )
    }
}
