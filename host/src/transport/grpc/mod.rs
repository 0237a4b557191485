//! The transport over gRPC: one task, one bounded queue and one long-lived stream per peer.
//!
//! Raft's answers travel on the answering node's own stream, so each pair of nodes has two
//! connections, one dialed by each. Snapshots take a connection of their own: on a shared one
//! a heartbeat would stand behind megabytes.
//!
//! ```text
//!   send -> SendQueue -> EnvelopeStream -> Peer.Messages -> PeerService -> Inbox
//!     \--> SnapshotTask (reads the store) -> Peer.Snapshot -> receive (writes the store) -/
//! ```

mod config;
mod door;
mod hello;
mod incoming;
mod peer;
mod queue;
mod removal;
mod service;
mod snapshot_receive;
mod snapshot_send;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use raft_host_proto::peer::peer_server::PeerServer;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

pub use config::{
    MAX_MESSAGE_BYTES, MAX_SNAPSHOT_PART_BYTES, TransportConfig, TransportConfigError,
};
pub use door::{Refused, introduce};
pub use hello::{HelloError, hello};
pub use service::{PeerMark, ProvedNode};

use self::config::millis;
use self::incoming::Incoming;
use self::peer::{PeerHandle, PeerTask};
use self::service::PeerService;
use self::snapshot_receive::Receptions;
use self::snapshot_send::SnapshotTask;
use super::{Identity, NetworkTransport, Opening, SharedInbox, Transport, TransportFactory};
use crate::storage::{SnapshotMeta, SnapshotStore};
use crate::tls::NodeDialer;
use crate::types::{Member, MessageKind, NodeId, PeerMessage, SnapshotFate};

/// Sends to peers over gRPC. Receiving is [`PeerService`]'s work; see
/// [`GrpcTransport::peer_server`].
struct GrpcTransport {
    shared: Arc<Shared>,
    peers: Arc<PeerTable>,
    incoming: Arc<Incoming>,
    runtime: Handle,
    tasks: TaskTracker,
    /// Begins the shutdown: queues empty themselves, receiving streams and snapshots end.
    closing: CancellationToken,
    /// Ends every task at once.
    cancel: CancellationToken,
}

/// What every task needs.
struct Shared {
    identity: Identity,
    snapshots: Arc<dyn SnapshotStore>,
    inbox: SharedInbox,
    config: TransportConfig,
    dialer: NodeDialer,
    /// The snapshot that was read last and found to be good. What rots later is found when it is
    /// read for sending.
    verified: Mutex<Option<SnapshotMeta>>,
}

/// The peers that have a task.
#[derive(Default)]
struct PeerTable {
    handles: RwLock<BTreeMap<NodeId, Arc<PeerHandle>>>,
}

impl GrpcTransport {
    /// A transport without peers. `config` must be valid.
    fn new(opening: Opening, config: TransportConfig) -> Arc<GrpcTransport> {
        let Opening { identity, snapshots, inbox, runtime, dialer } = opening;
        Arc::new(GrpcTransport {
            shared: Arc::new(Shared {
                identity,
                snapshots,
                inbox,
                config,
                dialer,
                verified: Mutex::default(),
            }),
            peers: Arc::default(),
            incoming: Arc::default(),
            runtime,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            cancel: CancellationToken::new(),
        })
    }

    /// The receiving side, to be mounted in a server made by
    /// [`TransportConfig::server_builder`]. A peer that connects to it is dialed back at once,
    /// and its streams end when this transport shuts down.
    fn peer_server(&self) -> PeerServer<PeerService> {
        let shared = &self.shared;
        PeerService {
            identity: shared.identity.clone(),
            snapshots: Arc::clone(&shared.snapshots),
            inbox: Arc::clone(&shared.inbox),
            shutdown: self.closing.clone(),
            stall_timeout: millis(shared.config.snapshot_stall_timeout_ms),
            receptions: Receptions::default(),
            incoming: Arc::clone(&self.incoming),
            dial_back: Arc::clone(&self.peers),
        }
        .into_server()
    }

    /// See [`NetworkTransport::shutdown`].
    async fn end(&self) {
        self.closing.cancel();
        for peer in self.peers.all() {
            peer.queue.close();
        }
        self.tasks.close();
        let flush = millis(self.shared.config.flush_timeout_ms);
        if tokio::time::timeout(flush, self.tasks.wait()).await.is_err() {
            tracing::debug!("some peers did not take all queued messages before the shutdown");
        }
        self.cancel.cancel();
        self.tasks.wait().await;
    }

    fn start_snapshot(&self, peer: &Arc<PeerHandle>, message: PeerMessage) {
        match SnapshotTask::begin(&self.shared, peer, &self.closing) {
            Some(task) => {
                self.spawn("a task that sends a snapshot", task.run(message));
            }
            None => self.refuse_snapshot(message),
        }
    }

    /// Reports from a task: the caller of `send` may hold what its inbox needs.
    fn refuse_snapshot(&self, message: PeerMessage) {
        let inbox = Arc::clone(&self.shared.inbox);
        let index = message.snapshot.map(|meta| meta.index).unwrap_or_default();
        let report = async move {
            inbox.snapshot_sent(message.group, message.to, index, SnapshotFate::Failed);
        };
        self.spawn("a task that reports to the node", report);
    }

    fn report_unknown(&self, peer: NodeId) {
        let inbox = Arc::clone(&self.shared.inbox);
        self.spawn("a task that reports to the node", async move { inbox.unreachable(peer) });
    }

    /// A peer without its task would be cut off, and nobody would say why.
    fn spawn(&self, what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let guard = TellOnPanic { inbox: Arc::clone(&self.shared.inbox), what };
        let guarded = async move {
            let _guard = guard;
            work.await;
        };
        self.tasks.spawn_on(guarded, &self.runtime);
    }
}

impl Transport for GrpcTransport {
    fn set_peers(&self, peers: BTreeMap<NodeId, Member>) {
        let mut handles = self.peers.handles.write().unwrap_or_else(PoisonError::into_inner);
        if self.closing.is_cancelled() {
            return;
        }
        handles.retain(|id, handle| {
            let stays = peers.contains_key(id);
            if !stays {
                handle.cancel.cancel();
            }
            stays
        });
        for (id, member) in peers {
            if id == self.shared.identity.node {
                continue;
            }
            if let Some(handle) = handles.get(&id) {
                handle.set_address(member.address);
                continue;
            }
            let cancel = self.cancel.child_token();
            let handle = Arc::new(PeerHandle::new(id, member.address, &self.shared.config, cancel));
            let task =
                PeerTask::new(Arc::clone(&self.shared), Arc::clone(&handle), self.closing.clone());
            self.spawn("the task of a peer", task.run());
            handles.insert(id, handle);
        }
    }

    fn send(&self, messages: Vec<PeerMessage>) {
        if self.closing.is_cancelled() {
            return;
        }
        let mut by_peer: BTreeMap<NodeId, Vec<PeerMessage>> = BTreeMap::new();
        for message in messages {
            by_peer.entry(message.to).or_default().push(message);
        }
        for (to, mut messages) in by_peer {
            let peer = self.peers.get(to);
            let is_snapshot = |m: &PeerMessage| m.kind == MessageKind::InstallSnapshot;
            if messages.iter().any(is_snapshot) {
                let (snapshots, others) = messages.into_iter().partition(is_snapshot);
                messages = others;
                for message in snapshots {
                    match &peer {
                        Some(peer) => self.start_snapshot(peer, message),
                        None => self.refuse_snapshot(message),
                    }
                }
            }
            match peer {
                Some(peer) => peer.queue.push(messages),
                None => self.report_unknown(to),
            }
        }
    }

    fn disconnect(&self, peer: NodeId, why: &str) {
        self.incoming.end(peer, why);
    }
}

impl NetworkTransport for GrpcTransport {
    fn routes(&self) -> Routes {
        Routes::new(self.peer_server())
    }

    fn queued_bytes(&self) -> BTreeMap<NodeId, u64> {
        self.peers.all().iter().map(|peer| (peer.id, peer.queue.bytes())).collect()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }
}

impl TransportFactory for TransportConfig {
    fn open(&self, opening: Opening) -> Arc<dyn NetworkTransport> {
        GrpcTransport::new(opening, self.clone())
    }
}

/// Tells the node of the panic of a task.
struct TellOnPanic {
    inbox: SharedInbox,
    what: &'static str,
}

impl Drop for TellOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.inbox.broken(self.what);
        }
    }
}

impl Drop for GrpcTransport {
    fn drop(&mut self) {
        // Without a shutdown nobody joins the tasks, but none of them stays.
        self.closing.cancel();
        self.cancel.cancel();
    }
}

impl PeerTable {
    fn get(&self, id: NodeId) -> Option<Arc<PeerHandle>> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn all(&self) -> Vec<Arc<PeerHandle>> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.values().cloned().collect()
    }

    /// A peer has just shown that it lives: no need to wait longer before dialing it.
    fn dial_back(&self, id: NodeId) {
        if let Some(peer) = self.get(id) {
            peer.dial_now.notify_one();
        }
    }
}
