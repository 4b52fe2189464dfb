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
    /// AArch32: data accesses are big-endian.
    pub const AARCH32_E: u64 = 1 << 9;
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
    /// AArch32: bits 7 to 2 and 1 to 0 of the If-Then state, where AArch64 has BTYPE among others.
    const IT_HIGH: u64 = 0b11_1111 << 10;
    const IT_LOW: u64 = 0b11 << 25;

    /// AArch32's PSTATE after an instruction of an If-Then block, ITAdvance() in the pseudocode.
    pub(super) const fn advance_it(pstate: u64) -> u64 {
        let it = (pstate & IT_HIGH) >> 10 << 2 | (pstate & IT_LOW) >> 25;
        let next = if it & 0b111 == 0 {
            0
        } else {
            it & 0b1110_0000 | it << 1 & 0b1_1111
        };
        pstate & !(IT_HIGH | IT_LOW) | next >> 2 << 10 | (next & 0b11) << 25
    }

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

    /// The exception level it is at, in words.
    #[must_use]
    pub const fn level(&self) -> &'static str {
        if self.pstate & pstate::AARCH32 != 0 {
            return "EL0, AArch32";
        }
        match self.pstate & pstate::MODE {
            pstate::EL0T => "EL0",
            pstate::EL1T => "EL1t",
            _ => "EL1h",
        }
    }

    /// Whether it takes no IRQ now (PSTATE.I).
    #[must_use]
    pub const fn masks_irqs(&self) -> bool {
        self.pstate & pstate::IRQ_MASKED != 0
    }

    /// Retires the instruction at PC that was completed in software: of A64, or of A32 and T32 at EL0, where `is_16_bit`
    /// says that it is a short one. Here and nowhere else is a PC advanced.
    #[inline]
    pub const fn advance(&mut self, is_16_bit: bool) {
        if self.pstate & pstate::AARCH32 == 0 {
            self.pc = self.pc.wrapping_add(4);
            self.pstate &= !(pstate::SS | pstate::BTYPE);
        } else {
            self.advance_aarch32(is_16_bit);
        }
    }

    #[inline(never)]
    const fn advance_aarch32(&mut self, is_16_bit: bool) {
        let size = if is_16_bit { 2 } else { 4 };
        self.pc = self.pc.wrapping_add(size) & u32::MAX as u64;
        self.pstate = pstate::advance_it(self.pstate & !pstate::SS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a64_instructions_are_four_bytes_and_end_step_and_branch_type() {
        let mut registers = Registers::entering(0x1000);
        registers.pstate |= pstate::SS | pstate::BTYPE | pstate::NZCV;
        registers.advance(false);
        assert_eq!(registers.pc, 0x1004);
        assert_eq!(registers.pstate, 0xf000_03c5);
    }

    /// `ITTT EQ; ldr; ldr; ldr`: IT = 0b0000_0010 to begin with, shifted left once an instruction, then over.
    #[test]
    fn t32_instructions_move_through_their_it_block() {
        let mut registers = Registers::entering(0xffff_fffe);
        // User mode, T32, IT[7:0] = 0b0000_0010: IT[7:2] in bits 15 to 10, IT[1:0] in 26 to 25.
        registers.pstate = 0x30 | 0b10 << 25;
        for (it_high, it_low) in [(1, 0), (2, 0), (0, 0)] {
            registers.advance(true);
            assert_eq!(registers.pstate, 0x30 | it_high << 10 | it_low << 25);
        }
        assert_eq!(registers.pc, 4, "a 32-bit PC wraps");
        registers.advance(false);
        assert_eq!(registers.pc, 8);
    }
}
