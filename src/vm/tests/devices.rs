//! Bytes and interrupts between a VM's devices and its host.

use super::{EPOCH, GICD, GICR, HZ, RTC, Run, UART};
use crate::machine::recorder::Recorder;
use crate::vgic::{IntId, ListRegister, State, Version};
use crate::vm::VIRTUAL_TIMER;
use std::sync::atomic::{AtomicBool, Ordering};

const UARTFR: u64 = UART + 0x18;
const UARTIMSC: u64 = UART + 0x38;
const UARTCR: u64 = UART + 0x30;
/// GICD_CTLR: ARE and group 1.
const GICD_CTLR: u64 = GICD;
/// GICR_ISENABLER0, GICR_IGROUPR0: SGI frame.
const GICR_IGROUPR0: u64 = GICR + 0x1_0080;
const GICR_ISENABLER0: u64 = GICR + 0x1_0100;
const GICR_ISACTIVER0: u64 = GICR + 0x1_0300;
/// GICR_ISPENDR0.
const GICR_ISPENDR0: u64 = GICR + 0x1_0200;
const GICR_ICACTIVER0: u64 = GICR + 0x1_0380;
/// The physical interrupt of the board's virtual timer.
const PHYSICAL: IntId = IntId::ppi(11);

/// The list registers in use, if they were written since this was asked last.
fn plan(run: &mut Run) -> Option<Vec<ListRegister>> {
    run.vm.devices().plan(0, &mut run.m);
    let host = &mut run.m.host;
    let list = host.list.iter().copied();
    (core::mem::take(&mut host.list_writes) != 0).then(|| {
        list.filter(|register| register.state != State::Invalid)
            .collect()
    })
}

#[test]
fn bytes_leave_the_guest_in_order() {
    let mut run = Run::new();
    for byte in b"hello" {
        run.store(UART, u64::from(*byte));
    }
    assert_eq!(run.m.host.console, b"hello");
    assert!(run.vm.devices().spoke());
}

#[test]
fn a_guest_that_polls_is_heard_and_gets_its_byte() {
    let mut run = Run::new();
    run.store(UARTCR, 0x301);
    assert!(!run.vm.devices().spoke() && !run.vm.devices().has_room());
    for _ in 0..64 {
        run.load(UARTFR);
    }
    assert!(run.m.host.listens > 0, "the host is told");
    assert!(run.vm.devices().has_room());
    run.vm.devices().receive(b'q');
    assert_eq!(run.load(UARTFR) & 1 << 4, 0, "RXFE is clear");
    assert_eq!(run.load(UART) & 0xff, u64::from(b'q'));
}

#[test]
fn a_byte_received_raises_the_consoles_interrupt() {
    let mut run = Run::new();
    run.store(GICD_CTLR, 0x12);
    // SPI 1 is INTID 33: group 1, enabled.
    run.store(GICD + 0x84, 1 << 1);
    run.store(UARTCR, 0x301);
    run.store(UARTIMSC, 1 << 4 | 1 << 6);
    let listened = run.m.host.listens;
    run.store(GICD + 0x104, 1 << 1);
    assert!(
        run.m.host.listens > listened,
        "enabling the interrupt made it a listener"
    );
    for _ in 0..16 {
        run.vm.devices().receive(b'z');
    }
    assert!(run.vm.devices().is_pending(0));
    let list = plan(&mut run).expect("there is something to load");
    assert_eq!(
        list.iter()
            .map(|register| register.vintid.raw())
            .collect::<Vec<_>>(),
        [33]
    );
    assert_eq!(list[0].pintid, None);
}

/// A GICv3 guest that takes its virtual timer's interrupt, which has just come.
fn with_timer() -> Run {
    let mut run = Run::new();
    run.store(GICD_CTLR, 0x12);
    run.store(GICR_IGROUPR0, u64::from(u32::MAX));
    run.store(GICR_ISENABLER0, 1 << 27);
    run.m.host.lines = 1 << VIRTUAL_TIMER.raw();
    run.vm
        .devices()
        .own_interrupt(0, VIRTUAL_TIMER, PHYSICAL, &mut run.m);
    run
}

/// The guest works on its list registers without an exit: what a register of the GIC reads is what they say now.
#[test]
fn the_gic_shows_what_the_guest_did_to_its_list_registers() {
    let mut run = with_timer();
    plan(&mut run);
    assert_eq!(run.load(GICR_ISACTIVER0), 0);
    run.m.host.list[0].state = State::new(false, true);
    assert_eq!(run.load(GICR_ISACTIVER0), 1 << 27, "acknowledged meanwhile");
    // The guest deactivates it by the register instead of by its end: the physical one is ours to deactivate.
    run.store(GICR_ICACTIVER0, 1 << 27);
    assert_eq!(run.m.host.deactivated, [PHYSICAL.raw()]);
}

#[test]
fn an_interrupt_that_the_guest_ended_may_come_again() {
    let mut run = with_timer();
    plan(&mut run);
    // Taken and ended in the guest, and the timer fired again.
    run.m.host.list[0].state = State::Invalid;
    run.vm
        .devices()
        .own_interrupt(0, VIRTUAL_TIMER, PHYSICAL, &mut run.m);
    let list = plan(&mut run).expect("it is to be loaded again");
    assert_eq!((list.len(), list[0].state), (1, State::new(true, false)));
    assert!(run.m.host.deactivated.is_empty());
}

#[test]
fn a_plan_keeps_what_is_active_in_the_guest() {
    let mut run = with_timer();
    run.store(GICD + 0x84, 1 << 1);
    run.store(GICD + 0x104, 1 << 1);
    run.store(UARTCR, 0x301);
    run.store(UARTIMSC, 1 << 4 | 1 << 6);
    plan(&mut run);
    // Acknowledged in the guest; and something new to load, without an access to the GIC in between.
    run.m.host.list[0].state = State::new(false, true);
    for _ in 0..16 {
        run.vm.devices().receive(b'z');
    }
    let list = plan(&mut run).expect("there is something new");
    let timer = list.iter().find(|register| register.vintid.raw() == 27);
    assert_eq!(
        timer.map(|register| register.state),
        Some(State::new(false, true))
    );
    assert!(list.iter().any(|register| register.vintid.raw() == 33));
}

#[test]
fn a_maintenance_interrupt_folds_in_what_ended() {
    let mut run = with_timer();
    plan(&mut run);
    run.m.host.list[0].state = State::Invalid;
    run.m.host.lines = 0;
    run.vm.devices().maintenance(0, &mut run.m);
    assert!(!run.vm.devices().is_pending(0));
    assert_eq!(run.load(GICR_ISACTIVER0), 0);
}

/// ICC_SGI1R_EL1: S3_0_C12_C11_5. SGI 1 to itself, handled, and sent again: it is not lost.
#[test]
fn an_sgi_sent_again_after_the_first_was_handled_is_delivered_again() {
    let mut run = with_timer();
    run.m.host.lines = 0;
    run.vm.devices().fold_in(0, &mut run.m);
    run.store(GICR_ISENABLER0, 1 << 1);
    let sgi1r = 0x18 << 26 | 1 << 25 | 3 << 20 | 5 << 17 | 12 << 10 | 3 << 5 | 11 << 1;
    for time in 0..3 {
        run.vcpu.registers.x[3] = 1 << 24 | 1;
        run.exit(sgi1r, 0, 0);
        let list = plan(&mut run).unwrap_or_default();
        assert!(
            list.iter().any(|register| register.vintid.raw() == 1),
            "time {time}"
        );
        run.m
            .host
            .list
            .iter_mut()
            .for_each(|register| register.state = State::Invalid);
    }
}

/// The mask is the guest's: the line falls when it closes it.
#[test]
fn the_consoles_line_follows_its_mask_at_once() {
    let mut run = Run::new();
    run.store(GICD_CTLR, 0x12);
    run.store(GICD + 0x84, 1 << 1);
    run.store(GICD + 0x104, 1 << 1);
    run.store(UARTCR, 0x301);
    run.store(UARTIMSC, 1 << 4 | 1 << 6);
    for _ in 0..16 {
        run.vm.devices().receive(b'z');
    }
    assert!(run.vm.devices().is_pending(0));
    run.store(UARTIMSC, 0);
    assert!(!run.vm.devices().is_pending(0));
    run.store(UARTIMSC, 1 << 4 | 1 << 6);
    assert!(run.vm.devices().is_pending(0));
    while run.load(UARTFR) & 1 << 4 == 0 {
        run.load(UART);
    }
    assert!(
        !run.vm.devices().is_pending(0),
        "reading the last byte ends it"
    );
}

/// What could wake a guest that sleeps: typing, if it has the UART's interrupt on at both ends, and the clock likewise.
#[test]
fn a_device_may_interrupt_only_a_guest_that_has_it_on_at_both_ends() {
    const UART_SPI: u64 = 33;
    const RTC_SPI: u64 = 34;
    const GICD_ISENABLER1: u64 = GICD + 0x104;
    const GICD_ICENABLER1: u64 = GICD + 0x184;
    const RTCIMSC: u64 = RTC + 0x10;
    let mut run = Run::new();
    run.store(GICD_CTLR, 0x12);
    run.store(GICD + 0x084, u64::from(u32::MAX));
    let may = |run: &Run| run.vm.devices().may_interrupt();
    assert!(!may(&run));
    run.store(UARTIMSC, 1 << 6);
    assert!(!may(&run), "the distributor keeps it");
    run.store(GICD_ISENABLER1, 1 << (UART_SPI - 32));
    assert!(may(&run));
    run.store(UARTIMSC, 1 << 5);
    assert!(!may(&run), "what it sends is no input");
    run.store(RTCIMSC, 1);
    run.store(GICD_ISENABLER1, 1 << (RTC_SPI - 32));
    assert!(may(&run));
    run.store(GICD_ICENABLER1, 1 << (RTC_SPI - 32));
    assert!(!may(&run));
}

#[test]
fn the_virtual_timers_interrupt_is_linked_to_the_physical_one() {
    let mut run = Run::new();
    run.store(GICD_CTLR, 0x12);
    run.store(GICR_IGROUPR0, u64::from(u32::MAX));
    run.store(GICR_ISENABLER0, 1 << 27);
    run.m.host.lines = 1 << VIRTUAL_TIMER.raw();
    run.vm
        .devices()
        .own_interrupt(0, VIRTUAL_TIMER, PHYSICAL, &mut run.m);
    assert!(run.vm.devices().is_pending(0));
    let list = plan(&mut run).expect("there is something to load");
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].vintid.raw(), list[0].pintid), (27, Some(PHYSICAL)));
    assert_eq!(list[0].state, State::new(true, false));
    assert!(
        run.m.host.deactivated.is_empty(),
        "the guest's own end deactivates it"
    );
    assert!(plan(&mut run).is_none(), "nothing changed since");
}

/// The guest sets its timer to later without an exit: the interrupt is gone, and the host must end it.
#[test]
fn a_timer_that_went_quiet_before_it_was_taken_is_deactivated() {
    let mut run = Run::new();
    run.store(GICD_CTLR, 0x12);
    run.store(GICR_IGROUPR0, u64::from(u32::MAX));
    run.store(GICR_ISENABLER0, 1 << 27);
    run.m.host.lines = 1 << VIRTUAL_TIMER.raw();
    run.vm
        .devices()
        .own_interrupt(0, VIRTUAL_TIMER, PHYSICAL, &mut run.m);
    plan(&mut run);
    run.m.host.lines = 0;
    run.vm.devices().fold_in(0, &mut run.m);
    assert!(!run.vm.devices().is_pending(0));
    assert_eq!(run.m.host.deactivated, [PHYSICAL.raw()]);
}

#[test]
fn the_clock_tells_the_time_of_day() {
    let mut run = Run::new();
    assert_eq!(run.load(RTC), EPOCH);
    run.m.host.counter = 42 * HZ;
    assert_eq!(run.load(RTC), EPOCH + 42);
}

#[test]
fn a_gicv2_guest_reaches_the_hardwares_cpu_interface() {
    let mut run = Run::with(Version::V2);
    run.m
        .add_window(crate::addr::PaRange::new(crate::addr::Pa::new(0x0804_0000), 0x2000).unwrap());
    run.exit(0x24 << 26 | 1 << 25 | 0x07, 0x0801_000c, 0x0801_0000);
    assert_eq!(run.m.translate(0x0801_0000).unwrap().0.raw(), 0x0804_0000);
    assert_eq!(run.vcpu.counters.windows, 1);
}

/// ICC_SGI1R_EL1: SGI 1 from vCPU 0 to vCPU 1.
fn send_to_second(run: &mut Run) {
    const SGI1R: u64 = 0x18 << 26 | 1 << 25 | 3 << 20 | 5 << 17 | 12 << 10 | 3 << 5 | 11 << 1;
    run.vcpu.registers.x[3] = 1 << 24 | 1 << 1;
    assert_eq!(run.exit(SGI1R, 0, 0), crate::vm::Next::Look);
}

/// Two vCPUs whose SGIs are enabled.
fn with_sgis() -> Run {
    let mut run = Run::with_vcpus(Version::V3, 2);
    run.store(GICD_CTLR, 0x12);
    for frame in [0, 0x2_0000] {
        run.store(GICR_IGROUPR0 + frame, u64::from(u32::MAX));
        run.store(GICR_ISENABLER0 + frame, 0xffff);
    }
    plan_for(&mut run, 1);
    run.m.host.kicks.clear();
    run
}

fn plan_for(run: &mut Run, vcpu: usize) {
    let (vm, m) = (&run.vm, &mut run.m);
    vm.on_devices(vcpu, m, |devices, m| devices.plan(vcpu, m));
}

#[test]
fn another_vcpu_is_kicked_once_and_again_after_it_has_planned() {
    let mut run = with_sgis();
    send_to_second(&mut run);
    send_to_second(&mut run);
    assert_eq!(run.m.host.kicks, [0b10]);
    plan_for(&mut run, 1);
    send_to_second(&mut run);
    assert_eq!(run.m.host.kicks, [0b10, 0b10]);
}

/// It looks, finds nothing it could take, and waits: what comes afterwards must wake it.
#[test]
fn a_vcpu_that_has_looked_is_told_of_what_comes_afterwards() {
    let mut run = with_sgis();
    run.store(GICR_ISENABLER0 + 0x2_0000, 1 << 27);
    run.store(GICR + 0x2_0000 + 0x1_0200, 1 << 20);
    // Acknowledging state changes without anything deliverable: made active by register.
    run.store(GICR_ISACTIVER0 + 0x2_0000, 1 << 20);
    assert_eq!(run.m.host.kicks, [0b10]);
    assert!(!run.vm.devices().is_pending(1));
    send_to_second(&mut run);
    assert_eq!(run.m.host.kicks, [0b10, 0b10]);
    assert!(run.vm.devices().is_pending(1));
}

#[test]
fn a_vcpu_is_not_kicked_for_what_it_does_itself() {
    let mut run = with_sgis();
    run.store(GICR_ISACTIVER0, 1 << 20);
    assert!(run.m.host.kicks.is_empty());
    assert!(plan(&mut run).is_some());
}

/// vCPU 0's list registers hold SPI 1, pending as far as EL2 knows; vCPU 1 is the one at hand.
fn with_spi_elsewhere() -> Run {
    let mut run = with_sgis();
    run.store(GICD + 0x84, 1 << 1);
    run.store(GICD + 0x104, 1 << 1);
    run.store(GICD + 0x204, 1 << 1);
    assert_eq!(plan(&mut run).map(|list| list.len()), Some(1));
    run.vcpu.index = 1;
    plan_for(&mut run, 1);
    run.m.host.kicks.clear();
    run
}

/// Does `act` for vCPU 1 while vCPU 0, whose guest has acknowledged the interrupt, runs on another pCPU: it attends when it
/// is kicked. Answers whom `act` kicked.
fn beside_a_handler<T>(run: &mut Run, act: impl FnOnce(&mut Run) -> T) -> (T, Vec<u64>) {
    let vm = run.vm.clone();
    let mut list = run.m.host.list.clone();
    list[0].state = State::new(false, true);
    let is_done = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut other = Recorder::new(1, *vm.stage2().coherence());
            other.host.list = list;
            while !is_done.load(Ordering::SeqCst) {
                vm.attend(0, &mut other);
                std::thread::yield_now();
            }
        });
        let result = act(run);
        is_done.store(true, Ordering::SeqCst);
        result
    });
    (result, core::mem::take(&mut run.m.host.kicks))
}

#[test]
fn the_state_of_an_interrupt_is_asked_of_the_vcpu_that_has_it() {
    let mut run = with_spi_elsewhere();
    let (active, kicks) = beside_a_handler(&mut run, |run| run.load(GICD + 0x304));
    assert_eq!(active, 1 << 1, "acknowledged meanwhile");
    assert_eq!(kicks, [0b01]);
    run.load(GICD + 0x104);
    run.load(GICD + 0x308);
    assert!(
        run.m.host.kicks.is_empty(),
        "these say nothing of what vCPU 0 did"
    );
}

#[test]
fn a_write_waits_for_the_vcpu_that_has_the_interrupt() {
    let mut run = with_spi_elsewhere();
    let ((), kicks) = beside_a_handler(&mut run, |run| run.store(GICD + 0x184, 1 << 1));
    assert_eq!(kicks, [0b01], "it must not be given it any more");
    run.store(GICD + 0x184, 1 << 2);
    assert!(run.m.host.kicks.is_empty());
}

/// Before it, for the state is vCPU 0's; after it, for vCPU 0 still has it.
#[test]
fn clearing_active_state_asks_before_and_waits_after() {
    let mut run = with_spi_elsewhere();
    let ((), kicks) = beside_a_handler(&mut run, |run| run.store(GICD + 0x384, 1 << 1));
    assert_eq!(kicks, [0b01, 0b01]);
    assert_eq!(run.vm.devices().vcpus_to_plan(), 0b01);
    plan_for(&mut run, 0);
    assert_eq!(run.load(GICD + 0x304), 0);
}

/// ICC_DIR_EL1: S3_0_C12_C11_1.
#[test]
fn another_vcpus_interrupt_can_be_deactivated_by_name() {
    const DIR: u64 = 0x18 << 26 | 1 << 25 | 3 << 20 | 1 << 17 | 12 << 10 | 3 << 5 | 11 << 1;
    let mut run = with_spi_elsewhere();
    run.vcpu.registers.x[3] = 33;
    let (next, kicks) = beside_a_handler(&mut run, |run| run.exit(DIR, 0, 0));
    assert_eq!(next, crate::vm::Next::Look);
    assert_eq!(kicks, [0b01, 0b01], "asked what it has, told to look again");
    plan_for(&mut run, 0);
    assert_eq!(run.load(GICD + 0x304), 0);
}

/// GICC_DIR is no part of the hardware's window.
#[test]
fn a_gicv2_guest_deactivates_by_name_through_el2() {
    let mut run = Run::with(Version::V2);
    run.store(GICD, 1);
    run.store(GICD + 0x104, 1 << 1);
    run.store(GICD + 0x204, 1 << 1);
    plan(&mut run);
    run.m.host.list[0].state = State::new(false, true);
    assert_eq!(run.load(GICD + 0x304), 1 << 1);
    run.store(0x0801_1000, 33);
    assert_eq!(run.load(GICD + 0x304), 0);
    assert_eq!(plan(&mut run).map(|list| list.len()), Some(0));
    assert_eq!(run.load(0x0801_1000), 0, "it is write-only");
}

#[test]
fn a_vcpu_that_leaves_its_pcpu_takes_all_with_it() {
    let mut run = with_timer();
    plan(&mut run);
    run.m.host.list[0].state = State::new(false, true);
    run.vm
        .devices()
        .leave(0, 1 << VIRTUAL_TIMER.raw(), &mut run.m);
    assert_eq!(run.m.host.deactivated, [PHYSICAL.raw()]);
    let list = plan(&mut run).expect("it starts from nothing");
    assert_eq!(
        (list.len(), list[0].state, list[0].pintid),
        (1, State::new(false, true), None)
    );
}

/// Else it would find an interrupt where it goes on that nobody asserts any more.
#[test]
fn a_vcpu_that_leaves_looks_at_a_line_that_was_asserted_before() {
    let mut run = with_timer();
    run.vm
        .devices()
        .leave(0, 1 << VIRTUAL_TIMER.raw(), &mut run.m);
    assert!(run.vm.devices().is_pending(0));
    run.vm.devices().leave(0, 0, &mut run.m);
    assert!(!run.vm.devices().is_pending(0));
}

/// Where it goes on, its guest sets the timer before the physical interrupt has come there.
#[test]
fn what_a_guest_reads_of_a_line_is_what_it_is_now() {
    let mut run = with_timer();
    run.vm
        .devices()
        .leave(0, 1 << VIRTUAL_TIMER.raw(), &mut run.m);
    assert_eq!(run.load(GICR_ISPENDR0), 1 << VIRTUAL_TIMER.raw());
    run.m.host.lines = 0;
    assert_eq!(run.load(GICR_ISPENDR0), 0);
}
