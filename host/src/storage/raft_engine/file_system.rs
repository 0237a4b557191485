//! The file system that raft-engine is given: another one, with three duties added.
//!
//! 1. A failed write or sync is remembered, and everything after it fails. raft-engine by
//!    itself retries a full disk in a new file, and aborts the process when a sync fails.
//! 2. After each successful sync the durable position goes into the [`Mark`].
//! 3. Before a log file is deleted the mark is made durable, since it may from then on be
//!    the only witness of what was moved from that file to another.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use super::super::StorageError;
use super::super::disk::{Directories, io_error};
use super::super::mark::Mark;
use crate::museum::{self, Exhibit};

/// raft-engine keeps two sequences of log files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Written by [`super::RaftEngineLog::write`].
    Append,
    /// Written by purging: the little that was still alive in deleted files.
    Rewrite,
}

/// A log file's name: `0000000000000001.raftlog` or `0000000000000001.rewrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogFileName {
    pub(super) queue: Queue,
    pub(super) sequence: u64,
}

impl LogFileName {
    pub(super) fn parse(path: &Path) -> Option<LogFileName> {
        let queue = match path.extension()?.to_str()? {
            "raftlog" => Queue::Append,
            "rewrite" => Queue::Rewrite,
            _ => return None,
        };
        let stem = path.file_stem()?.to_str()?;
        let sequence = (stem.len() == 16).then(|| stem.parse().ok())??;
        Some(LogFileName { queue, sequence })
    }

    pub(super) fn path(self, dir: &Path) -> PathBuf {
        let extension = match self.queue {
            Queue::Append => "raftlog",
            Queue::Rewrite => "rewrite",
        };
        dir.join(format!("{:016}.{extension}", self.sequence))
    }
}

/// What all files of one [`GuardedFileSystem`] share.
#[derive(Debug)]
struct Shared {
    mark: Mutex<Mark>,
    /// The first failure, as action, path and cause.
    failure: OnceLock<(&'static str, PathBuf, io::ErrorKind, String)>,
}

impl Shared {
    fn fail(&self, action: &'static str, path: &Path, error: &io::Error) {
        let (kind, cause) = match error.to_string() {
            // raft-engine's word for ENOSPC.
            words if words.contains("nospace") => {
                (io::ErrorKind::StorageFull, "no space left on the device".to_owned())
            }
            words => (error.kind(), words),
        };
        // A later failure is a consequence of the first, which stays.
        let _ = self.failure.set((action, path.to_owned(), kind, cause));
    }

    fn check(&self) -> io::Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some((action, path, kind, cause)) => {
                let message = format!("stopped since {action} {}: {cause}", path.display());
                Err(io::Error::new(*kind, message))
            }
        }
    }

    /// Runs an operation that changes files, unless one failed before.
    fn guard<T>(
        &self,
        action: &'static str,
        path: &Path,
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.check()?;
        operation().inspect_err(|error| self.fail(action, path, error))
    }

    fn with_mark(
        &self,
        path: &Path,
        change: impl FnOnce(&mut Mark) -> Result<(), StorageError>,
    ) -> io::Result<()> {
        let mut mark = self.mark.lock().expect("no code panics while it holds this lock");
        change(&mut mark).map_err(io::Error::other).inspect_err(|error| {
            self.fail("note as durable", path, error);
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct GuardedFileSystem<F> {
    inner: Arc<F>,
    shared: Arc<Shared>,
}

impl<F: FileSystem> GuardedFileSystem<F> {
    pub(super) fn new(inner: Arc<F>, mark: Mark) -> GuardedFileSystem<F> {
        let shared = Shared { mark: Mutex::new(mark), failure: OnceLock::new() };
        GuardedFileSystem { inner, shared: Arc::new(shared) }
    }

    /// The first failed write or sync, if there was one.
    pub(super) fn failure(&self) -> Result<(), StorageError> {
        match self.shared.failure.get() {
            None => Ok(()),
            Some((action, path, kind, cause)) => {
                Err(io_error(action, path)(io::Error::new(*kind, cause.clone())))
            }
        }
    }

    /// The last file of a queue known durable, and the length up to which it is.
    pub(super) fn durable(&self, queue: Queue) -> (u64, u64) {
        let mark = self.shared.mark.lock().expect("no code panics while it holds this lock");
        let [append, append_length, rewrite, rewrite_length] = mark.positions();
        match queue {
            Queue::Append => (append, append_length),
            Queue::Rewrite => (rewrite, rewrite_length),
        }
    }

    fn handle(&self, path: &Path, inner: F::Handle) -> io::Result<GuardedHandle<F::Handle>> {
        let length = inner.file_size()? as u64;
        let file = Arc::new(GuardedFile {
            path: path.to_owned(),
            name: LogFileName::parse(path),
            length: AtomicU64::new(length),
        });
        Ok(GuardedHandle { inner: Arc::new(inner), file, shared: self.shared.clone() })
    }
}

#[derive(Debug)]
struct GuardedFile {
    path: PathBuf,
    name: Option<LogFileName>,
    /// Bytes written so far, without space allocated ahead.
    length: AtomicU64,
}

/// An open file.
#[derive(Debug)]
pub(super) struct GuardedHandle<H> {
    inner: Arc<H>,
    file: Arc<GuardedFile>,
    shared: Arc<Shared>,
}

impl<H: Handle> Handle for GuardedHandle<H> {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.shared.guard("truncate", &self.file.path, || self.inner.truncate(offset))?;
        self.file.length.store(offset as u64, Ordering::Release);
        Ok(())
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    /// Never fails: raft-engine would abort. The store asks [`GuardedFileSystem::failure`].
    fn sync(&self) -> io::Result<()> {
        let length = self.file.length.load(Ordering::Acquire);
        if museum::is_on(Exhibit::FailedSyncIgnored) && self.inner.sync().is_err() {
            return Ok(());
        }
        if self.shared.guard("sync", &self.file.path, || self.inner.sync()).is_err() {
            return Ok(());
        }
        let Some(name) = self.file.name else { return Ok(()) };
        let noted = self.shared.with_mark(&self.file.path, |mark| {
            let mut positions = mark.positions();
            let slot = match name.queue {
                Queue::Append => &mut positions[..2],
                Queue::Rewrite => &mut positions[2..],
            };
            if (slot[0], slot[1]) >= (name.sequence, length) {
                return Ok(());
            }
            slot.copy_from_slice(&[name.sequence, length]);
            mark.advance(positions)
        });
        // A failure is remembered by now, like one of the sync itself.
        drop(noted);
        Ok(())
    }
}

/// Writes to a file.
pub(super) struct GuardedWriter<W> {
    inner: W,
    position: u64,
    file: Arc<GuardedFile>,
    shared: Arc<Shared>,
}

impl<W: Write> Write for GuardedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written =
            self.shared.guard("write", &self.file.path, || match self.inner.write(bytes)? {
                0 if !bytes.is_empty() => Err(io::ErrorKind::WriteZero.into()),
                written => Ok(written),
            })?;
        self.position += written as u64;
        self.file.length.fetch_max(self.position, Ordering::AcqRel);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shared.guard("write", &self.file.path, || self.inner.flush())
    }
}

impl<W: Seek> Seek for GuardedWriter<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.inner.seek(to)?;
        Ok(self.position)
    }
}

impl<W: WriteExt> WriteExt for GuardedWriter<W> {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.shared.guard("truncate", &self.file.path, || self.inner.truncate(offset))?;
        self.position = offset as u64;
        self.file.length.store(self.position, Ordering::Release);
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        // Only an optimisation: when it fails the write that follows decides.
        self.inner.allocate(offset, size)
    }
}

impl<F: Directories> Directories for GuardedFileSystem<F> {
    fn is_dir(&self, path: &Path) -> bool {
        self.inner.is_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.shared.guard("sync directory", dir, || self.inner.sync_dir(dir))
    }

    fn forget_cached(&self, file: &Path) {
        self.inner.forget_cached(file);
    }
}

impl<F: FileSystem> FileSystem for GuardedFileSystem<F> {
    type Handle = GuardedHandle<F::Handle>;
    type Reader = F::Reader;
    type Writer = GuardedWriter<F::Writer>;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        let path = path.as_ref();
        let inner = self.shared.guard("create", path, || self.inner.create(path))?;
        self.handle(path, inner)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        let inner = self.inner.open(path.as_ref(), permission)?;
        self.handle(path.as_ref(), inner)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        self.shared.check()?;
        self.shared.with_mark(path, |mark| mark.persist())?;
        self.shared.guard("delete", path, || self.inner.delete(path))
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        let from = from.as_ref();
        self.shared.guard("rename", from, || self.inner.rename(from, to.as_ref()))
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        self.inner.new_reader(handle.inner.clone())
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        let inner = self.inner.new_writer(handle.inner.clone())?;
        let (file, shared) = (handle.file.clone(), self.shared.clone());
        Ok(GuardedWriter { inner, position: 0, file, shared })
    }
}
