//! What the Raft log holds, seen from outside the consensus core.

use std::fmt;

use bytes::Bytes;

use super::{Index, NodeId, Term};

/// What an entry is for. The numbers are persisted and sent to peers: never change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Data for the machine. Empty data: the no-op of a new leader.
    Normal = 0,
    /// A membership change (Raft dissertation §4), encoded by `consensus`.
    ConfChange = 1,
}

impl EntryKind {
    /// Reads the persisted number.
    pub fn from_u8(value: u8) -> Option<EntryKind> {
        match value {
            0 => Some(EntryKind::Normal),
            1 => Some(EntryKind::ConfChange),
            _ => None,
        }
    }
}

/// One entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Position, contiguous within a log.
    pub index: Index,
    /// Term of the leader that appended it.
    pub term: Term,
    /// What the entry is for.
    pub kind: EntryKind,
    /// Opaque to storage and consensus.
    pub data: Bytes,
    /// For `ConfChange`: the caller's record about the change (see [`super::ConfChange`]).
    pub context: Bytes,
}

impl LogEntry {
    /// Bytes that byte caps count: the payload and a fixed allowance for the header.
    pub fn cost_bytes(&self) -> u64 {
        (self.data.len() + self.context.len() + 32) as u64
    }
}

/// An index together with the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Position in the log.
    pub index: Index,
    /// Term of the entry at `index`.
    pub term: Term,
}

/// Where in the log a command is. Commands are executed in the order of their positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Of the entry that holds it.
    pub index: Index,
    /// Which of the entry's commands it is, from 0 on. 0 for what is no command.
    pub ordinal: u32,
}

impl Position {
    /// The first command of an entry, or what else the entry holds.
    pub fn first(index: Index) -> Position {
        Position { index, ordinal: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal {
            0 => self.index.fmt(f),
            ordinal => write!(f, "{}.{ordinal}", self.index),
        }
    }
}

/// What Raft must not forget (Raft dissertation, figure 3.1), plus the commit index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term the node has seen.
    pub term: Term,
    /// Candidate that got this node's vote in `term`.
    pub vote: Option<NodeId>,
    /// Highest index known committed. May lag; never ahead of the truth.
    pub commit: Index,
}
