//! Faultline: a type-1 hypervisor for arm64 that boots into EL2 and gives every guest memory **one fault at a time**.
//!
//! At its heart is the line between two kinds of stage-2 fault. A *translation fault*: nothing is mapped; take a page, make
//! it clean, map it. A *permission fault*: something is mapped with too few rights; relax them in place, invalidate the
//! TLB, and make the I-cache coherent before execute is granted. A hypervisor that confuses the two loops for ever on one
//! instruction. Here the confusion does not compile ([`stage2::walk`]), is caught on the desk, and is named at run time
//! ([`fault::progress`]).
//!
//! # The map
//!
//! This library is the logic: no unsafe code, no assembly, no system register, no statics. It runs on the developer's desk
//! under `cargo test`. The binary (`src/main.rs`, `src/el2`) is the machine, and knows the library; the library cannot name
//! the machine, only the seam [`machine::Machine`], whose methods are single instructions.
//!
//! ```text
//!   reset ─► el2/entry.S ─► el2::start ─► el2::boot ─► el2::run ─┐
//!                                                                │ enter the guest … exit
//!   ┌────────────────────────────────────────────────────────────┘
//!   └► Syndrome ─► Exit::decode ─► Vm::handle_exit ─► fault::resolve ─► the live leaf ─┬ absent  ─► translation ─► map
//!      read once   pure, total     one match           order of decisions              └ present ─► permission  ─► relax
//! ```
//!
//! Read in this order: [`exit`] (why the guest left), [`vm`] (the one match), [`fault`] (what is decided), [`stage2`] (what is
//! done), [`page_pool`] (with what). Around them:
//!
//! | part | modules |
//! |---|---|
//! | values | [`addr`], [`intid`], [`registers`], [`features`], [`board`] (the host's device tree), [`platform`] (the guest's), [`options`], [`sync`] (atomics, spinning) |
//! | memory | [`page_pool`], [`slot`], [`content`], [`stage2`] |
//! | exits | [`exit`], [`fault`], [`traps`] (what traps, and why), [`sysreg`] |
//! | the guest's machine | [`vm`], [`config`], [`image`], [`guest_tree`], [`smccc`], [`psci`], [`vgic`], [`device`], [`sched`] (who runs where), [`stats`] |
//!
//! # Which way dependencies point
//!
//! From the one who knows to the one who is known: `el2 → vm → fault → stage2 → page pool → addr`. [`stage2`] knows nothing
//! of VMs or faults, [`exit`] nothing of VMs, a device nothing of exits. A test (`house.rs`) holds us to it.
//!
//! # Words
//!
//! The Arm ARM's, in its spelling. *PA*, *IPA*: one type each ([`addr`]). A *leaf* is a block or page descriptor, a *table*
//! points to the next level. *map*: absent to leaf; *relax*: add rights; *slot*: a window of a VM's IPA space; *device*: what
//! a guest sees; *driver*: how EL2 talks to metal; *clean*, *invalidate*: caches and TLBs, with their point or scope;
//! *inject*: make the guest take an exception; *stop*: end a VM with an explanation.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addr;
pub mod board;
pub mod config;
pub mod content;
pub mod device;
pub mod exit;
pub mod fault;
pub mod features;
pub mod guest_tree;
pub mod image;
pub mod intid;
pub mod machine;
pub mod options;
pub mod page_pool;
pub mod platform;
pub mod psci;
pub mod registers;
pub mod sched;
pub mod slot;
pub mod smccc;
pub mod stage2;
pub mod stats;
pub mod sync;
pub mod sysreg;
pub mod traps;
pub mod vgic;
pub mod vm;

#[cfg(test)]
mod house;
