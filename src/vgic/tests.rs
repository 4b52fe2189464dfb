//! Tests of the vGIC. Oracles: the register descriptions and rules of IHI 0048B and IHI 0069, written out as numbers; a
//! CPU interface that interprets list registers as those documents say ([`guest`]); a slow model of the architecture.

mod again;
mod delivery;
mod guest;
mod hostile;
mod linux;
mod list_register;
mod map;
mod model;
mod overflow;
mod race;
mod registers;
mod timer;

use super::{Affinity, IntId, Version, Vgic};
use crate::device::Width;

const BOTH: [Version; 2] = [Version::V2, Version::V3];
const SPI: IntId = IntId::spi(1);
const TIMER: IntId = IntId::ppi(11);

/// Whole accesses, with the list registers as they are.
impl Vgic {
    fn read_distributor(&self, vcpu: usize, offset: u64, width: Width) -> u64 {
        let access = self.distributor(vcpu, offset, width);
        access.map_or(0, |access| self.read(access))
    }

    fn write_distributor(&mut self, vcpu: usize, offset: u64, width: Width, value: u64) {
        if let Some(access) = self.distributor(vcpu, offset, width) {
            self.write(access, value);
        }
    }

    fn read_redistributor(&self, offset: u64, width: Width) -> u64 {
        let access = self.redistributor(offset, width);
        access.map_or(0, |access| self.read(access))
    }

    fn write_redistributor(&mut self, offset: u64, width: Width, value: u64) {
        if let Some(access) = self.redistributor(offset, width) {
            self.write(access, value);
        }
    }
}

/// What of a bank its registers show, and what goes back into list registers.
impl Vgic {
    fn summary(&self) -> Vec<[u32; 6]> {
        let private = self.vcpus.iter().map(|vcpu| &vcpu.bank);
        private
            .chain(self.shared.iter().map(|row| &row.bank))
            .map(|bank| {
                let pending = bank.latch | bank.loaded_latch;
                [
                    pending,
                    bank.active,
                    bank.resident,
                    bank.line,
                    bank.linked,
                    bank.taken,
                ]
            })
            .collect()
    }
}

/// A controller for `vcpus` vCPUs with affinities 0.0.0.0, 0.0.0.1, … and 64 SPIs.
fn vgic(version: Version, vcpus: usize) -> Vgic {
    let affinities: Vec<Affinity> = (0..vcpus as u64).map(Affinity::from_mpidr).collect();
    Vgic::new(version, &affinities, 64).expect("a usual configuration")
}

/// The same with everything a guest sets up before it uses interrupts: all enabled, SPIs to vCPU 0, priority 0xa0,
/// Group 1.
fn running(version: Version, vcpus: usize) -> Vgic {
    let mut vgic = vgic(version, vcpus);
    write(&mut vgic, 0, 0x000, 3);
    for row in 0..3u64 {
        for (start, value) in [(0x080, 0xffff_ffff), (0x100, 0xffff_ffff)] {
            write(&mut vgic, 0, start + 4 * row, value);
        }
    }
    for intid in 0..96u64 {
        vgic.write_distributor(0, 0x400 + intid, Width::Byte, 0xa0);
        vgic.write_distributor(0, 0x800 + intid, Width::Byte, 1);
    }
    for vcpu in 0..vcpus {
        let frame = vcpu as u64 * 0x2_0000 + 0x1_0000;
        for (offset, value) in [(0x080, 0xffff_ffff), (0x100, 0xffff_ffff)] {
            vgic.write_redistributor(frame + offset, Width::Word, value);
            write(&mut vgic, vcpu, offset, value);
        }
        for intid in 0..32u64 {
            vgic.write_redistributor(frame + 0x400 + intid, Width::Byte, 0xa0);
            vgic.write_distributor(vcpu, 0x400 + intid, Width::Byte, 0xa0);
        }
    }
    vgic
}

fn read(vgic: &Vgic, vcpu: usize, offset: u64) -> u64 {
    vgic.read_distributor(vcpu, offset, Width::Word)
}

fn write(vgic: &mut Vgic, vcpu: usize, offset: u64, value: u64) {
    vgic.write_distributor(vcpu, offset, Width::Word, value);
}
