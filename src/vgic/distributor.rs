//! What the registers do, one function per kind of register for both versions and all frames.
//!
//! Source: IHI 0048B "Distributor register descriptions"; IHI 0069 "The GIC Distributor register descriptions", for one
//! security state (GICD_CTLR.DS = 1) and affinity routing only (GICD_CTLR.ARE = 1).

use super::access::Access;
use super::bank::{BANK, Bank, PRIORITY_MASK};
use super::register::Kind;
use super::sgi::SGI_COUNT;
use super::{BankId, Place, SGIS, Version, Vgic, bits};
use crate::device::Width;

/// GICD_CTLR.
mod control {
    pub(super) const ENABLE_GROUP_0: u32 = 1 << 0;
    pub(super) const ENABLE_GROUP_1: u32 = 1 << 1;
    /// GICv3: affinity routing enabled, and one security state. RWP is never set: writes take effect at once.
    pub(super) const ARE: u32 = 1 << 4;
    pub(super) const DS: u32 = 1 << 6;
}

/// GICD_TYPER.
mod typer {
    /// GICv2: vCPUs less one.
    pub(super) const CPU_NUMBER_SHIFT: u32 = 5;
    /// GICv3: ten bits of INTID: no LPIs.
    pub(super) const ID_BITS: u32 = 9 << 19;
    /// GICv3: every affinity level can be routed to.
    pub(super) const A3V: u32 = 1 << 24;
}

/// GICD_IIDR and GICR_IIDR: product `F` of JEP106 code 0x43b, Arm's, as every virtual controller says.
pub(super) const IIDR: u32 = 0x4600_043b;

/// GICD_IROUTER: IRM and the four affinities.
const ROUTE_MASK: u64 = 0xff_80ff_ffff;

/// ICFGR: interrupts in a register, of two bits each.
pub(super) const CONFIGURED: u32 = 16;

/// Who accesses what: the vCPU whose private interrupts the frame shows, and whether it shows any.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// The vCPU that accesses a distributor, or that a redistributor belongs to.
    pub(super) vcpu: usize,
    /// Interrupts 0 to 31 are in this frame: a GICv2 distributor or a redistributor.
    pub(super) has_private: bool,
}

impl Vgic {
    /// Reads a register, unless it shows what guests may have changed in their list registers ([`Vgic::depends_on`]).
    #[must_use]
    #[inline]
    pub fn read_settled(&self, access: Access) -> Option<u64> {
        let is_settled = matches!(
            access.kind,
            Kind::Control
                | Kind::Type
                | Kind::Implementer
                | Kind::Group
                | Kind::EnableSet
                | Kind::EnableClear
                | Kind::Priority
                | Kind::Configuration
                | Kind::RedistributorType
                | Kind::Waker
                | Kind::Identification(_)
        );
        is_settled.then(|| self.read(access))
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, access: Access) -> u64 {
        let Access {
            view,
            kind,
            index,
            width,
        } = access;
        let word = match kind {
            Kind::Control => self.read_control(),
            Kind::Type => self.read_typer(),
            Kind::Implementer => IIDR,
            Kind::Group
            | Kind::EnableSet
            | Kind::EnableClear
            | Kind::PendingSet
            | Kind::PendingClear
            | Kind::ActiveSet
            | Kind::ActiveClear => self
                .bank_at(view, index / 4)
                .map_or(0, |id| read_bits(self.bank(id), kind)),
            Kind::Configuration => self.read_configuration(view, index / 4),
            Kind::Priority | Kind::Target | Kind::SgiPendingSet | Kind::SgiPendingClear => {
                return self.read_bytes(view, kind, index, width);
            }
            Kind::Route => return self.read_route(view, index, width),
            Kind::RedistributorType => {
                return self.read_redistributor_type(view.vcpu, index, width);
            }
            Kind::Waker => self.read_waker(view.vcpu),
            Kind::Identification(frame) => frame.identification(index / 4),
            Kind::SgiGenerate | Kind::Deactivate => 0,
        };
        u64::from(word)
    }

    /// Writes a register; bits of `value` beyond the access's width are ignored.
    pub fn write(&mut self, access: Access, value: u64) {
        let Access {
            view,
            kind,
            index,
            width,
        } = access;
        let value = value & width.mask();
        let word = value as u32;
        match kind {
            Kind::Control => self.write_control(word),
            Kind::Group
            | Kind::EnableSet
            | Kind::EnableClear
            | Kind::PendingSet
            | Kind::PendingClear
            | Kind::ActiveSet
            | Kind::ActiveClear => {
                if let Some(id) = self.bank_at(view, index / 4) {
                    self.write_bits(id, kind, word & self.bank(id).valid);
                }
            }
            Kind::Configuration => self.write_configuration(view, index / 4, word),
            Kind::Priority => self.write_priorities(view, index, width, value),
            Kind::Target | Kind::SgiPendingSet | Kind::SgiPendingClear => {
                self.write_bytes(view, kind, index, width, value);
            }
            Kind::Route => self.write_route(view, index, width, value),
            Kind::SgiGenerate => self.write_sgir(view.vcpu, word),
            Kind::Deactivate => self.deactivate(view.vcpu, self.deactivated(word)),
            Kind::Waker => self.write_waker(view.vcpu, word),
            Kind::Type | Kind::Implementer | Kind::RedistributorType | Kind::Identification(_) => {}
        }
    }

    /// The bank that word `word` of a bit-per-interrupt register shows in this frame.
    pub(super) fn bank_at(&self, view: View, word: u64) -> Option<BankId> {
        match word.checked_sub(1) {
            None => view.has_private.then_some(BankId::Private(view.vcpu)),
            Some(row) => {
                ((row as usize) < self.shared.len()).then_some(BankId::Shared(row as usize))
            }
        }
    }

    /// Interrupt `number` of a register with a field per interrupt, in this frame.
    pub(super) fn place_at(&self, view: View, number: u64) -> Option<Place> {
        let bank = self.bank_at(view, number / u64::from(BANK))?;
        let bit = (number % u64::from(BANK)) as u32;
        (self.bank(bank).valid & 1 << bit != 0).then_some(Place { bank, bit })
    }

    const fn read_control(&self) -> u32 {
        let mut value = match self.version {
            Version::V2 => 0,
            Version::V3 => control::ARE | control::DS,
        };
        if self.groups.zero {
            value |= control::ENABLE_GROUP_0;
        }
        if self.groups.one {
            value |= control::ENABLE_GROUP_1;
        }
        value
    }

    fn write_control(&mut self, value: u32) {
        let before = self.groups;
        self.groups.zero = value & control::ENABLE_GROUP_0 != 0;
        self.groups.one = value & control::ENABLE_GROUP_1 != 0;
        if self.groups != before {
            self.mark_all();
        }
    }

    fn read_typer(&self) -> u32 {
        let lines = self.shared.len() as u32;
        match self.version {
            Version::V2 => lines | (self.vcpus.len() as u32 - 1) << typer::CPU_NUMBER_SHIFT,
            Version::V3 => lines | typer::ID_BITS | typer::A3V,
        }
    }

    fn write_bits(&mut self, id: BankId, kind: Kind, mask: u32) {
        let always_enabled = match (self.version, id) {
            (Version::V2, BankId::Private(_)) => SGIS,
            _ => 0,
        };
        // A GICv2's SGIs are pending per source: GICD_SPENDSGIR and GICD_CPENDSGIR.
        let pendable = mask & !always_enabled;
        let bank = self.bank_mut(id);
        match kind {
            Kind::Group => bank.group = mask,
            Kind::EnableSet => bank.enabled |= mask,
            Kind::EnableClear => bank.enabled &= !mask | always_enabled,
            Kind::PendingSet => bank.latch |= pendable,
            // What is pending by its line, or for a physical interrupt, stays so.
            Kind::PendingClear => {
                bank.latch &= !pendable;
                bank.loaded_latch &= !pendable;
            }
            Kind::ActiveSet => self.set_active(id, mask),
            Kind::ActiveClear => self.clear_active(id, mask),
            _ => {}
        }
        // A cleared bit of IGROUPR changes an interrupt too.
        self.reconsider(id, if kind == Kind::Group { u32::MAX } else { mask });
    }

    fn set_active(&mut self, id: BankId, mask: u32) {
        if let BankId::Shared(row) = id {
            let state = self.bank(id);
            for bit in bits(mask & !(state.active | state.resident)) {
                let owner = self.target(Place { bank: id, bit }).unwrap_or(0);
                self.shared[row].owner[bit as usize] = owner as u8;
            }
        }
        let bank = self.bank_mut(id);
        bank.forced |= mask & !bank.active;
        bank.active |= mask;
    }

    fn clear_active(&mut self, id: BankId, mask: u32) {
        if let BankId::Private(vcpu) = id {
            self.give_up_links(vcpu, mask & self.vcpus[vcpu].bank.taken);
        }
        let bank = self.bank_mut(id);
        bank.active &= !mask;
        bank.forced &= !mask;
    }

    fn read_configuration(&self, view: View, word: u64) -> u32 {
        let Some(id) = self.bank_at(view, word / 2) else {
            return 0;
        };
        let edge = self.bank(id).edge >> ((word % 2) as u32 * CONFIGURED);
        (0..CONFIGURED).fold(0, |value, bit| value | (edge >> bit & 1) << (2 * bit + 1))
    }

    fn write_configuration(&mut self, view: View, word: u64, value: u32) {
        // SGIs are edge-triggered, whatever is written.
        let Some(id) = self
            .bank_at(view, word / 2)
            .filter(|id| word != 0 || matches!(id, BankId::Shared(_)))
        else {
            return;
        };
        let shift = (word % 2) as u32 * CONFIGURED;
        let edge = (0..CONFIGURED).fold(0, |edge, bit| edge | (value >> (2 * bit + 1) & 1) << bit);
        let bank = self.bank_mut(id);
        let written = (SGIS << shift) & bank.valid;
        bank.edge = bank.edge & !written | (edge << shift) & written;
        self.reconsider(id, written);
    }

    fn read_bytes(&self, view: View, kind: Kind, index: u64, width: Width) -> u64 {
        (0..width.bytes()).fold(0, |value, byte| {
            value | u64::from(self.read_byte(view, kind, index + byte)) << (8 * byte)
        })
    }

    fn write_bytes(&mut self, view: View, kind: Kind, index: u64, width: Width, value: u64) {
        for byte in 0..width.bytes() {
            self.write_byte(view, kind, index + byte, (value >> (8 * byte)) as u8);
        }
    }

    /// Those that stay as they are concern nobody.
    fn write_priorities(&mut self, view: View, index: u64, width: Width, value: u64) {
        let Some(id) = self.bank_at(view, index / u64::from(BANK)) else {
            return;
        };
        let first = (index % u64::from(BANK)) as u32;
        let bank = self.bank_mut(id);
        let mut changed = 0;
        let written = width.bytes() as usize;
        for (bit, byte) in (first..BANK).zip(value.to_le_bytes()).take(written) {
            let priority = byte & PRIORITY_MASK;
            if bank.valid >> bit & 1 != 0 && bank.priority(bit) != priority {
                bank.priority[bit as usize] = priority;
                changed |= 1 << bit;
            }
        }
        if changed != 0 {
            self.reconsider(id, changed);
        }
    }

    fn read_byte(&self, view: View, kind: Kind, number: u64) -> u8 {
        if let Kind::SgiPendingSet | Kind::SgiPendingClear = kind {
            return if number < SGI_COUNT as u64 {
                self.sgi_sources(view.vcpu, number as usize)
            } else {
                0
            };
        }
        match (kind, self.place_at(view, number)) {
            (Kind::Priority, Some(place)) => self.priority(place),
            // The banked target registers say which CPU interface reads them.
            (
                Kind::Target,
                Some(Place {
                    bank: BankId::Private(vcpu),
                    ..
                }),
            ) => 1 << vcpu,
            (
                Kind::Target,
                Some(Place {
                    bank: BankId::Shared(row),
                    bit,
                }),
            ) => self.shared[row].targets[bit as usize],
            _ => 0,
        }
    }

    fn write_byte(&mut self, view: View, kind: Kind, number: u64, value: u8) {
        if number < SGI_COUNT as u64 {
            let sources = value & self.every_vcpu();
            match kind {
                Kind::SgiPendingSet => {
                    return self.set_sgi_sources(view.vcpu, number as usize, sources);
                }
                Kind::SgiPendingClear => {
                    return self.clear_sgi_sources(view.vcpu, number as usize, sources);
                }
                _ => {}
            }
        }
        let Some(place) = self.place_at(view, number) else {
            return;
        };
        if let (Kind::Target, BankId::Shared(row)) = (kind, place.bank) {
            self.shared[row].targets[place.bit as usize] = value & self.every_vcpu();
            self.reconsider(place.bank, place.mask());
        }
    }

    /// GICv2: a bit per vCPU there is.
    const fn every_vcpu(&self) -> u8 {
        match self.vcpus.len() {
            count @ 0..=7 => (1 << count) - 1,
            _ => u8::MAX,
        }
    }

    fn read_route(&self, view: View, index: u64, width: Width) -> u64 {
        match self.place_at(view, index / 8) {
            Some(Place {
                bank: BankId::Shared(row),
                bit,
            }) => {
                let route = self.shared[row].route[bit as usize];
                (route >> (8 * (index % 8))) & width.mask()
            }
            _ => 0,
        }
    }

    fn write_route(&mut self, view: View, index: u64, width: Width, value: u64) {
        if let Some(place) = self.place_at(view, index / 8)
            && let BankId::Shared(row) = place.bank
        {
            let shift = 8 * (index % 8);
            let route = &mut self.shared[row].route[place.bit as usize];
            *route = (*route & !(width.mask() << shift) | value << shift) & ROUTE_MASK;
            self.reconsider(place.bank, place.mask());
        }
    }
}

const fn read_bits(bank: &Bank, kind: Kind) -> u32 {
    match kind {
        Kind::Group => bank.group,
        Kind::EnableSet | Kind::EnableClear => bank.enabled,
        Kind::PendingSet | Kind::PendingClear => bank.pending(),
        Kind::ActiveSet | Kind::ActiveClear => bank.active,
        _ => 0,
    }
}
