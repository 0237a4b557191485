//! How entries and per-group records look inside the engines, independent of raft-rs.
//!
//! Little-endian, fixed width. The engine around them gives length and checksum (raft-engine)
//! or we append one (sled).
//!
//! ```text
//!   entry: index u64 | term u64 | kind u8 | context length u32 | context | data (the rest)
//!   meta:  version u8 | start index u64 | start term u64 | last index u64 | last term u64
//!          | term u64 | voted u8 | vote u64 | commit u64
//! ```

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::types::{EntryKind, HardState, Index, LogEntry, LogPosition, NodeId, Term};

const ENTRY_HEADER_BYTES: usize = 8 + 8 + 1 + 4;
const META_VERSION: u8 = 1;
const META_BYTES: usize = 1 + 4 * 8 + 8 + 1 + 8 + 8;

/// What a group must remember besides its entries. Written with every batch, so that an
/// engine that brings back entries once dropped, or loses some, is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupMeta {
    /// Position before the first entry.
    pub(super) start: LogPosition,
    /// Position of the last entry; `start` when there is none.
    pub(super) last: LogPosition,
    /// Term, vote, commit.
    pub(super) hard_state: HardState,
}

pub(super) fn encode_entry(entry: &LogEntry) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_entry_to(entry, &mut bytes);
    bytes
}

/// As [`encode_entry`], behind what is there.
pub(super) fn encode_entry_to(entry: &LogEntry, bytes: &mut Vec<u8>) {
    let context_length = u32::try_from(entry.context.len()).expect("contexts are far below 4 GiB");
    // Four more, for the checksum that may follow.
    bytes.reserve(ENTRY_HEADER_BYTES + entry.context.len() + entry.data.len() + 4);
    bytes.put_u64_le(entry.index.0);
    bytes.put_u64_le(entry.term.0);
    bytes.put_u8(entry.kind as u8);
    bytes.put_u32_le(context_length);
    bytes.put_slice(&entry.context);
    bytes.put_slice(&entry.data);
}

pub(super) fn decode_entry(mut bytes: Bytes) -> Result<LogEntry, String> {
    if bytes.len() < ENTRY_HEADER_BYTES {
        return Err(format!("a log entry of {} bytes is shorter than its header", bytes.len()));
    }
    let index = Index(bytes.get_u64_le());
    let term = Term(bytes.get_u64_le());
    let kind = bytes.get_u8();
    let kind = EntryKind::from_u8(kind).ok_or_else(|| format!("unknown entry kind {kind}"))?;
    let context_length = bytes.get_u32_le() as usize;
    if context_length > bytes.len() {
        return Err(format!("the context of log entry {index} reaches beyond the entry"));
    }
    let context = bytes.split_to(context_length);
    Ok(LogEntry { index, term, kind, data: bytes, context })
}

/// The index alone; 0, which no entry has, when the bytes are too short.
pub(super) fn peek_index(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |index| u64::from_le_bytes(*index))
}

pub(super) fn encode_meta(meta: &GroupMeta) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(META_BYTES + 4);
    bytes.put_u8(META_VERSION);
    for position in [meta.start, meta.last] {
        bytes.put_u64_le(position.index.0);
        bytes.put_u64_le(position.term.0);
    }
    bytes.put_u64_le(meta.hard_state.term.0);
    bytes.put_u8(u8::from(meta.hard_state.vote.is_some()));
    bytes.put_u64_le(meta.hard_state.vote.map_or(0, |node| node.0));
    bytes.put_u64_le(meta.hard_state.commit.0);
    bytes
}

pub(super) fn decode_meta(mut bytes: &[u8]) -> Result<GroupMeta, String> {
    if bytes.len() != META_BYTES {
        return Err(format!("a group record has {} bytes, not {META_BYTES}", bytes.len()));
    }
    let version = bytes.get_u8();
    if version != META_VERSION {
        return Err(format!("a group record has version {version}, not {META_VERSION}"));
    }
    let mut position =
        || LogPosition { index: Index(bytes.get_u64_le()), term: Term(bytes.get_u64_le()) };
    let (start, last) = (position(), position());
    let term = Term(bytes.get_u64_le());
    let voted = bytes.get_u8() != 0;
    let vote = NodeId(bytes.get_u64_le());
    let hard_state =
        HardState { term, vote: voted.then_some(vote), commit: Index(bytes.get_u64_le()) };
    if last.index < start.index {
        return Err(format!("a group record ends at {} before its start", last.index));
    }
    Ok(GroupMeta { start, last, hard_state })
}
