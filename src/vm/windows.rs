//! What lies where in a VM: RAM, devices, and the hardware's own windows.

use super::Ground;
use super::devices;
use crate::config::DomainConfig;
use crate::platform;
use crate::slot::{Kind, Slot, SlotError, Slots};
use crate::stage2::Rights;

/// The windows of a VM on this ground.
pub(super) fn slots(config: &DomainConfig, ground: &Ground<'_>) -> Result<Slots, SlotError> {
    let mut slots = Slots::default();
    slots.add_ram(config.ram(), &config.rom, &config.xn)?;
    slots.add(Slot {
        range: platform::STOLEN_TIME,
        kind: Kind::Ram(Rights::READ),
    })?;
    slots.add(Slot {
        range: platform::FLASH,
        kind: Kind::Device(devices::FLASH),
    })?;
    slots.add(Slot {
        range: platform::VIRTIO,
        kind: Kind::Device(devices::VIRTIO),
    })?;
    slots.add(Slot {
        range: platform::GICD,
        kind: Kind::Device(devices::GICD),
    })?;
    match ground.vcpu_interface {
        Some(gicv) => {
            slots.add(Slot {
                range: platform::GICC_WINDOW,
                kind: Kind::Window(gicv),
            })?;
            slots.add(Slot {
                range: platform::GICC_DIR,
                kind: Kind::Device(devices::GICC_DIR),
            })?;
        }
        None => slots.add(Slot {
            range: platform::redistributors(config.vcpus as usize),
            kind: Kind::Device(devices::GICR),
        })?,
    }
    if config.console {
        slots.add(Slot {
            range: platform::UART,
            kind: Kind::Device(devices::UART),
        })?;
    }
    if ground.clock.is_some() {
        slots.add(Slot {
            range: platform::RTC,
            kind: Kind::Device(devices::RTC),
        })?;
    }
    Ok(slots)
}
