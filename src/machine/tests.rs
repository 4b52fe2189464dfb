//! Machines for tests.

mod model;
pub(crate) mod recorder;
