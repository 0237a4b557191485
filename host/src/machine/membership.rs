//! Who is in the group, as of the last applied entry.

use std::collections::BTreeMap;

use crate::types::{ConfChange, ConfChangeOp, ConfState, JoinNonce, Member, NodeId};

/// Members, their addresses, and the configuration that consensus derived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Membership {
    /// Exactly the nodes of `conf_state` whose address is known.
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) conf_state: ConfState,
    /// Of the members that asked to be taken in themselves.
    pub(super) joins: BTreeMap<NodeId, JoinNonce>,
    /// At least as high as every id that ever was a member's.
    pub(super) highest_id: NodeId,
}

impl Membership {
    pub(super) fn set(&mut self, members: impl IntoIterator<Item = Member>, conf_state: ConfState) {
        self.members = members.into_iter().map(|member| (member.id, member)).collect();
        self.settle(conf_state);
    }

    /// Takes a committed change. A removed node stays known while it still votes in the
    /// outgoing half of a joint configuration, because it must be reached until then.
    pub(super) fn apply(&mut self, change: &ConfChange, conf_state: ConfState) {
        for (op, member) in &change.steps {
            self.highest_id = self.highest_id.max(member.id);
            match op {
                ConfChangeOp::AddLearner | ConfChangeOp::AddVoter => self.upsert(member),
                ConfChangeOp::Remove => {}
                ConfChangeOp::Move => {
                    if let Some(known) = self.members.get_mut(&member.id) {
                        known.address.clone_from(&member.address);
                    }
                }
            }
        }
        self.joins.extend(&change.joins);
        self.settle(conf_state);
    }

    pub(super) fn next_id(&self) -> NodeId {
        NodeId(self.highest_id.0.saturating_add(1))
    }

    /// A promotion may come without the address, which then stays.
    fn upsert(&mut self, member: &Member) {
        let known = self.members.entry(member.id).or_insert_with(|| member.clone());
        if !member.address.is_empty() {
            known.address.clone_from(&member.address);
        }
    }

    fn settle(&mut self, conf_state: ConfState) {
        self.members.retain(|id, _| conf_state.contains(*id));
        self.joins.retain(|id, _| conf_state.contains(*id));
        let highest = conf_state.nodes().last().copied().unwrap_or_default();
        self.highest_id = self.highest_id.max(highest);
        self.conf_state = conf_state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member { id: NodeId(id), address: format!("10.0.0.{id}:7400") }
    }

    fn voters(ids: &[u64]) -> ConfState {
        ConfState { voters: ids.iter().copied().map(NodeId).collect(), ..ConfState::default() }
    }

    fn change(op: ConfChangeOp, member: Member) -> ConfChange {
        ConfChange::of(op, member)
    }

    #[test]
    fn a_removed_id_is_never_drawn_again() {
        let mut membership = Membership::default();
        membership.set([member(1)], voters(&[1]));
        membership.apply(&change(ConfChangeOp::AddVoter, member(7)), voters(&[1, 7]));
        membership.apply(&change(ConfChangeOp::Remove, member(7)), voters(&[1]));
        assert_eq!(membership.members.len(), 1);
        assert_eq!(membership.next_id(), NodeId(8));
    }

    #[test]
    fn a_node_on_its_way_out_stays_known_until_the_joint_configuration_is_left() {
        let mut membership = Membership::default();
        membership.set([member(1), member(2)], voters(&[1, 2]));
        let joint = ConfState { voters_outgoing: [NodeId(1), NodeId(2)].into(), ..voters(&[1, 3]) };
        let steps = vec![(ConfChangeOp::Remove, member(2)), (ConfChangeOp::AddVoter, member(3))];
        membership.apply(&ConfChange { steps, ..ConfChange::default() }, joint);
        assert!(membership.members.contains_key(&NodeId(2)));
        membership.apply(&ConfChange::default(), voters(&[1, 3]));
        assert!(!membership.members.contains_key(&NodeId(2)));
    }

    #[test]
    fn a_promotion_without_an_address_keeps_the_known_one_and_a_new_address_replaces_it() {
        let mut membership = Membership::default();
        membership.set([member(1)], voters(&[1]));
        let silent = Member { id: NodeId(1), address: String::new() };
        membership.apply(&change(ConfChangeOp::AddVoter, silent), voters(&[1]));
        assert_eq!(membership.members[&NodeId(1)], member(1));
        let moved = Member { id: NodeId(1), address: "10.9.9.9:1".into() };
        membership.apply(&change(ConfChangeOp::AddVoter, moved.clone()), voters(&[1]));
        assert_eq!(membership.members[&NodeId(1)], moved);
    }

    #[test]
    fn a_member_that_moves_is_the_same_member_and_nobody_becomes_one_by_that() {
        let mut membership = Membership::default();
        membership.set([member(1), member(2)], voters(&[1, 2]));
        let moved = Member { id: NodeId(2), address: "10.9.9.9:1".into() };
        membership.apply(&change(ConfChangeOp::Move, moved.clone()), voters(&[1, 2]));
        assert_eq!(membership.members[&NodeId(2)], moved);
        membership.apply(&change(ConfChangeOp::Move, member(3)), voters(&[1, 2]));
        assert_eq!(membership.members.len(), 2);
    }

    #[test]
    fn a_join_is_known_by_its_nonce_until_the_member_is_none() {
        let (first, second) = (JoinNonce([1; 16]), JoinNonce([2; 16]));
        let learners = |ids: &[u64]| ConfState {
            learners: ids.iter().copied().map(NodeId).collect(),
            ..voters(&[1])
        };
        let mut membership = Membership::default();
        membership.set([member(1)], voters(&[1]));
        let mut join = change(ConfChangeOp::AddLearner, member(2));
        join.joins.insert(NodeId(2), first);
        membership.apply(&join, learners(&[2]));
        assert_eq!(membership.joins, [(NodeId(2), first)].into());
        let again = Member { id: NodeId(3), ..member(2) };
        let mut replace = change(ConfChangeOp::AddLearner, again);
        replace.steps.push((ConfChangeOp::Remove, member(2)));
        replace.joins.insert(NodeId(3), second);
        membership.apply(&replace, learners(&[3]));
        assert_eq!(membership.joins, [(NodeId(3), second)].into());
        membership.apply(&change(ConfChangeOp::Remove, member(3)), voters(&[1]));
        assert_eq!(membership.joins, BTreeMap::new());
    }

    #[test]
    fn a_change_that_consensus_ignored_adds_nobody() {
        let mut membership = Membership::default();
        membership.set([member(1)], voters(&[1]));
        membership.apply(&change(ConfChangeOp::AddVoter, member(2)), voters(&[1]));
        assert_eq!(membership.members.len(), 1);
    }
}
