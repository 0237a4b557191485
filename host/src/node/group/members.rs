//! Whom this node knows of its group, and whether it belongs to it itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::newcomers::Newcomers;
use super::removal::{Known, Removal};
use crate::types::{ConfState, Index, Member, NodeId};

/// See the module.
pub(super) struct Members {
    me: NodeId,
    /// Known from joining, or introduced themselves; the machine may not know them yet.
    introduced: Newcomers,
    members: Arc<BTreeMap<NodeId, Member>>,
    /// As of the last membership change that was applied.
    conf_state: Arc<ConfState>,
    /// What others say about this node's removal.
    removal: Removal,
}

/// What another set of members means for this node.
pub(super) struct MembersChanged {
    /// It is no member any more.
    pub(super) is_removed: bool,
    /// Others said that it was none, and it is.
    pub(super) is_member_all_the_same: bool,
}

impl Members {
    pub(super) fn new(me: NodeId, introduced: Newcomers) -> Members {
        let (members, conf_state) = (Arc::default(), Arc::default());
        Members { me, introduced, members, conf_state, removal: Removal::default() }
    }

    pub(super) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// A peer sent something.
    pub(super) fn hear(&mut self, id: NodeId) {
        self.introduced.hear(id);
    }

    /// Whether any was forgotten.
    pub(super) fn on_tick(&mut self, leader: Option<NodeId>) -> bool {
        let knows_none = self.members.is_empty();
        self.introduced.on_tick(|id| knows_none || leader == Some(id))
    }

    /// The machine's members changed.
    pub(super) fn on_members(
        &mut self,
        members: Arc<BTreeMap<NodeId, Member>>,
        conf_state: Arc<ConfState>,
    ) -> MembersChanged {
        let was_member = self.members.contains_key(&self.me);
        self.members = members;
        // Ids ascend: whoever is below the newest member and not among them was removed.
        let newest = self.members.keys().next_back().copied().unwrap_or_default();
        self.introduced.retain_above(newest);
        let is_removed = was_member && !conf_state.contains(self.me);
        self.conf_state = conf_state;
        let is_member_all_the_same = self.removal.on_membership(&self.conf_state, self.me);
        MembersChanged { is_removed, is_member_all_the_same }
    }

    /// `by` says that this node is no member as of that index. Returns who says so once they are
    /// believed.
    pub(super) fn on_removal_said(
        &mut self,
        by: NodeId,
        as_of: Index,
        applied: Index,
    ) -> Option<String> {
        let known = Known {
            me: self.me,
            conf_state: &self.conf_state,
            introduced: self.introduced.members().into_keys().collect(),
            applied,
        };
        let voices = self.removal.on_said(by, as_of, &known)?;
        Some(voices.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", "))
    }

    /// A peer introduced itself. Whether that is news: even a member may not know it; one that was
    /// down while the peer joined, and led by it now, must answer it to learn of it.
    pub(super) fn on_peer_seen(&mut self, peer: Member) -> bool {
        !self.members.contains_key(&peer.id) && self.introduced.introduce(peer)
    }

    /// All that this node talks to.
    pub(super) fn peers(&self) -> BTreeMap<NodeId, Member> {
        let mut peers = self.introduced.members();
        peers.extend(self.members.iter().map(|(id, member)| (*id, member.clone())));
        peers.remove(&self.me);
        peers
    }

    /// One of them, or this node; without an address if that is not known.
    pub(super) fn find(&self, id: NodeId) -> Member {
        let known = self.members.get(&id).or_else(|| self.introduced.get(id));
        known.cloned().unwrap_or(Member { id, address: String::new() })
    }
}
