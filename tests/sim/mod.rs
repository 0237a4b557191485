//! A cluster of real nodes on one thread in virtual time; one seed decides everything.

pub mod invariants;
pub mod model;
pub mod observe;
