//! Backup files: a group's whole state as of one index, in one file that proves to be whole.
//!
//! ```text
//!   magic "RHBACKUP" | format version u32 = 1
//!   header   length u32 | BackupHeader (backup.proto) | CRC-32 of version, length and header u32
//!   block*   length u32, 1 ..= 256 Ki | bytes           (together a machine's snapshot)
//!   footer   0 u32 | SHA-256 of everything before it, 32 bytes
//! ```
//!
//! All numbers are little-endian; CRC-32 is that of IEEE 802.3. The guest's memory is compressed in the
//! snapshot. The format is written and read from one end to the other: into a file, a pipe, a socket.
//!
//! A node that takes backups by itself keeps them in a directory (`folder.rs`), and says how it is with them on a board.
//!
//! Knows the machine and the messages that are persisted, and neither a network nor a data directory.

mod board;
mod check;
mod config;
mod file;
mod folder;
mod reader;
mod writer;

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use raft_host_proto::MAIN_GROUP;

pub use self::board::{BackupBoard, BackupReport, SavedBackup};
pub use self::check::Passing;
pub use self::config::BackupConfig;
pub use self::file::NewFile;
pub use self::folder::{list, path_in, prune};
pub use self::reader::BackupReader;
pub use self::writer::BackupWriter;
use crate::machine::{MachineSnapshot, RestoreError};
use crate::types::{ClusterId, LogPosition, NodeId, Origin, StateDigest};

const MAGIC: [u8; 8] = *b"RHBACKUP";
const FORMAT_VERSION: u32 = 1;
const BLOCK_BYTES: usize = 256 << 10;
/// Longest header: bounds memory, far above any real one.
const HEADER_MAX_BYTES: usize = 64 << 10;
const SHA_BYTES: usize = 32;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFacts {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group's name.
    pub group: String,
    /// The last entry that it contains.
    pub position: LogPosition,
    /// When the copy was made, by the node's wall clock, in milliseconds since the Unix epoch.
    pub saved_ms: u64,
    /// The node that made it.
    pub node: NodeId,
    /// Version of raft-host there.
    pub version: String,
    /// Of the state.
    pub digest: StateDigest,
}

impl BackupFacts {
    /// Of a state that was copied just now.
    pub fn of(
        state: &MachineSnapshot,
        position: LogPosition,
        digest: StateDigest,
        node: NodeId,
        version: &str,
    ) -> BackupFacts {
        BackupFacts {
            cluster: state.cluster(),
            group: MAIN_GROUP.to_owned(),
            position,
            saved_ms: wall_clock_ms(),
            node,
            version: version.to_owned(),
            digest,
        }
    }

    /// What a cluster that is restored from it remembers; `time_ms` is the log's clock there.
    pub fn origin(&self, time_ms: u64) -> Origin {
        Origin { cluster: self.cluster, position: self.position, time_ms }
    }
}

/// By this host's clock, in milliseconds since the Unix epoch.
pub fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[source] io::Error),
    /// Something else.
    #[error("is no backup of raft-host")]
    NotABackup,
    /// Made by a later version.
    #[error(
        "has format version {found}, and this version of raft-host reads up to {FORMAT_VERSION}: \
         use the version that wrote it, or a later one"
    )]
    Newer {
        /// In the file.
        found: u32,
    },
    /// It ends before its end.
    #[error(
        "is cut short: it ends at byte {at}, before its end was written; take another one, this \
         one cannot be used"
    )]
    CutShort {
        /// Where it ends.
        at: u64,
    },
    /// Its bytes are not those that were written.
    #[error("is damaged at byte {at}: {reason}; take another one, this one cannot be used")]
    Damaged {
        /// As near as it is known.
        at: u64,
        /// What does not fit.
        reason: String,
    },
    /// What it holds does not become a machine here.
    #[error("cannot be restored here: {0}")]
    Restore(#[from] RestoreError),
    /// The machine is not the one that was copied.
    #[error(
        "does not hold what was copied: the state's digest is {found}, and was {expected} where it \
         was saved"
    )]
    OtherState {
        /// In the header.
        expected: StateDigest,
        /// Of what was read.
        found: StateDigest,
    },
}

#[cfg(test)]
mod tests;
