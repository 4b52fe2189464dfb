//! One access to a register: found once, then asked what must happen before it, carried out, and asked whom it concerns.
//!
//! The state of an interrupt in a list register of a vCPU that runs is known to its hardware alone. So what shows or
//! changes whether interrupts are active, and what shows whether they are pending, first needs the list registers they are
//! in folded back ([`Vgic::depends_on`]); and a write to an interrupt in another vCPU's list register has its full effect
//! when that vCPU has left its guest ([`Vgic::holders`]).

use super::bank::BANK;
use super::distributor::{CONFIGURED, View};
use super::register::{Frame, Kind, find};
use super::{BankId, IntId, REDISTRIBUTOR_STRIDE, Version, Vgic, bits};
use crate::device::Width;

/// A register of a [`Vgic`], as an access of some width by some vCPU names it.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub(super) view: View,
    pub(super) kind: Kind,
    /// Offset in bytes in the row of like registers.
    pub(super) index: u64,
    pub(super) width: Width,
}

impl Vgic {
    /// The register `vcpu` finds at `offset` of the distributor; `None`: the access reads as zero and ignores writes.
    #[must_use]
    pub fn distributor(&self, vcpu: usize, offset: u64, width: Width) -> Option<Access> {
        let (frame, has_private) = match self.version {
            Version::V2 => (Frame::DistributorV2, true),
            Version::V3 => (Frame::DistributorV3, false),
        };
        let (kind, index) = find(frame, offset, width)?;
        let view = View { vcpu, has_private };
        self.access(view, kind, index, width)
    }

    /// The register at `offset` from the first redistributor; they follow each other every [`REDISTRIBUTOR_STRIDE`]. Any
    /// vCPU may access any of them.
    #[must_use]
    pub fn redistributor(&self, offset: u64, width: Width) -> Option<Access> {
        let (kind, index) = find(Frame::Redistributor, offset % REDISTRIBUTOR_STRIDE, width)?;
        let view = View {
            vcpu: usize::try_from(offset / REDISTRIBUTOR_STRIDE).ok()?,
            has_private: true,
        };
        (self.version == Version::V3)
            .then(|| self.access(view, kind, index, width))
            .flatten()
    }

    /// The register `vcpu` finds at `offset` of the page of GICC that GICC_DIR begins. It is never the hardware's: see
    /// [`Vgic::deactivation`].
    #[must_use]
    pub fn deactivation_page(&self, vcpu: usize, offset: u64, width: Width) -> Option<Access> {
        let (kind, index) = find(Frame::Deactivation, offset, width)?;
        let view = View {
            vcpu,
            has_private: true,
        };
        self.access(view, kind, index, width)
    }

    /// `vcpu`'s GICC_DIR or ICC_DIR_EL1.
    ///
    /// Hardware deactivates only what is in the list registers of the vCPU that asks. With more active interrupts than
    /// list registers, or with an SPI that another vCPU acknowledged, the write must come here: a GICv2's page of GICC_DIR
    /// is not mapped, and [`Plan::traps_deactivation`](super::Plan::traps_deactivation) says when a GICv3's register traps.
    #[must_use]
    pub fn deactivation(&self, vcpu: usize) -> Option<Access> {
        self.deactivation_page(vcpu, 0, Width::Word)
    }

    fn access(&self, view: View, kind: Kind, index: u64, width: Width) -> Option<Access> {
        (view.vcpu < self.vcpus.len()).then_some(Access {
            view,
            kind,
            index,
            width,
        })
    }

    /// The vCPUs, a bit each, whose list registers and timers must have been folded in since the access began, for its
    /// answer or its effect to be right; `written`: the value, of a write.
    #[must_use]
    pub fn depends_on(&self, access: Access, written: Option<u64>) -> u64 {
        let shows_pending = written.is_none()
            && matches!(
                access.kind,
                Kind::PendingSet | Kind::PendingClear | Kind::SgiPendingSet | Kind::SgiPendingClear
            );
        let concerns_active = matches!(
            access.kind,
            Kind::ActiveSet | Kind::ActiveClear | Kind::Deactivate
        );
        if !shows_pending && !concerns_active {
            return 0;
        }
        let Some((bank, mask)) = self.span(access, written) else {
            return 0;
        };
        let mut set = self.with(bank, mask);
        // A guest sets its timers without an exit: what is known of their lines may be over.
        if shows_pending
            && let BankId::Private(vcpu) = bank
            && (self.bank(bank).linked | self.bank(bank).line) & mask != 0
        {
            set |= 1 << vcpu;
        }
        set
    }

    /// Whether a write may change what the distributor forwards.
    #[must_use]
    pub const fn may_change_forwarding(access: Access) -> bool {
        matches!(
            access.kind,
            Kind::Control | Kind::Group | Kind::EnableSet | Kind::EnableClear
        )
    }

    /// The vCPUs, a bit each, that have interrupts in list registers which a write of `value` changes; the same before and
    /// after it.
    #[must_use]
    pub fn holders(&self, access: Access, value: u64) -> u64 {
        match access.kind {
            Kind::Control => self
                .vcpus
                .iter()
                .enumerate()
                .filter(|(_, interface)| interface.used != 0)
                .fold(0, |set, (vcpu, _)| set | 1 << vcpu),
            // What is not active any more may come again; until its old list register is free it does not.
            Kind::Deactivate => 0,
            _ => self
                .span(access, Some(value))
                .map_or(0, |(bank, mask)| self.with(bank, mask)),
        }
    }

    /// The interrupts that an access shows, or that a write of `written` changes.
    fn span(&self, access: Access, written: Option<u64>) -> Option<(BankId, u32)> {
        let Access {
            view,
            kind,
            index,
            width,
        } = access;
        let word = written.unwrap_or(u64::MAX) as u32;
        Some(match kind {
            Kind::Group => (self.bank_at(view, index / 4)?, u32::MAX),
            Kind::EnableSet
            | Kind::EnableClear
            | Kind::PendingSet
            | Kind::PendingClear
            | Kind::ActiveSet
            | Kind::ActiveClear => (self.bank_at(view, index / 4)?, word),
            Kind::Configuration => {
                let half = (index / 4 % 2) as u32 * CONFIGURED;
                (self.bank_at(view, index / 8)?, 0xffff << half)
            }
            Kind::Priority | Kind::Target | Kind::SgiPendingSet | Kind::SgiPendingClear => {
                let bytes = u32::MAX >> (u64::from(BANK) - width.bytes());
                let bank = self.bank_at(view, index / u64::from(BANK))?;
                (bank, bytes << (index % u64::from(BANK)))
            }
            Kind::Route => {
                let place = self.place_at(view, index / 8)?;
                (place.bank, place.mask())
            }
            Kind::Deactivate => {
                let place = self.place(view.vcpu, self.deactivated(word))?;
                (place.bank, place.mask())
            }
            _ => return None,
        })
    }

    /// The interrupt a value of GICC_DIR or ICC_DIR_EL1 names.
    pub(super) const fn deactivated(&self, value: u32) -> IntId {
        // A GICv2 has the source of an SGI above the number; an SGI is active from one source at a time.
        IntId::new(match self.version {
            Version::V2 => value & 0x3ff,
            Version::V3 => value & 0xff_ffff,
        })
    }

    /// The vCPUs that have interrupts `mask` of `bank` in their list registers.
    fn with(&self, bank: BankId, mask: u32) -> u64 {
        let resident = self.bank(bank).resident & mask;
        match bank {
            BankId::Private(vcpu) => u64::from(resident != 0) << vcpu,
            BankId::Shared(row) => bits(resident).fold(0, |set, bit| {
                set | 1 << self.shared[row].owner[bit as usize]
            }),
        }
    }
}
