//! Small steps on files that must be right in one place: named errors, directory syncs,
//! replacing a file atomically.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::StorageError;

/// What is done to directories, so that the disk below can be another one.
pub trait Directories {
    /// Whether there is a directory of that name.
    fn is_dir(&self, path: &Path) -> bool;

    /// Paths of the files and directories in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Creates a directory in one that exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory survive a power loss.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Has the next reads of a file come from the medium, where the disk can do that.
    fn forget_cached(&self, _file: &Path) {}
}

/// The disk of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Directories for RealDisk {
    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn forget_cached(&self, file: &Path) {
        use rustix::fs::{Advice, fadvise};
        // Only advice: a file that is gone, or a system that does not follow it, is none the worse.
        if let Ok(file) = File::open(file) {
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
}

/// Turns an [`io::Error`] into one that names the action and the file.
pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { action, path, source }
}

/// A [`StorageError::Corrupt`].
pub(super) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> StorageError {
    StorageError::Corrupt { path: path.to_owned(), offset, reason: reason.into() }
}

/// Error number of a medium that cannot read what it was given (`EIO`, the same on every Unix).
const EIO: i32 = 5;

/// Whether the medium cannot read what it was given.
pub(super) fn is_medium_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EIO)
}

/// [`Directories::list`] with a named error.
pub(super) fn list(
    disk: &(impl Directories + ?Sized),
    dir: &Path,
) -> Result<Vec<PathBuf>, StorageError> {
    disk.list(dir).map_err(io_error("list", dir))
}

/// [`Directories::sync_dir`] with a named error.
pub(super) fn sync_dir(disk: &(impl Directories + ?Sized), dir: &Path) -> Result<(), StorageError> {
    disk.sync_dir(dir).map_err(io_error("sync directory", dir))
}

/// Creates a directory and its missing parents, durably.
pub(super) fn create_dir(
    disk: &(impl Directories + ?Sized),
    dir: &Path,
) -> Result<(), StorageError> {
    if dir.as_os_str().is_empty() || disk.is_dir(dir) {
        return Ok(());
    }
    let parent = parent_of(dir);
    create_dir(disk, parent)?;
    match disk.create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && disk.is_dir(dir) => {}
        result => result.map_err(io_error("create directory", dir))?,
    }
    sync_dir(disk, parent)
}

/// As [`create_dir`], but the directory is durable even if it was there: a process that died
/// between creating and syncing it leaves one that a power loss takes away, with all in it.
pub(super) fn ensure_dir(
    disk: &(impl Directories + ?Sized),
    dir: &Path,
) -> Result<(), StorageError> {
    create_dir(disk, dir)?;
    sync_dir(disk, parent_of(dir))
}

/// The directory that holds `path`; `.` for a bare name.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Replaces `path` by `bytes`: after a crash there is the old content or the new one. Goes by way of a file
/// beside it with the extension `tmp`.
///
/// # Errors
/// `Io`.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(bytes).map_err(io_error("write", &temporary))?;
    file.sync_all().map_err(io_error("sync", &temporary))?;
    drop(file);
    std::fs::rename(&temporary, path).map_err(io_error("rename", &temporary))?;
    sync_dir(&RealDisk, parent_of(path))
}

/// Total length of the files below `path`, in bytes. Files that vanish meanwhile count as 0.
pub(super) fn size_bytes(path: &Path) -> Result<u64, StorageError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(io_error("list", path)(error)),
    };
    let mut total = 0;
    for entry in entries {
        let entry = entry.map_err(io_error("list", path))?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => total += size_bytes(&entry.path())?,
            Ok(metadata) => total += metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("stat", &entry.path())(error)),
        }
    }
    Ok(total)
}
