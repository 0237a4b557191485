//! A low-water mark of what is durable, kept beside an engine's files.
//!
//! An engine that finds a broken record at the end of its log cannot tell a write that a
//! crash cut short (harmless: nobody was told that it is durable) from a record that was
//! durable and has rotted since. The mark tells: after each successful fsync the new
//! durable position is written here, in place and *without* another fsync. What the mark
//! says is therefore always true. It survives the death of the process; after a power
//! loss it may be some seconds old, and the engine's own checks cover the rest. It is never
//! half new: it lies within the first sector of its file, which a disk writes whole.
//!
//! ```text
//!   0   magic "RHSYNCED"
//!   8   format version u32 = 1 | reserved u32 = 0
//!   16  four positions, u64 each, never decreasing; meaning given by the engine
//!   48  CRC-32 of bytes 0..48, u32
//! ```

use std::fmt;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_engine::env::{FileSystem, Handle as _, Permission, WriteExt as _};

use super::StorageError;
use super::disk::{Directories, corrupt, io_error, sync_dir};

const MAGIC: &[u8; 8] = b"RHSYNCED";
const VERSION: u32 = 1;
const BYTES: usize = 52;
/// Name of the file, beside the engine's own.
pub(super) const FILE_NAME: &str = "SYNCED";

/// The four numbers of a mark.
pub(super) type Positions = [u64; 4];

/// An open mark.
pub(super) struct Mark {
    path: PathBuf,
    file: Box<dyn MarkFile>,
    positions: Positions,
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark")
            .field("path", &self.path)
            .field("positions", &self.positions)
            .finish()
    }
}

/// The file of a mark, whatever file system it is on.
trait MarkFile: Send {
    fn rewrite(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

struct OpenFile<F: FileSystem> {
    handle: Arc<F::Handle>,
    writer: F::Writer,
}

impl<F: FileSystem> MarkFile for OpenFile<F> {
    fn rewrite(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.rewind()?;
        self.writer.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync()
    }
}

impl Mark {
    /// Opens the mark in `dir`; makes one of zeros if the engine has no data yet.
    pub(super) fn open<F: FileSystem + Directories + 'static>(
        file_system: &F,
        dir: &Path,
        has_data: bool,
    ) -> Result<Mark, StorageError> {
        let path = dir.join(FILE_NAME);
        let opened = match file_system.open(&path, Permission::ReadWrite) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_data {
                    let reason = "the file is missing, but the log beside it exists; restore it \
                                  together with the log";
                    return Err(corrupt(&path, 0, reason));
                }
                create(file_system, &path)?;
                file_system.open(&path, Permission::ReadWrite)
            }
            opened => opened,
        };
        let handle = Arc::new(opened.map_err(io_error("open", &path))?);
        let mut bytes = Vec::new();
        file_system
            .new_reader(handle.clone())
            .and_then(|mut reader| reader.read_to_end(&mut bytes))
            .map_err(io_error("read", &path))?;
        let positions = decode(&bytes).map_err(|(at, reason)| corrupt(&path, at, reason))?;
        let writer = file_system.new_writer(handle.clone()).map_err(io_error("open", &path))?;
        Ok(Mark { path, file: Box::new(OpenFile::<F> { handle, writer }), positions })
    }

    pub(super) fn positions(&self) -> Positions {
        self.positions
    }

    /// Notes new positions, which must be durable by now.
    pub(super) fn advance(&mut self, positions: Positions) -> Result<(), StorageError> {
        self.positions = positions;
        self.file.rewrite(&encode(&positions)).map_err(io_error("write", &self.path))
    }

    /// Makes the mark itself durable: before files that it vouches for are all that is left.
    pub(super) fn persist(&self) -> Result<(), StorageError> {
        self.file.sync().map_err(io_error("sync", &self.path))
    }
}

/// Makes a mark of zeros: after a crash it is there whole or not at all.
fn create(file_system: &(impl FileSystem + Directories), path: &Path) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    let create = || {
        let handle = Arc::new(file_system.create(&temporary)?);
        let mut writer = file_system.new_writer(handle.clone())?;
        // An earlier attempt may have left something behind.
        writer.truncate(0)?;
        writer.write_all(&encode(&Positions::default()))?;
        handle.sync()
    };
    create().map_err(io_error("create", &temporary))?;
    file_system.rename(temporary.as_path(), path).map_err(io_error("rename", &temporary))?;
    sync_dir(file_system, super::disk::parent_of(path))
}

fn encode(positions: &Positions) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    for (slot, position) in bytes[16..48].chunks_exact_mut(8).zip(positions) {
        slot.copy_from_slice(&position.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes[..48]);
    bytes[48..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Positions, (u64, String)> {
    let bytes: &[u8; BYTES] = bytes
        .try_into()
        .map_err(|_| (bytes.len() as u64, format!("{} bytes, not {BYTES}", bytes.len())))?;
    let mut positions = Positions::default();
    for (slot, position) in bytes[16..48].chunks_exact(8).zip(&mut positions) {
        *position = u64::from_le_bytes(slot.try_into().expect("chunks of eight"));
    }
    if encode(&positions) != *bytes {
        return Err((0, "magic, version or checksum do not fit".to_owned()));
    }
    Ok(positions)
}
