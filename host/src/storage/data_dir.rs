//! The directory in which a node keeps everything, and what protects it from mistakes.
//!
//! ```text
//!   LOCK        held by the process that uses the directory; contains its pid
//!   IDENTITY    whose data this is (below); replaced atomically
//!   PLEDGE      which log and snapshots belong to it; see `lineage`
//!   RESERVE     room, for when the disk is full; holds nothing; see `room`
//!   INTENT      what an interrupted start has left to do; see `server`
//!   RECOVERY    what an interrupted recovery has come to; see `succession`
//!   RECOVERED   the plan that made the cluster, if one did; see `server`
//!   log/        the log store's own files
//!   snapshots/  see `snapshot_files`
//!   modules/    compiled modules; a cache, may be deleted while the node is down
//! ```
//!
//! `IDENTITY`, all numbers little-endian:
//!
//! ```text
//!   0   magic "RHDATADR"
//!   8   format version u32 = 2 | engine u32: its number in `engines`
//!   16  cluster id, 16 bytes | node id u64
//!   40  CRC-32 of bytes 0..40, u32
//! ```

mod lineage;
mod medium;
mod stopped;
mod succession;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::medium::{Held, Medium};
pub use self::succession::Succession;
use super::disk::{RealDisk, corrupt, create_dir, size_bytes};
use super::room::RESERVE_FILE;
use super::{
    DiskRoom, Engine, MemoryLog, MemorySnapshots, SnapshotDisk, SnapshotFiles, SpaceLimits,
    StorageConfig, StorageError, Stores,
};
use crate::types::{ClusterId, NodeId};

const MAGIC: &[u8; 8] = b"RHDATADR";
const FORMAT_VERSION: u32 = 2;
const IDENTITY_BYTES: usize = 44;
const LOCK_FILE: &str = "LOCK";
const IDENTITY_FILE: &str = "IDENTITY";
/// What may lie in a directory that is not ours yet: our own first steps, and what a freshly
/// made file system contains.
const HARMLESS: [&str; 6] =
    [LOCK_FILE, RESERVE_FILE, "IDENTITY.tmp", "INTENT", "INTENT.tmp", "lost+found"];

/// Whose data a directory holds. Written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node within it.
    pub node: NodeId,
    /// The engine that wrote the log.
    pub engine: Engine,
}

/// A data directory, locked against other processes while this value lives. Keep it for as
/// long as the stores opened from it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Option<NodeIdentity>,
    room: Arc<DiskRoom>,
    disk: Arc<dyn Medium>,
    /// The lock ends when it is dropped.
    _held: Held,
}

impl DataDir {
    /// Whether a directory is some node's, as far as its names tell; nothing is locked or read.
    pub fn is_some_nodes(path: &Path) -> bool {
        let signs = [IDENTITY_FILE, lineage::PLEDGE_FILE, succession::RECOVERY_FILE];
        signs.iter().any(|sign| path.join(sign).exists())
    }

    /// Locks a directory, creating it if it is missing, and reads whose it is.
    ///
    /// # Errors
    /// `ForeignData` when another process has it, when it holds files that are not ours, or
    /// data of a newer format; `LostPart` when its identity is gone; `Corrupt` when the identity is damaged; `Io` when it cannot be
    /// read or written. Nothing is deleted.
    pub fn lock(path: impl AsRef<Path>) -> Result<DataDir, StorageError> {
        DataDir::lock_on(Arc::new(RealDisk), path.as_ref())
    }

    /// As [`DataDir::lock`], on another disk.
    ///
    /// # Errors
    /// As [`DataDir::lock`].
    pub fn lock_on(disk: Arc<dyn Medium>, path: &Path) -> Result<DataDir, StorageError> {
        create_dir(&*disk, path)?;
        succession::refuse_interrupted(&*disk, path)?;
        refuse_strangers(&*disk, path)?;
        let held = disk.hold(path)?;
        let identity = read_identity(&*disk, &path.join(IDENTITY_FILE))?;
        let room = Arc::new(DiskRoom::of(path));
        Ok(DataDir { path: path.to_owned(), identity, room, disk, _held: held })
    }

    /// Whose data this is; `None` when it is nobody's yet.
    pub fn identity(&self) -> Option<NodeIdentity> {
        self.identity
    }

    /// Makes an empty directory a node's, durably.
    ///
    /// # Errors
    /// `ForeignData` when it is another's already, or for an engine that keeps nothing, which has no
    /// directory; `Io` when it cannot be written. Repeating it with the same identity is fine.
    pub fn initialize(&mut self, identity: NodeIdentity) -> Result<(), StorageError> {
        let engine = identity.engine;
        if !engine.is_durable() {
            return Err(StorageError::ForeignData(format!(
                "the storage engine {engine} keeps nothing, so it takes no data directory"
            )));
        }
        if self.identity.is_some() {
            return self.expect(Some(identity.cluster), Some(identity.node), engine);
        }
        lineage::begin(&*self.disk, &self.path, &identity)?;
        medium::write(&*self.disk, &self.path.join(IDENTITY_FILE), &encode(&identity))?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Checks that an initialized directory belongs to whom the caller means; `None` accepts
    /// any. A directory that is nobody's yet passes.
    ///
    /// # Errors
    /// `ForeignData`, with a sentence that says which of them differs and what to do.
    pub fn expect(
        &self,
        cluster: Option<ClusterId>,
        node: Option<NodeId>,
        engine: Engine,
    ) -> Result<(), StorageError> {
        let Some(found) = self.identity else { return Ok(()) };
        let path = self.path.display();
        if let Some(expected) = cluster.filter(|cluster| *cluster != found.cluster) {
            return Err(StorageError::ForeignData(format!(
                "{path} holds data of cluster {}, not of cluster {expected}; give another \
                 --data-dir, or remove this one if its data is no longer needed",
                found.cluster
            )));
        }
        if let Some(expected) = node.filter(|node| *node != found.node) {
            return Err(StorageError::ForeignData(format!(
                "{path} holds data of node {}, not of node {expected}; start it as node {}, or \
                 give another --data-dir",
                found.node, found.node
            )));
        }
        if engine != found.engine {
            return Err(StorageError::ForeignData(format!(
                "{path} was written with --storage-engine {}, not {engine}; start it with \
                 --storage-engine {}, or give another --data-dir",
                found.engine, found.engine
            )));
        }
        Ok(())
    }

    /// Opens the stores of an initialized directory with the engine that it was made for.
    ///
    /// # Errors
    /// `ForeignData` when the directory is nobody's yet; `LostPart` when one of its parts is missing,
    /// older than the others, or another node's; `Corrupt`, naming file and offset,
    /// when what is stored is not what was written.
    pub fn open_stores(&self, config: &StorageConfig) -> Result<Stores, StorageError> {
        let Some(identity) = self.identity else {
            let path = self.path.display();
            return Err(StorageError::ForeignData(format!("{path} is not initialized yet")));
        };
        let before = lineage::check(&*self.disk, &self.path, &identity)?;
        self.make_room(config);
        let disk: Arc<dyn SnapshotDisk> = self.disk.clone();
        let snapshots = Arc::new(SnapshotFiles::open_with_disk(&self.snapshots_dir(), disk)?);
        let log = self.disk.open_log(identity.engine, &self.log_dir(), config, &self.room)?;
        let stores = Stores { log, snapshots };
        lineage::advance(&*self.disk, &self.path, before, &stores)?;
        Ok(stores)
    }

    /// What its node has noted in a file of that name; `None`: nothing.
    ///
    /// # Errors
    /// `Io` when it cannot be read.
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        medium::read(&*self.disk, &self.path.join(name))
    }

    /// Notes that in a file of that name, in the place of what was noted there. Durable when this returns.
    ///
    /// # Errors
    /// `Io` when it cannot be written.
    pub fn set_note(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        medium::write(&*self.disk, &self.path.join(name), bytes)
    }

    /// Removes a file of that name, if there is one. Durable when this returns.
    ///
    /// # Errors
    /// `Io` when it cannot be removed.
    pub fn remove_note(&self, name: &str) -> Result<(), StorageError> {
        medium::forget(&*self.disk, &self.path.join(name))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The room that its disk has left.
    pub fn room(&self) -> &Arc<DiskRoom> {
        &self.room
    }

    /// A start writes a little. On a full disk that is what the reserve is for.
    fn make_room(&self, config: &StorageConfig) {
        let Ok(room) = self.room.measure() else { return };
        if room.free < SpaceLimits::of(config, room.total).critical
            && let Err(error) = self.room.let_go()
        {
            tracing::warn!(%error, "the reserve cannot be let go of");
        }
    }

    /// Where the log store keeps its files.
    pub fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where snapshots are.
    pub fn snapshots_dir(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Where compiled modules may be cached.
    pub fn module_cache_dir(&self) -> PathBuf {
        self.path.join("modules")
    }

    /// Length of all files together, but for what is held in reserve.
    ///
    /// # Errors
    /// `Io` when the directory cannot be listed.
    pub fn size_bytes(&self) -> Result<u64, StorageError> {
        Ok(size_bytes(&self.path)?.saturating_sub(self.room.reserve_bytes()))
    }
}

impl Stores {
    /// Stores in memory: they need no directory, and forget everything at exit.
    pub fn memory() -> Stores {
        let (log, snapshots) = (Arc::new(MemoryLog::new()), Arc::new(MemorySnapshots::new()));
        Stores { log, snapshots }
    }

    /// Stores of an engine that keeps nothing.
    ///
    /// # Errors
    /// As of that engine.
    pub fn without_directory(
        engine: Engine,
        config: &StorageConfig,
    ) -> Result<Stores, StorageError> {
        let room = Arc::new(DiskRoom::of(Path::new("")));
        let log = engine.open(Path::new(""), config, &room)?;
        Ok(Stores { log, snapshots: Arc::new(MemorySnapshots::new()) })
    }
}

/// Refuses a directory that has no identity but something else in it.
fn refuse_strangers(disk: &dyn Medium, path: &Path) -> Result<(), StorageError> {
    let mut strangers = medium::names(disk, path)?;
    if strangers.iter().any(|name| name == IDENTITY_FILE) {
        return Ok(());
    }
    strangers.retain(|name| !HARMLESS.contains(&&**name));
    if strangers.is_empty() || lineage::is_unborn(disk, path)? {
        return Ok(());
    }
    strangers.sort_unstable();
    let count = strangers.len();
    strangers.truncate(3);
    let ellipsis = if count > strangers.len() { ", …" } else { "" };
    Err(StorageError::ForeignData(format!(
        "{} is not a raft-host data directory: it has no {IDENTITY_FILE} file, but contains {}{ellipsis}; \
         give an empty or a new directory as --data-dir (nothing was changed)",
        path.display(),
        strangers.join(", ")
    )))
}

fn encode(identity: &NodeIdentity) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(IDENTITY_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&identity.engine.number().to_le_bytes());
    bytes.extend_from_slice(&identity.cluster.0);
    bytes.extend_from_slice(&identity.node.0.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn read_identity(disk: &dyn Medium, path: &Path) -> Result<Option<NodeIdentity>, StorageError> {
    let Some(bytes) = medium::read(disk, path)? else { return Ok(None) };
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| {
        StorageError::ForeignData(format!(
            "{} was not written by raft-host; give another --data-dir (nothing was changed)",
            path.display()
        ))
    })?;
    let version = rest.first_chunk().map_or(0, |version| u32::from_le_bytes(*version));
    if version > FORMAT_VERSION {
        return Err(StorageError::ForeignData(format!(
            "{} has format version {version}, but this raft-host knows versions up to \
             {FORMAT_VERSION}: it was written by a newer raft-host; start that one",
            path.display()
        )));
    }
    if version < FORMAT_VERSION {
        return Err(StorageError::ForeignData(format!(
            "{} has format version {version}, and this raft-host reads version {FORMAT_VERSION} only: \
             it was written before the formats were settled; go on with the raft-host that wrote it, or \
             give another --data-dir (nothing was changed)",
            path.display()
        )));
    }
    decode(&bytes).map(Some).map_err(|reason| corrupt(path, 0, reason))
}

fn decode(bytes: &[u8]) -> Result<NodeIdentity, String> {
    let bytes: &[u8; IDENTITY_BYTES] = bytes
        .try_into()
        .map_err(|_| format!("it has {} bytes, not {IDENTITY_BYTES}", bytes.len()))?;
    let number = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"));
    let engine =
        Engine::of_number(number).ok_or_else(|| format!("it names the unknown engine {number}"))?;
    let identity = NodeIdentity {
        cluster: ClusterId(bytes[16..32].try_into().expect("sixteen bytes")),
        node: NodeId(u64::from_le_bytes(bytes[32..40].try_into().expect("eight bytes"))),
        engine,
    };
    match encode(&identity) == bytes {
        true => Ok(identity),
        false => Err("its checksum does not fit".to_owned()),
    }
}

#[cfg(test)]
mod tests;
