//! The fault path on a machine that panics where a rule is broken, against models that share nothing with it.

mod contents;
mod decisions;
mod dry;
mod emulate;
mod inject;
mod loops;
mod model;
mod races;
mod walks;
mod world;
