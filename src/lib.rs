//! Faultline: a type-1 hypervisor for arm64 that gives every guest memory one fault at a time.
#![cfg_attr(target_os = "none", no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addr;
pub mod board;
pub mod config;
pub mod device;
pub mod guest_tree;
pub mod image;
pub mod options;
pub mod platform;
pub mod psci;
pub mod smccc;
