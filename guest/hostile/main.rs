//! All CPUs but one do what nobody should: random accesses to the interrupt controller, to other devices and to nothing,
//! random calls, random system registers. The one goes on with its work, and the machine lives.
//!
//! `seed=` and `rounds=` on the command line.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use runtime::gic::Gic;
use runtime::hypercall::{Conduit, call};
use runtime::platform::{NOWHERE, PL031};
use runtime::random::Random;
use runtime::smp::{self, code};
use runtime::sync::pause;
use runtime::trap::catch;
use runtime::{cache, check, check_eq, fdt, mmio, mmu, pages, println, timer};

runtime::guest!("hostile", hostile);

/// Acts of each CPU.
const ROUNDS: u64 = 1_000;
/// Words the working CPU sums.
const WORDS: u64 = 2048;
const RET: u32 = 0xd65f_03c0;
/// SYSTEM_OFF, SYSTEM_RESET, SYSTEM_RESET2, CPU_SUSPEND and EXIT, by their last byte: these end or stop what we watch.
const NOT_CALLED: [u64; 5] = [0x08, 0x09, 0x12, 0x01, 0x0e];

static DONE: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
static SEED: AtomicU64 = AtomicU64::new(0);
static CODE: AtomicU64 = AtomicU64::new(0);

fn hostile() {
    mmu::Tables::identity().enable();
    SEED.store(fdt::number("seed").unwrap_or(1), Ordering::Relaxed);
    CODE.store(pages::fresh_run(smp::MAX as u64), Ordering::Relaxed);
    if smp::count() == 1 {
        act_up();
        return;
    }
    for cpu in 1..smp::count() {
        smp::start(cpu, act_up);
    }
    let base = pages::fresh_run(WORDS * 8 / pages::PAGE);
    let (begin, mut sums, mut revived) = (timer::now(), 0, 0);
    // At least one sum, however fast the others are.
    loop {
        for n in 0..WORDS {
            mmio::write64(base + 8 * n, n ^ sums);
        }
        let sum = (0..WORDS)
            .map(|n| mmio::read64(base + 8 * n) ^ sums)
            .sum::<u64>();
        check_eq!(sum, WORDS * (WORDS - 1) / 2, "a sum in memory");
        sums += 1;
        // A CPU that has turned itself off goes on when it is turned on again.
        for cpu in 1..smp::count() {
            if smp::affinity_info(smp::affinity(cpu), 0) == code::OFF
                && DONE[cpu].load(Ordering::Acquire) < rounds()
            {
                let answer = smp::cpu_on(smp::affinity(cpu), smp::entry_point(), cpu as u64);
                check!(
                    matches!(answer, code::SUCCESS | code::ALREADY_ON | code::ON_PENDING),
                    "CPU_ON of CPU {cpu}: {answer}"
                );
                revived += 1;
            }
        }
        check!(
            timer::now() - begin < 120 * timer::frequency(),
            "the others took more than 120 s"
        );
        if (1..smp::count()).all(|cpu| DONE[cpu].load(Ordering::Acquire) >= rounds()) {
            break;
        }
        pause();
    }
    println!(
        "{sums} sums beside {} CPUs that acted up, {revived} revived",
        smp::count() - 1
    );
}

fn rounds() -> u64 {
    fdt::number("rounds").unwrap_or(ROUNDS)
}

fn act_up() {
    let cpu = smp::index();
    let done = DONE[cpu].load(Ordering::Relaxed);
    let mut random = Random::new(SEED.load(Ordering::Relaxed) << 31 | (cpu as u64) << 23 | done);
    let Some(gic) = Gic::from_tree() else { return };
    let code = CODE.load(Ordering::Relaxed) + cpu as u64 * pages::PAGE;
    while DONE[cpu].load(Ordering::Relaxed) < rounds() {
        DONE[cpu].fetch_add(1, Ordering::Release);
        // Every exception is skipped.
        let ((), _) = catch(|| match random.below(8) {
            0..=3 => {
                let base = match gic {
                    Gic::V3 { gicr, .. } if random.below(2) == 0 => {
                        // Any CPU's, and a little beyond the last.
                        gicr - cpu as u64 * 0x2_0000 + random.below(9) * 0x1_0000
                    }
                    Gic::V2 { gicc, .. } if random.below(4) == 0 => gicc,
                    _ => gic.gicd(),
                };
                poke(&mut random, base);
            }
            4 => {
                let base = [PL031, NOWHERE, 0x0a00_0000][random.below(3) as usize];
                poke(&mut random, base);
            }
            5 => a_call(&mut random),
            _ => system_register(&mut random, code),
        });
        runtime::trap::mask_irq();
    }
}

/// Some access, some width, aligned or not.
fn poke(random: &mut Random, base: u64) {
    let span = [0x100, 0x1000, 0x1_0000][random.below(3) as usize];
    let size = 1 << random.below(4);
    let mut address = base + random.below(span);
    if random.below(8) != 0 {
        address &= !(size - 1);
    }
    let value = random.value();
    match (size, random.below(2)) {
        (1, 0) => drop_value(mmio::read8(address).into()),
        (1, _) => mmio::write8(address, value as u8),
        (2, 0) => drop_value(mmio::read16(address).into()),
        (2, _) => mmio::write16(address, value as u16),
        (4, 0) => drop_value(mmio::read32(address).into()),
        (4, _) => mmio::write32(address, value as u32),
        (_, 0) => drop_value(mmio::read64(address)),
        (_, _) => mmio::write64(address, value),
    }
}

fn drop_value(_: u64) {}

fn a_call(random: &mut Random) {
    let range = [
        0x8400_0000,
        0xc400_0000,
        0x8000_0000,
        0x8600_0000,
        0xc600_0000,
    ];
    let function = range[random.below(5) as usize] | random.below(0x40);
    if NOT_CALLED.contains(&(function & 0xff)) || function == 0xc600_0000 {
        return;
    }
    // CPU_OFF now and then, where somebody is left to turn us on again.
    if function & 0xff == 2 && (smp::count() == 1 || random.below(4) != 0) {
        return;
    }
    // CPU_ON at an address where nothing is: no CPU may start there, and if one does it stays out of our way.
    if function & 0xff == 3 {
        call(
            Conduit::Hvc,
            function as u32,
            [random.value(), NOWHERE | 3, 0],
        );
        return;
    }
    let arguments = [random.value(), random.value(), random.value()];
    call(Conduit::Hvc, function as u32, arguments);
}

/// A read of any register, or a write of one that does not decide whether this program can go on: ID, PMU, interrupt
/// controller, debug.
fn system_register(random: &mut Random, code: u64) {
    let (write, encoding) = if random.below(2) == 0 {
        (0, random.below(1 << 15))
    } else {
        let of = |op0: u64, op1: u64, crn: u64, crm: u64, op2: u64| {
            (op0 & 1) << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
        };
        let (crm, op2) = (random.below(16), random.below(8));
        let encoding = match random.below(5) {
            0 => of(3, 0, 0, crm, op2),
            1 => of(3, 3, 9, crm, op2),
            // Not VBAR_EL1, RMR_EL1 and their neighbours, nor the mask that would hold back our own stop.
            2 => of(3, 0, 12, 8 + crm % 8, op2),
            // Not CVAL: QEMU before 8 does not survive a moment so far away that the offset wraps it.
            3 => of(3, 3, 14, 2 + crm % 2, op2 % 2),
            _ => of(2, 0, 0, crm, 4 + op2 % 4),
        };
        (1, encoding)
    };
    // MRS X0 or MSR from X0; RET.
    let instruction = if write == 1 { 0xd510_0000 } else { 0xd530_0000 };
    mmio::write32(code, instruction | (encoding as u32) << 5);
    mmio::write32(code + 4, RET);
    cache::publish_code(code, 8);
    pages::call(code);
}
