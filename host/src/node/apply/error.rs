//! Why the machine of a group cannot go on.

use crate::fsm::HostFailure;
use crate::machine::RestoreError;
use crate::storage::StorageError;
use crate::types::Index;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum ApplyError {
    #[error(transparent)]
    Host(#[from] HostFailure),
    #[error("installing the snapshot at {index}: {source}")]
    Restore { index: Index, source: RestoreError },
    #[error("a snapshot: {0}")]
    Storage(#[from] StorageError),
    #[error(
        "the replicas disagree at index {point} and no state has a majority of the {voters} voters \
         ({votes}); nothing says whether this node's is right: start it again, which executes its \
         log again from the disk"
    )]
    InDoubt { point: Index, votes: String, voters: usize },
}
