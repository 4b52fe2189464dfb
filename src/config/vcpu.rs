//! `xen,vcpu` nodes: where vCPUs may run.
//!
//! Source: Xen's `docs/misc/arm/device-tree/booting.txt`, "xen,vcpu".

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{ConfigError, Parser, Problem};
use crate::board::tree::Node;
use crate::machine::MAX_CPUS;

/// Properties such a node may have.
const KNOWN: &[&str] = &["compatible", "id", "hard-affinity", "status", "phandle"];

/// Whether an enabled node is one.
pub(super) fn is_vcpu(node: &Node<'_>) -> bool {
    node.is_enabled() && node.is_compatible(&["xen,vcpu"])
}

/// The pCPUs that each of `count` vCPUs may run on, bit n for pCPU n: all, if no node says otherwise. Names in `ignored` what is
/// not understood.
///
/// # Errors
/// `NoSuchVcpu`, `Missing`, `Unreadable`, `CpuList`.
pub(super) fn affinities(
    parser: &Parser<'_, '_>,
    domain: &Node<'_>,
    count: u32,
    ignored: &mut Vec<String>,
) -> Result<Vec<u64>, ConfigError> {
    let mut all = alloc::vec![u64::MAX; count as usize];
    for node in domain.children().filter(is_vcpu) {
        ignored.extend(
            node.property_names()
                .filter(|name| !KNOWN.contains(&name.as_str())),
        );
        let id = node
            .property("id")
            .ok_or_else(|| parser.error(node.name(), Problem::Missing("id")))?;
        let id = id
            .u32()
            .ok_or_else(|| parser.error(node.name(), Problem::Unreadable("id")))?;
        let Some(allowed) = all.get_mut(id as usize) else {
            return Err(parser.error(node.name(), Problem::NoSuchVcpu { id, count }));
        };
        if let Some(list) = node.property("hard-affinity") {
            let list = list
                .string()
                .ok_or_else(|| parser.error(node.name(), Problem::Unreadable("hard-affinity")))?;
            *allowed = cpus(list)
                .ok_or_else(|| parser.error(node.name(), Problem::CpuList(String::from(list))))?;
        }
    }
    Ok(all)
}

/// `0-3,5`: numbers of CPUs and ranges of them, ends included.
fn cpus(list: &str) -> Option<u64> {
    let number = |text: &str| -> Option<usize> {
        // Not what `parse` takes besides: a sign.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|n| is_plain && *n < MAX_CPUS)
    };
    list.split(',').try_fold(0, |mask, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        (first <= last).then(|| (first..=last).fold(mask, |mask, n| mask | 1 << n))
    })
}

/// CPUs, as `hard-affinity` has them.
struct Cpus(u64);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut comma = "";
        while rest != 0 {
            let first = rest.trailing_zeros();
            let length = (rest >> first).trailing_ones();
            rest &= !(u64::MAX >> (u64::BITS - length) << first);
            write!(f, "{comma}{first}")?;
            if length > 1 {
                write!(f, "-{}", first + length - 1)?;
            }
            comma = ",";
        }
        Ok(())
    }
}

/// A vCPU that may not run everywhere, on a machine of so many CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    vcpu: usize,
    allowed: u64,
    there: u64,
}

impl Placement {
    /// Those of `affinities` that leave out a CPU or name one that is not there, on a machine of `cpus` CPUs.
    pub(super) fn all(affinities: &[u64], cpus: usize) -> impl Iterator<Item = Self> {
        let there = u64::MAX >> (u64::BITS as usize - cpus.clamp(1, u64::BITS as usize));
        let numbered = affinities.iter().enumerate();
        let each = numbered.map(move |(vcpu, allowed)| Self {
            vcpu,
            allowed: *allowed,
            there,
        });
        each.filter(|place| place.allowed != u64::MAX)
    }

    /// Whether there is a CPU it may run on.
    #[must_use]
    pub const fn is_possible(&self) -> bool {
        self.allowed & self.there != 0
    }

    /// Whether it names a CPU that is not there.
    #[must_use]
    pub const fn misses_some(&self) -> bool {
        self.allowed & !self.there != 0
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vcpu,
            allowed,
            there,
        } = *self;
        write!(f, "vCPU {vcpu} on CPU {}", Cpus(allowed))?;
        if self.misses_some() {
            let missing = Cpus(allowed & !there);
            write!(
                f,
                "; {missing} is not there: this machine has {}",
                Cpus(there)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_machine_names_what_it_lacks() {
        let affinities = [u64::MAX, 0b10, 0b1001_0111, 1 << 7];
        let said: Vec<_> = Placement::all(&affinities, 4)
            .map(|place| (place.is_possible(), alloc::format!("{place}")))
            .collect();
        assert_eq!(
            said,
            [
                (true, "vCPU 1 on CPU 1".into()),
                (
                    true,
                    "vCPU 2 on CPU 0-2,4,7; 4,7 is not there: this machine has 0-3".into()
                ),
                (
                    false,
                    "vCPU 3 on CPU 7; 7 is not there: this machine has 0-3".into()
                ),
            ]
        );
    }

    #[test]
    fn a_list_of_cpus_is_numbers_and_ranges() {
        assert_eq!(cpus("0"), Some(0b1));
        assert_eq!(cpus("3"), Some(0b1000));
        assert_eq!(cpus("0-2,5"), Some(0b10_0111));
        assert_eq!(cpus("7, 1 - 2 ,1"), Some(0b1000_0110));
        assert_eq!(cpus("0-31"), Some(0xffff_ffff));
    }

    #[test]
    fn anything_else_is_none() {
        for list in [
            "",
            ",",
            "1,",
            "-",
            "1-",
            "-1",
            "+1",
            "2-1",
            "32",
            "0-32",
            "a",
            "0x1",
            "1 2",
            "1-2-3",
            "99999999999999999999999",
        ] {
            assert_eq!(cpus(list), None, "{list:?}");
        }
    }
}
