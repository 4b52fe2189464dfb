//! The virtio-mmio windows of QEMU's `virt`, each without a device: what a driver that probes them finds there.
//!
//! A transport that is present and empty answers its magic and version and device ID 0, and ignores all else. Images built
//! for `virt` probe the windows at their fixed places; an abort there would be a machine they do not know.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, "MMIO Device Register Layout" and "Legacy interface".

use crate::device::Width;

/// Bytes of one window.
pub const WINDOW: u64 = 0x200;

/// `MagicValue`: "virt".
const MAGIC: u64 = 0x7472_6976;
/// `Version`: the legacy interface, QEMU's default.
const VERSION: u64 = 1;

/// Offset of `MagicValue`.
const MAGIC_VALUE: u64 = 0x000;
/// Offset of `Version`.
const VERSION_REGISTER: u64 = 0x004;

/// Reads at `offset` from the first window. Registers are words; other widths read as zero.
#[must_use]
pub const fn read_empty(offset: u64, width: Width) -> u64 {
    match (offset % WINDOW, width) {
        (MAGIC_VALUE, Width::Word) => MAGIC,
        (VERSION_REGISTER, Width::Word) => VERSION,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_is_a_transport_without_a_device() {
        for window in 0..32u64 {
            let read = |register: u64| read_empty(window * 0x200 + register, Width::Word);
            assert_eq!(read(0x000).to_le_bytes()[..4], *b"virt");
            assert_eq!((read(0x004), read(0x008), read(0x070)), (1, 0, 0));
        }
        assert_eq!(read_empty(0, Width::Byte), 0);
    }
}
