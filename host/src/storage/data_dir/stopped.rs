//! Reading what a stopped node left, without changing any of it.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use super::medium::try_lock;
use super::{DataDir, IDENTITY_FILE, LOCK_FILE, read_identity, succession};
use crate::storage::disk::{create_dir, io_error, list};
use crate::storage::{DiskRoom, RealDisk, SnapshotFiles, StorageConfig, StorageError, Stores};

impl DataDir {
    /// Locks the directory of a node that does not run. Writes nothing.
    ///
    /// # Errors
    /// `ForeignData` when the node runs, or when this is no node's directory; otherwise as
    /// [`DataDir::lock`].
    pub fn lock_stopped(path: impl AsRef<Path>) -> Result<DataDir, StorageError> {
        let path = path.as_ref();
        succession::refuse_interrupted(&RealDisk, path)?;
        let lock_path = path.join(LOCK_FILE);
        let identity = read_identity(&RealDisk, &path.join(IDENTITY_FILE))?;
        if identity.is_none() || !lock_path.exists() {
            return Err(StorageError::ForeignData(format!(
                "{} is not the data directory of a node: it has no {IDENTITY_FILE} and {LOCK_FILE}",
                path.display()
            )));
        }
        let mut lock = File::open(&lock_path).map_err(io_error("open", &lock_path))?;
        try_lock(&mut lock, path, &lock_path)?;
        let room = Arc::new(DiskRoom::of(path));
        let (disk, held) = (Arc::new(RealDisk), Box::new(lock));
        Ok(DataDir { path: path.to_owned(), identity, room, disk, _held: held })
    }

    /// Stores with what this directory holds, in another directory: a copy of the log, for
    /// opening a log may change it, and links to the snapshots, which are large and only read.
    ///
    /// # Errors
    /// As [`DataDir::open_stores`].
    pub fn open_copies(
        &self,
        config: &StorageConfig,
        scratch: &Path,
    ) -> Result<Stores, StorageError> {
        let Some(identity) = self.identity else {
            let path = self.path.display();
            return Err(StorageError::ForeignData(format!("{path} is not initialized yet")));
        };
        let engine = identity.engine;
        if !engine.is_durable() {
            let message = format!("the storage engine {engine} leaves nothing to read");
            return Err(StorageError::ForeignData(message));
        }
        let (log, snapshots) = (scratch.join("log"), scratch.join("snapshots"));
        bring(&self.log_dir(), &log, |from, to| fs::copy(from, to).map(drop))?;
        let snapshots_dir = self.snapshots_dir();
        let absolute =
            fs::canonicalize(&snapshots_dir).map_err(io_error("find", &snapshots_dir))?;
        bring(&absolute, &snapshots, |from, to| std::os::unix::fs::symlink(from, to))?;
        let snapshots = Arc::new(SnapshotFiles::open(&snapshots)?);
        Ok(Stores { log: engine.open(&log, config, &Arc::new(DiskRoom::of(scratch)))?, snapshots })
    }
}

/// Brings every file below `from` below `to`, each in the given way.
fn bring(
    from: &Path,
    to: &Path,
    file: impl Fn(&Path, &Path) -> std::io::Result<()> + Copy,
) -> Result<(), StorageError> {
    create_dir(&RealDisk, to)?;
    for path in list(&RealDisk, from)? {
        let name = path.file_name().expect("a directory lists names");
        let target = to.join(name);
        if path.is_dir() {
            bring(&path, &target, file)?;
        } else {
            file(&path, &target).map_err(io_error("copy", &path))?;
        }
    }
    Ok(())
}
