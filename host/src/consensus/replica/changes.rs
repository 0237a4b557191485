//! Changes of the members and of the leader, and who was heard from: what a leader must know before
//! it makes them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use raft::{StateRole, eraftpb};

use super::{Replica, ReplicaError};
use crate::consensus::effects::{Care, ProposeError};
use crate::consensus::membership::{self, ConfChangeError};
use crate::museum::{self, Exhibit};
use crate::types::{
    ConfChange, ConfChangeOp, ConfState, Index, LogPosition, NodeId, PeerMessage, Term,
};

/// When members were heard from last. raft-rs has a flag for that, which each of its rounds of
/// checking the quorum takes back: right after one, nobody counts as heard from.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    term: u64,
    /// The tick at which this replica became the leader of the term.
    leads_since: Option<u64>,
    at: BTreeMap<NodeId, u64>,
    /// Since when each is a member, as far as this leader knows.
    known_since: BTreeMap<NodeId, u64>,
    /// Since when each learner has been caught up, and has answered without a break.
    stable_since: BTreeMap<NodeId, u64>,
}

/// A learner that is silent for so many heartbeats does not answer without a break.
const BREAK_HEARTBEATS: u64 = 5;

impl Replica {
    /// What is said in another term says nothing about whether its sender follows this leader.
    pub(super) fn note_heard(&mut self, message: &PeerMessage) {
        self.keep_contacts();
        let raft = &self.raw.raft;
        if message.term.0 == raft.term && raft.prs().get(message.from.0).is_some() {
            self.contacts.at.insert(message.from, self.tick);
        }
    }

    /// Forgets what is of an earlier term or of who is no member any more.
    pub(super) fn keep_contacts(&mut self) {
        let raft = &self.raw.raft;
        if self.contacts.term != raft.term {
            self.contacts = Contacts { term: raft.term, ..Contacts::default() };
        }
        self.contacts.at.retain(|node, _| raft.prs().get(node.0).is_some());
        self.contacts.stable_since.retain(|node, _| raft.prs().get(node.0).is_some());
        self.contacts.known_since.retain(|node, _| raft.prs().get(node.0).is_some());
        if raft.state != StateRole::Leader {
            self.contacts.leads_since = None;
            self.contacts.known_since.clear();
            return;
        }
        self.contacts.leads_since = self.contacts.leads_since.or(Some(self.tick));
        for (id, _) in raft.prs().iter() {
            self.contacts.known_since.entry(NodeId(*id)).or_insert(self.tick);
        }
    }

    /// Once a tick: looks whether learners have caught up.
    pub(super) fn keep_stable(&mut self) {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            self.contacts.stable_since.clear();
            return;
        }
        let learners: Vec<NodeId> =
            raft.prs().conf().learners().iter().map(|id| NodeId(*id)).collect();
        if learners.is_empty() {
            self.contacts.stable_since.clear();
            return;
        }
        let near = self.near();
        let patience = BREAK_HEARTBEATS * self.config.heartbeat_ticks as u64;
        for node in learners {
            let matched = self.matched(node).unwrap_or_default();
            let is_heard = self.silent_ticks(node).is_some_and(|ticks| ticks <= patience);
            if is_heard && matched != Index(0) && matched >= near {
                self.contacts.stable_since.entry(node).or_insert(self.tick);
            } else {
                self.contacts.stable_since.remove(&node);
            }
        }
    }

    /// See [`PeerProgress::stable_ticks`](crate::consensus::PeerProgress::stable_ticks).
    pub(super) fn stable_ticks(&self, node: NodeId) -> Option<u64> {
        let is_current = self.contacts.term == self.raw.raft.term;
        let since = self.contacts.stable_since.get(&node).filter(|_| is_current)?;
        Some(self.tick - since)
    }

    /// For how long this replica has led with that member.
    pub(super) fn known_ticks(&self, node: NodeId) -> u64 {
        self.contacts.known_since.get(&node).map_or(0, |since| self.tick - since)
    }

    /// Whether a member was heard from later than that tick.
    pub(super) fn is_heard_after(&self, node: NodeId, tick: u64) -> bool {
        let me = self.config.node;
        node == me || self.silent_ticks(node).is_some_and(|silent| self.tick - silent > tick)
    }

    /// Ticks since a member was heard from in this term.
    pub(super) fn silent_ticks(&self, node: NodeId) -> Option<u64> {
        if node == self.config.node {
            return Some(0);
        }
        let is_current = self.contacts.term == self.raw.raft.term;
        self.contacts.at.get(&node).filter(|_| is_current).map(|at| self.tick - at)
    }

    /// Whether a member was heard from within an election timeout. A leader asks each of them
    /// several times meanwhile.
    pub(super) fn is_heard(&self, node: NodeId) -> bool {
        self.silent_ticks(node).is_some_and(|ticks| ticks <= self.config.election_ticks as u64)
    }

    /// Whether this leader has not had the time yet to hear from everybody.
    pub(super) fn is_just_elected(&self) -> bool {
        let since = self.contacts.leads_since.unwrap_or(self.tick);
        self.tick - since < self.config.election_ticks as u64
    }

    pub(super) fn propose_conf_change(
        &mut self,
        change: &ConfChange,
        care: Care,
    ) -> Result<Result<LogPosition, ProposeError>, ReplicaError> {
        if let Some(error) = self.refuse_proposals() {
            return Ok(Err(error));
        }
        if let Err(error) = self.check_conf_change(change, care) {
            return Ok(Err(error.into()));
        }
        let (data, context) = membership::encode(change, &membership::current(&self.raw));
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
        entry.data = data.into();
        entry.context = context.into();
        if !self.step_propose(vec![entry])? {
            return Ok(Err(ProposeError::Busy(self.too_much_uncommitted())));
        }
        let index = Index(self.raw.raft.raft_log.last_index());
        Ok(Ok(LogPosition { index, term: Term(self.raw.raft.term) }))
    }

    /// The members, on a leader that has applied all earlier changes of them and is about to make none.
    pub(crate) fn settled_members(&self) -> Option<ConfState> {
        let raft = &self.raw.raft;
        let is_changing = raft.has_pending_conf() || self.parked.is_some();
        let is_settled = raft.state == StateRole::Leader && !is_changing;
        is_settled.then(|| membership::current(&self.raw))
    }

    /// A leader with a backlog of its predecessors has pending changes, as far as raft-rs can
    /// tell, until all of it is applied; so what is decided on then is known here.
    pub(super) fn check_conf_change(
        &mut self,
        change: &ConfChange,
        care: Care,
    ) -> Result<(), ConfChangeError> {
        self.keep_contacts();
        if self.raw.raft.has_pending_conf() || self.members_changed_at > care.decided_at {
            return Err(ConfChangeError::InProgress);
        }
        // In this term all that can stand between was proposed here.
        let is_known = self.last_soft_state == self.soft_state();
        let is_fenced = !is_known || self.fence > care.decided_at;
        if is_fenced && !museum::is_on(Exhibit::MembersJudgedAtTheDoor) {
            return Err(ConfChangeError::RightsChanged);
        }
        let current = membership::current(&self.raw);
        let voters = membership::validate(change, &current)?;
        self.check_promotions(change)?;
        if care.force || voters == current.voters {
            return Ok(());
        }
        let quorum = self.status().quorum_of(&voters);
        if quorum.is_there() {
            Ok(())
        } else if self.is_just_elected() {
            Err(ConfChangeError::JustElected)
        } else {
            Err(ConfChangeError::NoQuorum(quorum))
        }
    }

    /// A voter that lags counts for the quorum but cannot help to form it; one that is not there
    /// never will. In a short log nobody lags, not even who has nothing.
    fn check_promotions(&self, change: &ConfChange) -> Result<(), ConfChangeError> {
        let last = Index(self.raw.raft.raft_log.last_index());
        let near = self.near();
        for (_, member) in change.steps.iter().filter(|(op, _)| *op == ConfChangeOp::AddVoter) {
            let node = member.id;
            let matched = self.matched(node).ok_or(ConfChangeError::NotAMember(node))?;
            if !self.is_heard(node) {
                return Err(ConfChangeError::NotHeardFrom(node));
            }
            if matched == Index(0) || matched < near {
                return Err(ConfChangeError::NotCaughtUp { node, matched, last });
            }
        }
        Ok(())
    }

    /// Who has entries up to there has caught up.
    fn near(&self) -> Index {
        let last = self.raw.raft.raft_log.last_index();
        let limits = &self.config.limits;
        let by_count = Index(last.saturating_sub(limits.promotion_lag));
        by_count.max(self.log_size.before_bytes(limits.promotion_lag_bytes))
    }

    fn matched(&self, node: NodeId) -> Option<Index> {
        self.raw.raft.prs().get(node.0).map(|progress| Index(progress.matched))
    }

    /// Nothing happens for a node that was not heard from: no command would be taken until the
    /// transfer is given up, for nothing.
    pub(super) fn transfer_leader(&mut self, to: Option<NodeId>) {
        self.keep_contacts();
        let raft = &self.raw.raft;
        let may_lead = |node: NodeId| {
            node != self.config.node
                && self.is_heard(node)
                && raft.prs().conf().voters().contains(node.0)
        };
        let chosen = match to {
            Some(node) => Some(node).filter(|node| may_lead(*node)),
            None => raft
                .prs()
                .iter()
                .map(|(id, progress)| (NodeId(*id), progress.matched))
                .filter(|(node, _)| may_lead(*node) && !self.distrusted.contains(node))
                .max_by_key(|(node, matched)| {
                    let space = self.peer_spaces.get(node).copied().unwrap_or_default();
                    (Reverse(space), *matched, Reverse(*node))
                })
                .map(|(node, _)| node),
        };
        if let Some(node) = chosen
            && raft.state == StateRole::Leader
        {
            self.raw.transfer_leader(node.0);
        }
    }
}
