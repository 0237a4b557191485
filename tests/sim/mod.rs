//! A cluster of real nodes on one thread in virtual time; one seed decides everything.

mod actions;
mod calls;
pub mod disk;
pub mod golden;
mod guest;
mod homes;
mod host;
mod incarnations;
pub mod invariants;
pub mod model;
pub mod museum;
mod network;
pub mod observe;
pub mod plan;
mod queue;
mod random;
pub mod regressions;
pub mod runner;
pub mod shadow;
pub mod shrink;
mod summary;
mod trace;
mod witness;
mod words;
mod world;

pub use summary::Counters;
pub use trace::{Kind, View};
pub use world::{Report, World};
