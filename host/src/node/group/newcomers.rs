//! Nodes that introduced themselves and that the machine does not know: perhaps members that
//! were taken in while this node was away, perhaps nobody.
//!
//! They are dialled, because one of them may lead and must be answered. So they are few, and
//! those that go silent are forgotten.

use std::collections::BTreeMap;

use crate::types::{Member, NodeId};

/// Most of them at once.
const MOST: usize = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Newcomers {
    /// With the tick at which each was last heard of.
    known: BTreeMap<NodeId, (Member, u64)>,
    tick: u64,
    /// Ticks after which one that is silent is forgotten.
    patience: u64,
}

impl Newcomers {
    /// Those that this node was told of when it joined.
    pub(super) fn new(members: Vec<Member>, patience: u64) -> Newcomers {
        let known = members.into_iter().map(|member| (member.id, (member, 0))).collect();
        Newcomers { known, tick: 0, patience }
    }

    /// All of them.
    pub(super) fn members(&self) -> BTreeMap<NodeId, Member> {
        self.known.iter().map(|(id, (member, _))| (*id, member.clone())).collect()
    }

    /// One of them.
    pub(super) fn get(&self, id: NodeId) -> Option<&Member> {
        self.known.get(&id).map(|(member, _)| member)
    }

    /// One introduced itself. Whether that is news.
    pub(super) fn introduce(&mut self, member: Member) -> bool {
        let (id, tick) = (member.id, self.tick);
        if self.get(id) == Some(&member) {
            self.hear(id);
            return false;
        }
        if self.known.len() >= MOST && !self.known.contains_key(&id) {
            let silent = self.known.iter().min_by_key(|(_, (_, heard))| *heard);
            let Some(silent) = silent.map(|(silent, _)| *silent) else { return false };
            tracing::debug!(forgotten = %silent, newcomer = %id, "too many unknown peers");
            self.known.remove(&silent);
        }
        self.known.insert(id, (member, tick));
        true
    }

    /// One sent something.
    pub(super) fn hear(&mut self, id: NodeId) {
        if let Some((_, heard)) = self.known.get_mut(&id) {
            *heard = self.tick;
        }
    }

    /// Only ids above this one can be unknown members.
    pub(super) fn retain_above(&mut self, newest: NodeId) {
        self.known.retain(|id, _| *id > newest);
    }

    /// Time passes. `keep`: the leader, or all of them while this node knows no members. Whether
    /// any was forgotten.
    pub(super) fn on_tick(&mut self, keep: impl Fn(NodeId) -> bool) -> bool {
        self.tick += 1;
        let before = self.known.len();
        let (tick, patience) = (self.tick, self.patience);
        self.known.retain(|id, (_, heard)| tick - *heard <= patience || keep(*id));
        self.known.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member { id: NodeId(id), address: format!("node-{id}:1") }
    }

    #[test]
    fn forged_introductions_are_few_and_forgotten_when_they_go_silent() {
        let mut newcomers = Newcomers::new(Vec::new(), 10);
        for id in 1..=1_000 {
            assert!(newcomers.introduce(member(id)));
        }
        assert_eq!(newcomers.members().len(), MOST);
        assert!(newcomers.introduce(member(7)));
        assert!(!newcomers.introduce(member(7)), "no news");
        for _ in 0..10 {
            assert!(!newcomers.on_tick(|_| false));
        }
        newcomers.hear(NodeId(7));
        assert!(newcomers.on_tick(|_| false));
        assert_eq!(newcomers.members().keys().copied().collect::<Vec<_>>(), [NodeId(7)]);
        for _ in 0..100 {
            newcomers.on_tick(|id| id == NodeId(7));
        }
        assert!(newcomers.get(NodeId(7)).is_some(), "it leads");
        newcomers.retain_above(NodeId(7));
        assert!(newcomers.members().is_empty());
    }
}
