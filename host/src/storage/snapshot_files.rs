//! [`SnapshotStore`] as files: `<dir>/<group>/<index>-<term>.snap`.
//!
//! A snapshot is written under a temporary name, synced, renamed, and its directory synced:
//! it is there whole or not at all. It is synced in steps, so that the log's own syncs never wait
//! for more of it than a step. Temporary files are removed when the store is opened. A file
//! that is damaged all the same is left out of the list: whether the state before it will do is
//! for those to say who know the log. It goes when a newer snapshot is safe.
//!
//! ```text
//!   header   magic "RHSNAPSH" | format version u32 = 1 | meta length u32 | meta (below)
//!            | CRC-32 of all that u32
//!   block*   length u32, 1 ..= 256 Ki | CRC-32 of the block u32 | bytes
//!   footer   0 u32 | content length u64 | CRC-32 of the content u32
//!            | CRC-32 of the footer so far u32
//!   meta     group u64 | index u64 | term u64 | auto_leave u8
//!            | voters, learners, outgoing voters, next learners: each count u32, ids u64*
//! ```
//!
//! All numbers are little-endian; CRC-32 is that of IEEE 802.3.

mod damage;
mod format;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use self::damage::{Damage, Damaged};
use self::format::{FOOTER_BYTES, decode_footer, encode_footer, encode_header, read_header};
use super::disk::{Directories, RealDisk, corrupt, ensure_dir, io_error, list, sync_dir};
use super::{SnapshotMeta, SnapshotSink, SnapshotStore, StorageError, room};
use crate::museum::{self, Exhibit};
use crate::types::{GroupId, Index};

const BLOCK_BYTES: usize = 256 << 10;
/// A sync of the log on the same disk may have to wait for so much of a snapshot.
const SYNC_BYTES: u64 = 1 << 20;
const UNPOISONED: &str = "no code panics while it holds this lock";

/// All that [`SnapshotFiles`] does on a disk, so that tests can make it fail, or do without.
pub trait SnapshotDisk: Directories + Send + Sync + 'static {
    /// Creates a file that does not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn SnapshotFile>>;

    /// Opens a file for reading, at its beginning.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SnapshotSource>>;

    /// Renames a file, replacing another.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Bytes that files in a directory may still grow by.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// A file being written on a [`SnapshotDisk`].
pub trait SnapshotFile: Write + Send {
    /// Makes the content durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file being read on a [`SnapshotDisk`].
pub trait SnapshotSource: Read + Seek + Send {}

impl<T: Read + Seek + Send> SnapshotSource for T {}

impl SnapshotFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl SnapshotDisk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SnapshotFile>> {
        Ok(Box::new(File::create_new(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SnapshotSource>> {
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        Ok(room::measure(dir)?.free)
    }
}

/// Finished snapshots and where they are.
type Finished = BTreeMap<(GroupId, Index), (SnapshotMeta, PathBuf)>;

struct Shared {
    dir: PathBuf,
    disk: Arc<dyn SnapshotDisk>,
    finished: Mutex<Finished>,
    damaged: Mutex<Damaged>,
    temporaries: AtomicU64,
}

/// [`SnapshotStore`] as files; see the module.
#[derive(Clone)]
pub struct SnapshotFiles(Arc<Shared>);

impl SnapshotFiles {
    /// Opens or creates the store in a directory of its own; removes partial snapshots.
    ///
    /// # Errors
    /// When the directory cannot be read. A snapshot whose header or footer does not fit is
    /// only left out (see [`SnapshotStore::damaged`]); content is checked when it is read.
    pub fn open(dir: &Path) -> Result<SnapshotFiles, StorageError> {
        SnapshotFiles::open_with_disk(dir, Arc::new(RealDisk))
    }

    /// As [`SnapshotFiles::open`], on another disk.
    ///
    /// # Errors
    /// As [`SnapshotFiles::open`].
    pub fn open_with_disk(
        dir: &Path,
        disk: Arc<dyn SnapshotDisk>,
    ) -> Result<SnapshotFiles, StorageError> {
        ensure_dir(disk.as_ref(), dir)?;
        let (mut finished, mut damaged) = (Finished::new(), Damaged::default());
        for group_dir in list(disk.as_ref(), dir)? {
            if disk.is_dir(&group_dir) {
                load_group(disk.as_ref(), &group_dir, &mut finished, &mut damaged)?;
                // The last process may have died after a rename and before this sync. From
                // now on the snapshot counts, and the log it covers may be dropped.
                sync_dir(disk.as_ref(), &group_dir)?;
            }
        }
        let (finished, damaged) = (Mutex::new(finished), Mutex::new(damaged));
        let (dir, temporaries) = (dir.to_owned(), AtomicU64::new(0));
        Ok(SnapshotFiles(Arc::new(Shared { dir, disk, finished, damaged, temporaries })))
    }
}

fn load_group(
    disk: &dyn SnapshotDisk,
    group_dir: &Path,
    finished: &mut Finished,
    damaged: &mut Damaged,
) -> Result<(), StorageError> {
    for path in list(disk, group_dir)? {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => {
                tracing::info!(file = %path.display(), "removing a partial snapshot");
                disk.remove(&path).map_err(io_error("remove", &path))?;
            }
            Some("snap") => match inspect_named(disk, &path) {
                Ok(meta) => {
                    finished.insert((meta.group, meta.index), (meta, path));
                }
                Err(error) => damaged.add(Damage::found(path, error)?),
            },
            _ => {}
        }
    }
    Ok(())
}

/// `<group>/<index>-<term>.snap`
fn file_name(meta: &SnapshotMeta) -> String {
    format!("{}/{:020}-{}.snap", meta.group, meta.index.0, meta.term)
}

/// As [`inspect`]; the file's name must say the same.
fn inspect_named(disk: &dyn SnapshotDisk, path: &Path) -> Result<SnapshotMeta, StorageError> {
    let (meta, _) = inspect(disk, path)?;
    if path.ends_with(file_name(&meta)) {
        return Ok(meta);
    }
    let reason = format!("holds {}, not what its name says", file_name(&meta));
    Err(corrupt(path, 0, reason))
}

/// Opens a snapshot, and reads and checks its header and footer.
fn inspect(
    disk: &dyn SnapshotDisk,
    path: &Path,
) -> Result<(SnapshotMeta, Box<dyn SnapshotSource>), StorageError> {
    let mut file = disk.open(path).map_err(io_error("open", path))?;
    let (mut meta, header_bytes) = read_header(&mut file, path)?;
    let length = file.seek(SeekFrom::End(0)).map_err(io_error("seek", path))?;
    let footer_at = length
        .checked_sub(FOOTER_BYTES as u64)
        .filter(|at| *at >= header_bytes)
        .ok_or_else(|| corrupt(path, length, "the file ends before its footer"))?;
    let mut footer = [0; FOOTER_BYTES];
    file.seek(SeekFrom::Start(footer_at))
        .and_then(|_| file.read_exact(&mut footer))
        .map_err(io_error("read", path))?;
    (meta.size_bytes, meta.checksum) = decode_footer(&footer)
        .ok_or_else(|| corrupt(path, footer_at, "the footer is broken or cut short"))?;
    Ok((meta, file))
}

struct FileSink {
    store: Arc<Shared>,
    meta: SnapshotMeta,
    temporary: PathBuf,
    /// `None` once finished or failed.
    file: Option<Box<dyn SnapshotFile>>,
    block: Vec<u8>,
    /// Written since the last sync.
    unsynced: u64,
    hasher: crc32fast::Hasher,
    is_renamed: bool,
}

impl FileSink {
    /// After a failure nothing more is written, and the snapshot cannot be finished.
    fn with_file<T>(
        &mut self,
        step: impl FnOnce(&mut dyn SnapshotFile) -> io::Result<T>,
    ) -> io::Result<T> {
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("an earlier write failed"))?;
        step(file.as_mut()).inspect_err(|_| self.file = None)
    }

    fn write_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.hasher.update(&block);
        self.meta.size_bytes += block.len() as u64;
        let header = format::encode_block_header(&block);
        self.with_file(|file| {
            file.write_all(&header)?;
            file.write_all(&block)
        })?;
        self.unsynced += block.len() as u64;
        self.block = block;
        self.block.clear();
        if self.unsynced >= SYNC_BYTES && !museum::is_on(Exhibit::SnapshotNotSynced) {
            self.unsynced = 0;
            self.with_file(|file| file.sync())?;
        }
        Ok(())
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK_BYTES {
            self.write_block()?;
        }
        self.with_file(|_| Ok(()))?;
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Blocks are written when full; only `finish` makes anything visible.
        Ok(())
    }
}

impl SnapshotSink for FileSink {
    fn finish(mut self: Box<Self>) -> Result<SnapshotMeta, StorageError> {
        let temporary = self.temporary.clone();
        self.write_block().map_err(io_error("write", &temporary))?;
        self.meta.checksum = self.hasher.clone().finalize();
        let footer = encode_footer(self.meta.size_bytes, self.meta.checksum);
        self.with_file(|file| file.write_all(&footer)).map_err(io_error("write", &temporary))?;
        if !museum::is_on(Exhibit::SnapshotNotSynced) {
            self.with_file(|file| file.sync()).map_err(io_error("sync", &temporary))?;
        }
        let path = self.store.dir.join(file_name(&self.meta));
        self.store.disk.rename(&temporary, &path).map_err(io_error("rename", &temporary))?;
        self.is_renamed = true;
        sync_dir(self.store.disk.as_ref(), &self.store.dir.join(self.meta.group.to_string()))?;
        let meta = self.meta.clone();
        self.store.damaged.lock().expect(UNPOISONED).forget(&path);
        let mut finished = self.store.finished.lock().expect(UNPOISONED);
        let replaced = finished.insert((meta.group, meta.index), (meta.clone(), path.clone()));
        if let Some((_, old)) = replaced.filter(|(_, old)| *old != path) {
            self.store.disk.remove(&old).map_err(io_error("remove", &old))?;
        }
        Ok(meta)
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if self.is_renamed {
            return;
        }
        if let Err(error) = self.store.disk.remove(&self.temporary) {
            tracing::warn!(
                file = %self.temporary.display(), %error,
                "cannot remove a partial snapshot; the next start tries again"
            );
        }
    }
}

impl SnapshotStore for SnapshotFiles {
    fn create(&self, mut meta: SnapshotMeta) -> Result<Box<dyn SnapshotSink>, StorageError> {
        let store = self.0.clone();
        (meta.size_bytes, meta.checksum) = (0, 0);
        ensure_dir(store.disk.as_ref(), &store.dir.join(meta.group.to_string()))?;
        let number = store.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = store.dir.join(file_name(&meta)).with_extension(format!("{number}.tmp"));
        let file = store.disk.create(&temporary).map_err(io_error("create", &temporary))?;
        let header = encode_header(&meta);
        let mut sink = Box::new(FileSink {
            store,
            meta,
            temporary,
            file: Some(file),
            block: Vec::with_capacity(BLOCK_BYTES),
            unsynced: 0,
            hasher: crc32fast::Hasher::new(),
            is_renamed: false,
        });
        let written = sink.with_file(|file| file.write_all(&header));
        written.map_err(io_error("write", &sink.temporary))?;
        Ok(sink)
    }

    fn list(&self, group: GroupId) -> Result<Vec<SnapshotMeta>, StorageError> {
        let finished = self.0.finished.lock().expect(UNPOISONED);
        let of_group = finished.range((group, Index(0))..=(group, Index(u64::MAX)));
        Ok(of_group.rev().map(|(_, (meta, _))| meta.clone()).collect())
    }

    fn open(
        &self,
        group: GroupId,
        index: Index,
    ) -> Result<(SnapshotMeta, Box<dyn Read + Send>), StorageError> {
        let path = self.0.finished.lock().expect(UNPOISONED).get(&(group, index)).map_or_else(
            || self.0.dir.join(format!("{group}/{:020}.snap", index.0)),
            |(_, path)| path.clone(),
        );
        let (meta, mut file) = inspect(self.0.disk.as_ref(), &path)?;
        file.rewind().map_err(io_error("seek", &path))?;
        let mut file = BufReader::new(file);
        let (_, offset) = read_header(&mut file, &path)?;
        let hasher = crc32fast::Hasher::new();
        let (block, position, read_bytes) = (Vec::new(), 0, 0);
        let reader = FileReader {
            file,
            path,
            offset,
            meta: meta.clone(),
            hasher,
            block,
            position,
            read_bytes,
            is_at_end: false,
        };
        Ok((meta, Box::new(reader)))
    }

    fn retain(&self, group: GroupId, keep: usize, upto: Index) -> Result<(), StorageError> {
        let covered = self.list(group)?.into_iter().filter(|meta| meta.index <= upto);
        let surplus: Vec<_> = covered.skip(keep.max(1)).collect();
        let damaged = self.0.damaged.lock().expect(UNPOISONED).take(group, upto);
        if (surplus.is_empty() && damaged.is_empty())
            || museum::is_on(Exhibit::SnapshotsNeverDropped)
        {
            return Ok(());
        }
        for path in damaged {
            tracing::warn!(file = %path.display(), "removing a damaged snapshot");
            self.0.disk.remove(&path).map_err(io_error("remove", &path))?;
        }
        for meta in surplus {
            let removed = self.0.finished.lock().expect(UNPOISONED).remove(&(group, meta.index));
            if let Some((_, path)) = removed {
                self.0.disk.remove(&path).map_err(io_error("remove", &path))?;
            }
        }
        sync_dir(self.0.disk.as_ref(), &self.0.dir.join(group.to_string()))
    }

    fn set_aside(&self, meta: &SnapshotMeta) {
        let mut finished = self.0.finished.lock().expect(UNPOISONED);
        let key = (meta.group, meta.index);
        if finished.get(&key).is_none_or(|(present, _)| present != meta) {
            return;
        }
        if let Some((_, path)) = finished.remove(&key) {
            let damage = Damage::set_aside(path, meta);
            self.0.damaged.lock().expect(UNPOISONED).add(damage);
        }
    }

    fn forget_cached(&self, meta: &SnapshotMeta) {
        let finished = self.0.finished.lock().expect(UNPOISONED);
        let path = finished.get(&(meta.group, meta.index)).map(|(_, path)| path.clone());
        drop(finished);
        if let Some(path) = path {
            self.0.disk.forget_cached(&path);
        }
    }

    fn free_bytes(&self) -> Result<Option<u64>, StorageError> {
        let dir = &self.0.dir;
        self.0.disk.free_bytes(dir).map(Some).map_err(io_error("look for space in", dir))
    }

    fn damaged(&self, group: GroupId) -> Vec<StorageError> {
        self.0.damaged.lock().expect(UNPOISONED).errors(group)
    }
}

/// Hands out a block once its checksum fits, and the end once everything does.
struct FileReader {
    file: BufReader<Box<dyn SnapshotSource>>,
    path: PathBuf,
    offset: u64,
    meta: SnapshotMeta,
    hasher: crc32fast::Hasher,
    block: Vec<u8>,
    position: usize,
    read_bytes: u64,
    is_at_end: bool,
}

impl FileReader {
    fn broken(&self, reason: impl Into<String>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, corrupt(&self.path, self.offset, reason))
    }

    fn read_exactly(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match self.file.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.broken("the file ends too early"))
            }
            result => result,
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let mut length = [0; 4];
        self.read_exactly(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            return self.check_end();
        }
        if length > BLOCK_BYTES {
            return Err(self.broken(format!("a block of {length} bytes is too long")));
        }
        let mut expected = [0; 4];
        self.read_exactly(&mut expected)?;
        let mut block = std::mem::take(&mut self.block);
        block.resize(length, 0);
        self.read_exactly(&mut block)?;
        if crc32fast::hash(&block) != u32::from_le_bytes(expected) {
            return Err(self.broken("the checksum of a block does not fit"));
        }
        self.hasher.update(&block);
        self.read_bytes += length as u64;
        self.offset += 8 + length as u64;
        (self.block, self.position) = (block, 0);
        Ok(())
    }

    fn check_end(&mut self) -> io::Result<()> {
        let mut footer = [0; FOOTER_BYTES];
        self.read_exactly(&mut footer[4..])?;
        let content = (self.read_bytes, self.hasher.clone().finalize());
        if decode_footer(&footer) != Some(content)
            || content != (self.meta.size_bytes, self.meta.checksum)
        {
            return Err(self.broken("the content is not what the footer says"));
        }
        if self.file.read(&mut [0])? != 0 {
            return Err(self.broken("there are bytes after the footer"));
        }
        self.is_at_end = true;
        Ok(())
    }
}

impl Read for FileReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.position == self.block.len() && !self.is_at_end {
            self.block.clear();
            self.position = 0;
            self.next_block()?;
        }
        let taken = bytes.len().min(self.block.len() - self.position);
        bytes[..taken].copy_from_slice(&self.block[self.position..self.position + taken]);
        self.position += taken;
        Ok(taken)
    }
}
