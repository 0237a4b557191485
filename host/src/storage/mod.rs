//! Durable state: the log, the hard state and the snapshots, behind three traits.
//!
//! Knows nothing of Raft's rules: it keeps what it is told, returns it unchanged or says
//! that it cannot. Every method blocks; callers choose the thread.
//!
//! ```text
//!   log writer --WriteBatch--> LogStore::write (one fsync) --> disk
//!   log reader --entries--> LogStore; event loop --term--> LogStore (in memory)
//!   apply thread --SnapshotSink / open--> SnapshotStore
//!   scrub --LogStore::scrub, scrub_snapshots--> what has rotted
//! ```

mod codec;
mod config;
mod data_dir;
mod disk;
mod engines;
mod index;
mod mark;
mod memory;
mod raft_engine;
mod real_files;
mod room;
mod scrub;
mod sled;
mod snapshot_files;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::config::StorageConfig;
pub use self::data_dir::{DataDir, Held, Medium, NodeIdentity, Succession};
pub use self::disk::{Directories, RealDisk, write_atomically};
pub use self::engines::{Engine, UnknownEngine};
pub use self::memory::{MemoryLog, MemorySnapshots};
pub use self::raft_engine::RaftEngineLog;
pub use self::room::{DiskRoom, Room, SpaceGauge, SpaceLimits};
pub use self::scrub::{
    Damage, DamagedPart, KnownDamage, Pace, ScrubBoard, ScrubReport, Scrubbed, scrub_snapshots,
};
pub use self::sled::SledLog;
pub use self::snapshot_files::{SnapshotDisk, SnapshotFile, SnapshotFiles, SnapshotSource};
pub use crate::types::SnapshotMeta;
use crate::types::{GroupId, HardState, Index, LogEntry, LogPosition, Term};

/// Why storage could not do what it was asked. After any error from a write the caller must
/// stop: what reached the disk is unknown (see "fsyncgate").
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb phrase: "write", "sync", "open".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// What is on disk is not what was written there. Never skipped, never repaired silently.
    #[error("{} is corrupt at offset {offset}: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Byte offset, as near as it is known.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
    /// The log's prefix up to and including `first_index - 1` was compacted away.
    #[error("log index {index} is compacted: the log of group {group} starts at {first_index}")]
    Compacted {
        /// The group asked about.
        group: GroupId,
        /// The index asked for.
        index: Index,
        /// The first index still there.
        first_index: Index,
    },
    /// The log does not reach that far.
    #[error("log index {index} does not exist: the log of group {group} ends at {last_index}")]
    Unavailable {
        /// The group asked about.
        group: GroupId,
        /// The index asked for.
        index: Index,
        /// The last index there.
        last_index: Index,
    },
    /// A batch that would leave a gap or go backwards: a broken invariant of the caller.
    #[error("refused a write to group {group}: {reason}")]
    InvalidWrite {
        /// The group written to.
        group: GroupId,
        /// What does not fit.
        reason: String,
    },
    /// Anything the engine below reports that fits none of the above.
    #[error("storage engine {engine}: {message}")]
    Engine {
        /// Name of the back end.
        engine: &'static str,
        /// Its words.
        message: String,
    },
    /// A part of the data directory is missing, older than the others, or another node's. A
    /// restart does not help; the text says what does.
    #[error("{0}")]
    LostPart(String),
    /// The data directory belongs to something else; the text says to what.
    #[error("{0}")]
    ForeignData(String),
}

impl StorageError {
    /// Whether a write found no room on the disk.
    pub fn is_full(&self) -> bool {
        match self {
            StorageError::Io { source, .. } => room::is_full(source),
            // Engines keep only the words.
            StorageError::Engine { message, .. } => {
                message.contains("No space left") || message.contains("quota exceeded")
            }
            _ => false,
        }
    }
}

/// What one turn of the log writer makes durable: atomic per group, one fsync for all groups.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    /// At most one record per group.
    pub groups: Vec<(GroupId, GroupWrite)>,
}

/// The changes to one group, applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupWrite {
    /// Forget the whole log; it now starts after this position (a snapshot was installed).
    pub reset_to: Option<LogPosition>,
    /// New term, vote and commit.
    pub hard_state: Option<HardState>,
    /// Contiguous entries. Everything stored from the first of them on is replaced
    /// (truncation of a conflicting suffix, Raft dissertation §3.5). Must not leave a gap.
    pub entries: Vec<LogEntry>,
    /// Forget the prefix up to and including this position, which a snapshot covers.
    pub compact_to: Option<LogPosition>,
}

/// The replicated log (Raft dissertation §3.3) together with the hard state, of many groups.
///
/// Reads may run while a write runs and see the state before or after it, never a part.
pub trait LogStore: StableStore {
    /// Position before the first entry: what a snapshot covers. Default for a new group.
    fn start(&self, group: GroupId) -> Result<LogPosition, StorageError>;

    /// First index present, which is `start().index + 1` even when the log is empty.
    fn first_index(&self, group: GroupId) -> Result<Index, StorageError> {
        Ok(self.start(group)?.index.next())
    }

    /// Last index present; `start().index` when the log is empty.
    fn last_index(&self, group: GroupId) -> Result<Index, StorageError>;

    /// Term of an entry in `start().index ..= last_index()`.
    ///
    /// # Errors
    /// `Compacted` or `Unavailable` outside of that range.
    fn term(&self, group: GroupId, index: Index) -> Result<Term, StorageError>;

    /// Entries of a non-empty half-open range, in order: as many as fit `max_bytes`
    /// (by [`LogEntry::cost_bytes`]), but at least one.
    ///
    /// # Errors
    /// `Compacted` or `Unavailable` when the range is not fully present.
    fn entries(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StorageError>;

    /// Applies a batch; when this returns, all of it survives a power loss.
    ///
    /// # Errors
    /// `InvalidWrite` before anything is written. After any other error nothing may be
    /// assumed about the batch, and the store refuses all later writes.
    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError>;

    /// Releases the space of compacted prefixes. May run long; call it off the write path. Reads do
    /// not wait for it.
    ///
    /// # Errors
    /// As [`LogStore::write`].
    fn purge(&self) -> Result<(), StorageError>;

    /// Reads what is durable from the disk and not from memory, and says what is not as it was
    /// written. Goes on beside writes, reads and purges; a file that is purged meanwhile is no damage.
    /// A store that has no files finds nothing.
    ///
    /// # Errors
    /// `Io` when something cannot be read, and the medium is not to blame.
    fn scrub(&self, _pace: &mut Pace<'_>) -> Result<Scrubbed, StorageError> {
        Ok(Scrubbed { damages: Vec::new(), is_whole: true })
    }

    /// Lets go of damaged files that hold nothing any more that is needed: what they held of the
    /// log is to be compacted. Says which are still there, and still damaged. May run long.
    ///
    /// # Errors
    /// As [`LogStore::write`].
    fn shed(&self, _damages: &[Damage]) -> Result<Vec<Damage>, StorageError> {
        self.purge()?;
        Ok(Vec::new())
    }

    /// Groups that have anything stored, in order.
    fn groups(&self) -> Result<Vec<GroupId>, StorageError>;
}

/// Small values that must survive (term, vote, commit).
pub trait StableStore: Send + Sync + 'static {
    /// The hard state last written for the group; default for a new group.
    fn hard_state(&self, group: GroupId) -> Result<HardState, StorageError>;
}

/// A snapshot being written. Dropping it without `finish` leaves nothing behind.
pub trait SnapshotSink: Write + Send {
    /// Makes the snapshot durable and visible, atomically, and returns its final metadata.
    fn finish(self: Box<Self>) -> Result<SnapshotMeta, StorageError>;
}

/// Keeps the snapshots of many groups (Raft dissertation §5).
pub trait SnapshotStore: Send + Sync + 'static {
    /// Starts a snapshot. `size_bytes` and `checksum` of `meta` are ignored.
    fn create(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotSink>, StorageError>;

    /// Finished snapshots of a group, newest (highest index) first.
    fn list(&self, group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError>;

    /// Opens the snapshot at `index`. The reader ends with an error, never with a short or
    /// altered content, when the bytes are not those that were written.
    fn open(
        &self,
        group: GroupId,
        index: Index,
    ) -> Result<(SnapshotMeta, Box<dyn Read + Send>), StorageError>;

    /// Deletes what is not needed any more once the state at `upto` is safe: of the snapshots up
    /// to and including that index all but the newest `keep` (at least 1), and what was damaged.
    /// Newer ones were received, and wait to be installed.
    fn retain(&self, group: GroupId, keep: usize, upto: Index) -> Result<(), StorageError>;

    /// Takes a snapshot out of the list whose content turned out to be damaged, unless another
    /// one has replaced it. Its file stays until the next [`SnapshotStore::retain`].
    fn set_aside(&self, damaged: &SnapshotMeta);

    /// Has the next reader of a snapshot read it from the medium, where the store can do that.
    fn forget_cached(&self, _meta: &SnapshotMeta) {}

    /// How many bytes more may be stored, if the store knows.
    fn free_bytes(&self) -> Result<Option<u64>, StorageError>;

    /// What was damaged already when the store was opened, as [`StorageError::Corrupt`].
    fn damaged(&self, group: GroupId) -> Vec<StorageError>;
}

/// The stores of one node, opened together from one data directory.
#[derive(Clone)]
pub struct Stores {
    /// Log and hard state.
    pub log: Arc<dyn LogStore>,
    /// Snapshots.
    pub snapshots: Arc<dyn SnapshotStore>,
}
