//! What is on its way between nodes: to an address, whoever is at home there, by the product's door.

use std::io::Read as _;
use std::sync::Arc;

use raft_host::transport::grpc::{HelloError, Refused, hello, introduce};
use raft_host::transport::{Inbox as _, SnapshotWish, Standing, admit_snapshot};
use raft_host::types::{GroupId, MessageKind, NodeId, PeerMessage, SnapshotFate};

use super::{Scene, Show};
use crate::sim::observe::{Fact, Micros, Slot};
use crate::sim::world::store_snapshot;

/// A message on its way.
pub(super) struct Parcel {
    from: usize,
    from_life: u64,
    address: String,
    message: PeerMessage,
    /// Of the snapshot that it is about.
    content: Option<Vec<u8>>,
}

/// Out of a thousand messages, those that are lost while things go wrong.
const LOST_PER_MILLE: u64 = 30;

impl Scene<'_> {
    /// Puts on its way what a node wants to send.
    pub(super) fn post(&mut self, from: usize) {
        let host = &mut self.residents[from].host;
        let from_life = host.life;
        let Some(running) = host.running() else { return };
        let (messages, peers) = {
            let mut outbox = running.transport.outbox();
            (std::mem::take(&mut outbox.messages), outbox.peers.clone())
        };
        for message in messages {
            let Some(peer) = peers.get(&message.to) else {
                self.unreachable(from, message.to);
                continue;
            };
            if self.is_stormy && self.random.per_mille(LOST_PER_MILLE) {
                self.lost(from, &message);
                continue;
            }
            let content = match self.content(from, &message) {
                Ok(content) => content,
                Err(()) => {
                    self.lost(from, &message);
                    continue;
                }
            };
            let address = peer.address.clone();
            let due = Micros(self.now.0 + self.random.below(3) * 1_000);
            self.next_parcel += 1;
            let parcel = Parcel { from, from_life, address, message, content };
            self.parcels.insert((due, self.next_parcel), parcel);
        }
    }

    /// The snapshot that a message is about, if it is about one that can be read.
    fn content(&mut self, from: usize, message: &PeerMessage) -> Result<Option<Vec<u8>>, ()> {
        let Some(meta) = message.snapshot.as_ref().filter(|_| is_snapshot(message)) else {
            return Ok(None);
        };
        let running = self.residents[from].host.running().ok_or(())?;
        let opened = running.node.stores().snapshots.open(meta.group, meta.index);
        let (found, mut reader) = opened.map_err(drop)?;
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(drop)?;
        (found.position() == meta.position()).then_some(Some(content)).ok_or(())
    }

    /// Nobody got it, and whoever sent it notices in time.
    fn lost(&mut self, from: usize, message: &PeerMessage) {
        self.unreachable(from, message.to);
        self.snapshot_sent(from, message, SnapshotFate::Failed);
    }

    fn unreachable(&mut self, from: usize, to: NodeId) {
        if let Some(running) = self.residents[from].host.running() {
            running.inbox.unreachable(to);
        }
    }

    fn snapshot_sent(&mut self, from: usize, message: &PeerMessage, fate: SnapshotFate) {
        let Some(meta) = message.snapshot.as_ref().filter(|_| is_snapshot(message)) else { return };
        if let Some(running) = self.residents[from].host.running() {
            running.inbox.snapshot_sent(GroupId::MAIN, message.to, meta.index, fate);
        }
    }

    /// Whatever is due arrives.
    pub(super) fn deliver(&mut self, show: Show<'_>) {
        let later = self.parcels.split_off(&(Micros(self.now.0 + 1), 0));
        for parcel in std::mem::replace(&mut self.parcels, later).into_values() {
            if self.residents[parcel.from].host.life == parcel.from_life {
                self.arrive(parcel, show);
            }
        }
    }

    fn arrive(&mut self, parcel: Parcel, show: Show<'_>) {
        let Parcel { from, address, mut message, content, .. } = parcel;
        let Some(to) = self.at_home(&address) else { return self.lost(from, &message) };
        if !self.comes_in(from, to, &message, &address, show) {
            return self.lost(from, &message);
        }
        let Some(running) = self.residents[to].host.running() else { return };
        let (inbox, stores) = (Arc::clone(&running.inbox), running.node.stores().clone());
        if let Some(content) = content {
            let stored = match admit_snapshot(&*inbox, &*stores.snapshots, &message, 0) {
                Ok((_, SnapshotWish::MessageOnly)) => Ok(None),
                Ok((meta, SnapshotWish::Content)) => {
                    store_snapshot(&*stores.snapshots, &meta, &content).map(Some)
                }
                Err(refusal) => Err(refusal.to_string()),
            };
            match stored {
                Ok(meta) => message.snapshot = meta.or(message.snapshot),
                Err(_) => return self.snapshot_sent(from, &message, SnapshotFate::Failed),
            }
            self.snapshot_sent(from, &message, SnapshotFate::Delivered);
        }
        inbox.deliver(vec![message]);
    }

    /// Whether the node at home lets the sender in.
    fn comes_in(
        &mut self,
        from: usize,
        to: usize,
        message: &PeerMessage,
        address: &str,
        show: Show<'_>,
    ) -> bool {
        let said = hello(&self.residents[from].identity(), message.to, address);
        let us = self.residents[to].identity();
        let (by, sender) = (self.residents[to].citizen(), self.residents[from].citizen());
        let knows = self.residents[to].applied().is_some();
        let Some(running) = self.residents[to].host.running() else { return false };
        let inbox = Arc::clone(&running.inbox);
        match introduce(&us, &*inbox, Some(said), None) {
            Ok(member) => {
                show(&Fact::LetIn { by, from: sender });
                let is_new = !running.introduced.contains(&Slot(from));
                if is_new || inbox.standing(message.from) == Standing::Newcomer {
                    inbox.peer_seen(member);
                }
                if is_new {
                    running.introduced.push(Slot(from));
                }
                true
            }
            Err(refused) => {
                let is_other = by.cluster != sender.cluster;
                self.turned_away += u64::from(is_other);
                let is_told = matches!(refused, Refused::Hello(HelloError::LeftBehind { .. }));
                show(&Fact::TurnedAway { by, from: sender, knows, is_told });
                if let Refused::Removed { as_of, .. } = refused
                    && let Some(running) = self.residents[from].host.running()
                {
                    running.inbox.removed(message.to, as_of);
                }
                false
            }
        }
    }
}

fn is_snapshot(message: &PeerMessage) -> bool {
    message.kind == MessageKind::InstallSnapshot
}
