//! What a data directory lies on: the disk of the operating system, or another one below the same code.

use std::any::Any;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::LOCK_FILE;
use crate::museum::{self, Exhibit};
use crate::storage::disk::{io_error, list, parent_of, sync_dir};
use crate::storage::{
    DiskRoom, Engine, LogStore, RealDisk, SnapshotDisk, StorageConfig, StorageError,
};

/// A directory is held against other processes while this lives.
pub type Held = Box<dyn Any + Send + Sync>;

/// All that a data directory does on a disk beside what its stores do.
pub trait Medium: SnapshotDisk + fmt::Debug {
    /// Holds a directory that is there.
    ///
    /// # Errors
    /// `ForeignData` when another process holds it; `Io`.
    fn hold(&self, dir: &Path) -> Result<Held, StorageError>;

    /// Whether a directory was ever held.
    fn was_held(&self, dir: &Path) -> bool;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of the disk.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Opens or creates an engine's log in a directory of its own.
    ///
    /// # Errors
    /// As of that engine.
    fn open_log(
        &self,
        engine: Engine,
        dir: &Path,
        config: &StorageConfig,
        room: &Arc<DiskRoom>,
    ) -> Result<Arc<dyn LogStore>, StorageError>;
}

impl Medium for RealDisk {
    fn hold(&self, dir: &Path) -> Result<Held, StorageError> {
        let path = dir.join(LOCK_FILE);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        try_lock(&mut file, dir, &path)?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io_error("write", &path))?;
        Ok(Box::new(file))
    }

    fn was_held(&self, dir: &Path) -> bool {
        dir.join(LOCK_FILE).exists()
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir(dir)
    }

    fn open_log(
        &self,
        engine: Engine,
        dir: &Path,
        config: &StorageConfig,
        room: &Arc<DiskRoom>,
    ) -> Result<Arc<dyn LogStore>, StorageError> {
        engine.open(dir, config, room)
    }
}

/// Locks a file, or says who has it.
pub(super) fn try_lock(file: &mut File, dir: &Path, path: &Path) -> Result<(), StorageError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message: the holder may be writing it at this moment.
            let holder = match file.read_to_string(&mut pid) {
                Ok(_) if !pid.trim().is_empty() => format!("another process (pid {})", pid.trim()),
                _ => "another process".to_owned(),
            };
            Err(StorageError::ForeignData(format!(
                "{} is in use by {holder}; stop it first, or give another --data-dir",
                dir.display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(io_error("lock", path)(error)),
    }
}

/// The content of a file; `None`: there is none.
pub(super) fn read(disk: &dyn Medium, path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let mut bytes = Vec::new();
    match disk.open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Replaces a file, as [`crate::storage::write_atomically`] does.
pub(super) fn write(disk: &dyn Medium, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &temporary)(error));
        }
        _ => {}
    }
    let mut file = disk.create(&temporary).map_err(io_error("create", &temporary))?;
    file.write_all(bytes).map_err(io_error("write", &temporary))?;
    file.sync().map_err(io_error("sync", &temporary))?;
    drop(file);
    disk.rename(&temporary, path).map_err(io_error("rename", &temporary))?;
    if museum::is_on(Exhibit::IdentityNotSynced) {
        return Ok(());
    }
    sync_dir(disk, parent_of(path))
}

/// Removes a file, durably, if it is there.
pub(super) fn forget(disk: &dyn Medium, path: &Path) -> Result<(), StorageError> {
    match disk.remove(path) {
        Ok(()) => sync_dir(disk, parent_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("remove", path)(error)),
    }
}

/// The names in a directory.
pub(super) fn names(disk: &dyn Medium, dir: &Path) -> Result<Vec<String>, StorageError> {
    let name = |path: std::path::PathBuf| {
        let name = path.file_name().expect("a directory lists names");
        name.to_string_lossy().into_owned()
    };
    Ok(list(disk, dir)?.into_iter().map(name).collect())
}

/// Removes a directory with all that is in it.
pub(super) fn remove_all(disk: &dyn Medium, dir: &Path) -> Result<(), StorageError> {
    for path in list(disk, dir)? {
        match disk.is_dir(&path) {
            true => remove_all(disk, &path)?,
            false => disk.remove(&path).map_err(io_error("remove", &path))?,
        }
    }
    disk.remove_dir(dir).map_err(io_error("remove", dir))
}
