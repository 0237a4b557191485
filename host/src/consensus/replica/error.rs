//! Why a replica cannot go on.

use crate::storage::StorageError;
use crate::types::{Index, NodeId};

/// Why a replica cannot go on. The node must stop and say so.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The log store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// raft-rs refused something that must not be refused.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// A committed entry cannot be read.
    #[error("committed entry {index}: {reason}")]
    BadEntry {
        /// Its index.
        index: Index,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk is older than what it has promised.
    #[error(
        "this directory is older than what its cluster knows of it: node {leader}, which leads, has \
         this node's word for entries up to {commit}, but its log ends at {last}. Was an old copy \
         put in its place, or did the disk lose what it had synced? Its votes and promises cannot \
         be trusted: remove this node (`raft-host members remove`) and let it join again with an \
         empty data directory"
    )]
    Outdated {
        /// Who leads.
        leader: NodeId,
        /// What it knows to be durable here.
        commit: Index,
        /// Where the log ends.
        last: Index,
    },
}
