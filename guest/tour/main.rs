//! The tour: what `make run` shows. It does the things every guest does, and says what EL2 had to do for each.
//!
//! Every claim about the hypervisor is made from its counters, read before and after; nothing is known beforehand. So
//! the text differs with the CPU (`CTR_EL0.DIC`) and with the VM's policy (`rights`), as it should.
#![no_std]
#![no_main]

mod account;

use account::{Account, Paragraph};
use core::fmt::Display;
use runtime::hypercall::{Counter, Counters, counted, counters};
use runtime::platform::{NOWHERE, PL031};
use runtime::trap::{Frame, catch};
use runtime::{cache, fdt, hypercall, mmio, mmu, pages, print, println, sysreg, trap};

runtime::guest!("tour", tour);

/// `MOV X0, #42; RET`: the smallest program that proves it ran.
const PROGRAM: [u32; 2] = [0xd280_0540, 0xd65f_03c0];

fn tour() {
    pages::settle_image();
    // A rehearsal on an address of its own: from here on, only what the steps are about is new.
    catch(|| mmio::read32(NOWHERE + pages::PAGE));
    let start = counters();
    introduce(start.as_ref());

    let page = pages::fresh();
    let (value, cost) = step(1, "I read a page that nobody has touched.", || {
        mmio::read32(page)
    });
    report(&cost, format_args!(" It reads {value:#x}."));
    let ((), cost) = step(2, "I write to it.", || mmio::write32(page, 0x600d_f00d));
    report(&cost, "");
    let ((), cost) = step(3, "I read it and write it again.", || {
        mmio::write32(page, mmio::read32(page) + 1)
    });
    report(&cost, "");

    let code = pages::fresh();
    let ((), cost) = step(
        4,
        "I read a second page, then write a little program there.",
        || {
            mmio::read32(code);
            for (at, instruction) in (code..).step_by(4).zip(PROGRAM) {
                mmio::write32(at, instruction);
            }
            cache::publish_code(code, 8);
        },
    );
    report(&cost, "");
    let (answer, cost) = step(
        5,
        "I call it: a fetch from a page that is there as data.",
        || pages::call(code),
    );
    report(&cost, format_args!(" It says {answer}."));
    founding_bug(cost.as_ref());

    let (window, cost) = step(
        6,
        "I write tables for an MMU of my own into fresh pages and turn it on.",
        window,
    );
    report(&cost, "");
    let (value, cost) = step(
        7,
        "I read through a table that my MMU is the first to touch.",
        || mmio::read32(window),
    );
    report(&cost, format_args!(" It reads {value:#x}."));
    let pair = pages::fresh_run(2);
    let (value, cost) = step(8, "I read 8 bytes across two fresh pages.", || {
        mmio::read64(pair + pages::PAGE - 4)
    });
    report(&cost, format_args!(" They read {value:#x}."));

    let ((_, caught), cost) = step(9, "I read where there is nothing.", || {
        catch(|| mmio::read32(NOWHERE))
    });
    report(&cost, "");
    describe(caught.last);

    let ((time, caught), cost) = step(10, "I ask the clock.", || catch(|| mmio::read32(PL031)));
    match caught.last {
        None => report(&cost, format_args!(" It is {}.", Time(u64::from(time)))),
        Some(_) => report(&cost, " There is none."),
    }
    farewell(start.as_ref());
}

/// Announces an action, does it, and keeps what EL2 counted.
fn step<T>(number: u32, plan: &str, action: impl FnOnce() -> T) -> (T, Option<Counters>) {
    print!("\n{number:2}. {plan}");
    counted(action)
}

/// Ends the line of the plan with what came of it, and says what EL2 did.
#[inline(never)]
fn report(cost: &Option<Counters>, outcome: impl Display) {
    println!("{outcome}");
    if let Some(cost) = cost {
        println!("{}", Paragraph(format_args!("EL2: {}", Account(cost))));
    }
}

#[inline(never)]
fn introduce(start: Option<&Counters>) {
    let (base, size) = fdt::memory();
    println!(
        "I am a guest: a small program at EL1, with {} MiB of RAM at {base:#x}.",
        size >> 20
    );
    match start {
        Some(now) => println!(
            "So far EL2 has given me {} pages of it on {} faults: my code, stack and tree.",
            now.get(Counter::PagesMapped),
            now.faults()
        ),
        None => println!("There is no Faultline beneath me, so I can only tell what I do."),
    }
    let name = sysreg::cpu_name().unwrap_or("of a kind I do not know");
    match sysreg::dic() {
        true => {
            println!("My CPU is {name}: its I-cache sees new code by itself (DIC = 1).")
        }
        false => {
            println!("My CPU is {name}: its I-cache must be told of new code (DIC = 0).")
        }
    }
}

/// What step 5 was for.
#[inline(never)]
fn founding_bug(cost: Option<&Counters>) {
    let Some(cost) = cost else { return };
    let faults = cost.get(Counter::PermissionFetch);
    if faults == 0 {
        println!(
            "    The page was executable from its first touch, so there was nothing to relax."
        );
        return;
    }
    println!(
        "    One that maps here, where it must relax, faults for ever. This took {}.",
        account::Times(faults)
    );
    if cost.get(Counter::IcacheCoherent) == 0 {
        println!(
            "    DIC = {}: no I-cache maintenance came with it.",
            u8::from(sysreg::dic())
        );
    }
}

/// Turns stage 1 on, with a window whose last table is a page nobody has touched: the table walker comes first, finds
/// nothing in it, and my own handler then fills it in. Answers the window's address.
#[inline(never)]
fn window() -> u64 {
    let tables = mmu::Tables::identity();
    let window = mmu::elsewhere(0);
    let (level2, level3) = (pages::fresh(), pages::fresh());
    tables.set_root(mmu::index(window, 1), level2 | mmu::TABLE_OR_PAGE);
    mmu::set(
        level2 + 8 * mmu::index(window, 2),
        level3 | mmu::TABLE_OR_PAGE,
    );
    WINDOW_ENTRY.set((level3 + 8 * mmu::index(window, 3), pages::fresh()));
    trap::on_abort(Some(fill_in));
    tables.enable();
    window
}

/// Address of the window's level-3 descriptor, and the page to put there.
static WINDOW_ENTRY: runtime::global::Global<(u64, u64)> = runtime::global::Global::new((0, 0));

/// My own demand paging: a translation fault of my stage 1 in the window maps its page.
fn fill_in(frame: &Frame) -> bool {
    let (entry, page) = WINDOW_ENTRY.get();
    let mine = frame.far >> 12 == mmu::elsewhere(0) >> 12 && frame.fault_status() == 0x07;
    if mine {
        mmu::set(entry, page | mmu::TABLE_OR_PAGE | mmu::NORMAL);
    }
    mine
}

/// The abort of step 8, decoded.
#[inline(never)]
fn describe(abort: Option<Frame>) {
    let Some(frame) = abort else {
        println!("    Nothing answered, and nobody complained.");
        return;
    };
    let kind = match frame.fault_status() {
        0x10 => "synchronous external abort",
        0x00..=0x03 => "address size fault",
        0x04..=0x07 => "translation fault",
        _ => "other fault",
    };
    println!(
        "    I got a {kind}: ESR_EL1 {:#x}, FAR_EL1 {:#x}.",
        frame.esr, frame.far
    );
}

#[inline(never)]
fn farewell(start: Option<&Counters>) {
    println!();
    if let Some(all) = start.zip(counters()).map(|(start, now)| now.since(start)) {
        let (faults, devices) = (all.faults(), all.get(Counter::MmioEmulated));
        println!(
            "Ten steps: {faults} stage-2 faults; {devices} device accesses, most of them for this text."
        );
    }
    println!("I switch myself off by PSCI.");
    hypercall::power_off()
}

/// Seconds since 1970 as a date.
struct Time(u64);

impl Display for Time {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (days, second) = (self.0 / 86400, self.0 % 86400);
        // Civil date from days, with years that begin in March, so that the leap day comes last.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        let year = year_of_era + era * 400 + carry;
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}
