//! A node's door lets in whom it knows for a member, or cannot know yet, if it is the one who is wanted; it turns those
//! away who were removed, and nobody else.
//!
//! Who is a member as of which entry is worked out from the membership changes that nodes have applied.

use std::collections::{BTreeMap, BTreeSet};

use raft_host::transport::grpc::{HelloError, Refused};
use raft_host::types::{ConfState, Index, NodeId};

use super::Invariant;
use crate::sim::observe::{Fact, Micros, Slot};

/// See the module.
#[derive(Debug)]
pub struct MembersOnly {
    /// The members from an entry on.
    members: BTreeMap<Index, BTreeSet<NodeId>>,
    /// When each became one.
    joined: BTreeMap<NodeId, Index>,
    /// Up to where nodes that run know of changes.
    known: BTreeMap<Slot, Index>,
}

/// Who forms a cluster.
const FOUNDER: NodeId = NodeId(1);

impl Default for MembersOnly {
    fn default() -> MembersOnly {
        MembersOnly {
            members: BTreeMap::from([(Index(0), BTreeSet::from([FOUNDER]))]),
            joined: BTreeMap::from([(FOUNDER, Index(0))]),
            known: BTreeMap::new(),
        }
    }
}

impl MembersOnly {
    fn changed(&mut self, slot: Slot, index: Index, conf_state: &ConfState) {
        self.known.insert(slot, index);
        let members: BTreeSet<NodeId> = conf_state.nodes().into_iter().collect();
        for node in &members {
            self.joined.entry(*node).or_insert(index);
        }
        self.members.insert(index, members);
    }

    /// Whether a node was a member before that entry, and is none there.
    fn is_removed(&self, node: NodeId, as_of: Index) -> bool {
        let has_joined = self.joined.get(&node).is_some_and(|joined| *joined <= as_of);
        let members = self.members.range(..=as_of).next_back();
        has_joined && members.is_some_and(|(_, members)| !members.contains(&node))
    }

    fn let_in(&self, slot: Slot, node: NodeId, from: NodeId, wanted: NodeId) -> Result<(), String> {
        if node != wanted {
            return Err(format!(
                "{slot} takes a message of node {from} to node {wanted}, and is node {node}"
            ));
        }
        match self.known.get(&slot) {
            Some(known) if self.is_removed(from, *known) => Err(format!(
                "{slot} has applied index {known}, as of which node {from} is removed, and lets it in"
            )),
            _ => Ok(()),
        }
    }

    fn turned_away(
        &self,
        slot: Slot,
        (node, from, wanted): (NodeId, NodeId, NodeId),
        why: &Refused,
    ) -> Result<(), String> {
        let is_right = match why {
            Refused::Removed { as_of, .. } => self.is_removed(from, *as_of),
            Refused::Hello(HelloError::Receiver { .. }) => node != wanted,
            Refused::Hello(_) => false,
        };
        match is_right {
            true => Ok(()),
            false => Err(format!("{slot} turns node {from} away: {why}")),
        }
    }
}

impl Invariant for MembersOnly {
    fn name(&self) -> &'static str {
        "members_only"
    }

    fn observe(&mut self, _now: Micros, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::Membership { slot, position, conf_state } => {
                self.changed(slot, position.index, conf_state);
            }
            // What it was restored to has the members of then.
            Fact::Started { slot, applied, .. } => {
                self.known.insert(slot, applied);
            }
            Fact::Installed { slot, position, .. } => {
                self.known.insert(slot, position.index);
            }
            Fact::AtTheDoor { is_excused: true, .. } => {}
            Fact::AtTheDoor { slot, node, from, wanted, refused: None, .. } => {
                return self.let_in(slot, node, from, wanted);
            }
            Fact::AtTheDoor { slot, node, from, wanted, refused: Some(why), .. } => {
                return self.turned_away(slot, (node, from, wanted), why);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_host::types::ClusterId;

    use super::super::testing::{judge, pos, refused};
    use super::*;

    const DIGEST: crate::sim::observe::Digest = [0; 16];
    const HERE: Slot = Slot(0);

    fn state(voters: &[u64]) -> ConfState {
        let voters = voters.iter().copied().map(NodeId).collect();
        ConfState { voters, ..ConfState::default() }
    }

    fn change(index: u64, conf_state: &ConfState) -> Fact<'_> {
        Fact::Membership { slot: HERE, position: pos(index, 1), conf_state }
    }

    fn at_the_door<'a>(from: u64, wanted: u64, refused: Option<&'a Refused>) -> Fact<'a> {
        Fact::AtTheDoor {
            slot: HERE,
            node: FOUNDER,
            from: NodeId(from),
            wanted: NodeId(wanted),
            refused,
            is_excused: false,
        }
    }

    fn removed(node: u64, as_of: u64) -> Refused {
        let (cluster, node) = (ClusterId([1; 16]), NodeId(node));
        Refused::Removed { cluster, node, as_of: Index(as_of) }
    }

    #[test]
    fn members_newcomers_and_those_nobody_knows_to_be_gone_come_in() {
        let (two, one) = (state(&[1, 2]), state(&[1]));
        let facts = [
            at_the_door(2, 1, None),
            change(3, &two),
            at_the_door(2, 1, None),
            at_the_door(9, 1, None),
            Fact::Membership { slot: Slot(1), position: pos(5, 1), conf_state: &one },
            at_the_door(2, 1, None),
        ];
        assert_eq!(judge(&mut MembersOnly::default(), &facts), Ok(()));
    }

    #[test]
    fn who_is_removed_stays_outside() {
        let (two, one) = (state(&[1, 2]), state(&[1]));
        let refusal = removed(2, 5);
        let last = |refused| [change(3, &two), change(5, &one), at_the_door(2, 1, refused)];
        assert_eq!(judge(&mut MembersOnly::default(), &last(Some(&refusal))), Ok(()));
        refused(&mut MembersOnly::default(), &last(None), "as of which node 2 is removed");
    }

    #[test]
    fn who_has_a_snapshot_knows_whom_it_names() {
        let (two, one) = (state(&[1, 2]), state(&[1]));
        let elsewhere = |index, conf_state| Fact::Membership {
            slot: Slot(1),
            position: pos(index, 1),
            conf_state,
        };
        let installed = Fact::Installed {
            slot: HERE,
            position: pos(6, 1),
            digest: DIGEST,
            module: None,
            activated: None,
        };
        let facts = [elsewhere(3, &two), elsewhere(5, &one), installed, at_the_door(2, 1, None)];
        refused(&mut MembersOnly::default(), &facts, "lets it in");
    }

    #[test]
    fn nobody_else_does() {
        let (two, early) = (state(&[1, 2]), removed(2, 3));
        let facts = [change(3, &two), at_the_door(2, 1, Some(&early))];
        refused(&mut MembersOnly::default(), &facts, "turns node 2 away");
        let stranger = HelloError::NoMember { node: FOUNDER, from: NodeId(2) }.into();
        let facts = [at_the_door(2, 1, Some(&stranger))];
        refused(&mut MembersOnly::default(), &facts, "turns node 2 away");
        let receiver = HelloError::Receiver { node: FOUNDER, to: 4, from: 2 }.into();
        let facts = [at_the_door(2, 4, Some(&receiver))];
        assert_eq!(judge(&mut MembersOnly::default(), &facts), Ok(()));
        refused(&mut MembersOnly::default(), &[at_the_door(2, 1, Some(&receiver))], "turns");
        refused(&mut MembersOnly::default(), &[at_the_door(2, 4, None)], "and is node 1");
    }
}
