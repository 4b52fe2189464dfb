//! The fault path on a machine that panics where a rule is broken, against models that share nothing with it.

mod contents;
mod decisions;
mod dry;
mod inject;
mod loops;
mod model;
mod races;
mod walks;
mod world;
