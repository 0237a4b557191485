//! Whether a snapshot is taken: asked before any of its content travels.

use super::Inbox;
use crate::storage::{SnapshotMeta, SnapshotStore, StorageError};
use crate::types::PeerMessage;

/// Largest snapshot that a node takes: four times what a guest's memory can be, for that memory,
/// modules and sessions together. Announced sizes beyond are lies.
pub const MAX_SNAPSHOT_BYTES: u64 = 16 << 30;

/// Space that a snapshot must leave for the log.
const RESERVE_BYTES: u64 = 64 << 10;

/// What a node makes of a snapshot that it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotWish {
    /// Its content is wanted.
    Content,
    /// Only the message: this node has the content, or all that the snapshot covers.
    MessageOnly,
}

/// Why a snapshot is not taken. The text travels to its sender.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotRefusal {
    /// Raft would not make use of it.
    #[error("it is not wanted: {0}")]
    NotWanted(String),
    /// No snapshot is that large.
    #[error("it has {size} bytes, and none has more than {MAX_SNAPSHOT_BYTES}")]
    TooLarge {
        /// What was announced.
        size: u64,
    },
    /// The disk is too full.
    #[error("it needs {size} bytes, and the disk of this node has {free} left")]
    NoSpace {
        /// What is missing of the content.
        size: u64,
        /// What there is.
        free: u64,
    },
    /// The message announces none.
    #[error("the message announces no snapshot")]
    None,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Decides about the snapshot that `message` announces, of which `received` bytes are there.
///
/// # Errors
/// See [`SnapshotRefusal`].
pub fn admit_snapshot(
    inbox: &dyn Inbox,
    store: &dyn SnapshotStore,
    message: &PeerMessage,
    received: u64,
) -> Result<(SnapshotMeta, SnapshotWish), SnapshotRefusal> {
    let meta = message.snapshot.clone().ok_or(SnapshotRefusal::None)?;
    if meta.size_bytes > MAX_SNAPSHOT_BYTES {
        return Err(SnapshotRefusal::TooLarge { size: meta.size_bytes });
    }
    let wish = inbox.wants_snapshot(message).map_err(SnapshotRefusal::NotWanted)?;
    // At the same position this node may have one of a state that went wrong here.
    if store.list(meta.group)?.contains(&meta) {
        return Ok((meta, SnapshotWish::MessageOnly));
    }
    let size = meta.size_bytes.saturating_sub(received);
    if wish == SnapshotWish::Content
        && let Some(free) = store.free_bytes()?
        && size.saturating_add(RESERVE_BYTES.min(free / 8)) > free
    {
        return Err(SnapshotRefusal::NoSpace { size, free });
    }
    Ok((meta, wish))
}
