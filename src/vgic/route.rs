//! Which vCPU an interrupt is with.

use super::{Affinity, BankId, Place, Version, Vgic, bits};

/// GICD_IROUTER: 1-of-N.
const ROUTE_ANY: u64 = 1 << 31;
/// vCPUs that differ in Aff0 alone, as a guess.
const CLUSTER: usize = 16;

impl Vgic {
    /// The vCPU an interrupt is with: the one that holds it or has it active, else the one it is routed to.
    pub(super) fn holder(&self, place: Place) -> Option<usize> {
        let row = match place.bank {
            BankId::Private(vcpu) => return Some(vcpu),
            BankId::Shared(row) => &self.shared[row],
        };
        if (row.bank.resident | row.bank.active) & place.mask() != 0 {
            return Some(usize::from(row.owner[place.bit as usize]));
        }
        self.target(place)
    }

    /// The vCPU an SPI is routed to, whoever holds it now; `None` when it goes nowhere.
    pub(super) fn target(&self, place: Place) -> Option<usize> {
        let row = match place.bank {
            BankId::Private(vcpu) => return Some(vcpu),
            BankId::Shared(row) => &self.shared[row],
        };
        match self.version {
            // With one CPU interface there is nothing to choose (IHI 0048B "Interrupt Processor Targets Registers").
            Version::V2 if self.vcpus.len() == 1 => Some(0),
            // 1-of-N: any of the targets will do.
            Version::V2 => bits(u32::from(row.targets[place.bit as usize]))
                .next()
                .map(|vcpu| vcpu as usize),
            Version::V3 => self.routed_to(row.route[place.bit as usize]),
        }
    }

    /// GICv3: the vCPU that a GICD_IROUTER value names. 1-of-N picks the first that is awake.
    fn routed_to(&self, route: u64) -> Option<usize> {
        if route & ROUTE_ANY != 0 {
            return Some(
                self.vcpus
                    .iter()
                    .position(|vcpu| !vcpu.is_asleep)
                    .unwrap_or(0),
            );
        }
        self.with_affinity(Affinity::from_mpidr(route))
    }

    /// The vCPU with this affinity. They are numbered in order of it, as a rule.
    pub(super) fn with_affinity(&self, affinity: Affinity) -> Option<usize> {
        let [aff0, aff1, ..] = affinity.0.to_le_bytes();
        let guess = CLUSTER * usize::from(aff1) + usize::from(aff0);
        let has_it =
            |vcpu: &usize| self.vcpus.get(*vcpu).map(|vcpu| vcpu.affinity) == Some(affinity);
        Some(guess)
            .filter(has_it)
            .or_else(|| (0..self.vcpus.len()).find(has_it))
    }
}
