//! The disk as the two stores see it: raft-engine's file system, and the snapshots' disk.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};
use raft_host::storage::{
    Directories, DiskRoom, Engine, Held, LogStore, Medium, SnapshotDisk, SnapshotFile,
    SnapshotSource, StorageConfig, StorageError,
};

use super::log::SimLog;
use super::names::{FileId, Node};
use super::state::{FileKind, State};

/// The disk since some boot: useless after the next crash. Cheap to clone.
#[derive(Clone)]
pub struct Mount {
    state: Arc<Mutex<State>>,
    boot: u64,
    /// Where all of it is.
    root: PathBuf,
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl Mount {
    pub(super) fn new(state: Arc<Mutex<State>>, root: PathBuf) -> Mount {
        let boot = lock(&state).boot;
        Mount { state, boot, root }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn open_file(&self, id: FileId) -> OpenFile {
        if let Ok(file) = self.state().file(id) {
            file.handles += 1;
        }
        OpenFile { mount: self.clone(), id }
    }

    /// Makes the real directory, which raft-engine lists, agree about a name.
    fn mirror(&self, path: &Path) -> io::Result<()> {
        if !FileKind::of(path).is_log() {
            return Ok(());
        }
        let is_there = self.state().lookup(path).is_ok();
        match (is_there, path.exists()) {
            (true, false) => std::fs::File::create(path).map(drop),
            (false, true) => std::fs::remove_file(path),
            _ => Ok(()),
        }
    }
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no code panics while it holds this lock")
}

/// A file with somebody who has it open.
pub struct OpenFile {
    mount: Mount,
    id: FileId,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut state = self.mount.state();
        if state.boot != self.mount.boot {
            return;
        }
        if let Ok(file) = state.file(self.id) {
            file.handles -= 1;
            state.reap(self.id);
        }
    }
}

impl OpenFile {
    fn length(&self) -> io::Result<usize> {
        let mut state = self.mount.state();
        state.admit(self.mount.boot)?;
        Ok(state.file(self.id)?.length())
    }
}

impl Handle for OpenFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.mount.state().truncate(self.mount.boot, self.id, offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.length()
    }

    fn sync(&self) -> io::Result<()> {
        self.mount.state().sync(self.mount.boot, self.id)
    }
}

/// Reads and writes a file at a position.
pub struct Cursor {
    file: Arc<OpenFile>,
    position: usize,
}

impl Read for Cursor {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mount = &self.file.mount;
        let taken = mount.state().read(mount.boot, self.file.id, self.position, into)?;
        self.position += taken;
        Ok(taken)
    }
}

impl Write for Cursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mount = &self.file.mount;
        let taken = mount.state().write(mount.boot, self.file.id, self.position, bytes)?;
        self.position += taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(by) => (self.position as u64, by),
            SeekFrom::End(by) => (self.file.length()? as u64, by),
        };
        let position = from.checked_add_signed(by).and_then(|to| usize::try_from(to).ok());
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position as u64)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.file.truncate(offset)?;
        self.position = offset;
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        let mount = &self.file.mount;
        mount.state().allocate(mount.boot, self.file.id, offset + size)
    }
}

impl SnapshotFile for Cursor {
    fn sync(&mut self) -> io::Result<()> {
        Handle::sync(self.file.as_ref())
    }
}

impl Directories for Mount {
    fn is_dir(&self, path: &Path) -> bool {
        self.state().names.get(path) == Some(Node::Directory)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.state().list(self.boot, dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // raft-engine wants one for its log.
        std::fs::create_dir_all(dir)?;
        self.state().create_dir(self.boot, dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().sync_dir(self.boot, dir)
    }
}

impl FileSystem for Mount {
    type Handle = OpenFile;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<OpenFile> {
        let path = path.as_ref();
        let created = self.state().create(self.boot, path, false);
        self.mirror(path)?;
        Ok(self.open_file(created?))
    }

    fn open<P: AsRef<Path>>(&self, path: P, _: Permission) -> io::Result<OpenFile> {
        let state = self.state();
        state.admit(self.boot)?;
        let id = state.lookup(path.as_ref())?;
        drop(state);
        Ok(self.open_file(id))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        let removed = self.state().remove(self.boot, path);
        self.mirror(path)?;
        removed
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let renamed = self.state().rename(self.boot, from, to);
        self.mirror(from)?;
        self.mirror(to)?;
        renamed
    }

    fn new_reader(&self, handle: Arc<OpenFile>) -> io::Result<Cursor> {
        Ok(Cursor { file: handle, position: 0 })
    }

    fn new_writer(&self, handle: Arc<OpenFile>) -> io::Result<Cursor> {
        Ok(Cursor { file: handle, position: 0 })
    }
}

/// The file that stands for a lock.
const LOCK_FILE: &str = "LOCK";

/// A directory that a process has.
struct Holding {
    mount: Mount,
    dir: PathBuf,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut state = self.mount.state();
        if state.boot == self.mount.boot {
            state.held.remove(&self.dir);
        }
    }
}

impl Medium for Mount {
    /// As by a lock of the operating system, which ends with the process.
    fn hold(&self, dir: &Path) -> Result<Held, StorageError> {
        let mut state = self.state();
        let path = dir.join(LOCK_FILE);
        let made = state.create(self.boot, &path, false);
        made.map_err(|source| StorageError::Io { action: "open", path, source })?;
        if !state.held.insert(dir.to_owned()) {
            let words = format!("{} is in use by another process", dir.display());
            return Err(StorageError::ForeignData(words));
        }
        Ok(Box::new(Holding { mount: self.clone(), dir: dir.to_owned() }))
    }

    fn was_held(&self, dir: &Path) -> bool {
        self.state().lookup(&dir.join(LOCK_FILE)).is_ok()
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().remove_dir(self.boot, dir)
    }

    fn open_log(
        &self,
        _: Engine,
        dir: &Path,
        config: &StorageConfig,
        _: &Arc<DiskRoom>,
    ) -> Result<Arc<dyn LogStore>, StorageError> {
        std::fs::create_dir_all(dir).expect("a directory in memory");
        Ok(Arc::new(SimLog::open(dir, config, Arc::new(self.clone()))?))
    }
}

/// Makes the real directories, which raft-engine lists, agree about the names of all logs.
pub(super) fn mirror_all(state: &State, root: &Path) -> io::Result<()> {
    let mut expected: BTreeSet<PathBuf> =
        state.names.files().map(|(path, _)| path.to_owned()).collect();
    expected.retain(|path| FileKind::of(path).is_log());
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if FileKind::of(&path).is_log() && !expected.remove(&path) {
                std::fs::remove_file(&path)?;
            }
        }
    }
    for path in expected {
        std::fs::create_dir_all(path.parent().unwrap_or(root))?;
        std::fs::File::create(path)?;
    }
    Ok(())
}

impl SnapshotDisk for Mount {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn SnapshotFile>> {
        let id = self.state().create(self.boot, path, true)?;
        Ok(Box::new(Cursor { file: Arc::new(self.open_file(id)), position: 0 }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SnapshotSource>> {
        let file = FileSystem::open(self, path, Permission::ReadOnly)?;
        Ok(Box::new(Cursor { file: Arc::new(file), position: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let renamed = self.state().rename(self.boot, from, to);
        if self.is_dir(from) || self.is_dir(to) {
            mirror_all(&self.state(), &self.root)?;
        }
        renamed
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.state().remove(self.boot, path);
        self.mirror(path)?;
        removed
    }
}
