//! What others say about this node's own removal, weighed.
//!
//! A node that was down when it was removed never gets the entry that says so: nobody sends it
//! anything any more. It is told by whoever it dials. One voice may be anything that listens on a
//! member's address, so only most of the other voters together are believed, and only about later
//! than what this node's own log tells. Even then nothing is lost by waiting: the node campaigns
//! no more and says what it was told, and a person decides. Its own log, where it gets that far,
//! needs no confirmation.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{ConfState, Index, NodeId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// Who said so, and as of which index.
    said: BTreeMap<NodeId, Index>,
    is_confirmed: bool,
}

/// What this node knows when it is told.
pub(super) struct Known<'a> {
    pub(super) me: NodeId,
    /// The configuration as of the last change that was applied here.
    pub(super) conf_state: &'a ConfState,
    /// Members to reach before there is a configuration: what a joining node was told.
    pub(super) introduced: BTreeSet<NodeId>,
    /// Up to where this node has applied.
    pub(super) applied: Index,
}

impl Removal {
    /// `by` says that this node is no member as of `as_of`. Returns who says so as soon as they
    /// are enough, once.
    pub(super) fn on_said(
        &mut self,
        by: NodeId,
        as_of: Index,
        known: &Known<'_>,
    ) -> Option<BTreeSet<NodeId>> {
        let Known { me, conf_state, introduced, applied } = known;
        if as_of <= *applied {
            tracing::debug!(%by, %as_of, "this node's own log knows more of its membership");
            return None;
        }
        let mut others = conf_state.voters.clone();
        others.extend(&conf_state.voters_outgoing);
        if others.is_empty() {
            others.clone_from(introduced);
        }
        others.remove(me);
        if self.said.insert(by, as_of).is_none() {
            tracing::warn!(%by, %as_of, "a member says that this node was removed from the cluster");
        }
        self.said.retain(|_, as_of| *as_of > *applied);
        let voices: BTreeSet<NodeId> =
            self.said.keys().filter(|node| others.contains(node)).copied().collect();
        let is_enough = voices.len() > others.len() / 2;
        (is_enough && !std::mem::replace(&mut self.is_confirmed, true)).then_some(voices)
    }

    /// A member sent something that shows that this node is one, too.
    pub(super) fn on_membership(&mut self, conf_state: &ConfState, me: NodeId) -> bool {
        let is_over = self.is_confirmed && conf_state.contains(me);
        if is_over {
            *self = Removal::default();
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64]) -> ConfState {
        ConfState { voters: voters.iter().copied().map(NodeId).collect(), ..Default::default() }
    }

    fn known(conf_state: &ConfState) -> Known<'_> {
        Known { me: NodeId(3), conf_state, introduced: BTreeSet::new(), applied: Index(50) }
    }

    #[test]
    fn most_of_the_other_voters_must_say_so() {
        let conf = conf(&[1, 2, 3, 4, 5]);
        let mut removal = Removal::default();
        for by in [1, 1, 2, 9] {
            assert_eq!(removal.on_said(NodeId(by), Index(60), &known(&conf)), None);
        }
        let voices = removal.on_said(NodeId(4), Index(61), &known(&conf));
        assert_eq!(voices, Some([1, 2, 4].map(NodeId).into()));
        assert_eq!(removal.on_said(NodeId(5), Index(61), &known(&conf)), None, "once");
    }

    #[test]
    fn what_the_own_log_knows_better_is_not_believed() {
        let conf = conf(&[1, 2, 3]);
        let mut removal = Removal::default();
        assert_eq!(removal.on_said(NodeId(1), Index(50), &known(&conf)), None);
        assert_eq!(removal.on_said(NodeId(2), Index(51), &known(&conf)), None, "one of two");
        assert!(removal.on_said(NodeId(1), Index(51), &known(&conf)).is_some());
    }

    #[test]
    fn a_node_without_a_configuration_asks_those_that_it_was_told_of() {
        let conf = conf(&[]);
        let mut removal = Removal::default();
        let mut known = known(&conf);
        assert_eq!(removal.on_said(NodeId(1), Index(51), &known), None, "nobody is known");
        known.introduced = [1, 2].map(NodeId).into();
        assert!(removal.on_said(NodeId(2), Index(51), &known).is_some());
    }

    #[test]
    fn a_node_that_turns_out_to_be_a_member_is_one() {
        let conf = conf(&[2, 3]);
        let mut removal = Removal::default();
        assert!(!removal.on_membership(&conf, NodeId(3)));
        assert!(removal.on_said(NodeId(2), Index(51), &known(&conf)).is_some());
        assert!(removal.on_membership(&conf, NodeId(3)));
        assert!(removal.on_said(NodeId(2), Index(52), &known(&conf)).is_some());
    }
}
