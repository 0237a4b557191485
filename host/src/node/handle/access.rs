//! Changing who may do what, through the log.

use super::core::NodeHandle;
use crate::machine::{AccessChange, AccessRefused, Reply};
use crate::node::answer::{ProposeFailure, unexpected};
use crate::node::request::Request;
use crate::types::{Index, PrincipalId, TokenId};

/// Who may do what is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessSet {
    /// Index of the change, the same on every node; it counts from the next entry on.
    pub index: Index,
    /// The principal that was made.
    pub principal: Option<PrincipalId>,
    /// The token that was made, and when it ends by the log's clock (0: never).
    pub token: Option<(TokenId, u64)>,
}

/// Why nothing was changed of who may do what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessFailure {
    /// The machine refused it.
    #[error("nothing was changed: {0}")]
    Refused(#[from] AccessRefused),
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeFailure),
}

impl NodeHandle {
    /// Changes who may do what on all nodes at the same index, all or none. Leader only.
    ///
    /// # Errors
    /// See [`AccessFailure`].
    pub async fn set_access(&self, changes: Vec<AccessChange>) -> Result<AccessSet, AccessFailure> {
        let committed = self.propose(Request::SetAccess(changes)).await?;
        match committed.reply {
            Reply::AccessSet { principal, token } => {
                Ok(AccessSet { index: committed.position.index, principal, token })
            }
            Reply::AccessRefused(reason) => Err(reason.into()),
            other => Err(AccessRefused::Invalid(unexpected(&other)).into()),
        }
    }
}
