//! A disk in memory that misbehaves on request, under the product's own log and snapshots.
//!
//! Knows nothing of nodes and of time. One seed decides everything: the same operations and
//! faults give the same bytes.
//!
//! ```text
//!   RaftEngineLog --> raft-engine --\                  /--> SimFile: cache | medium
//!                                    >-- Mount -- State
//!   SnapshotFiles ------------------/     |            \--> Names: current | durable
//!                                         +--> empty files in a real directory
//! ```
//!
//! raft-engine 0.4.2 looks for the names of its files in a real directory, and syncs and
//! locks that itself. So each disk has one, in which a file without content stands for each
//! log file; and log files appear and disappear durably at once, as if that sync always
//! came in time. All other names are lost at a power loss if their directory was not synced.
//!
//! A [`SimDisk`] outlives the process that uses it. To crash a node: [`SimDisk::crash`],
//! drop its stores (what they still try is refused), [`SimDisk::open_stores`]. The old stores
//! must be gone by then, for raft-engine holds a lock.

mod access;
#[cfg(test)]
mod directories;
mod file;
mod log;
mod names;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use raft_host::storage::{
    DataDir, NodeIdentity, SnapshotFiles, StorageConfig, StorageError, Stores, Succession,
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

pub use self::access::{Cursor, Mount, OpenFile};
use self::log::SimLog;
use self::state::{Ambush, State};
pub use self::state::{DiskEvent, DiskStats, Fault, FileKind};

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed. What was written is still there, unless a sync of it failed.
    Kill,
    /// The machine loses power. Of what was not synced some sectors survive, or the first
    /// bytes, or all or nothing; of names that were not synced, some.
    PowerLoss,
}

/// See the module.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Removed with the last clone.
    real: Arc<tempfile::TempDir>,
}

/// Where real directories are: in memory, if there is such a place.
fn real_root() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Before the process id in the name of a real directory.
const PREFIX: &str = "raft-host-sim-";

/// A directory that goes with its last owner.
fn real_dir() -> std::io::Result<tempfile::TempDir> {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(real_root())
}

/// Removes the directories of simulators that were killed.
///
/// # Errors
/// When the place of such directories cannot be listed.
pub fn remove_stale() -> std::io::Result<()> {
    let is_stale = |name: &str| {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        process.is_some_and(|(id, _)| {
            id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists()
        })
    };
    if !Path::new("/proc/self").exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(real_root())? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_stale) {
            // Somebody else may be at it, or it belongs to another user.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

impl SimDisk {
    /// An empty disk. The seed decides the outcome of faults that are ordered now and strike
    /// later.
    ///
    /// # Errors
    /// When the real directory cannot be made.
    pub fn new(seed: u64) -> std::io::Result<SimDisk> {
        let real = real_dir()?;
        std::fs::create_dir(real.path().join("log"))?;
        let state = State::new(real.path(), seed);
        Ok(SimDisk { state: Arc::new(Mutex::new(state)), real: Arc::new(real) })
    }

    /// Another disk with the same contents, cache and medium. Whoever uses this one has no part in it.
    ///
    /// # Errors
    /// When the real directory cannot be made.
    pub fn copy(&self, seed: u64) -> std::io::Result<SimDisk> {
        let real = real_dir()?;
        std::fs::create_dir(real.path().join("log"))?;
        let state = self.state().copy(real.path(), seed);
        access::mirror_all(&state, real.path())?;
        Ok(SimDisk { state: Arc::new(Mutex::new(state)), real: Arc::new(real) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        access::lock(&self.state)
    }

    fn log_dir(&self) -> PathBuf {
        self.real.path().join("log")
    }

    /// The disk for whoever starts now; the next crash takes it away.
    pub fn mount(&self) -> Mount {
        Mount::new(self.state.clone(), self.real.path().to_owned())
    }

    /// Opens the product's stores, as a node does when it starts.
    ///
    /// # Errors
    /// What the stores say. See [`SimDisk::describe`] for a text that is the same each time.
    pub fn open_stores(&self, config: &StorageConfig) -> Result<Stores, StorageError> {
        let mount = Arc::new(self.mount());
        let log = SimLog::open(&self.log_dir(), config, mount.clone())?;
        let snapshots = self.real.path().join("snapshots");
        let snapshots = SnapshotFiles::open_with_disk(&snapshots, mount)?;
        Ok(Stores { log: Arc::new(log), snapshots: Arc::new(snapshots) })
    }

    /// The data directory on it, as a node takes it when it starts.
    ///
    /// # Errors
    /// Those of [`DataDir::lock_on`].
    pub fn data_dir(&self) -> Result<DataDir, StorageError> {
        DataDir::lock_on(Arc::new(self.mount()), self.real.path())
    }

    /// Opens the stores of the data directory as a node's start does, which makes it that node's if it is nobody's.
    ///
    /// # Errors
    /// Those of [`DataDir`].
    pub fn open_as(
        &self,
        identity: NodeIdentity,
        config: &StorageConfig,
    ) -> Result<Stores, StorageError> {
        let mut dir = self.data_dir()?;
        dir.initialize(identity)?;
        dir.open_stores(config)
    }

    /// The data directory that a succession has put aside, or that it makes.
    ///
    /// # Errors
    /// Those of [`DataDir::lock_on`].
    pub fn data_dir_at(&self, path: &Path) -> Result<DataDir, StorageError> {
        DataDir::lock_on(Arc::new(self.mount()), path)
    }

    /// Begins to put other contents in the place of those of the data directory, or goes on with that.
    ///
    /// # Errors
    /// Those of [`Succession::begin_on`].
    pub fn succession(&self, tag: &str) -> Result<Succession, StorageError> {
        Succession::begin_on(Arc::new(self.mount()), self.real.path(), tag)
    }

    /// A message of the stores without the name of the real directory, which is another one
    /// in each run.
    pub fn describe(&self, message: impl std::fmt::Display) -> String {
        let root = self.real.path().display().to_string();
        message.to_string().replace(&root, "disk")
    }

    /// Ends whatever uses the disk, and lets it work again for who comes next. Faults that
    /// were ordered and have not struck are forgotten, but for the capacity.
    ///
    /// # Panics
    /// When the real directory cannot be changed.
    pub fn crash(&self, rng: &mut ChaCha8Rng, crash: Crash) -> DiskEvent {
        let mut state = self.state();
        match crash {
            Crash::Kill => state.kill(rng),
            Crash::PowerLoss => {
                let event = state.lose_power(rng);
                // Directories may be gone, or have the names that they had.
                access::mirror_all(&state, self.real.path()).expect("a directory in memory");
                event
            }
        }
    }

    /// The next syncs fail, of files and directories. What was not synced may be durable or
    /// not, and no later sync will write it.
    pub fn fail_syncs(&self, count: u32) {
        self.state().syncs_to_fail = count;
    }

    /// Bounds the length of all files together; a write beyond it is cut short, then fails.
    /// `u64::MAX`: no bound.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Whether there is such a bound.
    pub fn is_bounded(&self) -> bool {
        self.state().capacity_bytes != u64::MAX
    }

    /// After so many more operations that change something everything fails, until the next
    /// crash. The first to fail may have happened, or in part.
    pub fn die_after(&self, operations: u64) {
        self.state().operations_left = Some(operations);
    }

    /// Whether that has come to pass.
    pub fn is_dead(&self) -> bool {
        self.state().is_dead()
    }

    /// The next write to a file of that kind is acknowledged, and so is its sync, but the
    /// medium never sees it. The cache has it until the next crash.
    pub fn lose_next_write(&self, kind: FileKind) {
        self.state().ambush = Some(Ambush { kind, is_misdirected: false });
    }

    /// The next write to a file of that kind lands somewhere else: in the same file, or
    /// another of its kind. The cache does not know, until the next crash.
    pub fn misdirect_next_write(&self, kind: FileKind) {
        self.state().ambush = Some(Ambush { kind, is_misdirected: true });
    }

    /// Flips a bit of a file at rest; the next reader sees it. With `detectable_only` it is
    /// one that the product promises to notice at its next start, or when it reads the
    /// snapshot, as long as the file is still there: not beyond what the mark calls durable
    /// in the last log file of a queue, where it is taken for a torn tail.
    ///
    /// `None`: there is no such bit.
    pub fn rot(&self, rng: &mut ChaCha8Rng, detectable_only: bool) -> Option<DiskEvent> {
        self.state().rot(rng, detectable_only)
    }

    /// The kernel writes some of its cache to the medium, as it does every now and then.
    pub fn write_back(&self, rng: &mut ChaCha8Rng) {
        for file in self.state().files.values_mut() {
            if rng.random() {
                file.write_back(rng);
            }
        }
    }

    /// The kernel forgets what it takes for written: lost and misdirected writes show.
    pub fn drop_caches(&self) {
        for file in self.state().files.values_mut() {
            file.forget_cache(|| true);
        }
    }

    /// Faults that struck since the last call: of those ordered in advance.
    pub fn take_events(&self) -> Vec<DiskEvent> {
        std::mem::take(&mut self.state().events)
    }

    /// What the disk did so far.
    pub fn stats(&self) -> DiskStats {
        self.state().stats.clone()
    }

    /// Length of all files together, space that is allocated ahead included.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Length of the log's files together.
    pub fn log_bytes(&self) -> u64 {
        self.state().log_bytes()
    }

    /// What is on the medium, by name relative to the disk.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let files = state.names.durable_files();
        files.map(|(path, id)| (state.relative(path), state.files[&id].durable_bytes())).collect()
    }
}
