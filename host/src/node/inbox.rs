//! What a transport delivers goes to the event loop.

use super::budget::Budget;
use super::event_loop::{Event, EventSender};
use crate::transport::Inbox;
use crate::types::{GroupId, Index, Member, NodeId, PeerMessage};

/// The node's side of a transport.
pub struct NodeInbox {
    pub(super) events: EventSender,
    pub(super) budget: Budget,
}

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

    fn snapshot_sent(&self, _group: GroupId, to: NodeId, index: Index, delivered: bool) {
        tracing::info!(%to, %index, delivered, "snapshot sent");
        let _ = self.events.send(Event::SnapshotSent(to, delivered));
    }

    fn unreachable(&self, to: NodeId) {
        let _ = self.events.send(Event::Unreachable(to));
    }

    fn peer_seen(&self, peer: Member) {
        let _ = self.events.send(Event::PeerSeen(peer));
    }
}
