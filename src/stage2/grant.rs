//! Rights to give, with the proof that X asks for.

use crate::addr::{Pa, PaRange};
use crate::stage2::Rights;
use crate::stage2::maintenance::ExecReady;

/// Rights to give. X comes only with the proof that fetches are coherent.
#[derive(PartialEq, Eq, Debug)]
pub struct Grant {
    rights: Rights,
    exec: Option<ExecReady>,
}

impl Grant {
    /// Read, write or both; X in `rights` is not taken from here.
    #[must_use]
    #[inline(always)]
    pub const fn data(rights: Rights) -> Self {
        Self {
            rights: rights.without(Rights::EXECUTE),
            exec: None,
        }
    }

    /// And execute.
    #[must_use]
    #[inline(always)]
    pub fn and_execute(self, exec: ExecReady) -> Self {
        Self {
            rights: self.rights.with(Rights::EXECUTE),
            exec: Some(exec),
        }
    }

    /// What is given.
    #[must_use]
    #[inline(always)]
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// # Panics
    /// If X is given and the proof is for other memory.
    #[inline(always)]
    pub(super) fn check(&self, start: Pa, size: u64) {
        let is_covered = |exec: &ExecReady| {
            let PaRange {
                start: from,
                size: ready,
            } = exec.range();
            start
                .offset_from(from)
                .is_some_and(|offset| ready.checked_sub(offset).is_some_and(|left| left >= size))
        };
        assert!(
            self.exec.as_ref().is_none_or(is_covered),
            "X is granted for the memory that was made coherent"
        );
    }
}
