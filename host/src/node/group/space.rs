//! Whether the group takes new commands, as far as the disks of its voters go.
//!
//! ```text
//!   own disk low          the leader takes no commands; it hands over if it can (`consensus`)
//!   most voters' low      likewise: what it appended, they could not keep
//! ```
//!
//! Members say what their disks have left with each offer of a level, which the leader hears of every
//! election timeout. One that has said nothing yet is not in the way: if it is not there, there is no
//! majority anyway.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::node::answer::Shortage;
use crate::types::{ConfState, NodeId, Space};

/// See the module.
pub(super) struct Spaces {
    me: NodeId,
    own: Space,
    /// On the leader, since it leads.
    others: BTreeMap<NodeId, Space>,
    shortage: watch::Sender<Option<Shortage>>,
}

impl Spaces {
    pub(super) fn new(me: NodeId) -> Spaces {
        Spaces {
            me,
            own: Space::Ample,
            others: BTreeMap::new(),
            shortage: watch::Sender::default(),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Shortage>> {
        self.shortage.subscribe()
    }

    pub(super) fn own(&self) -> Space {
        self.own
    }

    pub(super) fn set_own(&mut self, space: Space) {
        self.own = space;
    }

    pub(super) fn hear(&mut self, from: NodeId, space: Space) {
        self.others.insert(from, space);
    }

    /// Another role, term or leader: what was heard counts no more.
    pub(super) fn on_leadership(&mut self) {
        self.others.clear();
    }

    /// Says whether commands are taken; `voters`: those of the group, if this node leads it.
    pub(super) fn publish(&self, voters: Option<&ConfState>) {
        let now = match voters {
            _ if self.own != Space::Ample => Some(Shortage::Own),
            Some(conf_state) => self.of_voters(conf_state),
            None => None,
        };
        self.shortage.send_if_modified(|current| {
            if *current == now {
                return false;
            }
            if voters.is_some() {
                match &now {
                    Some(Shortage::Voters(short)) => tracing::warn!(
                        short = ?short.iter().map(|node| node.0).collect::<Vec<_>>(),
                        "the disks of most voters have little space left: no new commands are taken"
                    ),
                    // Who measures the disk says so.
                    Some(Shortage::Own) => {}
                    None => tracing::info!("the voters' disks have space: commands are taken"),
                }
            }
            *current = now;
            true
        });
    }

    /// Those that are short, when so few are not that they are no majority.
    fn of_voters(&self, conf_state: &ConfState) -> Option<Shortage> {
        let is_short = |node: &&NodeId| {
            **node != self.me && self.others.get(node).is_some_and(|space| *space != Space::Ample)
        };
        [&conf_state.voters, &conf_state.voters_outgoing]
            .into_iter()
            .filter(|voters| !voters.is_empty())
            .find_map(|voters| {
                let short: BTreeSet<NodeId> = voters.iter().filter(is_short).copied().collect();
                let has_majority = 2 * (voters.len() - short.len()) > voters.len();
                (!has_majority).then_some(Shortage::Voters(short))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: &[u64]) -> ConfState {
        ConfState { voters: ids.iter().map(|id| NodeId(*id)).collect(), ..ConfState::default() }
    }

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    #[test]
    fn a_leader_takes_no_commands_when_its_disk_or_those_of_most_voters_are_short() {
        let mut spaces = Spaces::new(NodeId(1));
        let shortage = spaces.watch();
        let three = voters(&[1, 2, 3]);
        let now = |spaces: &Spaces, voters| {
            spaces.publish(voters);
            shortage.borrow().clone()
        };
        assert_eq!(now(&spaces, Some(&three)), None, "nobody has said anything");
        spaces.hear(NodeId(2), Space::Critical);
        assert_eq!(now(&spaces, Some(&three)), None, "two have room");
        spaces.hear(NodeId(3), Space::Low);
        assert_eq!(now(&spaces, Some(&three)), Some(Shortage::Voters(nodes(&[2, 3]))));
        let joint = ConfState { voters_outgoing: nodes(&[1, 3]), ..voters(&[1, 4, 5]) };
        assert_eq!(now(&spaces, Some(&joint)), Some(Shortage::Voters(nodes(&[3]))));
        assert_eq!(now(&spaces, None), None, "that is the leader's to say");
        spaces.set_own(Space::Low);
        assert_eq!(now(&spaces, None), Some(Shortage::Own));
        spaces.set_own(Space::Ample);
        spaces.hear(NodeId(3), Space::Ample);
        assert_eq!(now(&spaces, Some(&three)), None);
        spaces.hear(NodeId(3), Space::Critical);
        spaces.on_leadership();
        assert_eq!(now(&spaces, Some(&three)), None);
        assert_eq!(now(&spaces, Some(&voters(&[1]))), None, "it needs nobody else");
    }
}
