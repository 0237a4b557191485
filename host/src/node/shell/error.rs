//! Why a node does not start.

use crate::consensus::{RecoveryError, ReplicaError};
use crate::fsm::HostFailure;
use crate::machine::RestoreError;
use crate::storage::StorageError;
use crate::types::{GroupId, Index, NodeId};

/// Why a node does not start. Nothing was changed but what a crash would have changed too.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A store failed or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Log and snapshots do not fit.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The newest snapshot cannot be restored.
    #[error("restoring the snapshot at index {index}: {source}")]
    Restore {
        /// Its index.
        index: Index,
        /// The cause.
        source: RestoreError,
    },
    /// A snapshot is damaged, and the log does not reach back to the one before.
    #[error(
        "{damage}. No older state will do: {without}. Or start it with --join HOST:PORT of a member, which gives it \
         a state: what it voted and acknowledged is not lost"
    )]
    NoOlderState {
        /// What is wrong with the newest one.
        damage: Box<StartError>,
        /// Why the others and the log are not enough.
        without: RecoveryError,
    },
    /// Consensus did not start.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The state machine's host failed.
    #[error(transparent)]
    Host(#[from] HostFailure),
    /// No thread.
    #[error("starting a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// There is something already.
    #[error("the stores are not empty: a cluster can only be formed on empty ones")]
    NotEmpty,
    /// This node has no place in its cluster any more.
    #[error(
        "node {0} was removed from its cluster; to join again, give it an empty data directory \
         and --join"
    )]
    Removed(NodeId),
    /// It was opened before.
    #[error(
        "group {0} was opened by this process before; a group that was closed is opened by the next start"
    )]
    GroupOpen(GroupId),
    /// The node has stopped.
    #[error("this node has stopped, and opens no groups")]
    Stopped,
}
