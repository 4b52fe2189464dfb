//! An adversarial model of the hardware, under the real library.
//!
//! Where the architecture leaves hardware a choice, the model takes any of them at any moment: a TLB keeps, evicts or
//! fetches by itself whatever it may until TLBI and DSB are complete; caches write back and fetch when they like; each PE
//! carries an invalidation out when it wants, in the order it wants; walks miss stores until the right DSB; stores leave a
//! CPU late; access flags and dirty state are set under the library's hands. Random guests run on it, their faults go
//! through [`crate::fault::resolve`], and the host's verbs work on their trees meanwhile.
//!
//! What must hold is in stage2.md section 10; a violation names the invariant (I1 to I30), the seed and a short history
//! that is a unit test as it is printed. `docs/stage2.md` says how to read one.
//!
//! [`hardware`] is what happens and when, [`maintenance`] and [`stores`] what is on its way, [`memory`] pages with their owners and lines, [`ram`] all of them, [`tlb`] and [`walk`] translations,
//! [`publish`] the rules for descriptors, [`resize`] those for sizes that change in place; [`cpu`] is the [`crate::machine::Machine`], [`baton`] whose turn it is; [`guest`]
//! and [`host`] what is done, [`run`] how a failure is told, [`weak`] the deliberate bugs.

mod action;
mod baton;
mod bits;
mod cpu;
mod guest;
mod hardware;
mod host;
mod maintenance;
mod memory;
mod publish;
mod ram;
mod resize;
mod rng;
mod run;
mod setup;
mod stores;
mod tlb;
mod walk;
mod weak;
mod world;

mod tests;
