//! Who is in a group, and how that changes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ClusterId, JoinNonce, NodeId};

/// A configuration of a group, joint while `voters_outgoing` is not empty
/// (Raft dissertation §4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfState {
    /// Voters of the (incoming) configuration.
    pub voters: BTreeSet<NodeId>,
    /// Non-voting replicas.
    pub learners: BTreeSet<NodeId>,
    /// Voters of the outgoing configuration of a joint one.
    pub voters_outgoing: BTreeSet<NodeId>,
    /// Outgoing voters that become learners when the joint configuration is left.
    pub learners_next: BTreeSet<NodeId>,
    /// Whether the leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// Whether `node` has any role.
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node)
            || self.learners.contains(&node)
            || self.voters_outgoing.contains(&node)
            || self.learners_next.contains(&node)
    }

    /// Whether `node` votes in any half of the configuration.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.voters_outgoing.contains(&node)
    }

    /// Whether these are more than half of the voters, of both halves of the configuration.
    pub fn is_quorum(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let has_most = |voters: &BTreeSet<NodeId>| {
            voters.is_empty() || voters.intersection(nodes).count() * 2 > voters.len()
        };
        has_most(&self.voters) && has_most(&self.voters_outgoing)
    }

    /// Every node with a role.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next]
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }
}

/// A node as the group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node's id.
    pub id: NodeId,
    /// `host:port` that others dial (`--advertise`).
    pub address: String,
}

/// A member of another cluster that dialled this node, as it introduced itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id there.
    pub node: NodeId,
    /// Where it says that it lives.
    pub address: String,
    /// The address of this node in its cluster's membership.
    pub dialled: String,
}

/// One step of a membership change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChangeOp {
    /// Add as a non-voting replica, or demote a voter.
    AddLearner,
    /// Add as a voter, or promote a learner.
    AddVoter,
    /// Remove from the group.
    Remove,
    /// Give a member another address; its role stays.
    Move,
}

/// A membership change; several steps at once go through joint consensus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChange {
    /// The steps, applied together. Empty: leave the joint configuration.
    pub steps: Vec<(ConfChangeOp, Member)>,
    /// Of the learners among the steps that asked to be taken in themselves. A learner that is
    /// one already stays it.
    pub joins: BTreeMap<NodeId, JoinNonce>,
}

impl ConfChange {
    /// One step that nobody joins by.
    pub fn of(op: ConfChangeOp, member: Member) -> ConfChange {
        ConfChange { steps: vec![(op, member)], ..ConfChange::default() }
    }
}
