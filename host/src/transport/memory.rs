//! The in-process twin: nodes of one process, joined by a hub that can lose messages and
//! cut links on command. Everything it does follows from its calls and its seed.
//!
//! It keeps the real transport's promises: messages of one link arrive in order, never altered;
//! an `InstallSnapshot` arrives only after its content was copied into the receiver's store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{SharedInbox, SnapshotWish, Transport, admit_snapshot};
use crate::storage::{SnapshotMeta, SnapshotStore, StorageError};
use crate::types::{Member, MessageKind, NodeId, PeerMessage, SnapshotFate};

/// The hub. Clones share it.
#[derive(Clone)]
pub struct MemoryNetwork {
    hub: Arc<Mutex<Hub>>,
}

/// When messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Inside `send`, on the caller's thread, snapshots included.
    Immediate,
    /// When [`MemoryNetwork::deliver_one`] or [`MemoryNetwork::deliver_all`] is called, in the
    /// order they were sent: for tests that choose every interleaving.
    Manual,
}

/// One node's end of a [`MemoryNetwork`].
pub struct MemoryTransport {
    node: NodeId,
    network: MemoryNetwork,
}

struct Hub {
    delivery: Delivery,
    nodes: BTreeMap<NodeId, Node>,
    /// Directed links that carry nothing.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Directed links whose receiver has seen the sender's introduction.
    introduced: BTreeSet<(NodeId, NodeId)>,
    loss_per_mille: u32,
    random: ChaCha8Rng,
    in_flight: VecDeque<PeerMessage>,
}

#[derive(Clone)]
struct Node {
    address: String,
    peers: BTreeMap<NodeId, Member>,
    snapshots: Arc<dyn SnapshotStore>,
    inbox: SharedInbox,
}

/// What is to be done for a message once the hub is unlocked again.
enum Step {
    Deliver { message: PeerMessage, sender: Option<Node>, receiver: Node, introduce: bool },
    Lost { message: PeerMessage, sender: Option<Node>, unreachable: bool },
}

impl MemoryNetwork {
    /// A network without nodes and faults. The seed decides which messages get lost.
    pub fn new(delivery: Delivery, seed: u64) -> MemoryNetwork {
        MemoryNetwork {
            hub: Arc::new(Mutex::new(Hub {
                delivery,
                nodes: BTreeMap::new(),
                cut: BTreeSet::new(),
                introduced: BTreeSet::new(),
                loss_per_mille: 0,
                random: ChaCha8Rng::seed_from_u64(seed),
                in_flight: VecDeque::new(),
            })),
        }
    }

    /// Connects a node, in place of the one that had this id before (a restart).
    pub fn join(
        &self,
        member: Member,
        snapshots: Arc<dyn SnapshotStore>,
        inbox: SharedInbox,
    ) -> Arc<MemoryTransport> {
        let Member { id, address } = member;
        self.leave(id);
        let node = Node { address, peers: BTreeMap::new(), snapshots, inbox };
        self.hub().nodes.insert(id, node);
        Arc::new(MemoryTransport { node: id, network: self.clone() })
    }

    /// Disconnects a node (a crash); what is on its way to it is lost.
    pub fn leave(&self, node: NodeId) {
        let removed = {
            let mut hub = self.hub();
            hub.introduced.retain(|&(from, to)| from != node && to != node);
            hub.in_flight.retain(|message| message.from != node && message.to != node);
            hub.nodes.remove(&node)
        };
        // Dropped unlocked: an inbox may own things whose end uses the network.
        drop(removed);
    }

    /// Cuts the links between two nodes, both ways.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        let mut hub = self.hub();
        hub.cut.extend([(a, b), (b, a)]);
    }

    /// Cuts one direction only.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.hub().cut.insert((from, to));
    }

    /// Splits the network: nodes talk only to nodes of their own part. A node that is in no
    /// part is alone. Replaces all earlier cuts.
    pub fn partition(&self, parts: &[&[NodeId]]) {
        let mut hub = self.hub();
        hub.cut.clear();
        let nodes: Vec<NodeId> = hub.nodes.keys().copied().collect();
        for &a in &nodes {
            for &b in &nodes {
                let together = parts.iter().any(|part| part.contains(&a) && part.contains(&b));
                if a != b && !together {
                    hub.cut.insert((a, b));
                }
            }
        }
    }

    /// Mends all links.
    pub fn heal(&self) {
        self.hub().cut.clear();
    }

    /// Loses this many of a thousand messages.
    pub fn set_loss(&self, per_mille: u32) {
        self.hub().loss_per_mille = per_mille;
    }

    /// Delivers, or loses, the message that was sent first. False when none is in flight.
    pub fn deliver_one(&self) -> bool {
        let step = {
            let mut hub = self.hub();
            let Some(message) = hub.in_flight.pop_front() else { return false };
            hub.step(message)
        };
        step.run();
        true
    }

    /// Delivers until nothing is in flight, or `limit` messages travelled. Returns how many did.
    pub fn deliver_all(&self, limit: usize) -> usize {
        (0..limit).take_while(|_| self.deliver_one()).count()
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        // No code of others runs under this lock, so a poisoned hub is still whole.
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for MemoryTransport {
    fn set_peers(&self, peers: BTreeMap<NodeId, Member>) {
        if let Some(node) = self.network.hub().nodes.get_mut(&self.node) {
            node.peers = peers;
        }
    }

    fn send(&self, messages: Vec<PeerMessage>) {
        let steps: Vec<Step> = {
            let mut hub = self.network.hub();
            if hub.delivery == Delivery::Manual {
                hub.in_flight.extend(messages);
                return;
            }
            messages.into_iter().map(|message| hub.step(message)).collect()
        };
        steps.into_iter().for_each(Step::run);
    }

    /// What is on its way from that peer is lost, and it introduces itself anew.
    fn disconnect(&self, peer: NodeId, _why: &str) {
        let mut hub = self.network.hub();
        hub.in_flight.retain(|message| message.from != peer || message.to != self.node);
        hub.introduced.remove(&(peer, self.node));
    }
}

impl Hub {
    fn step(&mut self, message: PeerMessage) -> Step {
        let link = (message.from, message.to);
        let sender = self.nodes.get(&message.from).cloned();
        let known = sender.as_ref().is_some_and(|node| node.peers.contains_key(&message.to));
        let receiver = self.nodes.get(&message.to).cloned();
        let lost = self.random.random_range(0..1000) < self.loss_per_mille;
        match receiver {
            Some(receiver) if known && !self.cut.contains(&link) => {
                if lost {
                    Step::Lost { message, sender, unreachable: false }
                } else {
                    let introduce = self.introduced.insert(link);
                    Step::Deliver { message, sender, receiver, introduce }
                }
            }
            _ => {
                self.introduced.remove(&link);
                Step::Lost { message, sender, unreachable: true }
            }
        }
    }
}

impl Step {
    fn run(self) {
        match self {
            Step::Deliver { mut message, sender, receiver, introduce } => {
                if introduce && let Some(sender) = &sender {
                    let address = sender.address.clone();
                    receiver.inbox.peer_seen(Member { id: message.from, address });
                }
                if message.kind == MessageKind::InstallSnapshot {
                    let Some(sender) = sender else { return };
                    let (group, to) = (message.group, message.to);
                    let index = message.snapshot.as_ref().map(|meta| meta.index);
                    let index = index.unwrap_or_default();
                    let admitted =
                        admit_snapshot(&*receiver.inbox, &*receiver.snapshots, &message, 0);
                    let copied = match admitted {
                        Ok((meta, SnapshotWish::Content)) => {
                            copy_snapshot(&*sender.snapshots, &*receiver.snapshots, &meta)
                        }
                        Ok((meta, SnapshotWish::MessageOnly)) => Ok(meta),
                        Err(refusal) => Err(NotCopied::Failed(refusal.to_string())),
                    };
                    let fate = match copied {
                        Ok(meta) => {
                            message.snapshot = Some(meta);
                            receiver.inbox.deliver(vec![message]);
                            SnapshotFate::Delivered
                        }
                        Err(NotCopied::Unreadable(error)) => {
                            tracing::warn!(%group, %to, %index, %error, "snapshot cannot be read");
                            SnapshotFate::Unreadable
                        }
                        Err(NotCopied::Failed(error)) => {
                            tracing::warn!(%group, %to, %index, %error, "snapshot was not delivered");
                            SnapshotFate::Failed
                        }
                    };
                    sender.inbox.snapshot_sent(group, to, index, fate);
                } else {
                    receiver.inbox.deliver(vec![message]);
                }
            }
            Step::Lost { message, sender, unreachable } => {
                let Some(sender) = sender else { return };
                if let Some(meta) = message.snapshot {
                    sender.inbox.snapshot_sent(
                        message.group,
                        message.to,
                        meta.index,
                        SnapshotFate::Failed,
                    );
                }
                if unreachable {
                    sender.inbox.unreachable(message.to);
                }
            }
        }
    }
}

/// Why a snapshot was not copied.
enum NotCopied {
    /// The sender's own is of no use.
    Unreadable(String),
    Failed(String),
}

/// Copies the content of a snapshot unless the receiver has it, and returns its metadata there.
fn copy_snapshot(
    from: &dyn SnapshotStore,
    to: &dyn SnapshotStore,
    wanted: &SnapshotMeta,
) -> Result<SnapshotMeta, NotCopied> {
    let words = |error: StorageError| NotCopied::Failed(error.to_string());
    let unreadable = |error: StorageError| NotCopied::Unreadable(error.to_string());
    let present = to.list(wanted.group).map_err(words)?;
    // At the same position the receiver may have one of a state that went wrong there.
    if let Some(meta) = present.into_iter().find(|meta| meta == wanted) {
        return Ok(meta);
    }
    let (meta, mut content) = from.open(wanted.group, wanted.index).map_err(unreadable)?;
    if meta.position() != wanted.position() {
        let words = format!("the snapshot at {} is of term {}", meta.index, meta.term);
        return Err(NotCopied::Unreadable(words));
    }
    // Before the receiver has any of it.
    io::copy(&mut content, &mut io::sink())
        .map_err(|error| NotCopied::Unreadable(error.to_string()))?;
    let (_, mut content) = from.open(wanted.group, wanted.index).map_err(unreadable)?;
    let mut sink = to.create(meta.clone()).map_err(words)?;
    io::copy(&mut content, &mut sink).map_err(|error| NotCopied::Failed(error.to_string()))?;
    let finished = sink.finish().map_err(words)?;
    if finished != meta {
        return Err(NotCopied::Failed("the copy differs from the original".to_owned()));
    }
    Ok(finished)
}

#[cfg(test)]
mod tests;
