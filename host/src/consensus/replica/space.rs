//! A replica whose disk has little room left, or whose voters' disks have.
//!
//! ```text
//!              leads                                    follows
//! low          hands over to a voter with more room     campaigns later than others
//! critical     likewise                                 likewise, and still later; takes few entries
//! nothing left likewise                                 campaigns not, votes not, takes no entries
//! ```
//!
//! A leader that finds nobody with more room leads on: heartbeats need no disk, and the group answers
//! queries that way. What callers may still propose then is decided above (`node/group/space.rs`). When
//! all disks are critical, a leader must still be found, and commit what it finds in its log: so each
//! takes a little more, once, and no more than a part of what it has. Where others have room and go on, that
//! is soon used up. A replica that has no other voter beside it goes on as ever.

use std::cmp::Reverse;

use raft::StateRole;

use super::{Replica, ReplicaError};
use crate::types::{LogEntry, MessageKind, NodeId, PeerMessage, Space};

/// Between two attempts to hand over, in election timeouts: no command is taken meanwhile.
const HAND_OVER_ELECTIONS: u64 = 3;
/// What is taken while space is critical, at most; and at most this part of what is left.
const ALLOWANCE_BYTES: u64 = 1 << 20;
const ALLOWANCE_SHARE: u64 = 4;

impl Replica {
    /// This replica's disk.
    pub(super) fn on_space(&mut self, space: Space, free: u64) -> Result<(), ReplicaError> {
        let is_shorter = space > self.space;
        if is_shorter && space == Space::Critical {
            self.allowance = ALLOWANCE_BYTES.min(free / ALLOWANCE_SHARE);
        }
        self.space = space;
        if is_shorter { self.compact() } else { Ok(()) }
    }

    /// Entries were taken into the log.
    pub(super) fn spend_space(&mut self, entries: &[LogEntry]) {
        if self.space == Space::Critical {
            let bytes = entries.iter().map(LogEntry::cost_bytes).sum();
            self.allowance = self.allowance.saturating_sub(bytes);
        }
    }

    /// Takes no more entries beyond the end of the log than there is room for.
    pub(super) fn fit_space(&self, message: &mut PeerMessage) {
        if self.space != Space::Critical || self.is_only_voter() {
            return;
        }
        let (last, mut bytes) = (self.raw.raft.raft_log.last_index(), 0_u64);
        let fits = |entry: &LogEntry| {
            if entry.index.0 > last {
                bytes = bytes.saturating_add(entry.cost_bytes());
            }
            bytes <= self.allowance
        };
        let count = message.entries.iter().map(fits).take_while(|fits| *fits).count();
        message.entries.truncate(count);
    }

    /// What a peer says of its own disk; until the next leader or term.
    pub(super) fn on_peer_space(&mut self, node: NodeId, space: Space) {
        if self.raw.raft.prs().get(node.0).is_some() {
            self.peer_spaces.insert(node, space);
        }
    }

    /// Whether nothing is written that can wait.
    pub(super) fn is_out_of_space(&self) -> bool {
        self.space == Space::Critical && self.allowance == 0 && !self.is_only_voter()
    }

    /// Whether this follower leaves it to others to campaign: as long as it has no room, or for an
    /// election timeout or two more than it would wait anyway.
    pub(super) fn is_reluctant(&self) -> bool {
        let raft = &self.raw.raft;
        let patience = self.config.election_ticks * self.space as usize;
        self.is_out_of_space()
            || (self.space != Space::Ample
                && raft.state == StateRole::Follower
                && raft.election_elapsed < raft.randomized_election_timeout() + patience
                && !self.is_only_voter())
    }

    /// Whether another node's snapshot may be received.
    pub fn has_room_for_snapshots(&self) -> bool {
        self.space != Space::Critical
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
