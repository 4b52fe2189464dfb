//! A vCPU's general-purpose registers, laid out as the exit path saves them.

/// x0 to x30, PC and PSTATE of a vCPU that is out of the guest.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Registers {
    /// x0 to x30.
    pub x: [u64; 31],
    /// `ELR_EL2`: where it goes on.
    pub pc: u64,
    /// `SPSR_EL2`: with which PSTATE.
    pub pstate: u64,
}

impl Default for Registers {
    fn default() -> Self {
        Self::entering(0)
    }
}

/// PSTATE fields, `SPSR_EL2` layout for AArch64.
pub mod pstate {
    /// `M[3:0]` for EL0, SP_EL0.
    pub const EL0T: u64 = 0b0000;
    /// `M[3:0]` for EL1, SP_EL0.
    pub const EL1T: u64 = 0b0100;
    /// `M[3:0]` for EL1, SP_EL1.
    pub const EL1H: u64 = 0b0101;
    /// `M[3:0]`.
    pub const MODE: u64 = 0b1111;
    /// `M[4]`: AArch32.
    pub const AARCH32: u64 = 1 << 4;
    /// D, A, I and F: all masked.
    pub const DAIF: u64 = 0b1111 << 6;
    /// I: IRQs masked.
    pub const IRQ_MASKED: u64 = 1 << 7;
    /// Branch type of FEAT_BTI.
    pub const BTYPE: u64 = 0b11 << 10;
    /// Speculative Store Bypass Safe.
    pub const SSBS: u64 = 1 << 12;
    /// Software step.
    pub const SS: u64 = 1 << 21;
    /// Privileged Access Never.
    pub const PAN: u64 = 1 << 22;
    /// Data Independent Timing.
    pub const DIT: u64 = 1 << 24;
    /// N, Z, C and V.
    pub const NZCV: u64 = 0b1111 << 28;
}

impl Registers {
    /// As at reset: at `pc`, EL1h, everything masked, all registers zero.
    #[must_use]
    pub const fn entering(pc: u64) -> Self {
        Self {
            x: [0; 31],
            pc,
            pstate: pstate::EL1H | pstate::DAIF,
        }
    }

    /// Register `number` as an instruction means it: 31 is the zero register.
    #[must_use]
    pub fn read(&self, number: u8) -> u64 {
        self.x.get(usize::from(number)).copied().unwrap_or(0)
    }

    /// Writes register `number`; a write to 31 is lost, as the zero register's are.
    pub fn write(&mut self, number: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    /// Retires the A64 instruction at PC that was completed in software. Here and nowhere else is a PC advanced.
    pub const fn advance(&mut self) {
        self.pc = self.pc.wrapping_add(4);
        self.pstate &= !(pstate::SS | pstate::BTYPE);
    }
}
