//! What a node's autopilot has done and waits for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::AutopilotConfig;

/// What it does about members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AutopilotChange {
    /// A learner became a voter.
    Promoted,
    /// A dead voter was removed.
    RemovedVoter,
    /// A dead learner was removed.
    RemovedLearner,
}

impl AutopilotChange {
    /// All of them.
    pub const ALL: [AutopilotChange; 3] =
        [AutopilotChange::Promoted, AutopilotChange::RemovedVoter, AutopilotChange::RemovedLearner];

    /// As a label of a metric.
    pub fn label(self) -> &'static str {
        match self {
            AutopilotChange::Promoted => "promoted",
            AutopilotChange::RemovedVoter => "removed_voter",
            AutopilotChange::RemovedLearner => "removed_learner",
        }
    }
}

/// Written by who acts, read by who tells of it.
#[derive(Debug)]
pub struct AutopilotBoard {
    config: AutopilotConfig,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    done: BTreeMap<AutopilotChange, u64>,
    waits_for: Option<String>,
}

impl AutopilotBoard {
    /// Nothing was done yet.
    pub fn new(config: AutopilotConfig) -> AutopilotBoard {
        AutopilotBoard { config, written: Mutex::default() }
    }

    /// As configured.
    pub fn config(&self) -> &AutopilotConfig {
        &self.config
    }

    /// A change was made.
    pub fn count(&self, change: AutopilotChange) {
        *self.lock().done.entry(change).or_default() += 1;
    }

    /// How many there were since the start.
    pub fn counted(&self, change: AutopilotChange) -> u64 {
        self.lock().done.get(&change).copied().unwrap_or_default()
    }

    /// Says what is waited for.
    pub fn wait_for(&self, what: Option<String>) {
        self.lock().waits_for = what;
    }

    /// What is waited for, for people.
    pub fn waits_for(&self) -> Option<String> {
        self.lock().waits_for.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        // Nothing that can panic half way runs under this lock.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
