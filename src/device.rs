//! What a guest sees as devices: register models without a machine beneath them.
//!
//! A device knows nothing of exits, stage 2 or interrupts controllers. It is handed single accesses and answers them; a
//! line that changed and bytes that left it are read from it afterwards by the VM that owns it.

pub mod pl011;
pub mod pl031;
pub mod virtio;

/// The width of one guest access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Half,
    /// 4 bytes.
    Word,
    /// 8 bytes.
    Double,
}

impl Width {
    /// From `ESR_ELx.ISS.SAS`: log2 of the size in bytes.
    #[must_use]
    pub const fn from_sas(sas: u64) -> Self {
        match sas & 3 {
            0 => Self::Byte,
            1 => Self::Half,
            2 => Self::Word,
            _ => Self::Double,
        }
    }

    /// Size in bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    /// A mask of as many low bits as the access carries.
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}
