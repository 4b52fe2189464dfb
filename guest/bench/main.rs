//! What things cost, in instructions: prints `bench NAME COUNT` for each name on its command line (`bench=a,b,c`), or for
//! all it can measure with the vCPUs it has. docs/bench.md defines each name; `make bench` runs it and makes the table.
//!
//! It means something under `-icount shift=0,sleep=off` only, where a nanosecond of guest time is an instruction.
#![no_std]
#![no_main]

mod clock;
mod interrupts;
mod memory;
mod sufficient;
mod traps;
mod vcpus;
mod vectors;

use runtime::gic::Gic;
use runtime::{fdt, mmu, print, println, verdict};

runtime::guest!("bench", bench);

/// Rounds of each measurement.
const ROUNDS: u64 = 1024;

/// What one round costs; `None` where this machine cannot show it.
type Measure = fn(Gic) -> Option<u64>;

/// Each name with its measurement. Those that need fresh pages come first: nothing has touched them then.
const NAMES: [(&str, Measure); 25] = [
    ("translation_4k", memory::translation_4k),
    ("translation_2m", memory::translation_2m),
    ("permission_write", memory::permission_write),
    ("permission_exec", memory::permission_exec),
    ("sufficient", sufficient::sufficient),
    ("hypercall", traps::hypercall),
    ("psci_call", traps::psci_call),
    ("id_register", traps::id_register),
    ("mmio_read", traps::mmio_read),
    ("mmio_write", traps::mmio_write),
    ("uart_flag", traps::uart_flag),
    ("uart_write", traps::uart_write),
    ("distributor_read", traps::distributor_read),
    ("distributor_write", traps::distributor_write),
    ("inject", traps::inject),
    ("timer_late", interrupts::timer_late),
    ("wfi_wake", interrupts::wfi_wake),
    ("irq_ack_eoi", interrupts::irq_ack_eoi),
    ("sgi_self", interrupts::sgi_self),
    ("timer_set", interrupts::timer_set),
    ("sgi", vcpus::sgi),
    ("sgi_same_cpu", vcpus::sgi_same_cpu),
    ("vcpu_switch", vcpus::vcpu_switch),
    ("vcpu_switch_fp", vcpus::vcpu_switch_fp),
    ("lock_turn", vcpus::lock_turn),
];

fn bench() {
    let Some(gic) = Gic::from_tree() else {
        verdict::fail(format_args!("no interrupt controller in the device tree"));
    };
    if fdt::has_word("tree") {
        return show_tree();
    }
    mmu::Tables::identity().enable();
    vectors::install();
    gic.enable();
    for (name, measure) in NAMES {
        if is_asked_for(name)
            && let Some(instructions) = measure(gic)
        {
            println!("bench {name} {instructions}");
        }
    }
    vectors::leave();
}

/// Prints the device tree, as `printf %b` reads it: the bare machine that Linux is compared on gets the same one.
fn show_tree() {
    let bytes = fdt::whole();
    for row in bytes.chunks(32) {
        print!("tree ");
        for byte in row {
            print!("\\0{byte:03o}");
        }
        println!();
    }
}

fn is_asked_for(name: &str) -> bool {
    let list = fdt::bootargs()
        .split(' ')
        .find_map(|word| word.strip_prefix("bench="));
    list.is_none_or(|list| list.split(',').any(|asked| asked == name))
}
