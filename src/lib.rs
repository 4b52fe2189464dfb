//! Faultline: a type-1 hypervisor for arm64 that gives every guest memory one fault at a time.
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
pub mod machine;
pub mod options;
pub mod page_pool;
pub mod platform;
pub mod psci;
pub mod registers;
pub mod slot;
pub mod smccc;
pub mod stage2;
pub mod stats;
pub mod sysreg;
pub mod traps;
pub mod vgic;
pub mod vm;
