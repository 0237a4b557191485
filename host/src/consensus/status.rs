//! How a replica sees itself and its group.

use crate::types::{ConfState, Index, NodeId, Term};

/// What a replica currently is (Raft dissertation, figure 3.3; pre-candidate: §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the field's own terms")]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// How a leader replicates to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// Looking for the point where the logs agree.
    Probe,
    /// Streaming entries.
    Replicate,
    /// Sending a snapshot.
    Snapshot,
}

/// A peer as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// The peer.
    pub node: NodeId,
    /// Highest index known to be durable there.
    pub matched: Index,
    /// How entries are sent to it.
    pub state: ProgressState,
    /// Heard from within the last election timeout.
    pub recently_active: bool,
}

/// A replica's view of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// What this replica is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// First index in the log.
    pub first_index: Index,
    /// Last index in the log, durable or not.
    pub last_index: Index,
    /// Highest index known to be committed.
    pub commit: Index,
    /// Index of the newest snapshot.
    pub snapshot: Index,
    /// Bytes of entries in memory that wait to be applied.
    pub unapplied_bytes: u64,
    /// The configuration in force.
    pub conf_state: ConfState,
    /// On the leader: the peers, by id.
    pub peers: Vec<PeerProgress>,
    /// Whether leadership is being handed over.
    pub transferring: bool,
}
