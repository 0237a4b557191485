//! [`LogStore`] on sled 0.34, chosen by `--storage-engine sled`.
//!
//! One tree for all groups. Keys sort by group, kind and index (numbers big-endian):
//!
//! ```text
//!   group u64 | 0                  the group's record (see `codec`)
//!   group u64 | 1 | index u64      an entry
//!   0xff * 17                      number of the last batch, u64 little-endian
//!   every value ends with the CRC-32 (u32 little-endian) of its key and what precedes it
//! ```
//!
//! A batch is one `sled::Batch`, which sled recovers whole or not at all. The group's record
//! bounds what is valid; entries outside of `start.index + 1 ..= last.index` are garbage
//! that [`LogStore::purge`] removes, so compaction and truncation are cheap.
//!
//! Durability: on Linux `flush` of sled 0.34 ends in `sync_file_range`, which neither waits
//! for the disk's cache nor covers the file's metadata, and its blob files are not synced at
//! all. So after each flush we fsync sled's `db` file, and new blob files with their
//! directory, ourselves. What sled overwrites in place between our syncs stays its own
//! affair: raft-engine is the default for a reason.
//!
//! Corruption: sled cuts its log where it finds a damaged part and goes on with what was
//! before. The number of the last durable batch in the `mark` shows that something is gone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::codec::{GroupMeta, decode_entry, decode_meta, encode_entry, encode_meta};
use super::config::StorageConfig;
use super::disk::{RealDisk, corrupt, ensure_dir, io_error, sync_dir};
use super::engines::LogEngine;
use super::index::{GroupIndex, Groups, Poison, panic_text};
use super::mark::Mark;
use super::real_files::RealFiles;
use super::scrub::damage;
use super::{
    Damage, DamagedPart, DiskRoom, LogStore, Pace, Scrubbed, StableStore, StorageError, WriteBatch,
};
use crate::types::{GroupId, HardState, Index, LogEntry, LogPosition, Term};

const ENGINE: &str = "sled";
const UNPOISONED: &str = "no code panics while it holds this lock";
const BATCH_KEY: [u8; 17] = [0xff; 17];
const KIND_META: u8 = 0;
const KIND_ENTRY: u8 = 1;
/// Garbage is removed in steps of so many keys, between which writes get their turn.
const PURGE_STEP: usize = 4096;

/// How long the previous owner of the files may take to let go of them.
const RELEASE_PATIENCE: Duration = Duration::from_secs(30);
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// Opens [`SledLog`]s.
pub(super) struct Sled;

impl LogEngine for Sled {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn number(&self) -> u32 {
        2
    }

    fn summary(&self) -> &'static str {
        "the embedded database sled"
    }

    /// sled writes by itself: a write that finds no room fails.
    fn open(
        &self,
        dir: &Path,
        config: &StorageConfig,
        _: &Arc<DiskRoom>,
    ) -> Result<Arc<dyn LogStore>, StorageError> {
        Ok(Arc::new(SledLog::open(dir, config)?))
    }
}

/// [`LogStore`] on sled; see the module.
pub struct SledLog {
    db: sled::Db,
    db_path: PathBuf,
    groups: RwLock<Groups>,
    writer: Mutex<Writer>,
    /// Shared by reads of older entries, owned by writes that do more than append.
    gate: RwLock<()>,
    poison: Poison,
}

struct Writer {
    /// Number of the last batch.
    batch: u64,
    mark: Mark,
    db_file: File,
    blobs_dir: PathBuf,
    /// Blob files already durable.
    synced_blobs: BTreeSet<OsString>,
}

impl SledLog {
    /// Opens or creates the store in a directory of its own.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when sled lost or altered what was durable.
    pub fn open(dir: &Path, config: &StorageConfig) -> Result<SledLog, StorageError> {
        ensure_dir(&RealDisk, dir)?;
        let db_path = dir.join("db");
        let mut mark = Mark::open(&RealFiles::default(), dir, db_path.exists())?;
        let [durable_batch, durable_bytes, ..] = mark.positions();
        check_length(&db_path, durable_batch, durable_bytes)?;
        await_release(&db_path)?;
        let settings = sled::Config::new()
            .path(dir)
            .cache_capacity(config.sled_cache_bytes)
            .flush_every_ms(None);
        let opened = catch_unwind(AssertUnwindSafe(|| settings.open()));
        let db = opened
            .map_err(|panic| corrupt(&db_path, 0, panic_text(panic.as_ref())))?
            .map_err(|error| convert(&db_path, error))?;
        let batch = last_batch(&db, &db_path)?;
        if batch < durable_batch {
            let reason = format!(
                "batch {durable_batch} was durable, but sled recovered no further than {batch}"
            );
            return Err(corrupt(&db_path, 0, reason));
        }
        let groups = recover(&db, &db_path, config.recent_entries_bytes)?;
        let db_file = File::open(&db_path).map_err(io_error("open", &db_path))?;
        // What was recovered may have been in the page cache only.
        db.flush().map_err(|error| convert(&db_path, error))?;
        db_file.sync_all().map_err(io_error("sync", &db_path))?;
        sync_dir(&RealDisk, dir)?;
        let length = db_file.metadata().map_err(io_error("stat", &db_path))?.len();
        mark.advance([batch, length, 0, 0])?;
        let blobs_dir = dir.join("blobs");
        let mut writer = Writer { batch, mark, db_file, blobs_dir, synced_blobs: BTreeSet::new() };
        writer.sync_blobs()?;
        Ok(SledLog {
            db,
            db_path,
            groups: RwLock::new(groups),
            writer: Mutex::new(writer),
            gate: RwLock::new(()),
            poison: Poison::default(),
        })
    }

    fn write_batch(&self, writer: &mut Writer, batch: sled::Batch) -> Result<(), StorageError> {
        let written = catch_unwind(AssertUnwindSafe(|| {
            self.db.apply_batch(batch)?;
            self.db.flush()
        }));
        written
            .map_err(|panic| StorageError::Engine {
                engine: ENGINE,
                message: panic_text(panic.as_ref()),
            })?
            .map_err(|error| convert(&self.db_path, error))?;
        writer.sync_blobs()?;
        writer.db_file.sync_data().map_err(io_error("sync", &self.db_path))?;
        let length = writer.db_file.metadata().map_err(io_error("stat", &self.db_path))?.len();
        writer.mark.advance([writer.batch, length, 0, 0])
    }

    /// Removes the garbage of a group, up to a number of keys; whether there may be more.
    fn purge_step(&self, group: GroupId) -> Result<bool, StorageError> {
        let _writer = self.writer.lock().expect(UNPOISONED);
        self.poison.check(ENGINE)?;
        let (start, last) = {
            let groups = self.groups.read().expect(UNPOISONED);
            (groups.get(group).start().index, groups.get(group).last())
        };
        let before = entry_key(group, Index(0)).to_vec()..entry_key(group, start.next()).to_vec();
        let after =
            entry_key(group, last.next()).to_vec()..=entry_key(group, Index(u64::MAX)).to_vec();
        let garbage = self.db.range(before).chain(self.db.range(after)).keys_up_to(PURGE_STEP);
        let garbage = garbage.map_err(|error| convert(&self.db_path, error))?;
        let is_full = garbage.len() == PURGE_STEP;
        let mut removals = sled::Batch::default();
        garbage.into_iter().for_each(|key| removals.remove(key));
        // Not flushed: garbage that comes back is still garbage.
        self.db
            .apply_batch(removals)
            .map_err(|error| self.poison.set(convert(&self.db_path, error)))?;
        Ok(is_full)
    }
}

/// Waits until nobody has sled's file locked. A `Db` that was dropped lives on in sled's pool
/// of threads until the last of its tasks is done, and only then gives up its lock. Another
/// process cannot be the owner: the data directory has a lock of its own.
fn await_release(db_path: &Path) -> Result<(), StorageError> {
    let file = match File::open(db_path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(io_error("open", db_path))?,
    };
    let deadline = Instant::now() + RELEASE_PATIENCE;
    loop {
        match file.try_lock() {
            // Dropping the file gives the lock back.
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(RELEASE_POLL);
            }
            Err(error) => return Err(io_error("lock", db_path)(error.into())),
        }
    }
}

trait KeysUpTo {
    fn keys_up_to(self, limit: usize) -> sled::Result<Vec<sled::IVec>>;
}

impl<I: Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>> KeysUpTo for I {
    fn keys_up_to(self, limit: usize) -> sled::Result<Vec<sled::IVec>> {
        self.take(limit).map(|pair| pair.map(|(key, _)| key)).collect()
    }
}

impl Writer {
    /// sled writes large values to files of their own and never syncs them.
    fn sync_blobs(&mut self) -> Result<(), StorageError> {
        let dir = &self.blobs_dir;
        let mut present = BTreeSet::new();
        let mut is_changed = false;
        for entry in std::fs::read_dir(dir).map_err(io_error("list", dir))? {
            let entry = entry.map_err(io_error("list", dir))?;
            let name = entry.file_name();
            if !self.synced_blobs.contains(&name) {
                let path = entry.path();
                match File::open(&path).and_then(|blob| blob.sync_all()) {
                    // sled removes blobs that it no longer needs at any time.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    result => result.map_err(io_error("sync", &path))?,
                }
                is_changed = true;
            }
            present.insert(name);
        }
        self.synced_blobs = present;
        if is_changed { sync_dir(&RealDisk, dir) } else { Ok(()) }
    }
}

/// sled allocates segments and never shortens its file below a durable batch.
fn check_length(db_path: &Path, batch: u64, durable_bytes: u64) -> Result<(), StorageError> {
    if batch == 0 {
        return Ok(());
    }
    match std::fs::metadata(db_path) {
        Ok(metadata) if metadata.len() >= durable_bytes => Ok(()),
        Ok(metadata) => {
            let reason = format!("the file ends here, but was {durable_bytes} bytes long");
            Err(corrupt(db_path, metadata.len(), reason))
        }
        Err(error) => Err(io_error("open", db_path)(error)),
    }
}

fn convert(db_path: &Path, error: sled::Error) -> StorageError {
    match error {
        sled::Error::Io(source) => io_error("access", db_path)(source),
        sled::Error::Corruption { at, .. } => {
            let offset = at.map_or(0, |at| at.lid());
            corrupt(db_path, offset, "sled found a damaged record")
        }
        other => StorageError::Engine { engine: ENGINE, message: other.to_string() },
    }
}

fn meta_key(group: GroupId) -> [u8; 9] {
    let mut key = [KIND_META; 9];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key
}

fn entry_key(group: GroupId, index: Index) -> [u8; 17] {
    let mut key = [KIND_ENTRY; 17];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[9..].copy_from_slice(&index.0.to_be_bytes());
    key
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    value.extend_from_slice(&checksum(key, &value));
    value
}

fn unseal<'a>(db_path: &Path, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], StorageError> {
    sealed
        .split_last_chunk()
        .filter(|(value, expected)| checksum(key, value) == **expected)
        .map(|(value, _)| value)
        .ok_or_else(|| corrupt(db_path, 0, format!("the checksum of key {key:02x?} does not fit")))
}

fn last_batch(db: &sled::Db, db_path: &Path) -> Result<u64, StorageError> {
    let Some(value) = db.get(BATCH_KEY).map_err(|error| convert(db_path, error))? else {
        return Ok(0);
    };
    let value = unseal(db_path, &BATCH_KEY, &value)?;
    let number =
        value.try_into().map_err(|_| corrupt(db_path, 0, "the batch number is malformed"))?;
    Ok(u64::from_le_bytes(number))
}

fn read_entry(
    db: &sled::Db,
    db_path: &Path,
    group: GroupId,
    index: Index,
) -> Result<LogEntry, StorageError> {
    let key = entry_key(group, index);
    let broken = |reason: String| corrupt(db_path, 0, format!("group {group}: {reason}"));
    let value = db
        .get(key)
        .map_err(|error| convert(db_path, error))?
        .ok_or_else(|| broken(format!("entry {index} is missing")))?;
    let value = unseal(db_path, &key, &value)?;
    let entry = decode_entry(Bytes::copy_from_slice(value)).map_err(broken)?;
    match entry.index == index {
        true => Ok(entry),
        false => Err(broken(format!("entry {} stands where {index} belongs", entry.index))),
    }
}

fn recover(db: &sled::Db, db_path: &Path, limit_bytes: u64) -> Result<Groups, StorageError> {
    let mut groups = Groups::new(limit_bytes);
    for (group, meta) in read_metas(db, db_path)? {
        let broken = |reason: String| corrupt(db_path, 0, format!("group {group}: {reason}"));
        let mut index = GroupIndex::recovering(meta.start, meta.hard_state);
        while index.last() < meta.last.index {
            let entry = read_entry(db, db_path, group, index.last().next())?;
            index.push_recovered(&entry).map_err(broken)?;
        }
        if index.meta() != meta {
            return Err(broken(format!("entry {} has another term", meta.last.index)));
        }
        groups.insert_recovered(group, index);
    }
    Ok(groups)
}

fn read_metas(db: &sled::Db, db_path: &Path) -> Result<Vec<(GroupId, GroupMeta)>, StorageError> {
    let mut metas = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let found = db.range(from_group(from)..).next();
        let Some(found) = found else { break };
        let (key, value) = found.map_err(|error| convert(db_path, error))?;
        if key == BATCH_KEY {
            break;
        }
        let group = key
            .first_chunk()
            .map(|group| GroupId(u64::from_be_bytes(*group)))
            .filter(|group| *key == meta_key(*group))
            .ok_or_else(|| corrupt(db_path, 0, format!("unexpected key {:02x?}", &key[..])))?;
        let value = unseal(db_path, &key, &value)?;
        let meta = decode_meta(value)
            .map_err(|reason| corrupt(db_path, 0, format!("group {group}: {reason}")))?;
        metas.push((group, meta));
        next = group.0.checked_add(1);
    }
    Ok(metas)
}

fn from_group(group: u64) -> [u8; 8] {
    group.to_be_bytes()
}

impl StableStore for SledLog {
    fn hard_state(&self, group: GroupId) -> Result<HardState, StorageError> {
        Ok(self.groups.read().expect(UNPOISONED).get(group).hard_state())
    }
}

impl LogStore for SledLog {
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
        let recent = |range| self.groups.read().expect(UNPOISONED).recent(group, range, max_bytes);
        if let Some(entries) = recent(&range)? {
            return Ok(entries);
        }
        let _gate = self.gate.read().expect(UNPOISONED);
        // While waiting for the gate the log may have changed.
        if let Some(entries) = recent(&range)? {
            return Ok(entries);
        }
        let mut entries = Vec::new();
        let mut bytes: u64 = 0;
        for index in (range.start.0..range.end.0).map(Index) {
            let entry = read_entry(&self.db, &self.db_path, group, index)?;
            bytes = bytes.saturating_add(entry.cost_bytes());
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), StorageError> {
        let mut writer = self.writer.lock().expect(UNPOISONED);
        self.poison.check(ENGINE)?;
        let groups = self.groups.read().expect(UNPOISONED);
        let metas = groups.judge(batch)?;
        let rewrites = groups.is_rewritten_by(batch);
        drop(groups);
        if metas.is_empty() {
            return Ok(());
        }
        writer.batch += 1;
        let mut changes = sled::Batch::default();
        let mut insert = |key: &[u8], value: Vec<u8>| changes.insert(key, seal(key, value));
        for ((group, write), (_, meta)) in batch.groups.iter().zip(&metas) {
            for entry in write.entries.iter().filter(|entry| entry.index > meta.start.index) {
                insert(&entry_key(*group, entry.index), encode_entry(entry));
            }
            insert(&meta_key(*group), encode_meta(meta));
        }
        insert(&BATCH_KEY, writer.batch.to_le_bytes().to_vec());
        let _gate = rewrites.then(|| self.gate.write().expect(UNPOISONED));
        self.write_batch(&mut writer, changes).map_err(|error| self.poison.set(error))?;
        self.groups.write().expect(UNPOISONED).apply(batch, &metas);
        Ok(())
    }

    fn purge(&self) -> Result<(), StorageError> {
        for group in self.groups()? {
            while self.purge_step(group)? {}
        }
        Ok(())
    }

    /// Every entry, by way of sled: what its page cache holds is not read from the disk.
    fn scrub(&self, pace: &mut Pace<'_>) -> Result<Scrubbed, StorageError> {
        let mut damages = Vec::new();
        for group in self.groups()? {
            let mut next = self.first_index(group)?;
            loop {
                let gate = self.gate.read().expect(UNPOISONED);
                // What was compacted or cut off meanwhile is not looked at.
                next = next.max(self.first_index(group)?);
                if next > self.last_index(group)? {
                    break;
                }
                let read = read_entry(&self.db, &self.db_path, group, next);
                drop(gate);
                let bytes = match read {
                    Ok(entry) => entry.cost_bytes(),
                    Err(error) if damages.is_empty() => {
                        damages.push(damage(DamagedPart::Log, error)?);
                        0
                    }
                    Err(_) => 0,
                };
                if !pace(bytes) {
                    return Ok(Scrubbed { damages, is_whole: false });
                }
                next = next.next();
            }
        }
        Ok(Scrubbed { damages, is_whole: true })
    }

    fn shed(&self, _: &[Damage]) -> Result<Vec<Damage>, StorageError> {
        self.purge()?;
        Ok(self.scrub(&mut |_| true)?.damages)
    }

    fn groups(&self) -> Result<Vec<GroupId>, StorageError> {
        Ok(self.groups.read().expect(UNPOISONED).ids())
    }
}
