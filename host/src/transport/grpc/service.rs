//! The receiving side: checks who speaks, then hands messages to the inbox in order.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raft_host_proto::peer;
use raft_host_proto::peer::peer_server::{Peer, PeerServer};
use raft_host_proto::peer::snapshot_part::Part;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::config::MAX_MESSAGE_BYTES;
use super::hello::HelloError;
use super::incoming::Incoming;
use super::snapshot_receive::{Reception, Receptions};
use super::{PeerTable, door};
use crate::storage::{SnapshotMeta, SnapshotStore};
use crate::transport::{
    Identity, SharedInbox, SnapshotRefusal, SnapshotWish, Standing, admit_snapshot,
};
use crate::types::{ClusterId, Member, MessageKind, NodeId, PeerMessage};

/// Who opens a stream and says nothing is sent away after this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Who serves this puts one into the requests of a connection, and learns whether a member uses it.
#[derive(Clone, Debug, Default)]
pub struct PeerMark {
    is_set: Arc<AtomicBool>,
    until: Option<std::time::Instant>,
}

/// Who serves this puts one into the requests of a connection whose other end has proved to be that node, where
/// nodes have to prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvedNode {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id there.
    pub node: NodeId,
}

impl PeerMark {
    /// Of a connection that is let go of at that time: streams on it end then, and are opened anew on another one.
    pub fn until(until: Option<std::time::Instant>) -> PeerMark {
        PeerMark { until, ..PeerMark::default() }
    }

    async fn ends(until: Option<std::time::Instant>) {
        match until {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
    }

    fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
    }

    /// Whether a member has introduced itself on the connection.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }
}

/// Serves `raft_host.peer.v1.Peer`.
pub(super) struct PeerService {
    pub(super) identity: Identity,
    pub(super) snapshots: Arc<dyn SnapshotStore>,
    pub(super) inbox: SharedInbox,
    /// Ends all streams.
    pub(super) shutdown: CancellationToken,
    pub(super) stall_timeout: Duration,
    /// Groups that are receiving a snapshot: at most one at a time each.
    pub(super) receptions: Receptions,
    /// The streams of peers.
    pub(super) incoming: Arc<Incoming>,
    /// Whoever connects is dialled back at once.
    pub(super) dial_back: Arc<PeerTable>,
}

impl PeerService {
    pub(super) fn into_server(self) -> PeerServer<PeerService> {
        PeerServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn introduce(
        &self,
        hello: Option<peer::Hello>,
        proved: Option<ProvedNode>,
    ) -> Result<Member, Status> {
        door::introduce(&self.identity, &*self.inbox, hello, proved)
            .map_err(|refused| refused.status(&self.identity))
    }

    /// A message of `peer` to this node.
    fn check_message(&self, peer: NodeId, wire: peer::RaftMessage) -> Result<PeerMessage, Status> {
        let message = PeerMessage::try_from(wire)
            .map_err(|error| refuse(peer, &format!("a message breaks the rules: {error}")))?;
        if message.from != peer || message.to != self.identity.node {
            let (from, to, us) = (message.from, message.to, self.identity.node);
            let words = format!(
                "a message from node {from} to node {to} came on the stream \
                 from node {peer} to node {us}"
            );
            return Err(refuse(peer, &words));
        }
        if !self.inbox.has_group(message.group) {
            let words = format!("this node has no group {}", message.group);
            return Err(refuse(peer, &words));
        }
        Ok(message)
    }

    /// Whether an announced snapshot is taken, decided before any of it is stored.
    fn admit(&self, message: &PeerMessage) -> Result<(SnapshotMeta, SnapshotWish), Status> {
        let received =
            message.snapshot.as_ref().map_or(0, |meta| self.receptions.received_bytes(meta));
        admit_snapshot(&*self.inbox, &*self.snapshots, message, received).map_err(|refusal| {
            let peer = message.from;
            tracing::debug!(%peer, %refusal, "refused a snapshot");
            let words = refusal.to_string();
            match refusal {
                SnapshotRefusal::None | SnapshotRefusal::TooLarge { .. } => refuse(peer, &words),
                SnapshotRefusal::NotWanted(_) => Status::failed_precondition(words),
                SnapshotRefusal::NoSpace { .. } => Status::resource_exhausted(words),
                SnapshotRefusal::Storage(_) => Status::internal(words),
            }
        })
    }

    /// Members' connections are kept when others are too many.
    fn mark(&self, peer: NodeId, mark: Option<PeerMark>) {
        if let Some(mark) = mark.filter(|_| self.inbox.standing(peer) == Standing::Member) {
            mark.set();
        }
    }

    fn accept(&self, peer: NodeId, wire: Vec<peer::RaftMessage>) -> Result<(), Status> {
        let mut messages = Vec::with_capacity(wire.len());
        let mut refused = None;
        for message in wire {
            match self.check_message(peer, message) {
                Ok(message) if message.kind == MessageKind::InstallSnapshot => {
                    let words = "an InstallSnapshot message came without its content";
                    refused = Some(refuse(peer, words));
                    break;
                }
                Ok(message) => messages.push(message),
                Err(status) => {
                    refused = Some(status);
                    break;
                }
            }
        }
        // What came before the bad one was good.
        if !messages.is_empty() {
            self.inbox.deliver(messages);
        }
        refused.map_or(Ok(()), Err)
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn messages(
        &self,
        request: Request<Streaming<peer::PeerEnvelope>>,
    ) -> Result<Response<peer::MessagesClosed>, Status> {
        let mark = request.extensions().get::<PeerMark>().cloned();
        let proved = request.extensions().get::<ProvedNode>().copied();
        let mut stream = request.into_inner();
        let closed = || Ok(Response::new(peer::MessagesClosed {}));
        let Some(first) = next(&mut stream, &self.shutdown, HELLO_TIMEOUT).await? else {
            return closed();
        };
        let member = self.introduce(first.hello, proved)?;
        let peer = member.id;
        tracing::debug!(%peer, address = %member.address, "a peer connected");
        self.inbox.peer_seen(member.clone());
        self.dial_back.dial_back(peer);
        let mut registration = self.incoming.register(peer);
        let mut over = pin!(PeerMark::ends(mark.as_ref().and_then(|mark| mark.until)));
        self.mark(peer, mark);
        self.accept(peer, first.messages)?;
        loop {
            let envelope = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return closed(),
                () = &mut over => return closed(),
                // Whoever ended it has named it.
                why = registration.ended() => return Err(Status::invalid_argument(why)),
                envelope = stream.message() => envelope?,
            };
            let Some(envelope) = envelope else { return closed() };
            if envelope.hello.is_some() {
                return Err(HelloError::Repeated.into());
            }
            if self.inbox.standing(peer) == Standing::Newcomer {
                // Nobody else tells this node where it lives, which may have forgotten it.
                self.inbox.peer_seen(member.clone());
            }
            self.accept(peer, envelope.messages)?;
        }
    }

    async fn offer_snapshot(
        &self,
        request: Request<peer::SnapshotOffer>,
    ) -> Result<Response<peer::SnapshotAccepted>, Status> {
        let proved = request.extensions().get::<ProvedNode>().copied();
        let peer::SnapshotOffer { hello, message } = request.into_inner();
        let peer = self.introduce(hello, proved)?.id;
        let Some(wire) = message else {
            return Err(refuse(peer, "an offer of a snapshot comes with its message"));
        };
        let message = self.check_message(peer, wire)?;
        let (meta, wish) = self.admit(&message)?;
        let received_bytes = match wish {
            SnapshotWish::MessageOnly => meta.size_bytes,
            SnapshotWish::Content => self.receptions.received_bytes(&meta),
        };
        Ok(Response::new(peer::SnapshotAccepted { received_bytes }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotPart>>,
    ) -> Result<Response<peer::SnapshotReceived>, Status> {
        let mark = request.extensions().get::<PeerMark>().cloned();
        let proved = request.extensions().get::<ProvedNode>().copied();
        let mut stream = request.into_inner();
        let first = next(&mut stream, &self.shutdown, HELLO_TIMEOUT).await?;
        let hello = match first.and_then(|part| part.part) {
            Some(Part::Hello(hello)) => Some(hello),
            _ => None,
        };
        let peer = self.introduce(hello, proved)?.id;
        self.mark(peer, mark);
        let second = next(&mut stream, &self.shutdown, self.stall_timeout).await?;
        let Some(peer::SnapshotPart { part: Some(Part::Message(wire)), start_at }) = second else {
            return Err(refuse(peer, "the message must follow the hello of a snapshot"));
        };
        let mut message = self.check_message(peer, wire)?;
        // Also of who has offered it: much may have happened since.
        let (meta, wish) = self.admit(&message)?;
        if wish == SnapshotWish::Content {
            let store = Arc::clone(&self.snapshots);
            let reception = Reception::begin(&self.receptions, store, meta, start_at)?;
            let stored = reception.run(&mut stream, &self.shutdown, self.stall_timeout).await;
            message.snapshot = Some(stored.inspect_err(|status| {
                tracing::warn!(%peer, reason = status.message(), "a snapshot was not received");
            })?);
        }
        self.inbox.deliver(vec![message]);
        Ok(Response::new(peer::SnapshotReceived {}))
    }
}

/// The next message of a stream, within a time and until the shutdown.
pub(super) async fn next<T>(
    stream: &mut Streaming<T>,
    shutdown: &CancellationToken,
    limit: Duration,
) -> Result<Option<T>, Status> {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => Err(Status::unavailable("the node is shutting down")),
        message = tokio::time::timeout(limit, stream.message()) => {
            message.map_err(|_| Status::deadline_exceeded(format!("nothing came for {limit:?}")))?
        }
    }
}

fn refuse(peer: NodeId, words: &str) -> Status {
    tracing::warn!(%peer, reason = words, "closed the stream of a peer");
    Status::invalid_argument(words)
}
