//! How a replica sees itself and its group.

use std::collections::BTreeSet;

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
    /// Ticks since it was heard from last in this term; `None`: not yet.
    pub silent_ticks: Option<u64>,
    /// For how many ticks this leader has had it among its members.
    pub known_ticks: u64,
    /// Heard from within the last election timeout. Unlike raft-rs's flag of that name it does
    /// not begin anew with each round of its check of the quorum.
    pub recently_active: bool,
    /// Of a learner: for how many ticks it has been caught up as far as it must be to be promoted, and
    /// has answered without a break; `None`: it is not so.
    pub stable_ticks: Option<u64>,
}

/// How many of a set of voters could make a majority now, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// All of them.
    pub voters: usize,
    /// Those that were not heard from recently.
    pub silent: BTreeSet<NodeId>,
}

impl Quorum {
    /// Whether those that were heard from suffice to commit (Raft dissertation §3.6.2).
    pub fn is_there(&self) -> bool {
        (self.voters - self.silent.len()) * 2 > self.voters
    }

    /// How many are needed.
    pub fn needed(&self) -> usize {
        self.voters / 2 + 1
    }
}

impl std::fmt::Display for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heard = self.voters - self.silent.len();
        write!(
            f,
            "{heard} of {} voters heard from recently, {} needed",
            self.voters,
            self.needed()
        )?;
        if !self.silent.is_empty() {
            let ids: Vec<String> = self.silent.iter().map(NodeId::to_string).collect();
            write!(f, "; not heard from: node {}", ids.join(", node "))?;
        }
        Ok(())
    }
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
    /// On the leader: bytes of proposals that wait to be committed.
    pub uncommitted_bytes: u64,
    /// Bytes of entries in memory that wait to be applied.
    pub unapplied_bytes: u64,
    /// The configuration in force.
    pub conf_state: ConfState,
    /// On the leader: the peers, by id.
    pub peers: Vec<PeerProgress>,
    /// On the leader: it leads for less than an election timeout, so it may not have heard from
    /// everybody who is there.
    pub is_new_leader: bool,
    /// Whether leadership is being handed over.
    pub transferring: bool,
}

impl ReplicaStatus {
    /// On the leader: a peer.
    pub fn peer(&self, node: NodeId) -> Option<&PeerProgress> {
        self.peers.iter().find(|peer| peer.node == node)
    }

    /// Whether `node` was heard from recently. Only a leader can tell.
    pub fn is_heard(&self, node: NodeId) -> bool {
        self.peer(node).is_some_and(|peer| peer.recently_active)
    }

    /// How many of `voters` could make a majority now. Only a leader can tell.
    pub fn quorum_of(&self, voters: &BTreeSet<NodeId>) -> Quorum {
        let silent = voters.iter().copied().filter(|voter| !self.is_heard(*voter)).collect();
        Quorum { voters: voters.len(), silent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_more_than_half_and_says_who_is_missing() {
        let quorum = |voters, silent: &[u64]| Quorum {
            voters,
            silent: silent.iter().copied().map(NodeId).collect(),
        };
        for (voters, silent, is_there) in [
            (1, &[][..], true),
            (1, &[1], false),
            (2, &[2], false),
            (3, &[2], true),
            (3, &[2, 3], false),
            (4, &[1, 2], false),
            (5, &[1, 2], true),
        ] {
            assert_eq!(quorum(voters, silent).is_there(), is_there, "{voters} {silent:?}");
        }
        assert_eq!(
            quorum(4, &[2, 7]).to_string(),
            "2 of 4 voters heard from recently, 3 needed; not heard from: node 2, node 7"
        );
    }
}
