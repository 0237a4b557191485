//! Why the machine of a group cannot go on.

use crate::fsm::{EngineUnsupported, HostFailure};
use crate::machine::{RestoreError, Unsupported};
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

/// Why a node stops that does not offer what an entry asks of programs, and what its operator can do.
pub(super) fn why_halted(index: Index, unsupported: &Unsupported, what_to_do: &str) -> String {
    match unsupported {
        Unsupported::Engine(EngineUnsupported { wanted, offered }) => format!(
            "since entry {index} the cluster's engine profile is {wanted}, and this program offers \
             {offered}: {what_to_do}"
        ),
        Unsupported::Level { wanted, offered } => format!(
            "since entry {index} the cluster's level is {wanted}, and this program offers \
             {offered}: {what_to_do}. A level is never lowered"
        ),
    }
}
