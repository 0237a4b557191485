//! What all back ends must do (`conformance`) and what the durable ones must survive
//! (`crash`).

mod conformance;
mod crash;
mod faults;
mod purge;
mod scrub;
mod snapshots;

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::types::{EntryKind, NodeId};

const GROUP: GroupId = GroupId::MAIN;

/// Small files, so that a few entries already fill several.
fn config() -> StorageConfig {
    StorageConfig {
        log_file_bytes: 16 << 10,
        recent_entries_bytes: 256,
        ..StorageConfig::default()
    }
}

type Open = fn(&Path) -> Result<Box<dyn LogStore>, StorageError>;

fn open_raft_engine(dir: &Path) -> Result<Box<dyn LogStore>, StorageError> {
    Ok(Box::new(RaftEngineLog::open(dir, &config())?))
}

fn open_sled(dir: &Path) -> Result<Box<dyn LogStore>, StorageError> {
    Ok(Box::new(SledLog::open(dir, &config())?))
}

fn open_memory(_: &Path) -> Result<Box<dyn LogStore>, StorageError> {
    Ok(Box::new(MemoryLog::new()))
}

fn entry(index: u64, term: u64) -> LogEntry {
    let kind = if index.is_multiple_of(5) { EntryKind::ConfChange } else { EntryKind::Normal };
    let context = if index.is_multiple_of(5) {
        Bytes::from(format!("context {index}"))
    } else {
        Bytes::new()
    };
    let data = Bytes::from(format!("{index}/{term} ").repeat((index % 7) as usize));
    LogEntry { index: Index(index), term: Term(term), kind, data, context }
}

fn log(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<LogEntry> {
    range.map(|index| entry(index, term)).collect()
}

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition { index: Index(index), term: Term(term) }
}

fn vote(term: u64) -> HardState {
    HardState { term: Term(term), vote: Some(NodeId(term)), commit: Index(term) }
}

fn append(entries: Vec<LogEntry>) -> GroupWrite {
    GroupWrite { entries, ..GroupWrite::default() }
}

fn compact(index: u64, term: u64) -> GroupWrite {
    GroupWrite { compact_to: Some(position(index, term)), ..GroupWrite::default() }
}

fn reset(index: u64, term: u64) -> GroupWrite {
    GroupWrite { reset_to: Some(position(index, term)), ..GroupWrite::default() }
}

fn write(store: &dyn LogStore, write: GroupWrite) -> Result<(), StorageError> {
    store.write(&WriteBatch { groups: vec![(GROUP, write)] })
}

fn all(store: &dyn LogStore, group: GroupId) -> Vec<LogEntry> {
    let first = store.first_index(group).expect("first index");
    let last = store.last_index(group).expect("last index");
    if first > last {
        return Vec::new();
    }
    store.entries(group, first..last.next(), u64::MAX).expect("entries")
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}
