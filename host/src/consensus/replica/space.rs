//! A replica whose disk has little room left, or whose voters' disks have.
//!
//! ```text
//!            leads                                    follows
//! low        hands over to a voter with more room     campaigns later than others
//! critical   likewise                                 campaigns not, votes not, takes no entries
//! ```
//!
//! A leader that finds nobody with more room leads on: heartbeats need no disk, and the group answers
//! queries that way. What callers may still propose then is decided above (`node/group/space.rs`). A
//! replica that has no other voter beside it goes on as ever.

use std::cmp::Reverse;

use raft::StateRole;

use super::{Replica, ReplicaError};
use crate::types::{MessageKind, NodeId, PeerMessage, Space};

/// Between two attempts to hand over, in election timeouts: no command is taken meanwhile.
const HAND_OVER_ELECTIONS: u64 = 3;

impl Replica {
    /// This replica's disk.
    pub(super) fn on_space(&mut self, space: Space) -> Result<(), ReplicaError> {
        let is_shorter = space > self.space;
        self.space = space;
        if is_shorter { self.compact() } else { Ok(()) }
    }

    /// What a peer says of its own disk; until the next leader or term.
    pub(super) fn on_peer_space(&mut self, node: NodeId, space: Space) {
        if self.raw.raft.prs().get(node.0).is_some() {
            self.peer_spaces.insert(node, space);
        }
    }

    /// Whether nothing is written that can wait.
    pub(super) fn is_out_of_space(&self) -> bool {
        self.space == Space::Critical && !self.is_only_voter()
    }

    /// Whether this follower leaves it to others to campaign: for ever, or for an election timeout more
    /// than it would wait anyway.
    pub(super) fn is_reluctant(&self) -> bool {
        let raft = &self.raw.raft;
        let patience = raft.randomized_election_timeout() + self.config.election_ticks;
        self.is_out_of_space()
            || (self.space == Space::Low
                && raft.state == StateRole::Follower
                && raft.election_elapsed < patience
                && !self.is_only_voter())
    }

    /// A vote is a write.
    pub(super) fn may_not_vote(&self, message: &PeerMessage) -> bool {
        matches!(message.kind, MessageKind::RequestVote | MessageKind::RequestPreVote)
            && self.is_out_of_space()
    }

    /// Once a tick: hands leadership over to who has more room.
    pub(super) fn leave_leading_for_space(&mut self) {
        let raft = &self.raw.raft;
        if self.space == Space::Ample
            || raft.state != StateRole::Leader
            || raft.lead_transferee.is_some()
            || self.tick < self.next_hand_over
            || self.is_only_voter()
        {
            return;
        }
        let candidates = self.peer_spaces.iter().filter_map(|(node, space)| {
            let matched = raft.prs().get(node.0)?.matched;
            let may_lead = *space < self.space
                && self.is_heard(*node)
                && !self.distrusted.contains(node)
                && raft.prs().conf().voters().contains(node.0);
            may_lead.then_some((*space, Reverse(matched), *node))
        });
        if let Some((_, _, node)) = candidates.min() {
            tracing::warn!(
                to = %node,
                "the disk of this node has little space left: leadership is handed over"
            );
            self.next_hand_over =
                self.tick + HAND_OVER_ELECTIONS * self.config.election_ticks as u64;
            self.transfer_leader(Some(node));
        }
    }
}
