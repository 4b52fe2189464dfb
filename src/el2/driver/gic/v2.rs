//! GICv2 with virtualization extensions: GICD, GICC, GICH.
//!
//! Source: IHI 0048B "Programmers' Model", "GIC Support for Virtualization".

use aarch64_cpu::asm::barrier;
use faultline::addr::{Pa, PaRange};
use faultline::vgic::CpuInterface;

use super::{FIRST_SPI, PRIORITY};
use crate::el2::driver::{read32, write8, write32};
use crate::el2::el3;
use crate::el2::hyp_map::{self, TooRagged, Use};

const GICD_CTLR: u64 = 0x000;
const GICD_TYPER: u64 = 0x004;
const GICD_IIDR: u64 = 0x008;
const GICD_IGROUPR: u64 = 0x080;
const GICD_ISENABLER: u64 = 0x100;
const GICD_ICENABLER: u64 = 0x180;
const GICD_ICPENDR: u64 = 0x280;
const GICD_ICACTIVER: u64 = 0x380;
const GICD_IPRIORITYR: u64 = 0x400;
const GICD_ITARGETSR: u64 = 0x800;
const GICD_SGIR: u64 = 0xf00;

const GICC_CTLR: u64 = 0x000;
const GICC_PMR: u64 = 0x004;
const GICC_IAR: u64 = 0x00c;
const GICC_EOIR: u64 = 0x010;
const GICC_APR: u64 = 0x0d0;
const GICC_DIR: u64 = 0x1000;

const GICH_HCR: u64 = 0x000;
const GICH_VTR: u64 = 0x004;
const GICH_VMCR: u64 = 0x008;
const GICH_APR: u64 = 0x0f0;
const GICH_LR: u64 = 0x100;

const CTLR_ENABLE: u32 = 1 << 0;
/// Non-secure view; also the bit of a GIC without security.
const CTLR_EOI_MODE: u32 = 1 << 9;

/// The controller.
#[derive(Clone)]
pub(in crate::el2) struct GicV2 {
    distributor: Pa,
    cpu: Pa,
    hyp: Pa,
    list_registers: usize,
}

impl GicV2 {
    pub(super) fn new(distributor: PaRange, cpu: PaRange, hyp: PaRange) -> Result<Self, TooRagged> {
        for range in [distributor, cpu, hyp] {
            hyp_map::map(range, Use::Device)?;
        }
        // SAFETY: GICH, mapped above.
        let list_registers = (unsafe { read32(hyp.start, GICH_VTR) } & 0x3f) as usize + 1;
        let gic = Self {
            distributor: distributor.start,
            cpu: cpu.start,
            hyp: hyp.start,
            list_registers,
        };
        gic.init_distributor();
        gic.init_cpu_interface();
        Ok(gic)
    }

    /// Another CPU's, once the distributor is set up and all is mapped.
    pub(super) fn join(&self) -> Self {
        let gic = self.clone();
        // SAFETY: GICD; each CPU has private interrupts of its own behind these registers.
        unsafe {
            write32(gic.distributor, GICD_ICENABLER, u32::MAX);
            write32(gic.distributor, GICD_ICPENDR, u32::MAX);
            write32(gic.distributor, GICD_ICACTIVER, u32::MAX);
            (0..u64::from(FIRST_SPI))
                .for_each(|intid| write8(gic.distributor, GICD_IPRIORITYR + intid, PRIORITY));
        }
        gic.init_cpu_interface();
        gic
    }

    fn init_cpu_interface(&self) {
        // SAFETY: GICC, mapped by `new`.
        unsafe {
            // A boot loader may have left a priority running that would mask all of ours.
            write32(self.cpu, GICC_APR, 0);
            write32(self.cpu, GICC_PMR, 0xff);
            write32(self.cpu, GICC_CTLR, CTLR_ENABLE | CTLR_EOI_MODE);
        }
        self.reset_virtual();
    }

    /// This CPU's bit where the distributor means CPUs: of the targets of its private interrupts, which are read-only.
    pub(super) fn target(&self) -> u8 {
        // SAFETY: GICD.
        unsafe { read32(self.distributor, GICD_ITARGETSR) as u8 }
    }

    /// Sends the SGI `number` to the CPU with this bit.
    pub(super) fn send_sgi(&self, number: u32, target: u8) {
        const TARGET_SHIFT: u32 = 16;
        // What was written before is seen by the CPU that takes the interrupt.
        barrier::dsb(barrier::ISHST);
        // SAFETY: GICD.
        unsafe {
            write32(
                self.distributor,
                GICD_SGIR,
                u32::from(target) << TARGET_SHIFT | number,
            )
        };
    }

    fn init_distributor(&self) {
        // SAFETY: GICD, mapped by `new`; every interrupt is disabled, idle, of one priority and for this CPU.
        unsafe {
            let lines = (u64::from(read32(self.distributor, GICD_TYPER)) & 0x1f) + 1;
            let this_cpu = self.target();
            if el3::is_ours() {
                // A GIC out of reset keeps all interrupts, and the priority mask, for the Secure world.
                for line in 0..lines {
                    el3::store(self.distributor.add(GICD_IGROUPR + 4 * line), u32::MAX);
                }
                el3::store(self.cpu.add(GICC_PMR), 0xff);
            }
            write32(self.distributor, GICD_CTLR, 0);
            for line in 0..lines {
                write32(self.distributor, GICD_ICENABLER + 4 * line, u32::MAX);
                write32(self.distributor, GICD_ICPENDR + 4 * line, u32::MAX);
                write32(self.distributor, GICD_ICACTIVER + 4 * line, u32::MAX);
            }
            for intid in 0..32 * lines {
                write8(self.distributor, GICD_IPRIORITYR + intid, PRIORITY);
                if intid >= u64::from(FIRST_SPI) {
                    write8(self.distributor, GICD_ITARGETSR + intid, this_cpu);
                }
            }
            write32(self.distributor, GICD_CTLR, CTLR_ENABLE);
        }
    }

    pub(super) fn enable(&self, intid: u32) {
        let (register, bit) = (u64::from(intid / 32) * 4, 1 << (intid % 32));
        // SAFETY: GICD; the interrupt has a handler (interrupts.rs).
        unsafe { write32(self.distributor, GICD_ISENABLER + register, bit) };
    }

    pub(super) fn acknowledge(&self) -> u32 {
        // SAFETY: GICC; who acknowledges ends it.
        unsafe { read32(self.cpu, GICC_IAR) }
    }

    pub(super) fn drop_priority(&self, iar: u32) {
        // SAFETY: GICC; `iar` was read from it.
        unsafe { write32(self.cpu, GICC_EOIR, iar) };
    }

    pub(super) fn deactivate(&self, iar: u32) {
        // SAFETY: GICC; `iar` was read from it, or is a private interrupt's number.
        unsafe { write32(self.cpu, GICC_DIR, iar) };
    }

    pub(super) const fn list_register_count(&self) -> usize {
        self.list_registers
    }

    /// Whether a level that is still asserted when a guest's end of interrupt deactivates it is signalled again. QEMU's
    /// GICv2, which names Arm but no product, looks at its lines again only when somebody touches the physical side.
    pub(super) fn resamples_after_link(&self) -> bool {
        const PRODUCT_SHIFT: u32 = 24;
        // SAFETY: GICD.
        unsafe { read32(self.distributor, GICD_IIDR) >> PRODUCT_SHIFT != 0 }
    }

    pub(super) fn list_register(&self, n: usize) -> u32 {
        // SAFETY: GICH; `n` is below the count.
        unsafe { read32(self.hyp, GICH_LR + 4 * n as u64) }
    }

    pub(super) fn set_list_register(&self, n: usize, value: u32) {
        // SAFETY: GICH; `n` is below the count.
        unsafe { write32(self.hyp, GICH_LR + 4 * n as u64, value) };
    }

    pub(super) fn control(&self) -> u32 {
        // SAFETY: GICH.
        unsafe { read32(self.hyp, GICH_HCR) }
    }

    pub(super) fn set_control(&self, value: u32) {
        // SAFETY: GICH.
        unsafe { write32(self.hyp, GICH_HCR, value) };
    }

    pub(super) fn load_virtual(&self, interface: &CpuInterface) {
        // SAFETY: GICH.
        unsafe {
            write32(self.hyp, GICH_APR, interface.group_0[0]);
            write32(self.hyp, GICH_VMCR, interface.vmcr);
        }
        self.set_control(1);
    }

    /// The vCPU leaves, its list registers free.
    pub(super) fn unload_virtual(&self, interface: &mut CpuInterface) {
        self.set_control(0);
        self.read_interface(interface);
    }

    /// What the vCPU has there.
    pub(super) fn read_interface(&self, interface: &mut CpuInterface) {
        // SAFETY: GICH.
        unsafe {
            interface.vmcr = read32(self.hyp, GICH_VMCR);
            interface.group_0[0] = read32(self.hyp, GICH_APR);
        }
    }

    /// Whatever a boot loader left there.
    fn reset_virtual(&self) {
        self.set_control(0);
        (0..self.list_registers).for_each(|n| self.set_list_register(n, 0));
    }
}
