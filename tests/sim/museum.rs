//! The seeds that catch the exhibits of the museum of bugs.
//!
//! Whoever changes what a seed means (the plan, the scheduler) looks for new ones with
//! `sim --exhibit NAME --stop-early`.

use std::sync::Arc;

use raft_host::fsm::SharedLoader;
use raft_host::museum::Exhibit;

use super::invariants::Violation;
use super::plan::{Fixed, Plan};
use super::runner;

/// An exhibit, and a run that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Catch {
    /// The bug.
    pub exhibit: Exhibit,
    /// The seed.
    pub seed: u64,
    /// What is not left to the seed.
    pub guest: Option<&'static str>,
    /// What it violates first.
    pub invariant: &'static str,
}

const fn caught(exhibit: Exhibit, seed: u64, invariant: &'static str) -> Catch {
    Catch { exhibit, seed, guest: None, invariant }
}

/// At least one for each exhibit, and for each invariant.
pub const CATCHES: &[Catch] = &[];

impl Catch {
    /// Runs the seed, with the bug or without.
    pub fn run(&self, loader: &SharedLoader, with_bug: bool) -> Option<Violation> {
        let fixed = Fixed { guest: self.guest, ..Fixed::default() };
        let plan = Arc::new(Plan::draw(self.seed, &fixed));
        runner::run(&plan, loader, with_bug.then_some(self.exhibit), None).violation
    }
}
