//! [`RaftEngineLog`] for many disks on one thread.
//!
//! raft-engine 0.4.2 keeps the block it read last in a thread-local, by file number, offset
//! and length, but not by engine: one thread that reads two logs, or one log again after its
//! tail was cut and written anew, can be given entries of the other. A process with one log
//! cannot meet that; a simulator would. So before each read something else is read.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use protobuf::well_known_types::UInt64Value;
use raft_engine::{Config, Engine, LogBatch, MessageExt, RecoveryMode};
use raft_host::storage::{
    LogStore, RaftEngineLog, StableStore, StorageConfig, StorageError, WriteBatch,
};
use raft_host::types::{GroupId, HardState, Index, LogEntry, LogPosition, Term};

use super::access::Mount;

/// Makes raft-engine forget the block that this thread read last.
fn forget_last_block() {
    EVICTOR.with(Evictor::evict);
}

thread_local! {
    static EVICTOR: Evictor = Evictor::new();
}

/// A log of one entry, in a file of a number that no other log reaches.
struct Evictor {
    engine: Engine,
    _dir: tempfile::TempDir,
}

struct Entry;

impl MessageExt for Entry {
    type Entry = UInt64Value;

    fn index(entry: &UInt64Value) -> u64 {
        entry.value
    }
}

impl Evictor {
    const FILE: &str = "9000000000000000.raftlog";
    const GROUP: u64 = 1;
    const INDEX: u64 = 1;

    fn new() -> Evictor {
        let dir = super::real_dir().expect("a real directory");
        // raft-engine goes on in the last file there is, and takes an empty one for cut short.
        std::fs::write(dir.path().join(Self::FILE), b"").expect("an empty file");
        let config = Config {
            dir: dir.path().to_str().expect("a name in UTF-8").to_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            recovery_threads: 1,
            ..Config::default()
        };
        let engine = Engine::open(config).expect("an empty log");
        let mut batch = LogBatch::default();
        let entry = UInt64Value { value: Self::INDEX, ..UInt64Value::default() };
        batch.add_entries::<Entry>(Self::GROUP, &[entry]).expect("a small entry");
        engine.write(&mut batch, false).expect("a write");
        Evictor { engine, _dir: dir }
    }

    fn evict(&self) {
        let entry = self.engine.get_entry::<Entry>(Self::GROUP, Self::INDEX);
        assert!(entry.expect("readable").is_some(), "the entry that was written");
    }
}

/// See the module.
pub(super) struct SimLog(RaftEngineLog<Mount>);

impl SimLog {
    pub(super) fn open(
        dir: &Path,
        config: &StorageConfig,
        mount: Arc<Mount>,
    ) -> Result<SimLog, StorageError> {
        forget_last_block();
        RaftEngineLog::open_with_file_system(dir, config, mount).map(SimLog)
    }
}

impl StableStore for SimLog {
    fn hard_state(&self, group: GroupId) -> Result<HardState, StorageError> {
        self.0.hard_state(group)
    }
}

impl LogStore for SimLog {
    fn start(&self, group: GroupId) -> Result<LogPosition, StorageError> {
        self.0.start(group)
    }

    fn last_index(&self, group: GroupId) -> Result<Index, StorageError> {
        self.0.last_index(group)
    }

    fn term(&self, group: GroupId, index: Index) -> Result<Term, StorageError> {
        self.0.term(group, index)
    }

    fn entries(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        forget_last_block();
        self.0.entries(group, range, max_bytes)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.0.write(batch)
    }

    fn purge(&self) -> Result<(), StorageError> {
        forget_last_block();
        self.0.purge()
    }

    fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        self.0.groups()
    }
}
