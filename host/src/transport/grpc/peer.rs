//! The task that keeps one peer connected.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use raft_host_proto::peer::peer_client::PeerClient;
use raft_host_proto::v1::ErrorDetail;
use rand::Rng as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Shared;
use super::config::{MAX_MESSAGE_BYTES, TransportConfig, millis};
use super::hello::hello;
use super::queue::{EnvelopeStream, SendQueue};
use super::removal;
use crate::transport::Identity;
use crate::types::{Index, NodeId};

/// With new certificates, connections are made anew within this time.
const RENEWAL_SPREAD: Duration = Duration::from_secs(2);

/// What the transport holds of a peer.
pub(super) struct PeerHandle {
    pub(super) id: NodeId,
    pub(super) queue: Arc<SendQueue>,
    /// Ends the pause before the next attempt to connect.
    pub(super) dial_now: Notify,
    pub(super) cancel: CancellationToken,
    /// At most one snapshot is on its way to a peer.
    pub(super) snapshot_busy: AtomicBool,
    address: watch::Sender<String>,
}

impl PeerHandle {
    pub(super) fn new(
        id: NodeId,
        address: String,
        config: &TransportConfig,
        cancel: CancellationToken,
    ) -> PeerHandle {
        let queue =
            SendQueue::new(config.queue_bytes, config.queue_messages, config.envelope_bytes);
        PeerHandle {
            id,
            queue: Arc::new(queue),
            dial_now: Notify::new(),
            cancel,
            snapshot_busy: AtomicBool::new(false),
            address: watch::Sender::new(address),
        }
    }

    /// Where the peer lives now; the task redials when that is news.
    pub(super) fn set_address(&self, address: String) {
        self.address.send_if_modified(|current| {
            let changed = *current != address;
            *current = address;
            changed
        });
    }

    pub(super) fn address(&self) -> String {
        self.address.borrow().clone()
    }
}

/// How a connection ended, or why there was none.
pub(super) enum End {
    /// The peer ended the stream: it shuts down.
    Closed,
    /// The peer will not talk to this node; its words.
    Refused(String),
    /// The peer says that this node is no member of the cluster as of this index; its words.
    Removed(Index, String),
    /// The stream broke, or the peer could not serve it.
    Broken(String),
    /// No connection could be made.
    NotConnected(String),
}

impl End {
    /// How a call of `us` to `peer` ended.
    pub(super) fn of(us: &Identity, peer: NodeId, status: &Status) -> End {
        if let Some(as_of) = removal::stated(us, peer, status) {
            return End::Removed(as_of, status.message().to_owned());
        }
        match status.code() {
            Code::FailedPrecondition | Code::InvalidArgument => {
                End::Refused(status.message().to_owned())
            }
            Code::PermissionDenied | Code::Unauthenticated if ErrorDetail::of(status).is_some() => {
                End::Refused(status.message().to_owned())
            }
            Code::PermissionDenied | Code::Unauthenticated => End::Refused(format!(
                "what listens there lets nobody in, and is no member of this cluster: {}",
                status.message()
            )),
            Code::Unimplemented => {
                End::Refused("what listens there does not serve raft-host's peers".to_owned())
            }
            _ => End::Broken(describe(status)),
        }
    }
}

/// Dials a peer.
pub(super) async fn dial(
    shared: &Shared,
    peer: NodeId,
    address: &str,
) -> Result<PeerClient<Channel>, End> {
    let config = &shared.config;
    let way = shared.dialer.to_node(peer).way(address);
    let way = way.map_err(|error| End::NotConnected(error.to_string()))?;
    let way = way.tuned(|endpoint| config.tune(endpoint));
    let limit = millis(config.connect_timeout_ms);
    match tokio::time::timeout(limit, way.connect()).await {
        Ok(Ok(channel)) => {
            Ok(PeerClient::new(channel).max_encoding_message_size(MAX_MESSAGE_BYTES))
        }
        Ok(Err(error)) => Err(End::NotConnected(describe(&error))),
        Err(_) => Err(End::NotConnected(format!("no connection within {limit:?}"))),
    }
}

/// Connects to one peer, and again, until it is cancelled.
pub(super) struct PeerTask {
    shared: Arc<Shared>,
    peer: Arc<PeerHandle>,
    closing: CancellationToken,
}

impl PeerTask {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: Arc<PeerHandle>,
        closing: CancellationToken,
    ) -> PeerTask {
        PeerTask { shared, peer, closing }
    }

    pub(super) async fn run(self) {
        tokio::select! {
            () = self.peer.cancel.cancelled() => {}
            () = self.keep_connected() => {}
            () = self.report_drops() => {}
        }
        self.peer.queue.disconnect();
    }

    async fn keep_connected(&self) {
        let Shared { identity, inbox, config, .. } = &*self.shared;
        let (id, queue) = (self.peer.id, &self.peer.queue);
        let mut address = self.peer.address.subscribe();
        let mut news = self.shared.dialer.news();
        let mut failures = 0;
        let mut logged = None;
        loop {
            let target = address.borrow_and_update().clone();
            let envelopes = queue.connect(hello(identity, id, &target));
            let started = Instant::now();
            let end = tokio::select! {
                end = self.stream_to(&target, envelopes) => Some(end),
                _ = address.changed() => None,
                () = renewed(&mut news) => None,
            };
            let lost = queue.disconnect();
            if self.closing.is_cancelled() {
                return;
            }
            if lost || !matches!(end, Some(End::NotConnected(_))) {
                inbox.unreachable(id);
            }
            let Some(end) = end else {
                (failures, logged) = (0, None);
                continue;
            };
            // gRPC does not tell when a peer accepts the stream; that it lasted does.
            if started.elapsed() >= millis(config.reconnect_max_ms) {
                (failures, logged) = (0, None);
            }
            failures += 1;
            self.log_once(&mut logged, &target, &end);
            tokio::select! {
                () = tokio::time::sleep(pause(config, &end, failures)) => {}
                () = self.peer.dial_now.notified() => {}
                _ = address.changed() => (failures, logged) = (0, None),
                () = self.closing.cancelled() => return,
            }
        }
    }

    async fn stream_to(&self, address: &str, envelopes: EnvelopeStream) -> End {
        let mut client = match dial(&self.shared, self.peer.id, address).await {
            Ok(client) => client,
            Err(end) => return end,
        };
        tracing::debug!(peer = %self.peer.id, %address, "connected");
        match client.messages(envelopes).await {
            Ok(_) => End::Closed,
            Err(status) => End::of(&self.shared.identity, self.peer.id, &status),
        }
    }

    /// Says what is wrong when it is news: the same failure repeats with every attempt.
    fn log_once(&self, logged: &mut Option<String>, address: &str, end: &End) {
        let peer = self.peer.id;
        let words = match end {
            End::Closed => {
                tracing::debug!(%peer, %address, "the peer closed the connection");
                return;
            }
            End::Removed(as_of, words) => {
                self.shared.inbox.removed(peer, *as_of);
                words
            }
            End::Refused(words) | End::Broken(words) | End::NotConnected(words) => words,
        };
        if logged.as_ref() == Some(words) {
            tracing::debug!(%peer, %address, error = %words, "still not connected");
            return;
        }
        match end {
            End::Refused(_) | End::Removed(..) => {
                tracing::warn!(%peer, %address, reason = %words, "the peer refuses this node");
            }
            _ => tracing::warn!(%peer, %address, error = %words, "the peer is not reachable"),
        }
        *logged = Some(words.clone());
    }

    /// Tells the inbox about dropped messages, at a bounded rate. Never ends.
    async fn report_drops(&self) {
        loop {
            self.peer.queue.dropped().await;
            self.shared.inbox.unreachable(self.peer.id);
            tokio::time::sleep(millis(self.shared.config.unreachable_interval_ms)).await;
        }
    }
}

/// There are new certificates. Not all peers are dialled anew at once.
async fn renewed(news: &mut Option<watch::Receiver<u64>>) {
    if let Some(news) = news
        && news.changed().await.is_ok()
    {
        let pause = rand::rng().random_range(Duration::ZERO..RENEWAL_SPREAD);
        return tokio::time::sleep(pause).await;
    }
    std::future::pending().await
}

fn pause(config: &TransportConfig, end: &End, failures: u32) -> Duration {
    match end {
        // Only people can mend this: look again now and then.
        End::Refused(_) | End::Removed(..) => {
            let least = config.refused_retry_ms;
            millis(rand::rng().random_range(least..=least.saturating_mul(2)))
        }
        _ => config.backoff(failures),
    }
}

/// An error with its causes: tonic's own words alone are "transport error".
fn describe(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}
