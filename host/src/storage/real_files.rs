//! The files of the operating system, as raft-engine wants them.
//!
//! Its own `DefaultFileSystem` opens them so that every program gets them that this process starts: the
//! tools that build a module would have the log open, and could write to it. The standard library
//! has them closed when another program begins.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use super::disk::{Directories, RealDisk};
use super::room::DiskRoom;

/// Its owner writes, everybody reads.
const MODE: u32 = 0o644;

/// A file that is open.
#[derive(Debug)]
pub struct RealFile(File);

impl Handle for RealFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.0.set_len(offset as u64)
    }

    fn file_size(&self) -> io::Result<usize> {
        usize::try_from(self.0.metadata()?.len()).map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Reads and writes a file at a position of its own.
#[derive(Debug)]
pub struct Cursor {
    file: Arc<RealFile>,
    position: u64,
    /// What a write does that finds no room; without it, it fails.
    room: Option<Arc<DiskRoom>>,
}

impl Read for Cursor {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.0.read_at(bytes, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for Cursor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || self.file.0.write_at(bytes, self.position);
        let written = match &self.room {
            Some(room) => room.ride_out(write)?,
            None => write()?,
        };
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(by) => (self.position, by),
            SeekFrom::End(by) => (self.file.0.metadata()?.len(), by),
        };
        self.position = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.file.truncate(offset)?;
        self.position = offset as u64;
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let (file, none) = (self.file.0.as_raw_fd(), FallocateFlags::empty());
        match fallocate(file, none, offset as i64, size as i64) {
            // Not every file system can.
            Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
            allocated => Ok(allocated?),
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct RealFiles {
    room: Option<Arc<DiskRoom>>,
}

impl RealFiles {
    /// On a disk whose room is looked after.
    pub(super) fn within(room: &Arc<DiskRoom>) -> RealFiles {
        RealFiles { room: Some(Arc::clone(room)) }
    }
}

impl FileSystem for RealFiles {
    type Handle = RealFile;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(MODE);
        options.open(path).map(RealFile)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<RealFile> {
        let writes = permission == Permission::ReadWrite;
        OpenOptions::new().read(true).write(writes).open(path).map(RealFile)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn new_reader(&self, file: Arc<RealFile>) -> io::Result<Cursor> {
        Ok(Cursor { file, position: 0, room: None })
    }

    fn new_writer(&self, file: Arc<RealFile>) -> io::Result<Cursor> {
        Ok(Cursor { file, position: 0, room: self.room.clone() })
    }
}

impl Directories for RealFiles {
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

    fn forget_cached(&self, file: &Path) {
        RealDisk.forget_cached(file);
    }
}
