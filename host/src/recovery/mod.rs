//! When too many nodes of a cluster are gone for good: what those that are left hold, and which of them
//! a new cluster is made of.
//!
//! ```text
//!   stopped data directory ─► inspect ─► Survivor, a small file ─┐
//!   stopped data directory ─► inspect ─► Survivor, a small file ─┼─► Plan, a small file ─► (server) apply
//!                                                                ┘
//! ```
//!
//! Decides and changes nothing by itself. The reasoning is Raft's election restriction (extended paper
//! §5.4.1): whatever a majority agreed on is held by the most advanced of any set of voters that has one
//! member in each majority. Where those that are gone were a majority by themselves, that does not hold,
//! and a plan says so.

mod document;
mod inspect;
mod plan;
mod survivor;
#[cfg(test)]
mod tests;

pub use self::document::{Document, DocumentError};
pub use self::inspect::{Found, InspectError, Watch, Whose, inspect, inspect_stores};
pub use self::plan::{Plan, PlanError};
pub use self::survivor::{Place, Survivor};
