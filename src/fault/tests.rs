//! The fault path on a machine that panics where a rule is broken, against models that share nothing with it.

mod contents;
mod decisions;
mod dry;
mod emulate;
mod granules;
mod inject;
mod lent;
mod log;
mod loops;
mod model;
mod races;
mod rom;
mod spins;
mod walks;
mod world;
