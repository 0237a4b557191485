//! A cluster of real nodes on one thread in virtual time; one seed decides everything.

mod calls;
pub mod disk;
mod guest;
mod host;
pub mod invariants;
pub mod model;
mod network;
pub mod observe;
pub mod plan;
mod queue;
mod random;
pub mod runner;
mod summary;
mod trace;
mod witness;
mod world;

pub use summary::Counters;
pub use world::{Report, World};
