//! What a snapshot covers.

use serde::{Deserialize, Serialize};

use super::{ConfState, GroupId, Index, LogPosition, Term};

/// What a snapshot covers. Travels with it and is checked against its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The group it belongs to.
    pub group: GroupId,
    /// Last index it covers.
    pub index: Index,
    /// Term of the entry at `index`.
    pub term: Term,
    /// The configuration as of `index`.
    pub conf_state: ConfState,
    /// Length of the content in bytes. 0 until the sink is finished.
    pub size_bytes: u64,
    /// CRC-32 (IEEE) of the content. 0 until the sink is finished.
    pub checksum: u32,
}

/// What became of a snapshot that a node wanted to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotFate {
    /// The receiver has all of it.
    Delivered,
    /// Some of it arrived, which the next attempt need not send again.
    Interrupted,
    /// Nothing new of it arrived.
    Failed,
    /// The sender's own file cannot be read, or is gone: nobody will ever get it.
    Unreadable,
}

impl SnapshotMeta {
    /// Index and term together.
    pub fn position(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term }
    }
}
