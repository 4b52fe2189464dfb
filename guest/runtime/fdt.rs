//! The few things a guest asks of its device tree. Reads as it goes; the tree is trusted, it comes from beneath.
//!
//! Source: Devicetree Specification, "Flattened Devicetree (DTB) Format".
use crate::entry;
use crate::global::Global;
use crate::platform::RAM_BASE;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;

static MEMORY: Global<Option<(u64, u64)>> = Global::new(None);

fn word(at: u64) -> u32 {
    // SAFETY: `at` lies in the tree, 4-byte aligned, which nothing writes.
    u32::from_be(unsafe { (at as *const u32).read() })
}

/// Bytes of the tree.
fn bytes(at: u64, length: u64) -> &'static [u8] {
    // SAFETY: as above, for as long as the guest runs.
    unsafe { core::slice::from_raw_parts(at as *const u8, length as usize) }
}

fn text(at: u64) -> &'static [u8] {
    let length = (0..).find(|&i| bytes(at + i, 1)[0] == 0).unwrap_or(0);
    bytes(at, length)
}

/// Whether a tree was handed over.
pub fn is_present() -> bool {
    entry::dtb() != 0 && entry::dtb().is_multiple_of(4) && word(entry::dtb()) == MAGIC
}

/// All of it, as it was handed over; empty when there is none.
pub fn whole() -> &'static [u8] {
    if is_present() {
        bytes(entry::dtb(), u64::from(word(entry::dtb() + 4)))
    } else {
        &[]
    }
}

/// Calls `visit(node name, property name, value)` for each property, until it answers something.
pub fn find<T>(mut visit: impl FnMut(&[u8], &[u8], &'static [u8]) -> Option<T>) -> Option<T> {
    if !is_present() {
        return None;
    }
    let dtb = entry::dtb();
    let (structure, strings) = (
        dtb + u64::from(word(dtb + 8)),
        dtb + u64::from(word(dtb + 12)),
    );
    let mut path: [&[u8]; 8] = [b""; 8];
    let (mut at, mut depth) = (structure, 0);
    loop {
        let token = word(at);
        at += 4;
        match token {
            BEGIN_NODE => {
                let name = text(at);
                path[depth.min(7)] = name;
                depth += 1;
                at += (name.len() as u64 + 1).next_multiple_of(4);
            }
            END_NODE => depth -= 1,
            PROP => {
                let length = u64::from(word(at));
                let name = text(strings + u64::from(word(at + 4)));
                let value = bytes(at + 8, length);
                if let Some(answer) = visit(path[(depth.max(1) - 1).min(7)], name, value) {
                    return Some(answer);
                }
                at += 8 + length.next_multiple_of(4);
            }
            NOP => {}
            _ => return None,
        }
    }
}

/// The `index`th 64-bit number of a property with two-cell numbers.
pub fn cells64(value: &[u8], index: usize) -> Option<u64> {
    let bytes = value.get(index * 8..index * 8 + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Base and size of RAM.
pub fn memory() -> (u64, u64) {
    if let Some(known) = MEMORY.get() {
        return known;
    }
    let found = find(|node, property, value| {
        (node.starts_with(b"memory") && property == b"reg")
            .then(|| Some((cells64(value, 0)?, cells64(value, 1)?)))
            .flatten()
    });
    let memory = found.unwrap_or((RAM_BASE, 128 << 20));
    MEMORY.set(Some(memory));
    memory
}

/// Where the ramdisk begins, and its bytes.
pub fn ramdisk() -> Option<(u64, u64)> {
    let address = |name: &[u8]| {
        let value =
            find(|node, property, value| (node == b"chosen" && property == name).then_some(value))?;
        value.iter().try_fold(0u64, |number, byte| {
            Some(number.checked_mul(256)? + u64::from(*byte))
        })
    };
    let start = address(b"linux,initrd-start")?;
    Some((start, address(b"linux,initrd-end")?.checked_sub(start)?))
}

/// The kernel command line.
pub fn bootargs() -> &'static str {
    let value = find(|node, property, value| {
        (node == b"chosen" && property == b"bootargs").then_some(value)
    });
    let value = value.and_then(|value| value.strip_suffix(&[0]));
    value
        .and_then(|value| core::str::from_utf8(value).ok())
        .unwrap_or("")
}

/// Whether the command line has this word.
pub fn has_word(word: &str) -> bool {
    bootargs().split(' ').any(|w| w == word)
}

/// The value of `key=value` on the command line, a decimal number.
pub fn number(key: &str) -> Option<u64> {
    bootargs()
        .split(' ')
        .find_map(|w| w.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}
