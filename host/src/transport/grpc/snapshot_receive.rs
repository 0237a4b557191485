//! Receives the content of one snapshot into the store: all of it, or nothing.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use raft_host_proto::v1;
use raft_host_proto::v1::snapshot_part::Part;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::config::MAX_SNAPSHOT_PART_BYTES;
use super::service::next;
use crate::storage::{SnapshotMeta, SnapshotStore, StorageError};
use crate::types::GroupId;

/// Parts that wait for the disk.
const WRITE_BEHIND_PARTS: usize = 2;

/// Why a snapshot was not stored.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error("group {0} is receiving a snapshot already")]
    Busy(GroupId),
    #[error("the content has {found} bytes, announced were {announced}")]
    Size { announced: u64, found: u64 },
    #[error("the content has checksum {found:08x}, announced was {announced:08x}")]
    Checksum { announced: u32, found: u32 },
    #[error("the snapshot store made something else of it than was announced")]
    StoredOtherwise,
    #[error("a part is not data, or larger than {MAX_SNAPSHOT_PART_BYTES} bytes")]
    BadPart,
    #[error("the stream broke off")]
    Aborted,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("cannot write the snapshot: {0}")]
    Write(#[from] std::io::Error),
    #[error("the task that writes the snapshot broke: {0}")]
    Writer(#[from] tokio::task::JoinError),
}

impl From<ReceiveError> for Status {
    fn from(error: ReceiveError) -> Status {
        let words = error.to_string();
        match error {
            ReceiveError::Busy(_) => Status::resource_exhausted(words),
            ReceiveError::Size { .. } | ReceiveError::Checksum { .. } => Status::data_loss(words),
            ReceiveError::BadPart => Status::invalid_argument(words),
            ReceiveError::Aborted => Status::aborted(words),
            ReceiveError::StoredOtherwise
            | ReceiveError::Storage(_)
            | ReceiveError::Write(_)
            | ReceiveError::Writer(_) => Status::internal(words),
        }
    }
}

/// To the writing thread. A channel that closes without `End` means: leave nothing.
enum Chunk {
    Data(Bytes),
    End,
}

/// A snapshot being received; the only one of its group.
pub(super) struct Reception {
    store: Arc<dyn SnapshotStore>,
    meta: SnapshotMeta,
    slot: Slot,
}

/// Frees the group for the next snapshot.
struct Slot {
    group: GroupId,
    receiving: Arc<Mutex<BTreeSet<GroupId>>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.group);
    }
}

impl Reception {
    /// Claims the group.
    pub(super) fn begin(
        receiving: &Arc<Mutex<BTreeSet<GroupId>>>,
        store: Arc<dyn SnapshotStore>,
        meta: SnapshotMeta,
    ) -> Result<Reception, Status> {
        let group = meta.group;
        if !receiving.lock().unwrap_or_else(PoisonError::into_inner).insert(group) {
            return Err(ReceiveError::Busy(group).into());
        }
        let slot = Slot { group, receiving: Arc::clone(receiving) };
        Ok(Reception { store, meta, slot })
    }

    /// Stores the content, unless the snapshot is there already. Returns what the store holds.
    pub(super) async fn run(
        self,
        stream: &mut Streaming<v1::SnapshotPart>,
        shutdown: &CancellationToken,
        stall_timeout: Duration,
    ) -> Result<SnapshotMeta, Status> {
        let (chunks, received) = mpsc::channel(WRITE_BEHIND_PARTS);
        let Reception { store, meta, slot } = self;
        let mut writer = tokio::task::spawn_blocking(move || {
            // Held until the thread is done with the store, even if nobody awaits it any more.
            let _slot = slot;
            receive(&*store, meta, received)
        });
        let fed = tokio::select! {
            // The writer ends first when it has the snapshot already, or failed.
            stored = &mut writer => {
                return stored.map_err(ReceiveError::Writer)?.map_err(Status::from);
            }
            fed = feed(stream, shutdown, stall_timeout, &chunks) => fed,
        };
        // Without `End` the closed channel tells the writer to leave nothing.
        drop(chunks);
        let stored = writer.await.map_err(ReceiveError::Writer)?;
        fed?;
        stored.map_err(Status::from)
    }
}

/// Passes the stream on, at the speed of the disk.
async fn feed(
    stream: &mut Streaming<v1::SnapshotPart>,
    shutdown: &CancellationToken,
    stall_timeout: Duration,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), Status> {
    loop {
        let chunk = match next(stream, shutdown, stall_timeout).await? {
            None => Chunk::End,
            Some(v1::SnapshotPart { part: Some(Part::Data(data)) })
                if data.len() <= MAX_SNAPSHOT_PART_BYTES =>
            {
                Chunk::Data(data)
            }
            Some(_) => return Err(ReceiveError::BadPart.into()),
        };
        let last = matches!(chunk, Chunk::End);
        // A closed channel: the writer is done, and says itself how that ended.
        if chunks.send(chunk).await.is_err() || last {
            return Ok(());
        }
    }
}

/// Runs on a thread that may block. Dropping the sink unfinished leaves nothing behind.
fn receive(
    store: &dyn SnapshotStore,
    announced: SnapshotMeta,
    mut chunks: mpsc::Receiver<Chunk>,
) -> Result<SnapshotMeta, ReceiveError> {
    let present = store.list(announced.group)?;
    // At the same position this node may have one of a state that went wrong here.
    if let Some(meta) = present.into_iter().find(|meta| *meta == announced) {
        return Ok(meta);
    }
    let mut sink = store.create(announced.clone())?;
    let mut hasher = crc32fast::Hasher::new();
    let mut size = 0;
    loop {
        match chunks.blocking_recv() {
            Some(Chunk::Data(data)) => {
                size += data.len() as u64;
                if size > announced.size_bytes {
                    break;
                }
                hasher.update(&data);
                sink.write_all(&data)?;
            }
            Some(Chunk::End) => break,
            None => return Err(ReceiveError::Aborted),
        }
    }
    // Before `finish` makes it visible.
    if size != announced.size_bytes {
        return Err(ReceiveError::Size { announced: announced.size_bytes, found: size });
    }
    let found = hasher.finalize();
    if found != announced.checksum {
        return Err(ReceiveError::Checksum { announced: announced.checksum, found });
    }
    let stored = sink.finish()?;
    if stored != announced {
        return Err(ReceiveError::StoredOtherwise);
    }
    Ok(stored)
}
