//! Putting the log's clock forward on purpose, through the log.

use super::core::NodeHandle;
use crate::machine::{Reply, TIME_MAX_MS};
use crate::node::answer::{ProposeFailure, unexpected};
use crate::node::request::Request;
use crate::types::Index;

/// The log's clock is set. Times in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSet {
    /// Index of the change: the same on every node.
    pub index: Index,
    /// The log's clock, now.
    pub time_ms: u64,
    /// The log's clock, just before.
    pub previous_ms: u64,
}

/// Why the log's clock was not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockFailure {
    /// There is no such time.
    #[error("the log's clock was not set: {0} ms since the Unix epoch is after the year 9999")]
    Invalid(u64),
    /// The machine refused it.
    #[error("the log's clock was not set: {0}")]
    Refused(String),
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeFailure),
}

impl NodeHandle {
    /// Puts the log's clock forward on all nodes at the same index. Leader only.
    ///
    /// # Errors
    /// See [`ClockFailure`]; it is never put back.
    pub async fn set_clock(&self, time_ms: u64) -> Result<ClockSet, ClockFailure> {
        // So that nonsense does not get into the log. The machine looks again.
        if time_ms > TIME_MAX_MS {
            return Err(ClockFailure::Invalid(time_ms));
        }
        let committed = self.propose(Request::SetClock { time_ms }).await?;
        match committed.reply {
            Reply::ClockSet { time_ms, previous_ms } => {
                Ok(ClockSet { index: committed.position.index, time_ms, previous_ms })
            }
            Reply::ClockRefused(reason) => Err(ClockFailure::Refused(reason)),
            other => Err(ClockFailure::Refused(unexpected(&other))),
        }
    }
}
