//! Changing whose signatures modules need, through the log.

use super::core::NodeHandle;
use crate::machine::{KeyChange, Keys, Reply};
use crate::node::answer::{ProposeFailure, unexpected};
use crate::node::request::Request;
use crate::types::Index;

/// Keys and threshold are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysSet {
    /// Index of the change, the same on every node; it counts from the next entry on.
    pub index: Index,
    /// All keys, now.
    pub keys: Keys,
}

/// Why they were not. None of the changes was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysFailure {
    /// The machine refused it.
    #[error("the keys were not changed: {0}")]
    Refused(String),
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeFailure),
}

impl NodeHandle {
    /// Changes whose signatures modules need, on all nodes at the same index. Leader only.
    ///
    /// # Errors
    /// See [`KeysFailure`].
    pub async fn set_keys(&self, changes: Vec<KeyChange>) -> Result<KeysSet, KeysFailure> {
        let committed = self.propose(Request::SetKeys(changes)).await?;
        match committed.reply {
            Reply::KeysSet(keys) => Ok(KeysSet { index: committed.position.index, keys }),
            Reply::KeysRefused(reason) => Err(KeysFailure::Refused(reason)),
            other => Err(KeysFailure::Refused(unexpected(&other))),
        }
    }
}
