//! Whether a follower still hears from its leader.
//!
//! A voter that does not campaigns, and forgets the leader by that. A learner never campaigns, and
//! one that was removed while its disk was stuck would believe in its last leader for ever: nobody
//! dials it any more, and it dials nobody.

use raft::StateRole;

use super::Replica;
use crate::types::NodeId;

/// Election timeouts without a word of the leader after which there is none, as far as this
/// replica can tell. A voter notices after two at most.
const PATIENCE: u64 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// Tick at which the leader was heard last.
    heard: u64,
    is_lost: bool,
}

impl Replica {
    /// A message of this node was taken in.
    pub(super) fn heard_from(&mut self, node: NodeId) {
        if self.raw.raft.leader_id == node.0 {
            self.contact.heard = self.tick;
            self.look_for_leader();
        }
    }

    /// Notices that the leader was not heard for long, or was again.
    pub(super) fn look_for_leader(&mut self) {
        let patience = PATIENCE * self.config.election_ticks as u64;
        let is_lost = self.raw.raft.state == StateRole::Follower
            && self.tick - self.contact.heard >= patience;
        if std::mem::replace(&mut self.contact.is_lost, is_lost) != is_lost {
            self.effects.leadership_changed = true;
        }
    }

    /// Whether the leader that raft-rs knows was not heard for long.
    pub(super) fn is_out_of_touch(&self) -> bool {
        self.contact.is_lost
    }
}
