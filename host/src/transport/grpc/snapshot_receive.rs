//! Receives the content of one snapshot into the store: all of it, or nothing. What had arrived
//! when a stream broke off waits, invisible, for a stream that goes on from there.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use raft_host_proto::peer;
use raft_host_proto::peer::snapshot_part::Part;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::config::MAX_SNAPSHOT_PART_BYTES;
use super::service::next;
use crate::storage::{SnapshotMeta, SnapshotSink, SnapshotStore, StorageError};
use crate::types::GroupId;

/// Parts that wait for the disk.
const WRITE_BEHIND_PARTS: usize = 2;

/// How long a part of a snapshot waits for the rest.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a snapshot was not stored.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error("group {0} is receiving a snapshot already")]
    Busy(GroupId),
    #[error("the content begins at byte {0}, and what is before is not here")]
    StartsElsewhere(u64),
    #[error("the content has {found} bytes, announced were {announced}")]
    Size { announced: u64, found: u64 },
    #[error("the content has checksum {found:08x}, announced was {announced:08x}")]
    Checksum { announced: u32, found: u32 },
    #[error("the snapshot store made something else of it than was announced")]
    StoredOtherwise,
    #[error("a part is not data, or larger than {MAX_SNAPSHOT_PART_BYTES} bytes")]
    BadPart,
    #[error("the stream broke off after {0} bytes")]
    Aborted(u64),
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
            ReceiveError::Aborted(_) | ReceiveError::StartsElsewhere(_) => Status::aborted(words),
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

/// What this node receives, or has a part of: at most one snapshot of each group.
#[derive(Clone, Default)]
pub(super) struct Receptions(Arc<Mutex<BTreeMap<GroupId, Place>>>);

enum Place {
    /// It is being received.
    Taken,
    /// The stream broke off; the next one may go on from there. Dropping it removes its file.
    Left(Box<Partial>),
}

/// What has arrived of a snapshot.
struct Partial {
    meta: SnapshotMeta,
    sink: Box<dyn SnapshotSink>,
    hasher: crc32fast::Hasher,
    size: u64,
    /// Tells it from what is left there later.
    number: u64,
}

impl Receptions {
    fn places(&self) -> MutexGuard<'_, BTreeMap<GroupId, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of a snapshot an earlier stream has left here.
    pub(super) fn received_bytes(&self, meta: &SnapshotMeta) -> u64 {
        match self.places().get(&meta.group) {
            Some(Place::Left(partial)) if partial.meta == *meta => partial.size,
            _ => 0,
        }
    }

    /// Claims the group, with what is there of this snapshot. What there is of another goes.
    fn claim(&self, meta: &SnapshotMeta, start_at: u64) -> Result<Option<Partial>, ReceiveError> {
        let mut places = self.places();
        let left = match places.remove(&meta.group) {
            Some(Place::Taken) => {
                places.insert(meta.group, Place::Taken);
                return Err(ReceiveError::Busy(meta.group));
            }
            Some(Place::Left(left)) if left.meta == *meta && left.size == start_at => Some(*left),
            _ if start_at != 0 => return Err(ReceiveError::StartsElsewhere(start_at)),
            _ => None,
        };
        places.insert(meta.group, Place::Taken);
        Ok(left)
    }

    /// Removes what nobody went on with.
    async fn expire(self, group: GroupId, number: u64, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(PATIENCE) => {}
        }
        let mut places = self.places();
        if matches!(places.get(&group), Some(Place::Left(left)) if left.number == number) {
            places.remove(&group);
        }
    }
}

/// A snapshot being received; the only one of its group.
pub(super) struct Reception {
    store: Arc<dyn SnapshotStore>,
    meta: SnapshotMeta,
    partial: Option<Partial>,
    slot: Slot,
}

/// The claim on a group. Dropping it frees the group for the next snapshot.
struct Slot {
    group: GroupId,
    receptions: Receptions,
}

impl Slot {
    /// Leaves a part for the next stream.
    fn leave(self, partial: Partial) {
        self.receptions.places().insert(self.group, Place::Left(Box::new(partial)));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut places = self.receptions.places();
        if matches!(places.get(&self.group), Some(Place::Taken)) {
            places.remove(&self.group);
        }
    }
}

impl Reception {
    /// Claims the group, for content from `start_at` on.
    pub(super) fn begin(
        receptions: &Receptions,
        store: Arc<dyn SnapshotStore>,
        meta: SnapshotMeta,
        start_at: u64,
    ) -> Result<Reception, Status> {
        let group = meta.group;
        let partial = receptions.claim(&meta, start_at)?;
        let slot = Slot { group, receptions: receptions.clone() };
        Ok(Reception { store, meta, partial, slot })
    }

    /// Stores the content, unless the snapshot is there already. Returns what the store holds.
    pub(super) async fn run(
        self,
        stream: &mut Streaming<peer::SnapshotPart>,
        shutdown: &CancellationToken,
        stall_timeout: Duration,
    ) -> Result<SnapshotMeta, Status> {
        let (chunks, received) = mpsc::channel(WRITE_BEHIND_PARTS);
        let Reception { store, meta, partial, slot } = self;
        let (runtime, shutting_down) = (Handle::current(), shutdown.clone());
        let mut writer = tokio::task::spawn_blocking(move || {
            // The slot is held until the thread is done with the store, even if nobody awaits it
            // any more: whoever calls goes away when the connection breaks.
            let mut partial = partial;
            let received = receive(&*store, meta, &mut partial, received);
            if let (Err(ReceiveError::Aborted(_)), Some(mut left)) = (&received, partial) {
                left.number += 1;
                let (group, number) = (slot.group, left.number);
                let receptions = slot.receptions.clone();
                slot.leave(left);
                runtime.spawn(receptions.expire(group, number, shutting_down));
            }
            received
        });
        let fed = tokio::select! {
            // The writer ends first when it has the snapshot already, or failed.
            stored = &mut writer => {
                return stored.map_err(ReceiveError::Writer)?.map_err(Status::from);
            }
            fed = feed(stream, shutdown, stall_timeout, &chunks) => fed,
        };
        // Without `End` the closed channel tells the writer that the stream broke off.
        drop(chunks);
        let stored = writer.await.map_err(ReceiveError::Writer)?;
        fed?;
        stored.map_err(Status::from)
    }
}

/// Passes the stream on, at the speed of the disk.
async fn feed(
    stream: &mut Streaming<peer::SnapshotPart>,
    shutdown: &CancellationToken,
    stall_timeout: Duration,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), Status> {
    loop {
        let chunk = match next(stream, shutdown, stall_timeout).await? {
            None => Chunk::End,
            Some(peer::SnapshotPart { part: Some(Part::Data(data)), .. })
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

/// Runs on a thread that may block. What has arrived when the stream breaks off stays in
/// `partial`; after any other error nothing is left behind.
fn receive(
    store: &dyn SnapshotStore,
    announced: SnapshotMeta,
    partial: &mut Option<Partial>,
    mut chunks: mpsc::Receiver<Chunk>,
) -> Result<SnapshotMeta, ReceiveError> {
    let present = store.list(announced.group)?;
    // At the same position this node may have one of a state that went wrong here.
    if let Some(meta) = present.into_iter().find(|meta| *meta == announced) {
        return Ok(meta);
    }
    let mut arrived = match partial.take() {
        Some(arrived) => arrived,
        None => Partial {
            sink: store.create(announced.clone())?,
            meta: announced.clone(),
            hasher: crc32fast::Hasher::new(),
            size: 0,
            number: 0,
        },
    };
    loop {
        match chunks.blocking_recv() {
            Some(Chunk::Data(data)) => {
                let size = arrived.size + data.len() as u64;
                if size > announced.size_bytes {
                    return Err(ReceiveError::Size {
                        announced: announced.size_bytes,
                        found: size,
                    });
                }
                arrived.hasher.update(&data);
                arrived.sink.write_all(&data)?;
                arrived.size = size;
            }
            Some(Chunk::End) if arrived.size == announced.size_bytes => break,
            // A call that its caller cancels (RST_STREAM, CANCEL) looks like a stream that ends.
            Some(Chunk::End) | None => {
                let size = arrived.size;
                *partial = Some(arrived);
                return Err(ReceiveError::Aborted(size));
            }
        }
    }
    let Partial { sink, hasher, .. } = arrived;
    // Before `finish` makes it visible.
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
