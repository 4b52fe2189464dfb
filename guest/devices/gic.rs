//! The vGIC under `arm-gic`: its GICv2 driver down to acknowledging and ending, its GICv3 driver as far as memory-mapped
//! registers go (the system registers are fakes there).

use super::{Board, GICC_BASE, GICD_BASE, GICR_BASE, with_board};
use arm_gic::gicv2::{GicV2, SgiTarget, SgiTargetListFilter};
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicDistributorContext, GicError, GicRedistributorContext, GicV3, Group};
use arm_gic::{InterruptGroup, Trigger};
use core::ptr::{NonNull, without_provenance_mut};
use faultline::vgic::{IntId, ListRegister, MAX_LIST_REGISTERS, State, Version, Vgic};
use safe_mmio::UniqueMmioPointer;

/// List registers the CPU interface has.
const LIST_REGISTERS: usize = 4;
/// GICC_IAR when nothing is pending.
const NONE_PENDING: u64 = 1023;

/// A GICv2 CPU interface on list registers, for a guest that handles one interrupt at a time.
#[derive(Default)]
pub(super) struct CpuInterface {
    vcpu: usize,
    registers: [ListRegister; MAX_LIST_REGISTERS],
    priority_mask: u64,
    is_enabled: bool,
}

impl CpuInterface {
    pub(super) fn of(vcpu: usize) -> Self {
        Self {
            vcpu,
            ..Self::default()
        }
    }

    /// The guest leaves for EL2, which folds its list registers back.
    pub(super) fn exit(&mut self, vgic: &mut Vgic) {
        vgic.sync_from(self.vcpu, |n| self.registers[n].state);
    }

    /// A read of GICC; the guest was entered just before.
    pub(super) fn read(&mut self, vgic: &mut Vgic, offset: u64) -> u64 {
        self.exit(vgic);
        if vgic.needs_plan(self.vcpu) {
            vgic.plan(self.vcpu, LIST_REGISTERS, |n, register| {
                self.registers[n] = register;
            });
        }
        match offset {
            0x00 => u64::from(self.is_enabled),
            0x04 => self.priority_mask,
            0x0c | 0x20 => self.acknowledge(),
            _ => panic!("GICC read at {offset:#x}"),
        }
    }

    pub(super) fn write(&mut self, offset: u64, value: u64) {
        match offset {
            0x00 => self.is_enabled = value & 1 != 0,
            0x04 => self.priority_mask = value,
            0x10 | 0x24 => self.end(value),
            _ => panic!("GICC write at {offset:#x}"),
        }
    }

    fn acknowledge(&mut self) -> u64 {
        let is_enabled = self.is_enabled;
        let mask = self.priority_mask;
        let best = self
            .registers
            .iter_mut()
            .filter(|register| {
                is_enabled
                    && register.state == State::Pending
                    && u64::from(register.priority) < mask
            })
            .min_by_key(|register| register.priority);
        best.map_or(NONE_PENDING, |register| {
            register.state = State::Active;
            u64::from(register.vintid.raw()) | u64::from(register.source) << 10
        })
    }

    fn end(&mut self, name: u64) {
        let ended = self.registers.iter_mut().find(|register| {
            register.state.is_active()
                && u64::from(register.vintid.raw()) | u64::from(register.source) << 10 == name
        });
        let register =
            ended.expect("what is ended is active, under the name it was acknowledged with");
        register.state = State::new(register.state.is_pending(), false);
    }
}

fn gicv2() -> GicV2<'static> {
    with_board(|board| *board = Board::new(Version::V2));
    // SAFETY: every access through these pointers goes to `Trap`, which never dereferences them.
    unsafe {
        GicV2::new(
            without_provenance_mut(GICD_BASE as usize),
            without_provenance_mut(GICC_BASE as usize),
        )
    }
}

fn gicv3() -> GicV3<'static> {
    with_board(|board| *board = Board::new(Version::V3));
    let distributor =
        NonNull::new(without_provenance_mut::<Gicd>(GICD_BASE as usize)).expect("not null");
    let redistributors =
        NonNull::new(without_provenance_mut::<GicrSgi>(GICR_BASE as usize)).expect("not null");
    // SAFETY: as for the GICv2.
    unsafe { GicV3::new(UniqueMmioPointer::new(distributor), redistributors, 2) }
        .expect("a GICv3 that is understood")
}

fn set_line(spi: u32, level: bool) {
    with_board(|board| board.vgic.set_line(IntId::spi(spi), level));
}

#[test]
fn gicv2_driver_reads_the_configuration() {
    let typer = gicv2().typer();
    assert_eq!((typer.num_irqs(), typer.cpu_count()), (288, 2));
    assert!(!typer.has_security_extension());
}

#[test]
fn gicv2_driver_handles_a_device_interrupt() {
    let mut gic = gicv2();
    gic.setup();
    let uart = arm_gic::IntId::spi(1);
    gic.enable_interrupt(uart, true).expect("it can be enabled");
    gic.set_interrupt_priority(uart, 0x80);
    gic.set_trigger(uart, Trigger::Level);
    // The driver has no function for GICD_ITARGETSR.
    with_board(|board| board.write(GICD_BASE + 0x821, faultline::device::Width::Byte, 1));
    assert!(!gic.handle_interrupt(InterruptGroup::Group0, |_| panic!("nothing is pending")));
    set_line(1, true);
    let mut seen = Vec::new();
    for _ in 0..2 {
        gic.handle_interrupt(InterruptGroup::Group0, |intid| seen.push(intid));
    }
    set_line(1, false);
    assert!(!gic.handle_interrupt(InterruptGroup::Group0, |intid| seen.push(intid)));
    assert_eq!(seen, [uart, uart], "as long as the line was asserted");
}

#[test]
fn gicv2_driver_sends_sgis_to_itself_and_masks_by_priority() {
    let mut gic = gicv2();
    gic.setup();
    let itself = SgiTarget::List {
        target_list_filter: SgiTargetListFilter::ForwardSelfOnly,
        target_list: 0,
    };
    for number in [3, 9] {
        gic.set_interrupt_priority(arm_gic::IntId::sgi(number), 0xf0 - 8 * number as u8);
        gic.send_sgi(arm_gic::IntId::sgi(number), itself);
    }
    gic.set_priority_mask(0x40);
    assert_eq!(gic.get_priority_mask(), 0x40);
    assert_eq!(
        gic.get_and_acknowledge_interrupt(InterruptGroup::Group0),
        None
    );
    gic.set_priority_mask(0xff);
    let mut seen = Vec::new();
    while gic.handle_interrupt(InterruptGroup::Group0, |intid| seen.push(intid.raw_value())) {}
    assert_eq!(seen, [9, 3]);
}

/// What the vCPU is given until nothing is left.
fn take_all(gic: &mut GicV2<'static>, vcpu: usize) -> Vec<u32> {
    with_board(|board| board.vcpu = vcpu);
    let mut seen = Vec::new();
    while gic.handle_interrupt(InterruptGroup::Group0, |intid| seen.push(intid.raw_value())) {}
    seen
}

#[test]
fn gicv2_driver_sends_sgis_to_other_cpus() {
    let mut gic = gicv2();
    for vcpu in [1, 0] {
        with_board(|board| board.vcpu = vcpu);
        gic.setup();
    }
    let list = |target_list| SgiTarget::List {
        target_list_filter: SgiTargetListFilter::CPUTargetList,
        target_list,
    };
    let others = SgiTarget::List {
        target_list_filter: SgiTargetListFilter::ForwardOthersOnly,
        target_list: 0,
    };
    gic.send_sgi(arm_gic::IntId::sgi(1), list(0b10));
    gic.send_sgi(arm_gic::IntId::sgi(2), list(0b11));
    gic.send_sgi(arm_gic::IntId::sgi(3), others);
    assert_eq!(take_all(&mut gic, 0), [2]);
    assert_eq!(take_all(&mut gic, 1), [1, 2, 3]);
    gic.send_sgi(arm_gic::IntId::sgi(4), others);
    assert_eq!(take_all(&mut gic, 1), [0; 0], "not to itself");
    assert_eq!(
        take_all(&mut gic, 0),
        [1 << 10 | 4],
        "GICC_IAR as it stands: the source above the number"
    );
}

#[test]
fn gicv2_driver_sees_on_one_cpu_what_another_handles() {
    let mut gic = gicv2();
    gic.setup();
    let uart = arm_gic::IntId::spi(1);
    gic.enable_interrupt(uart, true).expect("it can be enabled");
    with_board(|board| board.write(GICD_BASE + 0x821, faultline::device::Width::Byte, 1));
    set_line(1, true);
    gic.handle_interrupt(InterruptGroup::Group0, |_| {
        set_line(1, false);
        with_board(|board| {
            board.vcpu = 1;
            let word = faultline::device::Width::Word;
            assert_eq!(board.read(GICD_BASE + 0x304, word), 1 << 1, "active");
            board.vcpu = 0;
        });
    });
    assert_eq!(take_all(&mut gic, 1), [0; 0]);
}

#[test]
fn gicv3_driver_finds_and_wakes_the_redistributors() {
    let mut gic = gicv3();
    assert_eq!(gic.typer().num_spis(), 256);
    let second = gic.gicr_typer(1).expect("there are two");
    assert_eq!((second.core_mpidr(), second.processor_number()), (1, 1));
    gic.redistributor_mark_core_awake(0)
        .expect("it sleeps out of reset");
    assert_eq!(
        gic.redistributor_mark_core_awake(0),
        Err(GicError::AlreadyAwake)
    );
    gic.redistributor_mark_core_asleep(0).expect("it is awake");
}

#[test]
fn gicv3_driver_configures_interrupts_that_then_arrive() {
    let mut gic = gicv3();
    gic.setup(0);
    let device = arm_gic::IntId::spi(40);
    gic.set_interrupt_priority(device, None, 0x90)
        .expect("an SPI");
    gic.set_trigger(device, None, Trigger::Edge)
        .expect("an SPI");
    gic.set_group(device, None, Group::Group1NS)
        .expect("an SPI");
    gic.distributor()
        .set_routing(device, Some(1))
        .expect("an SPI");
    gic.enable_interrupt(device, None, true).expect("an SPI");
    set_line(40, true);
    set_line(40, false);
    let timer = arm_gic::IntId::ppi(11);
    gic.set_interrupt_priority(timer, Some(0), 0x40)
        .expect("a PPI");
    gic.set_group(timer, Some(0), Group::Group1NS)
        .expect("a PPI");
    gic.enable_interrupt(timer, Some(0), true).expect("a PPI");
    with_board(|board| {
        assert!(
            board
                .vgic
                .hardware_interrupt(0, IntId::ppi(11), IntId::ppi(11))
        );
        assert_eq!(board.vgic.highest_pending(0), Some(0x40));
        assert_eq!(board.vgic.highest_pending(1), Some(0x90));
    });
}

#[test]
fn what_the_gicv3_driver_saved_it_can_restore() {
    let mut gic = gicv3();
    gic.setup(0);
    for spi in [0, 31, 32, 100, 255] {
        let device = arm_gic::IntId::spi(spi);
        gic.set_interrupt_priority(device, None, 8 * (spi % 32) as u8)
            .expect("an SPI");
        gic.set_trigger(
            device,
            None,
            if spi % 2 == 0 {
                Trigger::Edge
            } else {
                Trigger::Level
            },
        )
        .expect("an SPI");
        gic.distributor()
            .set_routing(device, (spi != 100).then_some(u64::from(spi % 2)))
            .expect("an SPI");
        gic.enable_interrupt(device, None, true).expect("an SPI");
    }
    let save = |gic: &mut GicV3| {
        let mut distributor = GicDistributorContext::<8, 0>::new();
        let mut redistributor = GicRedistributorContext::<1>::new();
        gic.distributor().save(&mut distributor).expect("it fits");
        gic.redistributor(0)
            .expect("it exists")
            .save(&mut redistributor)
            .expect("it fits");
        (distributor, redistributor)
    };
    let saved = save(&mut gic);
    let mut fresh = gicv3();
    assert_ne!(save(&mut fresh), saved);
    fresh.distributor().restore(&saved.0).expect("it fits");
    fresh
        .redistributor(0)
        .expect("it exists")
        .restore(&saved.1)
        .expect("it fits");
    assert_eq!(save(&mut fresh), saved);
}
