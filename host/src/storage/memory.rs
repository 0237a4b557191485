//! In-memory twins of the stores: the same duties, nothing survives the process.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use bytes::{Buf as _, Bytes};

use super::engines::LogEngine;
use super::index::Groups;
use super::{
    DiskRoom, LogStore, SnapshotMeta, SnapshotSink, SnapshotStore, StableStore, StorageConfig,
    StorageError, WriteBatch,
};
use crate::types::{GroupId, HardState, Index, LogEntry, LogPosition, Term};

const UNPOISONED: &str = "no code panics while it holds this lock";

/// Opens [`MemoryLog`]s.
pub(super) struct Memory;

impl LogEngine for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn number(&self) -> u32 {
        3
    }

    fn summary(&self) -> &'static str {
        "nothing survives the process: for tests and trials"
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn open(
        &self,
        _: &Path,
        _: &StorageConfig,
        _: &Arc<DiskRoom>,
    ) -> Result<Arc<dyn LogStore>, StorageError> {
        Ok(Arc::new(MemoryLog::new()))
    }
}

/// [`LogStore`] in memory.
#[derive(Debug)]
pub struct MemoryLog {
    groups: RwLock<Groups>,
}

impl MemoryLog {
    /// An empty store.
    pub fn new() -> MemoryLog {
        MemoryLog { groups: RwLock::new(Groups::new(u64::MAX)) }
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        MemoryLog::new()
    }
}

impl StableStore for MemoryLog {
    fn hard_state(&self, group: GroupId) -> Result<HardState, StorageError> {
        Ok(self.groups.read().expect(UNPOISONED).get(group).hard_state())
    }
}

impl LogStore for MemoryLog {
    fn start(&self, group: GroupId) -> Result<LogPosition, StorageError> {
        Ok(self.groups.read().expect(UNPOISONED).get(group).start())
    }

    fn last_index(&self, group: GroupId) -> Result<Index, StorageError> {
        Ok(self.groups.read().expect(UNPOISONED).get(group).last())
    }

    fn term(&self, group: GroupId, index: Index) -> Result<Term, StorageError> {
        self.groups.read().expect(UNPOISONED).term(group, index)
    }

    fn entries(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let groups = self.groups.read().expect(UNPOISONED);
        let entries = groups.recent(group, &range, max_bytes)?;
        Ok(entries.expect("the limit is infinite, so every entry is a recent one"))
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut groups = self.groups.write().expect(UNPOISONED);
        let metas = groups.judge(batch)?;
        groups.apply(batch, &metas);
        Ok(())
    }

    fn purge(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        Ok(self.groups.read().expect(UNPOISONED).ids())
    }
}

type SnapshotMap = BTreeMap<(GroupId, Index), (SnapshotMeta, Bytes)>;

/// [`SnapshotStore`] in memory.
#[derive(Clone, Debug, Default)]
pub struct MemorySnapshots {
    snapshots: Arc<Mutex<SnapshotMap>>,
}

impl MemorySnapshots {
    /// An empty store.
    pub fn new() -> MemorySnapshots {
        MemorySnapshots::default()
    }
}

struct MemorySink {
    store: MemorySnapshots,
    meta: SnapshotMeta,
    content: Vec<u8>,
}

impl Write for MemorySink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotSink for MemorySink {
    fn finish(self: Box<Self>) -> Result<SnapshotMeta, StorageError> {
        let MemorySink { store, mut meta, content } = *self;
        meta.size_bytes = content.len() as u64;
        meta.checksum = crc32fast::hash(&content);
        let key = (meta.group, meta.index);
        let mut snapshots = store.snapshots.lock().expect(UNPOISONED);
        snapshots.insert(key, (meta.clone(), content.into()));
        Ok(meta)
    }
}

impl SnapshotStore for MemorySnapshots {
    fn create(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotSink>, StorageError> {
        Ok(Box::new(MemorySink { store: self.clone(), meta, content: Vec::new() }))
    }

    fn list(&self, group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError> {
        let snapshots = self.snapshots.lock().expect(UNPOISONED);
        let of_group = snapshots.range((group, Index(0))..=(group, Index(u64::MAX)));
        Ok(of_group.rev().map(|(_, (meta, _))| meta.clone()).collect())
    }

    fn open(
        &self,
        group: GroupId,
        index: Index,
    ) -> Result<(SnapshotMeta, Box<dyn Read + Send>), StorageError> {
        let snapshots = self.snapshots.lock().expect(UNPOISONED);
        let (meta, content) = snapshots.get(&(group, index)).ok_or_else(|| {
            let path = format!("snapshot {index} of group {group}").into();
            StorageError::Io { action: "open", path, source: io::ErrorKind::NotFound.into() }
        })?;
        Ok((meta.clone(), Box::new(content.clone().reader())))
    }

    fn retain(&self, group: GroupId, keep: usize, upto: Index) -> Result<(), StorageError> {
        let covered = self.list(group)?.into_iter().filter(|meta| meta.index <= upto);
        for meta in covered.skip(keep.max(1)) {
            self.snapshots.lock().expect(UNPOISONED).remove(&(group, meta.index));
        }
        Ok(())
    }

    fn set_aside(&self, damaged: &SnapshotMeta) {
        let mut snapshots = self.snapshots.lock().expect(UNPOISONED);
        let key = (damaged.group, damaged.index);
        if snapshots.get(&key).is_some_and(|(meta, _)| meta == damaged) {
            snapshots.remove(&key);
        }
    }

    fn free_bytes(&self) -> Result<Option<u64>, StorageError> {
        Ok(None)
    }

    fn damaged(&self, _: GroupId) -> Vec<StorageError> {
        Vec::new()
    }
}
