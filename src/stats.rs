//! Counters: plain numbers, one set per vCPU, summed when somebody asks.

use crate::exit::Need;

/// How often each edge was taken.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counters {
    /// Translation faults answered with a page, by what was wanted: read, write, execute.
    pub translation: [u64; 3],
    /// Permission faults answered by relaxing, by what was wanted.
    pub permission: [u64; 3],
    /// Faults whose leaf was sufficient: a stale TLB entry, invalidated.
    pub sufficient: u64,
    /// Faults on a stage-1 walk (also counted by class).
    pub stage1_walk: u64,
    /// Faults whose status did not agree with the live leaf.
    pub cross_check: u64,
    /// Faults that another vCPU, or the hardware, answered in between.
    pub raced: u64,
    /// Faults whose IPA came from AT because HPFAR_EL2 was not to be believed.
    pub translated_by_at: u64,
    /// Pages mapped.
    pub mapped: u64,
    /// Hardware window pages mapped.
    pub windows: u64,
    /// Leaves relaxed by R, W, X.
    pub relaxed: [u64; 3],
    /// Pages made coherent for instruction fetches by I-cache maintenance.
    pub icache: u64,
    /// Pages cleaned to the point of coherency.
    pub dcache: u64,
    /// TLB invalidation sequences.
    pub tlbi: u64,
    /// Aborts injected.
    pub injected: u64,
    /// Undefined instruction exceptions injected.
    pub undefined: u64,
    /// Cache maintenance of nothing, skipped.
    pub skipped: u64,
    /// Device accesses emulated, by the VM's device number.
    pub mmio: [u64; DEVICE_COUNT],
    /// Exits by class.
    pub exits: Exits,
}

/// Device numbers a VM uses are below this.
pub const DEVICE_COUNT: usize = 8;

/// Exits by class.
#[derive(Clone, Copy, Default, Debug)]
pub struct Exits {
    /// Aborts.
    pub aborts: u64,
    /// HVC and SMC.
    pub calls: u64,
    /// System registers.
    pub sysreg: u64,
    /// Physical interrupts.
    pub interrupts: u64,
    /// WFI and WFE.
    pub waits: u64,
    /// All else.
    pub other: u64,
}

impl Exits {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.aborts + self.calls + self.sysreg + self.interrupts + self.waits + self.other
    }
}

impl Counters {
    /// Notes a translation fault answered with a page.
    pub fn note_translation(&mut self, need: Need) {
        self.translation[need as usize] += 1;
    }

    /// Notes a permission fault answered by relaxing.
    pub fn note_permission(&mut self, need: Need) {
        self.permission[need as usize] += 1;
    }

    /// The counter a guest reads by number (`docs/guest-abi.md`); `None` for a number without one.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<u64> {
        Some(match id {
            0..=2 => self.translation[id as usize],
            3..=5 => self.permission[id as usize - 3],
            6 => self.sufficient,
            7 => self.stage1_walk,
            8 => self.mapped,
            9 => self.relaxed[Need::Write as usize],
            10 => self.relaxed[Need::Execute as usize],
            11 => self.icache,
            12 => self.dcache,
            13 => self.tlbi,
            14 => self.injected,
            15 => self.mmio.iter().sum(),
            16 => self.exits.total(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_reads_the_numbers_its_manual_names() {
        let mut counters = Counters::default();
        counters.note_translation(Need::Write);
        counters.note_permission(Need::Execute);
        counters.relaxed[Need::Execute as usize] = 7;
        counters.mmio[3] = 5;
        counters.exits = Exits {
            aborts: 2,
            calls: 3,
            ..Exits::default()
        };
        for (id, value) in [(0, 0), (1, 1), (5, 1), (10, 7), (15, 5), (16, 5)] {
            assert_eq!(counters.by_id(id), Some(value), "counter {id}");
        }
        assert_eq!(counters.by_id(17), None);
        assert_eq!(counters.by_id(u64::MAX), None);
    }
}
