//! [`LogStore`] on raft-engine, the log store made for TiKV. The default back end.
//!
//! A group is a raft-engine region. One [`WriteBatch`] becomes one record: entries, commands
//! and, for each group it touches, one key-value `meta` (see `codec`), in one write and one
//! fdatasync. `reset_to` is raft-engine's `Clean`, which drops entries and values of the
//! region, followed in the same record by the new `meta`.
//!
//! ```text
//!   write --judge--> index --record--> raft-engine --> GuardedFileSystem --> F --> disk
//!                      ^                                   | after each sync
//!   reads -------------+--older entries--> raft-engine     +--> mark ("durable up to")
//! ```
//!
//! Locks, in the order in which they are taken:
//! - `writer`: one write at a time, so that a torn tail is one record at most;
//! - `purging`: held by a purge, across all of its fsyncs, and by writes that do more than append;
//! - `gate`: reads that go to raft-engine share it; writes that do more than append own it, because
//!   raft-engine 0.4.2 shows a truncation before this store does;
//! - `groups`: held for moments, never during I/O.
//!
//! A scrub (see `scrub`) reads files with none of them.
//!
//! Reads never wait for a purge. One that looked an entry up before the purge moved it fails when its
//! file is gone by then, and looks again (see `cold_reads`).

mod cold_reads;
mod factory;
mod file_system;
mod scrub;
mod verify;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use protobuf::well_known_types::BytesValue;
use raft_engine::env::FileSystem;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use self::file_system::GuardedFileSystem;
use super::codec::{
    GroupMeta, decode_entry, decode_meta, encode_entry_to, encode_meta, peek_index,
};
use super::config::StorageConfig;
use super::disk::{Directories, corrupt, ensure_dir, sync_dir};
use super::index::{GroupIndex, Groups, Poison, panic_text};
use super::mark::Mark;
use super::real_files::RealFiles;
use super::{Damage, LogStore, Pace, Scrubbed, StableStore, StorageError, WriteBatch};
use crate::museum::{self, Exhibit};
use crate::types::{GroupId, HardState, Index, LogEntry, LogPosition, Term};

pub(super) use self::factory::RaftEngine;

const ENGINE: &str = "raft-engine";
const META_KEY: &[u8] = b"meta";
const UNPOISONED: &str = "no code panics while it holds this lock";
/// raft-engine adds up sizes in 32 bits, so it is asked for less than this at a time.
const MAX_FETCH_BYTES: u64 = 256 << 20;
const MIN_RECOVERY_THREADS: usize = 1;

/// Tells raft-engine the index of an entry: a `BytesValue` around our own encoding.
struct EncodedEntry;

impl MessageExt for EncodedEntry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        peek_index(&entry.value)
    }
}

/// What a record is put together in, kept for the next one: a page that is given back costs more to get
/// again than what is written to it.
#[derive(Default)]
struct Scratch {
    record: LogBatch,
    entries: Vec<BytesValue>,
}

/// Most bytes of encoded entries for which room is kept.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

impl Scratch {
    /// The record of a batch.
    fn fill(
        &mut self,
        batch: &WriteBatch,
        metas: &[(GroupId, GroupMeta)],
    ) -> Result<&mut LogBatch, raft_engine::Error> {
        let record = &mut self.record;
        for ((group, write), (_, meta)) in batch.groups.iter().zip(metas) {
            if write.reset_to.is_some() {
                record.add_command(group.0, Command::Clean);
            }
            if self.entries.len() < write.entries.len() {
                self.entries.resize_with(write.entries.len(), BytesValue::default);
            }
            let encoded = &mut self.entries[..write.entries.len()];
            for (entry, encoded) in write.entries.iter().zip(encoded.iter_mut()) {
                encoded.value.clear();
                encode_entry_to(entry, &mut encoded.value);
            }
            record.add_entries::<EncodedEntry>(group.0, encoded)?;
            if let Some(to) = write.compact_to {
                record.add_command(group.0, Command::Compact { index: to.index.0 + 1 });
            }
            record.put(group.0, META_KEY.to_vec(), encode_meta(meta))?;
        }
        Ok(record)
    }

    /// Gives back what is rarely needed.
    fn shrink(&mut self) {
        let mut kept = 0;
        self.entries.retain(|entry| {
            kept += entry.value.capacity();
            kept <= SCRATCH_BYTES_MAX
        });
    }
}

/// [`LogStore`] on raft-engine; see the module.
pub struct RaftEngineLog<F: FileSystem = RealFiles> {
    dir: PathBuf,
    file_system: Arc<GuardedFileSystem<F>>,
    engine: Engine<GuardedFileSystem<F>>,
    groups: RwLock<Groups>,
    writer: Mutex<Scratch>,
    purging: Mutex<()>,
    gate: RwLock<()>,
    /// Grows when a purge begins and when it ends: odd while there is one.
    purges: AtomicU64,
    poison: Poison,
}

impl RaftEngineLog {
    /// Opens or creates the store in a directory of its own.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the files are not those that were written, other than
    /// for a last record that a crash cut short.
    pub fn open(dir: &Path, config: &StorageConfig) -> Result<RaftEngineLog, StorageError> {
        RaftEngineLog::open_with_file_system(dir, config, Arc::new(RealFiles::default()))
    }
}

impl<F: FileSystem + Directories + 'static> RaftEngineLog<F> {
    /// As [`RaftEngineLog::open`], on another file system.
    ///
    /// raft-engine 0.4.2 takes some steps past it, on a real directory of this name, which
    /// must exist by the time it is opened: it locks it, learns from it which log files
    /// there are (only their names matter), and syncs it after it has created one.
    ///
    /// # Errors
    /// As [`RaftEngineLog::open`].
    pub fn open_with_file_system(
        dir: &Path,
        config: &StorageConfig,
        file_system: Arc<F>,
    ) -> Result<RaftEngineLog<F>, StorageError> {
        ensure_dir(file_system.as_ref(), dir)?;
        let has_data = verify::has_log_files(file_system.as_ref(), dir)?;
        let mark = Mark::open(file_system.as_ref(), dir, has_data)?;
        let file_system = Arc::new(GuardedFileSystem::new(file_system, mark));
        verify::verify(&file_system, dir)?;
        let engine_config = engine_config(dir, config)?;
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Engine::open_with_file_system(engine_config, file_system.clone())
        }));
        file_system.failure()?;
        let engine = match opened {
            Ok(Err(error)) if is_corruption(&error) => {
                return Err(corrupt(dir, 0, error.to_string()));
            }
            Err(panic) => return Err(corrupt(dir, 0, panic_text(panic.as_ref()))),
            opened => flatten(dir, opened)?,
        };
        // raft-engine creates its first files without syncing the directory.
        sync_dir(file_system.as_ref(), dir)?;
        let groups = recover(dir, &engine, config.recent_entries_bytes)?;
        file_system.failure()?;
        Ok(RaftEngineLog {
            dir: dir.to_owned(),
            file_system,
            engine,
            groups: RwLock::new(groups),
            writer: Mutex::default(),
            purging: Mutex::new(()),
            gate: RwLock::new(()),
            purges: AtomicU64::new(0),
            poison: Poison::default(),
        })
    }
}

impl<F: FileSystem + 'static> RaftEngineLog<F> {
    fn write_record(&self, record: &mut LogBatch) -> Result<(), StorageError> {
        let written = catch_unwind(AssertUnwindSafe(|| {
            self.engine.write(record, !museum::is_on(Exhibit::LogNotSynced))
        }));
        // The failure below is the cause, what the engine makes of it a consequence.
        self.file_system.failure()?;
        flatten(&self.dir, written).map(drop)
    }

    fn purge_files(&self) -> Result<(), StorageError> {
        let _purging = self.purging.lock().expect(UNPOISONED);
        self.poison.check(ENGINE)?;
        self.purges.fetch_add(1, Ordering::SeqCst);
        let purged = catch_unwind(AssertUnwindSafe(|| self.engine.purge_expired_files()));
        self.purges.fetch_add(1, Ordering::SeqCst);
        let purged = self.file_system.failure().and_then(|()| flatten(&self.dir, purged));
        let stuck = purged.map_err(|error| self.poison.set(error))?;
        tracing::debug!(groups = ?stuck, "purged the log; these groups hold old files");
        Ok(())
    }
}

fn engine_config(dir: &Path, config: &StorageConfig) -> Result<Config, StorageError> {
    let dir = dir.to_str().ok_or_else(|| StorageError::Engine {
        engine: ENGINE,
        message: format!("the path {} is not valid UTF-8; choose another", dir.display()),
    })?;
    Ok(Config {
        dir: dir.to_owned(),
        // Torn tails are cut before raft-engine looks; whatever it still finds is corruption.
        recovery_mode: RecoveryMode::AbsoluteConsistency,
        recovery_threads: MIN_RECOVERY_THREADS,
        batch_compression_threshold: ReadableSize(config.compress_above_bytes),
        target_file_size: ReadableSize(config.log_file_bytes),
        // Thresholds are compared with the number of files times their target size: purging
        // does its work as soon as there is a second file.
        purge_threshold: ReadableSize(config.log_file_bytes),
        purge_rewrite_threshold: Some(ReadableSize(config.log_file_bytes)),
        // Recycled files would hold old records behind the tail, and double the space.
        enable_log_recycle: false,
        prefill_for_recycle: false,
        ..Config::default()
    })
}

/// Whether raft-engine could read the files, and could make no sense of them.
fn is_corruption(error: &raft_engine::Error) -> bool {
    use raft_engine::Error::{Codec, Corruption, Protobuf};
    matches!(error, Corruption(_) | Codec(_) | Protobuf(_))
}

/// Puts the three ways in which raft-engine fails into one.
fn flatten<T>(
    dir: &Path,
    result: std::thread::Result<raft_engine::Result<T>>,
) -> Result<T, StorageError> {
    let message = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic_text(panic.as_ref()),
    };
    Err(StorageError::Engine { engine: ENGINE, message: format!("{}: {message}", dir.display()) })
}

/// Reads all groups and all their entries, and checks that they are what was written.
fn recover<F: FileSystem>(
    dir: &Path,
    engine: &Engine<F>,
    recent_limit_bytes: u64,
) -> Result<Groups, StorageError> {
    let mut groups = Groups::new(recent_limit_bytes);
    let mut leftovers = LogBatch::default();
    for region in engine.raft_groups() {
        let group = GroupId(region);
        let broken = |reason: String| corrupt(dir, 0, format!("group {group}: {reason}"));
        let Some(meta) = engine.get(region, META_KEY) else {
            // A purge leaves an empty region behind where it marks groups of records.
            match engine.first_index(region) {
                None => continue,
                Some(_) => return Err(broken("entries without a record of the group".to_owned())),
            }
        };
        let meta = decode_meta(&meta).map_err(broken)?;
        drop_leftovers(engine, region, &meta, &mut leftovers).map_err(broken)?;
        let mut index = GroupIndex::recovering(meta.start, meta.hard_state);
        while index.last() < meta.last.index {
            let range = index.last().next()..meta.last.index.next();
            for entry in fetch(dir, engine, group, range, MAX_FETCH_BYTES)? {
                index.push_recovered(&entry).map_err(broken)?;
            }
        }
        if index.meta() != meta {
            let found = index.meta().last.term;
            let (last, term) = (meta.last.index, meta.last.term);
            return Err(broken(format!("entry {last} has term {found}, but {term} was written")));
        }
        groups.insert_recovered(group, index);
    }
    if !leftovers.is_empty() {
        flatten(dir, catch_unwind(AssertUnwindSafe(|| engine.write(&mut leftovers, true))))?;
    }
    Ok(groups)
}

/// raft-engine may bring back entries that were dropped in a file that is purged by now.
fn drop_leftovers<F: FileSystem>(
    engine: &Engine<F>,
    region: u64,
    meta: &GroupMeta,
    leftovers: &mut LogBatch,
) -> Result<(), String> {
    let (Some(first), Some(last)) = (engine.first_index(region), engine.last_index(region)) else {
        return Ok(());
    };
    let (start, end) = (meta.start.index.0, meta.last.index.0);
    if start == end {
        leftovers.add_command(region, Command::Clean);
        leftovers
            .put(region, META_KEY.to_vec(), encode_meta(meta))
            .map_err(|error| error.to_string())?;
    } else if last != end {
        return Err(format!("the log ends at {last}, but {end} was written"));
    } else if first <= start {
        leftovers.add_command(region, Command::Compact { index: start + 1 });
    }
    Ok(())
}

/// Reads entries from the files, at least one.
fn fetch<F: FileSystem>(
    dir: &Path,
    engine: &Engine<F>,
    group: GroupId,
    range: Range<Index>,
    max_bytes: u64,
) -> Result<Vec<LogEntry>, StorageError> {
    let limit = max_bytes.min(MAX_FETCH_BYTES) as usize;
    let mut encoded = Vec::new();
    // raft-engine asserts rather than reports that an entry is not where it belongs.
    catch_unwind(AssertUnwindSafe(|| {
        engine.fetch_entries_to::<EncodedEntry>(
            group.0,
            range.start.0,
            range.end.0,
            Some(limit),
            &mut encoded,
        )
    }))
    .map_err(|panic| {
        let (Range { start, end }, text) = (&range, panic_text(panic.as_ref()));
        corrupt(dir, 0, format!("group {group}: entries {start}..{end}: {text}"))
    })?
    .map_err(|error| unreadable(dir, group, &range, &error))?;
    let mut entries = Vec::with_capacity(encoded.len());
    for (value, index) in encoded.into_iter().zip(range.start.0..) {
        let entry = decode_entry(Bytes::from(value.value))
            .and_then(|entry| match entry.index.0 == index {
                true => Ok(entry),
                false => Err(format!("entry {} stands where {index} belongs", entry.index)),
            })
            .map_err(|reason| corrupt(dir, 0, format!("group {group}: {reason}")))?;
        entries.push(entry);
    }
    match entries.is_empty() {
        true => Err(corrupt(dir, 0, format!("group {group}: entry {} is missing", range.start))),
        false => Ok(entries),
    }
}

fn unreadable(
    dir: &Path,
    group: GroupId,
    range: &Range<Index>,
    error: &raft_engine::Error,
) -> StorageError {
    let reason = format!("group {group}: entries {}..{}: {error}", range.start, range.end);
    match error {
        raft_engine::Error::Io(_) => StorageError::Engine { engine: ENGINE, message: reason },
        _ => corrupt(dir, 0, reason),
    }
}

impl<F: FileSystem + 'static> StableStore for RaftEngineLog<F> {
    fn hard_state(&self, group: GroupId) -> Result<HardState, StorageError> {
        Ok(self.groups.read().expect(UNPOISONED).get(group).hard_state())
    }
}

impl<F: FileSystem + Directories + 'static> LogStore for RaftEngineLog<F> {
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
        // Not in the condition below, which would hold the lock while files are read.
        let recent = self.groups.read().expect(UNPOISONED).recent(group, &range, max_bytes)?;
        if let Some(entries) = recent {
            return Ok(entries);
        }
        self.read_cold(group, &range, max_bytes)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut scratch = self.writer.lock().expect(UNPOISONED);
        self.poison.check(ENGINE)?;
        let groups = self.groups.read().expect(UNPOISONED);
        let metas = groups.judge(batch)?;
        let rewrites = groups.is_rewritten_by(batch);
        drop(groups);
        let record = scratch.fill(batch, &metas).map_err(|error| {
            // Half of it is in the record.
            self.poison.set(StorageError::Engine { engine: ENGINE, message: error.to_string() })
        })?;
        let _purging = rewrites.then(|| self.purging.lock().expect(UNPOISONED));
        let _gate = rewrites.then(|| self.gate.write().expect(UNPOISONED));
        self.write_record(record).map_err(|error| self.poison.set(error))?;
        scratch.shrink();
        self.groups.write().expect(UNPOISONED).apply(batch, &metas);
        Ok(())
    }

    fn purge(&self) -> Result<(), StorageError> {
        self.purge_files()
    }

    fn scrub(&self, pace: &mut Pace<'_>) -> Result<Scrubbed, StorageError> {
        self.scrub_files(pace)
    }

    fn shed(&self, damages: &[Damage]) -> Result<Vec<Damage>, StorageError> {
        self.shed_files(damages)
    }

    fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        Ok(self.groups.read().expect(UNPOISONED).ids())
    }
}
