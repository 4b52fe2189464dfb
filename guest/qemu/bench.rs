//! What things cost stays below the limits of `guest/bench/known.txt`, counted in instructions.
use crate::cases::{Machine, Planner};
use crate::run::{Case, code};

/// QEMU counts instructions, and time is their number.
const ICOUNT: &str =
    "-accel tcg,thread=single -icount shift=0,sleep=off -seed 1 -rtc base=2026-01-01,clock=vm";
const KNOWN: &str = include_str!("../bench/known.txt");

/// What is measured together: names, and the variables of run.sh they want.
const GROUPS: [(&str, &[(&str, &str)]); 8] = [
    (
        "hypercall,psci_call,id_register,mmio_read,mmio_write,uart_flag,uart_write,distributor_read,distributor_write,inject,\
         timer_late,wfi_wake,irq_ack_eoi,sgi_self",
        &[],
    ),
    (
        "translation_4k,permission_write,permission_exec",
        &[("RIGHTS", "lazy"), ("GRANULE", "4k")],
    ),
    (
        "sufficient",
        &[
            ("SMP", "2"),
            ("VCPUS", "2"),
            ("RIGHTS", "lazy"),
            ("GRANULE", "4k"),
        ],
    ),
    ("sgi", &[("SMP", "2"), ("VCPUS", "2")]),
    ("sgi_same_cpu", &[("VCPUS", "2")]),
    ("vcpu_switch", &[("VCPUS", "2")]),
    ("vcpu_switch_fp", &[("VCPUS", "2")]),
    ("lock_turn", &[("VCPUS", "2")]),
];

impl Planner<'_> {
    pub(crate) fn costs(&mut self) {
        let Some(cpu) = self.lab.cpu(|cpu| cpu.model == "cortex-a72") else {
            return self.leave_out("costs (no cortex-a72)");
        };
        for (names, variables) in GROUPS {
            let first = names.split(',').next().unwrap_or("");
            let case = Case::new(
                &self.lab.root,
                format!("bench: {first} and others"),
                code::OK,
            );
            let mut case = Machine::Virt(cpu, 3)
                .apply(case)
                .with("GUEST", "bench")
                .with("QEMU_ARGS", ICOUNT)
                .with("SEED", "1")
                .with("APPEND", format!("bench={names}"))
                .says("PASS bench")
                .examined_by(stays_below_its_limits);
            for (name, value) in variables {
                case = case.with(name, *value);
            }
            self.add(
                names
                    .split(',')
                    .fold(case, |case, name| case.says(format!("bench {name} "))),
            );
        }
    }
}

/// The limit of a name; `None` where it has none.
fn limit(name: &str) -> Option<u64> {
    let row = KNOWN
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name))?;
    row.split_whitespace().nth(2)?.parse().ok()
}

fn stays_below_its_limits(console: &str) -> Result<(), String> {
    let results = console.lines().filter_map(|line| {
        let (name, count) = line.trim().strip_prefix("bench ")?.split_once(' ')?;
        Some((name, count.parse::<u64>().ok()?))
    });
    let beyond: Vec<String> = results
        .filter_map(|(name, count)| {
            let limit = limit(name)?;
            (count > limit).then(|| format!("{name} took {count} instructions, more than {limit}"))
        })
        .collect();
    if beyond.is_empty() {
        Ok(())
    } else {
        Err(beyond.join("; "))
    }
}
