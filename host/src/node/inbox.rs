//! What a transport delivers goes to the event loop.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use super::budget::Budget;
use super::event_loop::{Event, EventSender};
use super::rivals::Rivals;
use super::standing::RaftStanding;
use crate::museum::{self, Exhibit};
use crate::transport::{Inbox, SnapshotWish, Standing};
use crate::types::{GroupId, Index, Member, NodeId, PeerMessage, Rival, SnapshotFate};

/// The node's side of a transport.
pub struct NodeInbox {
    pub(super) events: EventSender,
    pub(super) budget: Budget,
    pub(super) roster: Arc<Roster>,
    pub(super) raft: Arc<RaftStanding>,
    pub(super) rivals: Arc<Rivals>,
}

/// Who is a member and who was, as far as this node has applied. Empty until it has a state.
#[derive(Default)]
pub(super) struct Roster(RwLock<Option<Known>>);

struct Known {
    members: Arc<BTreeMap<NodeId, Member>>,
    /// Every id below that is not in `members` belonged to a node that was removed.
    next: NodeId,
    /// Up to where that was applied.
    as_of: Index,
}

impl Roster {
    pub(super) fn update(
        &self,
        members: Arc<BTreeMap<NodeId, Member>>,
        next: NodeId,
        as_of: Index,
    ) {
        let mut known = self.0.write().expect("no code panics while it holds this lock");
        *known = Some(Known { members, next, as_of });
    }

    fn standing(&self, node: NodeId) -> Standing {
        let known = self.0.read().expect("no code panics while it holds this lock");
        match &*known {
            Some(known) if known.members.contains_key(&node) => Standing::Member,
            Some(known) if node < known.next => Standing::Removed,
            Some(known) if node.0 - known.next.0 < NEWCOMERS => Standing::Newcomer,
            Some(_) => Standing::Stranger,
            None => Standing::Member,
        }
    }

    fn removal_of(&self, node: NodeId) -> Option<Index> {
        let known = self.0.read().expect("no code panics while it holds this lock");
        let gone = |known: &&Known| node < known.next && !known.members.contains_key(&node);
        known.as_ref().filter(gone).map(|known| known.as_of)
    }
}

/// Ids that may have been given out since this node last heard of members: so many may have
/// joined while it was away.
const NEWCOMERS: u64 = 1 << 20;

/// Fixed cost of a message in the byte budget.
const MESSAGE_OVERHEAD_BYTES: u64 = 128;

impl Inbox for NodeInbox {
    fn deliver(&self, messages: Vec<PeerMessage>) {
        let bytes = messages
            .iter()
            .map(|message| {
                let entries: u64 = message.entries.iter().map(|entry| entry.cost_bytes()).sum();
                entries + MESSAGE_OVERHEAD_BYTES
            })
            .sum();
        match self.budget.take(bytes) {
            // A loop that is gone needs no messages.
            Some(charge) => drop(self.events.send(Event::Messages(messages, charge))),
            None => tracing::debug!(count = messages.len(), "inbox full: peer messages dropped"),
        }
    }

    fn wants_snapshot(&self, message: &PeerMessage) -> Result<SnapshotWish, String> {
        match self.roster.standing(message.from) {
            Standing::Member | Standing::Newcomer => self.raft.wants_snapshot(message),
            Standing::Removed | Standing::Stranger => {
                Err(format!("node {} is no member here", message.from))
            }
        }
    }

    fn snapshot_sent(&self, _group: GroupId, to: NodeId, index: Index, fate: SnapshotFate) {
        tracing::debug!(%to, %index, ?fate, "snapshot sent");
        let _ = self.events.send(Event::SnapshotSent(to, fate));
        if fate == SnapshotFate::Unreadable && !museum::is_on(Exhibit::DamagedSnapshotOffered) {
            let _ = self.events.send(Event::SnapshotUnreadable(index));
        }
    }

    fn unreachable(&self, to: NodeId) {
        let _ = self.events.send(Event::Unreachable(to));
    }

    fn standing(&self, peer: NodeId) -> Standing {
        self.roster.standing(peer)
    }

    fn has_group(&self, group: GroupId) -> bool {
        group == GroupId::MAIN
    }

    fn removal_of(&self, peer: NodeId) -> Option<Index> {
        self.roster.removal_of(peer)
    }

    fn removed(&self, by: NodeId, as_of: Index) {
        let _ = self.events.send(Event::RemovalSaid(by, as_of));
    }

    fn broken(&self, what: &'static str) {
        let _ = self.events.send(Event::Broken(what));
    }

    fn peer_seen(&self, peer: Member) {
        let _ = self.events.send(Event::PeerSeen(peer));
    }

    fn rival(&self, rival: Rival, at_own_address: bool) {
        self.rivals.on_hello(rival, at_own_address);
    }
}
