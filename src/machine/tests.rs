//! Machines for tests.

pub(crate) mod recorder;
