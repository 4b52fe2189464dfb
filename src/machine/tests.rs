//! Machines for tests.

#[cfg(not(loom))]
mod model;
pub(crate) mod recorder;
