//! What a transport delivers goes to the event loop.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::museum::{self, Exhibit};
use crate::node::budget::Budget;
use crate::node::message::{Event, Mail, Mailbox};
use crate::node::rivals::Rivals;
use crate::node::roster::Roster;
use crate::node::standing::RaftStanding;
use crate::transport::{Inbox, SnapshotWish, Standing};
use crate::types::{ClusterId, GroupId, Index, Member, NodeId, PeerMessage, Rival, SnapshotFate};

/// What must be known of a group before its event loop is asked.
#[derive(Clone, Default)]
pub(super) struct Place {
    pub(super) roster: Arc<Roster>,
    pub(super) raft: Arc<RaftStanding>,
}

/// The groups that this node has a replica of.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<RwLock<BTreeMap<GroupId, Place>>>);

impl Places {
    /// That of a group, which is there from now on.
    pub(super) fn add(&self, group: GroupId) -> Place {
        let mut places = self.0.write().unwrap_or_else(PoisonError::into_inner);
        places.entry(group).or_default().clone()
    }

    pub(super) fn remove(&self, group: GroupId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }

    fn of(&self, group: GroupId) -> Option<Place> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    fn groups(&self) -> Vec<GroupId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

/// The node's side of a transport.
pub struct NodeInbox {
    pub(super) mail: Mailbox,
    pub(super) budget: Budget,
    pub(super) places: Places,
    pub(super) rivals: Arc<Rivals>,
}

impl NodeInbox {
    /// A loop that is gone needs no news.
    fn tell(&self, group: GroupId, event: Event) {
        let _ = self.mail.send(Mail::Event(group, event));
    }

    fn tell_all(&self, event: impl Fn() -> Event) {
        for group in self.places.groups() {
            self.tell(group, event());
        }
    }
}

/// Fixed cost of a message in the byte budget.
const MESSAGE_OVERHEAD_BYTES: u64 = 128;

impl Inbox for NodeInbox {
    fn deliver(&self, messages: Vec<PeerMessage>) {
        let Some(group) = messages.first().map(|message| message.group) else { return };
        if messages.iter().any(|message| message.group != group) {
            let mut by_group = BTreeMap::<GroupId, Vec<PeerMessage>>::new();
            for message in messages {
                by_group.entry(message.group).or_default().push(message);
            }
            return by_group.into_values().for_each(|messages| self.deliver(messages));
        }
        let bytes = messages
            .iter()
            .map(|message| {
                let entries: u64 = message.entries.iter().map(|entry| entry.cost_bytes()).sum();
                entries + MESSAGE_OVERHEAD_BYTES
            })
            .sum();
        match self.budget.take(bytes) {
            Some(charge) => self.tell(group, Event::Messages(messages, charge)),
            None => tracing::debug!(count = messages.len(), "inbox full: peer messages dropped"),
        }
    }

    fn wants_snapshot(&self, message: &PeerMessage) -> Result<SnapshotWish, String> {
        let Some(place) = self.places.of(message.group) else {
            return Err(format!("this node has no replica of group {}", message.group));
        };
        match place.roster.standing(message.from) {
            Standing::Member | Standing::Newcomer => place.raft.wants_snapshot(message),
            Standing::Removed | Standing::Stranger => {
                Err(format!("node {} is no member here", message.from))
            }
        }
    }

    fn snapshot_sent(&self, group: GroupId, to: NodeId, index: Index, fate: SnapshotFate) {
        tracing::debug!(%to, %index, ?fate, "snapshot sent");
        self.tell(group, Event::SnapshotSent(to, fate));
        if fate == SnapshotFate::Unreadable && !museum::is_on(Exhibit::DamagedSnapshotOffered) {
            self.tell(group, Event::SnapshotUnreadable(index));
        }
    }

    fn unreachable(&self, to: NodeId) {
        self.tell_all(|| Event::Unreachable(to));
    }

    fn standing(&self, peer: NodeId) -> Standing {
        // The cluster's members are those of its first group.
        self.places.of(GroupId::MAIN).map_or(Standing::Member, |place| place.roster.standing(peer))
    }

    fn has_group(&self, group: GroupId) -> bool {
        self.places.of(group).is_some()
    }

    fn removal_of(&self, peer: NodeId) -> Option<Index> {
        self.places.of(GroupId::MAIN)?.roster.removal_of(peer)
    }

    fn origin_of(&self, cluster: ClusterId) -> Option<Index> {
        self.places.of(GroupId::MAIN)?.roster.origin_of(cluster)
    }

    fn removed(&self, by: NodeId, as_of: Index) {
        self.tell(GroupId::MAIN, Event::RemovalSaid(by, as_of));
    }

    fn broken(&self, what: &'static str) {
        self.tell_all(|| Event::Broken(what));
    }

    fn peer_seen(&self, peer: Member) {
        self.tell_all(|| Event::PeerSeen(peer.clone()));
    }

    fn rival(&self, rival: Rival, at_own_address: bool) {
        self.rivals.on_hello(rival, at_own_address);
    }
}
