//! What must hold in every run, one file each.
//!
//! An invariant sees every [`Fact`] in order and says what is wrong as soon as it knows. It
//! keeps its own notes and trusts nothing that a node says about itself beyond the fact.

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

/// All of them.
pub fn all() -> Vec<Box<dyn Invariant>> {
    Vec::new()
}
