//! Messages between nodes, and the snapshots that travel with them.

use std::io::Read as _;
use std::sync::Arc;

use raft_host::node::NodeInbox;
use raft_host::storage::SnapshotStore;
use raft_host::transport::grpc::{Refused, hello, introduce};
use raft_host::transport::{Inbox as _, SnapshotWish, Standing, admit_snapshot};
use raft_host::types::{
    GroupId, Index, Member, MessageKind, NodeId, PeerMessage, SnapshotFate, SnapshotMeta,
};
use raft_host_proto::peer;

use super::{Event, Message, World};
use crate::sim::host::{Host, State};
use crate::sim::network::Fate;
use crate::sim::observe::{Fact, Slot};
use crate::sim::trace::Who;

/// Something on its way between two hosts.
pub(super) struct Parcel {
    from: Slot,
    from_life: u64,
    to: Slot,
    content: Content,
}

enum Content {
    Message(Box<Message>),
    /// To a sender: what became of a snapshot.
    SnapshotSent(NodeId, Index, SnapshotFate),
    /// To a sender: that peer cannot be reached.
    Unreachable(NodeId),
    /// To a sender: it is no member as of this index, says this one.
    Removed(NodeId, Index),
}

/// A sender learns of a broken connection after so long.
const NOTICE_US: u64 = 1_000;
/// Size of a message beside its entries.
const MESSAGE_BYTES: u64 = 100;

impl World {
    /// Puts on its way what a node wants to send.
    pub(super) fn post(&mut self, from: Slot) {
        self.accusations(from);
        let Some(running) = self.hosts[from.0].running() else { return };
        let (messages, known) = {
            let mut outbox = running.transport.outbox();
            if outbox.messages.is_empty() {
                return;
            }
            (std::mem::take(&mut outbox.messages), outbox.peers.clone())
        };
        for message in messages {
            let peer = known.get(&message.to);
            let to = peer.and_then(|peer| Some((self.at_home(peer)?, peer.address.clone())));
            match to {
                Some((to, address)) => self.post_one(from, to, address, message),
                None => self.notify(from, Content::Unreachable(message.to), NOTICE_US),
            }
        }
    }

    /// Who lives where a peer is dialled: somebody else by now, if that one has lost its disk and the machine has
    /// joined anew. One that has moved answers at the address before as well.
    fn at_home(&self, peer: &Member) -> Option<Slot> {
        let lives_there = |host: &&Host| {
            matches!(host.state, State::Up(_) | State::Down) && host.address == peer.address
        };
        let at_home = self.hosts.iter().rev().find(lives_there).map(|host| host.slot);
        at_home.or_else(|| self.by_node.get(&peer.id).copied())
    }

    fn accusations(&mut self, slot: Slot) {
        let Some(running) = self.hosts[slot.0].running() else { return };
        let accused = std::mem::take(&mut running.transport.outbox().accused);
        for (peer, why) in accused {
            let of = self.by_node.get(&peer).map(|of| &self.hosts[of.0]);
            let is_excused =
                self.hosts[slot.0].is_excused() || of.is_none_or(|host| host.is_excused());
            self.fact(&Fact::Accused { slot, peer, why: &why, is_excused });
        }
    }

    /// What the real transport does to a message on its way, where it checks it.
    fn over_the_wire(&mut self, from: Slot, to: Slot, message: &PeerMessage) {
        let arrived = PeerMessage::try_from(peer::RaftMessage::from(message.clone()));
        let why = match arrived {
            Ok(_) if message.from != self.hosts[from.0].node => {
                format!("a {:?} in the name of node {}", message.kind, message.from)
            }
            Ok(arrived) if arrived == *message => return,
            Ok(_) => "the wire alters it".to_owned(),
            Err(error) => error.to_string(),
        };
        let peer = self.hosts[from.0].node;
        let is_excused = self.hosts[from.0].is_excused();
        self.fact(&Fact::Accused { slot: to, peer, why: &why, is_excused });
    }

    fn post_one(&mut self, from: Slot, to: Slot, address: String, message: PeerMessage) {
        let now = self.now();
        self.over_the_wire(from, to, &message);
        if message.kind == MessageKind::RequestVoteResponse && !message.reject {
            let (term, candidate) = (message.term, message.to);
            self.fact(&Fact::Voted { slot: from, term, candidate });
        }
        let mut is_bad = false;
        let content = match &message.snapshot {
            Some(meta) if message.kind == MessageKind::InstallSnapshot => {
                match self.read_snapshot(from, meta) {
                    Ok(content) => {
                        is_bad = self.flips.is_bad(from, meta.index);
                        self.fact(&Fact::SnapshotSent { slot: from, index: meta.index });
                        Some(content)
                    }
                    Err(why) => {
                        self.trace.line(
                            now,
                            Who::Host(from),
                            format_args!("cannot send its snapshot at {}: {why}", meta.index),
                        );
                        let failed =
                            Content::SnapshotSent(message.to, meta.index, SnapshotFate::Unreadable);
                        return self.notify(from, failed, NOTICE_US);
                    }
                }
            }
            _ => None,
        };
        let entries: u64 = message.entries.iter().map(|entry| entry.cost_bytes()).sum();
        let bytes = entries + message.context.len() as u64 + MESSAGE_BYTES;
        let snapshot_bytes = content.as_ref().map(|content| content.len() as u64);
        self.counters.messages += 1;
        let failed = message.snapshot.as_ref().map(|meta| meta.index);
        match self.network.send(now, (from, to), bytes, snapshot_bytes) {
            Fate::Arrives(at, again) => {
                let from_life = self.hosts[from.0].life;
                if let Some(again) = again.filter(|_| content.is_none()) {
                    let (message, address) = (message.clone(), address.clone());
                    let double = Message { message, address, content: None, is_bad };
                    let content = Content::Message(Box::new(double));
                    let parcel = Parcel { from, from_life, to, content };
                    self.queue.at(again, Event::Deliver(Box::new(parcel)));
                }
                let letter = Message { message, address, content, is_bad };
                let content = Content::Message(Box::new(letter));
                let parcel = Parcel { from, from_life, to, content };
                self.queue.at(at, Event::Deliver(Box::new(parcel)));
            }
            fate => {
                self.counters.lost_messages += 1;
                if let Some(index) = failed {
                    self.notify(
                        from,
                        Content::SnapshotSent(message.to, index, SnapshotFate::Failed),
                        NOTICE_US,
                    );
                }
                self.counters.refused_messages += u64::from(fate == Fate::TooMuch);
                if fate != Fate::Lost {
                    self.notify(from, Content::Unreachable(message.to), NOTICE_US);
                }
            }
        }
    }

    /// Tells a node something about what it sent.
    fn notify(&mut self, to: Slot, content: Content, delay_us: u64) {
        let from_life = self.hosts[to.0].life;
        let parcel = Parcel { from: to, from_life, to, content };
        self.queue.after(delay_us, Event::Deliver(Box::new(parcel)));
    }

    pub(super) fn deliver(&mut self, parcel: Parcel) {
        let now = self.now();
        let Parcel { from, from_life, to, content } = parcel;
        if self.hosts[to.0].is_paused(now) && self.hosts[to.0].is_up() {
            let until = self.hosts[to.0].paused_until;
            let parcel = Parcel { from, from_life, to, content };
            return self.queue.at(until, Event::Deliver(Box::new(parcel)));
        }
        match content {
            Content::Message(message) => self.deliver_message(from, to, *message),
            notice => {
                let host = &mut self.hosts[to.0];
                if host.life != from_life {
                    return;
                }
                let Some(running) = host.running() else { return };
                match notice {
                    Content::SnapshotSent(peer, index, fate) => {
                        running.inbox.snapshot_sent(GroupId::MAIN, peer, index, fate);
                    }
                    Content::Unreachable(peer) => running.inbox.unreachable(peer),
                    Content::Removed(by, as_of) => running.inbox.removed(by, as_of),
                    Content::Message(_) => unreachable!("handled above"),
                }
                self.wake(to);
            }
        }
    }

    fn deliver_message(&mut self, from: Slot, to: Slot, letter: Message) {
        let now = self.now();
        let Message { mut message, address, content, is_bad } = letter;
        let snapshot = message.snapshot.as_ref().map(|meta| meta.index);
        let receiver = message.to;
        let Some(running) = self.hosts[to.0].running() else {
            if let Some(index) = snapshot {
                self.notify(
                    from,
                    Content::SnapshotSent(receiver, index, SnapshotFate::Failed),
                    NOTICE_US,
                );
            }
            return self.notify(from, Content::Unreachable(receiver), NOTICE_US);
        };
        let stores = running.node.stores().clone();
        let inbox = Arc::clone(&running.inbox);
        match self.introduce(from, to, &inbox, &message, &address) {
            Ok(sender) => self.come_in(from, to, sender),
            Err(refused) => {
                if let Some(index) = snapshot {
                    let failed = Content::SnapshotSent(receiver, index, SnapshotFate::Failed);
                    self.notify(from, failed, NOTICE_US);
                }
                let notice = match refused {
                    Refused::Removed { as_of, .. } => Content::Removed(receiver, as_of),
                    Refused::Hello(_) => Content::Unreachable(receiver),
                };
                return self.notify(from, notice, NOTICE_US);
            }
        }
        self.trace.line(
            now,
            Who::Host(to),
            format_args!(
                "<- n{} {:?} term {} index {} entries {} commit {}{}",
                from.0,
                message.kind,
                message.term,
                message.index,
                message.entries.len(),
                message.commit,
                if message.reject { " refused" } else { "" },
            ),
        );
        let mut delivered = true;
        if let (Some(meta), Some(content)) = (&message.snapshot, content) {
            let admitted = admit_snapshot(&*inbox, &*stores.snapshots, &message, 0);
            let stored = match admitted {
                Ok((_, SnapshotWish::MessageOnly)) => Ok(None),
                Ok((meta, SnapshotWish::Content)) => {
                    store_snapshot(&*stores.snapshots, &meta, &content).map(Some)
                }
                Err(refusal) => Err(refusal.to_string()),
            };
            match stored {
                Ok(None) => {}
                Ok(Some(meta)) => {
                    self.flips.received(to, meta.index, is_bad);
                    message.snapshot = Some(meta);
                }
                Err(why) => {
                    let why = self.hosts[to.0].disk.describe(why);
                    self.trace.line(
                        now,
                        Who::Host(to),
                        format_args!("cannot store the snapshot at {}: {why}", meta.index),
                    );
                    delivered = false;
                }
            }
        }
        if delivered && let Some(running) = self.hosts[to.0].running() {
            running.inbox.deliver(vec![message]);
        }
        if let Some(index) = snapshot {
            let fate = if delivered { SnapshotFate::Delivered } else { SnapshotFate::Failed };
            self.notify(from, Content::SnapshotSent(receiver, index, fate), NOTICE_US);
        }
        self.wake(to);
    }

    /// What the door of a node says to a sender, which introduces itself as over a real connection.
    fn introduce(
        &mut self,
        from: Slot,
        to: Slot,
        inbox: &NodeInbox,
        message: &PeerMessage,
        address: &str,
    ) -> Result<Member, Refused> {
        let us = self.identity(to);
        let said = hello(&self.identity(from), message.to, address);
        let answer = introduce(&us, inbox, Some(said), None);
        let is_excused = self.hosts[from.0].is_excused() || self.hosts[to.0].is_excused();
        let refused = answer.as_ref().err();
        if let Some(why) = refused {
            let now = self.now();
            self.trace.line(now, Who::Host(to), format_args!("turns n{} away: {why}", from.0));
            self.counters.turned_away += 1;
        }
        self.fact(&Fact::AtTheDoor {
            slot: to,
            node: us.node,
            from: message.from,
            wanted: message.to,
            refused,
            is_excused,
        });
        answer
    }

    fn come_in(&mut self, from: Slot, to: Slot, sender: Member) {
        let Some(running) = self.hosts[to.0].running() else { return };
        let is_new = !running.introduced.contains(&from);
        if is_new || running.inbox.standing(sender.id) == Standing::Newcomer {
            running.inbox.peer_seen(sender);
        }
        if is_new {
            running.introduced.push(from);
        }
    }

    fn read_snapshot(&mut self, slot: Slot, meta: &SnapshotMeta) -> Result<Vec<u8>, String> {
        let stores = self.stores(slot).ok_or("the node is gone")?;
        let opened = stores.snapshots.open(meta.group, meta.index);
        let (found, mut reader) = opened.map_err(|error| self.describe(slot, error))?;
        if found.position() != meta.position() {
            return Err(format!("the snapshot at {} is of term {}", found.index, found.term));
        }
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(|error| self.describe(slot, error))?;
        Ok(content)
    }

    fn describe(&self, slot: Slot, error: impl std::fmt::Display) -> String {
        self.hosts[slot.0].disk.describe(error)
    }

    /// A node's connections break: what is on its way to it is lost.
    pub(super) fn reset_connections(&mut self, slot: Slot) {
        if let Some(running) = self.hosts[slot.0].running() {
            running.introduced.clear();
        }
        let peers: Vec<NodeId> = self.by_node.keys().copied().collect();
        for peer in peers {
            self.notify(slot, Content::Unreachable(peer), NOTICE_US);
        }
    }
}

/// Keeps a received snapshot, unless it is there.
pub(in crate::sim) fn store_snapshot(
    store: &dyn SnapshotStore,
    meta: &SnapshotMeta,
    content: &[u8],
) -> Result<SnapshotMeta, String> {
    let words = |error: raft_host::storage::StorageError| error.to_string();
    let present = store.list(meta.group).map_err(words)?;
    if let Some(present) = present.into_iter().find(|present| present == meta) {
        return Ok(present);
    }
    let mut sink = store.create(meta.clone()).map_err(words)?;
    std::io::Write::write_all(&mut sink, content).map_err(|error| error.to_string())?;
    sink.finish().map_err(words)
}
