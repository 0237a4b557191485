//! Sends one snapshot on a connection of its own.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use raft_host_proto::peer;
use raft_host_proto::peer::peer_client::PeerClient;
use raft_host_proto::peer::snapshot_part::Part;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use super::Shared;
use super::config::millis;
use super::hello::hello;
use super::peer::{End, PeerHandle, dial};
use crate::storage::{SnapshotMeta, SnapshotStore, StorageError};
use crate::types::{Index, LogPosition, NodeId, PeerMessage, SnapshotFate};

/// Parts read ahead of the connection.
const READ_AHEAD_PARTS: usize = 2;

/// Why a snapshot was not delivered.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the message names no snapshot")]
    NoSnapshot,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the snapshot at index {} is of term {}, wanted was term {}", found.index, found.term, wanted.term)]
    OtherTerm { found: LogPosition, wanted: LogPosition },
    #[error("cannot read the snapshot: {0}")]
    Read(#[from] std::io::Error),
    #[error("the task that reads the snapshot broke: {0}")]
    Reader(#[from] tokio::task::JoinError),
    #[error("cannot reach the peer: {0}")]
    NotConnected(String),
    #[error("the peer did not take it: {0}")]
    Refused(String),
    #[error("no progress for {0:?}")]
    Stalled(std::time::Duration),
    #[error("the peer was removed, or this node is shutting down")]
    Cancelled,
}

impl SendError {
    /// Whether the snapshot itself is of no use, whoever asks for it.
    fn is_own(&self) -> bool {
        match self {
            SendError::Storage(StorageError::Corrupt { .. }) | SendError::OtherTerm { .. } => true,
            SendError::Storage(StorageError::Io { source, .. }) | SendError::Read(source) => {
                let is_medium_error = source.raw_os_error() == Some(libc::EIO);
                // Removed since: a newer one is there.
                let is_gone = source.kind() == std::io::ErrorKind::NotFound;
                is_medium_error || is_gone || source.kind() == std::io::ErrorKind::InvalidData
            }
            _ => false,
        }
    }
}

/// One transfer. While it exists no other one to the same peer begins.
pub(super) struct SnapshotTask {
    shared: Arc<Shared>,
    busy: BusyGuard,
    closing: CancellationToken,
}

/// Frees the peer for the next snapshot, also after a panic.
struct BusyGuard(Arc<PeerHandle>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.snapshot_busy.store(false, Ordering::Release);
    }
}

/// From the reading thread. A channel that closes without `End` means that reading failed.
enum Chunk {
    Data(Bytes),
    End,
}

impl SnapshotTask {
    /// Claims the peer; `None` when a snapshot is on its way to it already.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        peer: &Arc<PeerHandle>,
        closing: &CancellationToken,
    ) -> Option<SnapshotTask> {
        if peer.snapshot_busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(SnapshotTask {
            shared: Arc::clone(shared),
            busy: BusyGuard(Arc::clone(peer)),
            closing: closing.clone(),
        })
    }

    pub(super) async fn run(self, message: PeerMessage) {
        let SnapshotTask { shared, busy, closing } = self;
        let (group, to) = (message.group, message.to);
        let index = message.snapshot.as_ref().map_or(Index(0), |meta| meta.index);
        let started = Instant::now();
        let moved = AtomicU64::new(0);
        let sent = send(&shared, &busy.0, &closing, message, &moved).await;
        // Before the report: its receiver may send the next one at once.
        drop(busy);
        match &sent {
            Ok(size_bytes) => tracing::info!(
                %group, %to, %index, size_bytes, elapsed = ?started.elapsed(), "snapshot delivered"
            ),
            Err(error) => tracing::warn!(%group, %to, %index, %error, "snapshot not delivered"),
        }
        let fate = match &sent {
            Ok(_) => SnapshotFate::Delivered,
            Err(error) if error.is_own() => SnapshotFate::Unreadable,
            Err(_) if moved.into_inner() > 0 => SnapshotFate::Interrupted,
            Err(_) => SnapshotFate::Failed,
        };
        shared.inbox.snapshot_sent(group, to, index, fate);
    }
}

async fn send(
    shared: &Arc<Shared>,
    peer: &PeerHandle,
    closing: &CancellationToken,
    message: PeerMessage,
    moved: &AtomicU64,
) -> Result<u64, SendError> {
    tokio::select! {
        () = peer.cancel.cancelled() => Err(SendError::Cancelled),
        () = closing.cancelled() => Err(SendError::Cancelled),
        sent = send_all(shared, peer, message, moved) => sent,
    }
}

/// Reads it first of all, then asks, then sends what is not there.
async fn send_all(
    shared: &Arc<Shared>,
    peer: &PeerHandle,
    mut message: PeerMessage,
    moved: &AtomicU64,
) -> Result<u64, SendError> {
    let wanted = message.snapshot.take().ok_or(SendError::NoSnapshot)?;
    let reading = Arc::clone(shared);
    let meta = tokio::task::spawn_blocking(move || verify(&reading, &wanted)).await??;
    message.snapshot = Some(meta.clone());
    let limit = millis(shared.config.snapshot_stall_timeout_ms);
    let address = peer.address();
    let mut client = connect(shared, peer.id, &address).await?;
    let hello = hello(&shared.identity, peer.id, &address);
    let wire = peer::RaftMessage::from(message);
    let offer = peer::SnapshotOffer { hello: Some(hello.clone()), message: Some(wire.clone()) };
    let start_at = match tokio::time::timeout(limit, client.offer_snapshot(offer)).await {
        Err(_) => return Err(SendError::Stalled(limit)),
        Ok(answer) => {
            answer.map_err(|status| refused(shared, peer.id, &status))?.into_inner().received_bytes
        }
    };
    if start_at > meta.size_bytes {
        return Err(SendError::Refused(format!("it says it has {start_at} bytes")));
    }
    let (chunks, received_chunks) = mpsc::channel(READ_AHEAD_PARTS);
    let (store, read_meta) = (Arc::clone(&shared.snapshots), meta.clone());
    let chunk_bytes = shared.config.snapshot_chunk_bytes;
    let mut reader = tokio::task::spawn_blocking(move || {
        read_snapshot(&*store, &read_meta, start_at, chunk_bytes, &chunks)
    });
    let progress = Arc::new(AtomicU64::new(0));
    let head = [
        peer::SnapshotPart { part: Some(Part::Hello(hello)), start_at: 0 },
        peer::SnapshotPart { part: Some(Part::Message(wire)), start_at },
    ];
    let parts = part_stream(head, received_chunks, Arc::clone(&progress));
    let (result, reader_joined) = tokio::select! {
        result = client.snapshot(parts) => {
            (result.map(drop).map_err(|status| refused(shared, peer.id, &status)), false)
        },
        error = reading_failed(&mut reader) => (Err(error), true),
        error = stalled(shared, &progress) => (Err(error), false),
    };
    // Of what was handed out, so much may be on its way at most.
    let under_way = u64::from(shared.config.window_bytes) * 2;
    moved.store(progress.load(Ordering::Relaxed).saturating_sub(under_way), Ordering::Relaxed);
    // The stream is dropped by now, so a reader that still runs finds its channel closed. Its
    // errors do not matter any more: the peer has answered or the transfer was given up.
    if !reader_joined && !reader.is_finished() {
        drop(reader.await);
    }
    result.map(|()| meta.size_bytes)
}

async fn connect(
    shared: &Shared,
    peer: NodeId,
    address: &str,
) -> Result<PeerClient<Channel>, SendError> {
    dial(shared, peer, address).await.map_err(|end| SendError::NotConnected(words(end)))
}

fn refused(shared: &Shared, peer: NodeId, status: &Status) -> SendError {
    SendError::Refused(words(End::of(&shared.identity, peer, status)))
}

fn words(end: End) -> String {
    match end {
        End::NotConnected(words)
        | End::Refused(words)
        | End::Removed(_, words)
        | End::Broken(words) => words,
        End::Closed => "closed".to_owned(),
    }
}

/// Reads all of a snapshot, so that nobody is offered one that has rotted. Runs on a thread that
/// may block.
fn verify(shared: &Shared, wanted: &SnapshotMeta) -> Result<SnapshotMeta, SendError> {
    let (meta, mut content) = open(&*shared.snapshots, wanted)?;
    let known = shared.verified.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if known.as_ref() != Some(&meta) {
        let read = std::io::copy(&mut content, &mut std::io::sink())?;
        if read != meta.size_bytes {
            let words = format!("it has {read} bytes instead of {}", meta.size_bytes);
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, words).into());
        }
        *shared.verified.lock().unwrap_or_else(PoisonError::into_inner) = Some(meta.clone());
    }
    Ok(meta)
}

fn open(
    store: &dyn SnapshotStore,
    wanted: &SnapshotMeta,
) -> Result<(SnapshotMeta, Box<dyn Read + Send>), SendError> {
    let (meta, content) = store.open(wanted.group, wanted.index)?;
    if meta.position() != wanted.position() {
        let (found, wanted) = (meta.position(), wanted.position());
        return Err(SendError::OtherTerm { found, wanted });
    }
    Ok((meta, content))
}

fn part_stream(
    head: [peer::SnapshotPart; 2],
    chunks: mpsc::Receiver<Chunk>,
    progress: Arc<AtomicU64>,
) -> impl Stream<Item = peer::SnapshotPart> + Send + 'static {
    let content = futures::stream::unfold(chunks, move |mut chunks| {
        let progress = Arc::clone(&progress);
        async move {
            match chunks.recv().await {
                Some(Chunk::Data(data)) => {
                    progress.fetch_add(data.len() as u64, Ordering::Relaxed);
                    Some((peer::SnapshotPart { part: Some(Part::Data(data)), start_at: 0 }, chunks))
                }
                Some(Chunk::End) => None,
                // Never end a broken content as if it were complete: `reading_failed` ends the
                // call.
                None => std::future::pending().await,
            }
        }
    });
    futures::stream::iter(head).chain(content)
}

/// Resolves only when reading failed.
async fn reading_failed(reader: &mut JoinHandle<Result<(), SendError>>) -> SendError {
    match reader.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(error)) => error,
        Err(error) => SendError::Reader(error),
    }
}

/// Resolves when the transfer stands still for too long.
async fn stalled(shared: &Shared, progress: &AtomicU64) -> SendError {
    let limit = millis(shared.config.snapshot_stall_timeout_ms);
    let mut seen = progress.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(limit).await;
        let now = progress.load(Ordering::Relaxed);
        if now == seen {
            return SendError::Stalled(limit);
        }
        seen = now;
    }
}

/// Runs on a thread that may block.
fn read_snapshot(
    store: &dyn SnapshotStore,
    wanted: &SnapshotMeta,
    start_at: u64,
    chunk_bytes: usize,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), SendError> {
    let (_, mut content) = open(store, wanted)?;
    std::io::copy(&mut content.by_ref().take(start_at), &mut std::io::sink())?;
    loop {
        let mut chunk = Vec::with_capacity(chunk_bytes);
        content.by_ref().take(chunk_bytes as u64).read_to_end(&mut chunk)?;
        let next = if chunk.is_empty() { Chunk::End } else { Chunk::Data(chunk.into()) };
        let last = matches!(next, Chunk::End);
        // A closed channel: the transfer was given up, and whoever did that knows why.
        if chunks.blocking_send(next).is_err() || last {
            return Ok(());
        }
    }
}
