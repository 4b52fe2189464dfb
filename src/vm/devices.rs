//! The devices of a VM, and the interrupts they raise.

mod interrupts;

use alloc::vec::Vec;

use crate::addr::{Ipa, IpaRange};
use crate::device::pl011::Pl011;
use crate::device::pl031::Pl031;
use crate::device::{Width, virtio};
use crate::fault::Mmio;
use crate::platform;
use crate::vgic::{self, Affinity, ConfigError, IntId, Version, Vgic};
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

/// Device number of the second page of a GICv2's CPU interface, where GICC_DIR is.
pub(super) const GICC_DIR: u8 = 6;

/// Names of the devices, by number.
pub(super) const NAMES: [&str; 7] = [
    "GICD", "GICR", "PL011", "PL031", "flash", "virtio", "GICC_DIR",
];

/// The name of the device that a slot's number means; empty for none.
#[must_use]
pub fn device_name(number: u8) -> &'static str {
    NAMES.get(usize::from(number)).copied().unwrap_or("")
}

/// The guest's virtual timer interrupt.
pub const VIRTUAL_TIMER: IntId = platform::TIMER_VIRT;
/// The guest's physical timer interrupt.
pub const PHYSICAL_TIMER: IntId = platform::TIMER_PHYSICAL;
/// The guest's performance monitors interrupt.
pub const PMU: IntId = platform::PMU_INTERRUPT;
/// The guest's PPIs whose lines are those of hardware that it works by itself.
pub(in crate::vm) const OWN_LINES: [IntId; 3] = [VIRTUAL_TIMER, PHYSICAL_TIMER, PMU];

const UART_LINE: IntId = platform::UART_INTERRUPT;
const RTC_LINE: IntId = platform::RTC_INTERRUPT;
/// SPIs the distributor has.
const SPI_COUNT: usize = 256;

/// What became of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was carried out. Of a write: these vCPUs, a bit each, have what it changed in their list registers; it has its
    /// full effect when they have left their guests.
    Done(u64),
    /// Nothing was done: it depends on what these vCPUs did in their guests. The vCPU itself is folded in.
    Recall(u64),
}

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
    /// Bit per vCPU: it was folded in since [`Devices::take_folded`].
    folded: u64,
    /// The guest has been heard of: it printed something since it was reset.
    spoke: bool,
    /// The level of the UART's line that the vGIC was told last.
    uart_line: bool,
    /// [`Devices::has_room`] when it was looked at last.
    had_room: bool,
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
        let vgic = Vgic::new(gic, &affinities, SPI_COUNT)?.with_unseen_lines(&OWN_LINES);
        Ok(Self {
            uart: Pl011::new(),
            rtc: clock.map(|clock| Pl031::new(clock.epoch)),
            vgic: if links_in_hardware {
                vgic
            } else {
                vgic.without_hardware_links()
            },
            told: 0,
            folded: 0,
            spoke: false,
            uart_line: false,
            had_room: false,
        })
    }

    /// Whether the guest printed anything.
    #[must_use]
    pub const fn spoke(&self) -> bool {
        self.spoke
    }

    /// Answers one access and moves its value; or does nothing yet, because of other vCPUs' list registers.
    /// `has_recalled`: they were recalled.
    #[inline(never)] // `faultline break` of gdb stops here
    pub(super) fn access<H: Host>(
        &mut self,
        vcpu: &mut Vcpu,
        mmio: &Mmio,
        has_recalled: bool,
        host: &mut H,
    ) -> Outcome {
        let is_big_endian = is_big_endian(vcpu.registers.pstate, host);
        let written = mmio.is_write.then(|| {
            let value = vcpu.registers.read(mmio.transfer.register) & mmio.transfer.width.mask();
            swap(value, mmio, is_big_endian)
        });
        let register = self.gic_register(vcpu.index, mmio);
        if let Some(register) = register
            && let Err(others) = self.prepare(vcpu.index, register, written, has_recalled, host)
        {
            return Outcome::Recall(others);
        }
        if let Some(count) = vcpu.counters.mmio.get(usize::from(mmio.device)) {
            count.add(1);
        }
        if mmio.transfer.is_ordered && mmio.is_write {
            host.dsb(crate::machine::Dsb::Ish);
        }
        let mut held = 0;
        match (register, written) {
            (Some(register), None) => {
                let value = self.vgic.read(register);
                load(vcpu, mmio, swap(value, mmio, is_big_endian));
            }
            (Some(register), Some(value)) => {
                held = self.write_gic(vcpu.index, register, value, host);
            }
            (None, None) => {
                let value = self.read(mmio, host);
                load(vcpu, mmio, swap(value, mmio, is_big_endian));
            }
            (None, Some(value)) => self.write(mmio, value, host),
        }
        if mmio.transfer.is_ordered && !mmio.is_write {
            host.dsb(crate::machine::Dsb::Ish);
        }
        Outcome::Done(held)
    }

    /// A word of the distributor, if it shows nothing that a guest changes by itself.
    #[inline]
    pub(super) fn quick_distributor(&self, vcpu: usize, offset: u64) -> Option<u64> {
        let register = self.vgic.distributor(vcpu, offset, Width::Word)?;
        self.vgic.read_settled(register)
    }

    fn gic_register(&self, vcpu: usize, mmio: &Mmio) -> Option<vgic::Access> {
        let (offset, width) = (mmio.offset, mmio.transfer.width);
        match mmio.device {
            GICD => self.vgic.distributor(vcpu, offset, width),
            GICR => self.vgic.redistributor(offset, width),
            GICC_DIR => self.vgic.deactivation_page(vcpu, offset, width),
            _ => None,
        }
    }

    fn read<H: Host>(&mut self, mmio: &Mmio, host: &mut H) -> u64 {
        let (offset, width) = (mmio.offset, mmio.transfer.width);
        match mmio.device {
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
            _ => read_stateless(mmio),
        }
    }

    fn write<H: Host>(&mut self, mmio: &Mmio, value: u64, host: &mut H) {
        let (offset, width) = (mmio.offset, mmio.transfer.width);
        match mmio.device {
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
    }

    /// Sends a byte of the guest's console, if nothing else changes by it; false: nothing was done.
    #[inline]
    pub(super) fn quick_send<H: Host>(&mut self, byte: u8, host: &mut H) -> bool {
        let is_sent = self.uart.send();
        if is_sent {
            self.spoke = true;
            host.put_console(byte);
        }
        is_sent
    }

    /// UARTFR, if nothing changes by its being read; `None`: nothing was done.
    #[inline]
    pub(super) fn quick_flags(&mut self) -> Option<u32> {
        self.uart.read_flags()
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
        self.look_for_room(host);
    }

    /// Tells the host when the guest begins to have room. While it has, nothing is kept from it.
    fn look_for_room<H: Host>(&mut self, host: &mut H) {
        let has_room = self.has_room();
        if has_room && !self.had_room {
            host.guest_listens();
        }
        self.had_room = has_room;
    }

    fn uart_changed(&mut self) {
        let line = self.uart.line();
        if line != self.uart_line {
            self.uart_line = line;
            self.vgic.set_line(UART_LINE, line);
        }
    }

    /// Whether the guest would take a byte.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // An SPI is the same to every vCPU.
        self.uart.has_room(self.vgic.forwards(0, UART_LINE))
    }

    /// Whether a device may still raise an interrupt of its own accord: the UART when something is typed, the clock at its
    /// match. Whether a vCPU would take it is not asked.
    #[must_use]
    pub fn may_interrupt(&self) -> bool {
        let hears = self.uart.interrupts_on_input() && self.vgic.forwards(0, UART_LINE);
        let has_match = |rtc: &Pl031| rtc.seconds_to_match().is_some();
        let rings = self.rtc.as_ref().is_some_and(has_match) && self.vgic.forwards(0, RTC_LINE);
        hears || rings
    }

    /// A byte for the guest, which has room for it.
    pub fn receive(&mut self, byte: u8) {
        self.uart.receive(byte);
        self.uart_changed();
        self.had_room = self.has_room();
    }
}

/// The device without state at `ipa`, and its window: what is written to it is lost.
#[inline]
pub(super) fn stateless_at(ipa: Ipa) -> Option<(u8, IpaRange)> {
    [(VIRTIO, platform::VIRTIO), (FLASH, platform::FLASH)]
        .into_iter()
        .find(|(_, window)| window.contains(ipa))
}

fn read_stateless(mmio: &Mmio) -> u64 {
    let (offset, width) = (mmio.offset, mmio.transfer.width);
    match mmio.device {
        FLASH => width.mask(),
        VIRTIO => virtio::read_empty(offset, width),
        _ => 0,
    }
}

/// As [`Devices::access`], for a device without state, which needs no lock.
#[inline]
pub(super) fn access_stateless<H: Host>(vcpu: &mut Vcpu, mmio: &Mmio, host: &mut H) {
    if let Some(count) = vcpu.counters.mmio.get(usize::from(mmio.device)) {
        count.add(1);
    }
    if !mmio.is_write {
        let is_big_endian = is_big_endian(vcpu.registers.pstate, host);
        load(vcpu, mmio, swap(read_stateless(mmio), mmio, is_big_endian));
    }
}

/// Puts the value of a load into its register.
fn load(vcpu: &mut Vcpu, mmio: &Mmio, value: u64) {
    vcpu.registers
        .write(mmio.transfer.register, mmio.transfer.extend(value));
}

/// `SCTLR_EL1.EE` and `E0E`.
const EE: u64 = 1 << 25;
const E0E: u64 = 1 << 24;

/// Whether the guest's data accesses are big-endian: SCTLR_EL1.EE at EL1, E0E at EL0, PSTATE.E in AArch32.
pub(super) fn is_big_endian<H: Host>(pstate: u64, host: &mut H) -> bool {
    if pstate & crate::registers::pstate::AARCH32 != 0 {
        return pstate & crate::registers::pstate::AARCH32_E != 0;
    }
    let at_el0 = pstate & crate::registers::pstate::MODE == crate::registers::pstate::EL0T;
    host.el1(crate::machine::El1::Sctlr) & if at_el0 { E0E } else { EE } != 0
}

/// Whether [`is_big_endian`] might hold; false for all but a few guests.
#[inline]
pub(super) fn may_be_big_endian<H: Host>(pstate: u64, host: &mut H) -> bool {
    pstate & crate::registers::pstate::AARCH32 != 0
        || host.el1(crate::machine::El1::Sctlr) & (EE | E0E) != 0
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
