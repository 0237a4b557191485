//! Raising the cluster's level, as operators see it.

use tokio::sync::oneshot;

use super::core::NodeHandle;
use crate::consensus::Role;
use crate::machine::Reply;
use crate::node::answer::{ProposeFailure, stopped_unknown, unexpected};
use crate::node::message::Event;
use crate::node::waiter::{ReplySink, Waiter};
use crate::types::{Index, Level};

/// The level is raised, or is what was wanted, or more, already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelSet {
    /// Index of the change, the same on every node; it counts from the next entry on.
    pub index: Index,
    /// The level, now.
    pub level: Level,
    /// The level, before.
    pub previous: Level,
}

impl NodeHandle {
    /// The level that this node's program offers.
    pub fn offered_level(&self) -> Level {
        self.shared.loader.level()
    }

    /// Raises the level: to this one, or as far as all members offer. Leader only.
    ///
    /// # Errors
    /// See [`ProposeFailure`]; `Level` if a member does not offer it.
    pub async fn raise_level(&self, wanted: Option<Level>) -> Result<LevelSet, ProposeFailure> {
        self.may_propose(self.shared.leadership.borrow().role == Role::Leader)?;
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter::new(ReplySink::One(sender), self.charge_request()?);
        // When the loop is gone the waiter is dropped, which answers it.
        let _ = self.shared.events.send(Event::RaiseLevel(wanted, self.actor(), waiter));
        let answer = receiver.await.unwrap_or_else(|_| Err(stopped_unknown()));
        let committed = answer?.unless_denied()?;
        match committed.reply {
            Reply::LevelSet { level, previous } => {
                Ok(LevelSet { index: committed.position.index, level, previous })
            }
            other => Err(ProposeFailure::Unknown(unexpected(&other))),
        }
    }
}
