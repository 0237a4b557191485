//! What must hold in every run, one file each.
//!
//! An invariant sees every [`Fact`] in order and says what is wrong as soon as it knows. It
//! keeps its own notes and trusts nothing that a node says about itself beyond the fact.

mod leader_completeness;
mod leader_per_term;
mod log_matching;
mod notes;
mod nothing_lost;
mod sessions_once;
mod state_machine_safety;
#[cfg(test)]
mod testing;

pub use leader_completeness::LeaderCompleteness;
pub use leader_per_term::LeaderPerTerm;
pub use log_matching::LogMatching;
pub use nothing_lost::NothingLost;
pub use sessions_once::SessionsOnce;
pub use state_machine_safety::StateMachineSafety;

use std::rc::Rc;

use super::model::{Guest, Replay};
use super::observe::{Fact, Micros};

/// Something that must hold.
pub trait Invariant {
    /// As in the list of invariants in the documents.
    fn name(&self) -> &'static str;

    /// Takes a fact in.
    ///
    /// # Errors
    /// What is violated, in one line for people.
    fn observe(&mut self, now: Micros, fact: &Fact<'_>) -> Result<(), String>;
}

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of the invariant; `panic` when a node or the simulator broke down.
    pub invariant: &'static str,
    /// What is wrong.
    pub what: String,
    /// When it showed.
    pub at: Micros,
}

/// All of them, for a run with this guest.
pub fn all(guest: &'static dyn Guest) -> Vec<Box<dyn Invariant>> {
    let replay = Replay::shared(guest);
    vec![
        Box::new(LeaderPerTerm::default()),
        Box::new(LogMatching::default()),
        Box::new(LeaderCompleteness::default()),
        Box::new(StateMachineSafety::default()),
        Box::new(NothingLost::new(Rc::clone(&replay))),
        Box::new(SessionsOnce::default()),
    ]
}
