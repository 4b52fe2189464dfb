//! The devices of a VM, and the interrupts they raise.

use alloc::vec::Vec;

use crate::device::pl011::Pl011;
use crate::device::pl031::Pl031;
use crate::device::virtio;
use crate::fault::Mmio;
use crate::platform;
use crate::sysreg::SgiRegister;
use crate::vgic::{
    Affinity, ConfigError, IntId, ListRegister, MAX_LIST_REGISTERS, Plan, Version, Vgic,
};
use crate::vm::{Host, Vcpu};

/// Device number of the GIC distributor.
pub(super) const GICD: u8 = 0;
/// Device number of the GICv3 redistributors.
pub(super) const GICR: u8 = 1;
/// Device number of the PL011.
pub(super) const UART: u8 = 2;
/// Device number of the PL031.
pub(super) const RTC: u8 = 3;

/// Device number of the flash that is always erased.
pub(super) const FLASH: u8 = 4;

/// Device number of the empty virtio-mmio transports.
pub(super) const VIRTIO: u8 = 5;

/// Names of the devices, by number.
pub(super) const NAMES: [&str; 6] = ["GICD", "GICR", "PL011", "PL031", "flash", "virtio"];

/// The name of the device that a slot's number means; empty for none.
#[must_use]
pub fn device_name(number: u8) -> &'static str {
    NAMES.get(usize::from(number)).copied().unwrap_or("")
}

/// The guest's virtual timer interrupt.
pub const VIRTUAL_TIMER: IntId = platform::TIMER_VIRT;
/// The guest's physical timer interrupt.
pub const PHYSICAL_TIMER: IntId = platform::TIMER_PHYSICAL;

const UART_LINE: IntId = platform::UART_INTERRUPT;
const RTC_LINE: IntId = platform::RTC_INTERRUPT;
/// SPIs the distributor has.
const SPI_COUNT: usize = 256;

/// Time of day at a moment of the counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Seconds since 1970 when the counter was 0.
    pub epoch: u64,
}

/// A VM's devices. Who works on them for a vCPU says which: its index, as [`Vcpu::index`] has it.
pub struct Devices {
    uart: Pl011,
    rtc: Option<Pl031>,
    vgic: Vgic,
    /// Bit per vCPU: it was told to plan and has not looked since.
    told: u64,
    /// The guest has been heard of: it printed something since it was reset.
    spoke: bool,
}

impl Devices {
    /// All devices out of reset for `vcpus` vCPUs; with a real-time clock if the time of day is known.
    /// `links_in_hardware`: list registers may have the HW bit.
    ///
    /// # Errors
    /// [`ConfigError`] for more vCPUs than the GIC serves, or none.
    pub fn new(
        gic: Version,
        vcpus: usize,
        links_in_hardware: bool,
        clock: Option<Clock>,
    ) -> Result<Self, ConfigError> {
        let affinities: Vec<Affinity> = (0..vcpus)
            .map(|vcpu| Affinity::from_mpidr(platform::affinity(vcpu)))
            .collect();
        let vgic = Vgic::new(gic, &affinities, SPI_COUNT)?;
        Ok(Self {
            uart: Pl011::new(),
            rtc: clock.map(|clock| Pl031::new(clock.epoch)),
            vgic: if links_in_hardware {
                vgic
            } else {
                vgic.without_hardware_links()
            },
            told: 0,
            spoke: false,
        })
    }

    /// Whether the guest printed anything.
    #[must_use]
    pub const fn spoke(&self) -> bool {
        self.spoke
    }

    /// Answers one access and moves its value.
    #[inline(never)] // `faultline break` of gdb stops here
    pub(super) fn access<H: Host>(&mut self, vcpu: &mut Vcpu, mmio: &Mmio, host: &mut H) {
        if let Some(count) = vcpu.counters.mmio.get(usize::from(mmio.device)) {
            count.add(1);
        }
        if mmio.transfer.is_ordered && mmio.is_write {
            host.dsb(crate::machine::Dsb::Ish);
        }
        if mmio.device == GICD || mmio.device == GICR {
            self.fold_in(vcpu.index, host);
        }
        let is_big_endian = is_big_endian(vcpu.registers.pstate, host);
        if mmio.is_write {
            let value = vcpu.registers.read(mmio.transfer.register) & mmio.transfer.width.mask();
            self.write(vcpu.index, mmio, swap(value, mmio, is_big_endian), host);
        } else {
            let value = swap(self.read(vcpu.index, mmio, host), mmio, is_big_endian);
            vcpu.registers
                .write(mmio.transfer.register, mmio.transfer.extend(value));
        }
        if mmio.transfer.is_ordered && !mmio.is_write {
            host.dsb(crate::machine::Dsb::Ish);
        }
    }

    fn read<H: Host>(&mut self, vcpu: usize, mmio: &Mmio, host: &mut H) -> u64 {
        let (offset, width) = (mmio.offset, mmio.transfer.width);
        match mmio.device {
            GICD => self.vgic.read_distributor(vcpu, offset, width),
            GICR => self.vgic.read_redistributor(offset, width),
            UART => {
                let value = self.uart.read(offset, width);
                self.uart_accessed(host);
                value
            }
            RTC => {
                let now = seconds(host);
                let value = self
                    .rtc
                    .as_mut()
                    .map_or(0, |rtc| rtc.read(offset, width, now));
                self.rtc_changed(host);
                value
            }
            FLASH => width.mask(),
            VIRTIO => virtio::read_empty(offset, width),
            _ => 0,
        }
    }

    fn write<H: Host>(&mut self, vcpu: usize, mmio: &Mmio, value: u64, host: &mut H) {
        let (offset, width) = (mmio.offset, mmio.transfer.width);
        match mmio.device {
            GICD => self.vgic.write_distributor(vcpu, offset, width, value),
            GICR => self.vgic.write_redistributor(offset, width, value),
            UART => {
                if let Some(byte) = self.uart.write(offset, width, value) {
                    self.spoke = true;
                    host.put_console(byte);
                }
                self.uart_accessed(host);
            }
            RTC => {
                if let Some(rtc) = &mut self.rtc {
                    rtc.write(offset, width, value, seconds(host));
                }
                self.rtc_changed(host);
            }
            _ => {}
        }
        if mmio.device == GICD || mmio.device == GICR {
            self.deactivate_dropped(vcpu, host);
            // Enabling the console's interrupt may be what makes the guest a listener.
            if self.has_room() {
                host.guest_listens();
            }
        }
    }

    /// Drives the clock's line, and has us called when it will rise by itself.
    fn rtc_changed<H: Host>(&mut self, host: &mut H) {
        let Some(rtc) = &self.rtc else { return };
        self.vgic.set_line(RTC_LINE, rtc.line());
        let hz = host.counter_hz().max(1);
        let in_seconds = rtc.seconds_to_match();
        let at = in_seconds.map(|wait| {
            (host.counter() / hz)
                .saturating_add(wait)
                .saturating_mul(hz)
        });
        host.set_alarm(at);
    }

    /// The moment of [`Host::set_alarm`] has come.
    pub fn alarm<H: Host>(&mut self, host: &mut H) {
        let now = seconds(host);
        if let Some(rtc) = &mut self.rtc {
            rtc.advance(now);
        }
        self.rtc_changed(host);
    }

    fn uart_accessed<H: Host>(&mut self, host: &mut H) {
        self.uart_changed();
        if self.has_room() {
            host.guest_listens();
        }
    }

    fn uart_changed(&mut self) {
        self.vgic.set_line(UART_LINE, self.uart.line());
    }

    /// Whether the guest would take a byte.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // An SPI is the same to every vCPU.
        self.uart.has_room(self.vgic.forwards(0, UART_LINE))
    }

    /// A byte for the guest, which has room for it.
    pub fn receive(&mut self, byte: u8) {
        self.uart.receive(byte);
        self.uart_changed();
    }

    /// `vcpu` wrote an SGI register.
    pub(super) fn send_sgi<H: Host>(
        &mut self,
        vcpu: usize,
        register: SgiRegister,
        value: u64,
        host: &mut H,
    ) {
        self.fold_in(vcpu, host);
        match register {
            SgiRegister::Sgi0r => self.vgic.write_sgi0r(vcpu, value),
            SgiRegister::Sgi1r => self.vgic.write_sgi1r(vcpu, value),
            SgiRegister::Asgi1r => self.vgic.write_asgi1r(vcpu, value),
        }
    }

    /// The physical interrupt of a timer of `vcpu`, which this pCPU runs, was taken and left active for the guest to end.
    pub fn timer_interrupt<H: Host>(
        &mut self,
        vcpu: usize,
        guest: IntId,
        physical: IntId,
        host: &mut H,
    ) {
        self.fold_in(vcpu, host);
        if !self.vgic.hardware_interrupt(vcpu, guest, physical) {
            host.deactivate(physical.raw());
        }
    }

    /// A maintenance interrupt was taken while `vcpu` ran: the list registers want looking at.
    pub fn maintenance<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        self.fold_in(vcpu, host);
    }

    /// What `vcpu`'s guest did to this pCPU's list registers, into the model; timers that have gone quiet, out of it.
    pub fn fold_in<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        let loaded = self.vgic.loaded(vcpu);
        if loaded != 0 {
            let mut registers = [ListRegister::default(); MAX_LIST_REGISTERS];
            host.read_list(&mut registers, loaded);
            self.vgic.sync_from(vcpu, &registers);
        }
        let ended = host.ended_outside();
        if ended != 0 {
            self.vgic.retire(vcpu, ended);
        }
        self.look_at_timers(vcpu, host);
        self.deactivate_dropped(vcpu, host);
    }

    /// The guest sets its timers without an exit: what their lines say now counts, not what they said when the physical
    /// interrupt was taken.
    fn look_at_timers<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        let linked = self.vgic.linked(vcpu);
        if linked == 0 {
            return;
        }
        let (virt, physical) = host.timer_lines();
        for (intid, line) in [(VIRTUAL_TIMER, virt), (PHYSICAL_TIMER, physical)] {
            if linked >> intid.raw() & 1 == 1 {
                self.vgic.set_private_line(vcpu, intid, line);
            }
        }
    }

    fn deactivate_dropped<H: Host>(&mut self, vcpu: usize, host: &mut H) {
        while let Some(intid) = self.vgic.take_deactivation(vcpu) {
            host.deactivate(intid.raw());
        }
    }

    /// Whether an interrupt waits for `vcpu`, whose list registers were folded in. From here on a change that concerns it
    /// is told again ([`Self::take_kicks`]): so a vCPU looks, and if there is nothing it waits, and no wake-up is lost.
    pub fn is_pending(&mut self, vcpu: usize) -> bool {
        self.has_looked(vcpu);
        self.vgic.is_pending(vcpu)
    }

    /// The vCPUs whose list registers no longer show what they should, a bit each.
    pub(super) const fn vcpus_to_plan(&self) -> u64 {
        self.vgic.vcpus_to_plan()
    }

    /// The vCPUs other than `own` that must look at their interrupts and have not been told so since they looked last, a
    /// bit each; they count as told from now on. To be asked after every operation, and passed to [`Host::kick`] when the
    /// lock is free again.
    pub fn take_kicks(&mut self, own: usize) -> u64 {
        let kicks = self.vgic.vcpus_to_plan() & !self.told & !bit(own);
        self.told |= kicks;
        kicks
    }

    fn has_looked(&mut self, vcpu: usize) {
        self.told &= !bit(vcpu);
    }

    /// What `vcpu`'s list registers shall hold, if anything changed since they were written last.
    pub fn plan<H: Host>(
        &mut self,
        vcpu: usize,
        registers: &mut [ListRegister; MAX_LIST_REGISTERS],
        count: usize,
        host: &mut H,
    ) -> Option<Plan> {
        if !self.vgic.needs_plan(vcpu) {
            return None;
        }
        self.fold_in(vcpu, host);
        self.has_looked(vcpu);
        let plan = self.vgic.plan(vcpu, registers, count);
        self.deactivate_dropped(vcpu, host);
        Some(plan)
    }
}

/// `vcpu`'s bit in a set of them.
const fn bit(vcpu: usize) -> u64 {
    if vcpu < u64::BITS as usize {
        1 << vcpu
    } else {
        0
    }
}

/// Whether the guest's data accesses are big-endian: SCTLR_EL1.EE at EL1, E0E at EL0, PSTATE.E in AArch32.
fn is_big_endian<H: Host>(pstate: u64, host: &mut H) -> bool {
    const EE: u64 = 1 << 25;
    const E0E: u64 = 1 << 24;
    if pstate & crate::registers::pstate::AARCH32 != 0 {
        return pstate & crate::registers::pstate::AARCH32_E != 0;
    }
    let at_el0 = pstate & crate::registers::pstate::MODE == crate::registers::pstate::EL0T;
    host.el1(crate::machine::El1::Sctlr) & if at_el0 { E0E } else { EE } != 0
}

/// Devices are little-endian: a big-endian guest's value has its bytes turned round.
const fn swap(value: u64, mmio: &Mmio, is_big_endian: bool) -> u64 {
    if is_big_endian {
        value.swap_bytes() >> (64 - 8 * mmio.transfer.width.bytes())
    } else {
        value
    }
}

fn seconds<H: Host>(host: &mut H) -> u64 {
    host.counter() / host.counter_hz().max(1)
}
