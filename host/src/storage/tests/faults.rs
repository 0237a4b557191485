//! Disks that misbehave on request.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use super::super::real_files::RealFiles;
use super::super::{Directories, RealDisk, SnapshotDisk, SnapshotFile, SnapshotSource};

/// What is to go wrong; shared by a disk and its test.
#[derive(Debug)]
pub(super) struct Faults {
    /// Bytes that still fit; the write that exceeds them is cut short, and fails.
    pub(super) free_bytes: AtomicI64,
    pub(super) is_sync_failing: AtomicBool,
    /// Whether syncs do not return, and how many have not.
    stuck: Mutex<(bool, usize)>,
    stuck_changed: Condvar,
    /// Durable length of each file.
    synced: Mutex<BTreeMap<PathBuf, u64>>,
    /// Most bytes of a snapshot that a sync found, whether it failed or not.
    pub(super) largest_snapshot_sync: AtomicU64,
}

impl Faults {
    pub(super) fn none() -> Arc<Faults> {
        Arc::new(Faults {
            free_bytes: AtomicI64::new(i64::MAX),
            is_sync_failing: AtomicBool::new(false),
            stuck: Mutex::default(),
            stuck_changed: Condvar::new(),
            synced: Mutex::default(),
            largest_snapshot_sync: AtomicU64::new(0),
        })
    }

    /// How many of `wanted` bytes may be written.
    fn take(&self, wanted: usize) -> usize {
        let wanted = wanted as i64;
        let free = self.free_bytes.fetch_sub(wanted, Ordering::SeqCst).max(0);
        wanted.min(free) as usize
    }

    fn write(
        &self,
        bytes: &[u8],
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let fitting = self.take(bytes.len());
        if fitting == bytes.len() {
            return write(bytes);
        }
        write(&bytes[..fitting])?;
        // raft-engine looks for this word, and would go on in another file.
        Err(io::Error::new(io::ErrorKind::StorageFull, "nospace"))
    }

    /// From now on no sync returns, until [`Faults::release`].
    pub(super) fn stick(&self) {
        self.stuck.lock().expect("lock").0 = true;
    }

    pub(super) fn release(&self) {
        self.stuck.lock().expect("lock").0 = false;
        self.stuck_changed.notify_all();
    }

    /// Returns when somebody waits for a sync.
    pub(super) fn wait_until_stuck(&self) {
        let stuck = self.stuck.lock().expect("lock");
        drop(self.stuck_changed.wait_while(stuck, |(_, waiting)| *waiting == 0).expect("lock"));
    }

    fn wait_while_stuck(&self) {
        let mut stuck = self.stuck.lock().expect("lock");
        stuck.1 += 1;
        self.stuck_changed.notify_all();
        let mut stuck =
            self.stuck_changed.wait_while(stuck, |(is_stuck, _)| *is_stuck).expect("lock");
        stuck.1 -= 1;
    }

    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.wait_while_stuck();
        if self.is_sync_failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        sync()
    }

    /// Copies a directory as a power loss would leave it: of what was written after the last
    /// sync of a log file, only the first `lucky_bytes` are there.
    pub(super) fn power_loss(&self, from: &Path, to: &Path, lucky_bytes: u64) {
        super::copy_dir(from, to);
        for (path, length) in self.synced.lock().expect("lock").iter() {
            let copy = to.join(path.file_name().expect("name"));
            let Ok(file) = std::fs::File::options().write(true).open(copy) else { continue };
            let present = file.metadata().expect("stat").len();
            file.set_len(present.min(length + lucky_bytes)).expect("truncate");
        }
    }
}

type Inner = <RealFiles as FileSystem>::Handle;

/// The real file system, with [`Faults`].
pub(super) struct FaultyFileSystem(pub(super) Arc<Faults>);

pub(super) struct FaultyHandle {
    inner: Arc<Inner>,
    path: PathBuf,
    written: AtomicU64,
    faults: Arc<Faults>,
}

impl Handle for FaultyHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.written.store(offset as u64, Ordering::SeqCst);
        self.inner.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.sync(|| self.inner.sync())?;
        let length = self.written.load(Ordering::SeqCst);
        self.faults.synced.lock().expect("lock").insert(self.path.clone(), length);
        Ok(())
    }
}

pub(super) struct FaultyWriter {
    inner: <RealFiles as FileSystem>::Writer,
    handle: Arc<FaultyHandle>,
    position: u64,
}

impl Write for FaultyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let inner = &mut self.inner;
        let end = self.position + bytes.len() as u64;
        let written = if end <= self.handle.written.load(Ordering::SeqCst) {
            // Writing in place, as the mark does, takes no space.
            inner.write(bytes)?
        } else {
            self.handle.faults.write(bytes, |bytes| inner.write(bytes))?
        };
        self.position += written as u64;
        self.handle.written.fetch_max(self.position, Ordering::SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Seek for FaultyWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.inner.seek(to)?;
        Ok(self.position)
    }
}

impl WriteExt for FaultyWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.position = offset as u64;
        self.handle.written.store(self.position, Ordering::SeqCst);
        self.inner.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.inner.allocate(offset, size)
    }
}

impl FaultyFileSystem {
    fn handle(&self, path: &Path, inner: Inner) -> io::Result<FaultyHandle> {
        let written = AtomicU64::new(inner.file_size()? as u64);
        let (path, faults) = (path.to_owned(), self.0.clone());
        Ok(FaultyHandle { inner: Arc::new(inner), path, written, faults })
    }
}

impl FileSystem for FaultyFileSystem {
    type Handle = FaultyHandle;
    type Reader = <RealFiles as FileSystem>::Reader;
    type Writer = FaultyWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<FaultyHandle> {
        self.handle(path.as_ref(), RealFiles::default().create(path.as_ref())?)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<FaultyHandle> {
        self.handle(path.as_ref(), RealFiles::default().open(path.as_ref(), permission)?)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        RealFiles::default().delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        RealFiles::default().rename(from, to)
    }

    fn new_reader(&self, handle: Arc<FaultyHandle>) -> io::Result<Self::Reader> {
        RealFiles::default().new_reader(handle.inner.clone())
    }

    fn new_writer(&self, handle: Arc<FaultyHandle>) -> io::Result<FaultyWriter> {
        let inner = RealFiles::default().new_writer(handle.inner.clone())?;
        Ok(FaultyWriter { inner, handle, position: 0 })
    }
}

/// The real disk, with [`Faults`], for snapshots.
pub(super) struct FaultyDisk(pub(super) Arc<Faults>);

struct FaultyFile {
    inner: Box<dyn SnapshotFile>,
    unsynced: u64,
    faults: Arc<Faults>,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.faults.write(bytes, |bytes| self.inner.write(bytes))?;
        self.unsynced += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl SnapshotFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        let found = std::mem::take(&mut self.unsynced);
        self.faults.largest_snapshot_sync.fetch_max(found, Ordering::SeqCst);
        self.faults.sync(|| self.inner.sync())
    }
}

impl SnapshotDisk for FaultyDisk {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let free = self.0.free_bytes.load(Ordering::SeqCst);
        Ok(u64::try_from(free).unwrap_or(0))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn SnapshotFile>> {
        let (inner, faults) = (RealDisk.create(path)?, self.0.clone());
        Ok(Box::new(FaultyFile { inner, unsynced: 0, faults }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SnapshotSource>> {
        RealDisk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
}

impl Directories for FaultyDisk {
    fn is_dir(&self, path: &Path) -> bool {
        RealDisk.is_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync(|| RealDisk.sync_dir(dir))
    }
}

impl Directories for FaultyFileSystem {
    fn is_dir(&self, path: &Path) -> bool {
        RealDisk.is_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}
